//! Networks as folders of diffusers: equal ones, or refused with the name of the field.

mod common;
mod diffusers;

use candle_core::{Device, Tensor};
use common::{Files, given};
use diffusers::{as_diffusers, shaken, with_attention};
use sdft_adm::AdmConfig;
use sdft_diffusion::{Condition, Process};
use sdft_models::{
    Architecture, LoadOptions, LoadedModel, NetworkFile, convert_to_diffusers, load_network,
    save_network, write_diffusers,
};
use sdft_nn::Params;
use sdft_testing::tiny_config;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

fn params(architecture: &Architecture) -> Params {
    shaken(&architecture.specs().unwrap())
}

fn write(
    folder: &Path,
    config: AdmConfig,
    process: &Process,
) -> Result<(LoadedModel, LoadedModel), String> {
    let architecture = Architecture::Adm(config);
    let params = params(&architecture);
    let network = NetworkFile::new(&architecture, process);
    write_diffusers(folder, &network, &params, None, None).map_err(|e| e.to_string())?;
    let adm = folder.with_extension("safetensors");
    save_network(&adm, &network, &params, None).unwrap();
    let load = |path: &Path| load_network(path, &LoadOptions::default()).unwrap();
    Ok((load(&adm), load(folder)))
}

fn outputs(model: &LoadedModel) -> Vec<f32> {
    let [channels, height, width] = model.architecture.image_shape();
    let n = 2 * channels * height * width;
    let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_vec(x, (2, channels, height, width), &Device::Cpu).unwrap();
    let labels = (model.architecture.n_classes() > 0).then_some(&[1u32, 0][..]);
    let condition = Condition {
        labels,
        ..Condition::default()
    };
    let net = model.network().unwrap();
    let prediction = net.predict_with(&x, &[321.0, 0.0], &condition).unwrap();
    prediction.output.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn adm_networks_become_the_unet2d_model_that_equals_them() {
    let dir = tempfile::tempdir().unwrap();
    let base = with_attention();
    let process = Process::default();
    for (name, config) in [
        ("heads", base.clone()),
        (
            "new order",
            AdmConfig {
                use_new_attention_order: true,
                ..base.clone()
            },
        ),
        (
            "convolutions",
            AdmConfig {
                resblock_updown: false,
                use_scale_shift_norm: false,
                attention_resolutions: vec![2],
                num_res_blocks: 2,
                out_channels: 3,
                ..base.clone()
            },
        ),
        (
            "one head, no attention but in the middle",
            AdmConfig {
                num_head_channels: 0,
                num_heads: 1,
                attention_resolutions: vec![],
                ..base.clone()
            },
        ),
        (
            "classes",
            AdmConfig {
                num_classes: 3,
                ..base.clone()
            },
        ),
    ] {
        let (adm, unet2d) = write(&dir.path().join(name), config, &process).unwrap();
        assert_eq!(unet2d.architecture.name(), "unet2d");
        let (a, b) = (outputs(&adm), outputs(&unet2d));
        assert!(a.iter().any(|x| x.abs() > 1e-2), "{name}");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} {b}");
        }
        let [ours, theirs] = [&adm, &unet2d].map(|model| {
            let diffusion = model.diffusion(&"1000".parse().unwrap()).unwrap();
            (diffusion.schedule.alpha_bar().to_vec(), diffusion.variance)
        });
        assert_eq!(ours.1, theirs.1, "{name}");
        // diffusers' tables are in single precision.
        let near = |a: &f64, b: &f64| (a - b).abs() < 1e-4 * a;
        assert!(
            ours.0.iter().zip(&theirs.0).all(|(a, b)| near(a, b)),
            "{name}"
        );
    }
}

#[test]
fn names_are_those_of_a_list_written_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("named");
    let (adm, unet2d) = write(&folder, with_attention(), &Process::default()).unwrap();
    let mut expected = as_diffusers(&adm.params, 4);
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let found: BTreeMap<&str, &Tensor> = unet2d.params.iter().collect();
    assert_eq!(found.len(), expected.len());
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in &expected {
        assert_eq!(values(found[name.as_str()]), values(tensor), "{name}");
    }
}

#[test]
fn networks_without_an_equal_are_refused_by_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let base = with_attention();
    let usual = Process::default();
    let rescaled = Process {
        diffusion_steps: 4000,
        rescale_timesteps: true,
        ..Process::default()
    };
    for (config, process, named) in [
        (
            AdmConfig {
                num_head_channels: 0,
                num_heads: 2,
                ..base.clone()
            },
            &usual,
            "model.num_heads: ",
        ),
        (
            AdmConfig {
                model_channels: 16,
                channel_mult: vec![0.5, 1.0],
                ..base.clone()
            },
            &usual,
            "model.channel_mult: ",
        ),
        (
            AdmConfig {
                resblock_updown: false,
                conv_resample: false,
                ..base.clone()
            },
            &usual,
            "model.conv_resample: ",
        ),
        (
            AdmConfig {
                time_adapter_rank: Some(0),
                ..base.clone()
            },
            &usual,
            "model.time_adapter_rank: expected a network without time-aware adapters",
        ),
        (base, &rescaled, "rescale_timesteps"),
    ] {
        let error = write(&folder, config, process).unwrap_err();
        assert!(error.contains(named), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn only_folders_of_pipelines_are_replaced() {
    let files = Files::new();
    let (ours, out) = (files.ours(), files.path("out"));
    let options = LoadOptions::default();
    let convert = || convert_to_diffusers(&ours, &out, &options, None);
    convert().unwrap();
    std::fs::write(out.join("unet/old"), "").unwrap();
    convert().unwrap();
    assert!(!out.join("unet/old").exists());
    std::fs::remove_file(out.join("model_index.json")).unwrap();
    let error = convert().unwrap_err().to_string();
    assert!(error.contains("expected a new folder"), "{error}");
    assert!(out.join("unet/config.json").exists());
    // Nothing else is left.
    let mut names: Vec<_> = std::fs::read_dir(files.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ours.safetensors", "out"]);
}

#[test]
fn edm_networks_are_refused() {
    let files = Files::new();
    let config = AdmConfig {
        out_channels: 3,
        ..tiny_config()
    };
    let architecture = Architecture::AdmEdm(config);
    let path = files.path("edm.safetensors");
    let params = params(&architecture);
    let none = BTreeMap::new();
    sdft_checkpoint::write_safetensors(&path, params.iter(), &none, None).unwrap();
    let options = given(json!({
        "image_size": 8, "norm_groups": 4, "num_head_channels": 8, "precond": "edm"
    }));
    let error = convert_to_diffusers(&path, &files.path("out"), &options, None).unwrap_err();
    assert!(error.to_string().contains("model.precond: "), "{error}");
}
