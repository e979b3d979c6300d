//! Tables 3 and 4 on emoji: samples, and how many have an attribute that the target set lacks.

use super::measure::{Measure, Row};
use super::sets::{all_pictures, training_set};
use super::{NOISE_SEED, PASSES_PER_SECOND, Study, Trained};
use crate::draw::samples;
use crate::emoji::EmojiScale;
use crate::kept::Part;
use crate::marked::marked_sheet;
use crate::methods::Method;
use crate::table::{Column, GAP, Report, markdown, numbers, write_files};
use sdft_data::{Emoji, EmojiStyle};
use sdft_eval::{judge_emoji, neighbour_strip};
use sdft_imaging::{ImageSpec, Rgb8, grid};
use sdft_jobs::{Context, Result};
use sdft_models::LoadedModel;
use sdft_train::{to_screens, to_tensor};
use std::path::Path;

/// Samples of each model in the picture, and its columns.
const SHOWN: usize = 36;
const COLUMNS_SHOWN: usize = 6;

/// How to read the table.
const READING: &str = "\
coverage  share of samples in the target's style with one of the next six attributes, which the target set lacks, and the share for each
other     share in the target's style that is no portrait and no animal; shapeless samples look like that, too
style     share of samples in the target's style
retained  of the source's samples with some of the six attributes, the share whose counterpart from the same noise has one of these in the
          target's style
aligned   distance to the source model's sample from the same noise: lower keeps more of the image
KID       against all Fluent pictures, on the judge's features, x1000: lower is better
copied    share of samples that are closer to a picture of the model's own training set than half the median distance of these pictures to
          their nearest neighbour, which often is the same emoji in another skin tone: lower is better
Two judges look, and their probabilities are averaged. The rows of real pictures show what they see: by their names 0.52 of all Fluent
pictures are covered, and the target set is what a model would reach that draws its training set only. Judges that find the target's style in
Noto pictures or in the source's samples count too much in every row. With 160 samples the sampling error of a share is up to 0.04; all seeds
have the same noise. In the picture, samples that count for coverage have a frame.";

const COLUMNS: [Column<Row>; 13] = [
    ("coverage", 2, |r| r.coverage),
    ("women", 2, |r| r.women),
    ("dark", 2, |r| r.dark),
    ("glasses", 2, |r| r.glasses),
    ("hats", 2, |r| r.hats),
    ("sad or angry", 2, |r| r.sad_or_angry),
    ("animals", 2, |r| r.animals),
    ("other", 2, |r| r.other),
    ("style", 2, |r| r.style),
    ("retained", 2, |r| r.retained.unwrap_or(f64::NAN)),
    ("aligned", 2, |r| r.aligned.unwrap_or(f64::NAN)),
    ("KID x1000", 0, |r| r.kid_x1000.unwrap_or(f64::NAN)),
    ("copied", 2, |r| r.copied.unwrap_or(f64::NAN)),
];

/// About how long the samples of a model take.
pub(super) fn seconds(scale: &EmojiScale) -> f64 {
    (scale.samples * scale.steps) as f64 / PASSES_PER_SECOND
}

/// Samples of the models, and their table.
pub(super) struct Generation {
    measure: Measure,
    /// The target set.
    target: Vec<Rgb8>,
    rows: Vec<(String, Vec<Row>)>,
    panels: Vec<Rgb8>,
    nearest: Vec<Rgb8>,
}

impl Generation {
    /// Draws the samples of the source model, unless they exist, and measures what models are compared with.
    pub(super) fn new(study: &mut Study<'_>, context: &mut Context<'_>) -> Result<Self> {
        let emoji = Emoji::embedded()?;
        let compared = study.options.scale.compared;
        let few = |mut pictures: Vec<Rgb8>| {
            pictures.truncate(compared);
            pictures
        };
        let name = "samples/source";
        let images = draw(name, &study.source.clone(), study, context)?;
        let fluent = few(all_pictures(&emoji, EmojiStyle::Fluent));
        let mut all = Self {
            measure: Measure::new(&images, fluent)?,
            target: training_set("emoji-sdft", context)?,
            rows: Vec::new(),
            panels: Vec::new(),
            nearest: Vec::new(),
        };
        let noto = few(training_set("emoji-source", context)?);
        all.rows = vec![
            all.real_row("all Noto pictures", &noto, study)?,
            all.real_row("all Fluent pictures", &all.measure.fluent, study)?,
            all.real_row("target set", &all.target, study)?,
        ];
        let row = all.kept_row(name, &images, &noto, study)?;
        let title = "source, and the nearest Noto pictures";
        all.nearest.extend(strip(title, &images, &noto, &row));
        all.show("source", &images)?;
        all.rows.push(("source".to_owned(), vec![row]));
        Ok(all)
    }

