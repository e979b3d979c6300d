//! What a run measured, as tables of a model card.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use serde_json::{Map, Value};

use super::{
    names::public,
    run::{Folder, Run},
};

/// The evaluations of a training run, with what limits them.
const EVALUATED: &[(&str, &str)] = &[
    ("eval.kid", "KID x1000, smaller is better"),
    ("eval.kid_error", "standard error of that KID"),
    (
        "eval.nearest",
        "median distance of a sample to the nearest training image, in features",
    ),
    (
        "eval.memorised",
        "memorised: share of samples less than half as far from their nearest training image as from their 50 nearest on average",
    ),
    (
        "eval.coverage",
        "coverage: share of samples in the target's style with a class or attribute that the target set lacks, larger is better",
    ),
    ("eval.style", "share of samples in the target's style"),
];

/// The sections about measurements; empty if there are none.
pub(crate) fn sections(folder: &Folder) -> String {
    let mut out = String::new();
    if let Some(run) = &folder.run {
        out.push_str(&evaluations(&folder.root, run));
        out.push_str(&reconstruction(&folder.root));
        out.push_str(&accuracy(&folder.root));
    }
    for path in reports(&folder.root) {
        out.push_str(&report(&path));
    }
    out
}

/// The evaluations in `log.jsonl`: the last one, and the one with the best KID.
fn evaluations(root: &Path, run: &Run) -> String {
    let Ok(file) = File::open(root.join("log.jsonl")) else {
        return String::new();
    };
    let mut all: Vec<Map<String, Value>> = Vec::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        if line.contains("\"eval.")
            && let Ok(Value::Object(values)) = serde_json::from_str(&line)
        {
            all.push(values);
        }
    }
    let Some(last) = all.last() else {
        return String::new();
    };
    let key = match run.text("eval.best") {
        Some("coverage") => "eval.coverage",
        _ => "eval.kid",
    };
    let score = |values: &&Map<String, Value>| -> Option<f64> {
        let value = values.get(key)?.as_f64()?;
        Some(if key == "eval.coverage" {
            -value
        } else {
            value
        })
    };
    let scored = all.iter().filter(|values| score(values).is_some());
    let best = scored.min_by(|a, b| {
        score(a)
            .unwrap_or(f64::INFINITY)
            .total_cmp(&score(b).unwrap_or(f64::INFINITY))
    });
    let best = best.unwrap_or(last);
    let step = |values: &Map<String, Value>| number(values.get("step"));
    let mut out = format!(
        "\n## Evaluation while training\n\n| measure | last, step {} | best, step {} |\n|---|---|---|\n",
        step(last),
        step(best)
    );
    for (name, what) in EVALUATED {
        if last.contains_key(*name) {
            let _ = writeln!(
                out,
                "| {what} | {} | {} |",
                number(last.get(*name)),
                number(best.get(*name))
            );
        }
    }
    let samples = number(
        run.get("eval.samples")
            .and_then(|n| n.as_integer())
            .map(Value::from)
            .as_ref(),
    );
    let features = run.text("eval.features").unwrap_or("inception");
    let _ = writeln!(
        out,
        "\nMeasured on {samples} samples of one fixed noise against the training images themselves (features: {features}, or the judge of an \
         embedded set). So few samples rank the checkpoints of one run. They do not compare with numbers of other runs, programs or papers, \
         and a model that copies its training images has a low KID. The published weights are the last ones.",
    );
    out
}

/// `reconstruction.json` of an autoencoder.
fn reconstruction(root: &Path) -> String {
    let Some(values) = object(&root.join("reconstruction.json")) else {
        return String::new();
    };
    let held_out = values.get("held_out").and_then(Value::as_bool) == Some(true);
    let images = match held_out {
        true => "images that were held out of the training",
        false => {
            "training images, because none were held out; new images are reconstructed less well"
        }
    };
    let get = |name: &str| number(values.get(name));
    format!(
        "\n## Reconstruction\n\n| measure | value |\n|---|---|\n| PSNR, dB | {} |\n| mean absolute error, values in -1..1 | {} |\n\
         | standard deviation of the latents | {} |\n| scaling factor of the latents | {} |\n\nMeasured on {} {images}.\n",
        get("psnr"),
        get("l1"),
        get("latent_std"),
        get("scaling_factor"),
        get("images"),
    )
}

/// `accuracy.json` of a classifier.
fn accuracy(root: &Path) -> String {
    let Some(values) = object(&root.join("accuracy.json")) else {
        return String::new();
    };
    let Some(levels) = values.get("levels").and_then(Value::as_array) else {
        return String::new();
    };
    let objects: Vec<&Map<String, Value>> = levels.iter().filter_map(Value::as_object).collect();
    let Some(first) = objects.first() else {
        return String::new();
    };
    let names: Vec<&String> = first.keys().collect();
    let mut out = "\n## Accuracy on held-out images\n\n".to_owned();
    let titles: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let _ = writeln!(
        out,
        "| {} |\n|{}",
        titles.join(" | "),
        "---|".repeat(names.len())
    );
    for level in objects {
        let cells: Vec<String> = names.iter().map(|name| number(level.get(*name))).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(
        out,
        "\nMeasured on {} source and {} target images, at each noise level.",
        number(values.get("n_source")),
        number(values.get("n_target"))
    );
    out
}

/// The reports that `evaluate` wrote into the folder, or into a folder in it.
fn reports(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let mut all: Vec<_> = std::iter::once(root.to_owned())
        .chain(folders)
        .map(|folder| folder.join("report.json"))
        .filter(|path| path.is_file())
        .collect();
    all.sort();
    all
}

/// A report of `evaluate`: its settings, numbers and warnings.
fn report(path: &Path) -> String {
    let Some(values) = object(path) else {
        return String::new();
    };
    let Some(measures) = values.get("measures").and_then(Value::as_array) else {
        return String::new();
    };
    let mut out =
        "\n## Evaluation\n\n| measure | value | spread | n | note |\n|---|---|---|---|---|\n"
            .to_owned();
    for measure in measures {
        let cells: Vec<String> = ["name", "value", "spread", "n", "note"]
            .iter()
            .map(|key| cell(&number(measure.get(key))))
            .collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let settings = values.get("settings").and_then(Value::as_object);
    let settings: Vec<String> = settings
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}: {}", words(value.as_str()?))))
        .collect();
    if !settings.is_empty() {
        let _ = writeln!(out, "\nSettings: {}.", settings.join("; "));
    }
    let warnings = values.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "\n> {}", words(warning));
    }
    out
}

