//! Table 2 on emoji: pictures of the target's kind get an attribute that the target set lacks.

use super::generation::form;
use super::sets::{ToEdit, to_edit};
use super::{PASSES_PER_SECOND, Study, Trained};
use crate::draw::edits;
use crate::emoji::EmojiScale;
use crate::kept::{Kept, Part};
use crate::methods::{Method, interrupted};
use crate::table::{Column, Report, markdown, numbers, write_table};
use candle_core::Tensor;
use sdft_eval::{EmojiValues, aligned_distance, judge_emoji, score_edited_emoji};
use sdft_features::AttributeJudge;
use sdft_files::sha256_file;
use sdft_imaging::Rgb8;
use sdft_jobs::{
    CacheLocation, Context, DirectionOptions, Result, ResultExt, RunOptions, second_emoji_judge,
    train_direction_in,
};
use sdft_settings::put;
use sdft_train::to_tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::slice::from_ref;

/// The presets of the directions, and their names in the table.
pub(super) const DIRECTIONS_USED: [(&str, &str); 3] = [
    ("emoji-man-to-woman", "man to woman"),
    ("emoji-light-to-dark", "light to dark"),
    ("emoji-add-glasses", "add glasses"),
];
/// About how long the training of a direction takes on two cores.
const DIRECTION_SECONDS: f64 = 28.0;
/// The picture shows one input out of this many.
const EVERY: usize = 2;

/// How to read the table.
const READING: &str = "\
drawn     share of inputs that the unchanged model still draws with their attribute after inversion, which limits every edit
edited    share that has the other attribute after the edit; style: share in the target's style; both: what an edit is for
moved     distance of the edit to the input: lower keeps more of the picture
A second judge measures, trained from another seed than the one that guides the directions. The inputs are portraits of the target set that
the direction was not trained on; the model was. The direction is that between real Fluent portraits in the first judge's features.";

const COLUMNS: [Column<Measured>; 5] = [
    ("drawn", 2, |r| r.drawn),
    ("edited", 2, |r| r.edited),
    ("style", 2, |r| r.style),
    ("both", 2, |r| r.both),
    ("moved", 2, |r| r.moved),
];

/// The measurements of one model's edits.
#[derive(Serialize, Deserialize)]
struct Measured {
    n: usize,
    drawn: f64,
    edited: f64,
    style: f64,
    both: f64,
    moved: f64,
}

/// Announces the parts of `models` models.
pub(super) fn expect(models: usize, scale: &EmojiScale, kept: &mut Kept) {
    for _ in DIRECTIONS_USED {
        kept.expect(models, DIRECTION_SECONDS);
        kept.expect(models, edit_seconds(scale));
    }
}

/// About how long the edits of a model in one direction take on two cores: an inversion and two images.
fn edit_seconds(scale: &EmojiScale) -> f64 {
    (3 * scale.edited * scale.steps) as f64 / PASSES_PER_SECOND
}

/// A direction, and the pictures that are edited in it.
struct Case {
    preset: &'static str,
    from: EmojiValues,
    to: EmojiValues,
    inputs: Vec<Rgb8>,
    x0: Tensor,
    rows: Vec<(String, Vec<Measured>)>,
    picture: Vec<(String, Vec<Rgb8>)>,
}

impl Case {
    fn new(
        [preset, name]: [&'static str; 2],
        study: &Study<'_>,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let n = study.options.scale.edited;
        let ToEdit { from, to, inputs } = to_edit(preset, n, context)?;
        Ok(Self {
            preset,
            from,
            to,
            x0: to_tensor(&inputs, &form())?,
            picture: vec![(format!("{name}: inputs"), every(&inputs))],
            inputs,
            rows: Vec::new(),
        })
    }
}

/// Edits by the models, and their table.
pub(super) struct Edits {
    judge: AttributeJudge,
    measured_by: String,
    cases: Vec<Case>,
}

impl Edits {
    pub(super) fn new(study: &Study<'_>, context: &mut Context<'_>) -> Result<Self> {
        let (judge, features) = second_emoji_judge()?;
        let cases = DIRECTIONS_USED.map(|(preset, name)| Case::new([preset, name], study, context));
        Ok(Self {
            cases: cases.into_iter().collect::<Result<_>>()?,
            measured_by: features.weights().to_owned(),
            judge,
        })
    }

