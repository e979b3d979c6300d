//! Measures folders of images.
//!
//! [`ImageSet`] measures a folder with an [`Extractor`] and keeps the feature vectors in a [`FeatureCache`]. [`compare_sets`] computes FID, KID,
//! precision, recall and memorisation of two sets, [`intra_lpips`] the diversity of few-shot generation; [`compare_pairs`] computes PSNR, SSIM, LPIPS and identity of inputs and outputs. A [`Report`] has the
//! settings of each number, and a warning if it cannot be trusted.
//!
//! In the embedded sets the classes or attributes are known, so expressiveness can be counted: [`score_digits`] classifies the digit and the
//! style of each sample with [`sdft_features::DigitsJudge`], [`judge_emoji`] the style and the attributes with an
//! [`sdft_features::AttributeJudge`]. [`train_judge`] and [`train_emoji_judge`] train these judges.
//!
//! ```text
//! coverage = share of samples of a class or attribute absent from the target set (probability > 0.8) AND in the target style
//! style    = share of samples in the target style
//! aligned  = mean over the pixels of the squared distance between unit features of paired samples, summed over the layers
//! ```
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_eval::score_digits;
//! use sdft_features::DigitsJudge;
//! use sdft_nn::Params;
//!
//! let judge = DigitsJudge::load(&Params::init(&DigitsJudge::specs()?, 0, &Device::Cpu)?)?;
//! let samples = Tensor::zeros((4, 3, 16, 16), DType::F32, &Device::Cpu)?;
//! let score = score_digits(&judge, &samples, &[1, 4, 7])?;
//! assert_eq!((score.n, score.coverage), (4, 0.0)); // an untrained judge has no confidence
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** measures images only; draws no samples from models.

pub use crate::{
    cache::FeatureCache,
    copies::{Copies, copied},
    distance::aligned_distance,
    emoji::{
        EMOJI_ATTRIBUTES, EMOJI_OTHER, EmojiAttribute, EmojiEditScore, EmojiJudged, EmojiKeptScore,
        EmojiScore, EmojiValues, features_of_values, judge_emoji, retained_emoji,
        score_edited_emoji, score_emoji, score_kept_emoji, share_retained,
    },
    error::{EvalError, Result},
    extractor::{Extractor, SetFeatures, View, hash_of},
    intra::{IntraCluster, IntraLpips, check_few_shot, intra_lpips},
    judge::{
        EmojiJudgeReport, HeadReport, JudgeReport, ValueReport, emoji_judge_config,
        evaluate_emoji_judges, train_emoji_judge, train_judge,
    },
    loaded::PairOptions,
    pairing::{Pair, Pairing, pair_up},
    pairs::{PairNets, compare_pairs},
    report::{Measure, Report},
    score::{DigitsScore, KeptScore, class_features, score_digits, score_kept, tint},
    set::{ImageSet, of_files},
    sets::{SetOptions, compare_sets},
    strip::{nearest_first, neighbour_strip},
    text::{
        direction_of_texts, features_of_text, read_clip, text_as_it_stands, texts_through_templates,
    },
};

mod archive;
mod cache;
mod copies;
mod distance;
mod emoji;
mod error;
mod extractor;
mod intra;
mod judge;
mod loaded;
mod native;
mod pairing;
mod pairs;
mod peers;
mod perceptual;
mod report;
mod score;
mod set;
mod sets;
mod strip;
mod text;