/// A text whose paths of this machine are replaced by names, word by word.
fn words(text: &str) -> String {
    let named = text.lines().map(|line| {
        let words = line.split(' ').map(|word| {
            if !word.contains(char::is_alphanumeric) {
                return word.to_owned();
            }
            let start = word.find(|c| !"([{<\"'`".contains(c)).unwrap_or(0);
            format!("{}{}", &word[..start], public(&word[start..]))
        });
        words.collect::<Vec<_>>().join(" ")
    });
    named.collect::<Vec<_>>().join(" ")
}

fn object(path: &Path) -> Option<Map<String, Value>> {
    let text = sdft_files::read_text(path).ok()?;
    serde_json::from_str(&text).ok()
}

/// A value as a cell: numbers with four significant digits, nothing for what is missing.
fn number(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(n)) if n.is_f64() => short(n.as_f64().unwrap_or_default()),
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::String(text)) => words(text),
        Some(Value::Bool(value)) => value.to_string(),
        _ => String::new(),
    }
}

/// A number with four significant digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0.0,
        size => 3.0 - size.log10().floor(),
    };
    if (-8.0..=8.0).contains(&digits) {
        // The range keeps the cast exact.
        format!("{value:.*}", digits.max(0.0) as usize)
    } else {
        format!("{value:.3e}")
    }
}

/// A text inside a table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::push::run::Verb;

    fn folder(root: &Path, plan: &str) -> Folder {
        let run = Run {
            verb: Verb::Train,
            plan: toml::from_str(plan).unwrap(),
        };
        Folder {
            root: root.to_owned(),
            run: Some(run),
        }
    }

    #[test]
    fn the_last_and_the_best_evaluation_are_stated_with_their_limits() {
        let dir = tempfile::tempdir().unwrap();
        let log = "{\"step\":1,\"loss\":2.0}\n{\"step\":10,\"eval.kid\":3.25}\n{\"step\":20,\"eval.kid\":1.5,\"eval.nearest\":0.123456}\n{\"step\":30,\"eval.kid\":2.0,\"eval.nearest\":0.2}\n";
        fs::write(dir.path().join("log.jsonl"), log).unwrap();
        let text = sections(&folder(dir.path(), "[eval]\nsamples = 64\n"));
        for part in [
            "last, step 30 | best, step 20",
            "smaller is better | 2.000 | 1.500 |",
            "| 0.2000 | 0.1235 |",
            "on 64 samples",
            "against the training images",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = sections(&folder(dir.path(), "[eval]\nbest = \"coverage\"\n"));
        assert!(text.contains("best, step 30"), "{text}");
        fs::write(
            dir.path().join("log.jsonl"),
            "{\"step\":1,\"loss\":2.0}\nno json \"eval.\n",
        )
        .unwrap();
        assert_eq!(sections(&folder(dir.path(), "")), "");
    }

    #[test]
    fn reports_of_evaluate_have_their_warnings_and_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let report = r#"{"settings":{"real":"/home/ann/cats (10 images)"},"measures":[{"name":"FID","value":12.3456,"spread":null,"n":"10 / 20","note":"a|b"}],"warnings":["few images (/home/ann/cats)"],"pairs":[]}"#;
        fs::create_dir(dir.path().join("eval")).unwrap();
        fs::write(dir.path().join("eval/report.json"), report).unwrap();
        let text = sections(&folder(dir.path(), ""));
        assert!(
            text.contains("| FID | 12.35 |  | 10 / 20 | a\\|b |"),
            "{text}"
        );
        assert!(
            text.contains("real: cats (10 images)") && text.contains("> few images (cats)"),
            "{text}"
        );
        assert!(!text.contains("/home"), "{text}");
    }

    #[test]
    fn measurements_of_autoencoders_and_classifiers_are_tables() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"images":8,"held_out":false,"psnr":25.5,"l1":0.05,"latent_std":2.0,"scaling_factor":0.5}"#;
        fs::write(dir.path().join("reconstruction.json"), text).unwrap();
        let text = r#"{"n_source":4,"n_target":2,"levels":[{"t":0,"source":1.0,"target":0.5}]}"#;
        fs::write(dir.path().join("accuracy.json"), text).unwrap();
        let text = sections(&folder(dir.path(), ""));
        for part in [
            "| PSNR, dB | 25.50 |",
            "8 training images",
            "on 4 source and 2 target",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1234.56, "1235"),
            (0.000_123_456, "0.0001235"),
            (-2.5, "-2.500"),
            (1e-12, "1.000e-12"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
