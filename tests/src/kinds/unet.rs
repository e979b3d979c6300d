//! Cases of the kinds `unet.*`.

use super::{Outputs, labels, put, put_gradient, put_gradients};
use anyhow::{Result, ensure};
use candle_core::{Tensor, Var};
use sdft_adm::{Encoder, Unet};
use sdft_diffusion::FeatureNet;
use sdft_nn::Params;
use sdft_testing::{Array, Case, adm_config, compute_dtype, encoder_config};

pub(super) fn forward_backward(case: &Case) -> Result<Outputs> {
    let config = adm_config(case.get("model")?)?;
    let params = case.weights("model", &Unet::specs(&config)?)?;
    check_count(case, &params)?;
    let (params, vars) = params.trainable()?;
    let unet = Unet::load(&params, &config)?.with_compute_dtype(compute_dtype());
    let labels = labels(case)?;
    run(case, vars, |x, t| {
        unet.forward(x, t, labels.as_deref(), None)
    })
}

/// Checks the number of parameters, if the case states it.
pub(super) fn check_count(case: &Case, params: &Params) -> Result<()> {
    if case.has_config("param_count") {
        let (count, found) = (case.count("param_count")?, params.n_parameters());
        ensure!(found == count, "{found} parameters, expected {count}");
    }
    Ok(())
}

/// The output of a network with these variables, and the gradients of `sum(out * R)`.
pub(super) fn run(
    case: &Case,
    vars: Vec<(String, Var)>,
    forward: impl Fn(&Tensor, &[f32]) -> candle_core::Result<Tensor>,
) -> Result<Outputs> {
    let x = Var::from_tensor(&case.input("x")?)?;
    let result = forward(x.as_tensor(), &case.times("t")?)?;
    finish(case, &result, x, vars)
}

fn finish(case: &Case, result: &Tensor, x: Var, vars: Vec<(String, Var)>) -> Result<Outputs> {
    let gradients = sdft_autograd::backward(&result.mul(&case.input("R")?)?.sum_all()?)?;
    let mut out = Outputs::new();
    put(&mut out, "out", result)?;
    // The norm is that of the parameters, so the input's gradient is added by itself.
    put_gradients(&mut out, &vars, &gradients)?;
    put_gradient(&mut out, "x", &x, &gradients)?;
    Ok(out)
}

fn encoder(case: &Case) -> Result<(Encoder, Vec<(String, Var)>)> {
    let config = encoder_config(case.get("model")?)?;
    let params: Params = case.weights("model", &Encoder::specs(&config)?)?;
    let (params, vars) = params.trainable()?;
    Ok((Encoder::load(&params, &config)?, vars))
}

pub(super) fn encoder_classifier(case: &Case) -> Result<Outputs> {
    let (encoder, vars) = encoder(case)?;
    let t = case.times("t")?;
    let x = Var::from_tensor(&case.input("x")?)?;
    let result = encoder.logits(x.as_tensor(), &t)?;
    let features = encoder.features(x.as_tensor(), &t)?.detach();
    let mut out = finish(case, &result, x, vars)?;
    put(&mut out, "middle_features", &features)?;
    Ok(out)
}

pub(super) fn classifier_guidance(case: &Case) -> Result<Outputs> {
    let (encoder, vars) = encoder(case)?;
    let (x, t) = (case.input("x")?, case.times("t")?);
    let labels = labels(case)?.unwrap_or_default();
    let log_probs = encoder.log_probs(&x, &t)?;
    let mut out = Outputs::new();
    put(&mut out, "log_probs", &log_probs)?;
    let scale = case.number("classifier_scale")?;
    put(
        &mut out,
        "cond_grad",
        &encoder.guidance(&x, &t, &labels, scale)?,
    )?;
    let index = Tensor::new(labels.as_slice(), x.device())?.unsqueeze(1)?;
    let loss = log_probs
        .contiguous()?
        .gather(&index, 1)?
        .mean_all()?
        .neg()?;
    put_gradients(&mut out, &vars, &sdft_autograd::backward(&loss)?)?;
    let loss = f64::from(loss.to_scalar::<f32>()?);
    out.insert("cross_entropy".into(), Array::scalar(loss));
    Ok(out)
}
