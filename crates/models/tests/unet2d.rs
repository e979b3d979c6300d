//! diffusers' `UNet2DModel`: computed as its settings say, or refused with the name of the field.

mod common;
mod diffusers;

use candle_core::{Device, Tensor};
use common::given;
use diffusers::{Folder, as_diffusers, settings, with_attention};
use sdft_adm::Origin;
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::PredictionType;
use sdft_models::{
    LoadOptions, LoadedModel, ModelError, NetworkFile, convert_file, inspect_file, load_network,
    load_network_bytes, save_network,
};
use serde_json::json;
use std::collections::BTreeMap;

/// Predictions of a model for the same images at three times, one after another.
fn outputs(model: &LoadedModel, t: &[f32]) -> Vec<f32> {
    let [channels, height, width] = model.architecture.image_shape();
    let n = t.len() * channels * height * width;
    let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_vec(x, (t.len(), channels, height, width), &Device::Cpu).unwrap();
    let prediction = model.network().unwrap().predict(&x, t).unwrap();
    let values = prediction.output.flatten_all().unwrap();
    values.to_vec1().unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn a_folder_is_the_network_that_its_config_describes() {
    let folder = Folder::new();
    let options = LoadOptions::default();
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.architecture.name(), "unet2d");
    assert!(
        loaded
            .origins
            .values()
            .all(|origin| *origin == Origin::Read)
    );
    let notes = loaded.notes.join("; ");
    assert!(
        notes.contains("diffusers' layout, read with") && notes.contains("config.json"),
        "{notes}"
    );
    let inspected = inspect_file(&folder.weights(), &options).unwrap();
    assert!(inspected.misfit.is_none(), "{:?}", inspected.misfit);
    // It equals an ADM network.
    let adm = folder.path("adm.safetensors");
    let (architecture, process) = (with_attention().into(), loaded.process.clone());
    save_network(
        &adm,
        &NetworkFile::new(&architecture, &process),
        &folder.params,
        None,
    )
    .unwrap();
    let t = [0.0, 321.0, 999.0];
    let expected = outputs(&load_network(&adm, &options).unwrap(), &t);
    assert!(close(&outputs(&loaded, &t), &expected, 1e-4));
    // A folder stands for its weights.
    for path in [folder.path(""), folder.path("unet")] {
        assert_eq!(load_network(&path, &options).unwrap().sha256, loaded.sha256);
    }
    // The hash covers the settings.
    let other = folder.with("dropout", json!(0.5)).unwrap();
    assert_ne!(other.sha256, loaded.sha256);

    // Converted, it is a file as any other.
    let ours = folder.path("ours.safetensors");
    convert_file(&folder.path(""), &ours, &options, None).unwrap();
    let converted = load_network(&ours, &options).unwrap();
    assert_eq!(converted.architecture, loaded.architecture);
    assert_eq!(converted.process, loaded.process);
    assert_eq!(outputs(&converted, &t), outputs(&loaded, &t));
    let error = load_network(&ours, &given(json!({"norm_eps": 0.1}))).unwrap_err();
    assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
}

#[test]
fn heads_sines_and_norms_are_those_of_the_config() {
    let folder = Folder::new();
    let t = [500.0];
    let usual = outputs(&folder.load().unwrap(), &t);
    // Each of these was once ignored, and computed as ADM does.
    for (field, value) in [
        ("attention_head_dim", json!(8)),
        ("attention_head_dim", json!(null)),
        ("flip_sin_to_cos", json!(false)),
        ("freq_shift", json!(1)),
        ("norm_eps", json!(1e-2)),
        ("mid_block_scale_factor", json!(1.5)),
    ] {
        let shown = format!("{field} = {value}");
        let changed = folder.with(field, value).unwrap();
        assert!(!close(&outputs(&changed, &t), &usual, 1e-5), "{shown}");
    }
}

#[test]
fn fields_that_are_not_supported_or_do_not_fit_are_named() {
    let folder = Folder::new();
    for (field, value) in [
        ("act_fn", json!("tanh")),
        ("time_embedding_type", json!("fourier")),
        (
            "down_block_types",
            json!(["SkipDownBlock2D", "AttnDownBlock2D"]),
        ),
        ("resnet_time_scale_shift", json!("spatial")),
        ("dropout", json!("much")),
        ("attention_head_dim", json!(-1)),
        ("some_new_switch", json!(true)),
    ] {
        let shown = format!("{field} = {value}");
        let error = folder.with(field, value).unwrap_err();
        assert!(
            error.contains("config.json") && error.contains(&format!("{field}: ")),
            "{shown}: {error}"
        );
    }
    // A config of another network.
    let error = folder.with("in_channels", json!(4)).unwrap_err();
    assert!(
        error.contains("conv_in.weight") && error.contains("that of another network"),
        "{error}"
    );
}

