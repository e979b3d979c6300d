//! The arguments that may be names, and the list of missing files for the program that downloads them.

use crate::args::{
    AutoencoderArgs, ClassifierArgs, Cli, CompareArgs, EvaluateArgs, Experiment, MissingArgs,
    ReproduceArgs, TrainArgs, Verb,
};
use crate::console;
use crate::data::args::{DataVerb, SelectArgs};
use crate::edit::args::{EditArgs, EditVerb};
use crate::model::peek_model_file;
use crate::names::Names;
use anyhow::Result;
use sdft_adapters::AdapterFile;
use sdft_assets::Needs;
use sdft_features::LpipsNet;
use sdft_jobs::{ClipModel, EMBEDDED_IMAGES, EditStep, GoalNetwork, PairPart, is_embedded};
use sdft_models::{LoadOptions, inspect_file};
use sdft_train::Size;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Side of images if no model states it.
const SIZE: usize = 256;

/// Replaces names by paths in the arguments of a command.
pub(crate) fn resolve(verb: &mut Verb, names: &mut Names) -> Result<()> {
    match verb {
        Verb::Train(args) => of_train(args, names),
        Verb::TrainClassifier(args) => of_classifier(args, names),
        Verb::TrainAutoencoder(args) => of_autoencoder(args, names),
        Verb::Sample(args) => {
            adapters(names, &args.file.adapter)?;
            weights(names, "--model", &mut args.model)?;
            weights(names, "--autoencoder", &mut args.file.autoencoder)?;
            weights(names, "--guide", &mut args.guide.guide)
        }
        Verb::Translate(args) => {
            if let Some(mask) = &args.mask {
                names.path("--mask", mask, false)?;
            }
            adapters(names, &args.file.adapter)?;
            weights(names, "--model", &mut args.model)?;
            weights(names, "--autoencoder", &mut args.file.autoencoder)?;
            weights(names, "--source-model", &mut args.source_model)?;
            weights(names, "--guide", &mut args.guide.guide)?;
            weights(names, "--classifier", &mut args.classifier)?;
            let stage = args.file.autoencoder.as_deref();
            let size = side(args.model.as_deref(), stage).or(args.file.image_size);
            images(names, "--input", args.input.as_mut(), size.unwrap_or(SIZE))
        }
        Verb::Edit(args) => of_edit(args, names),
        Verb::Inspect(args) => weights_path(names, "inspect:", Some(&mut args.file)),
        Verb::Convert(args) => {
            adapters(names, &args.adapter)?;
            weights(names, "--autoencoder", &mut args.autoencoder)?;
            weights_path(names, "convert:", Some(&mut args.input))
        }
        Verb::Evaluate(args) => of_evaluate(args, names),
        Verb::Reproduce(args) => of_reproduce(args, names),
        Verb::Compare(args) => of_compare(args, names),
        Verb::Data(args) => match &mut args.verb {
            DataVerb::Check(args) => {
                let [height, width] = args.size;
                images(names, "data check:", Some(&mut args.dir), height.max(width))
            }
            DataVerb::Select(args) => of_select(args, names),
            DataVerb::Prepare { .. } => Ok(()),
        },
        Verb::Report(args) => {
            let mut folders = args.folders.iter();
            folders.try_for_each(|folder| names.path("report:", folder, true))
        }
        Verb::Completions(_) | Verb::Man(_) => Ok(()),
        Verb::Doctor | Verb::Judge(_) | Verb::Missing(_) => Ok(()),
    }
}

/// Prints the missing files that a command needs; nothing for a command with invalid arguments.
pub(crate) fn missing(args: &MissingArgs) -> Result<()> {
    let mut names = Names::collecting();
    let words = std::iter::once("sdft").chain(args.command.iter().map(String::as_str));
    let mut offline = sdft_assets::is_offline();
    if let Ok(mut cli) = Cli::from_words(words) {
        offline |= cli.offline;
        // The command itself reports the problem.
        if resolve(&mut cli.verb, &mut names).is_err() {
            names.needs.clear();
        }
    }
    let needs = Needs {
        offline,
        needs: names.needs,
    };
    console::line(serde_json::to_string(&needs)?)?;
    Ok(())
}

fn weights(names: &mut Names, option: &str, text: &mut Option<String>) -> Result<()> {
    match text {
        Some(text) => names.weights(option, text),
        None => Ok(()),
    }
}

