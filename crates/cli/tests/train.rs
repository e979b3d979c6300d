//! Training from the command line: the run folder, reproducible bits, and errors.

mod common;

use common::{SHORT, Workspace, assert_same, essence, workspace};

#[test]
fn a_run_writes_all_files_and_repeats_bit_for_bit_with_any_number_of_threads() {
    let place = workspace();
    let first = place.run(&SHORT).ok();
    assert!(
        first.out.contains("final.safetensors") && first.out.contains("step-000008.png"),
        "{}",
        first.out
    );
    let root = place.path("runs/short");
    for file in [
        "plan.toml",
        "log.jsonl",
        "events.out.tfevents.sdft",
        "samples/step-000004.png",
        "checkpoints/step-000008/state.json",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, [3, 6, 8]);
    assert!(
        log.contains("\"distill\"") && log.contains("\"aux\"") && log.contains("\"grad_norm\""),
        "{log}"
    );

    for threads in ["1", "2"] {
        let again = workspace();
        again
            .run(&[&SHORT[..], &["--threads", threads]].concat())
            .ok();
        assert_same(&essence(&root), &essence(&again.path("runs/short")));
    }
    // A second run of the same name is refused.
    place
        .run(&SHORT)
        .fails(1, &["there is a run already", "--resume"]);
    // The default name counts up instead.
    let unnamed = &SHORT[..SHORT.len() - 1];
    place.run(unnamed).ok();
    place.run(unnamed).ok();
    assert!(place.path("runs/digits-sdft-2/final.safetensors").is_file());
}

#[test]
fn a_longer_run_from_the_same_plan_starts_like_the_shorter_one() {
    let place = workspace();
    place.run(&SHORT).ok();
    let resumed = place
        .run(&["train", "--resume", "runs/short", "--steps", "10"])
        .ok();
    assert!(resumed.err.contains("continuing from"), "{}", resumed.err);
    assert!(place.path("runs/short/checkpoints/step-000010").is_dir());
    place
        .run(&["train", "--resume", "runs/short", "--set", "optim.lr=1"])
        .fails(
            2,
            &["only loop.steps, loop.recompute, loop.precision, eval.patience and output.*"],
        );
    place
        .run(&["train", "--resume", "runs/nothing"])
        .fails(2, &["--resume runs/nothing", "the runs in runs"]);
}

#[test]
fn micro_batches_change_the_memory_and_not_the_result() {
    let place = workspace();
    let steps = [
        "train",
        "--config",
        "digits-sdft",
        "--steps",
        "3",
        "--batch",
        "6",
        "--set",
        "output.samples=1",
        "--set",
        "output.sampler=ddim2",
    ];
    place.run(&[&steps[..], &["--name=whole"]].concat()).ok();
    place
        .run(&[&steps[..], &["--name=split", "--set", "loop.micro_batch=4"]].concat())
        .ok();
    let losses = |name: &str| -> Vec<f64> {
        let log = std::fs::read_to_string(place.path(&format!("runs/{name}/log.jsonl"))).unwrap();
        log.lines()
            .flat_map(|l| {
                let line: serde_json::Value = serde_json::from_str(l).unwrap();
                ["loss", "base", "distill", "aux", "grad_norm"]
                    .map(|key| line[key].as_f64().unwrap())
            })
            .collect()
    };
    for (whole, split) in losses("whole").iter().zip(losses("split")) {
        assert!(
            (whole - split).abs() <= 1e-5 * whole.abs(),
            "{whole} {split}"
        );
    }
}

#[test]
fn recomputed_blocks_change_the_memory_and_not_the_result() {
    // Dropout must fall on the same features the second time.
    let short = [
        &SHORT[..],
        &["--set", "model.dropout=0.2", "--set", "output.log_every=1"],
    ]
    .concat();
    let losses = |place: &Workspace| -> Vec<f64> {
        let log = std::fs::read_to_string(place.path("runs/short/log.jsonl")).unwrap();
        log.lines()
            .flat_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                ["loss", "distill", "aux", "grad_norm"].map(|key| line[key].as_f64().unwrap())
            })
            .collect()
    };
    let (kept, recomputed) = (workspace(), workspace());
    kept.run(&short).ok();
    recomputed
        .run(&[&short[..], &["--set", "loop.recompute=true"]].concat())
        .ok();
    let (kept, again) = (losses(&kept), losses(&recomputed));
    assert_eq!(kept.len(), 8 * 4);
    for (kept, again) in kept.iter().zip(&again) {
        assert!((kept - again).abs() <= 2e-5 * kept.abs(), "{kept} {again}");
    }
    // It can also be turned on or off where a run has stopped.
    recomputed
        .run(&[
            "train",
            "--resume",
            "runs/short",
            "--steps",
            "10",
            "--set",
            "loop.recompute=false",
        ])
        .ok();
}

