//! The program `sdft-fetch` as users and other programs run it.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{COMMIT, Fault, Server, content};

const N: usize = 3_000_000;
const FILE: &str = "hf:owner/name/b.pt";

fn program(server: &str, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdft-fetch"));
    command
        .current_dir(home)
        .env_clear()
        .env("SDFT_XTASK", "1")
        .env("HF_ENDPOINT", server)
        .env("HF_HOME", home);
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_killed_download_is_resumed() {
    let bytes = content(N);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.gets(&[Fault::Trickle(20_000, 2), Fault::Trickle(20_000, 2)]);
    let home = tempfile::tempdir().unwrap();
    let hash = sdft_files::sha256_bytes(&bytes);
    let part = home
        .path()
        .join(format!("hub/models--owner--name/blobs/{hash}.incomplete"));
    for round in 1..=2 {
        let mut child = program(&server.address, home.path())
            .args([FILE])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let enough = (round * N / 3) as u64;
        while fs::metadata(&part).map_or(0, |m| m.len()) < enough {
            assert!(start.elapsed() < Duration::from_secs(20), "no data arrives");
            thread::sleep(Duration::from_millis(2));
        }
        // SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let kept = fs::metadata(&part).unwrap().len();
    let (code, out, err) = run(program(&server.address, home.path()).args([FILE]));
    assert_eq!(code, Some(0), "{err}");
    let path = home
        .path()
        .join("hub/models--owner--name/snapshots")
        .join(COMMIT)
        .join("b.pt");
    assert_eq!(out.trim(), path.display().to_string());
    assert!(fs::read(path).unwrap() == bytes);
    // Bytes that have arrived are not requested again.
    let from: Vec<_> = server
        .log()
        .iter()
        .filter(|r| r.method == "GET")
        .map(|r| r.from)
        .collect();
    assert_eq!(from.last().unwrap(), &Some(usize::try_from(kept).unwrap()));
}

#[test]
fn two_processes_share_one_transfer() {
    let bytes = content(N);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.gets(&[Fault::Trickle(50_000, 5)]);
    let home = tempfile::tempdir().unwrap();
    let outputs: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| run(program(&server.address, home.path()).args([FILE]))))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (code, out, err) in outputs {
        assert_eq!(code, Some(0), "{err}");
        assert!(fs::read(out.trim()).unwrap() == bytes);
    }
    assert_eq!(server.count("GET"), 1);
}

#[test]
fn offline_and_unknown_names_are_explained() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:9";
    let (code, _, err) = run(program(nowhere, home.path()).args(["ffhq10m"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("did you mean ffhq-10m?"), "{err}");

    let (code, _, err) = run(program(nowhere, home.path()).args(["ffhq-10m", "--offline"]));
    assert_eq!(code, Some(1));
    for text in [
        "network is disabled",
        "374.4 MB",
        "hf download deepinv/diffunet",
        "HF_ENDPOINT",
        "licence",
    ] {
        assert!(err.contains(text), "{text}: {err}");
    }
    assert!(err.lines().count() <= 24, "{err}");

    let mut offline = program(nowhere, home.path());
    let (code, _, err) = run(offline.env("HF_HUB_OFFLINE", "1").args([FILE]));
    assert_eq!(code, Some(1));
    assert!(err.contains("network is disabled"), "{err}");

    let (code, _, err) = run(program(nowhere, home.path()).args(["ffhq-p2"]));
    assert_eq!(code, Some(1));
    assert!(
        err.contains("checkpoints/ffhq_p2.pt") && err.contains("Google Drive"),
        "{err}"
    );

    let (code, _, err) = run(program(nowhere, home.path()).args(["hf:owner/name"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("hf:OWNER/NAME[@REVISION]/PATH"), "{err}");

    let (code, _, err) = run(&mut program(nowhere, home.path()));
    assert_eq!(code, Some(2));
    assert!(err.contains("nothing to fetch"), "{err}");
    assert!(!home.path().join("hub").exists());
}

#[test]
fn an_experiment_lists_all_its_assets() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = run(program("http://127.0.0.1:9", home.path()).args([
        "--all-for",
        "metfaces",
        "--offline",
    ]));
    assert_eq!(code, Some(1));
    for text in [
        "ffhq-10m: ",
        "metfaces: ",
        "inception: ",
        "irse50: ",
        "ffhq-256: ",
        "checkpoints/ffhq_p2.pt",
        "7 of 7 are not in the cache, about 10.",
    ] {
        assert!(err.contains(text), "{text}: {err}");
    }
    assert!(!err.contains("onion-liu"), "{err}");
    let (code, _, err) =
        run(program("http://127.0.0.1:9", home.path()).args(["--all-for", "metface"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("aahq, metfaces"), "{err}");
}

#[test]
fn the_list_is_printed_and_a_misspelt_name_is_reported() {
    let home = tempfile::tempdir().unwrap();
    let list = |args: &[&str]| run(program("http://127.0.0.1:9", home.path()).args(args));
    let (code, out, _) = list(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("\n  ffhq-10m ") && out.contains("\n  ffhq-p2 "),
        "{out}"
    );
    let (code, _, err) = list(&["--list", "ffhq10m"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("did you mean ffhq-10m?"), "{err}");
}

#[test]
fn an_installed_program_names_itself_in_its_help_and_errors() {
    let home = tempfile::tempdir().unwrap();
    for (words, usage) in [
        (&["--help"][..], "Usage: sdft-fetch [OPTIONS]"),
        (&["push", "--help"], "Usage: sdft-fetch push "),
        (&["push", "--nowhere"], "Usage: sdft-fetch push "),
        (&["--nowhere"], "Usage: sdft-fetch "),
    ] {
        let installed = run(program("", home.path())
            .env_remove("SDFT_XTASK")
            .args(words));
        let built = run(program("", home.path()).args(words));
        let text = [&installed.1, &installed.2].map(String::as_str).concat();
        assert!(text.contains(usage), "{text}");
        assert!(!text.contains("cargo xtask fetch"), "{text}");
        assert!([built.1, built.2].concat().contains("Usage: cargo xtask "));
        assert_eq!(installed.0, built.0);
        assert_eq!(
            installed.0,
            Some(if words.contains(&"--help") { 0 } else { 2 })
        );
    }
}
