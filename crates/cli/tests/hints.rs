//! Errors about typos in arguments and settings: the expected value and a suggestion.

mod common;

use common::workspace;

#[test]
fn a_typo_is_answered_with_the_likely_word() {
    let place = workspace();
    place.write("optm.toml", b"[optm]\nlr = 1e-5\nclip = 1\n");
    place.write("optimizer.toml", b"[training]\nlearning_rate = 1e-5\n");
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["train", "--set", "lr=1e-5"],
            &["--set lr=1e-5", "did you mean optim.lr?"],
        ),
        (
            &["train", "--set", "optim.learning_rate=1e-5"],
            &["no key optim.learning_rate", "did you mean optim.lr?"],
        ),
        (
            &["train", "--set", "batch_size=4"],
            &["did you mean loop.batch?"],
        ),
        (
            &["train", "--set", "optm.lr=1e-5"],
            &["no key optm.lr", "did you mean optim.lr?"],
        ),
        (
            &["train", "--config", "optm.toml"],
            &[
                "optm.toml: there is no table [optm]",
                "did you mean [optim]?",
            ],
        ),
        (
            &["train", "--config", "optimizer.toml"],
            &["no table [training]", "did you mean optim.lr?"],
        ),
        (
            &["train", "--config", "metfaces"],
            &["--config metfaces", "did you mean metfaces-sdft?"],
        ),
        (
            &["edit", "train", "--config", "smilin"],
            &["did you mean smiling?"],
        ),
        (
            &["train", "--source", "digits-sorce"],
            &["--source digits-sorce", "did you mean digits-source?"],
        ),
        (
            &["train", "--data", "digts"],
            &["--data digts", "did you mean digits?"],
        ),
        (
            &["train", "--data", "emojis"],
            &["--data emojis", "did you mean emoji?"],
        ),
        (
            &["sample", "--model", "emoji-sorce"],
            &["did you mean emoji-source?"],
        ),
        (
            &["sample", "--model", "digit-source"],
            &["did you mean digits-source?"],
        ),
        (&["inspect", "ffhq10m"], &["did you mean ffhq-10m?"]),
        (
            &["sample", "--set", "model.norm_group=8"],
            &["did you mean model.norm_groups?"],
        ),
        (
            &[
                "evaluate",
                "--real",
                "digits",
                "--fake",
                ".",
                "--weights",
                "inceptoin=y",
            ],
            &["did you mean inception?"],
        ),
        (
            &["train", "--seed", "-1"],
            &["'-1' for '--seed <N>'", "expected a whole number from 0"],
        ),
        (
            &["train", "--steps", "1e3"],
            &["'1e3' for '--steps <N>'", "expected a whole number from 0"],
        ),
        (
            &["train", "--set", "loop.steps=-4"],
            &["loop.steps", "expected a whole number from 0, found -4"],
        ),
        (&["train", "--set", "=1"], &["found no key"]),
        (&["sample", "-n", "-4"], &["expected a whole number from 1"]),
        (
            &["translate", "--t0", "half"],
            &["'half' for '--t0 <SHARE>'", "expected a number"],
        ),
        (
            &["train", "--sed", "1"],
            &["'--sed'", "'--seed'", "cargo xtask train"],
        ),
        (
            &["train", "--method", "sdtf"],
            &["[possible values: scratch, naive, sdft]"],
        ),
        (
            &["train", "--device", "gpu"],
            &["'gpu' for '--device <PLACE>'", "cuda:N"],
        ),
        (&["edit", "trian"], &["'trian'", "'train'"]),
    ];
    for (args, words) in cases {
        place.run(args).fails(2, words);
    }
    assert!(!place.path("runs").exists());
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_without_code_for_it_is_explained() {
    let place = workspace();
    let run = place.run(&["sample", "--model", "digits-source", "--device", "cuda"]);
    let run = run.fails(2, &["--device cuda:0", "cargo xtask", "--device cpu"]);
    assert!(!run.err.contains("--features"), "{}", run.err);
}

#[test]
fn a_run_folder_stands_for_its_model_in_every_command_that_takes_one() {
    let place = workspace();
    let model = sdft_assets::DIGITS_SOURCE_WEIGHTS;
    place.write("runs/mine/final.safetensors", model);
    let inspected = place.run(&["inspect", "runs/mine"]).ok();
    assert!(inspected.out.contains("ADM U-Net"), "{inspected:?}");
    place
        .run(&["convert", "runs/mine", "mine.safetensors", "--dtype", "f16"])
        .ok();
    assert!(place.path("mine.safetensors").is_file());
    let plan = place
        .run(&[
            "train",
            "--source",
            "runs/mine",
            "--data",
            "digits",
            "--set",
            "data.style=ember",
            "--dry-run",
        ])
        .ok();
    assert!(plan.out.contains("runs/mine/final.safetensors"), "{plan:?}");
}
