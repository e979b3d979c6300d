//! `evaluate`: sets or pairs of images -> a table, and a folder of reports.

use crate::args::{ClipArg, EvaluateArgs, LpipsArg, PairByArg, PartArg};
use crate::gallery::outputs::Outputs;
use crate::gallery::{full_path, refusal};
use crate::weights::{Files, Weights};
use crate::{assets, console, judge, usage};
use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::{
    Extractor, FeatureCache, ImageSet, PairNets, Pairing, Report, SetOptions, View, compare_pairs,
    compare_sets, direction_of_texts, nearest_first, neighbour_strip, pair_up,
};
use sdft_features::{InceptionResize, Lpips, LpipsNet, Network};
use sdft_imaging::{Limits, decode_file, encode_png};
use sdft_metrics::{Neighbour, SubsetDraw};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What decides a report, as it stands in `plan.toml` next to it.
#[derive(Serialize, Deserialize)]
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
    fn of(args: &EvaluateArgs) -> Self {
        let folders = args.pairs.iter().flatten();
        let compared = args.real.iter().chain(&args.fake).chain(folders);
        let without = args.without.iter();
        Self {
            compared: compared
                .map(|path| full_path(&path.display().to_string()))
                .collect(),
            text: args.text.clone().unwrap_or_default(),
            resize: args.resize.to_string(),
            kid_subsets: args.kid_subsets,
            kid_size: args.kid_size,
            kid_seed: args.kid_seed,
            neighbours: args.neighbours,
            size: args.size,
            pair_by: format!("{:?}", args.pair_by).to_lowercase(),
            without: without
                .map(|part| format!("{part:?}").to_lowercase())
                .collect(),
            lpips: format!("{:?}", args.lpips).to_lowercase(),
            clip: format!("{:?}", args.clip).to_lowercase(),
            weights: args.weights.clone(),
        }
    }
}

/// Fails on options that what is compared has no use for.
fn refuse_unused(args: &EvaluateArgs) -> Result<()> {
    let digits = args.real.as_deref() == Some(Path::new(assets::DIGITS));
    if digits && args.resize != InceptionResize::default() {
        return Err(usage(
            "--resize has no effect on --real digits, which the embedded judge looks at as they are",
        ));
    }
    if args.without.contains(&PartArg::Lpips) && args.lpips != LpipsArg::Alex {
        return Err(usage("--lpips has no effect with --without lpips"));
    }
    if args.overwrite && args.out.is_none() && args.save_real.is_none() && args.save_fake.is_none()
    {
        return Err(usage(
            "--overwrite: nothing is written without --out, --save-real or --save-fake",
        ));
    }
    Ok(())
}

/// The strip of generated images over the real ones that come nearest.
const NEIGHBOURS: &str = "neighbours.png";

pub(crate) fn evaluate(args: &EvaluateArgs) -> Result<()> {
    refuse_unused(args)?;
    let plan = EvaluatePlan::of(args);
    // What cannot be written is said before anything is computed.
    if let Some(out) = &args.out {
        refusal::check(out, &plan, args.overwrite.into())?;
        // The strip would be measured with the images the next time.
        let pairs = args.pairs.iter().flatten();
        let compared = args.real.iter().chain(&args.fake).chain(pairs);
        for folder in compared.filter(|path| path.is_dir()) {
            refusal::check_apart(out, folder)?;
        }
    }
    if args.save_real.is_some() && args.save_real == args.save_fake {
        return Err(usage("--save-real and --save-fake name the same file"));
    }
    for (option, path) in [
        ("--save-real", &args.save_real),
        ("--save-fake", &args.save_fake),
    ] {
        if let Some(path) = path {
            refusal::check_new_file(option, path, args.overwrite.into())?;
        }
    }
    let weights = Weights::parse(&args.weights)?;
    let (report, strip) = match (&args.real, &args.fake, &args.pairs) {
        (Some(real), Some(fake), None) => sets(args, &weights, real, fake)?,
        (None, None, Some(pairs)) => (self::pairs(args, &weights, pairs)?, None),
        _ => {
            return Err(usage(
                "nothing to measure: give --real DIR --fake DIR, or --pairs INPUT OUTPUT (see --help)",
            ));
        }
    };
    if args.json {
        console::line(serde_json::to_string_pretty(&report.json())?)?;
    } else {
        console::line(report.text().trim_end())?;
    }
    if let Some(out) = &args.out {
        let mut outputs = Outputs::open(out, &plan, args.overwrite)?;
        let json = serde_json::to_string_pretty(&report.json())?;
        for (name, text) in [("report.json", json), ("report.csv", report.csv())] {
            outputs.put(name, "", text.as_bytes())?;
        }
        match strip {
            Some(strip) => outputs.put(NEIGHBOURS, "", &encode_png(&strip)?)?,
            None => outputs.forget(NEIGHBOURS)?,
        }
        console::note(&format!("written to {}", out.display()));
    }
    Ok(())
}

