//! Files of autoencoders: diffusers' folders, CompVis' checkpoints, this project's own.

use candle_core::{Device, Tensor};
use sdft_autoencoder::{Autoencoder, AutoencoderConfig, Moments};
use sdft_checkpoint::{read, write_safetensors};
use sdft_models::{
    AutoencoderOptions, LoadOptions, LoadedAutoencoder, NetworkFile, inspect_file,
    load_autoencoder, load_autoencoder_bytes, load_network, save_autoencoder, save_network,
};
use sdft_testing::{initial_params, max_abs_diff, tiny_config};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/autoencoder")
        .join(name)
}

/// Numbers that diffusers computed.
fn expected(name: &str) -> Tensor {
    let all = read(&data("expected.safetensors"), &Default::default()).unwrap();
    all.get(name).unwrap().clone()
}

fn given(fields: Value) -> AutoencoderOptions {
    AutoencoderOptions {
        given: fields.as_object().unwrap().clone(),
        ..AutoencoderOptions::default()
    }
}

fn load(name: &str, options: &AutoencoderOptions) -> LoadedAutoencoder {
    load_autoencoder(&data(name), options).unwrap()
}

fn error(path: &Path, options: &AutoencoderOptions) -> String {
    load_autoencoder(path, options).unwrap_err().to_string()
}

/// What the CompVis file does not show.
fn hidden() -> AutoencoderOptions {
    given(json!({ "norm_num_groups": 2, "scaling_factor": 0.5, "shift_factor": 0.25 }))
}

fn encoded(loaded: &LoadedAutoencoder) -> (Autoencoder, Moments) {
    let autoencoder = loaded.autoencoder().unwrap();
    let moments = autoencoder.encode(&expected("x")).unwrap();
    (autoencoder, moments)
}

fn assert_is_kl(loaded: &LoadedAutoencoder) {
    let (autoencoder, moments) = encoded(loaded);
    assert!(max_abs_diff(&moments.mean, &expected("kl.mean")) < 2e-5);
    assert!(max_abs_diff(&moments.std, &expected("kl.std")) < 2e-5);
    let decoded = autoencoder.decode(&expected("kl.mean")).unwrap();
    assert!(max_abs_diff(&decoded, &expected("kl.decoded")) < 2e-5);
}

#[test]
fn folders_of_new_and_old_names_give_diffusers_numbers() {
    let kl = load("kl", &AutoencoderOptions::default());
    assert_is_kl(&kl);
    assert_eq!(kl.record.config.shift_factor(), 0.25);
    assert!(kl.notes[0].contains("config.json"), "{:?}", kl.notes);
    let old = load("kl_old", &AutoencoderOptions::default());
    assert_is_kl(&old);
    assert_eq!(old.record.config.shift_factor(), 0.0);
    assert_ne!(old.record.sha256, kl.record.sha256);
}

#[test]
fn a_codebook_quantises_and_an_old_config_without_a_factor_does_not_scale() {
    let vq = load("vq", &AutoencoderOptions::default());
    let (autoencoder, moments) = encoded(&vq);
    assert!(max_abs_diff(&moments.mean, &expected("vq.latents")) < 2e-5);
    assert_eq!(
        moments
            .std
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
        0.0
    );
    let decoded = autoencoder.decode(&expected("vq.latents")).unwrap();
    assert!(max_abs_diff(&decoded, &expected("vq.decoded")) < 2e-5);
    assert_eq!(vq.record.config.scaling_factor(), 1.0);
    let note = vq.notes.iter().find(|note| note.contains("scaling_factor"));
    assert!(
        note.is_some_and(|note| note.contains("1 is taken")),
        "{:?}",
        vq.notes
    );
    let scaled = load("vq", &given(json!({ "scaling_factor": 0.2 })));
    assert_eq!(scaled.record.config.scaling_factor(), 0.2);
}

#[test]
fn a_file_of_compvis_is_inferred_and_asks_for_its_scaling_factor() {
    let path = data("compvis.ckpt");
    let loaded = load("compvis.ckpt", &hidden());
    assert_is_kl(&loaded);
    assert_eq!(
        loaded.record.config,
        load("kl", &AutoencoderOptions::default()).config_with_size(&loaded)
    );
    let notes = loaded.notes.join("\n");
    assert!(
        notes.contains("32 groups") && notes.contains("its training are not read: loss"),
        "{notes}"
    );
    let text = error(&path, &given(json!({ "norm_num_groups": 2 })));
    assert!(
        text.contains("scaling_factor") && text.contains("give"),
        "{text}"
    );
    // 32 groups are assumed, which these widths do not have.
    let text = error(&path, &AutoencoderOptions::default());
    assert!(text.contains("norm_num_groups"), "{text}");
}

/// The size of the training images is the only field that no file of CompVis decides.
trait WithSize {
    fn config_with_size(&self, other: &LoadedAutoencoder) -> AutoencoderConfig;
}

