//! Cases of the kinds `translate.*`.

use super::diffusion::frozen;
use super::{Outputs, put, put_gradient};
use anyhow::{Result, bail};
use candle_core::{Tensor, Var};
use sdft_adm::Encoder;
use sdft_diffusion::{Clip, Diffusion, Variance};
use sdft_randn::GivenNoise;
use sdft_schedule::{Schedule, linear_betas};
use sdft_testing::{Case, encoder_config};
use sdft_translators::{
    DomainIndependent, DomainSpecific, Energies, LowPass, SdeditOptions, Walk, ddib, egsde, sdedit,
};

/// The process and the noise levels of a translation.
fn process(case: &Case) -> Result<(Diffusion, usize)> {
    let betas = linear_betas(
        case.number("beta_start")?,
        case.number("beta_end")?,
        case.count("num_diffusion_timesteps")?,
    )?;
    let variance = match case.get("var_type")?.as_str() {
        Some("fixedsmall") => Variance::FixedSmall,
        Some("fixedlarge") => Variance::FixedLarge,
        _ => bail!("unknown var_type {}", case.get("var_type")?),
    };
    let diffusion = Diffusion::new(Schedule::from_betas_in_f32(&betas)?, variance);
    Ok((diffusion, case.count("total_noise_levels")?))
}

/// The image's noise, then that of the steps.
fn draws(case: &Case) -> Result<GivenNoise> {
    let e = case.input("e")?.unsqueeze(0)?;
    Ok(GivenNoise::new(Tensor::cat(
        &[e, case.input("noises")?],
        0,
    )?))
}

fn ancestral(levels: usize) -> SdeditOptions {
    SdeditOptions {
        walk: Walk::Ancestral,
        start: levels.checked_sub(1),
        repeats: 1,
    }
}

/// The noised start and the states after it, and the sample.
fn trajectory(
    case: &Case,
    (diffusion, levels): &(Diffusion, usize),
    run: impl FnOnce(
        &mut GivenNoise,
        &mut sdft_samplers::StepCallback<'_>,
    ) -> candle_core::Result<Tensor>,
) -> Result<(Outputs, Vec<Tensor>)> {
    let x0 = case.input("x_0")?;
    let mut states = Vec::new();
    if let Some(start) = levels.checked_sub(1) {
        let t = vec![start; x0.dim(0)?];
        states.push(diffusion.q_sample(&x0, &t, &case.input("e")?)?);
    }
    let sample = run(&mut draws(case)?, &mut |step| {
        states.push(step.x.clone());
        Ok(())
    })?;
    let mut out = Outputs::new();
    put(&mut out, "sample", &sample)?;
    put(&mut out, "states", &Tensor::stack(&states, 0)?)?;
    Ok((out, states))
}

pub(super) fn stochastic_edit(case: &Case) -> Result<Outputs> {
    let (process, unet) = (process(case)?, frozen(case, "model")?);
    let x0 = case.input("x_0")?;
    let edit = ancestral(process.1);
    let (out, _) = trajectory(case, &process, |noise, observer| {
        sdedit(&process.0, &unet, &x0, None, &edit, noise, observer)
    })?;
    Ok(out)
}

pub(super) fn lowpass(case: &Case) -> Result<Outputs> {
    let x = Var::from_tensor(&case.input("x")?)?;
    let (_, _, h, w) = x.dims4()?;
    let filter = LowPass::new(h, w, case.count("factor")?, x.dtype(), x.device())?;
    let result = filter.apply(x.as_tensor())?;
    let gradients = sdft_autograd::backward(&(&result * case.input("R")?)?.sum_all()?)?;
    let mut out = Outputs::new();
    put(&mut out, "down", &filter.down(x.as_tensor())?)?;
    put(&mut out, "out", &result)?;
    put_gradient(&mut out, "x", &x, &gradients)?;
    Ok(out)
}

pub(super) fn energy_guided(case: &Case) -> Result<Outputs> {
    let (process, unet) = (process(case)?, frozen(case, "model")?);
    let encoder = encoder_config(case.get("dse")?)?;
    let classifier = Encoder::load(&case.weights("dse", &Encoder::specs(&encoder)?)?, &encoder)?;
    let x0 = case.input("x_0")?;
    let (_, _, h, w) = x0.dims4()?;
    let low_pass = LowPass::new(h, w, case.count("down_N")?, x0.dtype(), x0.device())?;
    let energies = Energies {
        lambda_s: case.number("ls")?,
        lambda_i: case.number("li")?,
        specific: match case.get("s1")?.as_str() {
            Some("cosine") => DomainSpecific::Cosine,
            Some("neg_l2") => DomainSpecific::NegL2,
            _ => bail!("unknown s1 {}", case.get("s1")?),
        },
        independent: match case.get("s2")?.as_str() {
            Some("cosine") => DomainIndependent::Cosine,
            Some("neg_l2") => DomainIndependent::NegL2,
            _ => bail!("unknown s2 {}", case.get("s2")?),
        },
        ..Energies::new(&classifier, low_pass)
    };
    let edit = ancestral(process.1);
    let (mut out, states) = trajectory(case, &process, |noise, observer| {
        egsde(&process.0, &unet, &energies, &x0, &edit, noise, observer)
    })?;
    // The gradients at the start of each step.
    let (diffusion, levels) = &process;
    let (mut specific, mut independent) = (Vec::new(), Vec::new());
    for (y, t) in states.iter().zip((0..*levels).rev()) {
        let t = vec![t; x0.dim(0)?];
        let xt = diffusion.q_sample(&x0, &t, &case.input("e")?)?;
        let gradients = energies.gradients(y, &xt, &diffusion.model_t(&t)?)?;
        specific.push(gradients.specific.map_or_else(|| y.zeros_like(), Ok)?);
        independent.push(gradients.independent.map_or_else(|| y.zeros_like(), Ok)?);
    }
    put(&mut out, "grad_specific", &Tensor::stack(&specific, 0)?)?;
    put(
        &mut out,
        "grad_independent",
        &Tensor::stack(&independent, 0)?,
    )?;
    Ok(out)
}

pub(super) fn bridge(case: &Case) -> Result<Outputs> {
    let (diffusion, source, target) = (
        case.diffusion()?,
        frozen(case, "source")?,
        frozen(case, "target")?,
    );
    let clip = if case.flag("clip_denoised", true)? {
        Clip::Yes
    } else {
        Clip::No
    };
    let mut states = Vec::new();
    let x0 = case.input("x_0")?;
    let found = ddib(&diffusion, &source, &target, &x0, clip, &mut |step| {
        states.push(step.x.clone());
        Ok(())
    })?;
    let (encode, decode) = states.split_at(diffusion.n_steps());
    let mut out = Outputs::new();
    put(&mut out, "encode_states", &Tensor::stack(encode, 0)?)?;
    put(&mut out, "decode_states", &Tensor::stack(decode, 0)?)?;
    put(&mut out, "latent", &found.latent)?;
    put(&mut out, "sample", &found.image)?;
    Ok(out)
}
