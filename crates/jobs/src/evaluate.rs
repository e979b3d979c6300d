//! Measurements of images: two sets, or pairs of inputs and outputs.

use crate::cache::CacheLocation;
use crate::choice::{Choice, by_name};
use crate::context::Context;
use crate::embedded::DIGITS;
use crate::error::{Error, Result, failed, option, usage};
use crate::judge::judge_features;
use crate::weights::{Files, Weights};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{
    Extractor, ImageSet, PairNets, Pairing, Report, SetOptions, View, compare_pairs, compare_sets,
    direction_of_texts, nearest_first, neighbour_strip, pair_up,
};
use sdft_features::{InceptionResize, Lpips, LpipsNet, Network};
use sdft_gallery::{Outputs, check_apart, check_folder, check_new_file, full_path};
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png};
use sdft_metrics::{Neighbour, SubsetDraw};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The strip of generated images above the nearest real ones.
const NEIGHBOURS: &str = "neighbours.png";

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
    /// The real images: a folder, an `.npz` of statistics or images, or the name of the embedded digits.
    pub real: PathBuf,
    /// The generated images: a folder or an `.npz`.
    pub fake: PathBuf,
    /// How images are resized for Inception.
    pub resize: InceptionResize,
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
            resize: InceptionResize::default(),
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
}

/// The settings that decide a report, as they are recorded in `plan.toml` next to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluatePlan {
    /// The real and the generated images, or inputs and outputs.
    compared: Vec<String>,
    text: Vec<String>,
    resize: String,
    kid_subsets: usize,
    kid_size: u32,
    kid_seed: Option<u32>,
    neighbours: usize,
    size: Option<usize>,
    pair_by: String,
    without: Vec<String>,
    lpips: String,
    clip: String,
    weights: Vec<String>,
}

impl EvaluatePlan {
    /// A plan with defaults for the other kind of comparison.
    fn new(
        sets: &SetsOptions,
        pairs: &PairsOptions,
        compared: [&Path; 2],
        weights: &Weights,
    ) -> Self {
        let without = pairs.without.iter();
        Self {
            compared: compared
                .map(|path| full_path(&path.display().to_string()))
                .into(),
            text: pairs.text.iter().flatten().cloned().collect(),
            resize: sets.resize.to_string(),
            kid_subsets: sets.kid_subsets,
            kid_size: sets.kid_size,
            kid_seed: sets.kid_seed,
            neighbours: sets.neighbours,
            size: pairs.size,
            pair_by: match pairs.pair_by {
                Pairing::Common => "common",
                other => other.name(),
            }
            .to_owned(),
            without: without.map(ToString::to_string).collect(),
            lpips: pairs.lpips.name().to_owned(),
            clip: pairs.clip.to_string(),
            weights: weights.arguments().to_vec(),
        }
    }
}

/// A report and its folder.
pub struct Evaluation {
    /// The numbers.
    pub report: Report,
    strip: Option<Rgb8>,
    plan: EvaluatePlan,
    out: Option<PathBuf>,
    overwrite: bool,
}

impl Evaluation {
    /// Writes `report.json`, `report.csv` and, of two folders, `neighbours.png` to the folder of the options, and returns it; `None` if
    /// there is no such folder.
    ///
    /// # Errors
    /// The folder holds something else, or a file system error occurs.
    pub fn write(&self) -> Result<Option<&Path>> {
        let Some(out) = &self.out else {
            return Ok(None);
        };
        let mut outputs = Outputs::open(out, &self.plan, self.overwrite)?;
        let json = serde_json::to_string_pretty(&self.report.json())?;
        for (name, text) in [("report.json", json), ("report.csv", self.report.csv())] {
            outputs.put(name, "", text.as_bytes())?;
        }
        match &self.strip {
            Some(strip) => outputs.put(NEIGHBOURS, "", &encode_png(strip)?)?,
            None => outputs.forget(NEIGHBOURS)?,
        }
        Ok(Some(out))
    }
}

