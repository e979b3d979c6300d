//! The paper's claim on digits: how many samples of classes missing from the target set each method still draws.

use crate::draw::samples;
use crate::editing::Edits;
use crate::lock_folder;
use crate::methods::{Method, unless_stopped};
use crate::table::{Column, GAP, Report, markdown, numbers, write_files};
use crate::translation::Translations;
use candle_core::Tensor;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{Extractor, aligned_distance, score_digits, tint};
use sdft_features::DigitsJudge;
use sdft_imaging::{ImageSpec, Rgb8};
use sdft_jobs::{
    Context, DIGITS_SOURCE, Result, ResultExt, judge_features, load_judge, load_model,
};
use sdft_metrics::{Features, KidOptions, Moments, Statistics, fid, mmd2_unbiased};
use sdft_models::{LoadOptions, write_diffusers};
use sdft_train::{contact_sheet, to_screens};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Classes of the target set.
const PRESENT: [u8; 3] = [1, 4, 7];
/// Number of samples to classify.
const SAMPLES: usize = 192;
/// Steps of samples and edits.
pub(crate) const STEPS: usize = 40;
/// Samples in the picture.
const SHOWN: usize = 36;
/// Seed of their noise, the same for every model.
const NOISE_SEED: u64 = 1000;

const SCRATCH: Method = Method::of("scratch", "digits-scratch");
const NAIVE: Method = Method::of("naive", "digits-naive");
const SDFT: Method = Method::of("SDFT, lambda 5", "digits-sdft");

const METHODS: [Method; 9] = [
    Method {
        title: "scratch",
        translates: true,
        ..SCRATCH
    },
    Method {
        title: "naive",
        translates: true,
        ..NAIVE
    },
    Method {
        label: "naive, stopped at 50 steps",
        title: "naive 50 steps",
        set: &["loop.steps=50"],
        translates: true,
        ..NAIVE
    },
    Method {
        title: "SDFT",
        translates: true,
        ..SDFT
    },
    Method {
        label: "SDFT without auxiliary input",
        set: &["loss.lambda_aux=0.0"],
        ..SDFT
    },
    Method {
        label: "constant weight, lambda 0.1",
        title: "constant",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=constant",
            "loss.weight_aux=constant",
        ],
        ..SDFT
    },
    Method {
        label: "Min-SNR-5 (eps form), lambda 0.1",
        title: "Min-SNR-5",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=min-snr-5-eps",
            "loss.weight_aux=min-snr-5-eps",
        ],
        ..SDFT
    },
    Method {
        label: "naive, UNet2DModel",
        of_diffusers: true,
        ..NAIVE
    },
    Method {
        label: "SDFT, lambda 5, UNet2DModel",
        of_diffusers: true,
        ..SDFT
    },
];

/// How to read the table.
const READING: &str = "\
coverage  share of samples of classes absent from the target set, in its style         higher is better
style     share of samples in the target's style; tint: how far the background's colour moved to the target's, 1 is all the way
aligned   distance to the source model's sample from the same noise                   lower is better
KID, FID  against the whole target domain, all ten classes, on the judge's features    lower is better
The rival of SDFT is naive fine-tuning stopped early: it keeps classes too, and forgets them if it continues. At
gamma_aux = 50 the auxiliary input adds nothing that this miniature can measure. KID and FID are no headline here: with other
target classes they can worsen while coverage rises.";

const COLUMNS: [Column<Row>; 7] = [
    ("coverage", 3, |r| r.coverage),
    ("style", 3, |r| r.style),
    ("tint", 2, |r| r.tint),
    ("classes", 1, |r| r.classes as f64),
    ("aligned", 2, |r| r.aligned),
    ("KID x1000", 0, |r| r.kid_x1000),
    ("FID", 1, |r| r.fid),
];

/// The measurements of one model.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) coverage: f64,
    pub(crate) style: f64,
    pub(crate) classes: usize,
    pub(crate) aligned: f64,
    pub(crate) kid_x1000: f64,
    pub(crate) fid: f64,
    pub(crate) tint: f64,
    pub(crate) n: usize,
    pub(crate) histogram: [f64; 10],
}

/// Options of the experiment on digits.
#[derive(Clone, Debug)]
pub struct DigitsOptions {
    /// Runs of each method, one for each seed from 0 on.
    pub seeds: usize,
    /// The folder of runs, tables and pictures.
    pub out: PathBuf,
}

impl Default for DigitsOptions {
    fn default() -> Self {
        Self {
            seeds: 3,
            out: "runs/reproduce-digits".into(),
        }
    }
}

