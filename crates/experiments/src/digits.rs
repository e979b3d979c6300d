//! The paper's claim on digits: how many samples of classes missing from the target set each method still draws.

use crate::editing::Edits;
use crate::lock_folder;
use crate::table::{Column, GAP, Report, markdown, write_files};
use crate::translation::Translations;
use candle_core::Tensor;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{DigitsScore, Extractor, aligned_distance, score_digits, tint};
use sdft_features::DigitsJudge;
use sdft_imaging::{ImageSpec, Rgb8};
use sdft_jobs::{
    Context, DIGITS_SOURCE, Result, ResultExt, SamplePlan, Sampler, TRAINING, TrainJob, TrainPlan,
    judge_features, load_judge, load_model,
};
use sdft_metrics::{Features, KidOptions, Moments, Statistics, fid, mmd2_unbiased};
use sdft_models::{LoadOptions, LoadedModel, write_diffusers};
use sdft_settings::{layers, put, set};
use sdft_train::{Ending, contact_sheet, to_screens};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Classes of the target set.
const PRESENT: [u8; 3] = [1, 4, 7];
/// Number of samples to classify.
const SAMPLES: usize = 192;
const BATCH: usize = 64;
/// Samples in the picture.
const SHOWN: usize = 36;
/// Seed of their noise, the same for every model.
const NOISE_SEED: u64 = 1000;

/// One row of the table.
struct Method {
    label: &'static str,
    /// The title of its samples in the picture; without one they are not shown.
    title: &'static str,
    preset: &'static str,
    /// Settings on top of the preset's.
    set: &'static [&'static str],
    /// Whether its models are measured in translation and editing, too.
    translates: bool,
    /// Whether it starts from the source model as a `UNet2DModel` of diffusers.
    of_diffusers: bool,
}

const METHODS: [Method; 9] = [
    Method {
        label: "scratch",
        title: "scratch",
        preset: "digits-scratch",
        set: &[],
        translates: true,
        of_diffusers: false,
    },
    Method {
        label: "naive",
        title: "naive",
        preset: "digits-naive",
        set: &[],
        translates: true,
        of_diffusers: false,
    },
    Method {
        label: "naive, stopped at 50 steps",
        title: "naive 50 steps",
        preset: "digits-naive",
        set: &["loop.steps=50"],
        translates: true,
        of_diffusers: false,
    },
    Method {
        label: "SDFT, lambda 5",
        title: "SDFT",
        preset: "digits-sdft",
        set: &[],
        translates: true,
        of_diffusers: false,
    },
    Method {
        label: "SDFT without auxiliary input",
        title: "",
        preset: "digits-sdft",
        set: &["loss.lambda_aux=0.0"],
        translates: false,
        of_diffusers: false,
    },
    Method {
        label: "constant weight, lambda 0.1",
        title: "constant",
        preset: "digits-sdft",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=constant",
            "loss.weight_aux=constant",
        ],
        translates: false,
        of_diffusers: false,
    },
    Method {
        label: "Min-SNR-5 (eps form), lambda 0.1",
        title: "Min-SNR-5",
        preset: "digits-sdft",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=min-snr-5-eps",
            "loss.weight_aux=min-snr-5-eps",
        ],
        translates: false,
        of_diffusers: false,
    },
    Method {
        label: "naive, UNet2DModel",
        title: "",
        preset: "digits-naive",
        set: &[],
        translates: false,
        of_diffusers: true,
    },
    Method {
        label: "SDFT, lambda 5, UNet2DModel",
        title: "",
        preset: "digits-sdft",
        set: &[],
        translates: false,
        of_diffusers: true,
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
    ("coverage", 3, |r| r.score.coverage),
    ("style", 3, |r| r.score.style),
    ("tint", 2, |r| r.tint),
    ("classes", 1, |r| r.score.classes as f64),
    ("aligned", 2, |r| r.aligned),
    ("KID x1000", 0, |r| r.kid),
    ("FID", 1, |r| r.fid),
];

