//! Where a configuration comes from, and what is said when it does not fit.

use candle_core::{DType, Device, Tensor};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Origin, Pool, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_models::{
    LoadOptions, ModelError, Process, convert_file, encoder_metadata, inspect_file, load_encoder,
    load_unet, save_unet,
};
use sdft_nn::Params;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn tiny() -> AdmConfig {
    AdmConfig {
        image_size: 8,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 8,
        norm_groups: 4,
        ..AdmConfig::default()
    }
}

struct Files {
    dir: tempfile::TempDir,
    params: Params,
}

impl Files {
    fn new() -> Self {
        let params = Params::init(&Unet::specs(&tiny()).unwrap(), 5, &Device::Cpu).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            params,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With metadata, as this project writes it.
    fn ours(&self) -> PathBuf {
        let path = self.path("ours.safetensors");
        let cosine = Process {
            noise_schedule: "cosine".into(),
            ..Process::default()
        };
        let provenance = BTreeMap::from([("run".to_owned(), "r".to_owned())]);
        save_unet(&path, &tiny(), &cosine, &self.params, &provenance, None).unwrap();
        path
    }

    /// Without, as others do.
    fn bare(&self) -> PathBuf {
        let path = self.path("bare.safetensors");
        write_safetensors(&path, self.params.iter(), &BTreeMap::new(), None).unwrap();
        path
    }
}

fn given(fields: serde_json::Value) -> LoadOptions {
    let serde_json::Value::Object(given) = fields else {
        panic!("an object is needed")
    };
    LoadOptions {
        given,
        ..LoadOptions::default()
    }
}

fn error(path: &Path, options: &LoadOptions) -> ModelError {
    load_unet(path, options).unwrap_err()
}

#[test]
fn metadata_comes_first_and_a_contradiction_is_an_error() {
    let files = Files::new();
    let path = files.ours();
    let model = load_unet(
        &path,
        &given(json!({ "norm_groups": 4, "channel_mult": [1, 2] })),
    )
    .unwrap();
    assert_eq!(model.config, tiny());
    assert_eq!(model.process.noise_schedule, "cosine");
    assert!(model.origins.values().all(|origin| *origin == Origin::Read));
    for (name, tensor) in files.params.iter() {
        let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(model.params.tensor(name).unwrap()), values(tensor));
    }
    let text = error(&path, &given(json!({ "image_size": 16 }))).to_string();
    assert!(
        text.contains("model.image_size")
            && text.contains("says 16")
            && text.contains("made with 8"),
        "{text}"
    );
    // Dropout belongs to the training.
    assert_eq!(
        load_unet(&path, &given(json!({ "dropout": 0.3 })))
            .unwrap()
            .config
            .dropout,
        0.3
    );
}

#[test]
fn without_metadata_shapes_and_the_user_decide_and_the_rest_is_assumed() {
    let files = Files::new();
    let path = files.bare();
    let options = given(json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 }));
    let model = load_unet(&path, &options).unwrap();
    assert_eq!(model.config, tiny());
    for (field, origin) in [
        ("model_channels", Origin::Inferred),
        ("norm_groups", Origin::Given),
        ("image_size", Origin::Given),
        ("use_new_attention_order", Origin::Assumed),
    ] {
        assert_eq!(model.origins[field], origin, "{field}");
    }
    // 32 norm groups are assumed, which these widths do not have.
    let text = error(&path, &given(json!({ "image_size": 8 }))).to_string();
    assert!(text.contains("norm_groups"), "{text}");
}

#[test]
fn a_misfit_names_everything_and_its_likely_cause() {
    let files = Files::new();
    let path = files.bare();
    let options = given(
        json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8, "num_res_blocks": 2 }),
    );
    let text = error(&path, &options).to_string();
    assert!(
        text.contains("missing:")
            && text.contains("the file has model.num_res_blocks = 1, the configuration says 2"),
        "{text}"
    );
}

#[test]
fn other_networks_are_told_apart() {
    let files = Files::new();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny()
        },
        pool: Pool::Attention,
    };
    let params = Params::init(&Encoder::specs(&config).unwrap(), 0, &Device::Cpu).unwrap();
    let path = files.path("classifier.safetensors");
    write_safetensors(&path, params.iter(), &BTreeMap::new(), None).unwrap();
    let options = given(json!({ "norm_groups": 4, "num_head_channels": 8 }));
    let text = error(&path, &options).to_string();
    assert!(text.contains("classifier (Attention pool)"), "{text}");
    let seen = inspect_file(&path, &options).unwrap();
    assert!(seen.misfit.is_none());
    assert_eq!(seen.resolved.unwrap().encoder(), Some(config));
    let odd = files.path("odd.safetensors");
    let w = candle_core::Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    write_safetensors(&odd, [("w", &w)], &BTreeMap::new(), None).unwrap();
    assert!(
        error(&odd, &LoadOptions::default())
            .to_string()
            .contains("not an ADM network")
    );
}

