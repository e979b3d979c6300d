//! The paper's Table 2: directions for five texts on each model, applied to images that none of them has seen.

use super::claim;
use super::figures::{Row, Table};
use super::paper::{Measured, Needs, finish, value};
use crate::args::{ReproduceArgs, TargetArg};
use crate::edit::{self, typed};
use crate::gallery::conclude;
use crate::job::job_on_cpu;
use crate::model::model_file;
use crate::{INTERRUPTED, config, console, usage};
use anyhow::{Context, Result, bail};
use sdft_eval::{Extractor, PairNets, Pairing, View, compare_pairs, direction_of_texts, pair_up};
use sdft_features::Network;
use sdft_jobs::{EditOptions, edit_folder};
use sdft_train::DirectionPlan;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The texts of the table: presets of `edit train`.
const TEXTS: [&str; 5] = ["smiling", "sad", "angry", "young", "old"];
/// CLIP's patches, in training and in measuring.
const PATCH: usize = 16;

/// Trains, edits and measures, as far as that is not done.
pub(super) fn edits_table(args: &ReproduceArgs, table: &Table) -> Result<ExitCode> {
    let mut needs = Needs::new(args, table)?;
    let data = needs.target_images("a folder");
    let rows: Vec<&Row> = Needs::rows_of(args, table).collect();
    let models: Vec<PathBuf> = rows.iter().map(|row| needs.model(row)).collect();
    let clip = needs.network(Network::Clip(PATCH));
    let identity = needs.network(Network::Identity);
    needs.all_there()?;
    let (Some(clip), Some(identity)) = (clip, identity) else {
        bail!("the networks' weights are not there");
    };
    if !data.is_dir() {
        return Err(usage(format!(
            "--data {}: expected a folder of images",
            data.display()
        )));
    }
    let Some(tokenizer) = &clip.tokenizer else {
        bail!(
            "clip-b16: texts need the model's tokenizer.json too; give --weights clip-b16=tokenizer.json"
        );
    };
    let chosen = held_out(args, &data)?;
    let out = needs.out();
    let _claimed = claim(args, &out)?;
    let weights: Vec<String> = clip
        .weights
        .iter()
        .chain([tokenizer])
        .map(|file| format!("--weights=clip-b16={}", file.display()))
        .collect();
    let mut nets = PairNets {
        identity: Some(Extractor::read(View::Identity, &identity.weights)?),
        ..PairNets::default()
    };
    let job = Edits {
        args,
        data: &data,
        weights,
        chosen,
    };
    let mut results = Vec::new();
    for (row, model) in rows.into_iter().zip(&models) {
        let (mut sums, mut n) = ([0.0; 2], 0);
        for text in TEXTS {
            let root = out.join(row.name).join(text);
            let Some((folder, [from, to])) = job.make(model, text, &root)? else {
                console::line("interrupted; the same command goes on from here")?;
                return Ok(ExitCode::from(INTERRUPTED));
            };
            let direction = direction_of_texts(PATCH, &clip.weights, tokenizer, [&from, &to])?;
            let eye = Extractor::read(View::Clip(PATCH), &clip.weights)?;
            nets.text = Some((eye, direction));
            let mut pairs = pair_up(&data, &folder, Pairing::Common)?;
            // Those of an earlier, larger pass are there, too.
            pairs.retain(|pair| job.chosen.iter().any(|id| stem(id) == pair.name));
            n = pairs.len();
            let report = compare_pairs(&pairs, Some(256), &nets, &mut |_, _| {})?;
            let found = ["S_dir", "ID"].map(|name| value(&report, name));
            console::note(&format!(
                "{} {text}: S_dir {:.3}, ID {:.3}",
                row.name, found[0], found[1]
            ));
            for (sum, value) in sums.iter_mut().zip(found) {
                *sum += value / TEXTS.len() as f64;
            }
        }
        let values = sums.to_vec();
        results.push(Measured { row, n, values });
    }
    finish(&needs, &out, &results)
}

/// Images that a direction is trained on; fewer in a short pass.
fn trained_on(args: &ReproduceArgs) -> usize {
    let usual = DirectionPlan::default().data.images;
    args.limit.map_or(usual, |limit| usual.min(limit as usize))
}

fn stem(id: &str) -> String {
    Path::new(id).with_extension("").display().to_string()
}

/// The last images of the data, which no direction has seen.
fn held_out(args: &ReproduceArgs, data: &Path) -> Result<HashSet<String>> {
    let files = sdft_data::list_images(data)?;
    let trained = trained_on(args);
    let n = match (args.limit, args.target) {
        (Some(limit), _) => limit as usize,
        (None, TargetArg::Metfaces) => 500,
        (None, TargetArg::Aahq) => 400,
    };
    if files.len() < trained + n {
        return Err(usage(format!(
            "--data {}: expected {trained} images to train on and {n} others to edit, found {}; --limit N edits fewer",
            data.display(),
            files.len()
        )));
    }
    let last = files.into_iter().rev().take(n);
    Ok(last.map(|(id, _)| id).collect())
}

/// What all edits of a table share.
struct Edits<'a> {
    args: &'a ReproduceArgs,
    data: &'a Path,
    weights: Vec<String>,
    chosen: HashSet<String>,
}

impl Edits<'_> {
    /// Trains a direction and edits the chosen images; their folder and the texts, or none if that was interrupted.
    fn make(
        &self,
        model: &Path,
        text: &str,
        root: &Path,
    ) -> Result<Option<(PathBuf, [String; 2])>> {
        let model = model_file(&model.display().to_string())?;
        let data = self.data.display().to_string();
        let images = trained_on(self.args).to_string();
        let mut words = vec![
            "--config", text, "--model", &model, "--data", &data, "--images", &images,
        ];
        words.extend(self.weights.iter().map(String::as_str));
        let train = typed::train(&words)?;
        let table = edit::assemble(&train)?;
        let plan: DirectionPlan = config::plan(table.clone())?;
        let direction = root.join("direction");
        let made = edit::Job::from_table(table, &train)?.run_in(&direction, &train);
        let Some(direction) = made.with_context(|| format!("the direction {text}"))? else {
            return Ok(None);
        };
        let folder = root.join("edited");
        let options = EditOptions {
            model,
            edits: vec![direction.display().to_string()],
            input: self.data.to_owned(),
            only: Some(self.chosen.clone()),
            out: folder.clone(),
            ..EditOptions::default()
        };
        let outcome = job_on_cpu("edit", |context| edit_folder(&options, context))?;
        let made = conclude(outcome, &folder, false)?;
        Ok(made.map(|_| (folder, [plan.goal.from, plan.goal.to])))
    }
}
