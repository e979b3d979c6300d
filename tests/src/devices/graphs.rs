//! Frozen networks whose calls of one shape are repeated, which a GPU records and launches as a whole.

use super::{Finding, bound, finding, wave};

use anyhow::Result;
use candle_core::{DType, Device};
use sdft_diffusion::{Condition, PredictionType};
use sdft_models::Architecture;
use sdft_testing::nonzero_params;
use serde_json::json;

/// A small network of each architecture, with classes.
fn architectures() -> Result<Vec<Architecture>> {
    let all = [
        json!({
            "architecture": "adm", "image_size": 16, "model_channels": 32, "channel_mult": [1.0, 2.0], "attention_resolutions": [2],
            "num_head_channels": 16, "norm_groups": 8, "num_classes": 3
        }),
        json!({
            "architecture": "unet2d", "sample_size": 16, "block_out_channels": [32, 32], "layers_per_block": 1, "norm_num_groups": 8,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "num_class_embeds": 3
        }),
        json!({
            "architecture": "edm", "img_resolution": 16, "label_dim": 3,
            "model": {
                "model_type": "SongUNet", "embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard",
                "resample_filter": [1, 3, 3, 1], "channel_mult_noise": 2, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
                "attn_resolutions": [8]
            }
        }),
        json!({
            "architecture": "dit", "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 3, "num_layers": 2, "sample_size": 16,
            "num_embeds_ada_norm": 3
        }),
    ];
    let all = all.into_iter().map(serde_json::from_value);
    Ok(all.collect::<Result<_, _>>()?)
}

/// Calls of one network, each compared with a network that was never called.
pub(super) fn repeated_calls(
    dtype: DType,
    device: &Device,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for architecture in architectures()? {
        let params = nonzero_params(architecture.specs()?, 3).to(DType::F32, device)?;
        let load = || architecture.load(&params, PredictionType::Epsilon, dtype);
        let net = load()?;
        // Shapes take turns, and each has other values in each call.
        for call in 0..10u64 {
            let shape = [1 + call as usize % 2, 3, 16, 16];
            let x = wave(&shape, call, device)?;
            let t = [0.5 + call as f32, 20.0].split_at(shape[0]).0.to_vec();
            let labels = [call as u32 % 3, 1].split_at(shape[0]).0.to_vec();
            let condition = Condition {
                labels: Some(&labels),
                ..Condition::default()
            };
            let found = net.predict_with(&x, &t, &condition)?.output;
            let expected = load()?.predict_with(&x, &t, &condition)?.output;
            // Engines of half precision may sum in another order in each run.
            let bound = if dtype == DType::F32 {
                0.0
            } else {
                bound(dtype)
            };
            let name = format!("call {call} of {} {}", architecture.title(), dtype.as_str());
            findings.push(finding(name, &found, &expected, bound)?);
        }
    }
    Ok(())
}
