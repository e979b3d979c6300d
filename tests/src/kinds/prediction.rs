//! Conversions, targets and weights of the three prediction types.

use super::{Outputs, put};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use sdft_diffusion::{Clip, Denoiser, Prediction, PredictionType};
use sdft_losses::{NoisedBatch, Objective, Terms, Variational};
use sdft_models::scheduler_process;
use sdft_samplers::{Ddim, ddim_step};
use sdft_schedule::{Respacing, Weighting};
use sdft_testing::{Array, Case};

/// A network with a known output.
struct Given(Prediction);

impl Denoiser for Given {
    fn predict(&self, _: &Tensor, _: &[f32]) -> candle_core::Result<Prediction> {
        Ok(self.0.clone())
    }
}

pub(super) fn convert(case: &Case) -> Result<Outputs> {
    let scheduler = case.get("scheduler")?.as_object();
    let mut scheduler = scheduler.context("scheduler: expected an object")?.clone();
    // What the network predicts is said next to it.
    scheduler.insert("prediction_type".to_owned(), "sample".into());
    let process = scheduler_process(&case.dir, &scheduler, false)?;
    let diffusion = process.diffusion(false, &Respacing::All)?;
    let kind: PredictionType = serde_json::from_value(case.get("prediction_type")?.clone())?;
    let (x0, noise, t) = (
        case.input("x_start")?,
        case.input("noise")?,
        case.steps("t")?,
    );
    let prediction = Prediction::new(case.input("output")?, kind);
    let xt = diffusion.q_sample(&x0, &t, &noise)?;
    let loss = |base: Weighting| -> Result<Terms> {
        let levels = diffusion.levels(&t)?;
        let batch = NoisedBatch::new(&x0, &levels, &noise);
        let objective = Objective::base_only(base, Variational::Off);
        let net = Given(prediction.clone());
        Ok(objective.evaluate(&diffusion, &net, None, &batch, None)?)
    };
    let weights = kind.min_snr(5.0).weights(&diffusion.schedule);
    let weights: Vec<f64> = t.iter().map(|&t| weights[t]).collect();
    let mse = loss(Weighting::Constant)?.mse;
    let weighted = loss(kind.min_snr(5.0))?.mse;
    let expected = (&mse * Tensor::new(weights.clone(), x0.device())?.to_dtype(mse.dtype())?)?;
    let difference = (&weighted - &expected)?.abs()?.max_all()?;
    if difference.to_scalar::<f32>()? > 1e-5 * expected.abs()?.max_all()?.to_scalar::<f32>()? {
        bail!("the weighted error is not the error times its weight");
    }
    let previous = t.iter().enumerate().map(|(i, &t)| {
        let options = Ddim {
            clip: Clip::No,
            ..Ddim::default()
        };
        let (one, x) = (prediction.narrow(i, 1)?, xt.narrow(0, i, 1)?);
        Ok(ddim_step(&diffusion, &one, &x, t, &options, None)?.next)
    });
    let previous = previous.collect::<candle_core::Result<Vec<_>>>()?;
    let mut out = Outputs::new();
    put(&mut out, "x_t", &xt)?;
    put(
        &mut out,
        "target",
        &diffusion.target(kind, &x0, &t, &noise)?,
    )?;
    put(&mut out, "x0", &diffusion.x0(&prediction, &xt, &t)?)?;
    put(&mut out, "eps", &diffusion.eps(&prediction, &xt, &t)?)?;
    put(&mut out, "ddim_prev", &Tensor::cat(&previous, 0)?)?;
    put(&mut out, "mse", &mse)?;
    let weights = Tensor::new(weights, &Device::Cpu)?;
    out.insert("min_snr_5".to_owned(), Array::of(&weights)?);
    Ok(out)
}
