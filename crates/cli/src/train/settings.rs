//! Which settings a new run begins with: what was asked for, over a preset that fits it.

use crate::args::{MethodArg, TrainArgs};
use crate::assets;
use crate::presets::TRAINING;
use crate::runs::flags;
use anyhow::Result;
use sdft_adm::AdmConfig;
use sdft_settings::{layers, merge, put};
use sdft_train::Plan;
use serde_json::{Map, Value as Json};
use std::path::Path;
use toml::{Table, Value};

/// The size of one's own images where nothing says it.
const USUAL_SIZE: usize = 64;
/// The longest part of a folder's name that a run's name takes over, in bytes.
const LONGEST: usize = 100;

/// Presets and files, then flags, then `--set`.
pub(crate) fn assemble(args: &TrainArgs) -> Result<Table> {
    Ok(settings(args)?.0)
}

/// Whether nothing at all was asked for but where runs go.
pub(super) fn is_example(args: &TrainArgs) -> bool {
    let run = &args.run;
    let chosen = [&args.source, &args.source_key, &args.data, &run.name];
    chosen.iter().all(|choice| choice.is_none())
        && args.method.is_none()
        && args.gpus.is_none()
        && run.config.is_empty()
        && run.set.is_empty()
        && [run.steps, run.batch, run.seed].iter().all(Option::is_none)
        && run.resume.is_none()
        && !(run.strict || run.dry_run || run.list)
}

/// As [`assemble`], and what the user should know about the choice.
pub(super) fn settings(args: &TrainArgs) -> Result<(Table, Vec<String>)> {
    let asked = asked(args)?;
    let (configs, note) = match args.run.config.is_empty() {
        true => fitting(&asked)?,
        false => (args.run.config.clone(), None),
    };
    let mut table = layers::<Plan>(&TRAINING, &configs)?;
    // A preset's name is that of its own data and method.
    let named = table
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|name| !configs.iter().any(|config| config == name));
    let elsewhere = text(&asked, &["data", "path"]).is_some() || asked.contains_key("method");
    merge(&mut table, asked);
    if elsewhere && !named && args.run.name.is_none() && !is_set(args, "name") {
        let name = name_of(args, &table);
        put(&mut table, "name", name);
    }
    Ok((table, note.into_iter().collect()))
}

/// What the flags and `--set` say.
fn asked(args: &TrainArgs) -> Result<Table> {
    let mut table = Table::new();
    let method = args.method.map(|method| match method {
        MethodArg::Scratch => "scratch",
        MethodArg::Naive => "naive",
        MethodArg::Sdft => "sdft",
    });
    let texts = [
        ("source", args.source.as_deref()),
        ("source_key", args.source_key.as_deref()),
        ("data.path", args.data.as_deref()),
        ("method", method),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            put(&mut table, key, value);
        }
    }
    flags::<Plan>(&mut table, &args.run)?;
    Ok(table)
}

/// The presets to begin with where none is named, and what to say about that.
fn fitting(asked: &Table) -> Result<(Vec<String>, Option<String>)> {
    let said = |path: &[&str]| text(asked, path).filter(|text| !text.is_empty());
    let (data, source) = (said(&["data", "path"]), said(&["source"]));
    let method = said(&["method"]);
    if source.is_none() && data.is_none_or(|data| data == assets::DIGITS) {
        // The embedded example.
        let preset = format!("digits-{}", method.unwrap_or("sdft"));
        return Ok((vec![preset], None));
    }
    if source.is_none() && method.is_none_or(|method| method == "scratch") {
        let size = asked.get("model").and_then(|model| model.get("image_size"));
        let size = size.and_then(Value::as_integer);
        let preset = own_preset(size.and_then(|size| usize::try_from(size).ok()));
        let others: Vec<&str> = own_presets()
            .map(|(_, name)| name)
            .filter(|name| *name != preset)
            .collect();
        let note = format!(
            "no --source and no --config: training from random weights with the preset {preset} (others: {}); --dry-run says how long \
             it takes. With few images, fine-tuning a model of such images does better: --source FILE, or a name as ffhq-10m",
            others.join(", ")
        );
        return Ok((vec![preset.to_owned()], Some(note)));
    }
    let note = source.filter(|_| data.is_some()).map(|_| {
        "no --config: the settings of the paper's runs (80000 steps of 8 images), as far as nothing else is said; --steps N for fewer"
            .to_owned()
    });
    Ok((Vec::new(), note))
}