fn adapters(names: &Names, files: &[AdapterFile]) -> Result<()> {
    let mut files = files.iter();
    files.try_for_each(|file| names.path("--adapter", &file.path, true))
}

fn weights_path(names: &mut Names, option: &str, path: Option<&mut PathBuf>) -> Result<()> {
    through(path, |text| names.weights(option, text))
}

fn images(names: &mut Names, option: &str, path: Option<&mut PathBuf>, size: usize) -> Result<()> {
    through(path, |text| names.images(option, text, size))
}

/// Applies a change of text to a path.
fn through(
    path: Option<&mut PathBuf>,
    change: impl FnOnce(&mut String) -> Result<()>,
) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    // A path that is not text is not a name.
    let Some(text) = path.to_str() else {
        return Ok(());
    };
    let mut changed = text.to_owned();
    change(&mut changed)?;
    if changed != text {
        *path = PathBuf::from(changed);
    }
    Ok(())
}

/// A text, unless it is empty.
fn named(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Side of a model's images, if its file can be read; `autoencoder` is the one that the user gave.
fn side(model: Option<&str>, autoencoder: Option<&str>) -> Option<usize> {
    let model = model?;
    if let Some(size) = sdft_jobs::embedded_size(model) {
        return Some(size);
    }
    let file = peek_model_file(model)?;
    let options = LoadOptions {
        autoencoder: autoencoder.and_then(|name| sdft_jobs::load_autoencoder(name).ok()),
        ..LoadOptions::default()
    };
    let found = inspect_file(Path::new(&file), &options).ok()?;
    let image = found.resolved.ok()?.image;
    Some(image.height.max(image.width))
}

/// The text at a dotted key.
fn text_at(table: &Table, key: &str) -> String {
    let mut value = None;
    let mut inner = Some(table);
    for part in key.split('.') {
        value = inner.and_then(|table| table.get(part));
        inner = value.and_then(Value::as_table);
    }
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The image size that the settings set; the longer side of images that are not square.
fn given_size(table: &Table) -> Option<usize> {
    let at = |section: &str, key: &str| table.get(section)?.get(key);
    if let Some(size) = at("data", "size").and_then(|size| size.clone().try_into::<Size>().ok()) {
        return Some(size.height.max(size.width));
    }
    let size = at("model", "image_size")?.as_integer()?;
    usize::try_from(size).ok()
}

/// Overrides a setting: a path instead of a name.
fn put(set: &mut Vec<String>, key: &str, before: &str, after: String) {
    if before != after {
        set.push(format!("{key}={}", Value::String(after)));
    }
}

/// The image size of a resumed run.
fn size_of_run(run: &Path) -> usize {
    let text = std::fs::read_to_string(run.join("plan.toml")).unwrap_or_default();
    let table: Option<Table> = toml::from_str(&text).ok();
    table.as_ref().and_then(given_size).unwrap_or(SIZE)
}

fn of_train(args: &mut TrainArgs, names: &mut Names) -> Result<()> {
    if let Some(run) = &args.run.resume {
        names.path("--resume", run, true)?;
        weights(names, "--source", &mut args.source)?;
        return match &mut args.data {
            Some(folder) => names.images("--data", folder, size_of_run(run)),
            None => Ok(()),
        };
    }
    if args.run.list {
        return Ok(());
    }
    // Presets and files may contain names, too.
    let table = args.options().table()?.0;
    let (source, data) = (text_at(&table, "source"), text_at(&table, "data.path"));
    let (mut file, mut folder) = (source.clone(), data.clone());
    names.weights("--source", &mut file)?;
    let stage = text_at(&table, AUTOENCODER);
    let mut stage_file = stage.clone();
    names.weights("--autoencoder", &mut stage_file)?;
    let size = given_size(&table).or_else(|| side(named(&file), named(&stage_file)));
    names.images("--data", &mut folder, size.unwrap_or(SIZE))?;
    let evaluates = table
        .get("eval")
        .and_then(|eval| eval.get("every"))
        .and_then(Value::as_integer)
        .is_some_and(|every| every > 0);
    let is_judged = EMBEDDED_IMAGES.contains(&data.as_str());
    if evaluates && text_at(&table, "eval.weights").is_empty() && !is_judged {
        let features = text_at(&table, "eval.features");
        names.network(
            match features.as_str() {
                "dinov2" => "dinov2",
                _ => "inception",
            },
            &[],
        );
    }
    put(&mut args.run.set, "source", &source, file);
    put(&mut args.run.set, "data.path", &data, folder);
    put(&mut args.run.set, AUTOENCODER, &stage, stage_file);
    Ok(())
}

/// The key of the autoencoder in a plan.
const AUTOENCODER: &str = "model.autoencoder.path";

fn of_classifier(args: &mut ClassifierArgs, names: &mut Names) -> Result<()> {
    if let Some(run) = &args.run.resume {
        names.path("--resume", run, true)?;
        weights(names, "--init", &mut args.init)?;
        let size = size_of_run(run);
        for (option, folder) in [
            ("--source", &mut args.source),
            ("--target", &mut args.target),
        ] {
            if let Some(folder) = folder {
                names.images(option, folder, size)?;
            }
        }
        return Ok(());
    }
    if args.run.list {
        return Ok(());
    }
    weights(names, "--model", &mut args.model)?;
    let table = args.options().settings()?;
    let size = given_size(&table)
        .or_else(|| side(args.model.as_deref(), None))
        .unwrap_or(SIZE);
    let init = text_at(&table, "init");
    let mut file = init.clone();
    names.weights("--init", &mut file)?;
    put(&mut args.run.set, "init", &init, file);
    for (option, key) in [
        ("--source", "data.source.path"),
        ("--target", "data.target.path"),
    ] {
        let before = text_at(&table, key);
        let mut folder = before.clone();
        names.images(option, &mut folder, size)?;
        put(&mut args.run.set, key, &before, folder);
    }
    Ok(())
}

fn of_autoencoder(args: &mut AutoencoderArgs, names: &mut Names) -> Result<()> {
    if let Some(run) = &args.run.resume {
        names.path("--resume", run, true)?;
        return match &mut args.data {
            Some(folder) => names.images("--data", folder, size_of_run(run)),
            None => Ok(()),
        };
    }
    if args.run.list {
        return Ok(());
    }
    let table = args.options().settings()?;
    let data = text_at(&table, "data.path");
    let mut folder = data.clone();
    names.images("--data", &mut folder, given_size(&table).unwrap_or(SIZE))?;
    let given = table
        .get("loss")
        .and_then(|loss| loss.get("perceptual_files"));
    match text_at(&table, "loss.perceptual").as_str() {
        _ if given.is_some() => {}
        "" | "lpips-vgg" => names.network("lpips-vgg", &[]),
        "lpips-alex" => names.network("lpips-alex", &[]),
        _ => {}
    }
    put(&mut args.run.set, "data.path", &data, folder);
    Ok(())
}

fn of_edit(args: &mut EditArgs, names: &mut Names) -> Result<()> {
    match &mut args.verb {
        None => Ok(()),
        Some(EditVerb::Train(args)) => {
            if let Some(run) = &args.run.resume {
                names.path("--resume", run, true)?;
                weights(names, "--model", &mut args.model)?;
                return match &mut args.data {
                    Some(folder) => names.images("--data", folder, size_of_run(run)),
                    None => Ok(()),
                };
            }
            if args.run.list {
                return Ok(());
            }
            let table = args.options()?.settings()?;
            let source = text_at(&table, "source");
            let mut file = source.clone();
            names.weights("--model", &mut file)?;
            let size = given_size(&table).or_else(|| side(Some(&file), None));
            let data = text_at(&table, "data.path");
            let mut folder = data.clone();
            names.images("--data", &mut folder, size.unwrap_or(SIZE))?;
            if let GoalNetwork::Clip(patch) = GoalNetwork::of(&text_at(&table, "goal.network")) {
                let goal = table.get("goal");
                let said = |key: &str| {
                    let files = goal.and_then(|goal| goal.get(key)?.as_array());
                    files.is_some_and(|files| !files.is_empty())
                };
                if !said("weights") {
                    names.network(clip_of(patch), &args.weights);
                }
                let identity = goal.and_then(|goal| goal.get("identity"));
                let is_zero = |w: &Value| w.as_float() == Some(0.0) || w.as_integer() == Some(0);
                if identity.is_some_and(|w| !is_zero(w)) && !said("identity_weights") {
                    names.network("irse50", &args.weights);
                }
                if [args.t_edit, args.t_boost].contains(&Some(EditStep::Auto)) {
                    names.network("lpips-alex", &args.weights);
                }
            }
            put(&mut args.run.set, "source", &source, file);
            put(&mut args.run.set, "data.path", &data, folder);
            Ok(())
        }
        Some(EditVerb::Apply(args)) => {
            adapters(names, &args.file.adapter)?;
            names.weights("--model", &mut args.model)?;
            weights(names, "--autoencoder", &mut args.file.autoencoder)?;
            if let Some(settings) = &args.settings {
                names.path("--settings", settings, false)?;
            }
            for edit in &mut args.edit {
                names.weights("--edit", edit)?;
            }
            let stage = args.file.autoencoder.as_deref();
            let size = side(Some(&args.model), stage).or(args.file.image_size);
            images(
                names,
                "--input",
                Some(&mut args.input),
                size.unwrap_or(SIZE),
            )
        }
        Some(EditVerb::Range(args)) => {
            adapters(names, &args.file.adapter)?;
            names.weights("--model", &mut args.model)?;
            weights(names, "--autoencoder", &mut args.file.autoencoder)?;
            let stage = args.file.autoencoder.as_deref();
            let size = side(Some(&args.model), stage).or(args.file.image_size);
            names.images("--data", &mut args.data, size.unwrap_or(SIZE))?;
            names.network(clip_of(16), &args.weights);
            names.network("lpips-alex", &args.weights);
            Ok(())
        }
    }
}

fn clip_of(patch: usize) -> &'static str {
    match patch {
        32 => "clip-b32",
        _ => "clip-b16",
    }
}

fn of_evaluate(args: &mut EvaluateArgs, names: &mut Names) -> Result<()> {
    let size = args.size.unwrap_or(SIZE);
    images(names, "--real", args.real.as_mut(), size)?;
    images(names, "--fake", args.fake.as_mut(), size)?;
    images(names, "--intra-lpips", args.intra_lpips.as_mut(), size)?;
    for path in args.pairs.iter_mut().flatten() {
        images(names, "--pairs", Some(path), size)?;
    }
    let is_judged = |real: &Path| EMBEDDED_IMAGES.iter().any(|name| real == Path::new(name));
    if args.real.as_deref().is_some_and(|real| !is_judged(real)) {
        names.network(args.features.network().name(), &args.weights);
    }
    if args.intra_lpips.is_some() {
        names.network("lpips-vgg", &args.weights);
    }
    if args.pairs.is_some() {
        if !args.without.contains(&PairPart::Lpips) {
            let net = match args.lpips {
                LpipsNet::Alex => "lpips-alex",
                LpipsNet::Vgg => "lpips-vgg",
            };
            names.network(net, &args.weights);
        }
        if !args.without.contains(&PairPart::Identity) {
            names.network("irse50", &args.weights);
        }
        if args.text.is_some() {
            names.network(clip(args.clip), &args.weights);
        }
    }
    Ok(())
}

fn clip(net: ClipModel) -> &'static str {
    match net {
        ClipModel::B16 => "clip-b16",
        ClipModel::B32 => "clip-b32",
    }
}

