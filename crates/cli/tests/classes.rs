//! Class-conditional networks of every architecture are sampled, translate, and are fine-tuned.

mod common;

use common::{SHORT, Workspace, workspace};
use sdft_models::{Architecture, NetworkFile, save_network};
use sdft_testing::nonzero_params;
use serde_json::json;

/// Small networks of five classes for images of 8x8.
fn architectures() -> [Architecture; 3] {
    let fields = [
        json!({
            "image_size": 8, "model_channels": 8, "channel_mult": [1.0], "attention_resolutions": [], "num_head_channels": 8,
            "norm_groups": 4, "num_classes": 5
        }),
        json!({
            "architecture": "unet2d", "sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4, "num_class_embeds": 5
        }),
        json!({
            "architecture": "edm", "img_resolution": 8, "label_dim": 5,
            "model": { "model_type": "DhariwalUNet", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [] }
        }),
    ];
    fields.map(|fields| serde_json::from_value(fields).unwrap())
}

fn write(place: &Workspace, architecture: &Architecture) {
    let params = nonzero_params(architecture.specs().unwrap(), 3);
    let mut process = sdft_diffusion::Process::default();
    if let Some(precond) = architecture.precond() {
        process.continuous = Some(sdft_diffusion::Continuous::of(&precond));
        process.prediction_type = sdft_diffusion::PredictionType::Sample;
    }
    let path = place.path("model.safetensors");
    save_network(
        &path,
        &NetworkFile::new(architecture, &process),
        &params,
        None,
    )
    .unwrap();
}

#[test]
fn class_conditional_networks_of_every_architecture_are_sampled_translate_and_are_fine_tuned() {
    for architecture in architectures() {
        let place = workspace();
        write(&place, &architecture);
        let draw = |out: &str, more: &[&str]| {
            let sample = [
                "sample",
                "--model",
                "model.safetensors",
                "-n",
                "2",
                "--sampler",
                "dpm",
                "--steps",
                "3",
                "--out",
                out,
            ];
            place.run(&[&sample[..], more].concat())
        };
        draw("two", &["--class", "2"]).ok();
        draw("zero", &["--class", "0"]).ok();
        draw("in-turn", &[]).ok();
        let image = |path: &str| std::fs::read(place.path(path)).unwrap();
        assert_ne!(
            image("two/00000.png"),
            image("zero/00000.png"),
            "{architecture:?}"
        );
        assert_eq!(image("in-turn/00000.png"), image("zero/00000.png"));
        assert_ne!(image("in-turn/00001.png"), image("zero/00001.png"));
        draw("no", &["--class", "9"]).fails(2, &["--class 9", "5 classes, 0 to 4"]);
        draw("no", &["--guidance", "2"]).fails(2, &["--guidance 2", "no null class"]);
        let translate = |more: &[&str]| {
            let args = [
                "translate",
                "--model",
                "model.safetensors",
                "--input",
                "zero",
            ];
            place.run(&[&args[..], &["--steps", "ddim4"], more].concat())
        };
        // EDM networks take a row of zeros for the null class, but were not trained with it.
        translate(&[]).fails(2, &["no null class", "give a class as --class"]);
        translate(&["--class", "3"]).ok();
        let source = ["--source", "model.safetensors", "--data", "digits"];
        place
            .run(&[&SHORT[..], &source].concat())
            .fails(2, &["16x16", "8x8", "data.size"]);
        // Without classes of the images the network becomes unconditional.
        let run = place.run(&[&SHORT[..], &source, &["--size", "8"]].concat());
        assert!(run.ok().err.contains("5 classes, the run none"));
    }
}
