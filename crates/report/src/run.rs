//! The folder of a training run.

use crate::chart::number;
use crate::error::{OnPath as _, Result};
use crate::picture::{Embedded, embed};
use crate::plan::{Setting, read_plan, settings, text, value};
use crate::sessions::Sessions;
use sdft_files::short_name;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Table;

/// Pictures of samples, at most: the first, the last, and some between.
const SAMPLES: usize = 24;

/// Values of a log line that are no curves.
const NO_CURVES: [&str; 4] = ["step", "images", "time", "skipped"];

/// A run as the page shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) presets: Vec<String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) samples: Vec<Step>,
    pub(crate) neighbours: Option<Step>,
    pub(crate) files: Vec<FileRow>,
    #[serde(skip)]
    pub(crate) plan: Table,
    #[serde(skip)]
    pub(crate) curves: BTreeMap<String, Vec<(f64, f64)>>,
}

/// A picture of a step.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: u64,
    pub(crate) picture: Embedded,
}

/// A file with a recorded hash.
#[derive(Debug, Serialize)]
pub(crate) struct FileRow {
    pub(crate) name: String,
    pub(crate) size: String,
    pub(crate) sha256: String,
}

/// Reads a run; `presets` gives the text of a preset by its name, and `most` bounds the bytes of its pictures.
pub(crate) fn read_run(
    root: &Path,
    name: String,
    presets: &dyn Fn(&str) -> Option<&'static str>,
    most: usize,
) -> Result<Run> {
    let plan = read_plan(root)?;
    let sessions = Sessions::read(root)?;
    let curves = read_curves(root)?;
    let tables: Vec<Table> = sessions
        .presets
        .iter()
        .filter_map(|name| toml::from_str(presets(name)?).ok())
        .collect();
    let mut warnings = sessions.warnings();
    let (samples, problems) = samples(root, most * 3 / 4);
    warnings.extend(problems);
    Ok(Run {
        name,
        facts: facts(root, &plan, &sessions, &curves),
        warnings,
        notes: sessions.notes.clone(),
        settings: settings(&plan, &tables),
        presets: sessions.presets,
        samples,
        neighbours: neighbours(root, most / 4)?,
        files: files(root)?,
        plan,
        curves,
    })
}

/// The values of the log over the steps; a line that is cut off is left out.
fn read_curves(root: &Path) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let path = root.join("log.jsonl");
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    if !path.exists() {
        return Ok(curves);
    }
    let bytes = fs::read(&path).on("read", &path)?;
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Ok(Json::Object(line)) = serde_json::from_str(line) else {
            continue;
        };
        let Some(step) = line.get("step").and_then(Json::as_f64) else {
            continue;
        };
        let numbers = line
            .iter()
            .filter(|(name, _)| !NO_CURVES.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name, value.as_f64()?)));
        for (name, value) in numbers {
            curves.entry(name.clone()).or_default().push((step, value));
        }
        let speed = line
            .get("time")
            .and_then(|time| time.get("images_per_second"));
        if let Some(speed) = speed.and_then(Json::as_f64) {
            let name = "images_per_second".to_owned();
            curves.entry(name).or_default().push((step, speed));
        }
    }
    Ok(curves)
}