/// Fails if the report cannot be written. Called before anything is computed.
fn check_out(common: &EvaluateOptions, plan: &EvaluatePlan, compared: [&Path; 2]) -> Result<()> {
    let Some(out) = &common.out else {
        return Ok(());
    };
    check_folder(out, plan, common.overwrite)?;
    // The strip would be measured with the images the next time.
    for folder in compared.into_iter().filter(|path| path.is_dir()) {
        check_apart(out, folder)?;
    }
    Ok(())
}

/// Compares two sets of images: FID, KID, precision, recall and nearest neighbours.
///
/// # Errors
/// An option cannot be used, images or weights cannot be read, or the sets are too small.
pub fn evaluate_sets(options: &SetsOptions, context: &mut Context<'_>) -> Result<Evaluation> {
    let common = &options.common;
    let paths = [options.real.as_path(), options.fake.as_path()];
    let plan = EvaluatePlan::new(options, &PairsOptions::default(), paths, &common.weights);
    check_out(common, &plan, paths)?;
    let saved = [
        ("save_real", &options.save_real),
        ("save_fake", &options.save_fake),
    ];
    if options.save_real.is_some() && options.save_real == options.save_fake {
        return Err(option("save_fake", "names the same file as `save_real`"));
    }
    for (option, path) in saved {
        if let Some(path) = path {
            check_new_file(path, common.overwrite)
                .map_err(|source| Error::Output { option, source })?;
        }
    }
    let digits = options.real == Path::new(DIGITS);
    for path in paths {
        let embedded = digits && path == options.real;
        if !embedded && !path.exists() {
            return Err(usage(format!("{}: no such folder or file", path.display())));
        }
    }
    let extractor = if digits {
        judge_features()?
    } else {
        let otherwise = "give --weights inception=FILE";
        let files = common.weights.of(Network::Inception, otherwise)?;
        Extractor::read(View::Inception(options.resize), &files.weights)?
    };
    let mut cache = common.cache.features(&extractor, context);
    let mut open = |path: &Path| -> Result<ImageSet> {
        let mut progress = |done, all| context.progress.images(done as f64, all);
        if digits && path == options.real {
            let all = DigitsSource::new(Digits::embedded()?, Style::Ember, &[], usize::MAX)?;
            let images = (0..all.len()).map(|i| Ok(all.screen(i)?));
            let label = "digits, all in the target's style".to_owned();
            return Ok(ImageSet::of_images(
                label,
                images,
                &extractor,
                &mut progress,
            )?);
        }
        Ok(ImageSet::open(path, &extractor, &mut cache, &mut progress)?)
    };
    let (real, fake) = (open(&options.real)?, open(&options.fake)?);
    if let Some(problem) = cache.problem() {
        let text = format!("features are not kept: {problem}");
        context.progress.note(&text);
    }
    let draws =
        options.kid_subsets != 100 || options.kid_size != 1000 || options.kid_seed.is_some();
    if (draws || options.neighbours != 3) && (real.features.is_none() || fake.features.is_none()) {
        return Err(usage(
            "`kid_subsets`, `kid_size`, `kid_seed` and `neighbours` have no effect on statistics, which have no images",
        ));
    }
    for (set, (_, path)) in [&real, &fake].into_iter().zip(saved) {
        if let Some(path) = path {
            crate::files::write_file(path, &set.archive()?)?;
        }
    }
    let settings = SetOptions {
        kid_subsets: options.kid_subsets,
        kid_size: options.kid_size as usize,
        kid_draw: options
            .kid_seed
            .map_or(SubsetDraw::TorchFidelity, SubsetDraw::Seeded),
        k: options.neighbours,
    };
    let (mut report, neighbours) = compare_sets(&real, &fake, &settings)?;
    report
        .settings
        .push(("features".into(), extractor.describe()));
    report
        .settings
        .push(("sha256".into(), extractor.weights().to_owned()));
    let strip = match common.out {
        Some(_) => strip(&real, &fake, &neighbours)?,
        None => None,
    };
    Ok(Evaluation {
        report,
        strip,
        plan,
        out: common.out.clone(),
        overwrite: common.overwrite,
    })
}

