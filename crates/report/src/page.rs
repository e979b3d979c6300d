//! The page of one or several folders.

use crate::chart::{COLOURS, Chart, Curve, number};
use crate::error::{Error, Result};
use crate::images::{Images, read_images};
use crate::plan::text;
use crate::run::{Run, read_run};
use crate::tables::{Numbers, read_comparison, read_evaluation, tables_of};
use minijinja::{Environment, context};
use sdft_schedule::Weighting;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of all pictures, before they become text, which is a third longer.
const PICTURES: usize = 6_500_000;

/// Says which preset a name stands for: its settings as TOML.
pub type PresetText<'a> = &'a dyn Fn(&str) -> Option<&'static str>;

/// A chart on the page.
#[derive(Debug, Serialize)]
struct Shown {
    title: String,
    svg: String,
    legend: Vec<Key>,
}

/// A line of a legend.
#[derive(Debug, Serialize)]
struct Key {
    name: String,
    colour: usize,
    first: String,
    last: String,
    least: String,
    most: String,
}

/// A setting that is not the same in all runs.
#[derive(Debug, Serialize)]
struct Difference {
    key: String,
    values: Vec<String>,
}

/// The page of these folders, complete in itself.
///
/// # Errors
/// A folder that none of the commands made, or a file that cannot be read.
pub fn page(folders: &[PathBuf], presets: PresetText<'_>) -> Result<String> {
    render(folders, presets, false)
}

/// [`page`], or one that loads itself again when the folders change.
pub(crate) fn render(folders: &[PathBuf], presets: PresetText<'_>, live: bool) -> Result<String> {
    let names = names(folders);
    let most = PICTURES / folders.len().max(1);
    let (mut runs, mut images, mut numbers) = (
        Vec::<Run>::new(),
        Vec::<Images>::new(),
        Vec::<Numbers>::new(),
    );
    for (root, name) in folders.iter().zip(&names) {
        let name = name.clone();
        match kind(root)? {
            Kind::Run => runs.push(read_run(root, name, presets, most)?),
            Kind::Images => images.push(read_images(root, name, most)?),
            Kind::Evaluation => numbers.push(read_evaluation(root, name, most)?),
            Kind::Comparison => numbers.push(read_comparison(root, name, most)?),
        }
    }
    let mut environment = Environment::new();
    environment.add_filter("number", number);
    environment.add_template("page.html", include_str!("../templates/page.html"))?;
    let page = environment.get_template("page.html")?.render(context! {
        title => names.join(", "),
        version => env!("CARGO_PKG_VERSION"),
        style => include_str!("../templates/style.css"),
        script => include_str!("../templates/script.js"),
        charts => charts(&runs),
        weights => weights(&runs),
        differences => differences(&runs),
        runs, images, numbers, live,
    })?;
    Ok(page)
}

/// What a folder holds.
enum Kind {
    Run,
    Images,
    Evaluation,
    Comparison,
}

fn kind(root: &Path) -> Result<Kind> {
    let has = |name: &str| root.join(name).is_file();
    let path = root.to_owned();
    if root.is_file() {
        let problem = "expected a folder, found a file; give the folder that it is in".to_owned();
        return Err(Error::Content { path, problem });
    }
    if !root.is_dir() {
        return Err(Error::Missing { path });
    }
    match has("plan.toml") {
        true if has("report.json") => Ok(Kind::Evaluation),
        true if has("log.jsonl") || has("run.lock") => Ok(Kind::Run),
        _ if !tables_of(root).is_empty() => Ok(Kind::Comparison),
        true if has(".made.jsonl") => Ok(Kind::Images),
        _ => Err(Error::Foreign { path }),
    }
}

/// The last parts of the paths, or the whole paths where these are equal.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let last = |path: &PathBuf| {
        let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
        let name = whole
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| path.display().to_string())
    };
    let short: Vec<String> = folders.iter().map(last).collect();
    let distinct: BTreeSet<&String> = short.iter().collect();
    match distinct.len() == short.len() {
        true => short,
        false => folders
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    }
}

/// The order and the words of the log's values; others follow by name.
const TERMS: [(&str, &str); 12] = [
    ("loss", "Loss"),
    ("base", "Base loss, Eq. (2)"),
    ("distill", "Distillation on images, Eq. (3)"),
    ("aux", "Distillation on noise, Eq. (5)"),
    ("mse", "Squared error"),
    ("vb", "Variational term"),
    ("kept", "Kept samples (Diff-Tuning)"),
    ("pairwise", "Distances between images (DDPM-PA)"),
    ("anchor", "Pull to the source's weights"),
    ("grad_norm", "Norm of the gradient"),
    ("lr", "Learning rate"),
    ("images_per_second", "Images per second"),
];

