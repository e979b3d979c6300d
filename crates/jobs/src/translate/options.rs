//! The options of a translation.

use super::plan::Variant;
use crate::choice::{Choice, by_name};
use crate::error::{Result, option};
use crate::guide::GuideOptions;
use crate::model::check_seed;
use sdft_models::LoadOptions;
use sdft_train::{Precision, Size};
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

impl TranslationMethod {
    /// The precision if the caller names none: the fast one of the device, except for DDIB, whose inversion amplifies rounding: f32, on a
    /// GPU TF32.
    pub(super) fn precision(self, on_gpu: bool) -> Precision {
        match (self, on_gpu) {
            (Self::Ddib, false) => Precision::F32,
            (Self::Ddib, true) => Precision::Tf32,
            _ => Precision::Auto,
        }
    }
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

/// Options of a translation. Fields that the method does not use are ignored.
#[derive(Clone, Debug)]
pub struct TranslateOptions {
    /// The method.
    pub method: TranslationMethod,
    /// The model of the target domain: a file, a run folder, or the name of an embedded model.
    pub model: String,
    /// Settings that the model's file does not state.
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
    /// EGSDE and ILVR: factor of the low-pass filter; an eighth of the image's shorter side if `None`, which is the published 32 at 256.
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
    /// The class that the model is asked for, by name or number; if `None`, its null class.
    pub class: Option<String>,
    /// The scale of classifier-free guidance; 1 is none. Other scales need a class and a model with a null class.
    pub guidance: Option<f64>,
    /// A model that the results are guided away from; DDIB's way to noise has no guide.
    pub guide: Option<GuideOptions>,
    /// DDIB: the class that the source model is asked for; if `None`, its null class. The way to noise has no guidance.
    pub source_class: Option<String>,
    /// Height and width of the images in pixels; the model's own if `None`.
    pub size: Option<Size>,
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
            class: None,
            guidance: None,
            guide: None,
            source_class: None,
            size: None,
            seed: 0,
            batch: None,
            overwrite: false,
        }
    }
}

impl TranslateOptions {
    /// The strengths of each result for images of this height and width, in the order of the sweep.
    ///
    /// # Errors
    /// A strength is out of its range, or the sweep cannot be read.
    pub fn variants(&self, size: [usize; 2]) -> Result<Vec<Variant>> {
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
        if let Some(guide) = &self.guide {
            guide.check()?;
        }
        check_seed(self.seed)
    }
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
            return Err(option("sweep", format!("{sweep}: {text} is given twice")));
        }
        all.push(variant);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::TranslationMethod::{Egsde, Ilvr, Sdedit};
    use super::*;
    use serde::{Deserialize, Serialize};

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
    fn only_inversions_have_a_precision_of_their_own() {
        for on_gpu in [false, true] {
            for method in [Sdedit, Egsde, Ilvr] {
                assert_eq!(method.precision(on_gpu), Precision::Auto);
            }
        }
        assert_eq!(TranslationMethod::Ddib.precision(false), Precision::F32);
        assert_eq!(TranslationMethod::Ddib.precision(true), Precision::Tf32);
    }

    #[test]
    fn a_sweep_is_one_variant_per_value() {
        let all = sweep(Sdedit, "t0=0.3, 0.5").variants([256; 2]).unwrap();
        let seen: Vec<_> = all.iter().map(|v| (v.label.as_str(), v.t0)).collect();
        assert_eq!(seen, [("t0=0.3", Some(0.3)), ("t0=0.5", Some(0.5))]);
        assert_eq!(all[0].factor, None);
    }

    #[test]
    fn the_filter_keeps_the_published_share_of_the_image() {
        for (size, factor) in [(256, 32), (64, 8), (16, 2), (28, 2), (4, 1)] {
            let all = options(Egsde).variants([size; 2]).unwrap();
            assert_eq!(all[0].factor, Some(factor));
        }
        for (size, factor) in [
            ([256, 128], 16),
            ([24, 16], 2),
            ([40, 24], 2),
            ([48, 80], 4),
        ] {
            let all = options(Egsde).variants(size).unwrap();
            assert_eq!(all[0].factor, Some(factor), "{size:?}");
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
            (sweep(Sdedit, "t0=0.3,x"), "in its range, found \"x\""),
            (sweep(Sdedit, "t0=0.3,0.3"), "twice"),
            (sweep(Sdedit, "t1=0.3"), "expected one of t0"),
            (sweep(Sdedit, "factor=4"), "does not use it"),
            (sweep(Sdedit, "repeats=0"), "in its range, found \"0\""),
        ] {
            let found = options
                .check()
                .and_then(|()| options.variants([256; 2]).map(drop));
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
