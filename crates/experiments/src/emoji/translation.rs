//! Table 1 on emoji: pictures that the target set has nothing like, from Noto to Fluent, next to the true answers.

use super::generation::form;
use super::sets::to_translate;
use super::{Judges, NOISE_SEED, PASSES_PER_SECOND, Study, Trained};
use crate::draw::translations;
use crate::emoji::EmojiScale;
use crate::kept::{Kept, Part};
use crate::methods::{Method, interrupted};
use crate::table::{Column, Report, markdown, numbers, write_table};
use candle_core::Tensor;
use sdft_data::{Emoji, EmojiStyle};
use sdft_eval::{aligned_distance, judge_emoji, score_kept_emoji};
use sdft_imaging::Rgb8;
use sdft_jobs::{
    Context, Result, TranslatePlan, TranslationMethod, TranslationModels, Variant, WalkKind,
    train_classifier_preset,
};
use sdft_metrics::{Picture, SsimWindow, psnr, ssim};
use sdft_models::{LoadOptions, LoadedEncoder, load_encoder};
use sdft_train::to_tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How far SDEdit and EGSDE noise inputs.
const T0: f64 = 0.5;
/// Steps of ILVR for two steps of the others, as `translate` has them: 100 and 40.
const ILVR_STEPS: usize = 5;
/// The picture shows one input out of this many.
const EVERY: usize = 4;
/// The preset of EGSDE's classifier, and about how long its training takes on two cores.
const CLASSIFIER: &str = "emoji-classifier";
const CLASSIFIER_SECONDS: f64 = 20.0;

/// How to read the table.
const READING: &str = "\
kept      share of inputs that still have their kind, skin tone, gender, glasses and hat; style: share in the target's style; both: what a
          translation is for
PSNR, SSIM          against the input: they reward what is left as it was, its style too
true PSNR, true     against the Fluent picture of the same emoji: PSNR (higher is better), and the distance in the judge's layers
distance            (lower is better)
The first row has the inputs themselves, so a translation below it in true PSNR is further from the true answer than no translation.";

const COLUMNS: [Column<Measured>; 7] = [
    ("kept", 2, |r| r.kept),
    ("style", 2, |r| r.style),
    ("both", 2, |r| r.both),
    ("PSNR", 2, |r| r.psnr.unwrap_or(f64::NAN)),
    ("SSIM", 3, |r| r.ssim.unwrap_or(f64::NAN)),
    ("true PSNR", 2, |r| r.true_psnr),
    ("true distance", 2, |r| r.true_distance),
];

/// The measurements of one model's translations.
#[derive(Serialize, Deserialize)]
struct Measured {
    n: usize,
    kind: f64,
    tone: f64,
    gender: f64,
    kept: f64,
    style: f64,
    both: f64,
    psnr: Option<f64>,
    ssim: Option<f64>,
    true_psnr: f64,
    true_distance: f64,
}

/// A way to translate.
struct Way {
    method: TranslationMethod,
    name: &'static str,
    /// Passes of the network for each step of the sampler.
    passes: f64,
}

const WAYS: [Way; 4] = [
    Way {
        method: TranslationMethod::Sdedit,
        name: "SDEdit",
        passes: T0,
    },
    Way {
        method: TranslationMethod::Egsde,
        name: "EGSDE",
        passes: 3.0 * T0,
    },
    Way {
        method: TranslationMethod::Ddib,
        name: "DDIB",
        passes: 2.0,
    },
    Way {
        method: TranslationMethod::Ilvr,
        name: "ILVR",
        passes: ILVR_STEPS as f64 / 2.0,
    },
];

impl Way {
    /// About how long the translations of a model take on two cores.
    fn seconds(&self, scale: &EmojiScale) -> f64 {
        // Eight groups.
        let passes = self.passes * (8 * scale.inputs * scale.steps) as f64;
        passes / PASSES_PER_SECOND
    }
}

/// Announces the parts of `models` models.
pub(super) fn expect(models: usize, scale: &EmojiScale, kept: &mut Kept) {
    kept.expect(1, CLASSIFIER_SECONDS);
    for way in WAYS {
        kept.expect(models, way.seconds(scale));
    }
}

/// Translations by the models, and their table.
pub(super) struct Translations {
    emoji: Emoji,
    /// Indices of the inputs.
    chosen: Vec<usize>,
    inputs: Vec<Rgb8>,
    /// The true answers.
    truth: Vec<Rgb8>,
    x0: Tensor,
    judges: Judges,
    classifier: LoadedEncoder,
    rows: Vec<(String, Vec<Measured>)>,
    picture: Vec<(String, Vec<Rgb8>)>,
}

impl Translations {
    /// Trains the classifier, unless it exists.
    pub(super) fn new(study: &mut Study<'_>, context: &mut Context<'_>) -> Result<Self> {
        let options = study.options;
        let root = options.out.join("classifier");
        let is_finished = root.join("final.safetensors").is_file();
        let part = Part {
            name: "classifier",
            images: 0,
            seconds: CLASSIFIER_SECONDS,
        };
        let classifier = study.kept.run(&part, is_finished, context, |context| {
            let set: Vec<&str> = options
                .scale
                .classifier
                .iter()
                .map(String::as_str)
                .collect();
            train_classifier_preset(CLASSIFIER, &set, &root, context)?.ok_or_else(interrupted)
        })?;
        let classifier = load_encoder(&classifier, &LoadOptions::default())?;
        context.notes(&classifier.notes);
        let emoji = Emoji::embedded()?;
        let chosen = to_translate(&emoji, options.scale.inputs)?;
        let pictures = |style| -> Vec<Rgb8> {
            let all = chosen.iter();
            all.filter_map(|&i| emoji.picture(i, style)).collect()
        };
        let (inputs, truth) = (pictures(EmojiStyle::Noto), pictures(EmojiStyle::Fluent));
        let mut all = Self {
            x0: to_tensor(&inputs, &form())?,
            judges: Judges::embedded()?,
            picture: vec![("inputs".to_owned(), every(&inputs))],
            inputs,
            truth,
            classifier,
            rows: Vec::new(),
            chosen,
            emoji,
        };
        let unchanged = Measured {
            psnr: None,
            ssim: None,
            ..all.measure(&all.inputs)?
        };
        all.rows.push(("the inputs".to_owned(), vec![unchanged]));
        Ok(all)
    }

