//! Cases of the kinds `edm.*`.

use super::{Outputs, put, put_gradient, put_gradients};
use anyhow::{Result, bail, ensure};
use candle_core::{Tensor, Var};
use sdft_edm::{EdmConfig, EdmInputs, EdmNet, from_arguments};
use sdft_nn::{Init, Params};
use sdft_testing::{Case, compute_dtype};
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
    let params = params(case, &config)?;
    let (params, vars) = params.trainable_except(EdmNet::is_constant)?;
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
