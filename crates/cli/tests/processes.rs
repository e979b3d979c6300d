//! The device, the precision and the number of processes of a run.
#![cfg(unix)]

mod common;

use common::{SHORT, workspace};
use std::path::Path;

fn losses(root: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    let lines = log.lines().flat_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        ["loss", "base", "grad_norm"].map(|key| line[key].as_f64().unwrap())
    });
    lines.collect()
}

fn assert_close(a: &[f64], b: &[f64], bound: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= bound * a.abs(), "{a} {b}");
    }
}

/// The arguments of a short run on the CPU with this name, and `more`.
fn with<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&SHORT[..SHORT.len() - 1], &["--device=cpu", name], more].concat()
}

#[test]
fn two_processes_train_like_one_and_continue_its_run() {
    let place = workspace();
    place.run(&with("--name=alone", &[])).ok();
    let run = place.run(&with("--name=pair", &["--gpus=2"])).ok();
    assert!(run.err.contains("by 2 processes"), "{run:?}");
    assert_eq!(run.err.matches("writes runs/pair").count(), 1, "{run:?}");
    let (alone, pair) = (place.path("runs/alone"), place.path("runs/pair"));
    assert_close(&losses(&alone), &losses(&pair), 1e-4);
    for file in ["final.safetensors", "samples/step-000008.png", "plan.toml"] {
        assert!(pair.join(file).is_file(), "{file}");
    }

    // Six steps by one process, the last two by two.
    place
        .run(&with("--name=short", &["--set=loop.steps=6"]))
        .ok();
    let on = [
        "train",
        "--resume",
        "runs/short",
        "--steps=8",
        "--device=cpu",
    ];
    place.run(&[&on[..], &["--gpus=2"]].concat()).ok();
    assert_close(
        &losses(&alone)[6..],
        &losses(&place.path("runs/short"))[6..],
        1e-4,
    );
}

#[test]
fn an_invalid_number_of_processes_is_refused() {
    let place = workspace();
    let alone = |variables: &[(&str, &str)]| {
        let mut command = place.command(&with("--name=x", &[]));
        command.envs(variables.iter().copied());
        common::Run::from(command.output().unwrap())
    };
    alone(&[("WORLD_SIZE", "2"), ("RANK", "5")]).fails(2, &["RANK", "up to 1", "\"5\""]);
    alone(&[("WORLD_SIZE", "many")]).fails(2, &["WORLD_SIZE", "\"many\""]);
    // A batch that is too small for the processes: rank 0 reports it, and the other ranks exit.
    place
        .run(&with("--name=few", &["--gpus=3", "--set=loop.batch=2"]))
        .fails(2, &["loop.batch", "3 processes"]);
    assert!(!place.path("runs/few").exists());
    place
        .run(&["train", "--gpus=0"])
        .fails(2, &["--gpus", "from 1 to 4096"]);
}

#[test]
fn half_precision_trains_and_is_recorded_and_can_be_undone() {
    let place = workspace();
    place.run(&with("--name=f32", &[])).ok();
    place.run(&with("--name=bf16", &["--precision=bf16"])).ok();
    place.run(&with("--name=f16", &["--precision=f16"])).ok();
    let of = |name: &str| losses(&place.path(&format!("runs/{name}")));
    assert_close(&of("f32"), &of("bf16"), 0.05);
    assert_close(&of("f32"), &of("f16"), 0.01);
    assert_ne!(of("f32"), of("bf16"));
    let plan = |name: &str| {
        std::fs::read_to_string(place.path(&format!("runs/{name}/plan.toml"))).unwrap()
    };
    assert!(plan("f32").contains("precision = \"f32\""));
    assert!(plan("bf16").contains("precision = \"bf16\""));
    // The loss scale of f16 is part of a checkpoint.
    let state = place.path("runs/f16/checkpoints/step-000008/state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    let scale = state["position"]["loss_scale"][0].as_u64().unwrap();
    assert_eq!(f64::from_bits(scale), 65_536.0);
    assert_eq!(state["position"]["loss_scale"][1], 8);
    let on = [
        "train",
        "--resume",
        "runs/bf16",
        "--steps=10",
        "--device=cpu",
    ];
    place.run(&[&on[..], &["--precision=f32"]].concat()).ok();
    assert!(plan("bf16").contains("precision = \"f32\""));
    place
        .run(&[
            "sample",
            "--model=runs/f16",
            "--n=1",
            "--steps=ddim5",
            "--precision=bf16",
        ])
        .ok();
}

#[test]
fn a_missing_device_is_refused() {
    let place = workspace();
    place
        .run(&["train", "--device=gpu"])
        .fails(2, &["--device", "cuda:N", "gpu"]);
    if cfg!(not(feature = "cuda")) {
        place.run(&["sample", "--n=1", "--device=cuda:1"]).fails(
            2,
            &["cuda:1", "built without support for GPUs", "--device cpu"],
        );
        assert!(!place.path("samples").exists());
        place
            .run(&["evaluate", "--real=digits", "--fake=.", "--device=cuda"])
            .fails(2, &["cuda:0", "built without support for GPUs"]);
    }
    place
        .run(&["evaluate", "--real=digits", "--fake=.", "--precision=f16"])
        .fails(2, &["--precision f16", "evaluate computes in f32 or bf16"]);
    place
        .run(&["evaluate", "--real=digits", "--fake=.", "--precision=bf16"])
        .fails(2, &["--precision bf16", "judge of the digits"]);
    for command in [&["train"][..], &["evaluate", "--real=digits", "--fake=."]] {
        place
            .run(&[command, &["--precision=tf32", "--device=cpu"]].concat())
            .fails(2, &["--precision tf32", "only GPUs"]);
    }
    place
        .run(&["train", "--precision=f8"])
        .fails(2, &["--precision", "bf16"]);
}