/// The generated images that are nearest to a real one, where both sets are files.
fn strip(real: &ImageSet, fake: &ImageSet, neighbours: &[Neighbour]) -> Result<Option<Rgb8>> {
    let mut pairs = Vec::new();
    for i in nearest_first(neighbours) {
        let (Some((_, a)), Some((_, b))) = (fake.files.get(i), real.files.get(neighbours[i].index))
        else {
            return Ok(None);
        };
        let limits = Limits::from_env()?;
        pairs.push((decode_file(a, &limits)?, decode_file(b, &limits)?));
    }
    Ok(neighbour_strip(&pairs, "generated / nearest real"))
}

/// Reads LPIPS; its name includes the hash of its weights.
///
/// # Errors
/// The files cannot be read, or are not those of this network.
pub fn read_lpips(net: LpipsNet, files: &Files) -> Result<(Lpips, String)> {
    let network = Network::Lpips(net);
    let params = network
        .read(&files.weights)
        .map_err(|e| failed(e.to_string()))?;
    let hash = sdft_eval::hash_of(&files.weights)?;
    let name = format!("{}, weights {}", network.name(), &hash[..12]);
    Ok((Lpips::load(net, &params)?, name))
}

/// A folder, and the other files in it.
fn described(folder: &Path) -> Result<String> {
    Ok(match sdft_data::list_all(folder)?.describe_skipped() {
        Some(text) => format!("{} (skipped: {text})", folder.display()),
        None => folder.display().to_string(),
    })
}

/// Compares inputs with outputs: PSNR, SSIM, LPIPS, identity and, with texts, the directional CLIP similarity.
///
/// # Errors
/// An option cannot be used, or images or weights cannot be read.
pub fn evaluate_pairs(options: &PairsOptions, context: &mut Context<'_>) -> Result<Evaluation> {
    let (common, weights) = (&options.common, &options.common.weights);
    let folders = [options.input.as_path(), options.output.as_path()];
    let plan = EvaluatePlan::new(&SetsOptions::default(), options, folders, weights);
    check_out(common, &plan, folders)?;
    for folder in folders {
        if !folder.is_dir() {
            return Err(option(
                "pairs",
                format!("{}: no such folder", folder.display()),
            ));
        }
    }
    let pairs = pair_up(&options.input, &options.output, options.pair_by)?;
    let mut nets = PairNets::default();
    if !options.without.contains(&PairPart::Lpips) {
        let net = options.lpips;
        let network = Network::Lpips(net);
        let files = weights.of(
            network,
            &format!(
                "give --weights {}=FILE, or omit it with --without lpips",
                network.name()
            ),
        )?;
        nets.lpips = Some(read_lpips(net, &files)?);
    }
    if !options.without.contains(&PairPart::Identity) {
        let files = weights.of(
            Network::Identity,
            "give --weights irse50=FILE, or omit it with --without identity",
        )?;
        nets.identity = Some(Extractor::read(View::Identity, &files.weights)?);
    }
    if let Some([from, to]) = &options.text {
        let patch = options.clip.patch();
        let network = Network::Clip(patch);
        let files = weights.of(network, &format!("give --weights {}=FILE", network.name()))?;
        let Some(tokenizer) = &files.tokenizer else {
            return Err(no_tokenizer(network));
        };
        let direction = direction_of_texts(patch, &files.weights, tokenizer, [from, to])?;
        nets.text = Some((
            Extractor::read(View::Clip(patch), &files.weights)?,
            direction,
        ));
    }
    let mut report = compare_pairs(&pairs, options.size, &nets, &mut |done, all| {
        context.progress.images(done as f64, all);
    })?;
    report.settings = vec![
        ("input".into(), described(&options.input)?),
        ("output".into(), described(&options.output)?),
        (
            "size".into(),
            options.size.map_or_else(
                || "as it is".to_owned(),
                |s| format!("short side {s}, bicubic"),
            ),
        ),
    ];
    if let Some([from, to]) = &options.text {
        report
            .settings
            .push(("text".into(), format!("{from:?} to {to:?}")));
    }
    Ok(Evaluation {
        report,
        strip: None,
        plan,
        out: common.out.clone(),
        overwrite: common.overwrite,
    })
}

/// Weights of CLIP without a tokenizer.
pub(crate) fn no_tokenizer(network: Network) -> Error {
    failed(format!(
        "{name}: texts need the model's tokenizer.json too; give --weights {name}=tokenizer.json",
        name = network.name()
    ))
}
