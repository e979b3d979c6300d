//! How diffusers' schedulers sample: which steps they visit, and how they clamp the predicted image.

use crate::{Clip, Diffusion};
use candle_core::{DType, Device, Result, Tensor};
use sdft_schedule::{Respacing, Schedule, ScheduleError, Spacing};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How a model of diffusers is sampled; names and defaults are those of `DDIMScheduler` and `DDPMScheduler`.
///
/// A process with these settings has tables in single precision. EQUATIONS.md lists the other differences from guided-diffusion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Whether the predicted image is clamped.
    pub clip_sample: bool,
    /// The largest value of a clamped image, above 0.
    pub clip_sample_range: f64,
    /// Whether each predicted image is scaled by a quantile of its own values instead (Saharia et al. 2022).
    pub thresholding: bool,
    /// The quantile, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The largest value that the quantile is taken for, at least 1.
    pub sample_max_value: f64,
    /// Which steps are visited.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub timestep_spacing: Spacing,
    /// Added to every visited step if the spacing is `leading`.
    pub steps_offset: usize,
    /// Whether DDIM's last step leads to the image (`alpha_bar` = 1) or only to the first noise level.
    pub set_alpha_to_one: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            clip_sample: true,
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: Spacing::Leading,
            steps_offset: 0,
            set_alpha_to_one: true,
        }
    }
}

fn write<S: Serializer>(spacing: &Spacing, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(spacing)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Spacing, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

impl Sampling {
    /// A message about the first setting outside its range.
    pub(crate) fn problem(&self) -> Option<String> {
        let (clip, ratio, most) = (
            self.clip_sample_range,
            self.dynamic_thresholding_ratio,
            self.sample_max_value,
        );
        let is_share = (0.0..=1.0).contains(&ratio);
        [
            ("clip_sample_range", "above 0", clip, clip > 0.0),
            ("dynamic_thresholding_ratio", "from 0 to 1", ratio, is_share),
            ("sample_max_value", "of at least 1", most, most >= 1.0),
        ]
        .into_iter()
        .find(|(_, _, value, fits)| !fits || !value.is_finite())
        .map(|(field, range, value, _)| {
            format!("{field}: expected a number {range}, found {value}")
        })
    }

    /// The steps of `full` that are sampled. A respacing of several sections lists its steps itself; all steps are visited without offset.
    ///
    /// # Errors
    /// A number of steps that the process does not have.
    pub(crate) fn respaced(
        &self,
        full: &Schedule,
        respacing: &Respacing,
    ) -> std::result::Result<Schedule, ScheduleError> {
        let n_steps = full.n_steps();
        let wanted = match respacing {
            Respacing::All => None,
            Respacing::Ddim(wanted) => Some(*wanted),
            Respacing::Sections(counts) => match counts[..] {
                [wanted] => Some(wanted),
                _ => None,
            },
        };
        let kept = match wanted {
            Some(wanted) => {
                let offset = self.steps_offset;
                self.timestep_spacing.indices(n_steps, wanted, offset)?
            }
            None => respacing.indices(n_steps)?,
        };
        let last = match full.alpha_bar().first() {
            Some(&first) if !self.set_alpha_to_one => first,
            _ => 1.0,
        };
        full.striding(&kept, wanted.map(|wanted| n_steps / wanted), last)
    }

    /// The predicted image as the next step takes it, `[B, C, H, W]`.
    fn clamp(&self, x0: &Tensor) -> Result<Tensor> {
        if self.thresholding {
            return self.threshold(x0);
        }
        match self.clip_sample {
            true => x0.clamp(-self.clip_sample_range, self.clip_sample_range),
            false => Ok(x0.clone()),
        }
    }

    /// Each image clamped to `-s..s` and divided by `s`, the quantile of its absolute values.
    ///
    /// Source: diffusers `_threshold_sample`.
    fn threshold(&self, x0: &Tensor) -> Result<Tensor> {
        let images = x0.detach().flatten_from(1)?.abs()?;
        let images = images.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let scales: Vec<f64> = images
            .into_iter()
            .map(|values| {
                let quantile = quantile(values, self.dynamic_thresholding_ratio);
                f64::from(quantile).max(1.0).min(self.sample_max_value)
            })
            .collect();
        let scales = Tensor::from_vec(scales, (x0.dim(0)?, 1, 1, 1), &Device::Cpu)?
            .to_dtype(x0.dtype())?
            .to_device(x0.device())?;
        let clamped = x0
            .broadcast_minimum(&scales)?
            .broadcast_maximum(&scales.neg()?)?;
        clamped.broadcast_div(&scales)
    }
}

/// A quantile with linear interpolation, in single precision like PyTorch's; NaN if a value is NaN.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank below the number of values"
)]
fn quantile(mut values: Vec<f32>, share: f64) -> f32 {
    if values.iter().any(|value| value.is_nan()) {
        return f32::NAN;
    }
    let Some(last) = values.len().checked_sub(1) else {
        return f32::NAN;
    };
    values.sort_unstable_by(f32::total_cmp);
    let rank = share as f32 * last as f32;
    let (low, high) = (
        values[rank as usize],
        values[(rank.ceil() as usize).min(last)],
    );
    // As PyTorch's `lerp` computes it.
    match rank.fract() {
        weight if weight < 0.5 => low + weight * (high - low),
        weight => high - (high - low) * (1.0 - weight),
    }
}

impl Diffusion {
    /// A predicted clean image as samplers use it: clamped as the process specifies with [`Clip::Yes`], unchanged with [`Clip::No`].
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn clamped(&self, x0: Tensor, clip: Clip) -> Result<Tensor> {
        match (clip, &self.sampling) {
            (Clip::No, _) => Ok(x0),
            (Clip::Yes, None) if self.unbounded => Ok(x0),
            (Clip::Yes, None) => x0.clamp(-1.0, 1.0),
            (Clip::Yes, Some(sampling)) => sampling.clamp(&x0),
        }
    }
}
