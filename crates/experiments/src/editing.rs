//! Table 2 on digits: digits of a class that the target set lacks become those of another such class.

use crate::digits::{STEPS, form};
use crate::draw::edits;
use crate::methods::interrupted;
use crate::table::{Column, Report, markdown, numbers, write_table};
use candle_core::Tensor;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{Extractor, aligned_distance, score_kept};
use sdft_features::DigitsJudge;
use sdft_imaging::Rgb8;
use sdft_jobs::{Context, Result, load_source, second_judge, train_direction_preset};
use sdft_metrics::{Features, KidOptions, mmd2_unbiased};
use sdft_models::LoadOptions;
use sdft_train::to_tensor;
use serde::Serialize;
use std::path::Path;

/// The class to edit, and the class to turn it into.
const FROM: u8 = 3;
const TO: u8 = 2;
/// Digits that the direction is trained on; others are edited.
const TRAINED: usize = 20;
/// Number of digits to edit; no direction was trained on them.
const EDITED: usize = 100;
/// The picture shows one digit out of this many.
const EVERY: usize = 7;

/// How to read the table.
const READING: &str = "\
drawn     share of threes that the unchanged model still draws as threes after inversion, which limits every edit
edited    share of them that are twos after the edit; both: in the target's style as well, which is what an edit is for
KID       of the edited images against real twos in the target's style, x1000: lower is better
moved     distance of the edit to the input, as aligned above: lower keeps more of the image
A second classifier judges, trained from another seed than the one that guides the directions.";

const COLUMNS: [Column<Measured>; 6] = [
    ("drawn", 2, |r| r.drawn),
    ("edited", 2, |r| r.edited),
    ("style", 2, |r| r.style),
    ("both", 2, |r| r.both),
    ("KID x1000", 0, |r| r.kid_x1000),
    ("moved", 2, |r| r.moved),
];

/// The measurements of one model's edits.
#[derive(Serialize)]
struct Measured {
    n: usize,
    drawn: f64,
    edited: f64,
    style: f64,
    both: f64,
    kid_x1000: f64,
    moved: f64,
}

/// Edits of the embedded digits by trained models, and their table.
pub(crate) struct Edits {
    inputs: Vec<Rgb8>,
    x0: Tensor,
    judge: DigitsJudge,
    features: Extractor,
    /// Real digits of the class that is edited to, in the target's style.
    real: Features,
    rows: Vec<(String, Vec<Measured>)>,
    picture: Vec<Vec<Rgb8>>,
}

impl Edits {
    pub(crate) fn new(out: &Path, context: &mut Context<'_>) -> Result<Self> {
        let digits = Digits::embedded()?;
        let all = DigitsSource::new(digits, Style::Ember, &[FROM], TRAINED + EDITED)?;
        let inputs = (TRAINED..all.len())
            .map(|i| Ok(all.screen(i)?))
            .collect::<Result<Vec<Rgb8>>>()?;
        let shown = inputs.iter().step_by(EVERY).cloned().collect();
        let (judge, features) = second_judge(&out.join("judge.safetensors"), context)?;
        let real = DigitsSource::new(Digits::embedded()?, Style::Ember, &[TO], usize::MAX)?;
        let real = (0..real.len())
            .map(|i| Ok(real.screen(i)?))
            .collect::<Result<Vec<Rgb8>>>()?;
        Ok(Self {
            x0: to_tensor(&inputs, &form())?,
            inputs,
            judge,
            real: Features::new(features.extract(&real)?, features.dim())?,
            features,
            rows: Vec::new(),
            picture: vec![shown],
        })
    }

    /// Adds the row of a method whose models, one for each seed, are in these files. Their directions are trained next to them.
    pub(crate) fn add(
        &mut self,
        label: &str,
        models: &[String],
        context: &mut Context<'_>,
    ) -> Result<()> {
        let mut rows = Vec::new();
        for (seed, file) in models.iter().enumerate() {
            let root = Path::new(file).with_file_name("direction");
            let set = ["data.style=ember"];
            let direction = train_direction_preset("digits-3-to-2", &set, &root, file, context)?;
            let direction = direction.ok_or_else(interrupted)?;
            let model = load_source(file, &LoadOptions::default(), context)?;
            let [plain, edited] = edits(&model, &direction, &self.x0, STEPS, context)?;
            let n = self.inputs.len();
            let seen = to_tensor(&edited, &form())?;
            let looked = Features::new(self.features.extract(&edited)?, self.features.dim())?;
            let score = score_kept(&self.judge, &seen, &vec![TO; n])?;
            rows.push(Measured {
                n,
                drawn: score_kept(&self.judge, &to_tensor(&plain, &form())?, &vec![FROM; n])?.class,
                edited: score.class,
                style: score.style,
                both: score.both,
                kid_x1000: 1e3 * mmd2_unbiased(&self.real, &looked, &KidOptions::default())?,
                moved: aligned_distance(&self.judge, &self.x0, &seen)?,
            });
            if seed == 0 {
                for row in [plain, edited] {
                    self.picture.push(row.into_iter().step_by(EVERY).collect());
                }
            }
        }
        self.rows.push((label.to_owned(), rows));
        Ok(())
    }

    /// Writes the table, and the picture of the first seed.
    pub(crate) fn finish(&self, out: &Path) -> Result<Report> {
        let text = markdown("edit, 3 to 2", &COLUMNS, &self.rows);
        let numbers = numbers("edit, 3 to 2", &self.rows);
        let names = self
            .rows
            .iter()
            .flat_map(|(label, _)| [format!("{label}, as drawn"), format!("{label}, edited")]);
        let names = std::iter::once("inputs".to_owned()).chain(names);
        let rows = names.zip(self.picture.iter().cloned());
        write_table(out, "editing", (text, READING), &numbers, rows)
    }
}