    /// Draws and measures the samples of a model, unless that is done.
    pub(super) fn add(
        &mut self,
        method: &Method,
        trained: &Trained,
        study: &mut Study<'_>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let name = format!("samples/{}", trained.run);
        let images = draw(&name, &trained.model, study, context)?;
        let row = self.kept_row(&name, &images, &self.target, study)?;
        if trained.seed == 0 {
            self.rows.push((method.label.to_owned(), Vec::new()));
            if !method.title.is_empty() {
                self.show(method.title, &images)?;
                let title = format!("{}, and the nearest of the target set", method.title);
                self.nearest
                    .extend(strip(&title, &images, &self.target, &row));
            }
        }
        if let Some((_, rows)) = self.rows.last_mut() {
            rows.push(row);
        }
        Ok(())
    }

    /// The measurements of the samples of a model that was trained on `learned`, unless the folder has them.
    fn kept_row(
        &self,
        name: &str,
        images: &[Rgb8],
        learned: &[Rgb8],
        study: &mut Study<'_>,
    ) -> Result<Row> {
        let part = part(name, study);
        let measured_by = self.measured_by(study);
        let measure = || self.measure.samples(images, learned);
        study.kept.numbers(&part, &measured_by, measure)
    }

    /// The row of real pictures, measured unless the folder has its numbers.
    fn real_row(
        &self,
        label: &str,
        pictures: &[Rgb8],
        study: &mut Study<'_>,
    ) -> Result<(String, Vec<Row>)> {
        let name = format!("samples/{}", label.replace(' ', "-").to_lowercase());
        let part = part(&name, study);
        let measured_by = self.measured_by(study);
        let row = study
            .kept
            .numbers(&part, &measured_by, || self.measure.pictures(pictures))?;
        Ok((label.to_owned(), vec![row]))
    }

    /// What numbers depend on, in addition to the images.
    fn measured_by(&self, study: &Study<'_>) -> String {
        let compared = study.options.scale.compared;
        format!(
            "{} {} {compared}",
            self.measure.judges.weights, study.source.sha256
        )
    }

    /// Puts the first samples into the picture; those that count for coverage have a frame.
    fn show(&mut self, title: &str, images: &[Rgb8]) -> Result<()> {
        let first = &images[..SHOWN.min(images.len())];
        let judged = judge_emoji(&self.measure.judges.both, &to_tensor(first, &form())?)?;
        let marks: Vec<bool> = judged.iter().map(|seen| seen.is_covered()).collect();
        self.panels
            .push(marked_sheet(first, &marks, COLUMNS_SHOWN, title));
        Ok(())
    }

    /// Writes the table, the picture of the samples, and that of the samples nearest to their training sets.
    pub(super) fn finish(&self, out: &Path) -> Result<Report> {
        let text = markdown("model", &COLUMNS, &self.rows);
        let numbers = numbers("model", &self.rows);
        let nearest = grid(&self.nearest, 1, 0, GAP);
        sdft_imaging::write_png(&out.join("nearest.png"), &nearest)?;
        let picture = sdft_imaging::side_by_side(&self.panels, 8, GAP);
        let stems = ["table", "samples"];
        write_files(out, stems, (text, READING), &numbers, Some(&picture))
    }
}

/// The samples that come nearest to a picture that their model was trained on, above that picture.
fn strip(title: &str, images: &[Rgb8], learned: &[Rgb8], row: &Row) -> Option<Rgb8> {
    let pairs = row.nearest.iter().map(|near| {
        let picture = &learned[near.picture];
        let picture = match near.mirrored {
            true => picture.flip_horizontal(),
            false => picture.clone(),
        };
        (images[near.sample].clone(), picture)
    });
    neighbour_strip(&pairs.collect::<Vec<_>>(), title)
}

fn part<'a>(name: &'a str, study: &Study<'_>) -> Part<'a> {
    Part {
        name,
        images: study.options.scale.samples,
        seconds: seconds(&study.options.scale),
    }
}

/// The samples of a model, unless they exist.
fn draw(
    name: &str,
    model: &LoadedModel,
    study: &mut Study<'_>,
    context: &mut Context<'_>,
) -> Result<Vec<Rgb8>> {
    let EmojiScale {
        samples: n, steps, ..
    } = study.options.scale;
    let made_of = format!("{} {n} samples {steps} steps {NOISE_SEED}", model.sha256);
    let part = part(name, study);
    study.kept.images(&part, &made_of, context, |context| {
        let drawn = samples(model, [n, steps], NOISE_SEED, None, context)?;
        Ok(to_screens(&drawn, &form())?)
    })
}

/// The form of the emoji.
pub(crate) fn form() -> ImageSpec {
    ImageSpec::rgb8(Emoji::SIZE, Emoji::SIZE)
}
