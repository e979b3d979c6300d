//! Files of a DiT: of the official code, of diffusers, and our own.

mod architectures;
mod common;

use architectures::{images, loaded, params, times};
use candle_core::{DType, Device, Tensor};
use common::given;
use sdft_adm::Origin;
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Condition, Continuous, FlowConvention, Level, Process};
use sdft_dit::{Dit, DitConfig, positions};
use sdft_models::{
    Architecture, LoadOptions, LoadedModel, convert_file, convert_to_diffusers, inspect_file,
    load_network, save_network,
};
use sdft_nn::Params;
use sdft_testing::max_abs_diff;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// DiT-S/2 of two layers, ten classes, and images of 8x8 pixels and three channels.
fn small() -> DitConfig {
    DitConfig {
        num_attention_heads: 6,
        attention_head_dim: 64,
        in_channels: 3,
        out_channels: 6,
        num_layers: 2,
        sample_size: 8,
        num_embeds_ada_norm: 10,
        norm_eps: 1e-6,
        shared_embedder: true,
        freq_shift: 0.0,
        ..DitConfig::default()
    }
}

/// The tensors under the official names, by a list that was written down name by name.
fn official(params: &Params) -> Vec<(String, Tensor)> {
    let tensor = |name: &str| params.tensor(name).unwrap().clone();
    let mut all = Vec::new();
    let mut put = |theirs: String, ours: String| {
        for leaf in ["weight", "bias"] {
            if let Some(tensor) = params.tensor(&format!("{ours}.{leaf}")) {
                all.push((format!("{theirs}.{leaf}"), tensor.clone()));
            }
        }
    };
    for (theirs, ours) in [
        ("x_embedder.proj", "pos_embed.proj"),
        ("t_embedder.mlp.0", "emb.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "emb.timestep_embedder.linear_2"),
        (
            "y_embedder.embedding_table",
            "emb.class_embedder.embedding_table",
        ),
        ("final_layer.adaLN_modulation.1", "proj_out_1"),
        ("final_layer.linear", "proj_out_2"),
    ] {
        put(theirs.to_owned(), ours.to_owned());
    }
    for i in 0..2 {
        for (theirs, ours) in [
            ("adaLN_modulation.1", "norm1.linear"),
            ("attn.proj", "attn1.to_out.0"),
            ("mlp.fc1", "ff.net.0.proj"),
            ("mlp.fc2", "ff.net.2"),
        ] {
            put(
                format!("blocks.{i}.{theirs}"),
                format!("transformer_blocks.{i}.{ours}"),
            );
        }
    }
    for i in 0..2 {
        for leaf in ["weight", "bias"] {
            let parts = ["to_q", "to_k", "to_v"]
                .map(|part| tensor(&format!("transformer_blocks.{i}.attn1.{part}.{leaf}")));
            let joined = Tensor::cat(&parts, 0).unwrap();
            all.push((format!("blocks.{i}.attn.qkv.{leaf}"), joined));
        }
    }
    let grid = positions(384, 4, [4, 4]).unwrap();
    let grid = grid.t().unwrap().unsqueeze(0).unwrap();
    all.push(("pos_embed".to_owned(), grid.contiguous().unwrap()));
    all
}

fn write(path: &Path, tensors: &[(String, Tensor)]) {
    let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(path, entries, &BTreeMap::new(), None).unwrap();
}

/// The options that a user gives for a file of facebookresearch/DiT.
fn as_dit(fields: Value) -> LoadOptions {
    let process = json!({"noise_schedule": "linear", "diffusion_steps": 1000});
    let Value::Object(given_process) = process else {
        panic!("an object")
    };
    LoadOptions {
        given_process,
        ..given(fields)
    }
}

fn output(model: &LoadedModel) -> Tensor {
    let condition = Condition {
        labels: Some(&[3, 10]),
        ..Condition::default()
    };
    let (x, t) = (images([2, 3, 8, 12]), times(&model.architecture));
    let net = model.network().unwrap();
    net.predict_with(&x, &t, &condition).unwrap().output
}

#[test]
fn an_official_file_is_the_network_that_its_names_and_shapes_show() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("DiT-S-2.safetensors");
    let expected = loaded(small().into());
    write(&path, &official(&expected.params));
    // DiT and SiT look the same.
    let error = load_network(&path, &LoadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("--set model.precond=sit")
            && error.contains("--set process.noise_schedule=linear"),
        "{error}"
    );
    let model = load_network(&path, &as_dit(json!({}))).unwrap();
    assert_eq!(model.architecture, Architecture::Dit(small()));
    assert_eq!(model.process, Process::default());
    assert_eq!(model.origins["freq_shift"], Origin::Inferred);
    assert_eq!((model.n_classes(), model.null_class()), (10, Some(10)));
    for ((name, a), (_, b)) in model.params.iter().zip(expected.params.iter()) {
        assert_eq!(max_abs_diff(a, b), 0.0, "{name}");
    }
    let inspected = inspect_file(&path, &as_dit(json!({}))).unwrap();
    assert!(inspected.misfit.is_none(), "{:?}", inspected.misfit);

    // Converted, it is a file of ours.
    let ours = dir.path().join("ours.safetensors");
    convert_file(&path, &ours, &as_dit(json!({})), None).unwrap();
    let again = load_network(&ours, &LoadOptions::default()).unwrap();
    assert_eq!(again.architecture, model.architecture);
    assert_eq!(max_abs_diff(&output(&again), &output(&model)), 0.0);
}

