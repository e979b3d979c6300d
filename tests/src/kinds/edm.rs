//! Cases of the kinds `edm.*`.

use super::{Outputs, put, put_gradient, put_gradients};
use anyhow::{Result, bail, ensure};
use candle_core::{DType, Tensor, Var};
use sdft_diffusion::{
    Condition, Diffusion, EdmProcess, Level, Network, Precond, PredictionType, Process,
};
use sdft_edm::{EdmConfig, EdmInputs, EdmNet, from_arguments};
use sdft_losses::{NoisedBatch, Objective, Variational};
use sdft_nn::{Init, Params};
use sdft_randn::{GivenNoise, NoiseSource, SeededNoise};
use sdft_samplers::{Heun, Step, sample_heun};
use sdft_schedule::{Respacing, Weighting};
use sdft_testing::{Array, Case, compute_dtype, number_or};
use serde_json::Value;

/// The factor of frequencies that a formula makes.
const FREQUENCIES: f64 = 16.0;

/// The configuration of a case's network.
fn config(case: &Case) -> Result<EdmConfig> {
    let (Value::String(class), Value::Object(model)) = (case.get("precond")?, case.get("model")?)
    else {
        bail!("expected config.precond to be a class and config.model its arguments");
    };
    let mut arguments = model.clone();
    for name in ["img_resolution", "img_channels"] {
        arguments.insert(name.to_owned(), case.get(name)?.clone());
    }
    Ok(from_arguments(class, &arguments)?)
}

/// The parameters of a case's network, with the constants as the cases have them.
fn params(case: &Case, config: &EdmConfig) -> Result<Params> {
    let specs = EdmNet::specs(config)?;
    let given = case.weights("model", &specs)?;
    let from_formula = case.get("weights")?["model"]["source"] == "formula";
    if !from_formula {
        return Ok(given);
    }
    let mut entries = Vec::with_capacity(specs.len());
    for (spec, (name, tensor)) in specs.iter().zip(given.iter()) {
        let tensor = match spec.init {
            Init::Outer(taps) => {
                Tensor::from_vec(taps.outer(), spec.shape.as_slice(), tensor.device())?
            }
            _ if name == "model.map_noise.freqs" => (tensor * FREQUENCIES)?,
            _ => tensor.clone(),
        };
        entries.push((name.to_owned(), tensor));
    }
    Ok(Params::new(entries))
}

/// A case's network with its variables.
pub(super) fn network(case: &Case) -> Result<(EdmNet, Vec<(String, Var)>)> {
    let config = config(case)?;
    let params = params(case, &config)?.freeze(EdmNet::is_constant);
    let (params, vars) = params.trainable()?;
    if case.config.get("param_count").is_some() {
        let expected = case.count("param_count")?;
        let count: usize = vars.iter().map(|(_, var)| var.elem_count()).sum();
        ensure!(count == expected, "{count} parameters, expected {expected}");
    }
    let net = EdmNet::load(&params, &config)?.with_compute_dtype(compute_dtype());
    Ok((net, vars))
}

pub(super) fn denoise(case: &Case) -> Result<Outputs> {
    let (net, vars) = network(case)?;
    let x = Var::from_tensor(&case.input("x")?)?;
    let labels = |name: &str| case.has(name).then(|| case.input(name)).transpose();
    let (class_labels, augment_labels) = (labels("class_labels")?, labels("augment_labels")?);
    let inputs = EdmInputs {
        class_labels: class_labels.as_ref(),
        augment_labels: augment_labels.as_ref(),
        dropout: None,
    };
    let result = net.denoise_with(x.as_tensor(), &case.times("sigma")?, &inputs)?;
    let loss = result.mul(&case.input("R")?)?.sum_all()?;
    let gradients = sdft_autograd::backward(&loss)?;
    let mut out = Outputs::new();
    put(&mut out, "out", &result)?;
    // The norm is that of the parameters, so the input's gradient is added by itself.
    put_gradients(&mut out, &vars, &gradients)?;
    put_gradient(&mut out, "x", &x, &gradients)?;
    Ok(out)
}

