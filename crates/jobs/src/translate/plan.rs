//! The settings of a translation, as options and as they are recorded in `plan.toml` next to its images.

use crate::choice::{Choice, by_name};
use crate::error::{Result, option};
use crate::model::check_seed;
use sdft_models::{LoadOptions, LoadedModel, Process};
use sdft_train::Precision;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A method of translating images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationMethod {
    /// SDEdit: noise the image up to t0, and denoise it by the model.
    Sdedit,
    /// EGSDE: SDEdit, guided by a classifier away from the source domain and by a low-pass filter along the input.
    Egsde,
    /// DDIB: to noise by the source model, back by the target model.
    Ddib,
    /// ILVR: from noise, following the low-passed input.
    Ilvr,
}

impl Choice for TranslationMethod {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Sdedit,
            "sdedit",
            "Noise the image up to t0, let the model denoise it",
        ),
        (
            Self::Egsde,
            "egsde",
            "SDEdit, guided by a classifier away from the source domain and by a low-pass filter along the input",
        ),
        (
            Self::Ddib,
            "ddib",
            "To noise with the source model, back with the target model",
        ),
        (
            Self::Ilvr,
            "ilvr",
            "From noise, following the input's low-passed image",
        ),
    ];
}

impl TranslationMethod {
    /// Whether the input is noised by a part of the process and denoised: SDEdit and EGSDE.
    pub fn is_walk(self) -> bool {
        matches!(self, Self::Sdedit | Self::Egsde)
    }
}

/// The steps that SDEdit and EGSDE take through the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkKind {
    /// The part of the sampler's steps up to t0, by DDIM.
    Part,
    /// All of the sampler's steps between 0 and t0, by DDIM.
    Inside,
    /// Every step, unclamped, as SDEdit and EGSDE were published.
    Ancestral,
}

impl Choice for WalkKind {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Part,
            "part",
            "The part of the steps up to t0, by DDIM",
        ),
        (
            Self::Inside,
            "inside",
            "All of the steps between 0 and t0, by DDIM",
        ),
        (
            Self::Ancestral,
            "ancestral",
            "Every step, unclamped, as SDEdit and EGSDE were published",
        ),
    ];
}

/// A distance that one of EGSDE's energies uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnergyKind {
    /// Cosine similarity.
    Cosine,
    /// Negative squared distance.
    NegL2,
}

impl Choice for EnergyKind {
    const ALL: &'static [(Self, &'static str, &'static str)] =
        &[(Self::Cosine, "cosine", ""), (Self::NegL2, "neg-l2", "")];
}

by_name!(TranslationMethod, WalkKind, EnergyKind);

/// Which images to translate, how, and where the results go. Fields that the method does not use are ignored.
#[derive(Clone, Debug)]
pub struct TranslateOptions {
    /// The method.
    pub method: TranslationMethod,
    /// The model of the target domain: a file, a run folder, or the name of an embedded model.
    pub model: String,
    /// What the model's file does not say.
    pub load: LoadOptions,
    /// The images: a file, or a folder with its subfolders.
    pub input: PathBuf,
    /// The folder of the results, which keep their inputs' names.
    pub out: PathBuf,
    /// EGSDE: the classifier of noised images.
    pub classifier: Option<String>,
    /// DDIB: the model of the source domain.
    pub source_model: Option<String>,
    /// SDEdit: an image whose light parts are kept and whose dark parts are edited.
    pub mask: Option<PathBuf>,
    /// SDEdit and EGSDE: the share of the process that the image is noised through, 0 to 1.
    pub t0: f64,
    /// SDEdit and EGSDE: how often the image is noised and denoised.
    pub repeats: usize,
    /// EGSDE: weight of the classifier's energy.
    pub lambda_s: f64,
    /// EGSDE: weight of the low-pass filter's energy.
    pub lambda_i: f64,
    /// EGSDE and ILVR: factor of the low-pass filter; an eighth of the image's side if `None`, which is the published 32 at 256.
    pub factor: Option<usize>,
    /// Several values of `t0`, `lambda-s`, `lambda-i`, `factor` or `repeats`, as in `t0=0.3,0.4`; each gets a folder.
    pub sweep: Option<String>,
    /// SDEdit and EGSDE: the steps through the process.
    pub walk: WalkKind,
    /// The sampler's steps; `ddim40` if `None`, `100` for ILVR.
    pub steps: Option<String>,
    /// DDIM: share of fresh noise, 0 to 1.
    pub eta: f64,
    /// Whether predicted images are clamped to [-1, 1].
    pub clip: bool,
    /// EGSDE: the classifier's energy.
    pub specific: EnergyKind,
    /// EGSDE: the low-pass filter's energy.
    pub independent: EnergyKind,
    /// ILVR: the input is followed in steps above this one.
    pub free: usize,
    /// Seed; an image's noise depends on the seed and on the image's path inside the input folder only.
    pub seed: u64,
    /// Images per batch; as many as suit their size if `None`.
    pub batch: Option<usize>,
    /// Whether images of other settings are replaced.
    pub overwrite: bool,
}

