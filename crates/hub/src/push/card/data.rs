//! The training images, by the plan.

use std::fmt::Write as _;

use toml::Value;

use super::{
    super::{
        metrics::cell,
        names::public,
        run::{Run, Verb},
    },
    FILL_IN,
    method::plain,
};

/// Settings of the images: their key in `[data]`, and what they are.
const SETTINGS: [(&str, &str); 16] = [
    ("style", "style"),
    ("per_class", "at most this many of each class"),
    ("size", "height and width"),
    ("channels", "channels"),
    ("depth", "bits of a sample"),
    ("fit", "how images get the size"),
    ("masks", "masks of the loss"),
    ("flip", "horizontal flips"),
    ("flip_vertical", "vertical flips"),
    ("shift", "shifts, pixels"),
    ("scale", "zoom"),
    ("augment", "probability of EDM's augmentation"),
    ("held_out", "share that is held out"),
    ("kind", "kind of images"),
    ("images", "number of images"),
    ("n", "number of images"),
];
/// The most classes that are listed.
const CLASSES: usize = 100;

/// The section about the images.
pub(super) fn section(run: &Run) -> String {
    let mut out = "\n## Training images\n\n".to_owned();
    match run.verb {
        Verb::Classifier => {
            for (side, label) in [("source", 0), ("target", 1)] {
                let _ = writeln!(
                    out,
                    "- {side} domain, label {label}: {}",
                    name(run, &format!("data.{side}"))
                );
            }
        }
        _ => {
            let _ = writeln!(out, "{}.", name(run, "data"));
        }
    }
    let rows: Vec<String> = SETTINGS
        .iter()
        .filter(|(key, _)| is_read(run, key))
        .filter_map(|(key, what)| {
            let value = run.get(&format!("data.{key}")).and_then(plain)?;
            Some(format!("| {what} | `data.{key}` | {} |\n", cell(&value)))
        })
        .collect();
    if !rows.is_empty() {
        let _ = write!(
            out,
            "\n| setting | key | value |\n|---|---|---|\n{}",
            rows.concat()
        );
    }
    out.push_str(&classes(run));
    out
}

/// Whether a setting concerns these images. `style` and `per_class` have values in every plan.
fn is_read(run: &Run, key: &str) -> bool {
    let path = run.text("data.path").unwrap_or_default();
    match key {
        "style" => ["digits", "emoji"].contains(&path),
        "per_class" => {
            path == "digits" && run.get("data.per_class").and_then(Value::as_integer) != Some(0)
        }
        _ => true,
    }
}

/// The name of the images, in Markdown.
fn name(run: &Run, section: &str) -> String {
    match run.text(&format!("{section}.path")) {
        None => format!("The plan names no images. **{FILL_IN}**"),
        Some("digits") => "The handwritten digits that are part of `sdft` (`digits`)".to_owned(),
        Some("emoji") => {
            "The emoji that are part of `sdft` (`emoji`): Noto Emoji by Google (Apache-2.0) and Fluent Emoji by Microsoft (MIT), resized".to_owned()
        }
        Some(path) => {
            let path = public(path);
            match count(run) {
                Some(n) => format!(
                    "{n} images of the folder `{path}`. Origin and license: **{FILL_IN}**"
                ),
                None => format!(
                    "The images of the folder `{path}`. Number, origin and license: **{FILL_IN}**"
                ),
            }
        }
    }
}

/// The number of images, where the plan has it: those of all classes.
fn count(run: &Run) -> Option<i64> {
    let counts = run.get("data.class_counts")?.as_array()?;
    counts.iter().map(Value::as_integer).sum()
}

/// The classes and the number of their images.
fn classes(run: &Run) -> String {
    let list = |key: &str| {
        run.get(key)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    let (names, counts) = (list("data.class_names"), list("data.class_counts"));
    if names.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "\n{} classes:\n\n| label | class | images |\n|---|---|---|\n",
        names.len()
    );
    for (label, name) in names.iter().enumerate().take(CLASSES) {
        let name = plain(name).unwrap_or_default();
        let count = counts.get(label).and_then(plain).unwrap_or_default();
        let _ = writeln!(out, "| {label} | {} | {count} |", cell(&name));
    }
    if names.len() > CLASSES {
        let _ = writeln!(out, "\nThe others are in [plan.toml](plan.toml).");
    }
    out
}
