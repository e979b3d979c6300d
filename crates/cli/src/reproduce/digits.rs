//! The paper's claim in miniature: what each method still draws of the classes that the target set lacks.

use super::claim;
use super::editing::Edits;
use super::table::{Column, markdown};
use super::translation::Translations;
use crate::args::ReproduceArgs;
use crate::bridge::judge;
use crate::job::job;
use crate::runs::STOP;
use crate::train::{Job, load_model};
use crate::{INTERRUPTED, assets, config, console};
use anyhow::{Context, Result};
use candle_core::Tensor;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{DigitsScore, Extractor, aligned_distance, score_digits, tint};
use sdft_features::DigitsJudge;
use sdft_imaging::Rgb8;
use sdft_jobs::{SamplePlan, Sampler};
use sdft_metrics::{Features, KidOptions, Moments, Statistics, fid, mmd2_unbiased};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_train::{Ending, Plan, contact_sheet, to_images};
use serde_json::json;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Classes of the target set.
const PRESENT: [u8; 3] = [1, 4, 7];
/// Samples that are judged.
const SAMPLES: usize = 192;
const BATCH: usize = 64;
/// Samples in the picture.
const SHOWN: usize = 36;
/// Seed of their noise, the same for every model.
const NOISE_SEED: u64 = 1000;

/// One row of the table.
struct Method {
    label: &'static str,
    /// Over its samples in the picture; empty leaves them out.
    title: &'static str,
    preset: &'static str,
    /// Settings on top of the preset's.
    set: &'static [&'static str],
    /// Whether its models translate and edit, too.
    translates: bool,
}

const METHODS: [Method; 7] = [
    Method {
        label: "scratch",
        title: "scratch",
        preset: "digits-scratch",
        set: &[],
        translates: true,
    },
    Method {
        label: "naive",
        title: "naive",
        preset: "digits-naive",
        set: &[],
        translates: true,
    },
    Method {
        label: "naive, stopped at 50 steps",
        title: "naive 50 steps",
        preset: "digits-naive",
        set: &["loop.steps=50"],
        translates: true,
    },
    Method {
        label: "SDFT, lambda 5",
        title: "SDFT",
        preset: "digits-sdft",
        set: &[],
        translates: true,
    },
    Method {
        label: "SDFT without auxiliary input",
        title: "",
        preset: "digits-sdft",
        set: &["loss.lambda_aux=0.0"],
        translates: false,
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
    },
];

/// What the table says, for whoever reads only that.
const READING: &str = "\
coverage  share of samples of classes absent from the target set, in its style         higher is better
style     share of samples in the target's style; tint: how far the ground's colour went to the target's, 1 is there
aligned   distance to the source model's sample from the same noise                   lower is better
KID, FID  against the whole target domain, all ten classes, on the judge's features    lower is better
The rival of SDFT is naive fine-tuning stopped early: it keeps classes too, and goes on forgetting if it is not stopped. At
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

/// What is measured of one model.
struct Row {
    score: DigitsScore,
    aligned: f64,
    kid: f64,
    fid: f64,
    tint: f64,
    samples: Tensor,
}

