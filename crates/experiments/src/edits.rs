//! The paper's Table 2: directions for five texts on each model, applied to images that none was trained on.

use crate::figures::{Row, Table, Target};
use crate::lock_folder;
use crate::needs::{Needs, TableOptions};
use crate::paper::{Measured, at_256, finish, value};
use crate::table::Report;
use sdft_directions::DirectionPlan;
use sdft_eval::{Extractor, PairNets, Pairing, View, compare_pairs, direction_of_texts, pair_up};
use sdft_features::Network;
use sdft_gallery::Outcome;
use sdft_jobs::{
    Context, DirectionOptions, EditOptions, Error, ModelFile, Result, ResultExt, RunOptions,
    Weights, edit_folder, train_direction_in,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The texts of the table: presets of `edit train`.
const TEXTS: [&str; 5] = ["smiling", "sad", "angry", "young", "old"];
/// CLIP's patches, in training and in measuring.
const PATCH: usize = 16;

/// Trains, edits and measures everything that is not finished.
pub(crate) fn edits_table(
    options: &TableOptions,
    table: &Table,
    context: &mut Context<'_>,
) -> Result<Option<Report>> {
    let mut needs = Needs::new(options, table)?;
    let data = needs.target_images("a folder");
    let rows: Vec<&Row> = Needs::rows_of(options, table).collect();
    let models: Vec<PathBuf> = rows.iter().map(|row| needs.model(row)).collect();
    let clip = needs.network(Network::Clip(PATCH));
    let identity = needs.network(Network::Identity);
    needs.check()?;
    let (Some(clip), Some(identity)) = (clip, identity) else {
        return Err(Error::Failed("the networks' weights are missing".into()));
    };
    if !data.is_dir() {
        return Err(Error::Usage(format!(
            "--data {}: expected a folder of images",
            data.display()
        )));
    }
    let Some(tokenizer) = &clip.tokenizer else {
        return Err(Error::Failed(
            "clip-b16: texts need the model's tokenizer.json too; give --weights clip-b16=tokenizer.json".into(),
        ));
    };
    let chosen = held_out(options, &data)?;
    let out = needs.out();
    let _lock = lock_folder(&out, table.name, Some(options.target))?;
    let weights: Vec<String> = clip
        .weights
        .iter()
        .chain([tokenizer])
        .map(|file| format!("clip-b16={}", file.display()))
        .collect();
    let mut nets = PairNets {
        identity: Some(Extractor::read(
            View::Identity,
            &identity.weights,
            &context.device,
        )?),
        ..PairNets::default()
    };
    let job = Edits {
        options,
        data: &data,
        weights: Weights::parse(&weights)?,
        chosen,
    };
    let mut results = Vec::new();
    for (row, model) in rows.into_iter().zip(&models) {
        let (mut sums, mut n) = ([0.0; 2], 0);
        for text in TEXTS {
            let root = out.join(row.name).join(text);
            let Some((folder, [from, to])) = job.make(model, text, &root, context)? else {
                return Ok(None);
            };
            let (texts, device) = ([&*from, &*to], &context.device);
            let direction = direction_of_texts(PATCH, &clip.weights, tokenizer, texts, device)?;
            let eye = Extractor::read(View::Clip(PATCH), &clip.weights, device)?;
            nets.text = Some((eye, direction));
            let mut pairs = pair_up(&data, &folder, Pairing::Common)?;
            // The folder may hold images of an earlier, larger pass.
            pairs.retain(|pair| job.chosen.iter().any(|id| stem(id) == pair.name));
            n = pairs.len();
            let report = compare_pairs(&pairs, &at_256(), &nets, &mut |_, _| {})?;
            let found = ["S_dir", "ID"].map(|name| value(&report, name));
            context.progress.note(&format!(
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
    finish(&needs, &out, &results).map(Some)
}

/// Images that a direction is trained on; fewer in a short pass.
fn trained_on(options: &TableOptions) -> usize {
    let usual = DirectionPlan::default().data.images;
    options
        .limit
        .map_or(usual, |limit| usual.min(limit as usize))
}

fn stem(id: &str) -> String {
    Path::new(id).with_extension("").display().to_string()
}

/// The last images of the data, which no direction was trained on.
fn held_out(options: &TableOptions, data: &Path) -> Result<HashSet<String>> {
    let files = sdft_data::list_images(data)?;
    let trained = trained_on(options);
    let n = match (options.limit, options.target) {
        (Some(limit), _) => limit as usize,
        (None, Target::Metfaces) => 500,
        (None, Target::Aahq) => 400,
    };
    if files.len() < trained + n {
        return Err(Error::Usage(format!(
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
    options: &'a TableOptions,
    data: &'a Path,
    weights: Weights,
    chosen: HashSet<String>,
}

impl Edits<'_> {
    /// Trains a direction and edits the chosen images. Returns their folder and the texts, or `None` if that was interrupted.
    fn make(
        &self,
        model: &Path,
        text: &str,
        root: &Path,
        context: &mut Context<'_>,
    ) -> Result<Option<(PathBuf, [String; 2])>> {
        let model = ModelFile::find(&model.display().to_string())?.noted(context);
        let options = DirectionOptions {
            run: RunOptions {
                config: vec![text.to_owned()],
                ..RunOptions::default()
            },
            model: Some(model.clone()),
            data: Some(self.data.display().to_string()),
            images: u32::try_from(trained_on(self.options)).ok(),
            weights: self.weights.clone(),
            ..DirectionOptions::default()
        };
        let table = options.settings()?;
        let plan: DirectionPlan = sdft_settings::plan(table.clone())?;
        let trained = train_direction_in(&root.join("direction"), table, &options, context);
        let Some(direction) = trained.with_context(|| format!("the direction {text}"))? else {
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
        match edit_folder(&options, context)? {
            Outcome::Interrupted { .. } => Ok(None),
            Outcome::Done(filled) => {
                filled.check()?;
                Ok(Some((folder, [plan.goal.from, plan.goal.to])))
            }
        }
    }
}
