//! Other runs and folders than the one that was named.

use std::fs;
use std::path::{Path, PathBuf};

/// A key that only the plans of one command have, and the command.
const VERBS: [(&str, &str); 4] = [
    ("method", "train"),
    ("init", "train-classifier"),
    ("walk", "edit train"),
    ("loss.kl_weight", "train-autoencoder"),
];

/// The command whose runs have such a plan.
pub(crate) fn verb_of(text: &str) -> Option<&'static str> {
    let plan: toml::Table = toml::from_str(text).ok()?;
    // Folders of translated and edited images have a plan too, but it has no loop.
    if !plan.contains_key("loop") {
        return None;
    }
    let has = |key: &str| match key.split_once('.') {
        None => plan.contains_key(key),
        Some((section, key)) => plan
            .get(section)
            .is_some_and(|inner| inner.get(key).is_some()),
    };
    let (_, verb) = VERBS.iter().find(|(key, _)| has(key))?;
    Some(verb)
}

/// How many runs a message names.
const NAMED: usize = 12;

/// The runs that a path without a run may have meant, as part of a message: those in this folder, or else those next to it, newest
/// first.
pub fn runs_near(path: &Path) -> Option<String> {
    let parent = sdft_files::parent_of(path);
    [path, parent].into_iter().find_map(|folder| {
        let mut runs: Vec<_> = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                // Folders of outputs have a plan as well.
                let plan = entry.path().join("plan.toml").metadata().ok()?;
                if !entry.path().join("checkpoints").is_dir() {
                    return None;
                }
                let last = entry.metadata().ok()?.modified().or(plan.modified());
                Some((last.ok()?, entry.file_name().to_string_lossy().into_owned()))
            })
            .collect();
        runs.sort();
        let names: Vec<String> = runs.into_iter().rev().map(|(_, name)| name).collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let named = names[..names.len().min(NAMED)].join(", ");
        let folder = folder.display();
        (!names.is_empty()).then(|| format!("the runs in {folder} are {named}{more}"))
    })
}

/// A folder under `parent` for a run of this name that is not taken yet: `name`, `name-2`, `name-3`, ..
pub fn free_run_folder(parent: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|n| parent.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(parent.join(name)).chain(numbered);
    // The iterator does not end. The compiler needs the fallback.
    candidates
        .find(|path| !path.exists())
        .unwrap_or_else(|| parent.join(name))
}
