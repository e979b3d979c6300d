//! Networks whose calls of one shape are repeated, which a GPU records and launches as a whole.

use super::{Finding, bound, finding, wave};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use sdft_autograd::{backward, backward_each};
use sdft_diffusion::{ComputeMode, Condition, PredictionType, Trainable};
use sdft_models::Architecture;
use sdft_testing::nonzero_params;
use serde_json::json;
use std::collections::HashMap;

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

/// The values of call `i` for `batch` images: a noised map, times and labels.
fn inputs(i: u64, batch: usize, device: &Device) -> Result<(Tensor, Vec<f32>, Vec<u32>)> {
    let x = wave(&[batch, 3, 16, 16], i, device)?;
    let t = (0..batch).map(|j| 0.5 + i as f32 + 20.0 * j as f32);
    let labels = (0..batch).map(|j| (i as u32 + j as u32) % 3);
    Ok((x, t.collect(), labels.collect()))
}

/// Engines of half precision may sum in another order in each run; f32 has the same bits.
fn bound_of_repeats(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.0,
        _ => bound(dtype),
    }
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
            let (x, t, labels) = inputs(call, 1 + call as usize % 2, device)?;
            let condition = Condition {
                labels: Some(&labels),
                ..Condition::default()
            };
            let found = net.predict_with(&x, &t, &condition)?.output;
            let expected = load()?.predict_with(&x, &t, &condition)?.output;
            let title = architecture.title();
            let name = format!("call {call} of {title} {}", dtype.as_str());
            let bound = bound_of_repeats(dtype);
            findings.push(finding(name, &found, &expected, bound)?);
        }
    }
    Ok(())
}

/// The gradients of all variables, one after the other.
fn gradients(net: &dyn Trainable, call: u64, device: &Device) -> Result<Tensor> {
    let (x, t, labels) = inputs(call, 2, device)?;
    let condition = Condition {
        labels: Some(&labels),
        ..Condition::default()
    };
    let y = net.predict(&x, &t, &condition)?.output;
    let weights = wave(y.dims(), 98, device)?;
    let store = backward(&y.mul(&weights)?.sum_all()?)?;
    let vars = net.vars();
    let all = vars.iter().map(|(name, var)| {
        let gradient = store.get(var);
        Ok(gradient
            .with_context(|| format!("{name}: no gradient"))?
            .flatten_all()?)
    });
    Ok(Tensor::cat(&all.collect::<Result<Vec<_>>>()?, 0)?)
}

/// Makes the same network in training each time it is called.
fn trainable(
    architecture: &Architecture,
    dtype: DType,
    device: &Device,
) -> Result<impl Fn() -> candle_core::Result<Box<dyn Trainable>>> {
    let mode = ComputeMode {
        dtype,
        recompute: false,
    };
    let params = nonzero_params(architecture.specs()?, 3).to(DType::F32, device)?;
    Ok(move || architecture.trainable(&params, PredictionType::Epsilon, mode))
}

/// Steps of one network in training, each compared with a network that was never called. Some calls have no backward pass, and in some a
/// second call comes before it.
pub(super) fn repeated_steps(
    dtype: DType,
    device: &Device,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for architecture in architectures()? {
        let load = trainable(&architecture, dtype, device)?;
        let net = load()?;
        for step in 0..8u64 {
            let (x, t, labels) = inputs(step, 2, device)?;
            let condition = Condition {
                labels: Some(&labels),
                ..Condition::default()
            };
            let unused = (step >= 4).then(|| net.predict(&x, &t, &condition));
            let unused = unused.transpose()?.filter(|_| step == 5);
            let found = gradients(&*net, step, device)?;
            drop(unused);
            let expected = gradients(&*load()?, step, device)?;
            let title = architecture.title();
            let name = format!("step {step} of {title} {}", dtype.as_str());
            let bound = 2.0 * bound_of_repeats(dtype);
            findings.push(finding(name, &found, &expected, bound)?);
        }
    }
    Ok(())
}

/// A loss of two calls, of which a GPU records the first: the other one comes before the backward pass of that. `is_last` puts the first
/// call last, so that it is differentiated before or after the other one.
fn loss_of_pair(net: &dyn Trainable, step: u64, is_last: bool, device: &Device) -> Result<Tensor> {
    let call = |i: u64| -> Result<Tensor> {
        let (x, t, labels) = inputs(i, 2, device)?;
        let condition = Condition {
            labels: Some(&labels),
            ..Condition::default()
        };
        let y = net.predict(&x, &t, &condition)?.output;
        Ok(y.mul(&wave(y.dims(), 90 + i, device)?)?.sum_all()?)
    };
    let (first, second) = (call(2 * step)?, call(2 * step + 1)?);
    Ok(match is_last {
        true => (second + first)?,
        false => (first + second)?,
    })
}

/// Gradients that are passed on while a backward pass of two calls runs, compared with those of a network that was never called. Each must
/// come once, when both calls have added to it.
pub(super) fn repeated_pairs(
    dtype: DType,
    device: &Device,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for architecture in architectures()? {
        let load = trainable(&architecture, dtype, device)?;
        let net = load()?;
        for step in 0..6u64 {
            let is_last = step % 2 == 1;
            let loss = loss_of_pair(&*net, step, is_last, device)?;
            let mut each = backward_each(&loss, HashMap::new(), |all, id, gradient| {
                match all.insert(id, gradient) {
                    None => Ok(()),
                    Some(_) => candle_core::bail!("a gradient came twice"),
                }
            })?;
            let plain = load()?;
            let all = backward(&loss_of_pair(&*plain, step, is_last, device)?)?;
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            for ((name, var), (_, of)) in net.vars().iter().zip(plain.vars()) {
                let gradient = each.remove(&var.id());
                let gradient = gradient.with_context(|| format!("{name}: no gradient"))?;
                found.push(gradient.flatten_all()?);
                let gradient = all.get(&of);
                let gradient = gradient.with_context(|| format!("{name}: none expected"))?;
                expected.push(gradient.flatten_all()?);
            }
            ensure!(each.is_empty(), "gradients of other variables");
            let title = architecture.title();
            let name = format!("pair {step} of {title} {}", dtype.as_str());
            let (found, expected) = (Tensor::cat(&found, 0)?, Tensor::cat(&expected, 0)?);
            let bound = 2.0 * bound_of_repeats(dtype);
            findings.push(finding(name, &found, &expected, bound)?);
        }
    }
    Ok(())
}