/// The presets for one's own images with the size of each, in ascending order.
fn own_presets() -> impl Iterator<Item = (usize, &'static str)> {
    TRAINING.names().filter_map(|name| {
        let size = name.strip_prefix("own-")?.parse().ok()?;
        Some((size, name))
    })
}

/// The preset for images of a size: the next larger one, or else the largest.
fn own_preset(size: Option<usize>) -> &'static str {
    let size = size.unwrap_or(USUAL_SIZE);
    let mut last = "";
    for (of, name) in own_presets() {
        last = name;
        if of >= size {
            break;
        }
    }
    last
}

/// What a run on these images by this method is called.
fn name_of(args: &TrainArgs, table: &Table) -> String {
    let data = text(table, &["data", "path"]).unwrap_or_default();
    // The user's word, where a path has taken its place.
    let data = args.data.as_deref().unwrap_or(data);
    let full = std::path::absolute(data);
    let path = full.as_deref().unwrap_or(Path::new(data));
    let stem = path.file_name().map(|name| name.to_string_lossy());
    let stem = stem.as_deref().unwrap_or("run").trim_start_matches('.');
    let end = stem.floor_char_boundary(LONGEST);
    let method = text(table, &["method"]).unwrap_or("sdft");
    match &stem[..end] {
        "" => format!("run-{method}"),
        stem => format!("{stem}-{method}"),
    }
}

fn is_set(args: &TrainArgs, key: &str) -> bool {
    let keys = args.run.set.iter().filter_map(|set| set.split_once('='));
    keys.into_iter().any(|(set, _)| set.trim() == key)
}

fn text<'a>(table: &'a Table, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    match rest {
        [] => value.as_str(),
        _ => text(value.as_table()?, rest),
    }
}