/// The measurements of one model.
struct Row {
    score: DigitsScore,
    aligned: f64,
    kid: f64,
    fid: f64,
    tint: f64,
    samples: Tensor,
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
    let out = &options.out;
    let _lock = lock_folder(out, "digits", None)?;
    let judges = Judges::new()?;
    let source = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
    let source = draw(&source, context)?;
    let mut table = vec![("source", vec![judges.measure(source.clone(), &source)?])];
    let mut sheets = vec![shown(&source, "source")?];
    let Some(mut translations) = Translations::new(out, context)? else {
        return Ok(None);
    };
    let mut edits = Edits::new(out, context)?;
    if context.is_stopped() {
        return Ok(None);
    }
    for method in METHODS {
        let Some(models) = train(&method, options, context)? else {
            return Ok(None);
        };
        let mut rows = Vec::new();
        for model in &models {
            let samples = load_model(model, &LoadOptions::default())
                .and_then(|loaded| draw(&loaded, context))
                .with_context(|| format!("cannot sample {model}"))?;
            let row = judges.measure(samples, &source);
            rows.push(row.with_context(|| format!("samples of {model}"))?);
        }
        if method.translates {
            let translated = translations.add(method.label, &models, context);
            let edited = translated.and_then(|()| edits.add(method.label, &models, context));
            match edited {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if context.is_stopped() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if !method.title.is_empty() {
            sheets.push(shown(&rows[0].samples, method.title)?);
        }
        table.push((method.label, rows));
    }
    let text = markdown("method", &COLUMNS, &table);
    let numbers: Vec<_> = table
        .iter()
        .map(|(label, rows)| {
            let seeds: Vec<_> = rows.iter().map(as_json).collect();
            json!({ "method": label, "seeds": seeds })
        })
        .collect();
    let picture = sdft_imaging::side_by_side(&sheets, 8, GAP);
    let stems = ["table", "grid"];
    let samples = write_files(out, stems, (text, READING), &numbers, Some(&picture))?;
    Ok(Some([
        samples,
        translations.finish(out)?,
        edits.finish(out)?,
    ]))
}

/// Trains the models of a method, one for each seed, unless they exist. Returns `None` if it was interrupted.
fn train(
    method: &Method,
    options: &DigitsOptions,
    context: &mut Context<'_>,
) -> Result<Option<Vec<String>>> {
    let mut models = Vec::new();
    for seed in 0..options.seeds {
        let settings = method.set.iter().map(|set| set.replace(['.', '='], "-"));
        let kind = method.of_diffusers.then(|| "unet2d".to_owned());
        let parts: Vec<String> = std::iter::once(method.preset.to_owned())
            .chain(settings)
            .chain(kind)
            .collect();
        let name = format!("{}-seed{seed}", parts.join("-"));
        let root = options.out.join(&name);
        let model = root.join("final.safetensors");
        if !model.is_file() {
            let mut table = layers::<TrainPlan>(&TRAINING, &[method.preset])?;
            put(&mut table, "seed", i64::try_from(seed).unwrap_or(i64::MAX));
            put(&mut table, "name", name);
            put(&mut table, "output.keep", 1);
            for assignment in method.set {
                set::<TrainPlan>(&mut table, assignment)?;
            }
            if method.of_diffusers {
                let source = source_of_diffusers(&options.out)?;
                put(&mut table, "source", source.display().to_string());
            }
            let job = TrainJob::from_settings(table, context)?;
            if let Ending::Interrupted { .. } = job.run_in(&root, context)? {
                return Ok(None);
            }
        }
        models.push(model.display().to_string());
    }
    Ok(Some(models))
}

/// The folder of the source model as a `UNet2DModel` of diffusers; it is written unless it exists.
fn source_of_diffusers(out: &Path) -> Result<PathBuf> {
    let folder = out.join("source-unet2d");
    if !folder.join("model_index.json").is_file() {
        let model = load_model(DIGITS_SOURCE, &LoadOptions::default())?;
        write_diffusers(&folder, &model.file(), &model.params, None)?;
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
struct Judges {
    judge: DigitsJudge,
    extractor: Extractor,
    /// All ten classes in the target's style.
    domain: Features,
    statistics: Statistics,
}

impl Judges {
    fn new() -> Result<Self> {
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

    fn measure(&self, samples: Tensor, source: &Tensor) -> Result<Row> {
        let images = to_screens(&samples, &form())?;
        let features = Features::new(self.extractor.extract(&images)?, self.extractor.dim())?;
        let statistics = Moments::of(&features)?.statistics()?;
        Ok(Row {
            score: score_digits(&self.judge, &samples, &PRESENT)?,
            aligned: aligned_distance(&self.judge, source, &samples)?,
            kid: 1e3 * mmd2_unbiased(&self.domain, &features, &KidOptions::default())?,
            fid: fid(&self.statistics, &statistics)?.value,
            tint: tint(&samples)?,
            samples,
        })
    }
}

/// The samples to measure.
fn draw(model: &LoadedModel, context: &mut Context<'_>) -> Result<Tensor> {
    let plan = SamplePlan::paper(model, "", NOISE_SEED, context)?;
    let sampler = Sampler::new(plan, model, context)?;
    let parts = (0..SAMPLES)
        .step_by(BATCH)
        .map(|first| sampler.draw(NOISE_SEED, first, BATCH, &mut |_| Ok(())))
        .collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "coverage": row.score.coverage,
        "style": row.score.style,
        "classes": row.score.classes,
        "aligned": row.aligned,
        "kid_x1000": row.kid,
        "fid": row.fid,
        "tint": row.tint,
        "n": row.score.n,
        "histogram": row.score.histogram,
    })
}