#[test]
fn fast_convolutions_train_like_direct_ones() {
    let steps = [
        "train",
        "--config=digits-source",
        "--steps=40",
        "--batch=8",
        "--name=run",
        "--set",
        "output.sample_every=0",
        "--set",
        "output.checkpoint_every=40",
        "--set",
        "output.log_every=1",
        "--set",
        "output.samples=1",
        "--set",
        "output.sampler=ddim2",
        "--set",
        "optim.warmup=1",
    ];
    let losses = |algorithm: &str| -> Vec<f64> {
        let place = workspace();
        let output = place
            .command(&steps)
            .env("SDFT_CONV", algorithm)
            .output()
            .unwrap();
        common::Run::from(output).ok();
        let log = std::fs::read_to_string(place.path("runs/run/log.jsonl")).unwrap();
        log.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"]
                    .as_f64()
                    .unwrap()
            })
            .collect()
    };
    let place = workspace();
    let output = place
        .command(&steps)
        .env("SDFT_CONV", "F2")
        .output()
        .unwrap();
    common::Run::from(output).fails(2, &["SDFT_CONV", "direct, f2, f4", "F2"]);
    let direct = losses("direct");
    assert!(
        direct.len() == 40 && direct[39] < 0.5 * direct[0],
        "{direct:?}"
    );
    for algorithm in ["f2", "f4"] {
        let fast = losses(algorithm);
        assert_ne!(direct, fast, "{algorithm} was not used");
        for (step, (direct, fast)) in direct.iter().zip(&fast).enumerate() {
            assert!(
                (direct - fast).abs() < 2e-3 * direct,
                "{algorithm} step {step}: {direct} {fast}"
            );
        }
    }
}

#[test]
fn an_impossible_request_is_refused_before_anything_is_written() {
    let place = workspace();
    place.write("empty/readme.txt", b"no image");
    place.write("bad.pt", b"this is not a checkpoint");
    place.write("broken/a.png", b"\x89PNG\r\n\x1a\nnot really");
    let scratch = |set: &'static str| ["train", "--config", "digits-scratch", "--set", set];
    let (heads, groups, size) = (
        scratch("model.num_head_channels=24"),
        scratch("model.norm_groups=5"),
        scratch("model.image_size=18"),
    );
    let cases: [(&[&str], i32, &[&str]); 15] = [
        (
            &heads,
            2,
            &["model.num_head_channels", "24 does not divide"],
        ),
        (
            &groups,
            2,
            &[
                "model.norm_groups",
                "5 groups do not divide the 32 channels",
            ],
        ),
        (
            &size,
            2,
            &[
                "model.image_size",
                "18 cannot be halved 2 times",
                "16 or 20",
            ],
        ),
        (
            &["train", "--config", "digit-sdft"],
            2,
            &["digit-sdft", "did you mean digits-sdft"],
        ),
        (
            &["train", "--set", "optim.lrr=1"],
            2,
            &["no key optim.lrr", "optim.lr"],
        ),
        (
            &["train", "--set", "optim.lr=fast"],
            2,
            &["optim.lr", "expected a number"],
        ),
        (
            &["train", "--set", "output.sampler=ddim60"],
            2,
            &["output.sampler", "60"],
        ),
        (
            &["train", "--set", "model.image_size=64"],
            1,
            &["model.image_size", "64", "32"],
        ),
        (
            &["train", "--set", "model.num_classes=10"],
            1,
            &["num_classes"],
        ),
        (
            &["train", "--source", "missing.pt", "--data", "digits"],
            2,
            &["--source missing.pt"],
        ),
        (
            &["train", "--source", "bad.pt", "--data", "digits"],
            1,
            &["bad.pt"],
        ),
        (
            &["train", "--source", "digits-source", "--data", "nowhere"],
            2,
            &["--data nowhere"],
        ),
        (
            &["train", "--source", "digits-source", "--data", "empty"],
            1,
            &["empty", "PNG"],
        ),
        (
            &["train", "--source", "digits-source", "--data", "broken"],
            1,
            &["a.png"],
        ),
        (&["train", "--stesp", "3"], 2, &["--stesp", "--steps"]),
    ];
    for (args, code, words) in cases {
        place.run(args).fails(code, words);
        assert!(!place.path("runs").exists(), "{args:?} left a run folder");
    }
    place.write("file", b"");
    place
        .run(&[&SHORT[..], &["--out", "file"]].concat())
        .fails(1, &["file"]);
}