impl Default for TranslateOptions {
    /// SDEdit as in the paper, up to half of the process, into `translated`.
    fn default() -> Self {
        Self {
            method: TranslationMethod::Sdedit,
            model: String::new(),
            load: LoadOptions::default(),
            input: PathBuf::new(),
            out: PathBuf::from("translated"),
            classifier: None,
            source_model: None,
            mask: None,
            t0: 0.5,
            repeats: 1,
            lambda_s: 500.0,
            lambda_i: 2.0,
            factor: None,
            sweep: None,
            walk: WalkKind::Part,
            steps: None,
            eta: 0.0,
            clip: true,
            specific: EnergyKind::Cosine,
            independent: EnergyKind::NegL2,
            free: 20,
            seed: 0,
            batch: None,
            overwrite: false,
        }
    }
}

impl TranslateOptions {
    /// The strengths of each result for images of `size` pixels, in the order of the sweep.
    ///
    /// # Errors
    /// A strength is out of its range, or the sweep cannot be read.
    pub fn variants(&self, size: usize) -> Result<Vec<Variant>> {
        let base = Variant::base(self, size);
        let all = match &self.sweep {
            None => vec![base],
            Some(sweep) => swept(&base, sweep)?,
        };
        for variant in &all {
            variant.check(size)?;
        }
        Ok(all)
    }

    /// Checks everything that depends on neither files nor the size of images.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(option("eta", format!("{}: expected 0 to 1", self.eta)));
        }
        for (name, n) in [
            ("repeats", self.repeats),
            ("batch", self.batch.unwrap_or(1)),
        ] {
            if n == 0 {
                return Err(option(name, "0: expected 1 or more"));
            }
        }
        check_seed(self.seed)
    }
}

/// A translation with everything resolved; fields that the method does not use are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslatePlan {
    /// The method.
    pub method: TranslationMethod,
    /// The input folder or file.
    pub input: String,
    /// Side of the images that the model makes; inputs are centre-cropped and resized to it.
    pub image_size: usize,
    /// Absent where no noise is drawn.
    pub seed: Option<u64>,
    /// The file of the target model.
    pub model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub network_sha256: String,
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
    /// Precision of feature maps.
    pub precision: Precision,
    /// The models' process.
    pub process: Process,
}

