//! A folder of a tiny `UNet2DModel` in diffusers' layout.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{Device, Tensor};
use sdft_adm::{AdmConfig, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_models::{LoadOptions, LoadedModel, load_network};
use sdft_nn::Params;
use sdft_testing::{nonzero_params, tiny_config};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The parameters of a small U-Net under diffusers' names, by a list that was written down name by name; queries, keys and values apart.
pub(crate) fn as_diffusers(params: &Params, heads_of: usize) -> Vec<(String, Tensor)> {
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

pub(crate) fn with_attention() -> AdmConfig {
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
pub(crate) fn settings() -> Value {
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
pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) params: Params,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            params: nonzero_params(Unet::specs(&with_attention()).unwrap(), 5),
        };
        folder.write(&as_diffusers(&folder.params, 4));
        folder.says("unet/config.json", &settings());
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn weights(&self) -> PathBuf {
        self.path("unet/diffusion_pytorch_model.safetensors")
    }

    pub(crate) fn write(&self, entries: &[(String, Tensor)]) {
        std::fs::create_dir_all(self.path("unet")).unwrap();
        let entries = entries.iter().map(|(n, t)| (n.as_str(), t));
        write_safetensors(&self.weights(), entries, &BTreeMap::new(), None).unwrap();
    }

    pub(crate) fn says(&self, name: &str, settings: &Value) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, settings.to_string()).unwrap();
    }

    pub(crate) fn load(&self) -> Result<LoadedModel, String> {
        load_network(&self.weights(), &LoadOptions::default()).map_err(|e| e.to_string())
    }

    pub(crate) fn refused(&self) -> String {
        self.load().unwrap_err()
    }

    /// The network with one field of its settings changed.
    pub(crate) fn with(&self, field: &str, value: Value) -> Result<LoadedModel, String> {
        let mut changed = settings();
        changed[field] = value;
        self.says("unet/config.json", &changed);
        let loaded = self.load();
        self.says("unet/config.json", &settings());
        loaded
    }
}
