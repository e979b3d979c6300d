//! diffusers' `UNet2DModel`: read where it is computed as ADM, refused with the name of the field where it is not.

mod diffusers;

use candle_core::{Device, Tensor};
use diffusers::{Folder, as_diffusers, settings, with_attention};
use sdft_adm::{AdmConfig, Origin};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::PredictionType;
use sdft_models::{
    LoadOptions, ModelError, convert_file, inspect_file, load_unet, load_unet_bytes,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[test]
fn a_unet2d_model_that_is_adm_gives_the_same_parameters() {
    let folder = Folder::new();
    let options = LoadOptions::default();
    let loaded = folder.load().unwrap();
    let expected = AdmConfig {
        dropout: 0.25,
        num_heads: 1,
        ..with_attention()
    };
    assert_eq!(loaded.architecture, expected.into());
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
    let found: BTreeMap<&str, &Tensor> = loaded.params.iter().collect();
    for (name, tensor) in folder.params.iter() {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found[name].dims(), tensor.dims(), "{name}");
        assert_eq!(values(found[name]), values(tensor), "{name}");
    }
    let inspected = inspect_file(&folder.weights(), &options).unwrap();
    assert!(inspected.misfit.is_none(), "{:?}", inspected.misfit);
    // A folder stands for its weights.
    for path in [folder.path(""), folder.path("unet")] {
        assert_eq!(load_unet(&path, &options).unwrap().sha256, loaded.sha256);
    }
    // The settings belong to what the hash says.
    let other = folder.with("dropout", json!(0.5)).unwrap();
    assert_ne!(other.sha256, loaded.sha256);

    // Converted, it is a file as any other.
    let ours = folder.path("ours.safetensors");
    convert_file(&folder.weights(), &ours, &options, None).unwrap();
    let converted = load_unet(&ours, &options).unwrap();
    assert_eq!(converted.architecture, loaded.architecture);
    assert_eq!(
        converted.params.iter().count(),
        folder.params.iter().count()
    );
}

#[test]
fn every_field_that_makes_it_another_network_is_named() {
    let folder = Folder::new();
    for (field, value) in [
        ("flip_sin_to_cos", json!(false)),
        ("freq_shift", json!(1)),
        ("center_input_sample", json!(true)),
        ("time_embedding_type", json!("fourier")),
        ("time_embedding_dim", json!(64)),
        ("norm_eps", json!(1e-6)),
        ("act_fn", json!("gelu")),
        ("mid_block_scale_factor", json!(1.5)),
        ("mid_block_type", json!("Other")),
        ("add_attention", json!(false)),
        ("class_embed_type", json!("timestep")),
        ("num_class_embeds", json!(10)),
        ("attn_norm_num_groups", json!(null)),
        ("attn_norm_num_groups", json!(2)),
        ("resnet_time_scale_shift", json!("default")),
        ("resnet_time_scale_shift", json!("spatial")),
        ("downsample_padding", json!(2)),
        ("downsample_type", json!("other")),
        ("upsample_type", json!(7)),
        (
            "down_block_types",
            json!(["SkipDownBlock2D", "AttnDownBlock2D"]),
        ),
        ("down_block_types", json!(["AttnDownBlock2D"])),
        ("up_block_types", json!("UpBlock2D")),
        ("block_out_channels", json!([8, 8])),
        ("layers_per_block", json!(2)),
        ("in_channels", json!(4)),
        ("out_channels", json!(3)),
        ("norm_num_groups", json!("4")),
        ("attention_head_dim", json!(-1)),
        ("sample_size", json!([8, 16])),
        ("dropout", json!("much")),
        ("some_new_switch", json!(true)),
    ] {
        let shown = format!("{field} = {value}");
        let error = folder.with(field, value).unwrap_err();
        assert!(
            error.contains("config.json") && error.contains(&format!("  {field}: ")),
            "{shown}: {error}"
        );
        assert_eq!(error.lines().count(), 2, "{shown}: {error}");
    }
    // All at once, as in google/ddpm-*.
    let mut ddpm = settings();
    ddpm["flip_sin_to_cos"] = json!(false);
    ddpm["freq_shift"] = json!(1);
    ddpm["norm_eps"] = json!(1e-6);
    folder.says("unet/config.json", &ddpm);
    let error = folder.refused();
    assert_eq!(error.lines().count(), 4, "{error}");
    // What is not given has diffusers' default.
    let mut bare = settings();
    bare.as_object_mut().unwrap().remove("norm_num_groups");
    folder.says("unet/config.json", &bare);
    let error = folder.refused();
    assert!(
        error.contains("attn_norm_num_groups: expected 32"),
        "{error}"
    );
}

#[test]
fn fields_that_no_shape_shows_are_honoured() {
    let folder = Folder::new();
    let one_head = folder.with("attention_head_dim", json!(null)).unwrap();
    let one_head = one_head.architecture.adm().unwrap();
    assert_eq!((one_head.num_heads, one_head.num_head_channels), (1, 0));
    let square = folder.with("sample_size", json!([16, 16])).unwrap();
    assert_eq!(square.architecture.image_size(), 16);
    assert!(folder.with("freq_shift", json!(0.0)).is_ok());
    assert!(folder.with("act_fn", json!("swish")).is_ok());
    // A size that is not given is assumed, and said.
    let open = folder.with("sample_size", json!(null)).unwrap();
    assert_eq!(open.origins["image_size"], Origin::Assumed);
    assert!(open.notes.join("").contains("image_size"));
    let given = |fields: Value| LoadOptions {
        given: fields.as_object().unwrap().clone(),
        ..LoadOptions::default()
    };
    let error = load_unet(&folder.weights(), &given(json!({"norm_groups": 8}))).unwrap_err();
    assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
}

#[test]
fn without_its_settings_a_unet2d_model_is_refused() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("unet/config.json")).unwrap();
    let words = "without its config.json";
    assert!(folder.refused().contains(words));
    let bytes = std::fs::read(folder.weights()).unwrap();
    let error = load_unet_bytes("model", &bytes, &LoadOptions::default()).unwrap_err();
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
    assert!(error.contains("those of a UNet2DConditionModel"), "{error}");
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
    // Defaults are those of a class; without one nothing says them.
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
fn a_third_that_is_missing_is_an_error() {
    let folder = Folder::new();
    let mut entries = as_diffusers(&folder.params, 4);
    entries.retain(|(name, _)| name != "mid_block.attentions.0.to_k.weight");
    folder.write(&entries);
    let error = folder.refused();
    assert!(error.contains("middle_block.1.qkv.weight"), "{error}");
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
    assert!(load_unet(&path, &LoadOptions::default()).is_err());
}