impl TranslatePlan {
    /// Deterministic DDIM on ddim40 with one set of strengths, as in the paper, for images that are in no file.
    pub fn as_in_the_paper(
        method: TranslationMethod,
        walk: WalkKind,
        variant: Variant,
        model: &LoadedModel,
    ) -> Self {
        Self {
            method,
            input: String::new(),
            image_size: model.config.image_size,
            seed: None,
            model: String::new(),
            network_sha256: String::new(),
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
            precision: Precision::F32,
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
    /// The strengths without a sweep, for images of `size` pixels.
    fn base(options: &TranslateOptions, size: usize) -> Self {
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
    fn swept(mut self, name: &str, text: &str) -> Result<Self> {
        let wrong = || {
            option(
                "sweep",
                format!("{name}: {text} is no number that it can take"),
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
    fn check(&self, size: usize) -> Result<()> {
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
            && (factor > size || !size.is_multiple_of(factor))
        {
            return Err(option(
                "factor",
                format!("{factor}: expected a divisor of the model's image size {size}"),
            ));
        }
        Ok(())
    }
}

/// An eighth of the side, or the next smaller number that divides it.
fn published_factor(size: usize) -> usize {
    let smaller = (1..=size / 8).rev();
    smaller
        .into_iter()
        .find(|f| size.is_multiple_of(*f))
        .unwrap_or(1)
}

/// One variant for each value of a sweep.
fn swept(base: &Variant, sweep: &str) -> Result<Vec<Variant>> {
    let Some((name, values)) = sweep.split_once('=') else {
        return Err(option(
            "sweep",
            format!("{sweep}: expected NAME=A,B,.. as in t0=0.3,0.4,0.5"),
        ));
    };
    let name = name.trim().replace('_', "-");
    let mut all: Vec<Variant> = Vec::new();
    for text in values.split(',') {
        let variant = base.clone().swept(&name, text.trim())?;
        if all.iter().any(|known| known.label == variant.label) {
            return Err(option("sweep", format!("{sweep}: {text} is there twice")));
        }
        all.push(variant);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::TranslationMethod::{Egsde, Ilvr, Sdedit};
    use super::*;

    fn options(method: TranslationMethod) -> TranslateOptions {
        TranslateOptions {
            method,
            ..TranslateOptions::default()
        }
    }

    fn sweep(method: TranslationMethod, sweep: &str) -> TranslateOptions {
        TranslateOptions {
            sweep: Some(sweep.to_owned()),
            ..options(method)
        }
    }

    #[test]
    fn a_sweep_is_one_variant_per_value() {
        let all = sweep(Sdedit, "t0=0.3, 0.5").variants(256).unwrap();
        let seen: Vec<_> = all.iter().map(|v| (v.label.as_str(), v.t0)).collect();
        assert_eq!(seen, [("t0=0.3", Some(0.3)), ("t0=0.5", Some(0.5))]);
        assert_eq!(all[0].factor, None);
    }

    #[test]
    fn the_filter_keeps_the_published_share_of_the_image() {
        for (size, factor) in [(256, 32), (64, 8), (16, 2), (28, 2), (4, 1)] {
            let all = options(Egsde).variants(size).unwrap();
            assert_eq!(all[0].factor, Some(factor));
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let base = options;
        for (options, words) in [
            (
                TranslateOptions {
                    t0: 1.5,
                    ..base(Sdedit)
                },
                "t0 1.5",
            ),
            (
                TranslateOptions {
                    t0: f64::NAN,
                    ..base(Sdedit)
                },
                "t0 NaN",
            ),
            (
                TranslateOptions {
                    factor: Some(48),
                    ..base(Ilvr)
                },
                "factor 48",
            ),
            (
                TranslateOptions {
                    lambda_s: f64::INFINITY,
                    ..base(Egsde)
                },
                "lambda_s inf",
            ),
            (
                TranslateOptions {
                    eta: 2.0,
                    ..base(Sdedit)
                },
                "eta 2",
            ),
            (
                TranslateOptions {
                    repeats: 0,
                    ..base(Sdedit)
                },
                "repeats 0",
            ),
            (sweep(Sdedit, "t0"), "sweep t0: expected NAME=A,B"),
            (sweep(Sdedit, "t0=0.3,x"), "x is no number"),
            (sweep(Sdedit, "t0=0.3,0.3"), "twice"),
            (sweep(Sdedit, "t1=0.3"), "expected one of t0"),
            (sweep(Sdedit, "factor=4"), "does not use it"),
            (sweep(Sdedit, "repeats=0"), "0 is no number"),
        ] {
            let found = options
                .check()
                .and_then(|()| options.variants(256).map(drop));
            let error = found.unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(words),
                "{error}"
            );
        }
    }

    #[test]
    fn choices_are_written_by_name() {
        #[derive(Serialize, Deserialize)]
        struct Table {
            energy: EnergyKind,
        }
        let text = toml::to_string(&Table {
            energy: EnergyKind::NegL2,
        })
        .unwrap();
        assert_eq!(text, "energy = \"neg-l2\"\n");
        let read: Table = toml::from_str(&text).unwrap();
        assert_eq!(read.energy, EnergyKind::NegL2);
        let error = "l2".parse::<EnergyKind>().unwrap_err().to_string();
        assert_eq!(error, "l2: expected one of cosine, neg-l2");
    }
}
