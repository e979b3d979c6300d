//! Files of EDM networks: what they state is used, and what they do not is asked for.

mod common;

use candle_core::{DType, Device, Tensor};
use common::given;
use sdft_adm::{AdmConfig, Origin};
use sdft_checkpoint::{CONSTRUCTOR_KEY, write_safetensors};
use sdft_diffusion::{PredictionType, Process};
use sdft_edm::{EdmConfig, ModelConfig, SongUnetConfig};
use sdft_models::{
    Architecture, LoadOptions, LoadedModel, ModelError, NetworkFile, convert_file, inspect_file,
    load_network, save_network,
};
use sdft_nn::Params;
use sdft_testing::tiny_config;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn song() -> Architecture {
    let model = SongUnetConfig {
        model_channels: 8,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![4],
        ..SongUnetConfig::default()
    };
    Architecture::Edm(EdmConfig {
        img_resolution: 8,
        model: ModelConfig::SongUNet(model),
        ..EdmConfig::default()
    })
}

fn write(
    dir: &Path,
    architecture: &Architecture,
    prefix: &str,
    metadata: &BTreeMap<String, String>,
) -> PathBuf {
    let params = Params::init(&architecture.specs().unwrap(), 1, &Device::Cpu).unwrap();
    let named: Vec<(String, Tensor)> = params
        .iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        .collect();
    let path = dir.join("net.safetensors");
    let entries = named.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&path, entries, metadata, None).unwrap();
    path
}

fn assert_denoises(model: &LoadedModel) {
    let [channels, height, width] = model.architecture.image_shape();
    let x = Tensor::ones((2, channels, height, width), DType::F32, &Device::Cpu).unwrap();
    let prediction = model.network().unwrap().predict(&x, &[0.5, 7.0]).unwrap();
    assert_eq!(prediction.prediction_type, PredictionType::Sample);
    assert_eq!(prediction.output.dims(), x.dims());
    let continuous = model.process.continuous.unwrap();
    assert_eq!(continuous.sigma_range(), (0.002, 80.0));
}

#[test]
fn a_state_dict_does_not_state_its_preconditioning_which_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let usual = LoadOptions::default();
    for prefix in ["", "ema."] {
        let path = write(dir.path(), &song(), prefix, &BTreeMap::new());
        let error = load_network(&path, &usual).unwrap_err().to_string();
        assert!(
            error.contains("--set model.precond=edm, vp or ve"),
            "{error}"
        );
        let resolved = inspect_file(&path, &usual).unwrap().resolved.unwrap();
        assert!(resolved.ask.unwrap().contains("model.precond"));
        let model = load_network(&path, &given(json!({"precond": "edm"}))).unwrap();
        let architecture = song().with_dropout(model.architecture.dropout());
        assert_eq!(model.architecture, architecture);
        assert_eq!(model.origins["precond"], Origin::Given);
        assert_denoises(&model);
        // A conversion keeps what was given.
        let out = dir.path().join("converted.safetensors");
        convert_file(&path, &out, &given(json!({"precond": "edm"})), None).unwrap();
        let again = load_network(&out, &usual).unwrap();
        assert_eq!(again.architecture, model.architecture);
        assert_eq!(again.process, model.process);
        let error = load_network(&out, &given(json!({"precond": "vp"}))).unwrap_err();
        assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
    }
    let path = write(dir.path(), &song(), "", &BTreeMap::new());
    let error = load_network(&path, &given(json!({"precond": "ddpm"}))).unwrap_err();
    assert!(
        error.to_string().contains("expected edm, vp or ve"),
        "{error}"
    );
}

#[test]
fn the_constructor_of_a_snapshot_states_everything() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = json!({
        "img_resolution": 8, "img_channels": 3, "label_dim": 0, "sigma_data": 0.25, "model_type": "SongUNet",
        "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
    });
    let text = |kwargs: &serde_json::Value, class: &str| {
        let constructor = json!({"class_name": class, "args": [], "kwargs": kwargs, "modules": {}});
        BTreeMap::from([(CONSTRUCTOR_KEY.to_owned(), constructor.to_string())])
    };
    let metadata = text(&arguments, "EDMPrecond");
    let path = write(dir.path(), &song(), "", &metadata);
    let model = load_network(&path, &LoadOptions::default()).unwrap();
    assert!(model.origins.values().all(|origin| *origin == Origin::Read));
    let continuous = model.process.continuous.unwrap();
    assert_eq!(continuous.edm().unwrap().sigma_data, 0.25);
    assert_denoises(&model);
    let error = load_network(&path, &given(json!({"img_channels": 1}))).unwrap_err();
    assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
    for (kwargs, class, named) in [
        (json!({"img_resolution": 8}), "EDMPrecond", "img_channels"),
        (arguments.clone(), "iDDPMPrecond", "iDDPMPrecond"),
    ] {
        let path = write(dir.path(), &song(), "", &text(&kwargs, class));
        let error = load_network(&path, &LoadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("constructor") && error.contains(named),
            "{error}"
        );
    }
}

#[test]
fn adm_without_a_variance_is_asked_whether_it_is_preconditioned() {
    let dir = tempfile::tempdir().unwrap();
    let config = AdmConfig {
        out_channels: 3,
        use_new_attention_order: true,
        ..tiny_config()
    };
    let edm = Architecture::AdmEdm(config);
    let path = write(dir.path(), &edm, "", &BTreeMap::new());
    let shown = json!({"image_size": 8, "norm_groups": 4, "num_head_channels": 8});
    let error = load_network(&path, &given(shown.clone()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--set model.precond=edm") && error.contains("--set process.noise_schedule"),
        "{error}"
    );
    let mut options = given(shown);
    options.given.insert("precond".to_owned(), json!("edm"));
    let model = load_network(&path, &options).unwrap();
    assert_eq!(model.architecture, edm);
    assert_denoises(&model);
    // Written and read again; and a plain network is not taken for one.
    let again = dir.path().join("again.safetensors");
    let save = |architecture: &Architecture, process: &Process| {
        save_network(
            &again,
            &NetworkFile::new(architecture, process),
            &model.params,
            None,
        )
        .unwrap();
        load_network(&again, &LoadOptions::default())
    };
    let read = save(&edm, &model.process).unwrap();
    assert_eq!(
        (read.architecture, read.process),
        (edm.clone(), model.process.clone())
    );
    let error = save(&edm, &Process::default()).unwrap_err().to_string();
    assert!(error.contains("process.continuous"), "{error}");
    let plain = Architecture::Adm(edm.adm().unwrap().clone());
    assert!(save(&plain, &Process::default()).is_ok());
    let error = load_network(&again, &given(json!({"precond": "edm"}))).unwrap_err();
    assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
}
