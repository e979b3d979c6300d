//! The settings of a translation, as they are recorded in `plan.toml` next to its images.

use super::options::{EnergyKind, TranslateOptions, TranslationMethod, WalkKind};
use crate::context::Context;
use crate::error::{Result, option};
use crate::model::recorded_form;
use sdft_diffusion::{Process, SigmaInterval};
use sdft_imaging::ImageSpec;
use sdft_models::LoadedModel;
use sdft_train::Precision;
use serde::{Deserialize, Serialize};

/// A translation with everything resolved; fields that the method does not use are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslatePlan {
    /// The method.
    pub method: TranslationMethod,
    /// The input folder or file.
    pub input: String,
    /// The longer side of the images that the model makes; inputs are centre-cropped and resized to them.
    pub image_size: usize,
    /// Absent where no noise is drawn.
    pub seed: Option<u64>,
    /// The file of the target model.
    pub model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub network_sha256: String,
    /// SHA-256 of the autoencoder of its latents; absent if it works on images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder_sha256: Option<String>,
    /// DDIB: the file of the source model.
    pub source_model: Option<String>,
    /// Its SHA-256.
    pub source_model_sha256: Option<String>,
    /// EGSDE: the file of the classifier.
    pub classifier: Option<String>,
    /// Its SHA-256.
    pub classifier_sha256: Option<String>,
    /// SDEdit: the file of the mask.
    pub mask: Option<String>,
    /// Its SHA-256.
    pub mask_sha256: Option<String>,
    /// The sampler's steps; absent where every step of the process is taken.
    pub steps: Option<String>,
    /// SDEdit and EGSDE: the steps through the process.
    pub walk: Option<WalkKind>,
    /// DDIM: share of fresh noise, 0 to 1.
    pub eta: Option<f64>,
    /// Whether predicted images are clamped to [-1, 1].
    pub clip: Option<bool>,
    /// EGSDE: the classifier's energy.
    pub specific: Option<EnergyKind>,
    /// EGSDE: the low-pass filter's energy.
    pub independent: Option<EnergyKind>,
    /// ILVR: the input is followed in steps above this one.
    pub free: Option<usize>,
    /// The strengths of each result, in the order of the sweep.
    pub variants: Vec<Variant>,
    /// The label of the class that the model is asked for; if absent, the null class of a class-conditional model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
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
    /// DDIB: the label of the class that the source model is asked for; if absent, its null class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_class: Option<u32>,
    /// Precision of feature maps.
    pub precision: Precision,
    /// The form of the images, if it is not the network's own in 8 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The models' process.
    pub process: Process,
}

impl TranslatePlan {
    /// Deterministic DDIM on ddim40 with one set of strengths, as in the paper, for images that are in no file. Without a precision of the
    /// context, a processor computes in f32, whichever it is.
    pub fn as_in_the_paper(
        method: TranslationMethod,
        walk: WalkKind,
        variant: Variant,
        model: &LoadedModel,
        context: &Context<'_>,
    ) -> Self {
        Self {
            method,
            input: String::new(),
            image_size: model.image.height.max(model.image.width),
            seed: None,
            model: String::new(),
            network_sha256: String::new(),
            autoencoder_sha256: None,
            source_model: None,
            source_model_sha256: None,
            classifier: None,
            classifier_sha256: None,
            mask: None,
            mask_sha256: None,
            steps: Some("ddim40".into()),
            walk: Some(walk),
            eta: Some(0.0),
            clip: Some(true),
            specific: Some(EnergyKind::Cosine),
            independent: Some(EnergyKind::NegL2),
            free: None,
            variants: vec![variant],
            class: None,
            guidance: None,
            guide: None,
            guide_sha256: None,
            guide_weight: None,
            guide_interval: None,
            source_class: None,
            precision: context.precision_or(method.precision(context.device.is_cuda())),
            image: recorded_form(model, &model.image),
            process: model.process.clone(),
        }
    }
}

