//! The paper's tables on real data: what is missing is said before anything starts, and what is finished is not repeated.

use super::claim;
use super::figures::{Row, Table};
use crate::args::{ReproduceArgs, TargetArg};
use crate::job::job;
use crate::model::model_file;
use crate::train::load_source;
use crate::{INTERRUPTED, console, usage};
use anyhow::{Context, Result, bail};
use sdft_eval::{
    Extractor, FeatureCache, ImageSet, PairNets, Pairing, Report, SetOptions, View, compare_pairs,
    compare_sets, of_files, pair_up,
};
use sdft_features::{LpipsNet, Network};
use sdft_jobs::{Files, Weights, read_lpips, sample_as_in_the_paper};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Samples of each model for FID and KID, and of them for the distance to the source model's.
const SAMPLES: usize = 10_000;
const ALIGNED: usize = 2_000;
/// Seed of their noise.
const SEED: u64 = 0;

/// What a table needs, and what of it is not there.
pub(super) struct Needs<'a> {
    table: &'a Table,
    args: &'a ReproduceArgs,
    rows: BTreeMap<&'a str, PathBuf>,
    weights: Weights,
    missing: Vec<String>,
}

impl<'a> Needs<'a> {
    pub(super) fn new(args: &'a ReproduceArgs, table: &'a Table) -> Result<Self> {
        let names = || Self::rows_of(args, table).map(|row| row.name);
        if names().next().is_none() {
            return Err(usage(format!(
                "{}: the paper has it for the other target only; give --target metfaces",
                table.name
            )));
        }
        let mut rows = BTreeMap::new();
        for given in &args.row {
            let found = given
                .split_once('=')
                .and_then(|(name, path)| Some((names().find(|known| *known == name)?, path)));
            let Some((name, path)) = found else {
                let all: Vec<&str> = names().collect();
                return Err(usage(format!(
                    "--row {given}: expected ROW=PATH with one of the rows {}",
                    all.join(", ")
                )));
            };
            rows.insert(name, PathBuf::from(path));
        }
        Ok(Self {
            table,
            args,
            rows,
            weights: Weights::parse(&args.weights)?,
            missing: Vec::new(),
        })
    }

    pub(super) fn rows_of(
        args: &'a ReproduceArgs,
        table: &'a Table,
    ) -> impl Iterator<Item = &'a Row> {
        let target = args.target;
        table.rows.iter().filter(move |row| row.target == target)
    }

    fn path(&mut self, path: Option<&Path>, option: &str, what: &str) -> PathBuf {
        match path {
            Some(path) if path.exists() => return path.to_owned(),
            Some(path) => self.missing.push(format!(
                "{option} {}: no such file or folder ({what})",
                path.display()
            )),
            None => self.missing.push(format!("{option}: {what}")),
        }
        PathBuf::new()
    }

    pub(super) fn network(&mut self, network: Network) -> Option<Files> {
        let found = self
            .weights
            .of(network, &format!("give --weights {}=FILE", network.name()));
        found
            .map_err(|error| self.missing.push(format!("{error:#}")))
            .ok()
    }

    /// The trained model of a row.
    pub(super) fn model(&mut self, row: &Row) -> PathBuf {
        let what = format!(
            "a run of 80,000 steps: cargo xtask train --config {}-sdft --data DIR {}",
            self.target(),
            row.made_by
        );
        let given = self.rows.get(row.name).cloned();
        let option = format!("--row {}=RUN", row.name);
        let path = self.path(given.as_deref(), &option, &what);
        if path.join("plan.toml").is_file() && !path.join("final.safetensors").is_file() {
            self.missing.push(format!(
                "--row {}={}: this run is not finished; cargo xtask train --resume {1}",
                row.name,
                path.display()
            ));
        }
        path
    }

    fn target(&self) -> &'static str {
        match self.args.target {
            TargetArg::Metfaces => "metfaces",
            TargetArg::Aahq => "aahq",
        }
    }

    /// All images of the target domain, as `kind` of place.
    pub(super) fn target_images(&mut self, kind: &str) -> PathBuf {
        let of = match self.args.target {
            TargetArg::Metfaces => {
                "of all 1,336 MetFaces images; huggan/metfaces on the Hub has them as parquet tables, github.com/NVlabs/metfaces-dataset as files"
            }
            TargetArg::Aahq => {
                "of the entire AAHQ, about 25,000 images (github.com/onion-liu/aahq-dataset)"
            }
        };
        let what = format!("{kind} {of}");
        self.path(self.args.data.as_deref(), "--data", &what)
    }

    /// Ends with the list of what is missing, if anything is.
    pub(super) fn all_there(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.missing.iter().map(|m| format!("- {m}")).collect();
        bail!(
            "{} ({}) cannot start, {} things are missing:\n{}",
            self.table.name,
            self.table.what,
            list.len(),
            list.join("\n")
        )
    }

    pub(super) fn out(&self) -> PathBuf {
        let own = format!("runs/reproduce-{}-{}", self.table.name, self.target());
        self.args.out.clone().unwrap_or_else(|| own.into())
    }
}

