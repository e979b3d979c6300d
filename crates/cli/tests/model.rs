//! A run folder is accepted as its model everywhere, and damaged files in it are not used.

mod common;

use common::{Run, SHORT, Workspace, workspace};
use std::path::Path;

fn sample(place: &Workspace, model: &str, out: &str) -> Run {
    let args = [
        "sample", "--model", model, "-n", "1", "--steps", "ddim2", "--out", out,
    ];
    place.run(&args)
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_model_is_skipped_for_the_newest_whole_one() {
    let place = workspace();
    place.run(&SHORT).ok();
    let root = place.path("runs/short");
    let checkpoint = |step: u64| root.join(format!("checkpoints/step-{step:06}"));
    let drawn = |out: &str| std::fs::read(place.path(&format!("{out}/00000.png"))).unwrap();
    let undamaged = sample(&place, "runs/short", "a").ok();
    assert!(!undamaged.err.contains("skipped:"), "{undamaged:?}");

    // A damaged file given by path is not replaced by another.
    let best = root.join("checkpoints/step-000008/ema.safetensors");
    damage(&best);
    for command in [&["inspect"][..], &["sample", "--model"]] {
        let file = best.to_str().unwrap();
        place
            .run(&[command, &[file]].concat())
            .fails(1, &["ema.safetensors is damaged", "SHA256SUMS"]);
    }
    damage(&best);

    // The average in the newest checkpoint is the finished model.
    damage(&root.join("final.safetensors"));
    let run = sample(&place, "runs/short", "b").ok();
    for word in ["final.safetensors is damaged", "SHA-256", "step 8 instead"] {
        assert!(run.err.contains(word), "{word}: {run:?}");
    }
    assert_eq!(drawn("a"), drawn("b"));

    // `latest` names a damaged checkpoint; another is cut off, a third has another position.
    damage(&checkpoint(8).join("ema.safetensors"));
    std::fs::remove_file(checkpoint(6).join("SHA256SUMS")).unwrap();
    let run = sample(&place, "runs/short", "c").ok();
    for word in [
        "step-000008: ema.safetensors is damaged",
        "step-000006",
        "step 4 instead",
    ] {
        assert!(run.err.contains(word), "{word}: {run:?}");
    }
    sample(&place, "runs/short/checkpoints/step-000004", "d").ok();
    assert_eq!(drawn("c"), drawn("d"));
    sample(&place, "runs/short/checkpoints/step-000008", "e")
        .fails(1, &["ema.safetensors is damaged", "expected SHA-256"]);
    for step in [4, 6, 8] {
        std::fs::write(checkpoint(step).join("state.json"), b"{}").unwrap();
    }
    sample(&place, "runs/short", "e").fails(1, &["every model here is damaged", "state.json"]);
    assert!(!place.path("e").exists());

    // A continued run writes its model again.
    let place = workspace();
    place.run(&SHORT).ok();
    let model = place.path("runs/short/final.safetensors");
    let whole = std::fs::read(&model).unwrap();
    damage(&model);
    place.run(&["train", "--resume", "runs/short"]).ok();
    assert_eq!(std::fs::read(&model).unwrap(), whole);
    let run = sample(&place, "runs/short", "f").ok();
    assert!(!run.err.contains("skipped:"), "{run:?}");
}

#[test]
fn every_command_that_takes_a_model_takes_a_run() {
    let place = workspace();
    place.run(&SHORT).ok();
    let seen = place.run(&["inspect", "runs/short"]).ok();
    assert!(
        seen.out.contains("runs/short/final.safetensors") && seen.out.contains("ADM U-Net"),
        "{seen:?}"
    );
    place
        .run(&["convert", "runs/short", "copy.safetensors"])
        .ok();
    let short = [
        "--steps=1",
        "--set",
        "output.samples=1",
        "--set",
        "output.sampler=ddim2",
    ];
    let train = [
        "train",
        "--config",
        "digits-naive",
        "--source",
        "runs/short",
        "--name=next",
    ];
    place.run(&[&train[..], &short].concat()).ok();
    let plan = std::fs::read_to_string(place.path("runs/next/plan.toml")).unwrap();
    assert!(plan.contains("runs/short/final.safetensors\""), "{plan}");
    // Without --model, the newest run.
    let sampled = place.run(&["sample", "-n", "1", "--steps", "ddim2"]).ok();
    assert!(
        sampled.err.contains("runs/next/final.safetensors"),
        "{sampled:?}"
    );
    // A continued run may remove the weights of its checkpoints.
    std::fs::remove_file(place.path("runs/short/final.safetensors")).unwrap();
    let train = [
        "train",
        "--config",
        "digits-naive",
        "--source",
        "runs/short",
        "--name=more",
    ];
    let warned = place.run(&[&train[..], &short].concat()).ok();
    assert!(warned.err.contains("keep a copy"), "{warned:?}");

    place.run(&common::CLASSIFIER).ok();
    let classifier = [
        "train-classifier",
        "--config=digits-classifier",
        "--steps=1",
    ];
    let runs = [
        "--model=runs/next",
        "--init=runs/classifier",
        "--name=again",
    ];
    place.run(&[&classifier[..], &runs].concat()).ok();
    let plan = std::fs::read_to_string(place.path("runs/again/plan.toml")).unwrap();
    assert!(
        plan.contains("runs/classifier/final.safetensors\""),
        "{plan}"
    );
}

#[test]
fn the_error_of_a_missing_run_lists_existing_runs() {
    let place = workspace();
    let short: Vec<&str> = SHORT
        .iter()
        .map(|a| if *a == "8" { "1" } else { a })
        .collect();
    place.run(&short).ok();
    for (model, code, problem) in [
        ("runs/nope", 2, "no such file or folder"),
        ("runs", 1, "plan.toml is missing"),
    ] {
        sample(&place, model, "x").fails(code, &[model, "the runs in runs are short"]);
        let resume = place.run(&["train", "--resume", model]);
        resume.fails(code, &[model, problem, "the runs in runs are short"]);
    }
    let report = place.run(&["report", "runs"]);
    report.fails(2, &["report: runs", "the runs in runs are short"]);
    place
        .run(&["train-classifier", "--resume", "runs/short"])
        .fails(1, &["cargo xtask train --resume runs/short"]);
    place
        .run(&["edit", "train", "--resume", "runs/short"])
        .fails(1, &["cargo xtask train --resume runs/short"]);
}

#[test]
fn a_run_continues_with_images_and_a_model_that_were_moved() {
    let place = workspace();
    for (seed, out) in [("0", "images"), ("1", "others")] {
        let args = [
            "sample",
            "--model",
            "digits-source",
            "-n",
            "4",
            "--steps",
            "ddim2",
        ];
        place
            .run(&[&args[..], &["--seed", seed, "--out", out]].concat())
            .ok();
    }
    place
        .run(&["convert", &source(), "source.safetensors"])
        .ok();
    let data = [
        "--data",
        "images",
        "--source",
        "source.safetensors",
        "--set",
        "data.flip=true",
    ];
    let args = [&SHORT[..], &data].concat();
    let stay = workspace();
    for name in [
        "images/00000.png",
        "images/00001.png",
        "images/00002.png",
        "images/00003.png",
    ] {
        stay.write(name, &std::fs::read(place.path(name)).unwrap());
    }
    let model = std::fs::read(place.path("source.safetensors")).unwrap();
    stay.write("source.safetensors", &model);
    stay.run(&args).ok();
    let four: Vec<&str> = args
        .iter()
        .map(|a| if *a == "8" { "4" } else { a })
        .collect();
    place.run(&four).ok();
    std::fs::rename(place.path("images"), place.path("elsewhere")).unwrap();
    std::fs::rename(
        place.path("source.safetensors"),
        place.path("moved.safetensors"),
    )
    .unwrap();
    let plan = || std::fs::read_to_string(place.path("runs/short/plan.toml")).unwrap();
    let before = plan();
    let resume = ["train", "--resume", "runs/short", "--steps", "8"];
    let on = |more: &[&str]| place.run(&[&resume[..], more].concat());
    on(&["--source", "moved.safetensors"]).fails(1, &["images", "--data DIR"]);
    let moved = ["--source", "moved.safetensors", "--data"];
    on(&[&moved[..], &["others"]].concat()).fails(1, &["others", "not the images"]);
    on(&["--data", "elsewhere", "--source", "digits-source"]).fails(1, &["model changed"]);
    on(&[&moved[..], &["elsewhere", "--dry-run"]].concat()).ok();
    assert_eq!(plan(), before);
    on(&[&moved[..], &["elsewhere"]].concat()).ok();
    assert!(
        plan().contains("elsewhere\"") && plan().contains("moved.safetensors\""),
        "{}",
        plan()
    );
    // Later calls need no paths, and the results are the same.
    place.run(&["train", "--resume", "runs/short"]).ok();
    let weights = |place: &Workspace| {
        let path = place.path("runs/short/checkpoints/step-000008/optimizer.safetensors");
        std::fs::read(path).unwrap()
    };
    assert!(weights(&place) == weights(&stay));
}

fn source() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("assets/weights/digits-source.safetensors");
    path.display().to_string()
}

#[test]
fn a_closed_output_is_not_a_failure() {
    let place = workspace();
    let mut command = place.command(&["inspect", &source(), "--tensors"]);
    let out = std::process::Stdio::piped;
    let mut child = command.stdout(out()).stderr(out()).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
}