/// One set of strengths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The name of its folder, as in `t0=0.3`; empty where there is only one.
    pub label: String,
    /// Share of the process that the image is noised through, 0 to 1.
    pub t0: Option<f64>,
    /// How often the image is noised and denoised.
    pub repeats: Option<usize>,
    /// Weight of the classifier's energy.
    pub lambda_s: Option<f64>,
    /// Weight of the low-pass filter's energy.
    pub lambda_i: Option<f64>,
    /// Factor of the low-pass filter.
    pub factor: Option<usize>,
}

/// Names that a sweep takes.
const SWEPT: [&str; 5] = ["t0", "lambda-s", "lambda-i", "factor", "repeats"];

impl Variant {
    /// The strengths without a sweep, for images of this height and width.
    pub(super) fn base(options: &TranslateOptions, size: [usize; 2]) -> Self {
        let walks = options.method.is_walk();
        let guided = options.method == TranslationMethod::Egsde;
        let filtered = guided || options.method == TranslationMethod::Ilvr;
        Self {
            label: String::new(),
            t0: walks.then_some(options.t0),
            repeats: walks.then_some(options.repeats),
            lambda_s: guided.then_some(options.lambda_s),
            lambda_i: guided.then_some(options.lambda_i),
            // The published 32 for 256 pixels, and the same share of other sizes.
            factor: filtered.then(|| options.factor.unwrap_or_else(|| published_factor(size))),
        }
    }

    /// Sets what is swept to one of its values.
    pub(super) fn swept(mut self, name: &str, text: &str) -> Result<Self> {
        let wrong = || {
            option(
                "sweep",
                format!("{name}: expected a number in its range, found {text:?}"),
            )
        };
        let real = || text.parse::<f64>().map_err(|_| wrong());
        let count = || match text.parse::<usize>() {
            Ok(n) if (1..=4096).contains(&n) => Ok(n),
            _ => Err(wrong()),
        };
        let unused = match name {
            "t0" => self.t0.replace(real()?).is_none(),
            "lambda-s" => self.lambda_s.replace(real()?).is_none(),
            "lambda-i" => self.lambda_i.replace(real()?).is_none(),
            "factor" => self.factor.replace(count()?).is_none(),
            "repeats" => self.repeats.replace(count()?).is_none(),
            _ => {
                return Err(option(
                    "sweep",
                    format!("{name}: expected one of {}", SWEPT.join(", ")),
                ));
            }
        };
        if unused {
            return Err(option(
                "sweep",
                format!("{name}: the method does not use it"),
            ));
        }
        self.label = format!("{name}={text}");
        Ok(self)
    }

    /// Fails unless every strength is in its range.
    pub(super) fn check(&self, size: [usize; 2]) -> Result<()> {
        if let Some(t0) = self.t0
            && !(0.0..=1.0).contains(&t0)
        {
            return Err(option(
                "t0",
                format!("{t0}: expected 0 (the input) to 1 (the whole process)"),
            ));
        }
        for (name, value) in [("lambda_s", self.lambda_s), ("lambda_i", self.lambda_i)] {
            if value.is_some_and(|v| !(v.is_finite() && v >= 0.0)) {
                return Err(option(
                    name,
                    format!(
                        "{}: expected a number, 0 or more",
                        value.unwrap_or_default()
                    ),
                ));
            }
        }
        if let Some(factor) = self.factor
            && !divides(factor, size)
        {
            let [height, width] = size;
            let sides = match height == width {
                true => format!("the model's image size {height}"),
                false => format!("both sides of the model's images, {height}x{width}"),
            };
            return Err(option(
                "factor",
                format!("{factor}: expected a divisor of {sides}"),
            ));
        }
        Ok(())
    }
}

/// An eighth of the shorter side, or the next smaller number that divides both sides.
fn published_factor(size: [usize; 2]) -> usize {
    let mut smaller = (1..=size[0].min(size[1]) / 8).rev();
    smaller.find(|factor| divides(*factor, size)).unwrap_or(1)
}

fn divides(factor: usize, size: [usize; 2]) -> bool {
    size.iter()
        .all(|side| factor <= *side && side.is_multiple_of(factor))
}
