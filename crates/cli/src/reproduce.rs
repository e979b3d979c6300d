//! The paper's claim in miniature: what each method still draws of the classes that the target set lacks.

use crate::args::{Experiment, ReproduceArgs};
use crate::train::{Job, load_model};
use crate::{INTERRUPTED, assets, config, console, judge};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_eval::{DigitsScore, aligned_distance, score_digits};
use sdft_features::DigitsJudge;
use sdft_models::{LoadOptions, LoadedModel};
use sdft_samplers::{Ddim, SeededNoise, sample_ddim};
use sdft_train::{Ending, contact_sheet, to_images};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

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
    /// A setting on top of the preset's, if any.
    set: &'static str,
}

const METHODS: [Method; 5] = [
    Method {
        label: "scratch",
        title: "scratch",
        preset: "digits-scratch",
        set: "",
    },
    Method {
        label: "naive",
        title: "naive",
        preset: "digits-naive",
        set: "",
    },
    Method {
        label: "naive, stopped at 50 steps",
        title: "naive 50 steps",
        preset: "digits-naive",
        set: "loop.steps=50",
    },
    Method {
        label: "SDFT",
        title: "SDFT",
        preset: "digits-sdft",
        set: "",
    },
    Method {
        label: "SDFT without auxiliary input",
        title: "",
        preset: "digits-sdft",
        set: "loss.lambda_aux=0.0",
    },
];

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    match args.experiment {
        Experiment::Digits => digits(args),
    }
}

/// What is measured of one model.
struct Row {
    score: DigitsScore,
    aligned: f64,
    samples: Tensor,
}

fn digits(args: &ReproduceArgs) -> Result<ExitCode> {
    let judge = judge::load()?;
    let source = draw(&load_model(assets::DIGITS_SOURCE, &LoadOptions::default())?)?;
    let mut table = Vec::new();
    let mut sheets = vec![contact_sheet(
        &to_images(&source.narrow(0, 0, SHOWN)?)?,
        "source",
    )];
    for method in METHODS {
        let mut rows = Vec::new();
        for seed in 0..args.seeds {
            let setting = method.set.replace(['.', '='], "-");
            let parts = [method.preset, setting.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty());
            let name = format!("{}-seed{seed}", parts.collect::<Vec<_>>().join("-"));
            let root = args.out.join(&name);
            let model = root.join("final.safetensors");
            if !model.is_file() {
                let mut plan = config::layers(&[method.preset.to_owned()])?;
                config::put(&mut plan, "seed", i64::try_from(seed)?);
                config::put(&mut plan, "name", name.as_str());
                if !method.set.is_empty() {
                    config::set(&mut plan, method.set)?;
                }
                if let Ending::Interrupted { .. } = Job::from_table(plan)?.run_in(&root)? {
                    console::line("interrupted; the same command goes on from here")?;
                    return Ok(ExitCode::from(INTERRUPTED));
                }
            }
            rows.push(measure(&judge, &model, &source)?);
        }
        if !method.title.is_empty() {
            let first = rows[0].samples.narrow(0, 0, SHOWN)?;
            sheets.push(contact_sheet(&to_images(&first)?, method.title));
        }
        table.push((method.label, rows));
    }
    let text = markdown(&table);
    console::line(&text)?;
    let numbers: Vec<_> = table.iter().map(|(label, rows)| json!({ "method": label, "seeds": rows.iter().map(as_json).collect::<Vec<_>>() })).collect();
    let path = args.out.join("table.json");
    sdft_checkpoint::write_bytes_atomic(&path, serde_json::to_string_pretty(&numbers)?.as_bytes())?;
    sdft_checkpoint::write_bytes_atomic(&args.out.join("table.md"), text.as_bytes())?;
    let picture = args.out.join("grid.png");
    sdft_imaging::write_png(
        &picture,
        &sdft_imaging::side_by_side(&sheets, 8, [24, 24, 24]),
    )?;
    console::line(format_args!("table    {}", path.display()))?;
    console::line(format_args!("picture  {}", picture.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(judge: &DigitsJudge, model: &Path, source: &Tensor) -> Result<Row> {
    let name = model.display().to_string();
    let samples = draw(&load_model(&name, &LoadOptions::default())?)
        .with_context(|| format!("cannot sample {name}"))?;
    Ok(Row {
        score: score_digits(judge, &samples, &PRESENT)?,
        aligned: aligned_distance(judge, source, &samples)?,
        samples,
    })
}

/// Samples as the paper draws them: 40 steps of deterministic DDIM.
fn draw(model: &LoadedModel) -> Result<Tensor> {
    let unet = Unet::load(&model.params, &model.config)?;
    let diffusion = model
        .process
        .diffusion(model.config.learns_variance(), &"ddim40".parse()?)?;
    let side = model.config.image_size;
    let mut parts = Vec::new();
    for first in (0..SAMPLES).step_by(BATCH) {
        let mut noise = SeededNoise::new(NOISE_SEED, first as u64);
        let x = noise.start(&[BATCH, 3, side, side], &Device::Cpu)?;
        parts.push(sample_ddim(
            &diffusion,
            &unet,
            &x,
            &Ddim::default(),
            &mut noise,
            &mut |_| Ok(()),
        )?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "coverage": row.score.coverage,
        "style": row.score.style,
        "classes": row.score.classes,
        "aligned": row.aligned,
        "n": row.score.n,
        "histogram": row.score.histogram,
    })
}

fn markdown(table: &[(&str, Vec<Row>)]) -> String {
    let mut out = String::from(
        "| method | coverage | style | classes | distance to the source |\n|---|---|---|---|---|\n",
    );
    for (label, rows) in table {
        let cell = |value: &dyn Fn(&Row) -> f64, digits: usize| {
            let values: Vec<f64> = rows.iter().map(value).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!("{mean:.digits$} ({low:.digits$} to {high:.digits$})")
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| {label} | {} | {} | {} | {} |",
            cell(&|r| r.score.coverage, 3),
            cell(&|r| r.score.style, 3),
            cell(&|r| r.score.classes as f64, 1),
            cell(&|r| r.aligned, 2)
        );
    }
    out
}
