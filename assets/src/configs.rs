//! Presets of settings, and comparisons of methods.

macro_rules! configs {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../configs/", $name, ".toml")))),+]
    };
}

/// Every file of `configs`, by its path without the ending.
const CONFIGS: &[(&str, &str)] = configs![
    "aahq-sdft",
    "autoencoder-digits",
    "autoencoder-emoji",
    "celebahq-latent-sdft",
    "celebahq-sdft",
    "compare/aahq",
    "compare/digits",
    "compare/digits-dit",
    "compare/emoji",
    "compare/metfaces",
    "digits-classifier",
    "digits-dit-naive",
    "digits-dit-sdft",
    "digits-dit-source",
    "digits-naive",
    "digits-scratch",
    "digits-sdft",
    "digits-source",
    "dit-sdft",
    "edit/angry",
    "edit/diffusionclip",
    "edit/digits-3-to-2",
    "edit/digits-3-to-2-diffusionclip",
    "edit/emoji-add-glasses",
    "edit/emoji-light-to-dark",
    "edit/emoji-man-to-woman",
    "edit/man",
    "edit/old",
    "edit/sad",
    "edit/smiling",
    "edit/woman",
    "edit/young",
    "emoji-classifier",
    "emoji-naive",
    "emoji-scratch",
    "emoji-sdft",
    "emoji-source",
    "ffhq64-sdft",
    "metfaces-sdft",
    "methods/ant",
    "methods/ddpm-pa",
    "methods/diff-tuning",
    "methods/difffit",
    "methods/dogfit",
    "methods/ewc",
    "methods/l2-sp",
    "methods/lora",
    "methods/time-aware",
    "own-128",
    "own-256",
    "own-32",
    "own-64",
];

/// The text of the embedded file `configs/NAME.toml`.
///
/// # Panics
/// There is no such file. In a constant that is an error of the compiler.
pub const fn config(name: &str) -> &'static str {
    let mut i = 0;
    while i < CONFIGS.len() {
        if is_same(CONFIGS[i].0.as_bytes(), name.as_bytes()) {
            return CONFIGS[i].1;
        }
        i += 1;
    }
    panic!("no such file in assets/configs");
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Paths of all files below a folder, without the ending.
    fn files(folder: &Path, prefix: &str, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            if path.is_dir() {
                files(&path, &format!("{prefix}{stem}/"), all);
            } else {
                all.push(format!("{prefix}{stem}"));
            }
        }
    }

    #[test]
    fn every_file_is_embedded_under_its_path() {
        let mut all = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        files(&folder, "", &mut all);
        all.sort();
        let names: Vec<&str> = CONFIGS.iter().map(|config| config.0).collect();
        assert_eq!(names, all);
        const SDFT: &str = config("digits-sdft");
        assert!(SDFT.contains("[loop]") && config("methods/lora") != SDFT);
    }
}
