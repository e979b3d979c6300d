//! Weights that are damaged, of another kind, or without their process.

mod common;

use candle_core::{Device, Tensor};
use common::{SHORT, Workspace, workspace};
use sdft_checkpoint::write_safetensors;
use std::collections::BTreeMap;
use std::path::Path;

/// The digits' source model: its tensors, and its metadata.
fn source() -> (Vec<(String, Tensor)>, BTreeMap<String, String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("assets/weights/digits-source.safetensors");
    let state = sdft_checkpoint::read(&path, &Default::default()).unwrap();
    let tensors = state.iter().map(|(name, t)| (name.to_owned(), t.clone()));
    (tensors.collect(), state.metadata().clone())
}

fn write(
    place: &Workspace,
    name: &str,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) {
    let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&place.path(name), entries, metadata, None).unwrap();
}

const SIZES: [&str; 6] = [
    "--set",
    "model.image_size=16",
    "--set",
    "model.norm_groups=8",
    "--set",
    "model.num_head_channels=16",
];

#[test]
fn every_command_refuses_values_that_are_not_finite() {
    let place = workspace();
    let (mut tensors, metadata) = source();
    let (name, tensor) = &mut tensors[0];
    let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[0] = f32::NAN;
    *tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
    let said = format!("{name}: 1 of ");
    write(&place, "nan.safetensors", &tensors, &metadata);
    let image = sdft_imaging::Rgb8::new(16, 16, vec![128; 16 * 16 * 3]).unwrap();
    std::fs::create_dir(place.path("in")).unwrap();
    sdft_imaging::write_png(&place.path("in/a.png"), &image).unwrap();
    let train = [
        &SHORT[..],
        &["--source", "nan.safetensors", "--data", "digits"],
    ]
    .concat();
    for command in [
        &[
            "sample",
            "--model",
            "nan.safetensors",
            "-n",
            "1",
            "--out",
            "out",
        ][..],
        &[
            "translate",
            "--model",
            "nan.safetensors",
            "--input",
            "in",
            "--out",
            "out",
        ],
        &[
            "edit",
            "apply",
            "--model",
            "nan.safetensors",
            "--input",
            "in",
            "--edit",
            "nan.safetensors",
            "--out",
            "out",
        ],
        &["convert", "nan.safetensors", "out.safetensors"],
        &train,
    ] {
        place
            .run(command)
            .fails(1, &["nan.safetensors", &said, "NaN"]);
        assert!(!place.path("out").exists() && !place.path("out.safetensors").exists());
    }
    let seen = place.run(&["inspect", "nan.safetensors"]).ok();
    assert!(seen.out.contains(&said), "{}", seen.out);
    write(&place, "sound.safetensors", &source().0, &metadata);
    let seen = place.run(&["inspect", "sound.safetensors"]).ok();
    assert!(seen.out.contains("every number is finite"), "{}", seen.out);
}

#[test]
fn every_command_reports_an_assumed_process() {
    let place = workspace();
    // A learned variance shows that the network has no preconditioning, but not its process.
    let twice = |name: &str, tensor: &Tensor| match name.starts_with("out.2.") {
        true => Tensor::cat(&[tensor, tensor], 0).unwrap(),
        false => tensor.clone(),
    };
    let tensors = source().0.into_iter();
    let tensors: Vec<_> = tensors
        .map(|(name, tensor)| (name.clone(), twice(&name, &tensor)))
        .collect();
    write(&place, "bare.safetensors", &tensors, &BTreeMap::new());
    let said = "the linear schedule of 1000 steps is assumed";
    let sample = [
        "sample",
        "--model",
        "bare.safetensors",
        "-n",
        "1",
        "--steps",
        "ddim5",
        "--out",
        "out",
    ];
    let run = place.run(&[&sample[..], &SIZES].concat()).ok();
    assert!(run.err.contains(said), "{run:?}");
    let convert = ["convert", "bare.safetensors", "converted.safetensors"];
    let run = place.run(&[&convert[..], &SIZES].concat()).ok();
    assert!(run.err.contains(said), "{run:?}");
    let train = [
        &SHORT[..],
        &[
            "--dry-run",
            "--source",
            "converted.safetensors",
            "--data",
            "digits",
        ],
    ]
    .concat();
    let run = place.run(&train).ok();
    assert!(run.err.contains(said), "{run:?}");
    let seen = place.run(&["inspect", "converted.safetensors"]).ok();
    let line = seen
        .out
        .lines()
        .find(|line| line.trim_start().starts_with("noise_schedule"));
    assert!(line.unwrap().ends_with("assumed"), "{}", seen.out);
    let given = [
        "--set",
        "process.noise_schedule=linear",
        "--set",
        "process.diffusion_steps=1000",
    ];
    let run = place
        .run(&[&sample[..8], &["again"], &SIZES, &given].concat())
        .ok();
    assert!(!run.err.contains("which process"), "{run:?}");
}

#[test]
fn a_network_of_another_kind_is_refused_with_the_difference() {
    let place = workspace();
    let tensor = Tensor::ones((4, 3, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let names = ["conv_in.weight", "time_embedding.linear_1.weight"];
    let tensors: Vec<_> = names.map(|name| (name.to_owned(), tensor.clone())).into();
    std::fs::create_dir_all(place.path("model/unet")).unwrap();
    write(
        &place,
        "model/unet/diffusion_pytorch_model.safetensors",
        &tensors,
        &BTreeMap::new(),
    );
    let file = "model/unet/diffusion_pytorch_model.safetensors";
    place
        .run(&["sample", "--model", file, "-n", "1", "--out", "out"])
        .fails(1, &["diffusion_pytorch_model.safetensors"]);
    place
        .run(&["sample", "--model", "model", "-n", "1", "--out", "out"])
        .fails(1, &["diffusion_pytorch_model.safetensors"]);
    assert!(!place.path("out").exists());
}
