//! What decides a translation, as it stands in `plan.toml` next to its images.

use crate::args::{EnergyArg, TranslateArgs, TranslatorArg, WalkArg, at_least_one};
use crate::usage;
use anyhow::Result;
use sdft_models::{LoadedModel, Process};
use sdft_train::Precision;
use serde::{Deserialize, Serialize};

/// A translation with everything resolved; fields that the method has no use for are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TranslatePlan {
    pub(crate) method: TranslatorArg,
    pub(crate) input: String,
    /// Side of the images that the model makes; inputs are centre-cropped and resized to it.
    pub(crate) image_size: usize,
    /// Absent where no noise is drawn.
    pub(crate) seed: Option<u64>,
    pub(crate) model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub(crate) network_sha256: String,
    pub(crate) source_model: Option<String>,
    pub(crate) source_model_sha256: Option<String>,
    pub(crate) classifier: Option<String>,
    pub(crate) classifier_sha256: Option<String>,
    pub(crate) mask: Option<String>,
    pub(crate) mask_sha256: Option<String>,
    /// The sampler's steps; absent where every step is walked.
    pub(crate) steps: Option<String>,
    pub(crate) walk: Option<WalkArg>,
    pub(crate) eta: Option<f64>,
    pub(crate) clip: Option<bool>,
    pub(crate) specific: Option<EnergyArg>,
    pub(crate) independent: Option<EnergyArg>,
    pub(crate) free: Option<usize>,
    /// The strengths of each result, in the order of the sweep.
    pub(crate) variants: Vec<Variant>,
    /// Numbers of the feature maps.
    pub(crate) precision: Precision,
    pub(crate) process: Process,
}

