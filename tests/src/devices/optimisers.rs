//! Steps of each optimiser.

use super::{Finding, finding, wave};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use sdft_autograd::backward;
use sdft_optim::{
    AdamW, EmaRamp, EmaRate, Engine, LossScale, Rule, Sgd, StepSize, Verdict, collect_gradients,
};

/// Optimiser steps of each rule, compared with the CPU's.
pub(super) fn optimisers(device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    let adamw = AdamW {
        weight_decay: 0.1,
        ..AdamW::default()
    };
    let sgd = Sgd {
        momentum: 0.9,
        weight_decay: 0.1,
    };
    for (name, rule, scale) in [
        ("adamw", Rule::AdamW(adamw), None),
        (
            "adamw scaled",
            Rule::AdamW(adamw),
            Some(LossScale::new(16.0, 3)?),
        ),
        ("sgd", Rule::Sgd(sgd), None),
        ("sgd plain", Rule::Sgd(Sgd::default()), None),
    ] {
        let run = |device: &Device| -> Result<(Vec<Tensor>, Vec<f64>)> {
            let shapes: [&[usize]; 3] = [&[70_001], &[5, 3], &[1]];
            let vars = shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| {
                    Ok((
                        format!("p{i}"),
                        Var::from_tensor(&wave(shape, i as u64, device)?)?,
                    ))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut engine = Engine::new(
                rule,
                EmaRate {
                    rate: 0.9,
                    ramp: EmaRamp::Early,
                },
                scale,
                &vars,
            )?;
            let mut norms = Vec::new();
            for step in 0..7u32 {
                let mut loss = vars[0].1.sqr()?.mean_all()?;
                for (_, var) in &vars[1..] {
                    loss = (loss + var.sqr()?.sum_all()?)?;
                }
                // One step with a gradient that is NaN, one with a loss that is NaN.
                let scaled = match engine.loss_factor(DType::F32, device)? {
                    Some(factor) => (&loss * factor)?,
                    None => loss.clone(),
                };
                let scaled = if step == 3 {
                    (scaled * f64::INFINITY)?
                } else {
                    scaled
                };
                let reported = if step == 5 {
                    (&loss * f64::NAN)?
                } else {
                    loss.clone()
                };
                let gradients = collect_gradients(&vars, &backward(&scaled)?);
                let reported = reported.detach().to_dtype(DType::F64)?;
                let size = StepSize {
                    lr: 0.01,
                    max_norm: 1.0,
                };
                let verdict = engine.step(&gradients, &reported, size)?.wait()?;
                norms.push(match verdict {
                    Verdict::Updated { grad_norm } => grad_norm,
                    Verdict::BadLoss => -1.0,
                    Verdict::BadGradient => -2.0,
                });
            }
            engine.synchronize()?;
            let mut all: Vec<Tensor> = vars.iter().map(|(_, v)| v.as_detached_tensor()).collect();
            all.extend(engine.ema().state()?.into_iter().map(|(_, t)| t));
            let moments = engine.optimizer().state()?.into_iter();
            all.extend(
                moments
                    .filter(|(n, _)| !n.starts_with("step."))
                    .map(|(_, t)| t),
            );
            let counters = [
                f64::from(engine.optimizer().n_updates()),
                engine.ema().n_updates() as f64,
                engine.loss_scale().map_or(0.0, LossScale::scale),
            ];
            norms.extend(counters);
            Ok((all, norms))
        };
        let ((there, norms), (here, norms_here)) = (run(device)?, run(&Device::Cpu)?);
        let norms = Tensor::new(norms, &Device::Cpu)?;
        let norms_here = Tensor::new(norms_here, &Device::Cpu)?;
        findings.push(finding(
            format!("{name} norms and counters"),
            &norms,
            &norms_here,
            1e-5,
        )?);
        for (i, (a, b)) in there.iter().zip(&here).enumerate() {
            findings.push(finding(format!("{name} state {i}"), a, b, 2e-6)?);
        }
    }
    Ok(())
}