fn facts(
    root: &Path,
    plan: &Table,
    sessions: &Sessions,
    curves: &BTreeMap<String, Vec<(f64, f64)>>,
) -> Vec<(&'static str, String)> {
    let said = |path: &[&str]| {
        text(plan, path)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let integer = |path: &[&str]| value(plan, path).and_then(toml::Value::as_integer);
    let last = curves.values().flatten().map(|point| point.0);
    let done = last.fold(0.0, f64::max);
    let steps = integer(&["loop", "steps"]);
    let model = ["final.safetensors", "adapter.safetensors"]
        .into_iter()
        .find_map(|name| Some((name, fs::metadata(root.join(name)).ok()?.len())));
    let speed = curves
        .get("images_per_second")
        .and_then(|points| points.last());
    let all = [
        ("State", Some(sessions.state(model.is_some()))),
        ("Method", said(&["method"])),
        (
            "Steps",
            steps.map(|steps| match integer(&["loop", "batch"]) {
                Some(batch) => format!("{done} of {steps}, {batch} images each"),
                None => format!("{done} of {steps}"),
            }),
        ),
        (
            "Source model",
            said(&["source"]).map(|path| short_name(&path)),
        ),
        (
            "Images",
            said(&["data", "path"]).map(|path| short_name(&path)),
        ),
        ("Seed", integer(&["seed"]).map(|seed| seed.to_string())),
        ("Time", sessions.time()),
        (
            "Speed",
            speed.map(|(_, speed)| format!("{} images/s", number(*speed))),
        ),
        ("Memory", sessions.peak_memory.map(sdft_files::human_size)),
        ("Device", sessions.device()),
        ("Program", sessions.program.clone()),
        ("Command", sessions.command.clone()),
        (
            "Model file",
            model.map(|(name, bytes)| format!("{name}, {}", sdft_files::human_size(bytes))),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
}

/// The pictures of samples, and what is wrong with those that cannot be read.
fn samples(root: &Path, most: usize) -> (Vec<Step>, Vec<String>) {
    let all = numbered(root, "step-");
    let chosen: Vec<_> = match all.len() {
        n if n <= SAMPLES => all,
        n => (0..SAMPLES)
            .map(|i| all[i * (n - 1) / (SAMPLES - 1)].clone())
            .collect(),
    };
    let each = most / chosen.len().max(1);
    let (mut steps, mut problems) = (Vec::new(), Vec::new());
    for (step, path) in chosen {
        match embed(&path, each) {
            Ok(picture) => steps.push(Step { step, picture }),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (steps, problems)
}

/// The nearest training images at the last evaluation.
fn neighbours(root: &Path, most: usize) -> Result<Option<Step>> {
    let Some((step, path)) = numbered(root, "neighbours-").pop() else {
        return Ok(None);
    };
    let picture = embed(&path, most)?;
    Ok(Some(Step { step, picture }))
}

/// The pictures `PREFIX-N.png` of a run's samples, by their number.
fn numbered(root: &Path, prefix: &str) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(root.join("samples")).into_iter().flatten();
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix(prefix)?.strip_suffix(".png")?;
            Some((number.parse().ok()?, entry.path()))
        })
        .collect();
    all.sort();
    all
}

/// The files that `SHA256SUMS` names.
fn files(root: &Path) -> Result<Vec<FileRow>> {
    let path = root.join("SHA256SUMS");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).on("read", &path)?;
    let rows = text.lines().filter_map(|line| {
        let (sha256, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim_start_matches([' ', '*']);
        let size = fs::metadata(root.join(name)).ok()?.len();
        Some(FileRow {
            name: name.to_owned(),
            size: sdft_files::human_size(size),
            sha256: sha256.to_owned(),
        })
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::{Rgb8, write_png};

    #[test]
    fn a_run_has_curves_samples_and_what_differs_from_its_preset() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let plan = "name = 'r'\nmethod = 'sdft'\nseed = 3\n[loop]\nsteps = 40\nbatch = 8\n";
        fs::write(root.join("plan.toml"), plan).unwrap();
        let log = "{\"step\":10,\"images\":80,\"loss\":0.5,\"lr\":1e-4,\"time\":{\"images_per_second\":20.0}}\n\
                   {\"step\":20,\"images\":160,\"loss\":0.25,\"lr\":1e-4,\"time\":{\"images_per_second\":22.0}}\n\
                   {\"step\":20,\"eval.kid\":7.0,\"time\":{}}\n{\"step\":30,\"lo";
        fs::write(root.join("log.jsonl"), log).unwrap();
        fs::create_dir(root.join("samples")).unwrap();
        for step in [0, 10, 20] {
            let path = root.join(format!("samples/step-{step:06}.png"));
            write_png(&path, &Rgb8::filled(4, 4, [step, 0, 0])).unwrap();
        }
        let session = "{\"start\":{\"unix\":1.0,\"machine\":{\"program\":\"sdft 1\",\"presets\":[\"p\"],\"device\":\"cpu\",\"threads\":2}}}\n\
                       {\"note\":\"warning: few images\"}\n{\"end\":{\"unix\":9.0,\"seconds\":75.0,\"peak_memory\":2000000000,\"ending\":\"interrupted\"}}\n";
        fs::write(root.join("sessions.jsonl"), session).unwrap();
        let preset = |name: &str| (name == "p").then_some("[loop]\nsteps = 100\nbatch = 8");
        let run = read_run(root, "r".into(), &preset, 1 << 20).unwrap();
        assert_eq!(run.curves["loss"], [(10.0, 0.5), (20.0, 0.25)]);
        assert_eq!(run.curves["eval.kid"], [(20.0, 7.0)]);
        assert!(!run.curves.contains_key("images"));
        let steps: Vec<u64> = run.samples.iter().map(|step| step.step).collect();
        assert_eq!(steps, [0, 10, 20]);
        assert_eq!(run.warnings, ["few images"]);
        let differing: Vec<_> = run
            .settings
            .iter()
            .filter_map(|s| Some((s.key.as_str(), s.preset.as_deref()?)))
            .collect();
        assert_eq!(differing, [("loop.steps", "100")]);
        let fact = |name| {
            let facts = run.facts.iter();
            facts.clone().find(|f| f.0 == name).map(|f| f.1.as_str())
        };
        assert_eq!(fact("State"), Some("interrupted"));
        assert_eq!(fact("Steps"), Some("20 of 40, 8 images each"));
        assert_eq!(fact("Time"), Some("1 min 15 s"));
        assert_eq!(fact("Speed"), Some("22 images/s"));
    }

    #[test]
    fn many_samples_are_thinned_with_the_first_and_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("samples")).unwrap();
        for step in 0..60 {
            let path = dir.path().join(format!("samples/step-{step:06}.png"));
            write_png(&path, &Rgb8::filled(2, 2, [0; 3])).unwrap();
        }
        let cut = dir.path().join("samples/step-000000.png");
        let (all, problems) = samples(dir.path(), 1 << 20);
        assert!(problems.is_empty());
        assert_eq!(all.len(), SAMPLES);
        assert_eq!((all[0].step, all[SAMPLES - 1].step), (0, 59));
        // A picture that is cut off is named, and the others are shown.
        let bytes = fs::read(&cut).unwrap();
        fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        let (all, problems) = samples(dir.path(), 1 << 20);
        assert_eq!((all.len(), problems.len()), (SAMPLES - 1, 1));
        assert!(problems[0].contains("step-000000.png"), "{problems:?}");
    }
}
