//! A finished run, and the program that publishes it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sdft_hub::{Publication, Settings, Target};

use super::{Server, content, quick};

pub(crate) const TOKEN: &str = "hf_secret";

/// A finished run with everything that training writes.
pub(crate) fn run_in(root: &Path) -> PathBuf {
    let run = root.join("cats-sdft");
    let weights = content(300_000);
    let write = |name: &str, bytes: &[u8]| {
        let path = run.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let plan = format!(
        "name = \"cats-sdft\"\nmethod = \"sdft\"\nsource = \"{0}/source.pt\"\n[data]\npath = \"{0}/photos\"\n[loop]\nsteps = 20\n[eval]\nsamples = 64\n",
        root.display()
    );
    write("plan.toml", plan.as_bytes());
    write("final.safetensors", &weights);
    write("best.safetensors", b"the best weights");
    write(
        "SHA256SUMS",
        format!(
            "{}  final.safetensors\n",
            sdft_files::sha256_bytes(&weights)
        )
        .as_bytes(),
    );
    write(
        "log.jsonl",
        b"{\"step\":20,\"eval.kid\":1.25,\"time\":{\"unix\":1}}\n",
    );
    for name in [
        "run.lock",
        "events.out.tfevents.sdft",
        "checkpoints/step-000020/optimizer.safetensors",
        "checkpoints/step-000020/state.json",
        "samples/step-000010.png",
        "samples/step-000020.png",
        "samples/neighbours-000020.png",
        "notes.txt",
    ] {
        write(name, name.as_bytes());
    }
    run
}

pub(crate) fn target() -> Target {
    Target::parse("ann/cats", None).unwrap()
}

pub(crate) fn publication(run: &Path) -> Publication {
    Publication::of(run, target(), &[]).unwrap()
}

pub(crate) fn settings(server: &Server, home: &Path) -> Settings {
    quick(Settings::new(&server.address, home)).with_token(TOKEN)
}

/// The program as users run it, with a token.
pub(crate) fn push(server: &Server, home: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_sdft-fetch"))
        .arg("push")
        .args(args)
        .current_dir(home)
        .env_clear()
        .env("SDFT_XTASK", "1")
        .env("HF_ENDPOINT", &server.address)
        .env("HF_HOME", home)
        .env("HF_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}
