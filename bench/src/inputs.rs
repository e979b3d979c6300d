//! Inputs of both sides: numbers by formula, and files for the others.

use crate::cases::Work;
use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use sdft_checkpoint::write_safetensors;
use sdft_models::Architecture;
use sdft_nn::{ParamSpec, Params};
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;
use sdft_schedule::TimestepSampler;
use std::path::Path;

/// Numbers in [-1, 1) that look random, by the same formula as in `peer.py`.
#[expect(clippy::cast_possible_truncation, reason = "a hash of 32 bits")]
pub(crate) fn formula(shape: &[usize], salt: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| {
            let hash = ((i + salt * 7919) as u32).wrapping_mul(2_654_435_761);
            let hash = (hash ^ (hash >> 15)).wrapping_mul(2_246_822_519);
            (f64::from(hash) / f64::from(1u32 << 31) - 1.0) as f32
        })
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Weights of a block by this formula, in the order of their names.
pub(crate) fn block_weights(specs: &[ParamSpec]) -> Result<Params> {
    let mut sorted: Vec<&ParamSpec> = specs.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let entries = sorted.iter().enumerate().map(|(i, spec)| {
        let values = formula(&spec.shape, i + 1)?;
        let values = if spec.shape.len() > 1 {
            let fan: usize = spec.shape[1..].iter().product();
            (values / (fan as f64).sqrt())?
        } else {
            values.affine(0.1, 1.0)?
        };
        Ok((spec.name.clone(), values))
    });
    Ok(Params::new(entries.collect::<Result<_>>()?))
}

/// New weights of a network without zeros, so that every gradient needs work.
pub(crate) fn network_weights(config: &Architecture) -> Result<Params> {
    let params = Params::init(&config.specs()?, 0, &Device::Cpu)?;
    let entries = params.iter().enumerate().map(|(i, (name, tensor))| {
        let small = formula(tensor.dims(), i + 1)?;
        Ok((name.to_owned(), (tensor + (small * 0.02)?)?))
    });
    Ok(Params::new(entries.collect::<Result<_>>()?))
}

/// The seed of every measured step.
pub(crate) const SEED: u64 = 0;

/// Writes the weights of a network, and the timesteps and noise of its first step as the trainer draws them.
pub(crate) fn write_files(work: &Work, weights: &Path, inputs: &Path) -> Result<()> {
    let Work::Network { batch, config, .. } = work else {
        bail!("only networks have files");
    };
    let params = network_weights(config)?;
    write_safetensors(
        weights,
        params.iter(),
        &Default::default(),
        Some(DType::F32),
    )?;
    let uniforms: Vec<f64> = (0..*batch as u64)
        .map(|i| Draw::new(SEED, Purpose::Timestep, 0, i).uniform(0))
        .collect();
    let t: Vec<f32> = TimestepSampler::named("uniform", 1000)?
        .sample(&uniforms)
        .iter()
        .map(|draw| draw.t as f32)
        .collect();
    let [channels, height, width] = config.image_shape();
    let noise = randn(
        SEED,
        Purpose::Noise,
        0,
        0,
        &[*batch, channels, height, width],
        &Device::Cpu,
    )?;
    let t = Tensor::new(t, &Device::Cpu)?;
    write_safetensors(
        inputs,
        [("t", &t), ("noise", &noise)],
        &Default::default(),
        Some(DType::F32),
    )?;
    Ok(())
}