fn title(name: &str) -> String {
    let known = TERMS.iter().find(|term| term.0 == name);
    match known {
        Some(term) => term.1.to_owned(),
        None if name == "eval.kid" => "KID x 1000, with its standard error".to_owned(),
        None => {
            let words = name.trim_start_matches("eval.").replace('_', " ");
            let mut letters = words.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string());
            first.unwrap_or_default() + letters.as_str()
        }
    }
}

/// A chart for each value of the logs, with a curve for each run.
fn charts(runs: &[Run]) -> Vec<Shown> {
    let mut by_term: BTreeMap<(usize, &str), Vec<Curve>> = BTreeMap::new();
    for (colour, run) in runs.iter().enumerate() {
        for (name, points) in &run.curves {
            // Drawn as the band of its curve.
            let base = name.strip_suffix("_error");
            if base.is_some_and(|base| run.curves.contains_key(base)) {
                continue;
            }
            // Evaluations come after the loss, the other values at the end.
            let place = TERMS.iter().position(|term| term.0 == name);
            let place = match place {
                Some(place) if place < 9 => place,
                Some(place) => place + 100,
                None => 50,
            };
            by_term.entry((place, name)).or_default().push(Curve {
                name: run.name.clone(),
                points: points.clone(),
                errors: run
                    .curves
                    .get(&format!("{name}_error"))
                    .cloned()
                    .unwrap_or_default(),
                colour,
            });
        }
    }
    let shown = by_term.into_iter().filter_map(|((place, name), curves)| {
        let values = || {
            curves
                .iter()
                .flat_map(|curve| &curve.points)
                .map(|point| point.1)
        };
        let (low, high) = values().fold((f64::INFINITY, 0.0f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let chart = Chart {
            x: "steps",
            log_x: false,
            // Losses and norms span orders of magnitude.
            log_y: !name.starts_with("eval.") && place != 111 && low > 0.0 && high / low > 100.0,
            marked: name.starts_with("eval."),
            curves,
        };
        Some(Shown {
            title: title(name),
            svg: chart.svg()?,
            legend: legend(&chart.curves),
        })
    });
    shown.collect()
}

fn legend(curves: &[Curve]) -> Vec<Key> {
    let key = |curve: &Curve| {
        let values = || curve.points.iter().map(|point| point.1);
        let end = |value: Option<f64>| value.map(number).unwrap_or_default();
        Key {
            name: curve.name.clone(),
            colour: curve.colour % COLOURS,
            first: end(values().next()),
            last: end(values().next_back()),
            least: end(values().reduce(f64::min)),
            most: end(values().reduce(f64::max)),
        }
    };
    curves.iter().map(key).collect()
}

/// The weights of the loss over the signal-to-noise ratio, one chart for each run that has any.
fn weights(runs: &[Run]) -> Vec<Shown> {
    let terms = [
        ("weight", "w(t), distillation on images"),
        ("weight_aux", "w_aux(t), distillation on noise"),
        ("base", "base loss"),
    ];
    let shown = runs.iter().filter_map(|run| {
        let distills = text(&run.plan, &["method"]) == Some("sdft");
        let curves: Vec<Curve> = terms
            .iter()
            .enumerate()
            .filter(|(_, term)| distills || term.0 == "base")
            .filter_map(|(colour, (key, name))| {
                let weighting: Weighting = text(&run.plan, &["loss", key])?.parse().ok()?;
                let points = (0..=200).map(|i| {
                    let snr = 10f64.powf(-4.0 + 8.0 * f64::from(i) / 200.0);
                    (snr, weighting.at(snr))
                });
                Some(Curve {
                    name: format!("{name}: {weighting}"),
                    points: points.collect(),
                    errors: Vec::new(),
                    colour,
                })
            })
            .collect();
        // A constant says nothing.
        let is_flat = |curve: &Curve| {
            curve
                .points
                .iter()
                .all(|point| point.1 == curve.points[0].1)
        };
        if curves.iter().all(is_flat) {
            return None;
        }
        let chart = Chart {
            curves,
            x: "signal-to-noise ratio",
            log_x: true,
            log_y: false,
            marked: false,
        };
        Some(Shown {
            title: format!("Weights over the noise level, {}", run.name),
            svg: chart.svg()?,
            legend: legend(&chart.curves),
        })
    });
    shown.collect()
}

/// The settings that are not the same in all runs.
fn differences(runs: &[Run]) -> Vec<Difference> {
    let keys: BTreeSet<&String> = runs
        .iter()
        .flat_map(|run| run.settings.iter().map(|setting| &setting.key))
        .collect();
    let rows = keys.into_iter().filter_map(|key| {
        let value = |run: &Run| {
            let setting = run.settings.iter().find(|setting| setting.key == *key);
            setting.map_or_else(String::new, |setting| setting.value.clone())
        };
        let values: Vec<String> = runs.iter().map(value).collect();
        let first = values.first()?;
        (!values.iter().all(|value| value == first)).then(|| Difference {
            key: key.clone(),
            values: values.clone(),
        })
    });
    rows.collect()
}
