//! Table 1 on digits: digits of classes that the target set lacks, from chalk to ember.

use crate::digits::form;
use crate::draw::translations;
use crate::methods::interrupted;
use crate::table::{Column, Report, markdown, numbers, write_table};
use candle_core::Tensor;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_features::DigitsJudge;
use sdft_imaging::Rgb8;
use sdft_jobs::{
    Context, Result, TranslatePlan, TranslationMethod, TranslationModels, Variant, WalkKind,
    load_judge, load_source, train_classifier_preset,
};
use sdft_metrics::{Picture, SsimWindow, psnr, ssim};
use sdft_models::{LoadOptions, LoadedEncoder, load_encoder};
use sdft_train::to_tensor;
use serde::Serialize;
use std::path::Path;

/// How far inputs are noised.
const T0: f64 = 0.4;
/// Classes that the target set lacks.
const ABSENT: [u8; 7] = [0, 2, 3, 5, 6, 8, 9];
/// Inputs of each class.
const PER_CLASS: usize = 30;
/// Seed of the noise for the first models; the second ones use the next seed, so that the mean is over noises, too.
const NOISE_SEED: u64 = 1000;
/// The picture shows one input out of this many.
const EVERY: usize = 15;

/// How to read the table.
const READING: &str = "\
kept      share of inputs that still show their digit; style: share in the target's style; both: what a translation is for
PSNR, SSIM  against the input: they reward what is left as it was, its colours too, so a change of style costs in both";

const COLUMNS: [Column<Measured>; 5] = [
    ("kept", 2, |r| r.kept),
    ("style", 2, |r| r.style),
    ("both", 2, |r| r.both),
    ("PSNR", 2, |r| r.psnr),
    ("SSIM", 3, |r| r.ssim),
];

/// The measurements of one model's translations.
#[derive(Serialize)]
struct Measured {
    n: usize,
    kept: f64,
    style: f64,
    both: f64,
    psnr: f64,
    ssim: f64,
}

/// The first digits of every class that the target set lacks, in the source's style.
pub(crate) fn inputs(per_class: usize) -> Result<DigitsSource> {
    let digits = Digits::embedded()?;
    Ok(DigitsSource::new(digits, Style::Chalk, &ABSENT, per_class)?)
}

/// The translations of the embedded inputs by trained models, and their table.
pub(crate) struct Translations {
    inputs: Vec<Rgb8>,
    x0: Tensor,
    classes: Vec<u8>,
    judge: DigitsJudge,
    classifier: LoadedEncoder,
    rows: Vec<(String, Vec<Measured>)>,
    picture: Vec<Vec<Rgb8>>,
}

impl Translations {
    /// Trains the classifier unless it exists.
    pub(crate) fn new(out: &Path, context: &mut Context<'_>) -> Result<Self> {
        let root = out.join("classifier");
        let classifier = train_classifier_preset("digits-classifier", &[], &root, context)?;
        let classifier = classifier.ok_or_else(interrupted)?;
        let source = inputs(PER_CLASS)?;
        let inputs = (0..source.len())
            .map(|i| Ok(source.screen(i)?))
            .collect::<Result<Vec<Rgb8>>>()?;
        let shown = inputs.iter().step_by(EVERY).cloned().collect();
        let classifier = load_encoder(&classifier, &LoadOptions::default())?;
        context.notes(&classifier.notes);
        Ok(Self {
            x0: to_tensor(&inputs, &form())?,
            inputs,
            classes: source.labels().to_vec(),
            judge: load_judge()?,
            classifier,
            rows: Vec::new(),
            picture: vec![shown],
        })
    }

    /// Adds the rows of a method whose models, one for each seed, are in these files.
    pub(crate) fn add(
        &mut self,
        label: &str,
        models: &[String],
        context: &mut Context<'_>,
    ) -> Result<()> {
        for method in [TranslationMethod::Sdedit, TranslationMethod::Egsde] {
            let mut rows = Vec::new();
            for (seed, file) in models.iter().enumerate() {
                let model = load_source(file, &LoadOptions::default(), context)?;
                let variant = Variant {
                    t0: Some(T0),
                    repeats: Some(1),
                    lambda_s: Some(500.0),
                    lambda_i: Some(2.0),
                    factor: Some(model.architecture.image_size() / 8),
                    ..Variant::default()
                };
                let walk = WalkKind::Part;
                let plan = TranslatePlan::as_in_the_paper(method, walk, variant, &model, context);
                let models = TranslationModels {
                    model: &model,
                    source: None,
                    classifier: Some(&self.classifier),
                    guide: None,
                    mask: None,
                };
                let seed_of_noise = NOISE_SEED + seed as u64;
                let images = translations(&plan, models, &self.x0, seed_of_noise, context)?;
                rows.push(self.measure(&images)?);
                if seed == 0 {
                    self.picture
                        .push(images.into_iter().step_by(EVERY).collect());
                }
            }
            let name = match method {
                TranslationMethod::Egsde => "EGSDE",
                _ => "SDEdit",
            };
            self.rows.push((format!("{name}, {label}"), rows));
        }
        Ok(())
    }

    fn measure(&self, images: &[Rgb8]) -> Result<Measured> {
        // Classified and compared like files, after rounding to 8 bits.
        let kept = score_kept(&self.judge, &to_tensor(images, &form())?, &self.classes)?;
        let (mut psnrs, mut ssims) = (0.0, 0.0);
        for (a, b) in self.inputs.iter().zip(images) {
            let a = Picture::rgb8(&a.pixels, a.width, a.height)?;
            let b = Picture::rgb8(&b.pixels, b.width, b.height)?;
            psnrs += psnr(&a, &b)?;
            ssims += ssim(&a, &b, SsimWindow::Gaussian11)?;
        }
        let n = images.len() as f64;
        Ok(Measured {
            n: kept.n,
            kept: kept.class,
            style: kept.style,
            both: kept.both,
            psnr: psnrs / n,
            ssim: ssims / n,
        })
    }

    /// Writes the table, and the picture of the first seed.
    pub(crate) fn finish(&self, out: &Path) -> Result<Report> {
        let text = markdown("translation", &COLUMNS, &self.rows);
        let numbers = numbers("translation", &self.rows);
        let names = self.rows.iter().map(|(label, _)| label.clone());
        let names = std::iter::once("inputs".to_owned()).chain(names);
        let rows = names.zip(self.picture.iter().cloned());
        write_table(out, "translation", (text, READING), &numbers, rows)
    }
}
