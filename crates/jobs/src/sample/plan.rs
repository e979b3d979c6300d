//! The settings of samples, as they are recorded in `plan.toml` next to them.

use crate::choice::{Choice, by_name};
use crate::condition::names_of_classes;
use crate::context::Context;
use crate::error::{Error, Result, usage};
use crate::model::recorded_form;
use sdft_diffusion::{Process, SigmaInterval};
use sdft_gallery::full_path;
use sdft_imaging::ImageSpec;
use sdft_models::LoadedModel;
use sdft_train::Precision;
use serde::{Deserialize, Serialize};

/// A sampler of diffusion models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerKind {
    /// DDIM, deterministic unless `eta` is above 0.
    Ddim,
    /// DDPM's ancestral sampling.
    Ddpm,
    /// EDM's second-order sampler, with churn if that is given; for a flow, Heun's method in its own time.
    Heun,
    /// DPM-Solver++(2M).
    Dpm,
    /// Euler's method in even steps of the time of a flow; of any model.
    Euler,
}

impl Choice for SamplerKind {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Ddim, "ddim", "deterministic unless --eta is above 0"),
        (Self::Ddpm, "ddpm", "ancestral sampling"),
        (
            Self::Heun,
            "heun",
            "second order, two evaluations a step: EDM's sampler, or in the time of a flow",
        ),
        (
            Self::Dpm,
            "dpm",
            "DPM-Solver++(2M), good images in few steps",
        ),
        (
            Self::Euler,
            "euler",
            "first order, in even steps of the time of a flow",
        ),
    ];
}

impl SamplerKind {
    /// The usual sampler of a model: Heun's for a continuous process, DDIM otherwise.
    pub fn usual(process: &Process) -> Self {
        match process.continuous {
            Some(_) => Self::Heun,
            None => Self::Ddim,
        }
    }

    /// Its usual steps.
    pub fn usual_steps(self) -> &'static str {
        match self {
            Self::Ddim | Self::Ddpm => "ddim40",
            Self::Heun => "18",
            Self::Dpm => "20",
            Self::Euler => "50",
        }
    }
}

by_name!(SamplerKind);

/// The fresh noise that Heun's sampler adds (EDM's Algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// How much noise all steps add, 0 or more.
    pub s_churn: f64,
    /// The smallest noise level at which it is added.
    pub s_min: f64,
    /// The largest noise level at which it is added.
    pub s_max: f64,
    /// The standard deviation of the noise.
    pub s_noise: f64,
}

impl std::str::FromStr for Churn {
    type Err = Error;

    /// `S_CHURN`, or `S_CHURN,S_MIN,S_MAX,S_NOISE`.
    fn from_str(text: &str) -> Result<Self> {
        let expected = || {
            usage(format!(
                "{text}: expected S_CHURN or S_CHURN,S_MIN,S_MAX,S_NOISE, as in 40,0.05,50,1.003"
            ))
        };
        let numbers: Vec<f64> = text
            .split(',')
            .map(|number| number.trim().parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| expected())?;
        let (s_churn, s_min, s_max, s_noise) = match numbers[..] {
            [churn] => (churn, 0.0, f64::INFINITY, 1.0),
            [churn, min, max, noise] => (churn, min, max, noise),
            _ => return Err(expected()),
        };
        let are_valid = s_churn.is_finite() && s_noise.is_finite() && s_min <= s_max;
        match are_valid && s_churn >= 0.0 && s_noise >= 0.0 && s_min >= 0.0 {
            true => Ok(Self {
                s_churn,
                s_min,
                s_max,
                s_noise,
            }),
            false => Err(usage(format!(
                "{text}: expected numbers from 0, and S_MIN up to S_MAX"
            ))),
        }
    }
}

/// The settings that decide the samples in a folder, apart from their number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplePlan {
    /// The model's file.
    pub model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub network_sha256: String,
    /// SHA-256 of the autoencoder of its latents; absent if it works on images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder_sha256: Option<String>,
    /// The longer side of the images in pixels.
    pub image_size: usize,
    /// Seed; image `i` depends on the seed and on `i` only.
    pub seed: u64,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps, as in `ddim40`, or their number.
    pub steps: String,
    /// DDIM only: share of fresh noise, 0 to 1.
    pub eta: Option<f64>,
    /// Heun's sampler only: fresh noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// The share of the process at which samples begin, above 0 up to 1.
    pub start: f64,
    /// Whether predicted images are clamped to [-1, 1].
    pub clip: bool,
    /// The label of every image's class; if absent, image `i` of a class-conditional model is of class `i` mod the number of classes.
    pub class: Option<u32>,
    /// The names of the classes by label, without the null class. If `class` is given, only names that are not the labels are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The scale of classifier-free guidance, if it is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// The file of the model that images are guided away from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<String>,
    /// Its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_sha256: Option<String>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_weight: Option<f64>,
    /// The noise levels at which it takes part; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_interval: Option<SigmaInterval>,
    /// Precision of feature maps.
    pub precision: Precision,
    /// The form of the images, if it is not the network's own in 8 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The model's process.
    pub process: Process,
}

impl SamplePlan {
    /// 40 steps of deterministic DDIM, as in the paper.
    ///
    /// # Errors
    /// The network cannot be hashed.
    pub fn paper(
        model: &LoadedModel,
        name: &str,
        seed: u64,
        context: &Context<'_>,
    ) -> Result<Self> {
        Ok(Self {
            model: full_path(name),
            network_sha256: model.network_sha256()?,
            autoencoder_sha256: model.autoencoder_sha256(),
            image_size: model.image.height.max(model.image.width),
            seed,
            sampler: SamplerKind::Ddim,
            steps: "ddim40".into(),
            eta: Some(0.0),
            churn: None,
            start: 1.0,
            clip: true,
            class: None,
            classes: names_of_classes(model, None),
            guidance: None,
            guide: None,
            guide_sha256: None,
            guide_weight: None,
            guide_interval: None,
            precision: context.precision_or(Precision::Auto),
            image: recorded_form(model, &model.image),
            process: model.process.clone(),
        })
    }
}
