use crate::Energies;
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Prediction};
use sdft_samplers::{Ddim, NoiseSource, Observer, Step, ddim_step};

/// How the reverse process is walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Walk {
    /// DDPM's ancestral steps without clamping, with the variance of the process: the published samplers of SDEdit and EGSDE
    /// (every step of the process, [`sdft_diffusion::Variance::FixedSmall`]).
    Ancestral,
    /// DDIM's steps.
    Ddim {
        /// Share of fresh noise, 0 to 1.
        eta: f64,
        /// Whether predicted clean images are clamped.
        clip: Clip,
    },
}

impl Walk {
    /// Deterministic and clamped, as the paper samples.
    pub const PAPER: Self = Self::Ddim {
        eta: 0.0,
        clip: Clip::Yes,
    };
}

/// From where and how often an image is noised and denoised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SdeditOptions {
    /// How.
    pub walk: Walk,
    /// The step of the process whose noise level the image is brought to; none leaves the image as it is.
    pub start: Option<usize>,
    /// How often; each time begins with the result of the one before.
    pub repeats: usize,
}

/// What SDEdit and EGSDE have in common: noise the image, walk back, again if asked.
///
/// Each repeat takes its draws from the noise source in this order: the noise `e` of the image, then one for each step; all have their
/// place in the order whether they are used or not.
pub(crate) fn edit(
    (diffusion, denoiser): (&Diffusion, &dyn Denoiser),
    energies: Option<&Energies<'_>>,
    x0: &Tensor,
    keep: Option<&Tensor>,
    edit: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    let source = x0.detach();
    let Some(start) = edit.start else {
        return Ok(source);
    };
    let n = diffusion.n_steps();
    if start >= n {
        bail!("starting step {start} is outside 0..{n}");
    }
    let keep = keep.map(|mask| mask.broadcast_as(x0.shape())).transpose()?;
    let total = edit.repeats * (start + 1);
    let mut image = source.clone();
    for repeat in 0..edit.repeats {
        let first = repeat * (start + 2);
        let e = noise.normal(first, &image)?;
        let all = |t: usize| vec![t; image.dims()[0]];
        let before = image.clone();
        let mut x = diffusion.q_sample(&image, &all(start), &e)?;
        for (k, t) in (0..=start).rev().enumerate() {
            let led = match energies {
                Some(energies) => Some((energies, diffusion.q_sample(&source, &all(t), &e)?)),
                None => None,
            };
            let led = led.as_ref().map(|(energies, xt)| (*energies, xt));
            let z = match edit.walk {
                _ if t == 0 => None,
                Walk::Ddim { eta: 0.0, .. } => None,
                _ => Some(noise.normal(first + 1 + k, &x)?),
            };
            let (next, clean) =
                edit_step((diffusion, denoiser), led, &x, t, edit.walk, z.as_ref())?;
            // What is kept is the image of this repeat on its own way back: at the level left for ancestral steps, as SDEdit has it,
            // and at the level reached for DDIM's.
            let next = match &keep {
                None => next,
                Some(keep) => {
                    let level = match edit.walk {
                        Walk::Ancestral => Some(t),
                        Walk::Ddim { .. } => t.checked_sub(1),
                    };
                    let kept = match level {
                        Some(level) => diffusion.q_sample(&before, &all(level), &e)?,
                        None => before.clone(),
                    };
                    blend(keep, &kept, &next)?
                }
            };
            x = next.detach();
            observer(&Step {
                done: repeat * (start + 1) + k + 1,
                total,
                t,
                x: &x,
                x0: &clean,
            })?;
        }
        image = match &keep {
            Some(keep) => blend(keep, &before, &x)?,
            None => x,
        };
    }
    Ok(image)
}

/// One step of a walk from `x` at step `t`, led by energies beside the noised source where there are any: the state one step earlier,
/// and the predicted clean image.
///
/// # Shapes
/// - `x`, the noised source, `z`: `[B, C, H, W]`
///
/// # Errors
/// As [`crate::egsde`]; noise that is missing where the walk needs it.
pub fn edit_step(
    (diffusion, denoiser): (&Diffusion, &dyn Denoiser),
    energies: Option<(&Energies<'_>, &Tensor)>,
    x: &Tensor,
    t: usize,
    walk: Walk,
    z: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let steps = vec![t; x.dim(0)?];
    let mut prediction = diffusion.predict(denoiser, x, &steps)?.detach();
    if let Some((energies, xt)) = energies
        && let Some(push) = energies.push(x, xt, &diffusion.model_t(&steps)?)?
    {
        let scale = diffusion.schedule.sqrt_one_minus_alpha_bar()[t];
        prediction.eps = (prediction.eps + (push * scale)?)?;
    }
    match walk {
        Walk::Ancestral => ancestral_step(diffusion, &prediction, x, t, z),
        Walk::Ddim { eta, clip } => {
            let start = None;
            ddim_step(diffusion, &prediction, x, t, &Ddim { eta, clip, start }, z)
        }
    }
}

/// `a` where the mask is 1, `b` where it is 0.
fn blend(mask: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mask.ne(0.0)?.where_cond(a, b)
}

/// One ancestral step without clamping: the state one step earlier, and the predicted clean image.
///
/// Source: SDEdit `image_editing_denoising_step_flexible_mask`.
/// ```text
/// x_prev = (x - beta / sqrt(1 - ab) eps) / sqrt(1 - beta) + exp(log_variance / 2) z
/// ```
fn ancestral_step(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: usize,
    z: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let s = &diffusion.schedule;
    let reverse = diffusion.reverse(prediction, x, &vec![t; x.dim(0)?], Clip::No)?;
    let (beta, spread) = (s.betas()[t], s.sqrt_one_minus_alpha_bar()[t]);
    let mean = ((x - (&prediction.eps * (beta / spread))?)? / (1.0 - beta).sqrt())?;
    let next = match z {
        _ if t == 0 => mean,
        None => bail!("an ancestral step from {t} needs noise"),
        Some(z) => (mean + z.broadcast_mul(&(reverse.log_variance * 0.5)?.exp()?)?)?,
    };
    Ok((next, reverse.x0))
}
