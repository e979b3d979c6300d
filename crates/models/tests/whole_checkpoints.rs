//! Checkpoints of latent diffusion as CompVis writes them: the network and its autoencoder in one file.

mod common;

use candle_core::{Device, Tensor};
use common::{error, given};
use sdft_adm::{AdmConfig, Unet};
use sdft_autoencoder::{AutoencoderConfig, Space};
use sdft_checkpoint::{read, write_safetensors};
use sdft_diffusion::Process;
use sdft_models::{
    AutoencoderOptions, LoadOptions, LoadedAutoencoder, LoadedModel, NetworkFile, convert_file,
    convert_to_diffusers, inspect_file, load_autoencoder, load_network, save_autoencoder,
    save_network,
};
use sdft_nn::Params;
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, sample_ddim};
use sdft_schedule::Respacing;
use sdft_testing::{nonzero_params, normal, tiny_config};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/autoencoder");
    data.join(name)
}

/// The network, for latents of so many channels.
fn network(channels: usize) -> (AdmConfig, Params) {
    let config = AdmConfig {
        in_channels: channels,
        out_channels: channels,
        resblock_updown: false,
        use_scale_shift_norm: false,
        ..tiny_config()
    };
    let params = nonzero_params(Unet::specs(&config).unwrap(), 5);
    (config, params)
}

/// Latent diffusion's process.
fn process() -> Process {
    Process {
        noise_schedule: "scaled_linear".to_owned(),
        beta_start: Some(0.0015),
        beta_end: Some(0.0195),
        unbounded: true,
        ..Process::default()
    }
}

/// A whole checkpoint with the tensors of the autoencoder in `first`.
fn write_whole(path: &Path, first: &Path, params: &Params, scale: Option<f32>) {
    let first = read(first, &Default::default()).unwrap();
    let first = first
        .iter()
        .map(|(name, tensor)| (format!("first_stage_model.{name}"), tensor.clone()));
    let network = params
        .iter()
        .map(|(name, tensor)| (format!("model.diffusion_model.{name}"), tensor.clone()));
    let mut all: HashMap<String, Tensor> = first.chain(network).collect();
    let betas = Tensor::zeros(1000, candle_core::DType::F32, &Device::Cpu);
    all.insert("betas".to_owned(), betas.unwrap());
    if let Some(scale) = scale {
        let scale = Tensor::new(scale, &Device::Cpu).unwrap();
        all.insert("scale_factor".to_owned(), scale);
    }
    let tensors = all.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(path, tensors, &BTreeMap::new(), None).unwrap();
}

/// What the file does not show, with these fields of the autoencoder.
fn hidden(autoencoder: Value) -> LoadOptions {
    let process = json!({
        "noise_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195, "diffusion_steps": 1000,
    });
    LoadOptions {
        given_process: process.as_object().unwrap().clone(),
        ..unknown_process(autoencoder)
    }
}

fn unknown_process(autoencoder: Value) -> LoadOptions {
    given(json!({
        "image_size": 8, "norm_groups": 4, "num_head_channels": 8, "autoencoder": autoencoder,
    }))
}

/// A file of this project with the same network, next to the same autoencoder.
fn write_ours(
    folder: &Path,
    autoencoder: &LoadedAutoencoder,
    network: &(AdmConfig, Params),
) -> PathBuf {
    let record = &autoencoder.record;
    let stage = folder.join(record.file_name());
    let none = BTreeMap::new();
    save_autoencoder(&stage, &record.config, &autoencoder.params, &none, None).unwrap();
    let path = folder.join("ours.safetensors");
    let (architecture, process) = (network.0.clone().into(), process());
    let file = NetworkFile {
        autoencoder: Some(record),
        ..NetworkFile::new(&architecture, &process)
    };
    save_network(&path, &file, &network.1, None).unwrap();
    path
}

/// An image of a model in all steps of DDIM, which are those of a pipeline too.
fn image(model: &LoadedModel) -> Vec<f32> {
    let [channels, height, width] = model.state_shape(&model.image);
    let noise = normal(3, &[1, channels, height, width]);
    let diffusion = model.diffusion(&Respacing::All).unwrap();
    let net = model.network().unwrap();
    let (options, mut fresh) = (Ddim::default(), SeededNoise::new(0, 0));
    let sampled = sample_ddim(&diffusion, &*net, &noise, &options, &mut fresh, &mut |_| {
        Ok(())
    });
    let autoencoder = model.autoencoder.as_ref().unwrap().autoencoder().unwrap();
    let space = Space::latents(model.image, Arc::new(autoencoder));
    let decoded = space.decode(&sampled.unwrap()).unwrap();
    decoded.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().any(|value| value.abs() > 1e-3));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 2e-5, "{a} instead of {b}");
    }
}

fn scaling(model: &LoadedModel) -> f64 {
    model
        .autoencoder_config()
        .map(AutoencoderConfig::scaling_factor)
        .unwrap()
}

