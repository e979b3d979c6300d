//! Cases of the kinds `optim.*`.

use super::{Outputs, put};
use anyhow::{Result, anyhow, bail};
use candle_core::{Tensor, Var};
use sdft_optim::{
    Accumulator, AdamW, Decay, Ema, EmaRamp, LearningRate, MicroBatches, Optimizer, Rule, Sgd,
    clip_coefficient, collect_gradients, global_norm,
};
use sdft_testing::{Array, Case};
use serde_json::Value;

/// Tensors `PREFIX0`, `PREFIX1`, .. as far as there are any.
fn numbered(case: &Case, prefix: &str) -> Result<Vec<Tensor>> {
    (0..)
        .map(|i| format!("{prefix}{i}"))
        .take_while(|name| case.has(name))
        .map(|name| case.input(&name))
        .collect()
}

fn number_or(case: &Case, name: &str, default: f64) -> Result<f64> {
    match case.config.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(_) => case.number(name),
    }
}

/// AdamW with the numbers of the configuration, torch's where there are none.
pub(super) fn adamw_rule(case: &Case) -> Result<AdamW> {
    let default = AdamW::default();
    let betas = match case.config.get("betas") {
        None | Some(Value::Null) => default.betas,
        Some(value) => match value.as_array().map(Vec::as_slice) {
            Some([Value::Number(first), Value::Number(second)]) => first
                .as_f64()
                .zip(second.as_f64())
                .ok_or_else(|| anyhow!("betas holds {value}"))?,
            _ => bail!("betas takes two numbers, found {value}"),
        },
    };
    Ok(AdamW {
        betas,
        eps: number_or(case, "eps", default.eps)?,
        weight_decay: number_or(case, "weight_decay", default.weight_decay)?,
    })
}

pub(super) fn adamw(case: &Case) -> Result<Outputs> {
    let (params, gradients) = (numbered(case, "p")?, numbered(case, "g")?);
    let vars: Vec<(String, Var)> = params
        .iter()
        .enumerate()
        .map(|(i, p)| Ok((format!("p{i}"), Var::from_tensor(&p.copy()?)?)))
        .collect::<Result<_>>()?;
    // Variants of the rules that no fixture has; an enabled one would change the numbers.
    for variant in ["amsgrad", "nesterov", "maximize"] {
        if case.flag(variant, false)? {
            bail!("optimizer option {variant} is not known");
        }
    }
    let rule = match case.get("optimizer")?.as_str() {
        Some("AdamW") => Rule::AdamW(adamw_rule(case)?),
        Some("SGD") => Rule::Sgd(Sgd {
            momentum: number_or(case, "momentum", 0.0)?,
            weight_decay: number_or(case, "weight_decay", 0.0)?,
        }),
        _ => bail!("unknown optimizer {}", case.get("optimizer")?),
    };
    let mut optimizer = Optimizer::new(rule, &vars)?;
    let decay = match number_or(case, "anneal_steps", 0.0)? {
        steps if steps > 0.0 => Decay::Linear {
            steps: case.count("anneal_steps")? as u64,
        },
        _ => Decay::Constant,
    };
    let rate = LearningRate {
        base: case.number("lr")?,
        warmup_steps: 0,
        decay,
    };
    let mut history: Vec<Vec<Tensor>> = vec![Vec::new(); vars.len()];
    for step in 0..case.count("steps")? {
        let now = gradients
            .iter()
            .map(|g| Ok(Some(g.get(step)?)))
            .collect::<Result<Vec<_>>>()?;
        optimizer.step(&now, rate.at(step as u64), 1.0)?;
        for (history, (_, var)) in history.iter_mut().zip(&vars) {
            history.push(var.as_tensor().copy()?);
        }
    }
    let mut out = Outputs::new();
    for (history, (name, _)) in history.iter().zip(&vars) {
        put(
            &mut out,
            format!("{name}_steps"),
            &Tensor::stack(history, 0)?,
        )?;
    }
    for (name, tensor) in optimizer.state()? {
        put(&mut out, name.replace('.', "_"), &tensor)?;
    }
    Ok(out)
}

pub(super) fn ema(case: &Case) -> Result<Outputs> {
    let sequence = case.input("params")?;
    let vars = vec![("p".to_owned(), Var::from_tensor(&case.input("ema0")?)?)];
    let mut ema = Ema::new(case.number("rate")?, EmaRamp::None, &vars)?;
    let mut history = Vec::new();
    for step in 0..sequence.dim(0)? {
        vars[0].1.set(&sequence.get(step)?)?;
        ema.update()?;
        history.extend(ema.state()?.into_iter().map(|(_, tensor)| tensor));
    }
    let mut out = Outputs::new();
    put(&mut out, "ema_steps", &Tensor::stack(&history, 0)?)?;
    Ok(out)
}

pub(super) fn clip_grad_norm(case: &Case) -> Result<Outputs> {
    let gradients: Vec<Option<Tensor>> = numbered(case, "g")?.into_iter().map(Some).collect();
    let norm = global_norm(&gradients)?;
    let factor = clip_coefficient(norm, case.number("max_norm")?);
    let mut out = Outputs::new();
    out.insert("total_norm".into(), Array::scalar(norm));
    for (i, gradient) in gradients.iter().flatten().enumerate() {
        put(&mut out, format!("clipped{i}"), &(gradient * factor)?)?;
    }
    Ok(out)
}

pub(super) fn microbatch(case: &Case) -> Result<Outputs> {
    let vars = vec![("w".to_owned(), Var::from_tensor(&case.input("w")?)?)];
    let (x, y) = (case.input("x")?, case.input("y")?);
    let n = x.dim(0)?;
    // As a flag of the training script, -1 (or 0) means the whole batch.
    let size = if case.number("microbatch")? > 0.0 {
        case.count("microbatch")?
    } else {
        n.max(1)
    };
    let mut sum = Accumulator::new(MicroBatches::Summed, 1, n);
    for start in (0..n).step_by(size) {
        let len = size.min(n - start);
        let (x, y) = (x.narrow(0, start, len)?, y.narrow(0, start, len)?);
        let loss = (x.matmul(&vars[0].1.t()?)? - y)?.sqr()?.mean_all()?;
        sum.add(
            &collect_gradients(&vars, &sdft_autograd::backward(&loss)?),
            len,
        )?;
    }
    let mut out = Outputs::new();
    if let Some(gradient) = &sum.finish()?[0] {
        put(&mut out, "grad.w", gradient)?;
    }
    Ok(out)
}
