//! The walk back from noise that SDEdit and EGSDE share.

use crate::Energies;
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Prediction, PredictionType};
use sdft_randn::NoiseSource;
use sdft_samplers::{Ddim, Step, StepCallback, Stepped, ddim_step};

/// The sampler of the reverse process.
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

/// How an image is noised and denoised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SdeditOptions {
    /// The sampler.
    pub walk: Walk,
    /// The step of the process whose noise level the image is brought to; `None` returns the image unchanged.
    pub start: Option<usize>,
    /// Number of times; each begins with the result of the one before.
    pub repeats: usize,
}

/// What EGSDE adds to SDEdit, and the mask of SDEdit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras<'a> {
    pub(crate) energies: Option<&'a Energies<'a>>,
    /// 1 where the image is kept.
    pub(crate) mask: Option<&'a Tensor>,
}

/// Noises the image and walks back, `options.repeats` times.
///
/// Each repeat takes its draws from the noise source in this order: the noise `e` of the image, then one for each step. Every draw has
/// its number whether it is used or not.
pub(crate) fn edit(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    extras: Extras<'_>,
    options: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let source = x0.detach();
    let Some(start) = options.start else {
        return Ok(source);
    };
    let n = diffusion.n_steps();
    if start >= n {
        bail!("starting step {start} is outside 0..{n}");
    }
    let keep = extras.mask.map(|mask| mask.broadcast_as(x0.shape()));
    let keep = keep.transpose()?;
    let total = options.repeats * (start + 1);
    let mut image = source.clone();
    for repeat in 0..options.repeats {
        let first = repeat * (start + 2);
        let e = noise.normal(first, &image)?;
        let all = |t: usize| vec![t; image.dims()[0]];
        let before = image.clone();
        let mut x = diffusion.q_sample(&image, &all(start), &e)?;
        for (k, t) in (0..=start).rev().enumerate() {
            let guide = match extras.energies {
                Some(energies) => Some(Guide {
                    energies,
                    source: diffusion.q_sample(&source, &all(t), &e)?,
                }),
                None => None,
            };
            let z = match options.walk {
                _ if t == 0 => None,
                Walk::Ddim { eta: 0.0, .. } => None,
                _ => Some(noise.normal(first + 1 + k, &x)?),
            };
            let Stepped { next, x0: clean } = edit_step(
                diffusion,
                denoiser,
                guide.as_ref(),
                &x,
                t,
                options.walk,
                z.as_ref(),
            )?;
            // The part that is kept follows the image of this repeat: at the level that an ancestral step starts from, as in SDEdit,
            // and at the level that a DDIM step leads to.
            let next = match &keep {
                None => next,
                Some(keep) => {
                    let level = match options.walk {
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
            callback(&Step {
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

/// What leads a step of EGSDE.
pub struct Guide<'a> {
    /// The energies.
    pub energies: &'a Energies<'a>,
    /// The source image noised to the level of the step, `[B, C, H, W]`.
    pub source: Tensor,
}

/// One step of a walk, from `x` at step `t` to the step below; EGSDE's with a guide, SDEdit's without.
///
/// # Shapes
/// - `x`, `z`: `[B, C, H, W]`
///
/// # Errors
/// As [`crate::egsde`]; no noise where the walk needs it.
pub fn edit_step(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    guide: Option<&Guide<'_>>,
    x: &Tensor,
    t: usize,
    walk: Walk,
    z: Option<&Tensor>,
) -> Result<Stepped> {
    let steps = vec![t; x.dim(0)?];
    let mut prediction = diffusion.predict(denoiser, x, &steps)?.detach();
    if let Some(Guide { energies, source }) = guide
        && let Some(push) = energies.push(x, source, &diffusion.discrete_t(&steps)?)?
    {
        let scale = diffusion.schedule.sqrt_one_minus_alpha_bar()[t];
        let eps = diffusion.eps(&prediction, x, &steps)?;
        prediction.output = (eps + (push * scale)?)?;
        prediction.prediction_type = PredictionType::Epsilon;
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

/// One ancestral step without clamping.
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
) -> Result<Stepped> {
    let s = &diffusion.schedule;
    let steps = vec![t; x.dim(0)?];
    let reverse = diffusion.reverse(prediction, x, &steps, Clip::No)?;
    let eps = diffusion.eps(prediction, x, &steps)?;
    let (beta, spread) = (s.betas()[t], s.sqrt_one_minus_alpha_bar()[t]);
    let mean = ((x - (eps * (beta / spread))?)? / (1.0 - beta).sqrt())?;
    let next = match z {
        _ if t == 0 => mean,
        None => bail!("an ancestral step from {t} needs noise"),
        Some(z) => (mean + z.broadcast_mul(&(reverse.log_variance * 0.5)?.exp()?)?)?,
    };
    Ok(Stepped {
        next,
        x0: reverse.x0,
    })
}