pub(super) fn digits(args: &ReproduceArgs) -> Result<ExitCode> {
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| "runs/reproduce-digits".into());
    let _claimed = claim(args, &out)?;
    let judges = Judges::new()?;
    let source = draw(&load_model(assets::DIGITS_SOURCE, &LoadOptions::default())?)?;
    let mut table = vec![("source", vec![judges.measure(source.clone(), &source)?])];
    let mut sheets = vec![contact_sheet(
        &to_images(&source.narrow(0, 0, SHOWN)?)?,
        "source",
    )];
    let interrupted = || {
        console::line("interrupted; the same command goes on from here")?;
        Ok(ExitCode::from(INTERRUPTED))
    };
    let Some(mut translations) = Translations::new(&out)? else {
        return interrupted();
    };
    let mut edits = Edits::new(&out)?;
    if STOP.load(Ordering::Relaxed) {
        return interrupted();
    }
    for method in METHODS {
        let mut rows = Vec::new();
        let mut models = Vec::new();
        for seed in 0..args.seeds {
            let settings = method.set.iter().map(|set| set.replace(['.', '='], "-"));
            let parts: Vec<String> = std::iter::once(method.preset.to_owned())
                .chain(settings)
                .collect();
            let name = format!("{}-seed{seed}", parts.join("-"));
            let root = out.join(&name);
            let model = root.join("final.safetensors");
            if !model.is_file() {
                let mut plan = config::layers::<Plan>(&[method.preset.to_owned()])?;
                config::put(&mut plan, "seed", i64::try_from(seed)?);
                config::put(&mut plan, "name", name.as_str());
                for set in method.set {
                    config::set::<Plan>(&mut plan, set)?;
                }
                if let Ending::Interrupted { .. } = Job::from_table(plan)?.run_in(&root)? {
                    return interrupted();
                }
            }
            let name = model.display().to_string();
            let samples = draw(&load_model(&name, &LoadOptions::default())?)
                .with_context(|| format!("cannot sample {name}"))?;
            let row = judges.measure(samples, &source);
            rows.push(row.with_context(|| format!("samples of {name}"))?);
            models.push(name);
        }
        if method.translates {
            match translations.add(method.label, &models) {
                Err(_) if STOP.load(Ordering::Relaxed) => return interrupted(),
                added => added?,
            }
            match edits.add(method.label, &models) {
                Err(_) if STOP.load(Ordering::Relaxed) => return interrupted(),
                Ok(false) => return interrupted(),
                added => added.map(drop)?,
            }
        }
        if !method.title.is_empty() {
            let first = rows[0].samples.narrow(0, 0, SHOWN)?;
            sheets.push(contact_sheet(&to_images(&first)?, method.title));
        }
        table.push((method.label, rows));
    }
    let text = markdown("method", &COLUMNS, &table);
    console::line(&text)?;
    console::line(READING)?;
    let numbers: Vec<_> = table.iter().map(|(label, rows)| json!({ "method": label, "seeds": rows.iter().map(as_json).collect::<Vec<_>>() })).collect();
    let path = out.join("table.json");
    sdft_checkpoint::write_bytes_atomic(&path, serde_json::to_string_pretty(&numbers)?.as_bytes())?;
    sdft_checkpoint::write_bytes_atomic(&out.join("table.md"), text.as_bytes())?;
    let picture = out.join("grid.png");
    sdft_imaging::write_png(
        &picture,
        &sdft_imaging::side_by_side(&sheets, 8, [24, 24, 24]),
    )?;
    console::line(format_args!("table    {}", path.display()))?;
    console::line(format_args!("picture  {}\n", picture.display()))?;
    translations.finish(&out)?;
    console::line("")?;
    edits.finish(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// What samples are judged by.
struct Judges {
    judge: DigitsJudge,
    extractor: Extractor,
    /// All ten classes in the target's style.
    domain: Features,
    statistics: Statistics,
}

impl Judges {
    fn new() -> Result<Self> {
        let extractor = judge::extractor()?;
        let all = DigitsSource::new(Digits::embedded()?, Style::Ember, &[], usize::MAX)?;
        let images = (0..all.len())
            .map(|i| Ok(all.image(i)?))
            .collect::<Result<Vec<Rgb8>>>()?;
        let domain = Features::new(extractor.extract(&images)?, extractor.dim())?;
        Ok(Self {
            judge: judge::load()?,
            statistics: Moments::of(&domain)?.statistics()?,
            domain,
            extractor,
        })
    }

    fn measure(&self, samples: Tensor, source: &Tensor) -> Result<Row> {
        let images = to_images(&samples)?;
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

/// The samples that are judged.
fn draw(model: &LoadedModel) -> Result<Tensor> {
    let sampler = job("sample", |context| {
        let plan = SamplePlan::paper(model, "", NOISE_SEED, context)?;
        Sampler::new(plan, model, context)
    })?;
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
