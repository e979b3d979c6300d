//! Invalid requests of `edit`, and plans that are only printed.

mod common;
mod direction;

use common::{Run, workspace};
use direction::{apply, place_with_direction};

#[test]
fn invalid_requests_are_refused_before_anything_is_done() {
    let place = place_with_direction();
    let train = |more: &[&str]| {
        let args = [
            "edit",
            "train",
            "--model",
            "digits-source",
            "--data",
            "digits",
        ];
        place.run(&[&args[..], &["--set", "goal.network=digits"], more].concat())
    };
    let texts = ["--from", "3", "--to", "2"];
    train(&[]).fails(2, &["goal.from", "--from \"face\""]);
    train(&["--from", "3", "--to", "3"]).fails(2, &["goal.to", "no direction"]);
    train(&["--from", "3", "--to", "ten"]).fails(2, &["goal.to", "0 to 9", "ten"]);
    for (more, words) in [
        (
            &["--t-edit", "1000"][..],
            &["walk.t_edit", "0 to t_0 = 999"][..],
        ),
        (&["--t-edit", "soon"], &["--t-edit", "auto"]),
        (&["--t-edit", "auto"], &["LPIPS does not measure digits"]),
        (&["--epochs", "0"], &["loop.epochs"]),
        (&["--steps", "9"], &["--epochs", "walk.steps"]),
        (&["--set", "walk.t_0=1000"], &["walk.t_0", "0 to 999"]),
        (
            &["--set", "goal.networks=clip"],
            &["did you mean goal.network?"],
        ),
        (&["--set", "optim.lr=-1"], &["optim.lr"]),
        (&["--config", "smilling"], &["did you mean smiling"]),
        (
            &["--method", "diffusionclip", "--t-edit", "300"],
            &["--t-edit", "belongs to Asyrp"],
        ),
        (
            &["--method", "diffusionclip", "--set", "walk.steps=502"],
            &["walk.steps", "2 to 501"],
        ),
        (
            &["--method", "diffusionclip", "--config", "digits-3-to-2"],
            &["digits-3-to-2", "no key walk.t_"],
        ),
        (
            &["--method", "diffusionclip", "--set", "loop.batch=1000000"],
            &["of memory and this machine has", "loop.recompute=true"],
        ),
        (&["--set", "method=clip"], &["method", "diffusionclip"]),
    ] {
        train(&[&texts[..], more].concat()).fails(2, words);
    }
    // `--key`, and the name that it had before.
    for option in ["--key=other", "--source-key=other"] {
        place.write("source.safetensors", sdft_assets::DIGITS_SOURCE_WEIGHTS);
        let args = ["edit", "train", "--model=source.safetensors", option];
        let edit = ["--data=in", "--from=a", "--to=b"];
        place
            .run(&[&args[..], &edit].concat())
            .fails(1, &["source.safetensors", "other"]);
    }
    // Weights without the tokenizer, weights of an unused network, a name in use.
    let weights = "--weights=clip-b16=in/00000.png";
    let pretended = [
        "--config",
        "smiling",
        "--set",
        "goal.network=clip-b16",
        weights,
    ];
    train(&pretended).fails(2, &["tokenizer.json", "clip-b16"]);
    train(&[&texts[..], &[weights]].concat()).fails(2, &["clip-b16 is not used here"]);
    // Before anything is read.
    let taken = [
        "edit",
        "train",
        "--name",
        "turn",
        "--model",
        "in/00000.png",
        "--data",
        "in",
        "--from",
        "a",
        "--to",
        "b",
    ];
    place.run(&taken).fails(1, &["this folder holds a run"]);
    let clip = ["--config", "smiling", "--set", "goal.network=clip-b16"];
    let empty = place.path("empty-hub");
    let mut command = place.command(
        &[
            &["edit", "train", "--model", "digits-source", "--data", "in"][..],
            &clip,
        ]
        .concat(),
    );
    let missing = Run::from(command.env("HF_HUB_CACHE", &empty).output().unwrap());
    missing.fails(
        1,
        &[
            "clip-b16",
            "cargo xtask fetch clip-b16",
            "--weights clip-b16=FILE",
        ],
    );

    for (more, words) in [
        (
            &["--t-edit", "1000"][..],
            &["--t-edit 1000", "0 to 999"][..],
        ),
        (&["--steps", "1"], &["--steps 1"]),
        (&["--strength", "nan"], &["--strength NaN"]),
        (
            &["--strength", "1", "--strength", "2"],
            &["one for each (1), found 2"],
        ),
        (&["--sweep", "1,1"], &["--sweep 1: given twice"]),
        (
            &["--settings", "in/none.toml"],
            &["--settings in/none.toml", "no such file or folder"],
        ),
        (
            &["--settings", "in/00000.png"],
            &["--settings in/00000.png"],
        ),
        (
            &["--settings", "runs/turn/plan.toml"],
            &["--settings", "walk"],
        ),
        (&["--out", "in"], &["--out in"]),
    ] {
        let run = match more[0] {
            "--steps" => place.run(
                &[
                    &[
                        "edit",
                        "apply",
                        "--model",
                        "digits-source",
                        "--edit",
                        "runs/turn",
                    ][..],
                    &["--input", "in", "--no-cache"],
                    more,
                ]
                .concat(),
            ),
            _ => apply(&place, more),
        };
        let unreadable = more.contains(&"in/00000.png");
        let code = if unreadable { 1 } else { 2 };
        assert_eq!(run.code, Some(code), "{more:?} {run:?}");
        assert!(!run.err.contains("panicked"), "{run:?}");
        for word in words {
            assert!(run.err.contains(word), "{word:?} is missing in {run:?}");
        }
    }
    let with = |edit: &str| {
        place.run(&[
            "edit",
            "apply",
            "--model",
            "digits-source",
            "--edit",
            edit,
            "--input",
            "in",
        ])
    };
    with("runs/nothing").fails(2, &["--edit runs/nothing", "the runs in runs"]);
    with("in/00000.png").fails(1, &["--edit in/00000.png"]);
    // A model is not a direction.
    place
        .run(&[&common::SHORT[..], &["--set", "loop.steps=1"]].concat())
        .ok();
    with("runs/short").fails(1, &["expected a direction", "kind unet"]);
    // A direction is not a model.
    place
        .run(&[
            "edit",
            "apply",
            "--model",
            "runs/turn",
            "--edit",
            "runs/turn",
            "--input",
            "in",
        ])
        .fails(1, &["runs/turn"]);
    assert!(!place.path("edited").exists());
}

#[test]
fn a_dry_run_prints_the_plan_and_its_cost() {
    let place = workspace();
    let dry = ["edit", "train", "--config", "digits-3-to-2", "--dry-run"];
    let dry = place.run(&dry).ok();
    for words in [
        "to = \"2\"",
        "kind = \"sgd\"",
        "# 20 images",
        "# time",
        "# memory",
        "# disk",
    ] {
        assert!(dry.out.contains(words), "{words}: {dry:?}");
    }
    let tuned = [
        "edit",
        "train",
        "--method=diffusionclip",
        "--set=adapter.kind=lora",
        "--dry-run",
    ];
    let tuned = place.run(&tuned).ok();
    for words in [
        "method = \"diffusionclip\"",
        "lr_factor = 1.3",
        "trained as",
        "# 20 images",
        "for a trajectory",
        "a checkpoint",
    ] {
        assert!(tuned.out.contains(words), "{words}: {tuned:?}");
    }
    assert!(!place.path("runs").exists());
    let list = place.run(&["edit", "train", "--list"]).ok();
    for preset in ["smiling", "sad", "angry", "young", "old", "man", "woman"] {
        assert!(list.out.contains(preset), "{preset}: {list:?}");
    }
}