#[test]
fn an_official_file_of_sit_is_a_flow_and_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("SiT-S-2.safetensors");
    let expected = Architecture::DitFlow(small(), FlowConvention::Sit);
    let source = loaded(expected.clone());
    write(&path, &official(&source.params));
    let options = given(json!({"precond": "sit"}));
    let model = load_network(&path, &options).unwrap();
    assert_eq!(model.architecture, expected);
    assert!(matches!(
        model.process.continuous,
        Some(Continuous::Flow(_))
    ));
    assert!(!model.architecture.learns_variance());
    // SiT is called with 1 - tau and predicts x0 - eps in its first channels.
    let dit = Dit::load(&model.params, &small()).unwrap();
    let x = images([2, 3, 8, 8]);
    let labels = [3u32, 10];
    let raw = dit.forward(&x, &[0.6, 0.6], Some(&labels), None).unwrap();
    let v = raw.narrow(1, 0, 3).unwrap().neg().unwrap();
    let level = Level::of_tau(f64::from(1.0f32 - 0.6));
    // The same image in the state of the variance-preserving process.
    let share = level.alpha_bar.sqrt() + (1.0 - level.alpha_bar).sqrt();
    let xt = (&x * share).unwrap();
    let condition = Condition {
        labels: Some(&labels),
        ..Condition::default()
    };
    let net = model.network().unwrap();
    let prediction = net.predict_with(&xt, &[level.t; 2], &condition).unwrap();
    let clean = (&x - (v * f64::from(level.t)).unwrap()).unwrap();
    assert!(max_abs_diff(&prediction.output, &clean) < 1e-5);
    // Converted, the file states its flow.
    let ours = dir.path().join("ours.safetensors");
    convert_file(&path, &ours, &options, None).unwrap();
    let again = load_network(&ours, &LoadOptions::default()).unwrap();
    assert_eq!(again.architecture, expected);
    assert_eq!(again.process, model.process);
    assert_eq!(max_abs_diff(&output(&again), &output(&model)), 0.0);
    let error = load_network(&ours, &given(json!({"precond": "flow"}))).unwrap_err();
    assert!(error.to_string().contains("model.precond"), "{error}");
    let error = load_network(&path, &given(json!({"precond": "edm"}))).unwrap_err();
    assert!(error.to_string().contains("sit"), "{error}");
    // diffusers has no such network.
    let folder = dir.path().join("folder");
    let error = convert_to_diffusers(&ours, &folder, &LoadOptions::default(), None);
    assert!(error.unwrap_err().to_string().contains("a flow"));
}

