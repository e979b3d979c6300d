//! The paper's tables on real data.

use crate::edits::edits_table;
use crate::figures::{PaperTable, Row, Table};
use crate::lock_folder;
use crate::needs::{Needs, TableOptions};
use crate::table::{Report as Written, write_files};
use candle_core::Device;
use sdft_eval::{
    Extractor, FeatureCache, ImageSet, PairNets, PairOptions, Pairing, Report, SetOptions, View,
    compare_pairs, compare_sets, of_files, pair_up,
};
use sdft_features::{LpipsNet, Network};
use sdft_jobs::{
    Context, Error, Files, ModelFile, Result, ResultExt, load_source, read_lpips,
    sample_as_in_the_paper,
};
use sdft_models::LoadOptions;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Samples of each model for FID and KID, and of them for the distance to the source model's.
const SAMPLES: usize = 10_000;
const ALIGNED: usize = 2_000;
/// Seed of their noise.
const SEED: u64 = 0;

/// Repeats a table of the paper. Missing inputs are listed before anything starts. Returns the table, with the paper's figures next to the
/// measured ones, or `None` if the job was interrupted.
///
/// # Errors
/// - [`Error::Failed`] with the list of missing inputs
/// - [`Error::Usage`] for a row that the table does not have
/// - an error of training, sampling or measuring
pub fn reproduce_table(
    table: PaperTable,
    options: &TableOptions,
    context: &mut Context<'_>,
) -> Result<Option<Written>> {
    let contents = table.contents();
    match table {
        PaperTable::Table1 => pairs_table(options, contents, context).map(Some),
        PaperTable::Table2 => edits_table(options, contents, context),
        PaperTable::Table3 | PaperTable::Table4 => samples_table(options, contents, context),
    }
}

/// Tables 3 and 4: samples of models.
fn samples_table(
    options: &TableOptions,
    table: &Table,
    context: &mut Context<'_>,
) -> Result<Option<Written>> {
    let mut needs = Needs::new(options, table)?;
    let source = needs.path(
        options.source.as_deref(),
        "--source",
        "the source model, ffhq_p2.pt of P2-weighting, or as a stand-in: hf download deepinv/diffunet diffusion_ffhq_10m.pt",
    );
    let data = needs.target_images("a folder, or an .npz of their images (arr_0),");
    let rows: Vec<&Row> = Needs::rows_of(options, table).collect();
    let models: Vec<PathBuf> = rows.iter().map(|row| needs.model(row)).collect();
    let inception = needs.network(Network::Inception);
    let lpips = needs.network(Network::Lpips(LpipsNet::Alex));
    needs.check()?;
    let (Some(inception), Some(lpips)) = (inception, lpips) else {
        return Err(Error::Failed("the networks' weights are missing".into()));
    };
    let out = needs.out();
    let _lock = lock_folder(&out, table.name, Some(options.target))?;
    let (n, aligned) = match options.limit {
        Some(limit) => (limit as usize, ALIGNED.min(limit as usize)),
        None => (SAMPLES, ALIGNED),
    };
    let mut realism = Realism::open(options, &inception, [&data, &out], &context.device)?;
    let nets = PairNets {
        lpips: Some(read_lpips(LpipsNet::Alex, &lpips, &context.device)?),
        ..PairNets::default()
    };
    let Some(from) = sample(&source, &out.join("samples/source"), aligned, context)? else {
        return Ok(None);
    };
    let mut results = Vec::new();
    for (row, model) in rows.into_iter().zip(&models) {
        let folder = out.join("samples").join(row.name);
        let Some(folder) = sample(model, &folder, n, context)? else {
            return Ok(None);
        };
        let mut files = sdft_data::list_images(&folder)?;
        files.truncate(n);
        let sets = realism.of(&folder, files, context)?;
        let mut pairs = pair_up(&from, &folder, Pairing::Common)?;
        pairs.truncate(aligned);
        let near = compare_pairs(&pairs, &PairOptions::default(), &nets, &mut |_, _| {})?;
        let values = vec![
            value(&sets, "FID"),
            value(&sets, "KID x1000"),
            value(&near, "LPIPS"),
        ];
        results.push(Measured { row, n, values });
    }
    finish(&needs, &out, &results).map(Some)
}

/// Draws `n` samples of a model into a folder. `None` if that was interrupted.
fn sample(
    model: &Path,
    folder: &Path,
    n: usize,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    let file = ModelFile::find(&model.display().to_string())?.noted(context);
    let model = load_source(&file, &LoadOptions::default(), context)?;
    let is_complete = sample_as_in_the_paper(&model, &file, folder, n, SEED, context)
        .with_context(|| format!("sampling {file}"))?;
    Ok(is_complete.then(|| folder.to_owned()))
}