/// Tables 3 and 4: samples of models.
pub(super) fn samples_table(args: &ReproduceArgs, table: &Table) -> Result<ExitCode> {
    let mut needs = Needs::new(args, table)?;
    let source = needs.path(
        args.source.as_deref(),
        "--source",
        "the source model, ffhq_p2.pt of P2-weighting, or as a stand-in: hf download deepinv/diffunet diffusion_ffhq_10m.pt",
    );
    let data = needs.target_images("a folder, or an .npz of their images (arr_0),");
    let rows: Vec<&Row> = Needs::rows_of(args, table).collect();
    let models: Vec<PathBuf> = rows.iter().map(|row| needs.model(row)).collect();
    let inception = needs.network(Network::Inception);
    let lpips = needs.network(Network::Lpips(LpipsNet::Alex));
    needs.all_there()?;
    let (Some(inception), Some(lpips)) = (inception, lpips) else {
        bail!("the networks' weights are not there");
    };
    let out = needs.out();
    let _claimed = claim(args, &out)?;
    let (n, aligned) = match args.limit {
        Some(limit) => (limit as usize, ALIGNED.min(limit as usize)),
        None => (SAMPLES, ALIGNED),
    };
    let mut realism = Realism::open(args, &inception, &data, &out)?;
    let nets = PairNets {
        lpips: Some(read_lpips(LpipsNet::Alex, &lpips)?),
        ..PairNets::default()
    };
    let sample = |model: &Path, name: &str, n: usize| -> Result<Option<PathBuf>> {
        let file = model_file(&model.display().to_string())?;
        let folder = out.join("samples").join(name);
        let loaded = load_source(&file, "", Map::new(), Map::new())?;
        let whole = job("sample", |context| {
            sample_as_in_the_paper(&loaded, &file, &folder, n, SEED, context)
        })
        .with_context(|| format!("sampling {file}"))?;
        Ok(whole.then_some(folder))
    };
    let interrupted = || {
        console::line("interrupted; the same command goes on from here")?;
        Ok(ExitCode::from(INTERRUPTED))
    };
    let Some(from) = sample(&source, "source", aligned)? else {
        return interrupted();
    };
    let mut results = Vec::new();
    for (row, model) in rows.into_iter().zip(&models) {
        let Some(folder) = sample(model, row.name, n)? else {
            return interrupted();
        };
        let mut files = sdft_data::list_images(&folder)?;
        files.truncate(n);
        let sets = realism.of(&folder, files)?;
        let mut pairs = pair_up(&from, &folder, Pairing::Common)?;
        pairs.truncate(aligned);
        let near = compare_pairs(&pairs, None, &nets, &mut |_, _| {})?;
        let values = vec![
            value(&sets, "FID"),
            value(&sets, "KID x1000"),
            value(&near, "LPIPS"),
        ];
        results.push(Measured { row, n, values });
    }
    finish(&needs, &out, &results)
}