#[test]
fn what_an_official_file_does_not_show_is_asked_for_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dit.safetensors");
    let tensors = official(&params(&small().into()));
    let load = |tensors: &[(String, Tensor)], fields: Value| {
        write(&path, tensors);
        load_network(&path, &as_dit(fields)).map_err(|e| e.to_string())
    };
    let other_heads = load(&tensors, json!({"num_attention_heads": 12})).unwrap();
    let Architecture::Dit(config) = other_heads.architecture else {
        panic!("a DiT");
    };
    assert_eq!(
        [config.num_attention_heads, config.attention_head_dim],
        [12, 32]
    );
    let with = |name: &str, new: Option<Tensor>| {
        let kept = tensors.iter().filter(|(known, _)| known != name).cloned();
        let new = new.map(|tensor| (name.to_owned(), tensor));
        kept.chain(new).collect::<Vec<_>>()
    };
    let error = load(&with("pos_embed", None), json!({})).unwrap_err();
    assert!(error.contains("--set model.sample_size="), "{error}");
    assert!(load(&with("pos_embed", None), json!({"sample_size": 8})).is_ok());
    let zeros = Tensor::zeros((1, 16, 384), DType::F32, &Device::Cpu).unwrap();
    let error = load(&with("pos_embed", Some(zeros)), json!({})).unwrap_err();
    assert!(
        error.contains("pos_embed") && error.contains("sines"),
        "{error}"
    );
    let error = load(&with("blocks.1.mlp.fc2.bias", None), json!({})).unwrap_err();
    assert!(
        error.contains("transformer_blocks.1.ff.net.2.bias"),
        "{error}"
    );
    // Another width has an unknown number of heads.
    let narrow = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        ..small()
    };
    let params = params(&narrow.clone().into());
    write(&path, &renamed(&params));
    let error = load_network(&path, &as_dit(json!({"sample_size": 8}))).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("--set model.num_attention_heads="),
        "{error}"
    );
    let fields = json!({"sample_size": 8, "num_attention_heads": 2});
    let model = load_network(&path, &as_dit(fields)).unwrap();
    assert_eq!(model.architecture, Architecture::Dit(narrow));
}

/// The official tensors without positions.
fn renamed(params: &Params) -> Vec<(String, Tensor)> {
    let all = official(params).into_iter();
    all.filter(|(name, _)| name != "pos_embed").collect()
}

#[test]
fn a_folder_of_diffusers_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("pipeline");
    let source = dir.path().join("source.safetensors");
    let model = loaded(
        DitConfig {
            freq_shift: 1.0,
            ..small()
        }
        .into(),
    );
    save_network(&source, &model.file(), &model.params, None).unwrap();
    let notes = convert_to_diffusers(&source, &folder, &LoadOptions::default(), None).unwrap();
    assert!(
        notes.iter().any(|note| note.contains("written 2 times")),
        "{notes:?}"
    );
    let config = std::fs::read_to_string(folder.join("transformer/config.json")).unwrap();
    let config: Map<String, Value> = serde_json::from_str(&config).unwrap();
    assert_eq!(config["_class_name"], "DiTTransformer2DModel");
    assert_eq!(config["num_embeds_ada_norm"], 10);
    for path in [folder.clone(), folder.join("transformer")] {
        let read = load_network(&path, &LoadOptions::default()).unwrap();
        let Architecture::Dit(config) = &read.architecture else {
            panic!("a DiT");
        };
        assert!(!config.shared_embedder);
        assert!(read.origins.values().all(|origin| *origin == Origin::Read));
        let expected = Process {
            sampling: read.process.sampling,
            ..model.process.clone()
        };
        assert_eq!(read.process, expected);
        assert_eq!(max_abs_diff(&output(&read), &output(&model)), 0.0);
    }
    // It may be written again.
    convert_to_diffusers(&source, &folder, &LoadOptions::default(), None).unwrap();
    std::fs::remove_file(folder.join("transformer/config.json")).unwrap();
    let error = load_network(&folder, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");

    // diffusers has other frequencies than the official code.
    let model = loaded(small().into());
    save_network(&source, &model.file(), &model.params, None).unwrap();
    let other = dir.path().join("other");
    let error = convert_to_diffusers(&source, &other, &LoadOptions::default(), None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("freq_shift"), "{error}");
}

#[test]
fn our_own_files_keep_every_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dit.safetensors");
    for config in [
        small(),
        DitConfig {
            attention_bias: false,
            norm_eps: 1e-5,
            shared_embedder: false,
            freq_shift: 1.0,
            patch_size: 4,
            dropout: 0.1,
            ..small()
        },
    ] {
        let model = loaded(config.into());
        save_network(&path, &model.file(), &model.params, None).unwrap();
        let read = load_network(&path, &LoadOptions::default()).unwrap();
        assert_eq!(read.architecture, model.architecture);
        assert_eq!(read.classes, model.classes);
        let text = serde_json::to_value(&read.architecture).unwrap();
        assert_eq!(text["architecture"], "dit");
        let again: Architecture = serde_json::from_value(text).unwrap();
        assert_eq!(again, read.architecture);
        let error = load_network(&path, &given(json!({"num_layers": 3}))).unwrap_err();
        assert!(error.to_string().contains("model.num_layers"), "{error}");
    }
}