impl WithSize for LoadedAutoencoder {
    fn config_with_size(&self, other: &LoadedAutoencoder) -> AutoencoderConfig {
        match (self.record.config.clone(), &other.record.config) {
            (AutoencoderConfig::Kl(mut config), AutoencoderConfig::Kl(other)) => {
                config.sample_size = other.sample_size;
                config.into()
            }
            (config, _) => config,
        }
    }
}

#[test]
fn the_first_stage_of_a_whole_model_is_found_by_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.safetensors");
    let first = read(&data("compvis.ckpt"), &Default::default()).unwrap();
    let mut all: HashMap<String, Tensor> = first
        .iter()
        .map(|(name, tensor)| (format!("first_stage_model.{name}"), tensor.clone()))
        .collect();
    let params = initial_params(&tiny_config(), 5);
    let network = params.iter();
    all.extend(
        network.map(|(name, tensor)| (format!("model.diffusion_model.{name}"), tensor.clone())),
    );
    let tensors = all.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&path, tensors, &BTreeMap::new(), None).unwrap();
    let loaded = load_autoencoder(&path, &hidden()).unwrap();
    assert_is_kl(&loaded);
    assert!(
        inspect_file(&path, &LoadOptions::default())
            .unwrap()
            .autoencoder
            .is_none()
    );
}

#[test]
fn a_saved_autoencoder_is_read_again_from_a_file_and_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ours.safetensors");
    let kl = load("kl", &AutoencoderOptions::default());
    let provenance = BTreeMap::from([("run".to_owned(), "r".to_owned())]);
    save_autoencoder(&path, &kl.record.config, &kl.params, &provenance, None).unwrap();
    let again = load_autoencoder(&path, &AutoencoderOptions::default()).unwrap();
    assert_eq!(again.record.config, kl.record.config);
    assert_is_kl(&again);
    let bytes = std::fs::read(&path).unwrap();
    let from_memory = load_autoencoder_bytes("ours", &bytes, &AutoencoderOptions::default());
    assert_eq!(from_memory.unwrap().record.sha256, again.record.sha256);
    let text = error(&path, &given(json!({ "scaling_factor": 0.3 })));
    assert!(
        text.contains("scaling_factor") && text.contains("0.3"),
        "{text}"
    );
}

#[test]
fn an_autoencoder_and_a_diffusion_model_are_not_taken_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kl", "compvis.ckpt"] {
        let error = load_network(&data(name), &LoadOptions::default());
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("expected a diffusion model, found an autoencoder"),
            "{text}"
        );
    }
    let path = dir.path().join("network.safetensors");
    let (architecture, process) = (tiny_config().into(), Default::default());
    let params = initial_params(&tiny_config(), 5);
    let file = NetworkFile::new(&architecture, &process);
    save_network(&path, &file, &params, None).unwrap();
    let text = error(&path, &AutoencoderOptions::default());
    assert!(
        text.contains("expected an autoencoder, found a diffusion model"),
        "{text}"
    );
    let path = dir.path().join("other.safetensors");
    let other = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap();
    write_safetensors(&path, [("a.b", &other)], &BTreeMap::new(), None).unwrap();
    let text = error(&path, &AutoencoderOptions::default());
    assert!(
        text.contains("expected an autoencoder, found none"),
        "{text}"
    );
}

#[test]
fn inspection_says_what_an_autoencoder_is() {
    let inspect = |name: &str| inspect_file(&data(name), &LoadOptions::default()).unwrap();
    let kl = inspect("kl");
    let (config, ask) = kl.autoencoder.unwrap();
    assert_eq!(
        (config.class_name(), config.factor(), ask),
        ("AutoencoderKL", 2, None)
    );
    assert!(kl.misfit.is_none(), "{:?}", kl.misfit);
    assert_eq!(inspect("vq").autoencoder.unwrap().0.class_name(), "VQModel");
}

#[test]
fn fields_of_a_config_are_computed_or_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::copy(data("kl").join(file), dir.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(data("kl/config.json")).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    for (field, value, problem) in [
        (
            "latents_mean",
            json!([0.0, 0.0]),
            "latents_mean: expected null",
        ),
        (
            "down_block_types",
            json!(["DownBlock2D", "DownBlock2D"]),
            "down_block_types: expected a list of DownEncoderBlock2D",
        ),
        ("act_fn", json!("mish"), "act_fn: expected silu"),
        (
            "new_field",
            json!(1),
            "new_field: expected a field that AutoencoderKL has",
        ),
        (
            "_class_name",
            json!("AutoencoderDC"),
            "_class_name: expected AutoencoderKL or VQModel",
        ),
        (
            "norm_num_groups",
            json!(3),
            "norm_num_groups: expected a number that divides 4",
        ),
        (
            "scaling_factor",
            json!(0),
            "scaling_factor: expected a number above 0",
        ),
        ("out_channels", json!(1), "in_channels 3 and out_channels 1"),
        ("layers_per_block", json!(2), "likely cause"),
    ] {
        let mut settings = settings.clone();
        settings[field] = value;
        std::fs::write(dir.path().join("config.json"), settings.to_string()).unwrap();
        let text = error(dir.path(), &AutoencoderOptions::default());
        assert!(text.contains(problem), "{text}");
    }
}
