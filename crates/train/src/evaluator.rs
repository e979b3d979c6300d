//! How good the samples are while the model changes: KID against the training images, on fixed noise.

use crate::error::{Result, TrainError};
use crate::learner::Learner;
use crate::plan::{BestBy, Plan};
use crate::preview::{Choice, Samples, to_tensor};
use crate::progress::Progress;
use candle_core::Device;
use sdft_autoencoder::Space;
use sdft_data::{Digits, Emoji, ImageSource};
use sdft_eval::{
    Extractor, ImageSet, judge_emoji, nearest_first, neighbour_strip, score_digits, score_emoji,
};
use sdft_features::{AttributeJudge, DigitsJudge};
use sdft_imaging::{ImageSpec, Rgb8};
use sdft_metrics::{
    Features, KidOptions, Neighbour, memorisation, mmd2_error, mmd2_unbiased, nearest,
};
use std::sync::Arc;

/// The address of the evaluation's noise. The grids have step 0.
const NOISE_STEP: u64 = 1;

/// The networks that judge samples.
pub struct Evaluator {
    /// The network in whose features samples are compared with the training images.
    pub extractor: Extractor,
    /// Of an embedded set: the judge of its images.
    pub judge: Option<SampleJudge>,
}

/// The judge of an embedded set.
pub enum SampleJudge {
    /// Of the digits, with the classes of the training images.
    Digits(DigitsJudge, Vec<u8>),
    /// Of the emoji, one or several.
    Emoji(Vec<AttributeJudge>),
}

impl SampleJudge {
    /// Width and height of its images.
    fn side(&self) -> usize {
        match self {
            Self::Digits(..) => Digits::SIZE,
            Self::Emoji(_) => Emoji::SIZE,
        }
    }

    /// The coverage of samples, and the share in the target's style.
    fn score(&self, images: &[Rgb8]) -> Result<[f64; 2]> {
        let x = to_tensor(images, &ImageSpec::rgb8(self.side(), self.side()))?;
        Ok(match self {
            Self::Digits(judge, present) => {
                let score = score_digits(judge, &x, present)?;
                [score.coverage, score.style]
            }
            Self::Emoji(judges) => {
                let score = score_emoji(&judge_emoji(judges, &x)?)?;
                [score.coverage, score.style]
            }
        })
    }
}

impl Evaluator {
    /// An image as the networks see it: a judge takes images of its size, Inception and DINOv2 of any size.
    fn seen(&self, image: Rgb8) -> Rgb8 {
        match self.judge.as_ref().map(SampleJudge::side) {
            Some(side) if [image.width, image.height] != [side; 2] => {
                sdft_imaging::center_crop(&image, side)
            }
            _ => image,
        }
    }
}

/// An evaluator with the features of the training images.
pub(crate) struct Evaluation {
    evaluator: Evaluator,
    data: Arc<dyn ImageSource>,
    reference: Features,
    samples: Samples,
    by: BestBy,
}

/// The result of an evaluation.
pub(crate) struct EvalReport {
    /// Names and values for the log.
    pub(crate) values: Vec<(String, f64)>,
    /// What the best checkpoint is chosen by; smaller is better.
    pub(crate) score: f64,
    /// Samples next to the training images that are nearest to them.
    pub(crate) strip: Option<Rgb8>,
}

impl Evaluation {
    /// Reads and measures the training images.
    pub(crate) fn new<M>(
        evaluator: Evaluator,
        plan: &Plan<M>,
        learner: &Learner,
        data: Arc<dyn ImageSource>,
        space: Space,
        device: &Device,
    ) -> Result<Self> {
        let images = (0..data.len()).map(|i| Ok(evaluator.seen(data.screen(i)?)));
        let label = "the training images".to_owned();
        let set = ImageSet::of_images(label, images, &evaluator.extractor, &mut |_, _| {})?;
        let Some(reference) = set.features.filter(|features| features.n() >= 2) else {
            return Err(TrainError::Evaluation(
                "KID needs at least 2 training images".into(),
            ));
        };
        let choice = Choice {
            n: plan.eval.samples,
            respacing: &plan.eval.sampler.parse()?,
            number: NOISE_STEP,
        };
        Ok(Self {
            evaluator,
            samples: Samples::new(plan, learner, choice, space, device)?,
            data,
            reference,
            by: plan.eval.best,
        })
    }

    /// Samples the averaged weights after `step` steps and measures the samples.
    pub(crate) fn evaluate(
        &self,
        learner: &Learner,
        step: u64,
        progress: &mut dyn Progress,
    ) -> Result<EvalReport> {
        let drawn = self.samples.averaged(learner, progress)?;
        let images: Vec<Rgb8> = drawn
            .into_iter()
            .map(|image| self.evaluator.seen(image))
            .collect();
        let extractor = &self.evaluator.extractor;
        let metric = |source| TrainError::Evaluation(format!("step {step}: {source}"));
        let features =
            Features::new(extractor.extract(&images)?, extractor.dim()).map_err(metric)?;
        let options = KidOptions::default();
        let kid = mmd2_unbiased(&self.reference, &features, &options);
        let kid = 1e3 * kid.map_err(metric)?;
        let neighbours = nearest(&features, &self.reference).map_err(metric)?;
        let mut distances: Vec<f64> = neighbours.iter().map(|n| n.distance).collect();
        distances.sort_by(f64::total_cmp);
        let memorised = memorisation(&self.reference, &features).map_err(metric)?;
        let mut values = vec![
            ("eval.kid".to_owned(), kid),
            ("eval.nearest".to_owned(), distances[distances.len() / 2]),
            ("eval.memorised".to_owned(), memorised.ratio),
        ];
        // Two samples have no standard error.
        if features.n() > 2 {
            let error = mmd2_error(&self.reference, &features, &options).map_err(metric)?;
            values.insert(1, ("eval.kid_error".to_owned(), 1e3 * error));
        }
        let mut score = kid;
        if let Some(judge) = &self.evaluator.judge {
            let [coverage, style] = judge.score(&images)?;
            values.push(("eval.coverage".to_owned(), coverage));
            values.push(("eval.style".to_owned(), style));
            if self.by == BestBy::Coverage {
                score = -coverage;
            }
        }
        Ok(EvalReport {
            values,
            score,
            strip: self.strip(&images, &neighbours, step)?,
        })
    }

    /// The samples that come nearest to a training image.
    fn strip(&self, images: &[Rgb8], neighbours: &[Neighbour], step: u64) -> Result<Option<Rgb8>> {
        let mut pairs = Vec::new();
        for i in nearest_first(neighbours) {
            let nearest = self.data.screen(neighbours[i].index)?;
            pairs.push((images[i].clone(), self.evaluator.seen(nearest)));
        }
        Ok(neighbour_strip(
            &pairs,
            &format!("step {step} / nearest training image"),
        ))
    }
}
