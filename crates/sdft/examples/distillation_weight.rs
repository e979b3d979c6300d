//! Fine-tunes the embedded model of digits with a weight of the distillation that is not in the paper.

use sdft::autograd::backward;
use sdft::candle::{Device, Tensor};
use sdft::data::{Digits, DigitsSource, ImageSource, Style};
use sdft::diffusion::Condition;
use sdft::jobs::{DIGITS_SOURCE, load_model};
use sdft::losses::{Distillation, NoisedBatch, Objective, Report, Variational};
use sdft::models::LoadOptions;
use sdft::noise::{Draw, Purpose};
use sdft::optim::{AdamW, Optimizer, Rule, collect_gradients};
use sdft::randn::randn;
use sdft::schedule::{Respacing, Weighting};
use sdft::train::to_tensor;
use std::error::Error;

/// Largest where signal and noise are equal. The paper's weight, `(1 + SNR)^-3`, is largest for pure noise.
pub fn weight(snr: f64) -> f64 {
    (-snr.ln().powi(2) / 8.0).exp()
}

/// Trains for some steps on eight digits, and returns the terms of each loss.
pub fn train(steps: u64, weight: fn(f64) -> f64) -> Result<Vec<Report>, Box<dyn Error>> {
    let model = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
    let diffusion = model.diffusion(&Respacing::All)?;
    let (source, network) = (model.network()?, model.trainable()?);
    let student = |x: &Tensor, t: &[f32]| network.predict(x, t, &Condition::default());
    // The weight of each image comes with the batch.
    let (lambda, weighting) = (5.0, Weighting::Constant);
    let mut objective = Objective::base_only(Weighting::Constant, Variational::Off);
    objective.distill = Some(Distillation { lambda, weighting });
    let digits = DigitsSource::new(Digits::embedded()?, Style::Ember, &[1, 4, 7], 30)?;
    let images: Result<Vec<_>, _> = (0..8).map(|i| digits.image(i)).collect();
    let (x0, vars) = (to_tensor(&images?, digits.spec())?, network.vars());
    let mut optimizer = Optimizer::new(Rule::AdamW(AdamW::default()), &vars)?;
    let mut reports = Vec::new();
    for step in 0..steps {
        let noise = randn(0, Purpose::Noise, step, 0, x0.dims(), &Device::Cpu)?;
        let draw = |i| Draw::new(0, Purpose::Timestep, step, i).below(0, 1000) as usize;
        let t: Vec<usize> = (0..8).map(draw).collect();
        let levels = diffusion.levels(&t)?;
        let weights: Vec<f64> = levels.iter().map(|level| weight(level.snr())).collect();
        let mut batch = NoisedBatch::new(&x0, &levels, &noise);
        batch.distill = Some(&weights);
        let terms = objective.evaluate(&diffusion, &student, Some(&*source), &batch, None)?;
        let gradients = collect_gradients(&vars, &backward(&terms.total)?);
        optimizer.step(&gradients, 1e-4, 1.0)?;
        reports.push(terms.report()?);
    }
    Ok(reports)
}

fn main() -> Result<(), Box<dyn Error>> {
    let reports = train(20, weight)?;
    println!("{:?} to {:?}", reports.first(), reports.last());
    Ok(())
}
