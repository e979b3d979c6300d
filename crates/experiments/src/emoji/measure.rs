//! What is measured of the samples of a model on emoji.

use super::generation::form;
use super::study::Judges;
use candle_core::Tensor;
use sdft_eval::{
    EmojiJudged, aligned_distance, copied, judge_emoji, nearest_first, retained_emoji, score_emoji,
    share_retained,
};
use sdft_imaging::Rgb8;
use sdft_jobs::Result;
use sdft_metrics::{Features, KidOptions, mmd2_unbiased};
use sdft_train::to_tensor;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// The measurements of one model's samples, or of real pictures.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) n: usize,
    pub(crate) coverage: f64,
    pub(crate) women: f64,
    pub(crate) dark: f64,
    pub(crate) glasses: f64,
    pub(crate) hats: f64,
    pub(crate) sad_or_angry: f64,
    pub(crate) animals: f64,
    pub(crate) other: f64,
    pub(crate) style: f64,
    pub(crate) retained: Option<f64>,
    pub(crate) aligned: Option<f64>,
    pub(crate) kid_x1000: Option<f64>,
    pub(crate) copied: Option<f64>,
    /// The samples that come nearest to a picture that their model was trained on.
    pub(crate) nearest: Vec<Near>,
}

/// A sample and the nearest picture of a training set.
#[derive(Serialize, Deserialize)]
pub(crate) struct Near {
    pub(crate) sample: usize,
    pub(crate) picture: usize,
    /// Whether the mirrored picture is nearest.
    pub(crate) mirrored: bool,
    /// Root mean squared difference of values in [-1, 1].
    pub(crate) distance: f64,
}

/// The judges, and what samples are compared with.
pub(crate) struct Measure {
    pub(super) judges: Judges,
    pub(super) fluent: Vec<Rgb8>,
    /// Features of the Fluent pictures, once they are needed.
    domain: OnceCell<Features>,
    /// The samples of the source model, and how they are judged.
    source: Tensor,
    judged_source: Vec<EmojiJudged>,
}

impl Measure {
    /// Compares with the samples of the source model and with pictures of the target domain.
    pub(crate) fn new(source: &[Rgb8], fluent: Vec<Rgb8>) -> Result<Self> {
        let (judges, source) = (Judges::embedded()?, to_tensor(source, &form())?);
        Ok(Self {
            judged_source: judge_emoji(&judges.both, &source)?,
            judges,
            fluent,
            domain: OnceCell::new(),
            source,
        })
    }

    /// The hash of the judges' weights.
    pub(crate) fn weights(&self) -> &str {
        &self.judges.weights
    }

    /// The samples of a model that was trained on `learned`.
    pub(crate) fn samples(&self, images: &[Rgb8], learned: &[Rgb8]) -> Result<Row> {
        let samples = to_tensor(images, &form())?;
        let copies = copied(&samples, &to_tensor(learned, &form())?)?;
        let nearest = nearest_first(&copies.nearest);
        let judged = judge_emoji(&self.judges.both, &samples)?;
        Ok(Row {
            retained: share_retained(&retained_emoji(&self.judged_source, &judged)?),
            aligned: Some(aligned_distance(
                self.judges.first(),
                &self.source,
                &samples,
            )?),
            kid_x1000: Some(self.kid(images)?),
            copied: Some(copies.share),
            nearest: nearest
                .into_iter()
                .map(|sample| Near {
                    sample,
                    picture: copies.nearest[sample].index,
                    mirrored: copies.mirrored[sample],
                    distance: copies.nearest[sample].distance,
                })
                .collect(),
            ..row_of(&judged)?
        })
    }

    /// Real pictures.
    pub(super) fn pictures(&self, pictures: &[Rgb8]) -> Result<Row> {
        let is_domain = pictures == self.fluent;
        let judged = judge_emoji(&self.judges.both, &to_tensor(pictures, &form())?)?;
        Ok(Row {
            kid_x1000: (!is_domain).then(|| self.kid(pictures)).transpose()?,
            ..row_of(&judged)?
        })
    }

    /// KID against the Fluent pictures, x1000.
    fn kid(&self, images: &[Rgb8]) -> Result<f64> {
        let extractor = &self.judges.features;
        let features = Features::new(extractor.extract(images)?, extractor.dim())?;
        let domain = match self.domain.get() {
            Some(domain) => domain,
            None => {
                let all = extractor.extract(&self.fluent)?;
                let all = Features::new(all, extractor.dim())?;
                self.domain.get_or_init(|| all)
            }
        };
        Ok(1e3 * mmd2_unbiased(domain, &features, &KidOptions::default())?)
    }
}

/// What the judges alone see.
fn row_of(judged: &[EmojiJudged]) -> Result<Row> {
    let score = score_emoji(judged)?;
    let [women, dark, glasses, hats, sad_or_angry, animals] = score.attributes;
    Ok(Row {
        n: score.n,
        coverage: score.coverage,
        women,
        dark,
        glasses,
        hats,
        sad_or_angry,
        animals,
        other: score.other,
        style: score.style,
        retained: None,
        aligned: None,
        kid_x1000: None,
        copied: None,
        nearest: Vec::new(),
    })
}
