//! The gradient audit: one backward pass on a copy, before anything is trained.

use crate::error::{Result, TrainError};
use candle_core::{D, Tensor};
use sdft_adm::{AdmConfig, Unet};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_losses::{Auxiliary, NoisedBatch, Objective};
use sdft_nn::{Params, backward};
use sdft_noise::Purpose;
use sdft_randn::randn;

/// Spread of the noise that takes the place of zeros: with zero-initialised branches nothing before them would get a gradient.
const FILL: f64 = 0.02;

/// Fails, naming them, if the objective leaves tensors without a finite, non-zero gradient.
///
/// `x0` `[B, 3, H, W]` is a small batch of real images. The copy's zero tensors are filled with noise first; the original stays as it is.
///
/// # Errors
/// [`TrainError::Audit`]; whatever the network fails with.
pub fn audit_gradients(
    params: &Params,
    config: &AdmConfig,
    diffusion: &Diffusion,
    objective: &Objective,
    source: Option<&dyn Denoiser>,
    x0: &Tensor,
    seed: u64,
) -> Result<()> {
    audit(params, seed, config.norm_groups, &|params| {
        let unet = Unet::load(params, config)?;
        let n = x0.dim(0)?;
        let last = diffusion.n_steps() - 1;
        // From little noise to much, so that both ends of every weight are seen.
        let t: Vec<usize> = (0..n).map(|i| last * (i + 1) / (n + 1)).collect();
        let noise = randn(seed, Purpose::Audit, 2, 0, x0.dims(), x0.device())?;
        let z = randn(seed, Purpose::Audit, 3, 0, x0.dims(), x0.device())?;
        let aux_t = vec![last; n];
        let weights = objective.aux_weights(&diffusion.schedule, &aux_t)?;
        let aux = Auxiliary {
            z: &z,
            t: &aux_t,
            weights: &weights,
        };
        let batch = NoisedBatch {
            x0,
            t: &t,
            noise: &noise,
            importance: None,
            distill: None,
        };
        Ok(objective
            .evaluate(diffusion, &unet, source, &batch, Some(&aux))?
            .total)
    })
}

/// Fails, naming them, if the loss leaves tensors without a finite, non-zero gradient; `loss` sees a copy of the parameters whose zero
/// tensors are filled with noise.
pub(crate) fn audit(
    params: &Params,
    seed: u64,
    norm_groups: usize,
    loss: &dyn Fn(&Params) -> Result<Tensor>,
) -> Result<()> {
    let mut filled = Vec::with_capacity(params.len());
    for (i, (name, tensor)) in params.iter().enumerate() {
        let zero = tensor.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
        let tensor = if zero {
            (randn(
                seed,
                Purpose::Audit,
                1,
                i as u64,
                tensor.dims(),
                tensor.device(),
            )? * FILL)?
        } else {
            tensor.clone()
        };
        filled.push((name.to_owned(), tensor));
    }
    let (params, vars) = Params::new(filled).trainable()?;

    let gradients = backward(&loss(&params)?)?;

    let mut names = Vec::new();
    for (name, var) in &vars {
        let usable = match gradients.get(var) {
            None => false,
            Some(gradient) => {
                let sum = gradient
                    .abs()?
                    .flatten_all()?
                    .sum(D::Minus1)?
                    .to_scalar::<f32>()?;
                sum.is_finite() && sum > 0.0
            }
        };
        if !usable && !cancels(name, var, norm_groups) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        Ok(())
    } else {
        Err(TrainError::Audit {
            names,
            total: vars.len(),
        })
    }
}

/// A constant added to a channel that is normalised alone (as many groups as channels) has no effect, so its gradient may be exactly zero.
fn cancels(name: &str, var: &Tensor, norm_groups: usize) -> bool {
    name.ends_with(".in_layers.2.bias") && var.elem_count() == norm_groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use sdft_losses::Variational;
    use sdft_models::Process;
    use sdft_schedule::{Respacing, Weighting};

    fn tiny(out_channels: usize) -> AdmConfig {
        AdmConfig {
            image_size: 8,
            out_channels,
            model_channels: 8,
            channel_mult: vec![1.0, 2.0],
            attention_resolutions: vec![2],
            num_head_channels: 8,
            norm_groups: 4,
            ..AdmConfig::default()
        }
    }

    fn run(config: &AdmConfig, variational: Variational) -> Result<()> {
        let params = Params::init(&Unet::specs(config)?, 0, &Device::Cpu)?;
        let diffusion = Process::default().diffusion(config.learns_variance(), &Respacing::All)?;
        let objective = Objective::base_only(Weighting::Constant, variational);
        let x0 = randn(0, Purpose::Test, 0, 0, &[2, 3, 8, 8], &Device::Cpu)?;
        audit_gradients(&params, config, &diffusion, &objective, None, &x0, 0)
    }

    #[test]
    fn a_sound_objective_reaches_every_tensor_of_a_fresh_network() {
        run(&tiny(3), Variational::Off).unwrap();
        run(&tiny(6), Variational::Rescaled).unwrap();
    }

    #[test]
    fn tensors_that_nothing_depends_on_are_named() {
        let config = tiny(6);
        let mut specs = Unet::specs(&config).unwrap();
        specs.push(sdft_nn::ParamSpec {
            name: "orphan.weight".into(),
            shape: vec![4],
            init: sdft_nn::Init::Constant(1.0),
        });
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        let diffusion = Process::default().diffusion(true, &Respacing::All).unwrap();
        let objective = Objective::base_only(Weighting::Constant, Variational::Off);
        let x0 = Tensor::zeros((2, 3, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = audit_gradients(&params, &config, &diffusion, &objective, None, &x0, 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("1 of ") && error.contains("orphan.weight"),
            "{error}"
        );
    }
}