    /// Trains the directions on a model, edits by them, and measures the results, unless that is done.
    pub(super) fn add(
        &mut self,
        method: &Method,
        trained: &Trained,
        study: &mut Study<'_>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let options = study.options;
        for (case, (_, what)) in self.cases.iter_mut().zip(DIRECTIONS_USED) {
            let name = format!("directions/{}-{}", case.preset, trained.run);
            let root = options.out.join(&name);
            let is_finished = root.join("final.safetensors").is_file();
            let part = Part {
                name: &name,
                images: 0,
                seconds: DIRECTION_SECONDS,
            };
            let direction = study.kept.run(&part, is_finished, context, |context| {
                let asked = DirectionOptions {
                    run: RunOptions {
                        config: vec![case.preset.to_owned()],
                        set: options.scale.directions.clone(),
                        ..RunOptions::default()
                    },
                    model: Some(trained.file.clone()),
                    cache: CacheLocation::Folder(options.out.join("inversions")),
                    ..DirectionOptions::default()
                };
                let mut table = asked.settings()?;
                put(
                    &mut table,
                    "name",
                    format!("{}-{}", case.preset, trained.run),
                );
                train_direction_in(&root, table, &asked, context)?.ok_or_else(interrupted)
            })?;
            let n = case.inputs.len();
            let name = format!("edits/{}-{}", case.preset, trained.run);
            let part = Part {
                name: &name,
                images: 2 * n,
                seconds: edit_seconds(&options.scale),
            };
            let steps = options.scale.steps;
            let made_of = format!(
                "{} {} {} {n} images {steps} steps",
                study.basis,
                trained.model.sha256,
                sha256_file(&direction)
                    .with_context(|| format!("cannot read {}", direction.display()))?
            );
            let images = study.kept.images(&part, &made_of, context, |context| {
                let both = edits(&trained.model, &direction, &case.x0, steps, context)?;
                Ok(both.concat())
            })?;
            let (plain, edited) = images.split_at(n);
            let (judge, from, to, x0) = (&self.judge, &case.from, &case.to, &case.x0);
            let row = study.kept.numbers(&part, &self.measured_by, || {
                let plain = judge_emoji(from_ref(judge), &to_tensor(plain, &form())?)?;
                let x = to_tensor(edited, &form())?;
                let score = score_edited_emoji(&judge_emoji(from_ref(judge), &x)?, from, to)?;
                Ok(Measured {
                    n: score.n,
                    drawn: score_edited_emoji(&plain, from, to)?.unchanged,
                    edited: score.edited,
                    style: score.style,
                    both: score.both,
                    moved: aligned_distance(judge, x0, &x)?,
                })
            })?;
            if trained.seed == 0 {
                case.rows
                    .push((format!("{what}, {}", method.label), Vec::new()));
                for (how, row) in [("as drawn", plain), ("edited", edited)] {
                    case.picture
                        .push((format!("{}, {how}", method.label), every(row)));
                }
            }
            if let Some((_, rows)) = case.rows.last_mut() {
                rows.push(row);
            }
        }
        Ok(())
    }

    /// Writes the table, and the picture of the first seed.
    pub(super) fn finish(self, out: &Path) -> Result<Report> {
        let (mut rows, mut picture) = (Vec::new(), Vec::new());
        for case in self.cases {
            rows.extend(case.rows);
            picture.extend(case.picture);
        }
        let text = markdown("edit", &COLUMNS, &rows);
        let numbers = numbers("edit", &rows);
        let pictures = picture.into_iter();
        write_table(out, "editing", (text, READING), &numbers, pictures)
    }
}

/// The images in the picture.
fn every(images: &[Rgb8]) -> Vec<Rgb8> {
    images.iter().step_by(EVERY).cloned().collect()
}
