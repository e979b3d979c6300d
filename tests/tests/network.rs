//! `sdft` and `sdft-prepare` are built without a network client and without the dependencies of `sdft-fetch`.

use std::collections::BTreeSet;
use std::process::Command;

/// The packages that a package depends on, on this system.
fn tree(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--format", "{lib}", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn sdft_and_prepare_have_no_network_client() {
    const CLIENTS: [&str; 14] = [
        "hf_hub",
        "reqwest",
        "ureq",
        "hyper",
        "curl",
        "isahc",
        "attohttpc",
        "minreq",
        "tokio",
        "mio",
        "socket2",
        "rustls",
        "native_tls",
        "candle_datasets",
    ];
    for package in ["sdft-cli", "sdft-prepare", "xtask"] {
        let tree = tree(package);
        for client in CLIENTS.iter().chain(&["sdft_hub"]) {
            assert!(!tree.contains(*client), "{package} is built from {client}");
        }
    }
    let training = tree("sdft-cli");
    for reader in ["parquet", "sdft_prepare"] {
        assert!(
            !training.contains(reader),
            "sdft-cli is built from {reader}"
        );
    }
    // The names are those that cargo prints: a client that is there is found.
    let fetching = tree("sdft-hub");
    for client in ["reqwest", "hyper", "tokio", "rustls"] {
        assert!(fetching.contains(client), "{client}: {fetching:?}");
    }
    assert!(training.contains("candle_core"));
}

#[test]
fn prepare_has_neither_network_client_nor_tensor_library() {
    for package in ["sdft-prepare", "xtask"] {
        let tree = tree(package);
        for heavy in ["candle_core", "gemm", "hf_hub", "xet_client"] {
            assert!(!tree.contains(heavy), "{package} is built from {heavy}");
        }
    }
}
