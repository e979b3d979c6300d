//! Commands that `cargo xtask` answers without building anything.

use std::process::{Command, Output};

/// Runs with a cargo that cannot be started, so every attempt to build fails.
fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(args)
        .env("CARGO", "there is no such program")
        .env("HF_HOME", "nowhere")
        .output()
        .unwrap()
}

#[test]
fn help_of_all_verbs_but_the_programs_own_needs_no_build() {
    for (args, text) in [
        (&["help"][..], "Usage: cargo xtask VERB"),
        (&["--help"], "Usage: cargo xtask VERB"),
        (&["ci", "--help"], "Usage: cargo xtask ci"),
        (&["tidy", "-h"], "Usage: cargo xtask tidy"),
        (&["test", "--help"], "Usage: cargo xtask test"),
        (&["bench", "--help"], "--peer"),
        (&["help", "bench"], "--peer"),
        (&["bench", "--only", "conv", "--help"], "--peer"),
        (&["gpu-report", "--help"], "--python"),
        (&["parity", "--help"], "--kind"),
        (&["fetch", "--help"], "--all-for"),
        (&["push", "--help"], "--card-only"),
        (&["data", "prepare", "--help"], "--exclude"),
        (&["fetch", "--list"], "ffhq-10m"),
        (&["fetch", "--list", "metfaces"], "metfaces"),
    ] {
        let output = run(args);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(out.contains(text), "{args:?}: {out}");
    }
}

#[test]
fn misspelt_names_are_answered_without_building() {
    for (args, text) in [
        (&["trian"][..], "did you mean train?"),
        (&["fetch", "--list", "ffhq10m"], "did you mean ffhq-10m?"),
        (&["ci", "now"], "takes no arguments"),
    ] {
        let output = run(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(err.contains(text), "{args:?}: {err}");
    }
    // Everything else is built.
    assert_eq!(run(&["train", "--help"]).status.code(), Some(1));
    assert_eq!(run(&["fetch", "ffhq-10m"]).status.code(), Some(1));
}
