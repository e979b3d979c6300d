use super::{Outputs, put, put_gradients};
use crate::case::Case;
use crate::config;
use anyhow::Result;
use candle_core::{Tensor, Var};
use sdft_adm::Unet;
use sdft_diffusion::{Clip, discretized_gaussian_log_likelihood, normal_kl};
use sdft_losses::{Batch, Objective};
use sdft_samplers::{
    Ancestral, Ddim, GivenNoise, NoiseSource, SeededNoise, Step, invert_ddim, sample_ddim,
    sample_ddpm,
};

/// A trainable network of `config.model` with the weights of `role`.
pub(super) fn unet(case: &Case, role: &str) -> Result<(Unet, Vec<(String, Var)>)> {
    let config = config::adm(case.get("model")?)?;
    let (params, vars) = case.weights(role, &Unet::specs(&config)?)?.trainable()?;
    Ok((Unet::load(&params, &config)?, vars))
}

/// The same, frozen.
pub(super) fn frozen(case: &Case, role: &str) -> Result<Unet> {
    let config = config::adm(case.get("model")?)?;
    Ok(Unet::load(
        &case.weights(role, &Unet::specs(&config)?)?,
        &config,
    )?)
}

fn clip(case: &Case) -> Result<Clip> {
    Ok(if case.flag("clip_denoised")? {
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
    put(&mut out, "variance", &moments.variance)?;
    put(&mut out, "log_variance", &moments.log_variance)?;
    Ok(out)
}

pub(super) fn q_posterior(case: &Case) -> Result<Outputs> {
    let (diffusion, t) = (case.diffusion()?, case.steps("t")?);
    let (x0, xt) = (case.input("x_start")?, case.input("x_t")?);
    let moments = diffusion.q_posterior(&x0, &xt, &t)?;
    let mut out = Outputs::new();
    put(&mut out, "mean", &moments.mean)?;
    put(&mut out, "variance", &moments.variance)?;
    put(&mut out, "log_variance", &moments.log_variance)?;
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
    let (diffusion, model) = (case.diffusion()?, frozen(case, "model")?);
    let (x, t) = (case.input("x")?, case.steps("t")?);
    let reverse = diffusion.reverse(&diffusion.predict(&model, &x, &t)?, &x, &t, clip(case)?)?;
    let mut out = Outputs::new();
    put(&mut out, "mean", &reverse.mean)?;
    put(&mut out, "variance", &reverse.variance)?;
    put(&mut out, "log_variance", &reverse.log_variance)?;
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
    let (diffusion, (model, vars)) = (case.diffusion()?, unet(case, "model")?);
    let (base, variational) = config::base_loss(case.get("diffusion")?)?;
    let (x0, t, noise) = (
        case.input("x_start")?,
        case.steps("t")?,
        case.input("noise")?,
    );
    let batch = Batch {
        x0: &x0,
        t: &t,
        noise: &noise,
        importance: None,
    };
    let terms =
        Objective::base_only(base, variational).evaluate(&diffusion, &model, None, &batch, None)?;
    let mut out = Outputs::new();
    put(&mut out, "mse", &terms.mse)?;
    if let Some(vb) = &terms.vb {
        put(&mut out, "vb", vb)?;
    }
    put(&mut out, "loss", &terms.base_each)?;
    put_gradients(&mut out, &vars, &terms.total.backward()?)?;
    Ok(out)
}

/// Collects what a sampler shows.
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
    let (diffusion, model) = (case.diffusion()?, frozen(case, "model")?);
    let options = Ddim {
        eta: case.number("eta")?,
        clip: clip(case)?,
        start: None,
    };
    let mut given;
    let mut unused = SeededNoise::new(0, 0);
    let noise: &mut dyn NoiseSource = if case.has("noises") {
        given = GivenNoise::new(case.input("noises")?);
        &mut given
    } else {
        &mut unused
    };
    let mut seen = Trajectory::default();
    let sample = sample_ddim(
        &diffusion,
        &model,
        &case.input("x_T")?,
        &options,
        noise,
        &mut |step| seen.see(step),
    )?;
    seen.outputs(&sample)
}

pub(super) fn ddim_reverse_loop(case: &Case) -> Result<Outputs> {
    let (diffusion, model) = (case.diffusion()?, frozen(case, "model")?);
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
    let (diffusion, model) = (case.diffusion()?, frozen(case, "model")?);
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
