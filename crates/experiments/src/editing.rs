//! Table 2 on digits: digits of a class that the target set lacks become those of another such class.

use crate::digits::form;
use crate::edit_example::{FROM, TO, TRAINED};
use crate::table::{Column, Report, markdown, write_table};
use candle_core::Tensor;
use sdft_asyrp::{Direction, EditPlan, Mix, edit, invert, read_direction, sequence, strength_at};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{Extractor, KeptScore, aligned_distance, score_kept};
use sdft_features::DigitsJudge;
use sdft_imaging::Rgb8;
use sdft_jobs::{
    Context, Error, Result, check_stop, load_source, second_judge, train_direction_preset,
};
use sdft_metrics::{Features, KidOptions, mmd2_unbiased};
use sdft_randn::NumberedNoise;
use sdft_train::{to_screens, to_tensor};
use serde_json::{Map, json};
use std::path::Path;

/// Number of digits to edit; no direction was trained on them.
const EDITED: usize = 100;
/// Steps of an edit.
const STEPS: usize = 40;
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
    ("edited", 2, |r| r.edited.class),
    ("style", 2, |r| r.edited.style),
    ("both", 2, |r| r.edited.both),
    ("KID x1000", 0, |r| r.kid),
    ("moved", 2, |r| r.moved),
];

/// The measurements of one model's edits.
struct Measured {
    drawn: f64,
    edited: KeptScore,
    kid: f64,
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

    /// Adds the row of a method whose models, one for each seed, are in these files. Their directions are trained next to them. False if
    /// that was interrupted.
    pub(crate) fn add(
        &mut self,
        label: &str,
        models: &[String],
        context: &mut Context<'_>,
    ) -> Result<bool> {
        let mut rows = Vec::new();
        for (seed, file) in models.iter().enumerate() {
            let root = Path::new(file).with_file_name("direction");
            let Some(direction) = train_direction_preset(
                "digits-3-to-2",
                &["data.style=ember"],
                &root,
                file,
                context,
            )?
            else {
                return Ok(false);
            };
            let [plain, edited] = self.edit(file, &direction, context)?;
            let n = self.inputs.len();
            let seen = to_tensor(&edited, &form())?;
            let looked = Features::new(self.features.extract(&edited)?, self.features.dim())?;
            rows.push(Measured {
                kid: 1e3 * mmd2_unbiased(&self.real, &looked, &KidOptions::default())?,
                drawn: score_kept(&self.judge, &to_tensor(&plain, &form())?, &vec![FROM; n])?.class,
                edited: score_kept(&self.judge, &seen, &vec![TO; n])?,
                moved: aligned_distance(&self.judge, &self.x0, &seen)?,
            });
            if seed == 0 {
                for row in [plain, edited] {
                    self.picture.push(row.into_iter().step_by(EVERY).collect());
                }
            }
        }
        self.rows.push((label.to_owned(), rows));
        Ok(true)
    }

    /// The inputs as the model draws them, unchanged and edited.
    fn edit(
        &self,
        file: &str,
        direction: &Path,
        context: &mut Context<'_>,
    ) -> Result<[Vec<Rgb8>; 2]> {
        let model = load_source(file, "", Map::new(), Map::new(), context)?;
        let net = model.process.in_steps(model.network()?)?;
        let groups = model.architecture.norm_groups();
        let read = read_direction(direction, net.bottleneck(), groups)?;
        let schedule = model.process.published()?.schedule;
        let (trained, t_0, t_edit, inversion) = match &read.info {
            Some(info) => (info.steps, info.t_0, info.t_edit, info.inversion),
            None => {
                return Err(Error::Failed(format!(
                    "{}: its metadata does not describe its training",
                    direction.display()
                )));
            }
        };
        let stop = context.stop;
        let mut observer = |_: &sdft_samplers::Step<'_>| check_stop(stop);
        let steps = sequence(inversion, t_0);
        let latent = invert(&*net, &schedule, &self.x0, &steps, &mut observer)?;
        let plan = EditPlan {
            steps: sequence(STEPS, t_0),
            t_edit,
            t_boost: 0,
        };
        let mut drawn = |directions| -> Result<Vec<Rgb8>> {
            let mix = Mix::of(directions);
            // Without boosting no noise is drawn.
            let mut none = NumberedNoise::new(0, vec![0; self.inputs.len()]);
            let out = edit(
                &*net,
                &schedule,
                &latent,
                &mix,
                &plan,
                &mut none,
                &mut observer,
            )?;
            // Classified like files, after rounding to 8 bits.
            Ok(to_screens(&out, &form())?)
        };
        let plain = drawn(Vec::new())?;
        let edited = drawn(vec![Direction {
            block: &read.block,
            strength: strength_at(1.0, trained, STEPS, 1),
        }])?;
        Ok([plain, edited])
    }

    /// Writes the table, and the picture of the first seed.
    pub(crate) fn finish(&self, out: &Path) -> Result<Report> {
        let text = markdown("edit, 3 to 2", &COLUMNS, &self.rows);
        let mut numbers = Vec::new();
        for (label, rows) in &self.rows {
            let seeds: Vec<_> = rows
                .iter()
                .map(|r| {
                    json!({ "n": r.edited.n, "drawn": r.drawn, "edited": r.edited.class, "style": r.edited.style, "both": r.edited.both, "kid_x1000": r.kid, "moved": r.moved })
                })
                .collect();
            numbers.push(json!({ "edit": label, "from": FROM, "to": TO, "seeds": seeds }));
        }
        let names = self
            .rows
            .iter()
            .flat_map(|(label, _)| [format!("{label}, as drawn"), format!("{label}, edited")]);
        let names = std::iter::once("inputs".to_owned()).chain(names);
        let rows = names.zip(self.picture.iter().cloned());
        write_table(out, "editing", (text, READING), &numbers, rows)
    }
}