fn of_reproduce(args: &mut ReproduceArgs, names: &mut Names) -> Result<()> {
    let networks: &[&str] = match args.experiment {
        Experiment::Digits => return Ok(()),
        Experiment::Emoji | Experiment::EmojiLambda => {
            return weights_path(names, "--source", args.source.as_mut());
        }
        Experiment::Table1 | Experiment::Table3 => &["inception", "lpips-alex"],
        Experiment::Table2 => &["clip-b16", "irse50"],
        Experiment::Table4 => &["inception", "lpips-alex"],
    };
    names.keeps_paths = true;
    weights_path(names, "--source", args.source.as_mut())?;
    images(names, "--inputs", args.inputs.as_mut(), SIZE)?;
    images(names, "--data", args.data.as_mut(), SIZE)?;
    // Without images the experiment only lists missing files.
    if args.data.is_some() || args.inputs.is_some() {
        for name in networks {
            names.network(name, &args.weights);
        }
    }
    Ok(())
}

fn of_compare(args: &mut CompareArgs, names: &mut Names) -> Result<()> {
    names.keeps_paths = true;
    weights_path(names, "--source", args.source.as_mut())?;
    images(names, "--data", args.data.as_mut(), SIZE)?;
    let is_folder = |data: &PathBuf| !is_embedded(&data.to_string_lossy());
    // Embedded images are judged by embedded networks.
    if args.data.as_ref().is_some_and(is_folder) {
        names.network("inception", &args.weights);
    }
    Ok(())
}

fn of_select(args: &mut SelectArgs, names: &mut Names) -> Result<()> {
    images(names, "data select:", Some(&mut args.dir), SIZE)?;
    names.network(clip(args.clip), &args.weights);
    Ok(())
}
