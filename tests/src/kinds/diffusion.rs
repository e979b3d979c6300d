//! Cases of the kinds `diffusion.*`.

use super::{Outputs, labels, put, put_gradients, put_wide};
use crate::base_loss::base_loss;
use anyhow::Result;
use candle_core::{Tensor, Var};
use sdft_adm::Unet;
use sdft_diffusion::{Clip, discretized_gaussian_log_likelihood, normal_kl};
use sdft_losses::{NoisedBatch, Objective};
use sdft_randn::GivenNoise;
use sdft_samplers::{Ancestral, Ddim, Step, invert_ddim, sample_ddim, sample_ddpm};
use sdft_testing::{Case, adm_config, compute_dtype};

/// A trainable network of `config.model` with the weights of `role`.
pub(super) fn unet(case: &Case, role: &str) -> Result<(Unet, Vec<(String, Var)>)> {
    let config = adm_config(case.get("model")?)?;
    let (params, vars) = case.weights(role, &Unet::specs(&config)?)?.trainable()?;
    Ok((
        Unet::load(&params, &config)?.with_compute_dtype(compute_dtype()),
        vars,
    ))
}

/// The same, frozen.
pub(super) fn frozen(case: &Case, role: &str) -> Result<Unet> {
    let config = adm_config(case.get("model")?)?;
    let params = case.weights(role, &Unet::specs(&config)?)?;
    Ok(Unet::load(&params, &config)?.with_compute_dtype(compute_dtype()))
}

fn clip(case: &Case) -> Result<Clip> {
    Ok(if case.flag("clip_denoised", true)? {
        Clip::Yes
    } else {
        Clip::No
    })
}

pub(super) fn q_sample(case: &Case) -> Result<Outputs> {
    let (diffusion, x0, t) = (case.diffusion()?, case.input("x_start")?, case.steps("t")?);
    let moments = diffusion.q_moments(&x0, &t)?;
    let mut out = Outputs::new();
    put(
        &mut out,
        "x_t",
        &diffusion.q_sample(&x0, &t, &case.input("noise")?)?,
    )?;
    put(&mut out, "mean", &moments.mean)?;
    put_wide(&mut out, "variance", &moments.variance, &x0)?;
    put_wide(&mut out, "log_variance", &moments.log_variance, &x0)?;
    Ok(out)
}

pub(super) fn q_posterior(case: &Case) -> Result<Outputs> {
    let (diffusion, t) = (case.diffusion()?, case.steps("t")?);
    let (x0, xt) = (case.input("x_start")?, case.input("x_t")?);
    let moments = diffusion.q_posterior(&x0, &xt, &t)?;
    let mut out = Outputs::new();
    put(&mut out, "mean", &moments.mean)?;
    put_wide(&mut out, "variance", &moments.variance, &xt)?;
    put_wide(&mut out, "log_variance", &moments.log_variance, &xt)?;
    put(
        &mut out,
        "xstart_from_eps",
        &diffusion.x0_from_eps(&xt, &t, &case.input("eps")?)?,
    )?;
    put(
        &mut out,
        "eps_from_xstart",
        &diffusion.eps_from_x0(&xt, &t, &x0)?,
    )?;
    Ok(out)
}

pub(super) fn p_mean_variance(case: &Case) -> Result<Outputs> {
    let (diffusion, unet, y) = (case.diffusion()?, frozen(case, "model")?, labels(case)?);
    let model = unet.with(y.as_deref(), None);
    let (x, t) = (case.input("x")?, case.steps("t")?);
    let reverse = diffusion.reverse(&diffusion.predict(&model, &x, &t)?, &x, &t, clip(case)?)?;
    let mut out = Outputs::new();
    put(&mut out, "mean", &reverse.mean)?;
    put_wide(&mut out, "variance", &reverse.variance, &x)?;
    put_wide(&mut out, "log_variance", &reverse.log_variance, &x)?;
    put(&mut out, "pred_xstart", &reverse.x0)?;
    Ok(out)
}