#[test]
fn what_the_config_leaves_open_is_asked_for_and_the_rest_is_fixed() {
    let folder = Folder::new();
    let mut open = settings();
    open["sample_size"] = json!(null);
    folder.says("unet/config.json", &open);
    let error = folder.refused();
    assert!(error.contains("--set model.sample_size="), "{error}");
    let sized = load_network(&folder.weights(), &given(json!({"sample_size": [8, 16]}))).unwrap();
    assert_eq!(sized.architecture.image_shape(), [3, 8, 16]);
    assert_eq!(sized.origins["sample_size"], Origin::Given);
    folder.says("unet/config.json", &settings());
    for fields in [
        json!({"norm_num_groups": 8}),
        json!({"sample_size": 16}),
        json!({"architecture": "adm"}),
    ] {
        let error = load_network(&folder.weights(), &given(fields)).unwrap_err();
        assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
    }
    let dropout = load_network(&folder.weights(), &given(json!({"dropout": 0.5}))).unwrap();
    assert_eq!(dropout.architecture.dropout(), 0.5);
}

#[test]
fn without_its_settings_a_unet2d_model_is_refused() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("unet/config.json")).unwrap();
    let words = "without its config.json";
    assert!(folder.refused().contains(words));
    let bytes = std::fs::read(folder.weights()).unwrap();
    let error = load_network_bytes("model", &bytes, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    let inspected = inspect_file(&folder.weights(), &LoadOptions::default()).unwrap();
    assert!(inspected.resolved.is_err());
    for (text, words) in [("[]", "JSON object"), ("{", "damaged JSON")] {
        std::fs::write(folder.path("unet/config.json"), text).unwrap();
        let error = folder.refused();
        assert!(error.contains(words), "{error}");
    }
    let config = folder.path("unet/config.json");
    std::fs::write(&config, " ".repeat((1 << 20) + 1)).unwrap();
    let error = folder.refused();
    assert!(
        error.contains("config.json") && error.contains("1048577 bytes"),
        "{error}"
    );
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    let error = folder.refused();
    assert!(
        error.contains("config.json") && error.contains("expected a regular file, found a folder"),
        "{error}"
    );
    std::fs::remove_dir(&config).unwrap();
    let other = json!({"_class_name": "UNet2DConditionModel"});
    folder.says("unet/config.json", &other);
    let error = folder.refused();
    assert!(error.contains("UNet2DConditionModel"), "{error}");
}

#[test]
fn pipelines_of_other_networks_are_refused_by_name() {
    let folder = Folder::new();
    let index =
        |class: &str, unet: &str| json!({"_class_name": class, "unet": ["diffusers", unet]});
    for class in ["DDPMPipeline", "DDIMPipeline"] {
        folder.says("model_index.json", &index(class, "UNet2DModel"));
        assert!(load_network(&folder.path(""), &LoadOptions::default()).is_ok());
    }
    for (class, unet, named) in [
        (
            "StableDiffusionPipeline",
            "UNet2DConditionModel",
            "_class_name",
        ),
        ("ScoreSdeVePipeline", "UNet2DModel", "_class_name"),
        ("DDPMPipeline", "UNet2DConditionModel", "unet"),
        ("LDMPipeline", "UNet2DConditionModel", "unet"),
    ] {
        folder.says("model_index.json", &index(class, unet));
        // The network alone is part of the pipeline all the same.
        for path in [folder.path(""), folder.path("unet"), folder.weights()] {
            let error = load_network(&path, &LoadOptions::default()).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains(&format!("model_index.json: {named}: ")),
                "{class}: {error}"
            );
        }
    }
    // Its autoencoder is missing.
    folder.says("model_index.json", &index("LDMPipeline", "UNet2DModel"));
    let error = load_network(&folder.path(""), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("vqvae/config.json"), "{error}");
    folder.says("model_index.json", &index("DDPMPipeline", "UNet2DModel"));
    std::fs::remove_file(folder.weights()).unwrap();
    let error = load_network(&folder.path(""), &LoadOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("weights of this pipeline are missing"),
        "{error}"
    );
}

