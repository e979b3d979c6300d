//! Guidance of a model away from another model, such as its source model.

use crate::context::{Context, Runtime};
use crate::error::{Result, option};
use crate::model::{check_same_noise, load_partner};
use candle_core::Tensor;
use sdft_diffusion::{Denoiser, Diffusion, GuidedBy, Prediction, SigmaInterval, TimeUnit};
use sdft_gallery::full_path;
use sdft_models::{LoadedModel, ModelError, Target, adapt};
use sdft_train::Source;

/// The usual weight of a guide.
const WEIGHT: f64 = 1.5;

/// A second model that images are guided away from (Domain Guidance): `guide + weight (model - guide)`.
#[derive(Clone, Debug, PartialEq)]
pub struct GuideOptions {
    /// The guide, usually the source model that the model was fine-tuned from: a file, a run folder, a folder of diffusers, or the name of
    /// an embedded model.
    pub model: String,
    /// The weight, 0 or more: 0 is the guide alone, and with 1 there is no guide.
    pub weight: f64,
    /// The noise levels at which the guide takes part; all if `None`.
    pub interval: Option<SigmaInterval>,
}

impl Default for GuideOptions {
    /// No model yet, and a weight of 1.5 at all noise levels.
    fn default() -> Self {
        Self {
            model: String::new(),
            weight: WEIGHT,
            interval: None,
        }
    }
}

impl GuideOptions {
    /// Checks everything that depends on no file.
    ///
    /// # Errors
    /// A value out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        let weight = self.weight;
        if !weight.is_finite() || weight < 0.0 {
            return Err(option(
                "guide_weight",
                format!("{weight}: expected 0 or more; 0 is the guide alone, and 1 no guide"),
            ));
        }
        match self.interval {
            Some(SigmaInterval { low, high }) if !(low >= 0.0 && low < high) => Err(option(
                "guide_interval",
                format!(
                    "{low},{high}: expected two noise levels, 0 or more, the smaller one first"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A guide on a device, for [`Sampler::new`](crate::Sampler::new) and [`TranslationModels`](crate::TranslationModels).
pub struct Guide {
    /// Its file.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its weight.
    pub weight: f64,
    /// The noise levels at which it takes part; all if `None`.
    pub interval: Option<SigmaInterval>,
    /// The network, with its label for each label of the model.
    source: Source,
    /// The time that it is called with: steps, sigma or tau.
    pub(crate) time: TimeUnit,
}

impl Guide {
    /// Loads the guide of `model` for states of a shape, `[C, H, W]`; `None` if there is none or its weight is 1. It is called with `time` if
    /// that is sigma or tau and its own unit, otherwise with steps.
    ///
    /// # Errors
    /// A file that cannot be read, another noise schedule than the model's, images or classes that the guide cannot be fitted to.
    pub fn load(
        options: Option<&GuideOptions>,
        model: &LoadedModel,
        [channels, height, width]: [usize; 3],
        runtime: &Runtime,
        time: TimeUnit,
        context: &mut Context<'_>,
    ) -> Result<Option<Self>> {
        let Some(options) = options.filter(|options| options.weight != 1.0) else {
            return Ok(None);
        };
        let (path, guide) = load_partner(&options.model, model, context)?;
        check_same_noise("guide", &path, &guide, model)?;
        let target = Target {
            channels,
            classes: model.classes.clone(),
            size: [height, width],
        };
        let fitted = adapt(&guide, &target).map_err(|error| match error {
            ModelError::Size { .. } | ModelError::Adapt { .. } => {
                option("guide", format!("{path}: {error}"))
            }
            error => error.into(),
        });
        let frozen = fitted?.frozen;
        let (weight, interval) = (options.weight, options.interval);
        let at = interval.map_or_else(String::new, |SigmaInterval { low, high }| {
            format!(" at noise levels above {low} up to {high}")
        });
        context.notes([format!("guided by {path} with weight {weight}{at}")]);
        if let Some(learned) = frozen.channels {
            context.notes([format!(
                "{path}: has learned the first {learned} of {channels} channels; the model alone predicts the others"
            )]);
        }
        let process = &guide.process;
        let network = runtime.frozen(&frozen, process.prediction_type)?;
        let own = process.continuous.map(|continuous| continuous.time_unit());
        let (network, time) = match own {
            Some(own) if own == time => (network, own),
            _ => (process.in_steps(network)?, TimeUnit::Steps),
        };
        Ok(Some(Self {
            path: full_path(&path),
            sha256: guide.sha256,
            weight,
            interval,
            source: Source::Conditional {
                network,
                labels: frozen.labels,
                takes_augment: false,
                channels: frozen.channels,
            },
            time,
        }))
    }

    /// The guided prediction of `model` for images with these labels.
    pub(crate) fn around<'a>(
        &'a self,
        model: &'a dyn Denoiser,
        labels: Option<&'a [u32]>,
        diffusion: &'a Diffusion,
    ) -> impl Denoiser + 'a {
        move |xt: &Tensor, t: &[f32]| -> candle_core::Result<Prediction> {
            let guide = |xt: &Tensor, t: &[f32]| self.source.predict(xt, t, labels, None);
            let guided = GuidedBy {
                model,
                guide: &guide,
                weight: self.weight,
                interval: self.interval,
                channels: self.source.channels(),
                diffusion,
            };
            guided.predict(xt, t)
        }
    }
}