#[test]
fn a_classifier_is_read_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny()
        },
        pool: Pool::Attention,
    };
    let params = Params::init(&Encoder::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let ours = dir.path().join("ours.safetensors");
    let metadata = encoder_metadata(&config, &Process::default(), &BTreeMap::new()).unwrap();
    write_safetensors(&ours, params.iter(), &metadata, None).unwrap();
    // EGSDE keeps the head under a name of its own, and no metadata.
    let theirs = dir.path().join("egsde.safetensors");
    let renamed: Vec<(String, _)> = params
        .iter()
        .map(|(name, tensor)| match name.strip_prefix("out.") {
            Some(leaf) => (format!("I2Iout.{leaf}"), tensor),
            None => (name.to_owned(), tensor),
        })
        .collect();
    let entries = renamed
        .iter()
        .map(|(name, tensor)| (name.as_str(), *tensor));
    write_safetensors(&theirs, entries, &BTreeMap::new(), None).unwrap();
    let groups = given(json!({ "norm_groups": 4, "num_head_channels": 8 }));
    for (path, options) in [(&ours, LoadOptions::default()), (&theirs, groups)] {
        let found = load_encoder(path, &options).unwrap();
        assert_eq!(found.config, config, "{}", path.display());
        for ((a, x), (b, y)) in found.params.iter().zip(params.iter()) {
            let values =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(a == b && values(x) == values(y), "{a}");
        }
        assert!(inspect_file(path, &options).unwrap().misfit.is_none());
        let refused = load_unet(path, &options).unwrap_err().to_string();
        assert!(refused.contains("this is a classifier"), "{refused}");
    }
    let files = Files::new();
    let refused = load_encoder(&files.ours(), &LoadOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("this is a U-Net"), "{refused}");
}

#[test]
fn conversion_keeps_the_configuration_and_says_where_it_came_from() {
    let files = Files::new();
    let (from, to) = (files.ours(), files.path("half.safetensors"));
    convert_file(&from, &to, &LoadOptions::default(), Some(DType::F16)).unwrap();
    let seen = inspect_file(&to, &LoadOptions::default()).unwrap();
    assert_eq!(seen.summary.metadata["sdft.provenance.run"], "r");
    assert_eq!(
        seen.summary.metadata["sdft.provenance.converted_from"],
        "ours.safetensors"
    );
    let model = load_unet(&to, &LoadOptions::default()).unwrap();
    assert_eq!(
        (model.config, model.process.noise_schedule.as_str()),
        (tiny(), "cosine")
    );
}

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
        ..tiny()
    }
}

/// What a file in diffusers' layout does not say about the small network.
fn small_heads() -> LoadOptions {
    LoadOptions {
        given: json!({"image_size": 8, "num_head_channels": 4, "norm_groups": 4})
            .as_object()
            .unwrap()
            .clone(),
        ..LoadOptions::default()
    }
}

#[test]
fn diffusers_layout_gives_the_same_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_attention();
    let params = Params::init(&Unet::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let theirs = dir.path().join("diffusion_pytorch_model.safetensors");
    let entries = as_diffusers(&params, 4);
    write_safetensors(
        &theirs,
        entries.iter().map(|(n, t)| (n.as_str(), t)),
        &BTreeMap::new(),
        None,
    )
    .unwrap();
    let options = small_heads();
    let loaded = load_unet(&theirs, &options).unwrap();
    assert_eq!(
        loaded.config,
        AdmConfig {
            use_new_attention_order: false,
            ..config.clone()
        }
    );
    assert!(
        loaded.notes.iter().any(|note| note.contains("diffusers")),
        "{:?}",
        loaded.notes
    );
    let loaded_params: BTreeMap<&str, &Tensor> = loaded.params.iter().collect();
    for (name, tensor) in params.iter() {
        let found = loaded_params[name];
        assert_eq!(found.dims(), tensor.dims(), "{name}");
        let difference = (found - tensor).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0, "{name}");
    }
    let inspected = inspect_file(&theirs, &options).unwrap();
    assert!(inspected.misfit.is_none(), "{:?}", inspected.misfit);

    // Converted, it is a file as any other.
    let ours = dir.path().join("ours.safetensors");
    convert_file(&theirs, &ours, &options, None).unwrap();
    let converted = load_unet(&ours, &LoadOptions::default()).unwrap();
    assert_eq!(converted.config, loaded.config);
    assert_eq!(converted.params.iter().count(), params.iter().count());
}

#[test]
fn a_third_that_is_missing_in_diffusers_layout_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_attention();
    let params = Params::init(&Unet::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let path = dir.path().join("x.safetensors");
    let mut entries = as_diffusers(&params, 4);
    entries.retain(|(name, _)| name != "mid_block.attentions.0.to_k.weight");
    write_safetensors(
        &path,
        entries.iter().map(|(n, t)| (n.as_str(), t)),
        &BTreeMap::new(),
        None,
    )
    .unwrap();
    let options = small_heads();
    let error = load_unet(&path, &options).unwrap_err().to_string();
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
