//! Options of measurements.

use crate::cache::CacheLocation;
use crate::choice::{Choice, by_name};
use crate::error::{Result, usage};
use crate::weights::Weights;
use sdft_eval::{Pairing, SetFeatures};
use sdft_features::{InceptionResize, LpipsNet};
use std::path::PathBuf;

/// A measurement of pairs that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairPart {
    /// LPIPS.
    Lpips,
    /// The cosine of faces, by IR-SE50.
    Identity,
}

impl Choice for PairPart {
    const ALL: &'static [(Self, &'static str, &'static str)] =
        &[(Self::Lpips, "lpips", ""), (Self::Identity, "identity", "")];
}

/// A network of CLIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipModel {
    /// ViT-B/16.
    B16,
    /// ViT-B/32.
    B32,
}

impl Choice for ClipModel {
    const ALL: &'static [(Self, &'static str, &'static str)] =
        &[(Self::B16, "b16", ""), (Self::B32, "b32", "")];
}

impl ClipModel {
    /// Side of its patches in pixels.
    pub fn patch(self) -> usize {
        match self {
            Self::B16 => 16,
            Self::B32 => 32,
        }
    }
}

by_name!(PairPart, ClipModel);

impl Choice for SetFeatures {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Inception, "inception", "FID, KID"),
        (Self::Dinov2, "dinov2", "FD-DINOv2, KD-DINOv2"),
    ];
}

impl Choice for LpipsNet {
    const ALL: &'static [(Self, &'static str, &'static str)] =
        &[(Self::Alex, "alex", ""), (Self::Vgg, "vgg", "")];
}

impl Choice for Pairing {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Name,
            "name",
            "The same path inside the folder, extensions apart",
        ),
        (Self::Order, "order", "The i-th with the i-th, both sorted"),
    ];
}

/// Two sets of images to compare.
#[derive(Clone, Debug)]
pub struct SetsOptions {
    /// The real images: a folder, an `.npz` of statistics or images, an `.npy` of images, or the name of embedded images.
    pub real: PathBuf,
    /// The generated images: a folder, an `.npz` or an `.npy`.
    pub fake: PathBuf,
    /// The network whose features are compared.
    pub features: SetFeatures,
    /// How images are resized for Inception.
    pub resize: InceptionResize,
    /// The folder of the few training images for Intra-LPIPS, if it is to be measured.
    pub intra_lpips: Option<PathBuf>,
    /// Subsets of KID.
    pub kid_subsets: usize,
    /// Images of a subset of KID; fewer where there are fewer.
    pub kid_size: u32,
    /// Seed of the subsets; torch-fidelity's own draw if `None`.
    pub kid_seed: Option<u32>,
    /// The neighbour that sets the radius of precision and recall.
    pub neighbours: usize,
    /// The `.npz` file for the statistics of the real images.
    pub save_real: Option<PathBuf>,
    /// The `.npz` file for the statistics of the generated images.
    pub save_fake: Option<PathBuf>,
    /// Files, networks and results.
    pub common: EvaluateOptions,
}

impl Default for SetsOptions {
    fn default() -> Self {
        Self {
            real: PathBuf::new(),
            fake: PathBuf::new(),
            features: SetFeatures::default(),
            resize: InceptionResize::default(),
            intra_lpips: None,
            kid_subsets: 100,
            kid_size: 1000,
            kid_seed: None,
            neighbours: 3,
            save_real: None,
            save_fake: None,
            common: EvaluateOptions::default(),
        }
    }
}

/// Inputs and outputs of a translation or an edit to compare.
#[derive(Clone, Debug)]
pub struct PairsOptions {
    /// The folder of the inputs.
    pub input: PathBuf,
    /// The folder of the outputs.
    pub output: PathBuf,
    /// The texts of an edit, for its directional CLIP similarity.
    pub text: Option<[String; 2]>,
    /// Short side in pixels that images are resized to first; none if `None`.
    pub size: Option<usize>,
    /// Which images belong together.
    pub pair_by: Pairing,
    /// Measurements to leave out.
    pub without: Vec<PairPart>,
    /// LPIPS's network.
    pub lpips: LpipsNet,
    /// CLIP's network.
    pub clip: ClipModel,
    /// Files, networks and results.
    pub common: EvaluateOptions,
}

impl Default for PairsOptions {
    fn default() -> Self {
        Self {
            input: PathBuf::new(),
            output: PathBuf::new(),
            text: None,
            size: None,
            pair_by: Pairing::Name,
            without: Vec::new(),
            lpips: LpipsNet::Alex,
            clip: ClipModel::B16,
            common: EvaluateOptions::default(),
        }
    }
}

/// Options of all measurements.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions {
    /// Files of the networks.
    pub weights: Weights,
    /// The cache of features.
    pub cache: CacheLocation,
    /// The folder of the report, if it is to be written.
    pub out: Option<PathBuf>,
    /// Whether results of other settings are replaced.
    pub overwrite: bool,
    /// The lowest and the highest possible value of images of 16 bits and of floats; of their type or file if `None`.
    pub range: Option<[f64; 2]>,
}

/// The range of `LOW,HIGH`, as in `0,4095`.
///
/// # Errors
/// There are no two numbers, or the first one is not the lower.
pub fn parse_range(text: &str) -> Result<[f64; 2]> {
    let numbers: Vec<f64> = text
        .split(',')
        .filter_map(|number| number.trim().parse().ok())
        .collect();
    match numbers[..] {
        [low, high] if is_range([low, high]) && text.matches(',').count() == 1 => Ok([low, high]),
        _ => Err(usage(format!(
            "{text}: expected LOW,HIGH as in 0,4095, the lower number first"
        ))),
    }
}

pub(super) fn is_range([low, high]: [f64; 2]) -> bool {
    low < high && (high - low).is_finite()
}
