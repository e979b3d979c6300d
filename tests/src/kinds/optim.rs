use super::{Outputs, put};
use crate::array::Array;
use crate::case::Case;
use anyhow::{Result, anyhow, bail};
use candle_core::{Tensor, Var};
use sdft_optim::{
    Accumulator, AdamW, Decay, Ema, EmaRamp, LearningRate, MicroBatches, Optimizer, Rule, Sgd,
    clip_coefficient, collect_gradients, global_norm,
};

/// Tensors `PREFIX0`, `PREFIX1`, .. as far as there are any.
fn numbered(case: &Case, prefix: &str) -> Result<Vec<Tensor>> {
    (0..)
        .map(|i| format!("{prefix}{i}"))
        .take_while(|name| case.has(name))
        .map(|name| case.input(&name))
        .collect()
}

pub(super) fn adamw(case: &Case) -> Result<Outputs> {
    let (params, gradients) = (numbered(case, "p")?, numbered(case, "g")?);
    let vars: Vec<(String, Var)> = params
        .iter()
        .enumerate()
        .map(|(i, p)| Ok((format!("p{i}"), Var::from_tensor(&p.copy()?)?)))
        .collect::<Result<_>>()?;
    let number = |name: &str| case.config.get(name).and_then(serde_json::Value::as_f64);
    let weight_decay = number("weight_decay").unwrap_or(0.0);
    let rule = match case.get("optimizer")?.as_str() {
        Some("AdamW") => {
            let betas = case
                .get("betas")?
                .as_array()
                .ok_or_else(|| anyhow!("betas is no list"))?;
            let beta = |i: usize| {
                betas
                    .get(i)
                    .and_then(serde_json::Value::as_f64)
                    .ok_or_else(|| anyhow!("betas needs two numbers"))
            };
            Rule::AdamW(AdamW {
                betas: (beta(0)?, beta(1)?),
                eps: case.number("eps")?,
                weight_decay,
            })
        }
        Some("SGD") => Rule::Sgd(Sgd {
            momentum: number("momentum").unwrap_or(0.0),
            weight_decay,
        }),
        other => bail!("unknown optimizer {other:?}"),
    };
    let mut optimizer = Optimizer::new(rule, &vars)?;
    let decay = match number("anneal_steps") {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        Some(steps) if steps > 0.0 => Decay::Linear {
            steps: steps as u64,
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
    out.insert(
        "total_norm".into(),
        Array {
            shape: vec![],
            data: vec![norm],
        },
    );
    for (i, gradient) in gradients.iter().flatten().enumerate() {
        put(&mut out, format!("clipped{i}"), &(gradient * factor)?)?;
    }
    Ok(out)
}

pub(super) fn microbatch(case: &Case) -> Result<Outputs> {
    let size = case.count("microbatch")?.max(1);
    let vars = vec![("w".to_owned(), Var::from_tensor(&case.input("w")?)?)];
    let (x, y) = (case.input("x")?, case.input("y")?);
    let n = x.dim(0)?;
    let mut sum = Accumulator::new(MicroBatches::Summed, 1, n);
    for start in (0..n).step_by(size) {
        let len = size.min(n - start);
        let (x, y) = (x.narrow(0, start, len)?, y.narrow(0, start, len)?);
        let loss = (x.matmul(&vars[0].1.t()?)? - y)?.sqr()?.mean_all()?;
        sum.add(&collect_gradients(&vars, &loss.backward()?), len)?;
    }
    let mut out = Outputs::new();
    if let Some(gradient) = &sum.finish()?[0] {
        put(&mut out, "grad.w", gradient)?;
    }
    Ok(out)
}