/// A bar on a terminal for images looked at.
fn progress(label: &str) -> impl FnMut(usize, usize) + use<> {
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    let label = label.to_owned();
    move |done, all| {
        if let Some(bar) = &bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(label.clone());
            if done == all {
                bar.finish_and_clear();
            }
        }
    }
}

/// The folder of feature vectors, unless there is none to be.
fn cache_folder(args: &EvaluateArgs) -> Option<PathBuf> {
    if args.no_cache {
        return None;
    }
    args.cache.clone().or_else(user_cache_folder)
}

/// Where feature vectors are kept if nothing is said.
pub(crate) fn user_cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    let cache = match folder("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(folder("HOME")?).join(".cache"),
    };
    Some(cache.join("sdft").join("features"))
}

/// Feature vectors of a network kept in a folder, or only as long as the program runs.
pub(crate) fn open_cache(folder: Option<PathBuf>, extractor: &Extractor) -> FeatureCache {
    let none = || FeatureCache::none(extractor.dim());
    folder.map_or_else(none, |folder| {
        FeatureCache::open(&folder, &extractor.describe(), extractor.dim()).unwrap_or_else(
            |error| {
                console::note(&format!("features are not kept: {error}"));
                none()
            },
        )
    })
}

fn sets(
    args: &EvaluateArgs,
    weights: &Weights,
    real: &Path,
    fake: &Path,
) -> Result<(Report, Option<sdft_imaging::Rgb8>)> {
    let digits = real == Path::new(assets::DIGITS);
    for path in [real, fake] {
        let embedded = digits && path == real;
        if !embedded && !path.exists() {
            return Err(usage(format!("{}: no such folder or file", path.display())));
        }
    }
    let extractor = if digits {
        judge::extractor()?
    } else {
        let files = weights.of(Network::Inception, "give --weights inception=FILE")?;
        Extractor::read(View::Inception(args.resize), &files.weights)?
    };
    let mut cache = open_cache(cache_folder(args), &extractor);
    let mut open = |path: &Path, role: &str| -> Result<ImageSet> {
        if digits && path == real {
            let all = DigitsSource::new(Digits::embedded()?, Style::Ember, &[], usize::MAX)?;
            let images = (0..all.len()).map(|i| Ok(all.image(i)?));
            let label = "digits, all in the target's style".to_owned();
            return Ok(ImageSet::of_images(
                label,
                images,
                &extractor,
                &mut progress(role),
            )?);
        }
        Ok(ImageSet::open(
            path,
            &extractor,
            &mut cache,
            &mut progress(role),
        )?)
    };
    let (real, fake) = (open(real, "real")?, open(fake, "fake")?);
    if let Some(problem) = cache.problem() {
        console::note(&format!("features are not kept: {problem}"));
    }
    let draws = args.kid_subsets != 100 || args.kid_size != 1000 || args.kid_seed.is_some();
    if (draws || args.neighbours != 3) && (real.features.is_none() || fake.features.is_none()) {
        return Err(usage(
            "--kid-subsets, --kid-size, --kid-seed and --neighbours have no effect on statistics, which have no images",
        ));
    }
    for (set, path) in [(&real, &args.save_real), (&fake, &args.save_fake)] {
        if let Some(path) = path {
            sdft_files::write_atomic(path, &set.archive()?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let options = SetOptions {
        kid_subsets: args.kid_subsets,
        kid_size: args.kid_size as usize,
        kid_draw: args
            .kid_seed
            .map_or(SubsetDraw::TorchFidelity, SubsetDraw::Seeded),
        k: args.neighbours,
    };
    let (mut report, neighbours) = compare_sets(&real, &fake, &options)?;
    report
        .settings
        .push(("features".into(), extractor.describe()));
    report
        .settings
        .push(("sha256".into(), extractor.weights().to_owned()));
    let strip = match args.out {
        Some(_) => strip(&real, &fake, &neighbours)?,
        None => None,
    };
    Ok((report, strip))
}

/// The generated images that come nearest to a real one, where both are files.
fn strip(
    real: &ImageSet,
    fake: &ImageSet,
    neighbours: &[Neighbour],
) -> Result<Option<sdft_imaging::Rgb8>> {
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

/// LPIPS, its name and the hash of its weights.
pub(crate) fn read_lpips(net: LpipsNet, files: &Files) -> Result<(Lpips, String)> {
    let network = Network::Lpips(net);
    let params = network.read(&files.weights).map_err(anyhow::Error::msg)?;
    let hash = sdft_eval::hash_of(&files.weights)?;
    let name = format!("{}, weights {}", network.name(), &hash[..12]);
    Ok((Lpips::load(net, &params)?, name))
}

/// A folder, and what is in it besides images.
fn described(folder: &Path) -> Result<String> {
    Ok(match sdft_data::list_all(folder)?.passed_over() {
        Some(text) => format!("{} (passed over: {text})", folder.display()),
        None => folder.display().to_string(),
    })
}

fn pairs(args: &EvaluateArgs, weights: &Weights, folders: &[PathBuf]) -> Result<Report> {
    let [input, output] = folders else {
        return Err(usage("--pairs: expected two folders"));
    };
    for folder in folders {
        if !folder.is_dir() {
            return Err(usage(format!(
                "--pairs {}: no such folder",
                folder.display()
            )));
        }
    }
    let pairing = match args.pair_by {
        PairByArg::Name => Pairing::Name,
        PairByArg::Order => Pairing::Order,
    };
    let pairs = pair_up(input, output, pairing)?;
    let mut nets = PairNets::default();
    if !args.without.contains(&PartArg::Lpips) {
        let net = match args.lpips {
            LpipsArg::Alex => LpipsNet::Alex,
            LpipsArg::Vgg => LpipsNet::Vgg,
        };
        let network = Network::Lpips(net);
        let files = weights.of(
            network,
            &format!(
                "give --weights {}=FILE, or leave it out with --without lpips",
                network.name()
            ),
        )?;
        nets.lpips = Some(read_lpips(net, &files)?);
    }
    if !args.without.contains(&PartArg::Identity) {
        let files = weights.of(
            Network::Identity,
            "give --weights irse50=FILE, or leave it out with --without identity",
        )?;
        nets.identity = Some(Extractor::read(View::Identity, &files.weights)?);
    }
    if let Some([from, to]) = args.text.as_deref() {
        let patch = match args.clip {
            ClipArg::B16 => 16,
            ClipArg::B32 => 32,
        };
        let network = Network::Clip(patch);
        let files = weights.of(network, &format!("give --weights {}=FILE", network.name()))?;
        let Some(tokenizer) = &files.tokenizer else {
            bail!(
                "{name}: texts need the model's tokenizer.json too; give --weights {name}=tokenizer.json",
                name = network.name()
            );
        };
        let direction = direction_of_texts(patch, &files.weights, tokenizer, [from, to])?;
        nets.text = Some((
            Extractor::read(View::Clip(patch), &files.weights)?,
            direction,
        ));
    }
    let mut report = compare_pairs(&pairs, args.size, &nets, &mut progress("pairs"))?;
    report.settings = vec![
        ("input".into(), described(input)?),
        ("output".into(), described(output)?),
        (
            "size".into(),
            args.size.map_or_else(
                || "as it is".to_owned(),
                |s| format!("short side {s}, bicubic"),
            ),
        ),
    ];
    if let Some([from, to]) = args.text.as_deref() {
        report
            .settings
            .push(("text".into(), format!("{from:?} to {to:?}")));
    }
    Ok(report)
}
