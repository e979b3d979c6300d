//! DPM-Solver++(2M): a multistep method of second order for the predicted image.

use crate::StepCallback;
use crate::flow::{Report, check_range, evenly, levels_of, noise_and_image};
use candle_core::{DType, Result, Tensor};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Level};

/// Options of DPM-Solver++(2M).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmSolver {
    /// Number of steps, each of which calls the network once.
    pub steps: usize,
    /// Whether predicted clean images are clamped.
    pub clip: Clip,
}

impl Default for DpmSolver {
    /// 20 steps, clamped.
    fn default() -> Self {
        Self {
            steps: 20,
            clip: Clip::Yes,
        }
    }
}

impl DpmSolver {
    /// The noise levels of the steps, from the most noise of the process to the least, in equal steps of `ln(sigma)`, so of the logarithm
    /// of the signal-to-noise ratio. The last step leads to the image.
    ///
    /// A network that is called with steps gets the nearest step for each level. Levels that fall on one step count once, so there can be
    /// fewer than [`Self::steps`].
    ///
    /// # Errors
    /// No steps.
    pub fn levels(&self, diffusion: &Diffusion) -> Result<Vec<Level>> {
        let (low, high) = diffusion.sigma_range();
        check_range("DPM-Solver++", self.steps, low, high)?;
        let logs = evenly(self.steps, high.ln(), low.ln());
        let sigmas: Vec<f64> = logs.map(f64::exp).collect();
        Ok(levels_of(diffusion, &sigmas))
    }
}

/// Runs DPM-Solver++(2M) from `x`, unit-variance noise, and returns the images.
///
/// With `h` the step of `ln(sigma)` and `x = x_t / sqrt(alpha_bar)`:
/// ```text
/// x' = (sigma' / sigma) x + (1 - sigma' / sigma) D,   D = x0 + h / (2 h_before) (x0 - x0_before)
/// ```
/// The first step and the last one, which leads to `sigma' = 0`, are of first order, `D = x0`. No noise is drawn.
///
/// Source: Lu et al. 2022; diffusers `DPMSolverMultistepScheduler` with `dpmsolver++`, `midpoint` and `final_sigmas_type = "zero"`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, the state of the variance-preserving process at the most noise · returns: the same
///
/// # Errors
/// As [`DpmSolver::levels`]; an error of the network or the callback.
pub fn sample_dpm(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x: &Tensor,
    options: &DpmSolver,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let (levels, dtype) = (options.levels(diffusion)?, x.dtype());
    let mut x = x.to_dtype(DType::F64)?;
    let mut before: Option<(Tensor, f64)> = None;
    let mut report = Report {
        callback,
        diffusion,
        levels: &levels,
    };
    for (done, &level) in levels.iter().enumerate() {
        if done == 0 {
            x = (x / level.alpha_bar.sqrt())?;
        }
        let (_, x0) = noise_and_image(denoiser, &x, level, dtype)?;
        let x0 = diffusion.clamped(x0, options.clip)?;
        let next = levels.get(done + 1);
        let ratio = next.map_or(0.0, Level::sigma) / level.sigma();
        let step = -ratio.ln();
        let leads_to = match (&before, next) {
            (Some((image, step_before)), Some(_)) => {
                (&x0 + ((&x0 - image)? * (0.5 * step / step_before))?)?
            }
            _ => x0.clone(),
        };
        x = ((x * ratio)? + (leads_to * (1.0 - ratio))?)?;
        report.step(done, &x, &x0, dtype)?;
        before = Some((x0, step));
    }
    x.to_dtype(dtype)
}
