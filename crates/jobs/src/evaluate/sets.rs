//! Comparing two sets of images.

use super::asked::asked;
use super::judged::emoji_measures;
use super::pairs::read_lpips;
use super::{
    EvaluatePlan, Evaluation, PairsOptions, SetsOptions, check_out, check_range, precision_of,
    warn_of_rounding,
};
use crate::context::Context;
use crate::embedded::{DIGITS, EMBEDDED_IMAGES, EMOJI};
use crate::error::{Error, Result, ResultExt as _, option, usage};
use crate::judge::{emoji_judge_features, judge_features};
use crate::shared::{announce, announced, check_same};
use sdft_data::{
    Digits, DigitsSource, Emoji, EmojiOptions, EmojiSource, EmojiStyle, ImageSource, Style,
};
use sdft_eval::{
    Extractor, ImageSet, Report, SetOptions, View, check_few_shot, compare_sets, intra_lpips,
    nearest_first, neighbour_strip,
};
use sdft_features::{Dinov2Config, Lpips, LpipsNet, Network};
use sdft_gallery::check_new_file;
use sdft_imaging::Rgb8;
use sdft_metrics::{Neighbour, SubsetDraw};
use sdft_train::Precision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Compares two sets of images: FID, KID, precision, recall, nearest neighbours and memorisation, and Intra-LPIPS if it is asked for.
///
/// # Errors
/// An option cannot be used, images or weights cannot be read, or the sets are too small.
pub fn evaluate_sets(options: &SetsOptions, context: &mut Context<'_>) -> Result<Evaluation> {
    let common = &options.common;
    let paths = [options.real.as_path(), options.fake.as_path()];
    let precision = precision(options, context)?;
    let plan = EvaluatePlan::new(options, &PairsOptions::default(), paths, common, precision);
    check_range(common)?;
    let few_shot = options.intra_lpips.as_deref();
    let measured: Vec<&Path> = paths.into_iter().chain(few_shot).collect();
    check_out(common, &plan, &measured)?;
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
    let [digits, emoji] = [DIGITS, EMOJI].map(|name| options.real == Path::new(name));
    let embedded = embedded(&options.real)?;
    for (name, path) in ["real", "fake"].into_iter().zip(paths) {
        let is_embedded = embedded.is_some() && path == options.real;
        if !is_embedded && !path.exists() {
            let problem = format!("{}: no such folder or file", path.display());
            return Err(option(name, problem));
        }
    }
    context.note_precision(precision);
    let extractor = extractor(options, context)?;
    announce(&networks(&extractor), context)?;
    let few_shot = match few_shot {
        Some(train) => Some(FewShot::open(train, options, context)?),
        None => None,
    };
    let mut cache = common.cache.features(&extractor, context);
    let mut open = |path: &Path| -> Result<ImageSet> {
        let mut progress = |done, all| context.progress.images(done as f64, all);
        if let (true, Some(all)) = (path == options.real, &embedded) {
            let images = (0..all.len()).map(|i| Ok(all.screen(i)?));
            let label = format!("{}, all in the target's style", path.display());
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
        distances: extractor.view().distances(),
    };
    let (mut report, neighbours) = compare_sets(&real, &fake, &settings)?;
    if let Some(few_shot) = few_shot {
        few_shot.measure(&fake, common.range, &mut report, context)?;
    }
    if extractor.view() == View::Dinov2 && extractor.dim() != Dinov2Config::large().hidden_size {
        report.warnings.push(format!(
            "FD-DINOv2: published values have the {} features of ViT-L/14, these weights {}",
            Dinov2Config::large().hidden_size,
            extractor.dim()
        ));
    }
    if digits {
        report
            .measures
            .extend(asked(&options.fake, &fake.files, &extractor)?);
    }
    if emoji {
        report
            .measures
            .extend(emoji_measures(&fake.files, &extractor)?);
    }
    report
        .settings
        .push(("features".into(), extractor.describe()));
    report
        .settings
        .push(("sha256".into(), extractor.weights().to_owned()));
    report
        .settings
        .push(("arithmetic".into(), extractor.precision().to_owned()));
    warn_of_rounding(&mut report, precision);
    let strip = match common.out {
        Some(_) => strip(&real, &fake, &neighbours, &extractor)?,
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

/// On the other ranks of [`Context::group`]: computes features for rank 0's [`evaluate_sets`] with the same options until it ends. Images
/// are read by rank 0 alone, which also computes Intra-LPIPS.
///
/// # Errors
/// Weights that are not those of rank 0; rank 0 fails or disconnects.
pub fn serve_sets(options: &SetsOptions, context: &mut Context<'_>) -> Result<()> {
    let announced = announced(context)?;
    let extractor = extractor(options, context)?;
    check_same(&announced, &networks(&extractor), context)?;
    Ok(extractor.serve(&context.group)?)
}

/// The precision of the networks. Judges of embedded sets compute in f32.
fn precision(options: &SetsOptions, context: &Context<'_>) -> Result<Precision> {
    let is_judged = EMBEDDED_IMAGES
        .map(Path::new)
        .contains(&options.real.as_path());
    let only_judge = is_judged && options.intra_lpips.is_none();
    let reason = || {
        format!(
            "the judge of the {} computes in f32",
            options.real.display()
        )
    };
    precision_of(only_judge.then(reason), context)
}

/// The networks that all ranks need.
fn networks(extractor: &Extractor) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("features", extractor.cache_key()),
        ("sha256", extractor.weights().to_owned()),
    ])
}