    /// Translates by a model in every way, and measures the results, unless that is done.
    pub(super) fn add(
        &mut self,
        method: &Method,
        trained: &Trained,
        study: &mut Study<'_>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let n = self.inputs.len();
        for way in WAYS {
            let name = format!("translations/{}-{}", way.name.to_lowercase(), trained.run);
            let part = Part {
                name: &name,
                images: n,
                seconds: way.seconds(&study.options.scale),
            };
            let plan = plan(&way, trained, study.options.scale.steps, context);
            let source = &study.source;
            let seed = NOISE_SEED + trained.seed as u64;
            let made_of = format!(
                "{} {} {} {} {} {:?} {seed}",
                study.basis,
                serde_json::to_string(&plan)?,
                trained.model.sha256,
                source.sha256,
                self.classifier.sha256,
                self.chosen
            );
            let images = study.kept.images(&part, &made_of, context, |context| {
                let models = TranslationModels {
                    model: &trained.model,
                    source: (way.method == TranslationMethod::Ddib).then_some(source),
                    classifier: (way.method == TranslationMethod::Egsde)
                        .then_some(&self.classifier),
                    guide: None,
                    mask: None,
                };
                translations(&plan, models, &self.x0, seed, context)
            })?;
            let row = study
                .kept
                .numbers(&part, &self.judges.weights, || self.measure(&images))?;
            let label = format!("{}, {}", way.name, method.label);
            if trained.seed == 0 {
                self.picture.push((label.clone(), every(&images)));
            }
            match self.rows.iter_mut().find(|(known, _)| *known == label) {
                Some((_, rows)) => rows.push(row),
                None => self.rows.push((label, vec![row])),
            }
        }
        Ok(())
    }

    fn measure(&self, images: &[Rgb8]) -> Result<Measured> {
        let x = to_tensor(images, &form())?;
        let entries: Vec<_> = self
            .chosen
            .iter()
            .map(|&i| &self.emoji.entries()[i])
            .collect();
        let kept = score_kept_emoji(&judge_emoji(&self.judges.both, &x)?, &entries)?;
        let (mut psnrs, mut ssims, mut true_psnrs) = (0.0, 0.0, 0.0);
        for ((input, truth), image) in self.inputs.iter().zip(&self.truth).zip(images) {
            let [input, truth, image] = [input, truth, image]
                .map(|picture| Picture::rgb8(&picture.pixels, picture.width, picture.height));
            let (input, truth, image) = (input?, truth?, image?);
            psnrs += psnr(&input, &image)?;
            ssims += ssim(&input, &image, SsimWindow::Gaussian11)?;
            true_psnrs += psnr(&truth, &image)?;
        }
        let n = images.len() as f64;
        Ok(Measured {
            n: kept.n,
            kind: kept.kind,
            tone: kept.tone,
            gender: kept.gender,
            kept: kept.kept,
            style: kept.style,
            both: kept.both,
            psnr: Some(psnrs / n),
            ssim: Some(ssims / n),
            true_psnr: true_psnrs / n,
            true_distance: aligned_distance(
                self.judges.first(),
                &to_tensor(&self.truth, &form())?,
                &x,
            )?,
        })
    }

    /// Writes the table, and the picture of the first seed with the true answers below it.
    pub(super) fn finish(mut self, out: &Path) -> Result<Report> {
        // Methods of one way are compared, so they stand next to each other.
        let place = |label: &str| {
            let mut ways = WAYS.iter().map(|way| way.name);
            ways.position(|name| label.starts_with(name))
        };
        self.rows.sort_by_key(|(label, _)| place(label));
        self.picture.sort_by_key(|(label, _)| place(label));
        self.picture
            .push(("true answers".to_owned(), every(&self.truth)));
        let text = markdown("translation", &COLUMNS, &self.rows);
        let numbers = numbers("translation", &self.rows);
        let rows = self.picture.into_iter();
        write_table(out, "translation", (text, READING), &numbers, rows)
    }
}

/// The images in the picture.
fn every(images: &[Rgb8]) -> Vec<Rgb8> {
    images.iter().step_by(EVERY).cloned().collect()
}

/// The plan of a translation with the program's default strengths.
fn plan(way: &Way, trained: &Trained, steps: usize, context: &Context<'_>) -> TranslatePlan {
    let variant = Variant {
        t0: Some(T0),
        repeats: Some(1),
        lambda_s: Some(500.0),
        lambda_i: Some(2.0),
        factor: Some(Emoji::SIZE / 8),
        ..Variant::default()
    };
    let (walk, model) = (WalkKind::Part, &trained.model);
    let plan = TranslatePlan::as_in_the_paper(way.method, walk, variant, model, context);
    let is_ilvr = way.method == TranslationMethod::Ilvr;
    TranslatePlan {
        steps: Some(match is_ilvr {
            true => (ILVR_STEPS * steps / 2).to_string(),
            false => format!("ddim{steps}"),
        }),
        // As `translate` has it: a fifth of the steps.
        free: is_ilvr.then_some(steps / 2),
        ..plan
    }
}