/// Table 1: outputs made from inputs.
pub(super) fn pairs_table(args: &ReproduceArgs, table: &Table) -> Result<ExitCode> {
    let mut needs = Needs::new(args, table)?;
    let inputs = needs.path(
        args.inputs.as_deref(),
        "--inputs",
        "a folder of 10,000 FFHQ images at 256x256 (LIAGM/FFHQ_datasets on the Hub has all as FFHQ_256.zip)",
    );
    let rows: Vec<&Row> = Needs::rows_of(args, table).collect();
    let mut outputs = Vec::new();
    for row in &rows {
        let given = needs.rows.get(row.name).cloned();
        let option = format!("--row {}=DIR", row.name);
        outputs.push(needs.path(given.as_deref(), &option, row.made_by));
    }
    let data = needs.target_images("a folder, or an .npz of their images (arr_0),");
    let lpips = needs.network(Network::Lpips(LpipsNet::Alex));
    let inception = needs.network(Network::Inception);
    needs.all_there()?;
    let (Some(lpips), Some(inception)) = (lpips, inception) else {
        bail!("the networks' weights are not there");
    };
    let out = needs.out();
    let _claimed = claim(args, &out)?;
    let nets = PairNets {
        lpips: Some(read_lpips(LpipsNet::Alex, &lpips)?),
        ..PairNets::default()
    };
    let mut realism = Realism::open(args, &inception, &data, &out)?;
    let limit = args.limit.map_or(SAMPLES, |limit| limit as usize);
    let mut results = Vec::new();
    for (row, folder) in rows.into_iter().zip(&outputs) {
        let mut pairs = pair_up(&inputs, folder, Pairing::Common)?;
        pairs.truncate(limit);
        let n = pairs.len();
        let report = compare_pairs(&pairs, Some(256), &nets, &mut |_, _| {})?;
        let files = pairs.iter().map(|p| (p.name.clone(), p.output.clone()));
        let sets = realism.of(folder, files.collect())?;
        let values = vec![
            // As EGSDE's evaluation averages it.
            value(&report, "PSNR, EGSDE"),
            value(&report, "SSIM"),
            value(&report, "LPIPS"),
            value(&sets, "FID"),
            value(&sets, "KID x1000"),
        ];
        results.push(Measured { row, n, values });
    }
    finish(&needs, &out, &results)
}

/// A row of a finished table.
pub(super) struct Measured<'a> {
    pub(super) row: &'a Row,
    /// Images or pairs behind it.
    pub(super) n: usize,
    pub(super) values: Vec<f64>,
}

/// Compares folders with the target domain.
struct Realism {
    extractor: Extractor,
    cache: FeatureCache,
    target: ImageSet,
}

impl Realism {
    fn open(args: &ReproduceArgs, files: &Files, data: &Path, out: &Path) -> Result<Self> {
        let extractor = Extractor::read(View::Inception(args.resize), &files.weights)?;
        let folder = out.join("features");
        let mut cache = FeatureCache::open(&folder, &extractor.describe(), extractor.dim())?;
        let target = ImageSet::open(data, &extractor, &mut cache, &mut |_, _| {})?;
        if target.features.is_none() {
            bail!(
                "{}: KID needs the images, not their statistics",
                data.display()
            );
        }
        Ok(Self {
            extractor,
            cache,
            target,
        })
    }

    fn of(&mut self, folder: &Path, files: Vec<(String, PathBuf)>) -> Result<Report> {
        let (features, _) = of_files(&files, &self.extractor, &mut self.cache, &mut |_, _| {})?;
        let fake = ImageSet::of_features(folder.display().to_string(), files, features)?;
        let (report, _) = compare_sets(&self.target, &fake, &SetOptions::default())?;
        for warning in &report.warnings {
            console::note(&format!("{}: {warning}", folder.display()));
        }
        Ok(report)
    }
}

pub(super) fn value(report: &Report, name: &str) -> f64 {
    let found = report.measures.iter().find(|m| m.name == name);
    found.map_or(f64::NAN, |m| m.value)
}

/// Prints the table, ours beside the paper's, and writes it.
pub(super) fn finish(needs: &Needs<'_>, out: &Path, results: &[Measured<'_>]) -> Result<ExitCode> {
    let columns = needs.table.columns;
    let mut text = format!("{}: {}\n\n| row | n |", needs.table.name, needs.table.what);
    // Writing to a string does not fail.
    for column in columns {
        let _ = write!(text, " {column} | paper |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|---|".repeat(columns.len()));
    for Measured { row, n, values } in results {
        let _ = write!(text, "| {} | {n} |", row.name);
        for (ours, paper) in values.iter().zip(row.figures) {
            let _ = write!(text, " {ours:.3} | {paper} |");
        }
        let _ = writeln!(text);
    }
    let _ = writeln!(
        text,
        "\nn images or pairs a row, {} resize. The paper does not say which packages and weights its figures come from.",
        needs.args.resize
    );
    console::line(&text)?;
    let rows: Vec<_> = results
        .iter()
        .map(|Measured { row, n, values }| {
            let ours: BTreeMap<_, _> = columns.iter().zip(values).collect();
            let paper: BTreeMap<_, _> = columns.iter().zip(row.figures).collect();
            json!({ "row": row.name, "n": n, "ours": ours, "paper": paper })
        })
        .collect();
    let path = out.join("table.json");
    sdft_checkpoint::write_bytes_atomic(&path, serde_json::to_string_pretty(&rows)?.as_bytes())?;
    sdft_checkpoint::write_bytes_atomic(&out.join("table.md"), text.as_bytes())?;
    console::line(format_args!("table    {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