impl TranslatePlan {
    /// Deterministic DDIM on ddim40 with one set of strengths, as the paper translates.
    pub(crate) fn of(
        method: TranslatorArg,
        walk: WalkArg,
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
            specific: Some(EnergyArg::Cosine),
            independent: Some(EnergyArg::NegL2),
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
pub(crate) struct Variant {
    /// What it is called: its folder and its title, `t0=0.3`; empty where there is only one.
    pub(crate) label: String,
    pub(crate) t0: Option<f64>,
    pub(crate) repeats: Option<usize>,
    pub(crate) lambda_s: Option<f64>,
    pub(crate) lambda_i: Option<f64>,
    pub(crate) factor: Option<usize>,
}

/// What can be swept.
const SWEPT: [&str; 5] = ["t0", "lambda-s", "lambda-i", "factor", "repeats"];

impl Variant {
    /// The strengths that the arguments give, without a sweep, for images of `size` pixels.
    fn base(args: &TranslateArgs, method: TranslatorArg, size: usize) -> Self {
        let walks = matches!(method, TranslatorArg::Sdedit | TranslatorArg::Egsde);
        let led = method == TranslatorArg::Egsde;
        let filtered = led || method == TranslatorArg::Ilvr;
        Self {
            label: String::new(),
            t0: walks.then_some(args.t0),
            repeats: walks.then_some(args.repeats),
            lambda_s: led.then_some(args.lambda_s),
            lambda_i: led.then_some(args.lambda_i),
            // The published 32 for 256 pixels, and the same share of other sizes.
            factor: filtered.then(|| args.factor.unwrap_or_else(|| published_factor(size))),
        }
    }

    /// Sets what is swept to one of its values.
    fn swept(mut self, name: &str, text: &str) -> Result<Self> {
        let wrong = || {
            usage(format!(
                "--sweep {name}: {text} is no number that it can take"
            ))
        };
        let real = || text.parse::<f64>().map_err(|_| wrong());
        let count = || at_least_one(text).map_err(|_| wrong());
        let unused = match name {
            "t0" => self.t0.replace(real()?).is_none(),
            "lambda-s" => self.lambda_s.replace(real()?).is_none(),
            "lambda-i" => self.lambda_i.replace(real()?).is_none(),
            "factor" => self.factor.replace(count()?).is_none(),
            "repeats" => self.repeats.replace(count()?).is_none(),
            _ => {
                return Err(usage(format!(
                    "--sweep {name}: expected one of {}",
                    SWEPT.join(", ")
                )));
            }
        };
        if unused {
            return Err(usage(format!("--sweep {name}: the method does not use it")));
        }
        self.label = format!("{name}={text}");
        Ok(self)
    }

    /// Fails unless every strength is in its range.
    fn check(&self, size: usize) -> Result<()> {
        if let Some(t0) = self.t0
            && !(0.0..=1.0).contains(&t0)
        {
            return Err(usage(format!(
                "--t0 {t0}: expected 0 (the input) to 1 (the whole process)"
            )));
        }
        for (option, value) in [("--lambda-s", self.lambda_s), ("--lambda-i", self.lambda_i)] {
            if value.is_some_and(|v| !(v.is_finite() && v >= 0.0)) {
                return Err(usage(format!(
                    "{option} {}: expected a number, 0 or more",
                    value.unwrap_or_default()
                )));
            }
        }
        if let Some(factor) = self.factor
            && (factor > size || !size.is_multiple_of(factor))
        {
            return Err(usage(format!(
                "--factor {factor}: expected a divisor of the model's image size {size}"
            )));
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

/// All variants that the arguments ask for.
pub(crate) fn variants(
    args: &TranslateArgs,
    method: TranslatorArg,
    size: usize,
) -> Result<Vec<Variant>> {
    let base = Variant::base(args, method, size);
    let all = match &args.sweep {
        None => vec![base],
        Some(sweep) => {
            let Some((name, values)) = sweep.split_once('=') else {
                return Err(usage(format!(
                    "--sweep {sweep}: expected NAME=A,B,.. as in --sweep t0=0.3,0.4,0.5"
                )));
            };
            let name = name.trim().replace('_', "-");
            let mut all: Vec<Variant> = Vec::new();
            for text in values.split(',') {
                let variant = base.clone().swept(&name, text.trim())?;
                if all.iter().any(|known| known.label == variant.label) {
                    return Err(usage(format!("--sweep {sweep}: {text} is there twice")));
                }
                all.push(variant);
            }
            all
        }
    };
    for variant in &all {
        variant.check(size)?;
    }
    Ok(all)
}

/// Fails on options that the method has no use for.
pub(crate) fn refuse_unused(args: &TranslateArgs, method: TranslatorArg) -> Result<()> {
    use TranslatorArg::{Ddib, Egsde, Ilvr, Sdedit};
    let walks: &[_] = &[Sdedit, Egsde];
    let options: [(&str, bool, &[TranslatorArg]); 14] = [
        ("--seed", args.seed != 0, &[Sdedit, Egsde, Ilvr]),
        ("--t0", args.t0 != 0.5, walks),
        ("--walk", args.walk != WalkArg::Part, walks),
        ("--eta", args.eta != 0.0, walks),
        ("--repeats", args.repeats != 1, walks),
        ("--mask", args.mask.is_some(), &[Sdedit]),
        ("--classifier", args.classifier.is_some(), &[Egsde]),
        ("--lambda-s", args.lambda_s != 500.0, &[Egsde]),
        ("--lambda-i", args.lambda_i != 2.0, &[Egsde]),
        ("--specific", args.specific != EnergyArg::Cosine, &[Egsde]),
        (
            "--independent",
            args.independent != EnergyArg::NegL2,
            &[Egsde],
        ),
        ("--factor", args.factor.is_some(), &[Egsde, Ilvr]),
        ("--free", args.free != 20, &[Ilvr]),
        ("--source-model", args.source_model.is_some(), &[Ddib]),
    ];
    if args
        .sweep
        .as_ref()
        .is_some_and(|s| s.trim_start().starts_with("t0"))
        && args.t0 != 0.5
    {
        return Err(usage(
            "--t0 has no effect where --sweep goes through its values",
        ));
    }
    for (option, given, methods) in options {
        if given && !methods.contains(&method) {
            return Err(usage(format!(
                "{option} has no effect on --method {}",
                format!("{method:?}").to_lowercase()
            )));
        }
    }
    if args.walk == WalkArg::Ancestral {
        let given = [
            ("--steps", args.steps.is_some()),
            ("--eta", args.eta != 0.0),
            ("--no-clip", args.no_clip),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(usage(format!(
                "{option} has no effect on --walk ancestral, which walks every step without clamping"
            )));
        }
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(usage(format!("--eta {}: expected 0 to 1", args.eta)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(more: &[&str]) -> TranslateArgs {
        let all = ["sdft", "translate", "--model", "m", "--input", "i"];
        match Cli::try_parse_from(all.iter().chain(more)).unwrap().verb {
            Verb::Translate(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sweep_is_one_variant_per_value() {
        let args = args(&["--sweep", "t0=0.3, 0.5"]);
        let all = variants(&args, TranslatorArg::Sdedit, 256).unwrap();
        let seen: Vec<_> = all.iter().map(|v| (v.label.as_str(), v.t0)).collect();
        assert_eq!(seen, [("t0=0.3", Some(0.3)), ("t0=0.5", Some(0.5))]);
        assert_eq!(all[0].factor, None);
    }

    #[test]
    fn the_filter_keeps_the_published_share_of_the_image() {
        for (size, factor) in [(256, 32), (64, 8), (16, 2), (28, 2), (4, 1)] {
            let all = variants(&args(&[]), TranslatorArg::Egsde, size).unwrap();
            assert_eq!(all[0].factor, Some(factor));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |more: &[&str], method| {
            let args = args(more);
            refuse_unused(&args, method)
                .and_then(|()| variants(&args, method, 256).map(drop))
                .unwrap_err()
                .to_string()
        };
        use TranslatorArg::{Ddib, Egsde, Ilvr, Sdedit};
        for (more, method, words) in [
            (&["--t0", "1.5"][..], Sdedit, "--t0 1.5"),
            (&["--t0", "nan"], Sdedit, "--t0 NaN"),
            (
                &["--t0", "0.3"],
                Ddib,
                "--t0 has no effect on --method ddib",
            ),
            (&["--seed", "1"], Ddib, "--seed has no effect"),
            (&["--mask", "x.png"], Egsde, "--mask has no effect"),
            (&["--factor", "48"], Ilvr, "--factor 48"),
            (&["--lambda-s", "inf"], Egsde, "--lambda-s inf"),
            (&["--sweep", "t0"], Sdedit, "--sweep t0: expected NAME=A,B"),
            (&["--sweep", "t0=0.3,x"], Sdedit, "x is no number"),
            (&["--sweep", "t0=0.3,0.3"], Sdedit, "twice"),
            (&["--sweep", "t1=0.3"], Sdedit, "expected one of t0"),
            (&["--sweep", "factor=4"], Sdedit, "does not use it"),
            (&["--sweep", "repeats=0"], Sdedit, "0 is no number"),
            (
                &["--walk", "ancestral", "--steps", "ddim40"],
                Sdedit,
                "--steps has no effect",
            ),
            (&["--eta", "2"], Sdedit, "--eta 2"),
        ] {
            let error = refused(more, method);
            assert!(error.contains(words), "{error}");
        }
    }
}
