//! Training the autoencoder of latent diffusion models.

mod common;

use common::{assert_same, essence, workspace};

const AUTOENCODER: [&str; 15] = [
    "train-autoencoder",
    "--steps",
    "8",
    "--batch=6",
    "--config=autoencoder-digits",
    "--name=first",
    "--set=model.block_out_channels=[8,8]",
    "--set=model.layers_per_block=1",
    "--set=data.per_class=6",
    "--set=optim.schedule=constant",
    "--set=output.log_every=2",
    "--set=output.checkpoint_every=3",
    "--set=output.samples=4",
    "--set=output.sample_every=4",
    "--set=eval.every=4",
];

#[test]
fn an_autoencoder_that_is_resumed_equals_one_that_was_not() {
    let whole = workspace();
    whole.run(&AUTOENCODER).ok();
    let parts = workspace();
    let mut four = AUTOENCODER;
    four[2] = "4";
    parts.run(&[&four[..], &["--threads", "1"]].concat()).ok();
    let resume = [
        "train-autoencoder",
        "--resume",
        "runs/first",
        "--steps",
        "8",
    ];
    let resumed = parts.run(&resume).ok();
    assert!(resumed.err.contains("continuing from"), "{resumed:?}");
    let root = parts.path("runs/first");
    assert_same(&essence(&whole.path("runs/first")), &essence(&root));
    let report = std::fs::read_to_string(root.join("reconstruction.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["images"], &report["held_out"]),
        (&6.into(), &true.into())
    );
    assert!(report["psnr"].as_f64().unwrap() > 0.0, "{report}");
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    for term in ["loss", "l1", "perceptual", "kl", "eval.psnr"] {
        assert!(log.contains(&format!("\"{term}\"")), "{term}: {log}");
    }
    assert!(root.join("samples/step-000008.png").is_file());
    // The finished file is an autoencoder with its own scaling factor, also as f16.
    parts
        .run(&[
            "convert",
            "runs/first/final.safetensors",
            "half.safetensors",
            "--dtype",
            "f16",
        ])
        .ok();
    for file in ["runs/first/final.safetensors", "half.safetensors"] {
        let shown = parts.run(&["inspect", file, "--json"]).ok();
        let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(shown["architecture"], "autoencoder", "{shown}");
        assert!(shown["misfit"].is_null(), "{shown}");
        let factor = shown["model"]["scaling_factor"]["value"].as_f64().unwrap();
        assert_eq!(factor, report["scaling_factor"].as_f64().unwrap());
    }
    // Each command refuses runs and files of the other kind.
    parts
        .run(&["train", "--resume", "runs/first"])
        .fails(1, &["train-autoencoder"]);
    parts
        .run(&["sample", "--model", "runs/first/final.safetensors"])
        .fails(1, &["expected a diffusion model, found an autoencoder"]);
}

#[test]
fn the_folder_of_a_finished_run_is_an_autoencoder() {
    let place = workspace();
    let mut two = AUTOENCODER;
    two[2] = "2";
    place.run(&two).ok();
    let train_with = |autoencoder: &str| {
        let args = [
            "train",
            "--config",
            "digits-dit-source",
            "--autoencoder",
            autoencoder,
        ];
        let small = [
            "--batch=2",
            "--set=model.num_layers=1",
            "--set=data.per_class=1",
            "--dry-run",
        ];
        place.run(&[&args[..], &small].concat())
    };
    let train = || train_with("runs/first");
    let plan = train().ok();
    assert!(plan.out.contains("runs/first\""), "{plan:?}");
    // The scale of the latents is known at the end of a run.
    let last = place.path("runs/first/final.safetensors");
    let mut bytes = std::fs::read(&last).unwrap();
    std::fs::remove_file(&last).unwrap();
    train().fails(1, &["runs/first", "expected a finished run", "--resume"]);
    let part = "runs/first/checkpoints/step-000002/ema.safetensors";
    train_with(part).fails(1, &[part, "expected a finished run", "--resume"]);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&last, bytes).unwrap();
    train().fails(1, &["runs/first", "final.safetensors", "SHA-256"]);
}

#[test]
fn fields_of_an_autoencoder_that_no_file_shows_are_given_with_set() {
    let place = workspace();
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests");
    let file = tests.join("data/autoencoder/compvis.ckpt");
    let file = file.display().to_string();
    let convert = |more: &[&str]| {
        let args = ["convert", &file, "a.safetensors"];
        place.run(&[&args[..], &["--set", "model.norm_num_groups=2"], more].concat())
    };
    convert(&[]).fails(1, &["scaling_factor", "--set model.scaling_factor="]);
    convert(&["--set", "model.scaling_factor=0.5"]).ok();
    let sample = |set: &str| place.run(&["sample", "--model", "digits-source", "--set", set]);
    sample("model.autoencoder.scaling_facto=1").fails(2, &["did you mean scaling_factor?"]);
    sample("model.autoencoder.scaling_factor=1").fails(1, &["states no autoencoder"]);
}

/// `cargo test --release --features cuda -p sdft-cli --test autoencoder -- --ignored`
#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a GPU"]
fn the_perceptual_term_is_computed_on_a_gpu() {
    let place = workspace();
    place
        .run(&[&AUTOENCODER[..], &["--device", "cuda"]].concat())
        .ok();
    let log = std::fs::read_to_string(place.path("runs/first/log.jsonl")).unwrap();
    assert!(log.contains("\"perceptual\""), "{log}");
}

#[test]
fn settings_that_do_not_fit_are_refused_by_key() {
    let place = workspace();
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--set", "loss.kl=1"],
            &["no key loss.kl", "loss.kl_weight"],
        ),
        (&["--size", "15x16"], &["data.size", "multiples of 2"]),
        (
            &["--data", ".", "--set", "loss.perceptual=judge"],
            &["loss.perceptual"],
        ),
        (
            &["--set", "model.norm_num_groups=16"],
            &["model.norm_num_groups"],
        ),
    ];
    for (args, words) in cases {
        place
            .run(&[&["train-autoencoder"], args].concat())
            .fails(2, words);
    }
}