#[test]
fn a_dry_run_prints_the_plan() {
    let place = workspace();
    let plan = ["train", "--config", "digits-sdft", "--dry-run"];
    let plan = place.run(&plan).ok();
    for word in [
        "method = \"sdft\"",
        "lambda = 5.0",
        "# time",
        "# memory",
        "# disk",
        "90 images",
    ] {
        assert!(plan.out.contains(word), "{word}: {}", plan.out);
    }
    assert!(!place.path("runs").exists());
    let list = place.run(&["train", "--list"]).ok();
    assert!(list.out.contains("metfaces-sdft"), "{}", list.out);
}

#[test]
fn numbers_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint() {
    let place = workspace();
    let wild = [
        "--set",
        "optim.lr=1e38",
        "--set",
        "optim.clip=0.0",
        "--set",
        "optim.warmup=0",
        "--set",
        "loop.max_skips=2",
        "--set",
        "output.checkpoint_every=1",
    ];
    // The first step ruins the weights; no checkpoint or model is written, however long the run.
    for steps in ["1", "2", "40"] {
        let name = format!("--name=wild{steps}");
        let args = [&SHORT[..SHORT.len() - 1], &[name.as_str()], &wild].concat();
        let args: Vec<&str> = args
            .into_iter()
            .map(|a| if a == "8" { steps } else { a })
            .collect();
        place.run(&args).fails(1, &["optim.lr"]);
        let root = place.path(&format!("runs/wild{steps}"));
        assert!(!root.join("final.safetensors").exists());
        assert_eq!(
            std::fs::read_dir(root.join("checkpoints")).unwrap().count(),
            0
        );
    }
    // A good checkpoint stays when a later step fails.
    place.run(&SHORT).ok();
    let plan = place.path("runs/short/plan.toml");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(
        &plan,
        text.replace("lr = 0.0005", "lr = 1e38")
            .replace("clip = 1.0", "clip = 0.0"),
    )
    .unwrap();
    place
        .run(&["train", "--resume", "runs/short", "--steps", "40"])
        .fails(1, &["optim.lr"]);
    let left: Vec<_> = std::fs::read_dir(place.path("runs/short/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(left.iter().any(|name| name == "step-000008"), "{left:?}");
}

#[test]
fn a_checkpoint_is_a_model_that_can_be_sampled_and_started_from() {
    let place = workspace();
    place.run(&SHORT).ok();
    std::fs::remove_file(place.path("runs/short/final.safetensors")).unwrap();
    let sample = |model: &str, out: &str| {
        place
            .run(&[
                "sample", "--model", model, "-n", "1", "--steps", "ddim2", "--out", out,
            ])
            .ok()
    };
    assert!(sample("runs/short", "a").err.contains("16x16"));
    sample("runs/short/checkpoints/step-000004", "b");
    let weights = place.path("runs/short/checkpoints/step-000008/weights.safetensors");
    place
        .run(&[
            "train",
            "--config",
            "digits-naive",
            "--source",
            weights.to_str().unwrap(),
            "--steps",
            "1",
            "--set",
            "output.sampler=ddim2",
        ])
        .ok();
}

#[test]
fn a_run_continues_only_with_its_own_images() {
    let place = workspace();
    place
        .run(&[
            "sample",
            "--model",
            "digits-source",
            "-n",
            "6",
            "--steps",
            "ddim2",
            "--out",
            "images",
        ])
        .ok();
    let train = [&SHORT[..], &["--data", "images"]].concat();
    place.run(&train).ok();
    // A number of steps given with --resume replaces that of the run.
    place
        .run(&["train", "--resume", "runs/short", "--steps", "10"])
        .ok();
    assert!(
        std::fs::read_to_string(place.path("runs/short/plan.toml"))
            .unwrap()
            .contains("steps = 10")
    );
    std::fs::remove_file(place.path("images/00003.png")).unwrap();
    place
        .run(&["train", "--resume", "runs/short", "--steps", "12"])
        .fails(1, &["not the images that the run began with"]);

    // A folder with other files is not mistaken for a run.
    place.write("mine/notes.txt", b"not a run");
    place
        .run(&[&SHORT[..SHORT.len() - 1], &["--name=mine", "--out", "."]].concat())
        .fails(1, &["notes.txt"]);
    assert_eq!(
        std::fs::read(place.path("mine/notes.txt")).unwrap(),
        b"not a run"
    );
}

#[test]
fn the_process_can_be_given_only_if_the_file_does_not_state_it() {
    let place = workspace();
    let cosine = ["--set", "process.noise_schedule=cosine"];
    place
        .run(&[&SHORT[..], &cosine].concat())
        .fails(1, &["process.noise_schedule", "cosine", "linear"]);
    let plan = place
        .run(
            &[
                &["train", "--config", "digits-scratch", "--dry-run"][..],
                &cosine,
            ]
            .concat(),
        )
        .ok();
    assert!(
        plan.out.contains("noise_schedule = \"cosine\""),
        "{}",
        plan.out
    );
}
