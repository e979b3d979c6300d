//! Makes `assets/emoji` from the two packages that `assets/emoji/README.md` names.

#![expect(clippy::print_stdout, reason = "the output of a program")]

mod attributes;
mod pictures;
mod tables;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use attributes::{Attributes, attributes, role};
use pictures::{Fluent, atlas, smallest_png};
use serde::Deserialize;

/// The tones of skin, from light to dark: their modifiers, and their names.
const TONES: [(&str, &str); 5] = [
    ("1F3FB", "light"),
    ("1F3FC", "medium-light"),
    ("1F3FD", "medium"),
    ("1F3FE", "medium-dark"),
    ("1F3FF", "dark"),
];

/// Categories without drawings of their own.
const LEFT_OUT: [&str; 3] = ["Flags", "Symbols", "Component"];

/// An emoji as `emoji.json` describes it.
#[derive(Deserialize)]
struct Described {
    name: String,
    unified: String,
    image: String,
    category: String,
    subcategory: String,
    sort_order: u32,
    #[serde(default)]
    skin_variations: serde_json::Map<String, serde_json::Value>,
}

impl Described {
    fn code(&self) -> String {
        self.unified.to_lowercase()
    }

    /// The modifiers of tone and the file of each of its pictures: the one without a tone, then the others from light to dark.
    fn variations(&self) -> Vec<(String, String)> {
        let mut all = vec![(String::new(), self.image.clone())];
        for (tone, variation) in &self.skin_variations {
            let image = variation["image"].as_str().unwrap_or_default();
            all.push((tone.clone(), image.to_owned()));
        }
        all.sort();
        all
    }
}

/// The name of the tone that modifiers such as `1F3FB` or `1F3FB-1F3FF` give.
fn tone_of(modifiers: &str) -> &'static str {
    if modifiers.is_empty() {
        return "none";
    }
    let mut parts = modifiers.split('-');
    let first = parts.next().unwrap_or_default();
    if parts.any(|other| other != first) {
        return "two";
    }
    TONES
        .iter()
        .find(|(code, _)| *code == first)
        .map_or("none", |(_, name)| name)
}

/// A row of the index.
struct Row {
    noto: PathBuf,
    fluent: Option<PathBuf>,
    text: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [noto, fluent, out] = args.as_slice() else {
        return Err(
            "usage: make_emoji NOTO_PACKAGE FLUENT_PACKAGE OUT, two unpacked packages and a folder"
                .into(),
        );
    };
    let rows = rows(noto, fluent)?;
    fs::create_dir_all(out)?;
    let mut index = format!(
        "code\tbase\tname\tcategory\t{}\trole\tfluent\n",
        Attributes::COLUMNS.join("\t")
    );
    for row in &rows {
        index.push_str(&row.text);
        index.push('\n');
    }
    save(&out.join("index.tsv"), index.as_bytes())?;
    let drawn = |paths: Vec<Option<&PathBuf>>| -> Result<_, Box<dyn Error>> {
        smallest_png(&atlas(&paths)?)
    };
    let noto = rows.iter().map(|row| Some(&row.noto)).collect();
    save(&out.join("noto.png"), &drawn(noto)?)?;
    let fluent = rows.iter().map(|row| row.fluent.as_ref()).collect();
    save(&out.join("fluent.png"), &drawn(fluent)?)?;
    let both = rows.iter().filter(|row| row.fluent.is_some()).count();
    println!("{} emoji, {both} of them in both styles", rows.len());
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{}: {} bytes", path.display(), bytes.len());
    Ok(())
}

/// Every emoji that Noto draws, in the order of `emoji.json`, each followed by its tones.
fn rows(noto: &Path, fluent: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let path = noto.join("emoji.json");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut all: Vec<Described> =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    all.retain(|emoji| !LEFT_OUT.contains(&emoji.category.as_str()));
    all.sort_by_key(|emoji| emoji.sort_order);
    let mut rows = Vec::new();
    for emoji in &all {
        let base = emoji.code();
        let role = role(emoji, &all);
        let fluent = Fluent::of(fluent, emoji)?;
        for (modifiers, image) in emoji.variations() {
            let noto = noto.join("img/google/64").join(&image);
            if !noto.is_file() {
                continue;
            }
            let code = image.trim_end_matches(".png").to_owned();
            let found = attributes(emoji, tone_of(&modifiers));
            let fluent = fluent.picture(&modifiers, &code);
            let in_both = if fluent.is_some() { "yes" } else { "no" };
            let name = emoji.name.to_lowercase();
            let values = found.values().join("\t");
            rows.push(Row {
                text: format!(
                    "{code}\t{base}\t{name}\t{}\t{values}\t{role}\t{in_both}",
                    emoji.category
                ),
                noto,
                fluent,
            });
        }
    }
    Ok(rows)
}
