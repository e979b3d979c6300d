//! Inversion and edited generation.

use crate::{Levels, Mix, sequence::shifted, step::step};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{BottleneckNet, Denoiser};
use sdft_randn::NoiseSource;
use sdft_samplers::{Step, StepCallback};
use sdft_schedule::Schedule;

/// Where an edit is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditPlan {
    /// The steps of the process that are visited, ascending; see [`crate::sequence`].
    pub steps: Vec<usize>,
    /// Features are changed at this step and above it.
    pub t_edit: usize,
    /// Below this step fresh noise is added, which sharpens; 0 for none.
    pub t_boost: usize,
}

/// Fails unless the steps ascend and belong to the process.
fn check(steps: &[usize], schedule: &Schedule) -> Result<()> {
    let n = schedule.alpha_bar().len();
    if steps.is_empty() || !steps.is_sorted_by(|a, b| a < b) || steps.last() >= Some(&n) {
        let shown = steps.get(..8).unwrap_or(steps);
        bail!(
            "steps of an edit: expected at least one step, ascending, below {n}, found {} steps that start with {shown:?}",
            steps.len()
        );
    }
    Ok(())
}

/// The steps of a trajectory from the last one down to the clean image, with their noise levels, without fresh noise.
///
/// # Errors
/// Steps that do not ascend or are not of the process.
pub fn descent(steps: &[usize], schedule: &Schedule) -> Result<Vec<(usize, Levels)>> {
    check(steps, schedule)?;
    let alpha_bar = schedule.alpha_bar();
    let pairs = steps.iter().copied().zip(shifted(steps)).rev();
    let levels = pairs.map(|(t, next)| {
        let levels = Levels {
            alpha_bar: alpha_bar[t],
            alpha_bar_next: next.map_or(1.0, |next| alpha_bar[next]),
            eta: 0.0,
        };
        (t, levels)
    });
    Ok(levels.collect())
}

/// `t` for every image of the batch.
#[expect(clippy::cast_precision_loss, reason = "steps are small numbers")]
pub(crate) fn times(t: usize, x: &Tensor) -> Result<Vec<f32>> {
    Ok(vec![t as f32; x.dim(0)?])
}

/// The noise that a clean image comes from: `x0` is taken for the state at the first step and brought to the last.
///
/// `callback` is called after every step; its `t` is the step that was left.
///
/// Source: Asyrp `diffusion_latent.py` `precompute_pairs`; eps is that of the lower step, nothing is clamped.
///
/// # Errors
/// Steps that do not ascend or are not of the process; as [`Denoiser::predict`]; an error of `callback`.
pub fn invert(
    net: &dyn Denoiser,
    schedule: &Schedule,
    x0: &Tensor,
    steps: &[usize],
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    check(steps, schedule)?;
    let alpha_bar = schedule.alpha_bar();
    let mut x = x0.detach();
    let total = steps.len() - 1;
    for (done, pair) in steps.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let prediction = net.predict(&x, &times(t, &x)?)?.detach();
        let levels = Levels {
            alpha_bar: alpha_bar[t],
            alpha_bar_next: alpha_bar[next],
            eta: 0.0,
        };
        let stepped = step(&x, &prediction, &prediction, levels, None)?;
        x = stepped.next.detach();
        callback(&Step {
            done: done + 1,
            total,
            t,
            x: &x,
            x0: &stepped.x0,
        })?;
    }
    Ok(x)
}

/// The image that `latent`, a state at the last step, becomes with these directions.
///
/// The `k`-th step below `t_boost` takes draw `k` of `noise`, both counted from 0.
///
/// Source: Asyrp `diffusion_latent.py` `save_image`.
///
/// # Errors
/// Steps that do not ascend or are not of the process; as [`BottleneckNet::predict_edited`]; an error of `noise` or `callback`.
pub fn edit(
    net: &dyn BottleneckNet,
    schedule: &Schedule,
    latent: &Tensor,
    mix: &Mix<'_>,
    plan: &EditPlan,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let mut x = latent.detach();
    let (total, mut draws) = (plan.steps.len(), 0);
    for (done, (t, levels)) in descent(&plan.steps, schedule)?.into_iter().enumerate() {
        let times = times(t, &x)?;
        let (plain, changed) = if t >= plan.t_edit && !mix.directions.is_empty() {
            let edited = net.predict_edited(&x, &times, &mut |h, emb| mix.apply(h, emb))?;
            (edited.plain.detach(), edited.changed().detach())
        } else {
            let prediction = net.predict(&x, &times)?.detach();
            (prediction.clone(), prediction)
        };
        let levels = Levels { eta: 1.0, ..levels };
        let z = match t < plan.t_boost {
            false => None,
            true => {
                draws += 1;
                Some(noise.normal(draws - 1, &x)?)
            }
        };
        let stepped = step(&x, &plain, &changed, levels, z.as_ref())?;
        x = stepped.next.detach();
        callback(&Step {
            done: done + 1,
            total,
            t,
            x: &x,
            x0: &stepped.x0,
        })?;
    }
    Ok(x)
}

/// The factor of a block's output for an edit of this strength: scaled to the number of steps, and shared by several directions.
///
/// Source: Asyrp `diffusion_latent.py` `run_test`, `hs_coeff`.
#[must_use]
pub fn strength_at(strength: f64, trained: usize, steps: usize, directions: usize) -> f64 {
    strength * trained as f64 / steps.max(1) as f64 / (directions.max(1) as f64).sqrt()
}
