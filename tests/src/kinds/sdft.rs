//! Cases of the kinds `sdft.*`.

use super::diffusion::{frozen, unet};
use super::optim::adamw_rule;
use super::{Outputs, put, put_gradients};
use crate::base_loss::base_loss;
use anyhow::{Result, anyhow, bail};
use candle_core::Tensor;
use sdft_adm::Unet;
use sdft_diffusion::Diffusion;
use sdft_losses::{Auxiliary, Distillation, NoisedBatch, Objective, Terms};
use sdft_optim::{Ema, EmaRamp, Optimizer, Rule, collect_gradients};
use sdft_testing::{Array, Case, adm_config, compute_dtype};

/// The objective of the case. Terms with a factor of zero are computed all the same.
fn objective(case: &Case) -> Result<Objective> {
    let (base, variational) = base_loss(case.get("diffusion")?)?;
    let term = |lambda: &str, weight: &str| -> Result<Distillation> {
        Ok(Distillation {
            lambda: case.number(lambda)?,
            weighting: sdft_testing::weighting(case.get(weight)?)?,
        })
    };
    Ok(Objective {
        distill: Some(term("lambda_distill", "weight_distill")?),
        aux: Some(term("lambda_aux", "weight_aux")?),
        ..Objective::base_only(base, variational)
    })
}

/// The inputs of one evaluation.
struct Inputs {
    x0: Tensor,
    noise: Tensor,
    z: Tensor,
    t: Vec<usize>,
    t_aux: Vec<usize>,
}

impl Inputs {
    fn evaluate(
        &self,
        objective: &Objective,
        diffusion: &Diffusion,
        target: &Unet,
        source: &Unet,
    ) -> Result<Terms> {
        let aux_levels = diffusion.levels(&self.t_aux)?;
        let weights = objective.aux_weights(&aux_levels);
        let aux = Auxiliary {
            z: &self.z,
            levels: &aux_levels,
            weights: &weights,
        };
        let levels = diffusion.levels(&self.t)?;
        let batch = NoisedBatch::new(&self.x0, &levels, &self.noise);
        Ok(objective.evaluate(diffusion, target, Some(source), &batch, Some(&aux))?)
    }
}

pub(super) fn loss(case: &Case) -> Result<Outputs> {
    let (diffusion, objective) = (case.diffusion()?, objective(case)?);
    let (source, (target, vars)) = (frozen(case, "source")?, unet(case, "target")?);
    let inputs = Inputs {
        x0: case.input("x_start")?,
        noise: case.input("noise")?,
        z: case.input("z")?,
        t: case.steps("t")?,
        t_aux: case.steps("t_aux")?,
    };
    let terms = inputs.evaluate(&objective, &diffusion, &target, &source)?;
    let mut out = Outputs::new();
    put(&mut out, "mse", &terms.mse)?;
    put(&mut out, "base", &terms.base_each)?;
    put(&mut out, "loss_base", &terms.base)?;
    put(&mut out, "loss", &terms.total)?;
    for (name, tensor) in [
        ("vb", &terms.vb),
        ("distill_sq", &terms.distill_each),
        ("aux_sq", &terms.aux_each),
        ("loss_distill", &terms.distill),
        ("loss_aux", &terms.aux),
    ] {
        if let Some(tensor) = tensor {
            put(&mut out, name, tensor)?;
        }
    }
    for (name, weight, t) in [
        ("w_distill", "weight_distill", &inputs.t),
        ("w_aux", "weight_aux", &inputs.t_aux),
    ] {
        let table = sdft_testing::weighting(case.get(weight)?)?.weights(&diffusion.schedule);
        let picked: Option<_> = t.iter().map(|&t| table.get(t).copied()).collect();
        let picked = picked.ok_or_else(|| anyhow!("{t:?} goes beyond {} steps", table.len()))?;
        out.insert(name.into(), Array::vector(picked));
    }
    put_gradients(&mut out, &vars, &sdft_autograd::backward(&terms.total)?)?;
    Ok(out)
}

pub(super) fn train_steps(case: &Case) -> Result<Outputs> {
    let (diffusion, objective) = (case.diffusion()?, objective(case)?);
    let model = adm_config(case.get("model")?)?;
    let start = case.weights("source", &Unet::specs(&model)?)?;
    let source = Unet::load(&start, &model)?.with_compute_dtype(compute_dtype());
    let (params, vars) = start.trainable()?;
    let target = Unet::load(&params, &model)?.with_compute_dtype(compute_dtype());
    let mut optimizer = Optimizer::new(Rule::AdamW(adamw_rule(case)?), &vars)?;
    let mut ema = Ema::new(case.number("ema_rate")?, EmaRamp::None, &vars)?;
    let [x0, noise, z] = ["x_start", "noise", "z"].map(|name| case.input(name));
    let (x0, noise, z) = (x0?, noise?, z?);
    let (t, t_aux) = (case.steps("t")?, case.steps("t_aux")?);
    let steps = case.count("steps")?;
    if steps == 0 || x0.dim(0)? != steps {
        bail!("x_start has {} steps, config.steps is {steps}", x0.dim(0)?);
    }
    let per_step = |all: &[usize], i: usize| -> Vec<usize> {
        let n = all.len() / steps;
        all[i * n..(i + 1) * n].to_vec()
    };
    let mut losses = Vec::new();
    for i in 0..steps {
        let inputs = Inputs {
            x0: x0.get(i)?,
            noise: noise.get(i)?,
            z: z.get(i)?,
            t: per_step(&t, i),
            t_aux: per_step(&t_aux, i),
        };
        let terms = inputs.evaluate(&objective, &diffusion, &target, &source)?;
        let report = terms.report()?;
        losses.extend([
            report.base,
            report.distill.unwrap_or(0.0),
            report.aux.unwrap_or(0.0),
            report.total,
        ]);
        optimizer.step(
            &collect_gradients(&vars, &sdft_autograd::backward(&terms.total)?),
            case.number("lr")?,
            1.0,
        )?;
        ema.update()?;
    }
    let mut out = Outputs::new();
    out.insert(
        "losses".into(),
        Array {
            shape: vec![steps, 4],
            data: losses,
        },
    );
    let averaged = ema.state()?;
    for ((name, first), ((_, last), (_, average))) in start.iter().zip(vars.iter().zip(&averaged)) {
        put(
            &mut out,
            format!("delta.{name}"),
            &(last.as_tensor() - first)?,
        )?;
        put(&mut out, format!("ema_delta.{name}"), &(average - first)?)?;
    }
    Ok(out)
}
