//! A sampler of your own, for any network: DPM-Solver++(2M) (Lu et al. 2022).

use sdft::candle::{Device, Result, Tensor};
use sdft::diffusion::{Denoiser, Diffusion};
use sdft::imaging::{ImageSpec, write_png};
use sdft::jobs::{DIGITS_SOURCE, load_model};
use sdft::models::LoadOptions;
use sdft::randn::SeededNoise;
use sdft::train::{contact_sheet, to_screens};
use std::cell::Cell;
use std::path::Path;

/// Solves the deterministic flow from noise `x` `[B, C, H, W]` to images, with second-order steps in `ln(alpha / sigma)`. The first and
/// the last steps are of first order: one has no step before it, the other is much longer than that.
pub fn dpm_solver(diffusion: &Diffusion, denoiser: &dyn Denoiser, x: &Tensor) -> Result<Tensor> {
    let alpha_bar = diffusion.schedule.alpha_bar();
    let lambda = |t: usize| 0.5 * diffusion.schedule.snr()[t].ln();
    let mut x = x.clone();
    let mut last: Option<(Tensor, f64)> = None;
    for t in (1..diffusion.n_steps()).rev() {
        let x0 = clean(diffusion, denoiser, &x, t)?;
        let h = lambda(t - 1) - lambda(t);
        let d = match &last {
            Some((before, h_before)) if t > 1 => (&x0 + ((&x0 - before)? * (0.5 * h / h_before))?)?,
            _ => x0.clone(),
        };
        let (ab, next) = (alpha_bar[t], alpha_bar[t - 1]);
        let kept = (x * ((1.0 - next) / (1.0 - ab)).sqrt())?;
        x = (kept + (d * (next.sqrt() * -(-h).exp_m1()))?)?;
        last = Some((x0, h));
    }
    clean(diffusion, denoiser, &x, 0)
}

/// The clean image that the network predicts, whichever quantity it predicts.
fn clean(diffusion: &Diffusion, denoiser: &dyn Denoiser, x: &Tensor, t: usize) -> Result<Tensor> {
    let t = vec![t; x.dim(0)?];
    diffusion.x0(&diffusion.predict(denoiser, x, &t)?, x, &t)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let model = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
    let (network, calls) = (model.network()?, Cell::new(0));
    let counted = |x: &Tensor, t: &[f32]| {
        calls.set(calls.get() + 1);
        network.predict(x, t)
    };
    let noise = SeededNoise::new(0, 0).start(&[16, 3, 16, 16], &Device::Cpu)?;
    let images = dpm_solver(&model.diffusion(&"ddim10".parse()?)?, &counted, &noise)?;
    let title = format!("{} calls", calls.get());
    write_png(
        Path::new("digits.png"),
        &contact_sheet(&to_screens(&images, &ImageSpec::rgb8(16, 16))?, &title),
    )?;
    Ok(())
}
