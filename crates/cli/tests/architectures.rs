//! Networks of diffusers and of EDM, and DiT, in every command.
//! long: every kind of network in every command
#![cfg(unix)]

mod common;

use common::{CLASSIFIER, Workspace, assert_same, essence, workspace};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A small `UNet2DModel` of the digits, with the values that files of diffusers have and ADM has not.
const UNET2D: &str = r#"
[model]
architecture = "unet2d"
sample_size = 16
block_out_channels = [8, 16]
down_block_types = ["DownBlock2D", "AttnDownBlock2D"]
up_block_types = ["AttnUpBlock2D", "UpBlock2D"]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = "null"
downsample_padding = 0

[process]
beta_start = 1e-4
beta_end = 0.02
"#;

/// A small EDM network of the digits.
const EDM: &str = r#"
[model]
architecture = "edm"
img_resolution = 16

[model.model]
model_channels = 8
channel_mult = [1, 2]
num_blocks = 1
attn_resolutions = [8]
"#;

/// A small DiT of the digits, with patches of 4x4 pixels.
const DIT: &str = r#"
[model]
architecture = "dit"
sample_size = 16
in_channels = 3
out_channels = 6
patch_size = 4
num_attention_heads = 2
attention_head_dim = 16
num_layers = 2
shared_embedder = true
"#;

/// The same DiT as a flow.
const SIT: &str = r#"
[model]
architecture = "dit"
precond = "sit"
sample_size = 16
in_channels = 3
out_channels = 6
patch_size = 4
num_attention_heads = 2
attention_head_dim = 16
num_layers = 2
shared_embedder = true
freq_shift = 0

[process]
prediction_type = "sample"

[process.continuous]
process_type = "flow"
timesteps = "logit_normal"
"#;

/// Arguments of a short run.
const RUN: [&str; 21] = [
    "train",
    "--data",
    "digits",
    "--steps",
    "6",
    "--batch",
    "4",
    "--set",
    "output.checkpoint_every=2",
    "--set",
    "output.sample_every=3",
    "--set",
    "output.samples=2",
    "--set",
    "output.sampler=ddim4",
    "--set",
    "output.log_every=2",
    "--set",
    "eval.every=3",
    "--set",
    "eval.samples=4",
];

fn read(place: &Workspace, path: &str) -> String {
    std::fs::read_to_string(place.path(path)).unwrap()
}

/// A workspace with a source model in `runs/source`.
fn place_with_source(settings: &str) -> Workspace {
    let place = workspace();
    place.write("model.toml", settings.as_bytes());
    let scratch = ["--method", "scratch", "--config", "model.toml"];
    place
        .run(&[&RUN[..], &scratch, &["--name", "source"]].concat())
        .ok();
    place
}