/// Table 1: outputs made from inputs.
fn pairs_table(
    options: &TableOptions,
    table: &Table,
    context: &mut Context<'_>,
) -> Result<Written> {
    let mut needs = Needs::new(options, table)?;
    let inputs = needs.path(
        options.inputs.as_deref(),
        "--inputs",
        "a folder of 10,000 FFHQ images at 256x256 (LIAGM/FFHQ_datasets on the Hub has all as FFHQ_256.zip)",
    );
    let rows: Vec<&Row> = Needs::rows_of(options, table).collect();
    let mut outputs = Vec::new();
    for row in &rows {
        let given = needs.rows.get(row.name).cloned();
        let option = format!("--row {}=DIR", row.name);
        outputs.push(needs.path(given.as_deref(), &option, row.made_by));
    }
    let data = needs.target_images("a folder, or an .npz of their images (arr_0),");
    let lpips = needs.network(Network::Lpips(LpipsNet::Alex));
    let inception = needs.network(Network::Inception);
    needs.check()?;
    let (Some(lpips), Some(inception)) = (lpips, inception) else {
        return Err(Error::Failed("the networks' weights are missing".into()));
    };
    let out = needs.out();
    let _lock = lock_folder(&out, table.name, Some(options.target))?;
    let nets = PairNets {
        lpips: Some(read_lpips(LpipsNet::Alex, &lpips, &context.device)?),
        ..PairNets::default()
    };
    let mut realism = Realism::open(options, &inception, [&data, &out], &context.device)?;
    let limit = options.limit.map_or(SAMPLES, |limit| limit as usize);
    let mut results = Vec::new();
    for (row, folder) in rows.into_iter().zip(&outputs) {
        let mut pairs = pair_up(&inputs, folder, Pairing::Common)?;
        pairs.truncate(limit);
        let n = pairs.len();
        let report = compare_pairs(&pairs, &at_256(), &nets, &mut |_, _| {})?;
        let files = pairs.iter().map(|p| (p.name.clone(), p.output.clone()));
        let sets = realism.of(folder, files.collect(), context)?;
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

/// Images are resized to 256 pixels, as in EGSDE's evaluation.
pub(crate) fn at_256() -> PairOptions {
    PairOptions {
        size: Some(256),
        ..PairOptions::default()
    }
}

/// A measured row.
pub(crate) struct Measured<'a> {
    pub(crate) row: &'a Row,
    /// The number of images or pairs.
    pub(crate) n: usize,
    pub(crate) values: Vec<f64>,
}

/// Compares folders with the target domain.
struct Realism {
    extractor: Extractor,
    cache: FeatureCache,
    target: ImageSet,
}

impl Realism {
    fn open(
        options: &TableOptions,
        files: &Files,
        [data, out]: [&Path; 2],
        device: &Device,
    ) -> Result<Self> {
        let extractor = Extractor::read(View::Inception(options.resize), &files.weights, device)?;
        let folder = out.join("features");
        let mut cache = FeatureCache::open(&folder, &extractor.cache_key(), extractor.dim())?;
        let target = ImageSet::open(data, &extractor, &mut cache, &mut |_, _| {})?;
        if target.features.is_none() {
            return Err(Error::Failed(format!(
                "{}: KID needs the images, not their statistics",
                data.display()
            )));
        }
        Ok(Self {
            extractor,
            cache,
            target,
        })
    }

    fn of(
        &mut self,
        folder: &Path,
        files: Vec<(String, PathBuf)>,
        context: &mut Context<'_>,
    ) -> Result<Report> {
        let (features, _) = of_files(&files, &self.extractor, &mut self.cache, &mut |_, _| {})?;
        let fake = ImageSet::of_features(folder.display().to_string(), files, features)?;
        let (report, _) = compare_sets(&self.target, &fake, &SetOptions::default())?;
        let warnings = report.warnings.iter();
        context.notes(warnings.map(|warning| format!("{}: {warning}", folder.display())));
        Ok(report)
    }
}

pub(crate) fn value(report: &Report, name: &str) -> f64 {
    let found = report.measures.iter().find(|m| m.name == name);
    found.map_or(f64::NAN, |m| m.value)
}

/// Writes the table, with the paper's figures next to the measured ones.
pub(crate) fn finish(needs: &Needs<'_>, out: &Path, results: &[Measured<'_>]) -> Result<Written> {
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
        "\nn images or pairs for each row, {} resize. The paper does not say which packages and weights its figures come from.",
        needs.options.resize
    );
    let rows: Vec<_> = results
        .iter()
        .map(|Measured { row, n, values }| {
            let ours: BTreeMap<_, _> = columns.iter().zip(values).collect();
            let paper: BTreeMap<_, _> = columns.iter().zip(row.figures).collect();
            json!({ "row": row.name, "n": n, "ours": ours, "paper": paper })
        })
        .collect();
    write_files(out, ["table", "table"], (text, ""), &rows, None)
}
