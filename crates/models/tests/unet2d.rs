//! diffusers' `UNet2DModel`: read where it is computed as ADM, refused by name of the field where it is not.

use candle_core::{Device, Tensor};
use sdft_adm::{AdmConfig, Origin, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::PredictionType;
use sdft_models::{
    LoadOptions, LoadedModel, ModelError, convert_file, inspect_file, load_unet, load_unet_bytes,
};
use sdft_nn::Params;
use sdft_testing::tiny_config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The parameters of a small U-Net under diffusers' names, by a list that was written down name by name; queries, keys and values apart.
fn as_diffusers(params: &Params, heads_of: usize) -> Vec<(String, Tensor)> {
    // One residual block a level, sampling by residual blocks, attention at both levels: `attention_resolutions = [2, 1]`.
    let res = [
        ("input_blocks.1.0", "down_blocks.0.resnets.0"),
        ("input_blocks.2.0", "down_blocks.0.downsamplers.0"),
        ("input_blocks.3.0", "down_blocks.1.resnets.0"),
        ("middle_block.0", "mid_block.resnets.0"),
        ("middle_block.2", "mid_block.resnets.1"),
        ("output_blocks.0.0", "up_blocks.0.resnets.0"),
        ("output_blocks.1.0", "up_blocks.0.resnets.1"),
        ("output_blocks.1.2", "up_blocks.0.upsamplers.0"),
        ("output_blocks.2.0", "up_blocks.1.resnets.0"),
        ("output_blocks.3.0", "up_blocks.1.resnets.1"),
    ];
    let leaves = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ];
    let attention = [
        ("input_blocks.1.1", "down_blocks.0.attentions.0"),
        ("input_blocks.3.1", "down_blocks.1.attentions.0"),
        ("middle_block.1", "mid_block.attentions.0"),
        ("output_blocks.0.1", "up_blocks.0.attentions.0"),
        ("output_blocks.1.1", "up_blocks.0.attentions.1"),
        ("output_blocks.2.1", "up_blocks.1.attentions.0"),
        ("output_blocks.3.1", "up_blocks.1.attentions.1"),
    ];
    let ends = [
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ];
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (ours, theirs) in res {
        for (a, b) in leaves {
            names.insert(format!("{ours}.{a}"), format!("{theirs}.{b}"));
        }
    }
    for (ours, theirs) in attention {
        names.insert(format!("{ours}.norm"), format!("{theirs}.group_norm"));
        names.insert(format!("{ours}.proj_out"), format!("{theirs}.to_out.0"));
        names.insert(format!("{ours}.qkv"), theirs.to_owned());
    }
    names.extend(ends.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let mut out = Vec::new();
    for (name, tensor) in params.iter() {
        let (module, leaf) = name.rsplit_once('.').unwrap();
        let theirs = names.get(module).unwrap_or_else(|| panic!("{name}"));
        let is_attention = module.ends_with("qkv") || module.ends_with("proj_out");
        let tensor = match is_attention && leaf == "weight" {
            true => tensor.squeeze(2).unwrap(),
            false => tensor.clone(),
        };
        if !module.ends_with(".qkv") {
            out.push((format!("{theirs}.{leaf}"), tensor));
            continue;
        }
        // Row (head, third, channel of the head) goes to (head, channel) of its third.
        let width = heads_of;
        let rows = tensor.dim(0).unwrap();
        for (third, called) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
            let picked: Vec<u32> = (0..rows)
                .filter(|row| row / width % 3 == third)
                .map(|row| row as u32)
                .collect();
            let picked = Tensor::new(picked, &Device::Cpu).unwrap();
            let part = tensor.index_select(&picked, 0).unwrap();
            out.push((format!("{theirs}.{called}.{leaf}"), part));
        }
    }
    out
}

fn with_attention() -> AdmConfig {
    AdmConfig {
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2, 1],
        num_head_channels: 4,
        num_res_blocks: 1,
        resblock_updown: true,
        ..tiny_config()
    }
}

/// The small network's `config.json`.
fn settings() -> Value {
    json!({
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.42.1",
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "norm_num_groups": 4,
        "attn_norm_num_groups": 4,
        "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift",
        "dropout": 0.25,
        "freq_shift": 0,
        "flip_sin_to_cos": true,
        "norm_eps": 1e-5,
    })
}

/// A folder as `save_pretrained` writes it.
struct Folder {
    dir: tempfile::TempDir,
    params: Params,
}

impl Folder {
    fn new() -> Self {
        let params = Params::init(&Unet::specs(&with_attention()).unwrap(), 5, &Device::Cpu);
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            params: params.unwrap(),
        };
        folder.write(&as_diffusers(&folder.params, 4));
        folder.says("unet/config.json", &settings());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn weights(&self) -> PathBuf {
        self.path("unet/diffusion_pytorch_model.safetensors")
    }

    fn write(&self, entries: &[(String, Tensor)]) {
        std::fs::create_dir_all(self.path("unet")).unwrap();
        let entries = entries.iter().map(|(n, t)| (n.as_str(), t));
        write_safetensors(&self.weights(), entries, &BTreeMap::new(), None).unwrap();
    }

    fn says(&self, name: &str, settings: &Value) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, settings.to_string()).unwrap();
    }

    fn load(&self) -> Result<LoadedModel, String> {
        load_unet(&self.weights(), &LoadOptions::default()).map_err(|e| e.to_string())
    }

    fn refused(&self) -> String {
        self.load().unwrap_err()
    }

    /// The network with one field of its settings changed.
    fn with(&self, field: &str, value: Value) -> Result<LoadedModel, String> {
        let mut changed = settings();
        changed[field] = value;
        self.says("unet/config.json", &changed);
        let loaded = self.load();
        self.says("unet/config.json", &settings());
        loaded
    }
}

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
    assert_eq!(loaded.config, expected);
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
    assert_eq!(converted.config, loaded.config);
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
    assert_eq!(
        (one_head.config.num_heads, one_head.config.num_head_channels),
        (1, 0)
    );
    let square = folder.with("sample_size", json!([16, 16])).unwrap();
    assert_eq!(square.config.image_size, 16);
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
fn the_scheduler_says_the_process_or_is_refused() {
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
        ("beta_schedule", json!("scaled_linear"), "beta_schedule"),
        ("beta_end", json!(0.012), "beta_end"),
        // The ends of a linear schedule follow from its steps.
        ("num_train_timesteps", json!(500), "beta_start"),
        ("num_train_timesteps", json!(-1), "num_train_timesteps"),
        ("trained_betas", json!([0.1, 0.2]), "trained_betas"),
        (
            "rescale_betas_zero_snr",
            json!(true),
            "rescale_betas_zero_snr",
        ),
        ("variance_type", json!("fixed_small"), "variance_type"),
        ("use_flow_sigmas", json!(true), "use_flow_sigmas"),
        // Its usual ends of the linear schedule are others.
        ("_class_name", json!("HeunDiscreteScheduler"), "beta_start"),
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