/// Fine-tunes `runs/source` with more arguments, undisturbed and with kills, and compares both.
fn killed_and_resumed_equals_undisturbed(settings: &str, more: &[&'static str]) {
    let place = place_with_source(settings);
    let run = |out: &'static str| -> Vec<&str> {
        let sdft = [
            "--source",
            "runs/source",
            "--method",
            "sdft",
            "--name",
            "target",
        ];
        [&RUN[..], &sdft, &["--out", out], more].concat()
    };
    let started = Instant::now();
    place.run(&run("quiet")).ok();
    let whole = started.elapsed();
    let root = place.path("hurt/target");
    for life in 1..=5u32 {
        let resume = ["train", "--resume", "hurt/target"];
        let started = root.join("plan.toml").exists();
        let arguments = if started {
            resume.to_vec()
        } else {
            run("hurt")
        };
        let mut child = place
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole.mul_f64(0.15 * f64::from(life)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let resumed = match root.join("plan.toml").exists() {
        true => place.run(&["train", "--resume", "hurt/target"]),
        false => place.run(&run("hurt")),
    };
    resumed.ok();
    assert_same(&essence(&place.path("quiet/target")), &essence(&root));
    assert!(whole > Duration::ZERO);
}

#[test]
fn a_unet2d_is_fine_tuned_and_a_killed_run_equals_an_undisturbed_one() {
    killed_and_resumed_equals_undisturbed(UNET2D, &[]);
}

#[test]
fn an_edm_network_is_fine_tuned_and_a_killed_run_equals_an_undisturbed_one() {
    killed_and_resumed_equals_undisturbed(EDM, &[]);
}

#[test]
fn a_dit_is_fine_tuned_and_a_killed_run_equals_an_undisturbed_one() {
    killed_and_resumed_equals_undisturbed(DIT, &[]);
}

#[test]
fn a_flow_is_fine_tuned_and_a_killed_run_equals_an_undisturbed_one() {
    killed_and_resumed_equals_undisturbed(SIT, &[]);
}

#[test]
fn the_plan_of_a_flow_keeps_its_times_and_the_weight_of_the_velocity() {
    let place = place_with_source(SIT);
    let plan = read(&place, "runs/source/plan.toml");
    for line in [
        "precond = \"sit\"",
        "process_type = \"flow\"",
        "timesteps = \"logit_normal\"",
        "base = \"flow\"",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let seen = place.run(&["inspect", "runs/source"]).ok();
    assert!(seen.out.contains("SiT:"), "{}", seen.out);
    place.write("sit.toml", SIT.as_bytes());
    let with = |set: &'static str| {
        let given = ["--method", "scratch", "--config", "sit.toml", "--set", set];
        place.run(&[&RUN[..], &given, &["--dry-run"]].concat())
    };
    // The trial takes a time of the flow.
    let estimated = with("loop.steps=6").ok();
    assert!(estimated.out.contains("# time    about"), "{estimated:?}");
    with("process.continuous.logit_std=0").fails(2, &["process.continuous.logit_std"]);
    with("process.continuous.p_mean=0").fails(2, &["p_mean"]);
    with("model.precond=edm").fails(2, &["precond", "sit"]);
    with("loss.timesteps=power-1").fails(2, &["loss.timesteps"]);
}

/// DogFit, Diff-Tuning, DDPM-PA, L2-SP, EWC and ANT's noise at once, next to SDFT.
const METHODS: [&str; 22] = [
    "--set",
    "loss.dogfit.weight=1.5",
    "--set",
    "loss.keep.weight=0.5",
    "--set",
    "loss.bank.images=4",
    "--set",
    "loss.bank.sampler=ddim4",
    "--set",
    "loss.pairwise.weight=5",
    "--set",
    "loss.pairwise.hf_weight=5",
    "--set",
    "loss.pairwise.hf_mse_weight=0.1",
    "--set",
    "loss.anchor.l2_sp=0.1",
    "--set",
    "loss.anchor.ewc=0.1",
    "--set",
    "loss.anchor.gradients=4",
    "--set",
    "loss.ant.rounds=1",
];

#[test]
fn every_method_fine_tunes_a_unet2d_and_a_killed_run_equals_an_undisturbed_one() {
    let noisy = ["--set", "loss.timesteps=power-1"];
    killed_and_resumed_equals_undisturbed(UNET2D, &[&METHODS[..], &noisy].concat());
}

#[test]
fn every_method_fine_tunes_an_edm_network_and_a_killed_run_equals_an_undisturbed_one() {
    killed_and_resumed_equals_undisturbed(EDM, &METHODS);
}

#[test]
fn a_lora_is_trained_and_a_killed_run_equals_an_undisturbed_one() {
    let lora = ["--set", "adapter.kind=lora", "--set", "adapter.rank=2"];
    killed_and_resumed_equals_undisturbed(UNET2D, &lora);
    killed_and_resumed_equals_undisturbed(DIT, &lora);
}

#[test]
fn the_scales_and_biases_of_a_dit_are_trained() {
    let place = place_with_source(DIT);
    let difffit = ["--source", "runs/source", "--method", "sdft"];
    let kind = ["--set", "adapter.kind=difffit", "--name", "difffit"];
    place.run(&[&RUN[..], &difffit, &kind].concat()).ok();
    assert!(place.path("runs/difffit/adapter.safetensors").is_file());
}

#[test]
fn the_plan_of_a_run_keeps_every_field_of_the_network() {
    let place = place_with_source(UNET2D);
    let plan = read(&place, "runs/source/plan.toml");
    for line in [
        "architecture = \"unet2d\"",
        "attention_head_dim = \"null\"",
        "downsample_padding = 0",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let seen = place.run(&["inspect", "runs/source"]).ok();
    let row = |field: &str| {
        let row = seen
            .out
            .lines()
            .find(|line| line.trim_start().starts_with(field));
        row.unwrap_or_else(|| panic!("{field}: {}", seen.out))
            .to_owned()
    };
    assert!(seen.out.contains("UNet2DModel:"), "{}", seen.out);
    assert!(row("attention_head_dim").contains("null"));
    assert!(row("beta_end").contains("0.02"));
    let json = place.run(&["inspect", "runs/source", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["architecture"], "unet2d");
    assert_eq!(json["model"]["downsample_padding"]["value"], 0);
    assert_eq!(json["model"]["downsample_padding"]["origin"], "read");
    assert_eq!(json["process"]["beta_end"]["value"], 0.02);
}

#[test]
fn settings_of_another_architecture_are_refused_with_a_suggestion() {
    let place = workspace();
    place.write("unet2d.toml", UNET2D.as_bytes());
    let with = |set: &'static str| {
        let given = [
            "--method",
            "scratch",
            "--config",
            "unet2d.toml",
            "--set",
            set,
        ];
        place.run(&[&RUN[..], &given, &["--dry-run"]].concat())
    };
    with("model.norm_num_group=4")
        .fails(2, &["no key model.norm_num_group", "model.norm_num_groups"]);
    with("model.channel_mult=[1, 2]").fails(
        2,
        &[
            "no key model.channel_mult",
            "(another model.architecture has other keys)",
        ],
    );
    with("model.act_fn=gelu").fails(2, &["act_fn", "silu"]);
    with("model.architecture=unet3d").fails(2, &["architecture", "unet2d"]);
    with("process.beta_end=2.0").fails(2, &["process.beta_"]);
    with("process.continuous.sigma_max=80").fails(2, &["process.continuous"]);
    // Another architecture has none of the file's keys.
    let edm = ["--method", "scratch", "--config", "unet2d.toml"];
    let sets = [
        "model.architecture=edm",
        "model.img_resolution=16",
        "model.model.model_channels=8",
    ];
    let sets = sets.map(|set| ["--set", set]).concat();
    let edm = place.run(&[&RUN[..], &edm, &sets, &["--dry-run"]].concat());
    let edm = edm.ok();
    assert!(edm.out.contains("img_resolution"), "{}", edm.out);
    assert!(edm.out.contains("[process.continuous]"), "{}", edm.out);
}

/// Three images of the source model in `in`.
fn draw_inputs(place: &Workspace) {
    let sample = ["sample", "--model", "runs/source", "-n", "3", "--out", "in"];
    place.run(&sample).ok();
}

#[test]
fn networks_of_all_kinds_are_sampled_by_every_sampler() {
    for (settings, usual) in [
        (UNET2D, "ddim"),
        (EDM, "heun"),
        (DIT, "ddim"),
        (SIT, "heun"),
    ] {
        let place = place_with_source(settings);
        let seen = place.run(&["inspect", "runs/source"]).ok();
        assert!(!seen.out.contains("note:"), "{}", seen.out);
        draw_inputs(&place);
        let plan = read(&place, "in/plan.toml");
        assert!(plan.contains(&format!("sampler = \"{usual}\"")), "{plan}");
        for sampler in ["ddim", "ddpm", "heun", "dpm", "euler"] {
            let steps = if sampler.starts_with("dd") {
                "ddim4"
            } else {
                "4"
            };
            let sample = [
                "sample",
                "--model",
                "runs/source",
                "-n",
                "2",
                "--sampler",
                sampler,
            ];
            place
                .run(&[&sample[..], &["--steps", steps, "--out", sampler]].concat())
                .ok();
        }
        let sample = ["sample", "--model", "runs/source", "--out", "x"];
        let with = |more: &[&str]| place.run(&[&sample[..], more].concat());
        with(&["--sampler", "dpm", "--steps", "ddim40"]).fails(2, &["--steps ddim40", "number"]);
        with(&["--sampler", "ddpm", "--churn", "40"]).fails(2, &["--churn", "heun"]);
        with(&["--sampler", "heun", "--start", "0.5"]).fails(2, &["--start 0.5"]);
        with(&["--sampler", "heun", "--churn", "40,1"]).fails(2, &["S_CHURN"]);
    }
}

#[test]
fn images_are_translated_by_every_method_and_between_networks_of_any_kind() {
    let [unet2d, edm, dit, sit] = [UNET2D, EDM, DIT, SIT].map(place_with_source);
    for (place, other) in [(&unet2d, &edm), (&edm, &dit), (&dit, &sit), (&sit, &unet2d)] {
        draw_inputs(place);
        let classifier = ["--config", "digits-classifier", "--model", "runs/source"];
        place.run(&[&CLASSIFIER[..], &classifier].concat()).ok();
        let translate = |more: &[&str]| {
            let arguments = ["translate", "--model", "runs/source", "--input", "in"];
            place
                .run(&[&arguments[..], &["--steps", "ddim4"], more].concat())
                .ok()
        };
        translate(&["--out", "sdedit"]);
        translate(&["--out", "ilvr", "--method", "ilvr", "--free", "1"]);
        let egsde = ["--method", "egsde", "--classifier", "runs/classifier"];
        translate(&[&["--out", "egsde"][..], &egsde].concat());
        let other = other.path("runs/source").display().to_string();
        for (out, source) in [
            ("same", "runs/source"),
            ("other", &other),
            ("adm", "digits-source"),
        ] {
            translate(&["--out", out, "--method", "ddib", "--source-model", source]);
        }
    }
}

#[test]
fn images_are_edited_on_networks_of_all_kinds() {
    for settings in [UNET2D, EDM, DIT, SIT] {
        let place = place_with_source(settings);
        draw_inputs(&place);
        let train = [
            "edit",
            "train",
            "--model",
            "runs/source",
            "--config",
            "digits-3-to-2",
        ];
        let short = [
            "--epochs",
            "1",
            "--images",
            "2",
            "--name",
            "edit",
            "--no-cache",
        ];
        let walk = [
            "--set",
            "walk.inversion=4",
            "--set",
            "walk.steps=4",
            "--set",
            "output.samples=1",
        ];
        let sampler = ["--set", "output.sampler=4"];
        place
            .run(&[&train[..], &short, &walk, &sampler].concat())
            .ok();
        let apply = [
            "edit",
            "apply",
            "--model",
            "runs/source",
            "--edit",
            "runs/edit",
        ];
        let to = [
            "--input",
            "in",
            "--out",
            "edited",
            "--steps",
            "4",
            "--no-cache",
        ];
        place.run(&[&apply[..], &to].concat()).ok();
    }
}

#[test]
fn runs_and_conversions_write_folders_of_diffusers_that_give_the_same_images() {
    let place = workspace();
    place.write("model.toml", UNET2D.as_bytes());
    let scratch = [
        "--method",
        "scratch",
        "--config",
        "model.toml",
        "--name",
        "source",
    ];
    let format = ["--set", "output.format=diffusers"];
    place.run(&[&RUN[..], &scratch, &format].concat()).ok();
    let convert = ["convert", "runs/source", "converted", "--to", "diffusers"];
    place.run(&convert).ok();
    place
        .run(&convert)
        .fails(2, &["exists already", "--overwrite"]);
    let images = |model: &str, out: &str| {
        let sample = [
            "sample", "--model", model, "-n", "2", "--steps", "10", "--out", out,
        ];
        place.run(&sample).ok();
        common::files(&place.path(out))
    };
    let of_run = images("runs/source/diffusers", "a");
    assert_same(&of_run, &images("converted", "b"));
    assert!(read(&place, "converted/model_index.json").contains("DDPMPipeline"));
    assert!(read(&place, "converted/unet/config.json").contains("\"attention_head_dim\": null"));
    // There is no such network in diffusers.
    place.write("edm.toml", EDM.as_bytes());
    let edm = [
        "--method", "scratch", "--config", "edm.toml", "--name", "edm",
    ];
    place
        .run(&[&RUN[..], &edm, &format].concat())
        .fails(2, &["output.format", "precond"]);
}

#[test]
fn a_folder_made_by_diffusers_is_sampled_inspected_and_converted() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/data/ddpm");
    let place = workspace();
    let seen = place.run(&["inspect", folder]).ok();
    assert!(seen.out.contains("UNet2DModel:"), "{}", seen.out);
    assert!(
        seen.out.contains("sampling.timestep_spacing"),
        "{}",
        seen.out
    );
    let images = |model: &str, out: &str| {
        let sample = [
            "sample", "--model", model, "-n", "2", "--steps", "5", "--out", out,
        ];
        place.run(&sample).ok();
        common::files(&place.path(out))
    };
    let drawn = images(folder, "a");
    place.run(&["convert", folder, "one.safetensors"]).ok();
    assert_same(&drawn, &images("one.safetensors", "b"));
    place
        .run(&["convert", folder, "again", "--to", "diffusers"])
        .ok();
    assert_same(&drawn, &images("again", "c"));
}