/// The paper's claim on the embedded digits: each method is trained on digits of three classes, and its models are measured as in
/// Tables 1 to 4. Returns three tables (samples, translation, editing), or `None` if the job was interrupted.
///
/// # Errors
/// A folder with other files, or an error of training, sampling or measuring.
pub fn reproduce_digits(
    options: &DigitsOptions,
    context: &mut Context<'_>,
) -> Result<Option<[Report; 3]>> {
    let done = run(options, context);
    unless_stopped(done, context)
}

fn run(options: &DigitsOptions, context: &mut Context<'_>) -> Result<[Report; 3]> {
    let out = &options.out;
    let _lock = lock_folder(out, "digits", None)?;
    let judges = Judges::new()?;
    let source = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
    let source = samples(&source, [SAMPLES, STEPS], NOISE_SEED, None, context)?;
    let mut table = vec![("source", vec![judges.measure(&source, &source)?])];
    let mut sheets = vec![shown(&source, "source")?];
    let mut translations = Translations::new(out, context)?;
    let mut edits = Edits::new(out, context)?;
    for method in METHODS {
        let more = match method.of_diffusers {
            true => vec![format!("source={}", json!(source_of_diffusers(out)?))],
            false => Vec::new(),
        };
        let models = (0..options.seeds)
            .map(|seed| {
                let model = method.train(seed, &more, out, context)?;
                Ok(model.display().to_string())
            })
            .collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for (seed, model) in models.iter().enumerate() {
            let drawn = load_model(model, &LoadOptions::default())
                .and_then(|loaded| samples(&loaded, [SAMPLES, STEPS], NOISE_SEED, None, context))
                .with_context(|| format!("cannot sample {model}"))?;
            let row = judges.measure(&drawn, &source);
            rows.push(row.with_context(|| format!("samples of {model}"))?);
            if seed == 0 && !method.title.is_empty() {
                sheets.push(shown(&drawn, method.title)?);
            }
        }
        if method.translates {
            translations.add(method.label, &models, context)?;
            edits.add(method.label, &models, context)?;
        }
        table.push((method.label, rows));
    }
    let text = markdown("method", &COLUMNS, &table);
    let picture = sdft_imaging::side_by_side(&sheets, 8, GAP);
    let numbers = numbers("method", &table);
    let stems = ["table", "grid"];
    let samples = write_files(out, stems, (text, READING), &numbers, Some(&picture))?;
    Ok([samples, translations.finish(out)?, edits.finish(out)?])
}

/// The folder of the source model as a `UNet2DModel` of diffusers; it is written unless it exists.
fn source_of_diffusers(out: &Path) -> Result<PathBuf> {
    let folder = out.join("source-unet2d");
    if !folder.join("model_index.json").is_file() {
        let model = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
        write_diffusers(&folder, &model.file(), &model.params, None, None)?;
    }
    Ok(folder)
}

/// The form of the digits.
pub(crate) fn form() -> ImageSpec {
    ImageSpec::rgb8(Digits::SIZE, Digits::SIZE)
}

/// The first samples under a title.
fn shown(samples: &Tensor, title: &str) -> Result<Rgb8> {
    let first = to_screens(&samples.narrow(0, 0, SHOWN)?, &form())?;
    Ok(contact_sheet(&first, title))
}

/// The networks and images that samples are compared with.
pub(crate) struct Judges {
    judge: DigitsJudge,
    extractor: Extractor,
    /// All ten classes in the target's style.
    domain: Features,
    statistics: Statistics,
}

impl Judges {
    /// The hash of the judge's weights.
    pub(crate) fn weights(&self) -> &str {
        self.extractor.weights()
    }

    pub(crate) fn new() -> Result<Self> {
        let extractor = judge_features()?;
        let all = DigitsSource::new(Digits::embedded()?, Style::Ember, &[], usize::MAX)?;
        let images = (0..all.len())
            .map(|i| Ok(all.screen(i)?))
            .collect::<Result<Vec<Rgb8>>>()?;
        let domain = Features::new(extractor.extract(&images)?, extractor.dim())?;
        Ok(Self {
            judge: load_judge()?,
            statistics: Moments::of(&domain)?.statistics()?,
            domain,
            extractor,
        })
    }

    pub(crate) fn measure(&self, samples: &Tensor, source: &Tensor) -> Result<Row> {
        let images = to_screens(samples, &form())?;
        let features = Features::new(self.extractor.extract(&images)?, self.extractor.dim())?;
        let statistics = Moments::of(&features)?.statistics()?;
        let score = score_digits(&self.judge, samples, &PRESENT)?;
        Ok(Row {
            coverage: score.coverage,
            style: score.style,
            classes: score.classes,
            aligned: aligned_distance(&self.judge, source, samples)?,
            kid_x1000: 1e3 * mmd2_unbiased(&self.domain, &features, &KidOptions::default())?,
            fid: fid(&self.statistics, &statistics)?.value,
            tint: tint(samples)?,
            n: score.n,
            histogram: score.histogram,
        })
    }
}