/// Levels and attention that follow the image size, where the settings do not say them.
pub(super) fn fit_architecture(model: &mut AdmConfig, given: &Map<String, Json>) {
    if !given.contains_key("channel_mult") {
        model.channel_mult = AdmConfig::channel_mult_for(model.image_size);
    }
    if !given.contains_key("attention_resolutions") {
        model.attention_resolutions = AdmConfig::attention_for(model.image_size, model.levels());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use crate::presets::plan as plan_of;
    use clap::Parser;
    use sdft_settings::given;

    fn args(more: &[&str]) -> TrainArgs {
        match Cli::try_parse_from([&["sdft", "train"], more].concat())
            .unwrap()
            .verb
        {
            Verb::Train(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn resolve_precision(more: &[&str]) -> (Plan, Vec<String>) {
        let (table, notes) = settings(&args(more)).unwrap();
        let given = given(&table, "model");
        let mut plan: Plan = plan_of(table).unwrap();
        fit_architecture(&mut plan.model, &given);
        (plan, notes)
    }

    #[test]
    fn data_without_a_source_trains_from_random_weights_at_a_size_and_that_is_said() {
        let (plan, notes) = resolve_precision(&["--data", "photos/"]);
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(plan.method, sdft_train::Method::Scratch);
        assert_eq!(
            (plan.name.as_str(), plan.model.image_size),
            ("photos-scratch", 64)
        );
        for words in [
            "own-64",
            "own-32, own-128, own-256",
            "--source",
            "--dry-run",
        ] {
            assert!(notes[0].contains(words), "{words}: {notes:?}");
        }
        let (plan, _) = resolve_precision(&["--data", "photos", "--set", "model.image_size=32"]);
        assert_eq!((plan.model.levels(), plan.steps.steps), (4, 20_000));
        let (plan, _) = resolve_precision(&[
            "--data",
            "p",
            "--method=scratch",
            "--set=model.image_size=1024",
        ]);
        assert_eq!((plan.model.image_size, plan.model.levels()), (1024, 7));
        let (plan, notes) = resolve_precision(&["--data", "photos", "--source", "faces.pt"]);
        assert_eq!((plan.name.as_str(), plan.optim.lr), ("photos-sdft", 2e-5));
        assert!(
            plan.optim.ema_ramp && notes[0].contains("80000 steps"),
            "{notes:?}"
        );
        assert_eq!(resolve_precision(&[]).1, Vec::<String>::new());
    }

    #[test]
    fn the_architecture_follows_the_image_size_unless_it_is_said() {
        let config = [
            "--config",
            "metfaces-sdft",
            "--method",
            "scratch",
            "--data",
            "p",
        ];
        let (plan, _) = resolve_precision(&config);
        assert_eq!(plan.model, AdmConfig::default());
        for (size, levels) in [("128", 5), ("64", 4), ("32", 4)] {
            let set = format!("--set=model.image_size={size}");
            let (plan, _) = resolve_precision(&[&config[..], &[&set]].concat());
            assert_eq!(plan.model.levels(), levels);
            assert_eq!(plan.validate(), Ok(()));
        }
        let said = "--set=model.channel_mult=[1.0, 2.0]";
        let (plan, _) =
            resolve_precision(&[&config[..], &["--set=model.image_size=32", said]].concat());
        assert_eq!(plan.model.channel_mult, [1.0, 2.0]);
        assert_eq!(plan.model.attention_resolutions, [2]);
        let (plan, _) = resolve_precision(&["--config", "digits-scratch"]);
        assert_eq!(plan.model.channel_mult, [1.0, 1.0, 2.0]);
    }

    #[test]
    fn a_run_is_named_after_its_data_and_method_unless_it_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "name = \"mine\"\n").unwrap();
        let file = file.display().to_string();
        let long = "x".repeat(250);
        for (more, name) in [
            (&["--config", "metfaces-sdft"][..], "metfaces-sdft"),
            (
                &["--config", "metfaces-sdft", "--data", "a/photos"],
                "photos-sdft",
            ),
            (
                &["--config", "digits-sdft", "--data", ".hidden"],
                "hidden-sdft",
            ),
            (
                &["--config", "digits-sdft", "--method", "naive"],
                "digits-naive",
            ),
            (
                &["--config", "own-32", "--data", "photos"],
                "photos-scratch",
            ),
            (&["--data", "photos", "--name", "it"], "it"),
            (&["--data", "photos", "--set", "name=it"], "it"),
            (&["--config", &file, "--data", "photos"], "mine"),
            (
                &["--config", "digits-source", "--seed", "3"],
                "digits-source",
            ),
            (&["--method", "naive"], "digits-naive"),
            (&["--data", "digits"], "digits-sdft"),
            (&["--data", "/"], "run-scratch"),
            (&["--data", &long], &format!("{}-scratch", &long[..LONGEST])),
        ] {
            assert_eq!(resolve_precision(more).0.name, name, "{more:?}");
        }
    }

    #[test]
    fn only_a_command_without_arguments_is_the_example() {
        assert!(is_example(&args(&[])) && is_example(&args(&["--out", "here"])));
        for more in [
            &["--steps", "3"][..],
            &["--data", "digits"],
            &["--config", "digits-sdft"],
            &["--name", "x"],
            &["--dry-run"],
            &["--set", "seed=1"],
            &["--resume", "runs/x"],
        ] {
            assert!(!is_example(&args(more)), "{more:?}");
        }
    }
}