/// The network that the options choose.
fn extractor(options: &SetsOptions, context: &Context<'_>) -> Result<Extractor> {
    let is_real = |name: &str| options.real == Path::new(name);
    let extractor = if is_real(DIGITS) {
        judge_features()?
    } else if is_real(EMOJI) {
        emoji_judge_features()?
    } else {
        let network = options.features.network();
        let otherwise = format!("give --weights {}=FILE", network.name());
        let files = options.common.weights.of(network, &otherwise)?;
        let view = options.features.view(options.resize);
        let runtime = context.runtime_in(context.fine_precision());
        Extractor::read(view, &files.weights, &runtime.device)?
            .with_compute_dtype(runtime.compute_dtype)
    };
    let extractor = extractor.with_range(options.common.range);
    Ok(extractor.with_group(&context.group, 0))
}

/// What Intra-LPIPS needs.
struct FewShot {
    network: Lpips,
    /// LPIPS's network, and the hash of its weights.
    name: String,
    train: Vec<PathBuf>,
    label: String,
}

impl FewShot {
    /// Lists the training images and reads the network, which is VGG16 as in the published program.
    fn open(train: &Path, options: &SetsOptions, context: &Context<'_>) -> Result<Self> {
        for (option, path) in [("intra_lpips", train), ("fake", options.fake.as_path())] {
            if !path.is_dir() {
                return Err(crate::error::option(
                    option,
                    format!("{}: Intra-LPIPS needs a folder of images", path.display()),
                ));
            }
        }
        let images = sdft_data::scan_images(train)?.all_readable(train)?;
        check_few_shot(images.len()).in_option("intra_lpips", train.display())?;
        let net = LpipsNet::Vgg;
        let otherwise = "give --weights lpips-vgg=FILE, or omit --intra-lpips";
        let files = options.common.weights.of(Network::Lpips(net), otherwise)?;
        let runtime = context.runtime_in(context.fine_precision());
        let (network, name) = read_lpips(net, &files, &runtime.device)?;
        let network = network.with_compute_dtype(runtime.compute_dtype);
        Ok(Self {
            network,
            name,
            train: images.into_iter().map(|(_, path)| path).collect(),
            label: train.display().to_string(),
        })
    }

    fn measure(
        &self,
        fake: &ImageSet,
        range: Option<[f64; 2]>,
        report: &mut Report,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let samples: Vec<PathBuf> = fake.files.iter().map(|(_, path)| path.clone()).collect();
        let mut progress = |done, all| context.progress.images(done as f64, all);
        let found = intra_lpips(&self.network, &self.train, &samples, range, &mut progress)?;
        report
            .settings
            .push(("few-shot".into(), self.label.clone()));
        found.add_to(report, &self.name);
        Ok(())
    }
}

/// Embedded images in the target's style, if a path is their name.
fn embedded(path: &Path) -> Result<Option<Box<dyn ImageSource>>> {
    if path == Path::new(DIGITS) {
        let all = DigitsSource::new(Digits::embedded()?, Style::Ember, &[], usize::MAX)?;
        return Ok(Some(Box::new(all)));
    }
    if path == Path::new(EMOJI) {
        let options = EmojiOptions::new(EmojiStyle::Fluent);
        let all = EmojiSource::new(&Emoji::embedded()?, &options)?;
        return Ok(Some(Box::new(all)));
    }
    Ok(None)
}

/// The generated images that are nearest to a real one, where both sets are files.
fn strip(
    real: &ImageSet,
    fake: &ImageSet,
    neighbours: &[Neighbour],
    extractor: &Extractor,
) -> Result<Option<Rgb8>> {
    let mut pairs = Vec::new();
    for i in nearest_first(neighbours) {
        let (Some((_, a)), Some((_, b))) = (fake.files.get(i), real.files.get(neighbours[i].index))
        else {
            return Ok(None);
        };
        pairs.push((extractor.show(a)?, extractor.show(b)?));
    }
    Ok(neighbour_strip(&pairs, "generated / nearest real"))
}
