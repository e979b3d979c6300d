//! Invalid requests of `translate`, which change nothing.

mod common;

use candle_core::Device;
use common::{SHORT, assert_same, files, place_with_inputs, small, translate, unet};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::Process;
use sdft_models::encoder_metadata;
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn invalid_requests_are_refused_before_anything_is_written() {
    let place = place_with_inputs();
    std::fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/00000.png", b"precious");
    let before = files(&place.path("in"));
    unet(&place.path("small.safetensors"), |config| {
        config.image_size = 8
    });
    unet(&place.path("classes.safetensors"), |config| {
        config.num_classes = 10
    });
    classifier(&place.path("other-size.safetensors"), 8, "linear");
    classifier(&place.path("other-noise.safetensors"), 16, "cosine");
    place
        .run(&[&SHORT[..], &["--set", "loop.steps=1"]].concat())
        .ok();
    let run = std::fs::read(place.path("runs/short/plan.toml")).unwrap();
    let cases: [(&[&str], i32, &[&str]); 23] = [
        (
            &["--model", "classes.safetensors"],
            2,
            &["no null class", "--class"],
        ),
        (
            &["--method", "ddib", "--source-model", "small.safetensors"],
            2,
            &["8x8", "16x16"],
        ),
        (
            &[
                "--method",
                "egsde",
                "--classifier",
                "other-size.safetensors",
            ],
            2,
            &["made for 8x8, the model's network takes 16x16"],
        ),
        (
            &[
                "--method",
                "egsde",
                "--classifier",
                "other-noise.safetensors",
            ],
            2,
            &["trained on the noise of", "cosine"],
        ),
        (
            &["--method", "ilvr", "--steps", "10"],
            2,
            &["--free 20", "10 steps"],
        ),
        (&["--out", "runs/short"], 2, &["its plan.toml belongs to"]),
        (
            &["--out", "runs/short", "--overwrite"],
            2,
            &["name another folder"],
        ),
        (&["--out", "."], 2, &["contains the folder of the inputs"]),
        (
            &["--out", ".", "--overwrite"],
            2,
            &["contains the folder of the inputs"],
        ),
        (&["--out", "in"], 2, &["--out in", "name another"]),
        (
            &["--out", "in/deeper"],
            2,
            &["contains the folder of the inputs"],
        ),
        (&["--out", "./in/../in"], 2, &["folder of the inputs"]),
        (&["--out", "mine"], 2, &["not empty", "--overwrite"]),
        (
            &["--out", "mine/00000.png"],
            2,
            &["a file, expected a folder"],
        ),
        (&["--t0", "1.01"], 2, &["--t0 1.01"]),
        (
            &["--method", "egsde"],
            2,
            &["train-classifier", "--classifier"],
        ),
        (&["--method", "ddib"], 2, &["--source-model"]),
        (
            &["--method", "ddib", "--source-model", "none.pt"],
            2,
            &["--source-model none.pt"],
        ),
        (
            &["--method", "egsde", "--classifier", "digits-source.pt"],
            2,
            &["--classifier digits-source.pt"],
        ),
        (
            &["--method", "ilvr", "--factor", "3"],
            2,
            &["--factor 3", "16"],
        ),
        (&["--steps", "ddim41"], 2, &["--steps", "ddim41"]),
        (&["--walk", "inside", "--t0", "0.0005"], 2, &["--t0 0.0005"]),
        (&["--mask", "none.png"], 2, &["--mask none.png"]),
    ];
    for (more, code, words) in cases {
        translate(&place, more).fails(code, words);
    }
    let args = ["translate", "--model", "digits-source", "--input"];
    place
        .run(&[&args[..], &["none"]].concat())
        .fails(2, &["--input none"]);
    place.run(&args[..3]).fails(2, &["--input"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    place
        .run(&[&args[..], &["empty"]].concat())
        .fails(1, &["empty"]);
    assert_eq!(
        std::fs::read(place.path("mine/00000.png")).unwrap(),
        b"precious"
    );
    assert_same(&before, &files(&place.path("in")));
    assert_eq!(
        std::fs::read(place.path("runs/short/plan.toml")).unwrap(),
        run
    );
    assert!(!place.path("translated").exists());
    // A folder with foreign files is used only with an option, and only images of the same names are replaced.
    place.write("mine/notes.txt", b"mine");
    translate(&place, &["--out", "mine", "--overwrite"]).ok();
    assert_eq!(
        std::fs::read(place.path("mine/notes.txt")).unwrap(),
        b"mine"
    );
    // The example, too, refuses invalid options before it trains.
    place.run(&["translate", "--t0", "2"]).fails(2, &["--t0 2"]);
    assert!(!place.path("runs/example-sdft").exists());
}

/// A small untrained classifier.
fn classifier(path: &Path, image_size: usize, noise_schedule: &str) {
    let config = EncoderConfig {
        net: AdmConfig {
            image_size,
            out_channels: 2,
            ..small()
        },
        pool: Pool::Attention,
    };
    let process = Process {
        noise_schedule: noise_schedule.into(),
        ..Process::default()
    };
    let params = Params::init(&Encoder::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let metadata = encoder_metadata(&config, &process, &BTreeMap::new()).unwrap();
    write_safetensors(path, params.iter(), &metadata, None).unwrap();
}
