//! Cases of the kind `lora.forward_backward`.

use super::{Outputs, put, put_gradient, put_gradients};
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, Var};
use sdft_adapters::{AdaptedNetwork, Adapter, AdapterConfig, Base};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition, PredictionType, Trainable};
use sdft_testing::{Case, compute_dtype, device};
use sdft_unet2d::{Unet2d, Unet2dConfig, trainable_unet2d};
use std::collections::BTreeMap;

/// A network with an adapter that peft wrote.
pub(super) fn forward_backward(case: &Case) -> Result<Outputs> {
    let json = case.get("model")?.as_object();
    let config = Unet2dConfig::from_json(json.context("model: expected an object")?)?;
    let specs = Unet2d::specs(&config)?;
    let params = case.weights("model", &specs)?;
    let folder = case.get("adapter")?.as_str().context("adapter")?;
    let adapter = Adapter::read(&case.dir.join(folder))?;
    ensure!(adapter.config.rank() == case.count("r")?, "another rank");
    let targets = case.get("targets")?.as_array().context("targets")?;
    let targets = targets.iter().filter_map(|target| target.as_str());
    let settings = AdapterConfig {
        targets: targets.map(str::to_owned).collect(),
        ..adapter.config.clone()
    };
    let mode = ComputeMode {
        dtype: compute_dtype(),
        recompute: false,
    };
    let base = Base {
        params: &params,
        specs: &specs,
        sha256: String::new(),
    };
    let network = AdaptedNetwork::new(&settings, base, 0, |params| {
        let kind = PredictionType::Epsilon;
        Ok(Box::new(trainable_unet2d(params, &config, kind, mode)?))
    })?;
    let tensors: BTreeMap<&str, &Tensor> = adapter.tensors().collect();
    let mut vars = network.vars();
    ensure!(vars.len() == tensors.len(), "another number of tensors");
    for (name, var) in &mut vars {
        let tensor = tensors.get(name.as_str()).context("another layer")?;
        var.set(&tensor.to_device(device())?)?;
        // As a module in memory calls it, with the name of the adapter.
        *name = name.replace(".weight", ".default.weight");
    }
    let x = Var::from_tensor(&case.input("x")?)?;
    let out = network.predict(x.as_tensor(), &case.times("t")?, &Condition::default())?;
    let mut gradients = backward(&out.output.mul(&case.input("R")?)?.sum_all()?)?;
    network.pull_back(&mut gradients)?;
    let mut outputs = Outputs::new();
    put(&mut outputs, "out", &out.output)?;
    put_gradients(&mut outputs, &vars, &gradients)?;
    put_gradient(&mut outputs, "x", &x, &gradients)?;
    Ok(outputs)
}
