//! Measurements of images: two sets, or pairs of inputs and outputs.

mod asked;
mod judged;
mod options;
mod pairs;
mod sets;

pub(crate) use pairs::no_tokenizer;

pub use options::{ClipModel, EvaluateOptions, PairPart, PairsOptions, SetsOptions, parse_range};
pub use pairs::{evaluate_pairs, read_lpips, serve_pairs};
pub use sets::{evaluate_sets, serve_sets};

use crate::choice::Choice;
use crate::context::{Context, f32_if_absent, is_f32};
use crate::error::{Result, option};
use options::is_range;
use sdft_eval::{Pairing, Report, SetFeatures};
use sdft_gallery::{Outputs, check_apart, check_folder, full_path};
use sdft_imaging::{Rgb8, encode_png};
use sdft_train::Precision;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The strip of generated images above the nearest real ones.
const NEIGHBOURS: &str = "neighbours.png";

/// The settings that decide a report, as they are recorded in `plan.toml` next to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluatePlan {
    /// The real and the generated images, or inputs and outputs.
    compared: Vec<String>,
    text: Vec<String>,
    #[serde(default, skip_serializing_if = "is_inception")]
    features: SetFeatures,
    resize: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intra_lpips: Option<String>,
    kid_subsets: usize,
    kid_size: u32,
    kid_seed: Option<u32>,
    neighbours: usize,
    size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<[f64; 2]>,
    pair_by: String,
    without: Vec<String>,
    lpips: String,
    clip: String,
    weights: Vec<String>,
    #[serde(default = "f32_if_absent", skip_serializing_if = "is_f32")]
    precision: Precision,
}

/// Plans of Inception are as they were before there was a choice.
fn is_inception(features: &SetFeatures) -> bool {
    *features == SetFeatures::Inception
}

impl EvaluatePlan {
    /// A plan with defaults for the other kind of comparison.
    fn new(
        sets: &SetsOptions,
        pairs: &PairsOptions,
        compared: [&Path; 2],
        common: &EvaluateOptions,
        precision: Precision,
    ) -> Self {
        let without = pairs.without.iter();
        Self {
            compared: compared
                .map(|path| full_path(&path.display().to_string()))
                .into(),
            text: pairs.text.iter().flatten().cloned().collect(),
            features: sets.features,
            resize: sets.resize.to_string(),
            intra_lpips: sets
                .intra_lpips
                .as_ref()
                .map(|path| full_path(&path.display().to_string())),
            kid_subsets: sets.kid_subsets,
            kid_size: sets.kid_size,
            kid_seed: sets.kid_seed,
            neighbours: sets.neighbours,
            size: pairs.size,
            range: common.range,
            pair_by: match pairs.pair_by {
                Pairing::Common => "common",
                other => other.name(),
            }
            .to_owned(),
            without: without.map(ToString::to_string).collect(),
            lpips: pairs.lpips.name().to_owned(),
            clip: pairs.clip.to_string(),
            weights: common.weights.arguments().to_vec(),
            precision,
        }
    }
}

/// A report and its folder.
pub struct Evaluation {
    /// The numbers.
    pub report: Report,
    strip: Option<Rgb8>,
    plan: EvaluatePlan,
    out: Option<PathBuf>,
    overwrite: bool,
}

impl Evaluation {
    /// Writes `report.json`, `report.csv` and, of two folders, `neighbours.png` to the folder of the options, and returns it; `None` if
    /// there is no such folder.
    ///
    /// # Errors
    /// The folder holds something else, or a file system error occurs.
    pub fn write(&self) -> Result<Option<&Path>> {
        let Some(out) = &self.out else {
            return Ok(None);
        };
        let mut outputs = Outputs::open(out, &self.plan, self.overwrite)?;
        let json = serde_json::to_string_pretty(&self.report.json())?;
        for (name, text) in [("report.json", json), ("report.csv", self.report.csv())] {
            outputs.put(name, "", text.as_bytes())?;
        }
        match &self.strip {
            Some(strip) => outputs.put(NEIGHBOURS, "", &encode_png(strip)?)?,
            None => outputs.forget(NEIGHBOURS)?,
        }
        Ok(Some(out))
    }
}

/// The precision of an evaluation's networks. `without` states why it can only be f32.
fn precision_of(without: Option<String>, context: &Context<'_>) -> Result<Precision> {
    match (without, context.precision) {
        (None, _) => Ok(context.fine_precision()),
        (Some(_), None | Some(Precision::Auto | Precision::F32)) => Ok(Precision::F32),
        (Some(reason), Some(other)) => {
            Err(option("precision", format!("{}: {reason}", other.name())))
        }
    }
}

/// Warns of numbers from rounded features.
fn warn_of_rounding(report: &mut Report, precision: Precision) {
    if precision == Precision::Bf16 {
        report.warnings.push(
            "the networks computed in bf16, which changes distances of sets by up to about 1 %; use --precision f32 for numbers to publish"
                .to_owned(),
        );
    }
}

/// Fails if the range is empty.
fn check_range(common: &EvaluateOptions) -> Result<()> {
    match common.range {
        Some([low, high]) if !is_range([low, high]) => Err(option(
            "range",
            format!("{low} to {high}: expected the lower number first"),
        )),
        _ => Ok(()),
    }
}

/// Fails if the report cannot be written. Called before anything is computed.
fn check_out(common: &EvaluateOptions, plan: &EvaluatePlan, measured: &[&Path]) -> Result<()> {
    let Some(out) = &common.out else {
        return Ok(());
    };
    check_folder(out, plan, common.overwrite)?;
    // The strip would be measured with the images the next time.
    for folder in measured.iter().filter(|path| path.is_dir()) {
        check_apart(out, folder)?;
    }
    Ok(())
}