/// The class of each image, from one-hot labels.
fn classes(case: &Case) -> Result<Option<Vec<u32>>> {
    if !case.has("class_labels") {
        return Ok(None);
    }
    Ok(Some(case.input("class_labels")?.argmax(1)?.to_vec1()?))
}

/// The process of a network, with all levels that it takes.
fn process(precond: &Precond) -> Result<Diffusion> {
    let continuous = EdmProcess {
        sigma_min: precond.sigma_min().max(f64::MIN_POSITIVE),
        sigma_max: precond.sigma_max().min(f64::MAX),
        ..EdmProcess::of(precond)
    };
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(continuous.into()),
        ..Process::default()
    };
    Ok(process.diffusion(false, &Respacing::All)?)
}

pub(super) fn sampler(case: &Case) -> Result<Outputs> {
    let (net, _) = network(case)?;
    let number = |name: &str, default: f64| number_or(&case.config, name, default);
    let usual = Heun::default();
    let options = Heun {
        steps: case.count("steps")?,
        sigma_min: number("sigma_min", usual.sigma_min)?,
        sigma_max: number("sigma_max", usual.sigma_max)?,
        rho: Some(number("rho", 7.0)?),
        s_churn: number("S_churn", usual.s_churn)?,
        s_min: number("S_min", usual.s_min)?,
        s_max: number("S_max", usual.s_max)?,
        s_noise: number("S_noise", usual.s_noise)?,
    };
    let mut noise: Box<dyn NoiseSource> = match case.has("noises") {
        true => Box::new(GivenNoise::new(case.input("noises")?)),
        // Without churn no draw enters.
        false => Box::new(SeededNoise::new(0, 0)),
    };
    let labels = classes(case)?;
    let condition = Condition {
        labels: labels.as_deref(),
        ..Condition::default()
    };
    let denoiser = |xt: &Tensor, t: &[f32]| net.predict_with(xt, t, &condition);
    let (diffusion, latents) = (process(&net.precond())?, case.input("latents")?);
    let quiet = &mut |_: &Step<'_>| Ok(());
    let sample = sample_heun(
        &diffusion,
        &denoiser,
        &latents,
        &options,
        &mut *noise,
        quiet,
    )?;
    let mut out = Outputs::new();
    put(&mut out, "sample", &sample)?;
    Ok(out)
}

pub(super) fn loss(case: &Case) -> Result<Outputs> {
    let (net, vars) = network(case)?;
    let number = |name: &str, default: f64| number_or(&case.config, name, default);
    let usual = EdmProcess::default();
    let process = EdmProcess {
        p_mean: number("P_mean", usual.p_mean)?,
        p_std: number("P_std", usual.p_std)?,
        ..usual
    };
    let sigma_data = number("sigma_data", usual.sigma_data)?;
    let normals = case.input("rnd_normal")?.flatten_all()?;
    let normals: Vec<f64> = normals.to_dtype(DType::F64)?.to_vec1()?;
    let levels: Vec<Level> = normals.into_iter().map(|n| process.level_at(n)).collect();
    let (images, noise) = (case.input("images")?, case.input("noise")?);
    let labels = classes(case)?;
    let condition = Condition {
        labels: labels.as_deref(),
        ..Condition::default()
    };
    let student = |xt: &Tensor, t: &[f32]| net.predict_with(xt, t, &condition);
    let objective = Objective::base_only(Weighting::Edm { sigma_data }, Variational::Off);
    let diffusion = self::process(&net.precond())?;
    let batch = NoisedBatch::new(&images, &levels, &noise);
    let terms = objective.evaluate(&diffusion, &student, None, &batch, None)?;
    let gradients = sdft_autograd::backward(&terms.total)?;
    let mut out = Outputs::new();
    let sigmas: Vec<f64> = levels.iter().map(Level::sigma).collect();
    out.insert("sigma".into(), Array::vector(sigmas));
    put(&mut out, "loss_each", &terms.mse)?;
    put(&mut out, "loss", &terms.total)?;
    put_gradients(&mut out, &vars, &gradients)?;
    Ok(out)
}