#[test]
fn the_scheduler_determines_the_process_or_is_refused() {
    let folder = Folder::new();
    let assumed = folder.load().unwrap().notes.join("; ");
    assert!(
        assumed.contains("linear schedule of 1000 steps is assumed"),
        "{assumed}"
    );
    let place = "scheduler/scheduler_config.json";
    let cosine = json!({
        "_class_name": "DDPMScheduler",
        "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": 4000,
        "variance_type": "learned_range",
    });
    folder.says(place, &cosine);
    let cosine = folder.load().unwrap();
    assert_eq!(
        (
            cosine.process.noise_schedule.as_str(),
            cosine.process.diffusion_steps
        ),
        ("cosine", 4000)
    );
    let notes = cosine.notes.join("; ");
    assert!(
        !notes.contains("assumed") && notes.contains("scheduler_config.json"),
        "{notes}"
    );
    // Next to the weights as well.
    let sibling = "unet/scheduler_config.json";
    std::fs::rename(folder.path(place), folder.path(sibling)).unwrap();
    assert_eq!(folder.load().unwrap().process, cosine.process);
    for (field, value, named) in [
        ("prediction_type", json!("flow"), "prediction_type"),
        ("beta_schedule", json!("exp"), "beta_schedule"),
        ("num_train_timesteps", json!(-1), "num_train_timesteps"),
        ("trained_betas", json!([0.1, 0.2]), "trained_betas"),
        ("variance_type", json!("fixed_small"), "variance_type"),
        ("use_flow_sigmas", json!(true), "use_flow_sigmas"),
        ("_class_name", json!(["DDPMScheduler"]), "_class_name"),
        ("_class_name", json!("DDPM"), "_class_name"),
        (
            "_class_name",
            json!("DDPMWuerstchenScheduler"),
            "_class_name",
        ),
        (
            "_class_name",
            json!("FlowMatchEulerDiscreteScheduler"),
            "_class_name",
        ),
    ] {
        folder.says(sibling, &json!({field: value}));
        let error = folder.refused();
        assert!(
            error.contains("scheduler_config.json") && error.contains(&format!("  {named}: ")),
            "{field} = {value}: {error}"
        );
    }
    for kind in PredictionType::ALL {
        folder.says(sibling, &json!({"prediction_type": kind.name()}));
        assert_eq!(folder.load().unwrap().process.prediction_type, kind);
    }
    for (class, said) in [
        ("PNDMScheduler", json!({})),
        (
            "HeunDiscreteScheduler",
            json!({"beta_start": 1e-4, "beta_end": 0.02}),
        ),
    ] {
        let mut settings = said;
        settings["_class_name"] = json!(class);
        folder.says(sibling, &settings);
        let model = folder.load().unwrap();
        assert_eq!(model.process.diffusion_steps, 1000, "{class}");
        let notes = model.notes.join("; ");
        assert!(!notes.contains("assumed"), "{class}: {notes}");
    }
    // Defaults are those of a class; without a class there are none.
    for (settings, said) in [
        (json!({}), "linear schedule of 1000 steps is assumed"),
        (
            json!({"num_train_timesteps": 1000}),
            "linear schedule is assumed",
        ),
    ] {
        folder.says(sibling, &settings);
        let notes = folder.load().unwrap().notes.join("; ");
        assert!(notes.contains(said), "{notes}");
    }
    let endless =
        json!({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 3_000_000_000_u64});
    folder.says(sibling, &endless);
    let error = folder.refused();
    assert!(error.contains("process.diffusion_steps"), "{error}");
}

#[test]
fn old_names_of_attention_are_read() {
    let folder = Folder::new();
    let expected = outputs(&folder.load().unwrap(), &[7.0]);
    let old = [
        (".to_q.", ".query."),
        (".to_k.", ".key."),
        (".to_v.", ".value."),
        (".to_out.0.", ".proj_attn."),
    ];
    let mut entries = as_diffusers(&folder.params, 4);
    for (name, _) in &mut entries {
        for (new, old) in old {
            *name = name.replace(new, old);
        }
    }
    folder.write(&entries);
    assert_eq!(outputs(&folder.load().unwrap(), &[7.0]), expected);
    // A missing one is named.
    entries.retain(|(name, _)| name != "mid_block.attentions.0.key.weight");
    folder.write(&entries);
    let error = folder.refused();
    assert!(
        error.contains("mid_block.attentions.0.to_k.weight"),
        "{error}"
    );
}

#[test]
fn a_scalar_where_diffusers_layout_has_a_matrix_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let scalar = Tensor::new(1_f32, &Device::Cpu).unwrap();
    let names = [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "mid_block.attentions.0.to_q.weight",
    ];
    write_safetensors(
        &path,
        names.map(|name| (name, &scalar)),
        &BTreeMap::new(),
        None,
    )
    .unwrap();
    assert!(
        inspect_file(&path, &LoadOptions::default())
            .unwrap()
            .resolved
            .is_err()
    );
    assert!(load_network(&path, &LoadOptions::default()).is_err());
}
