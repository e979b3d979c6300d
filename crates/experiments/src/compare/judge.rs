//! How the samples of the compared models are measured: by judges of digits and emoji, otherwise by Inception's features.

use super::samples::Samples;
use crate::digits;
use crate::emoji::{EmojiMeasure, EmojiRow, all_pictures};
use crate::paper::value;
use crate::table::Column;
use candle_core::Device;
use sdft_data::{Emoji, EmojiStyle, ImageSource};
use sdft_eval::{
    Extractor, FeatureCache, ImageSet, SetOptions, View, compare_sets, judge_emoji, of_files,
};
use sdft_features::InceptionResize;
use sdft_imaging::Rgb8;
use sdft_jobs::{Context, Files, Result, load_emoji_judges};
use sdft_train::to_tensor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::path::Path;

/// The measurements of the samples of a model.
pub(crate) trait Judge {
    /// The numbers of one model.
    type Row: Serialize + DeserializeOwned + 'static;
    /// Their columns.
    const COLUMNS: &'static [Column<Self::Row>];
    /// How to read them.
    const READING: &'static str;

    /// What the numbers depend on in addition to the images: hashes of weights and of the images that are compared with.
    fn basis(&self) -> String;

    /// The numbers of these samples.
    fn measure(&self, samples: &Samples, context: &mut Context<'_>) -> Result<Self::Row>;

    /// Which of the images to mark in the picture.
    fn marks(&self, images: &[Rgb8]) -> Result<Vec<bool>> {
        Ok(vec![false; images.len()])
    }
}

/// The judge of the embedded digits.
pub(super) struct OfDigits {
    judges: digits::Judges,
    source: Vec<Rgb8>,
}

impl OfDigits {
    pub(super) fn new(source: Vec<Rgb8>) -> Result<Self> {
        let judges = digits::Judges::new()?;
        Ok(Self { judges, source })
    }
}

impl Judge for OfDigits {
    type Row = digits::Row;
    const COLUMNS: &'static [Column<digits::Row>] = &[
        ("coverage", 3, |r| r.coverage),
        ("style", 3, |r| r.style),
        ("tint", 2, |r| r.tint),
        ("aligned", 2, |r| r.aligned),
        ("KID x1000", 0, |r| r.kid_x1000),
        ("FID", 1, |r| r.fid),
    ];
    const READING: &'static str = "\
coverage  share of samples of classes absent from the target set, in its style         higher is better
style     share of samples in the target's style; tint: how far the background's colour moved to the target's, 1 is all the way
aligned   distance to the source model's sample from the same noise                   lower keeps more
KID, FID  against the whole target domain, all ten classes, on the judge's features    lower is better";

    fn basis(&self) -> String {
        self.judges.weights().to_owned()
    }

    fn measure(&self, samples: &Samples, _: &mut Context<'_>) -> Result<digits::Row> {
        let images = &samples.first(usize::MAX)?;
        let tensor = |images: &[Rgb8]| to_tensor(images, &digits::form());
        self.judges
            .measure(&tensor(images)?, &tensor(&self.source)?)
    }
}

/// The judges of the embedded emoji.
pub(super) struct OfEmoji {
    measure: EmojiMeasure,
    /// The target set.
    target: Vec<Rgb8>,
}

impl OfEmoji {
    pub(super) fn new(source: &[Rgb8], target: &dyn ImageSource) -> Result<Self> {
        let fluent = all_pictures(&Emoji::embedded()?, EmojiStyle::Fluent);
        let target = (0..target.len()).map(|i| target.screen(i));
        Ok(Self {
            measure: EmojiMeasure::new(source, fluent)?,
            target: target.collect::<sdft_data::Result<_>>()?,
        })
    }
}

impl Judge for OfEmoji {
    type Row = EmojiRow;
    const COLUMNS: &'static [Column<EmojiRow>] = &[
        ("coverage", 2, |r| r.coverage),
        ("style", 2, |r| r.style),
        ("retained", 2, |r| r.retained.unwrap_or(f64::NAN)),
        ("aligned", 2, |r| r.aligned.unwrap_or(f64::NAN)),
        ("KID x1000", 0, |r| r.kid_x1000.unwrap_or(f64::NAN)),
        ("copied", 2, |r| r.copied.unwrap_or(f64::NAN)),
    ];
    const READING: &'static str = "\
coverage  share of samples in the target's style with an attribute that the target set lacks   higher is better
style     share of samples in the target's style                                            higher is better
retained  of the source's samples with such an attribute, the share that still has one in the new style   higher is better
aligned   distance to the source model's sample from the same noise                         lower keeps more
KID       against all pictures of the target's style, on the judge's features               lower is better
copied    share of samples that nearly equal a picture of the target set                    lower is better
In the picture, samples that count for coverage have a frame.";

    fn basis(&self) -> String {
        self.measure.weights().to_owned()
    }

    fn measure(&self, samples: &Samples, _: &mut Context<'_>) -> Result<EmojiRow> {
        self.measure
            .samples(&samples.first(usize::MAX)?, &self.target)
    }

    fn marks(&self, images: &[Rgb8]) -> Result<Vec<bool>> {
        let judged = judge_emoji(
            &load_emoji_judges()?,
            &to_tensor(images, &crate::emoji::form())?,
        )?;
        Ok(judged.iter().map(|seen| seen.is_covered()).collect())
    }
}

/// Inception's features of a folder of images.
pub(super) struct OfFolder {
    extractor: Extractor,
    cache: RefCell<FeatureCache>,
    target: ImageSet,
}

/// The numbers of samples next to a folder of images.
#[derive(Serialize, Deserialize)]
pub(crate) struct FolderRow {
    fid: f64,
    kid_x1000: f64,
    precision: f64,
    recall: f64,
}

impl OfFolder {
    pub(super) fn open(
        inception: &Files,
        target: &Path,
        cache: &Path,
        device: &Device,
    ) -> Result<Self> {
        let view = View::Inception(InceptionResize::default());
        let extractor = Extractor::read(view, &inception.weights, device)?;
        let mut cache = FeatureCache::open(cache, &extractor.cache_key(), extractor.dim())?;
        let target = ImageSet::open(target, &extractor, &mut cache, &mut |_, _| {})?;
        Ok(Self {
            extractor,
            cache: RefCell::new(cache),
            target,
        })
    }
}

impl Judge for OfFolder {
    type Row = FolderRow;
    const COLUMNS: &'static [Column<FolderRow>] = &[
        ("FID", 2, |r| r.fid),
        ("KID x1000", 2, |r| r.kid_x1000),
        ("precision", 3, |r| r.precision),
        ("recall", 3, |r| r.recall),
    ];
    const READING: &'static str = "\
FID, KID  against the files of the target images, as `evaluate` reads them, on Inception's features   lower is better
precision share of samples that look like target images, recall: share of target images that samples look like";

    fn basis(&self) -> String {
        self.extractor.describe()
    }

    fn measure(&self, samples: &Samples, context: &mut Context<'_>) -> Result<FolderRow> {
        let files = samples.files()?;
        let cache = &mut *self.cache.borrow_mut();
        let (features, _) = of_files(&files, &self.extractor, cache, &mut |_, _| {})?;
        let fake = ImageSet::of_features("samples".to_owned(), files, features)?;
        let (report, _) = compare_sets(&self.target, &fake, &SetOptions::default())?;
        context.notes(&report.warnings);
        Ok(FolderRow {
            fid: value(&report, "FID"),
            kid_x1000: value(&report, "KID x1000"),
            precision: value(&report, "precision"),
            recall: value(&report, "recall"),
        })
    }
}