#[test]
fn a_whole_checkpoint_makes_the_images_of_the_same_weights_in_a_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let stage = load_autoencoder(&data("vq"), &AutoencoderOptions::default()).unwrap();
    let network = network(stage.record.config.latent_channels());
    let ours = write_ours(dir.path(), &stage, &network);
    let folder = dir.path().join("pipeline");
    convert_to_diffusers(&ours, &folder, &LoadOptions::default(), None).unwrap();
    let expected = image(&load_network(&folder, &LoadOptions::default()).unwrap());

    let whole = dir.path().join("whole.safetensors");
    let first = data("vq/diffusion_pytorch_model.safetensors");
    write_whole(&whole, &first, &network.1, None);
    let options = hidden(json!({"norm_num_groups": 2}));
    let model = load_network(&whole, &options).unwrap();
    // CompVis multiplies the latents of VQ models by 1.
    assert_eq!(scaling(&model), 1.0);
    assert_eq!(model.state_shape(&model.image)[1..], [8, 8]);
    assert_near(&image(&model), &expected);

    let converted = dir.path().join("converted/whole.safetensors");
    std::fs::create_dir(converted.parent().unwrap()).unwrap();
    convert_file(&whole, &converted, &options, None).unwrap();
    let model = load_network(&converted, &LoadOptions::default()).unwrap();
    assert_near(&image(&model), &expected);
}

#[test]
fn the_scaling_factor_is_that_of_the_file_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let fields = json!({"norm_num_groups": 2, "scaling_factor": 0.37});
    let alone = AutoencoderOptions {
        given: fields.as_object().unwrap().clone(),
        ..AutoencoderOptions::default()
    };
    let stage = load_autoencoder(&data("compvis.ckpt"), &alone).unwrap();
    let network = network(stage.record.config.latent_channels());
    let ours = write_ours(dir.path(), &stage, &network);
    let expected = image(&load_network(&ours, &LoadOptions::default()).unwrap());

    let whole = dir.path().join("whole.safetensors");
    let first = data("compvis.ckpt");
    write_whole(&whole, &first, &network.1, Some(0.37));
    let groups = hidden(json!({"norm_num_groups": 2}));
    let model = load_network(&whole, &groups).unwrap();
    assert_eq!(scaling(&model), 0.37);
    assert_near(&image(&model), &expected);
    let other = hidden(json!({"norm_num_groups": 2, "scaling_factor": 0.5}));
    let text = error(&whole, &other).to_string();
    assert!(text.contains("0.37") && text.contains("0.5"), "{text}");

    write_whole(&whole, &first, &network.1, None);
    let text = error(&whole, &groups).to_string();
    assert!(
        text.contains("--set model.autoencoder.scaling_factor="),
        "{text}"
    );
    let model = load_network(&whole, &hidden(fields)).unwrap();
    assert_near(&image(&model), &expected);
}

#[test]
fn the_question_about_the_process_offers_latent_diffusion() {
    let dir = tempfile::tempdir().unwrap();
    let stage = load_autoencoder(&data("vq"), &AutoencoderOptions::default()).unwrap();
    let network = network(stage.record.config.latent_channels());
    let whole = dir.path().join("whole.safetensors");
    let first = data("vq/diffusion_pytorch_model.safetensors");
    write_whole(&whole, &first, &network.1, None);
    let text = error(&whole, &unknown_process(json!({"norm_num_groups": 2}))).to_string();
    for words in ["scaled_linear", "beta_end=0.0195", "num_head_channels=32"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("improved-diffusion"), "{text}");
}

#[test]
fn inspection_shows_the_form_of_the_images_and_no_field_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let stage = load_autoencoder(&data("vq"), &AutoencoderOptions::default()).unwrap();
    let network = network(stage.record.config.latent_channels());
    let whole = dir.path().join("whole.safetensors");
    let first = data("vq/diffusion_pytorch_model.safetensors");
    write_whole(&whole, &first, &network.1, None);
    let fields = json!({"norm_num_groups": 2});
    let seen = inspect_file(&whole, &hidden(fields.clone())).unwrap();
    let factor = stage.record.config.factor();
    assert_eq!(
        seen.resolved.unwrap().image.shape(),
        [3, 8 * factor, 8 * factor]
    );

    let with_stage = LoadOptions {
        autoencoder: Some(Arc::new(stage)),
        ..hidden(fields.clone())
    };
    let text = error(&whole, &with_stage).to_string();
    assert!(
        text.contains("model.autoencoder: ") && text.contains("--autoencoder"),
        "{text}"
    );
    let alone = dir.path().join("alone.safetensors");
    write_safetensors(&alone, network.1.iter(), &BTreeMap::new(), None).unwrap();
    let text = error(&alone, &hidden(fields)).to_string();
    assert!(text.contains("states no autoencoder"), "{text}");
    let text = error(&whole, &hidden(json!({"scaling": 1}))).to_string();
    assert!(text.contains("scaling"), "{text}");
}