pub(super) fn vb_terms(case: &Case) -> Result<Outputs> {
    let input = |name| case.input(name);
    let nll =
        discretized_gaussian_log_likelihood(&input("x")?, &input("means")?, &input("log_scales")?)?
            .neg()?;
    let kl = normal_kl(
        &input("mean1")?,
        &input("logvar1")?,
        &input("mean2")?,
        &input("logvar2")?,
    )?;
    let mut out = Outputs::new();
    put(&mut out, "nll", &nll)?;
    put(&mut out, "kl", &kl)?;
    Ok(out)
}

pub(super) fn training_losses(case: &Case) -> Result<Outputs> {
    let (diffusion, (unet, vars), y) = (case.diffusion()?, unet(case, "model")?, labels(case)?);
    let model = unet.with(y.as_deref(), None);
    let (base, variational) = base_loss(case.get("diffusion")?)?;
    let (x0, t, noise) = (
        case.input("x_start")?,
        case.steps("t")?,
        case.input("noise")?,
    );
    let levels = diffusion.levels(&t)?;
    let batch = NoisedBatch::new(&x0, &levels, &noise);
    let terms =
        Objective::base_only(base, variational).evaluate(&diffusion, &model, None, &batch, None)?;
    let mut out = Outputs::new();
    put(&mut out, "mse", &terms.mse)?;
    if let Some(vb) = &terms.vb {
        put(&mut out, "vb", vb)?;
    }
    put(&mut out, "loss", &terms.base_each)?;
    put_gradients(&mut out, &vars, &sdft_autograd::backward(&terms.total)?)?;
    Ok(out)
}

/// Collects the states that a sampler reports.
#[derive(Default)]
struct Trajectory {
    states: Vec<Tensor>,
    clean: Vec<Tensor>,
}

impl Trajectory {
    fn see(&mut self, step: &Step<'_>) -> candle_core::Result<()> {
        self.states.push(step.x.clone());
        self.clean.push(step.x0.detach());
        Ok(())
    }

    fn outputs(&self, sample: &Tensor) -> Result<Outputs> {
        let mut out = Outputs::new();
        put(&mut out, "sample", sample)?;
        put(&mut out, "states", &Tensor::stack(&self.states, 0)?)?;
        put(&mut out, "pred_xstart", &Tensor::stack(&self.clean, 0)?)?;
        Ok(out)
    }
}

pub(super) fn ddim_sample_loop(case: &Case) -> Result<Outputs> {
    let (diffusion, unet, y) = (case.diffusion()?, frozen(case, "model")?, labels(case)?);
    let model = unet.with(y.as_deref(), None);
    let options = Ddim {
        eta: case.number("eta")?,
        clip: clip(case)?,
        start: None,
    };
    let x_t = case.input("x_T")?;
    // Without eta nothing is drawn, and so nothing is stored.
    let mut noise = GivenNoise::new(if options.eta > 0.0 {
        case.input("noises")?
    } else {
        x_t.narrow(0, 0, 0)?
    });
    let mut seen = Trajectory::default();
    let sample = sample_ddim(
        &diffusion,
        &model,
        &x_t,
        &options,
        &mut noise,
        &mut |step| seen.see(step),
    )?;
    seen.outputs(&sample)
}

pub(super) fn ddim_reverse_loop(case: &Case) -> Result<Outputs> {
    let (diffusion, unet, y) = (case.diffusion()?, frozen(case, "model")?, labels(case)?);
    let model = unet.with(y.as_deref(), None);
    let mut seen = Trajectory::default();
    let latent = invert_ddim(
        &diffusion,
        &model,
        &case.input("x_0")?,
        clip(case)?,
        &mut |step| seen.see(step),
    )?;
    seen.outputs(&latent)
}

pub(super) fn p_sample_loop(case: &Case) -> Result<Outputs> {
    let (diffusion, unet, y) = (case.diffusion()?, frozen(case, "model")?, labels(case)?);
    let model = unet.with(y.as_deref(), None);
    let options = Ancestral {
        clip: clip(case)?,
        start: None,
    };
    let mut noise = GivenNoise::new(case.input("noises")?);
    let mut seen = Trajectory::default();
    let sample = sample_ddpm(
        &diffusion,
        &model,
        &case.input("x_T")?,
        &options,
        &mut noise,
        &mut |step| seen.see(step),
    )?;
    seen.outputs(&sample)
}
