//! Adapters in the commands that take a model.
#![cfg(unix)]

mod common;

use common::{SHORT, Workspace, files, translate, workspace};

/// A workspace with inputs in `in` and a LoRA of the digits' source in `runs/short`.
fn place_with_lora() -> Workspace {
    let place = common::place_with_inputs();
    let lora = [
        "--set",
        "adapter.kind=lora",
        "--set",
        "adapter.rank=2",
        "--set",
        "optim.lr=0.01",
    ];
    place.run(&[&SHORT[..], &lora].concat()).ok();
    place
}

fn sample(place: &Workspace, out: &str, more: &[&str]) -> Vec<(String, Vec<u8>)> {
    let usual = ["sample", "-n", "2", "--steps", "ddim4", "--out", out];
    place.run(&[&usual[..], more].concat()).ok();
    files(&place.path(out))
}

#[test]
fn a_model_with_its_adapter_makes_the_images_of_the_finished_run() {
    let place = place_with_lora();
    let finished = sample(&place, "finished", &["--model", "runs/short"]);
    let base = ["--model", "digits-source", "--adapter"];
    let of = |out: &str, adapter: &str| sample(&place, out, &[&base[..], &[adapter]].concat());
    assert!(of("run", "runs/short") == finished);
    assert!(of("file", "runs/short/adapter.safetensors=1") == finished);
    assert!(of("half", "runs/short=0.5") != finished);
    place
        .run(&[
            "convert",
            "runs/short/adapter.safetensors",
            "peft",
            "--to",
            "peft",
        ])
        .ok();
    assert!(of("peft-images", "peft") == finished);

    translate(&place, &["--model", "runs/short", "--out", "a"]).ok();
    let adapted = ["--model", "digits-source", "--adapter", "runs/short"];
    translate(&place, &[&adapted[..], &["--out", "b"]].concat()).ok();
    assert!(files(&place.path("a")) == files(&place.path("b")));

    // The finished run is not the base.
    let twice = ["sample", "--model", "runs/short", "--adapter", "runs/short"];
    place.run(&twice).fails(
        1,
        &[
            "another network",
            "adapter.safetensors",
            "final.safetensors",
        ],
    );
    let alone = ["sample", "--model", "runs/short/adapter.safetensors"];
    place
        .run(&alone)
        .fails(1, &["found an adapter", "--adapter"]);
}

#[test]
fn a_merged_file_is_the_finished_run_and_options_without_effect_are_refused() {
    let place = workspace();
    let scratch = [
        "--method",
        "scratch",
        "--config=digits-scratch",
        "--name=base",
    ];
    let common = [&SHORT[..15], &["--set", "optim.lr=0.01"]].concat();
    place.run(&[&common[..], &scratch].concat()).ok();
    let lora = [
        "--source",
        "runs/base",
        "--data",
        "digits",
        "--method",
        "naive",
        "--name=tuned",
        "--set",
        "adapter.kind=difffit",
    ];
    place.run(&[&common[..], &lora].concat()).ok();
    let convert = ["convert", "runs/base", "merged.safetensors", "--adapter"];
    place.run(&[&convert[..], &["runs/tuned"]].concat()).ok();
    let merged = sample(&place, "merged", &["--model", "merged.safetensors"]);
    assert!(merged == sample(&place, "tuned", &["--model", "runs/tuned"]));
    assert!(merged != sample(&place, "base", &["--model", "runs/base"]));
    let peft = ["convert", "runs/tuned", "peft", "--to", "peft"];
    place.run(&peft).fails(1, &["for LoRA, found DiffFit"]);
    place
        .run(&[&peft[..], &["--dtype", "f16"]].concat())
        .fails(2, &["--dtype has no effect"]);
}
