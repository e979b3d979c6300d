//! What a command does not write to, said before anything is computed.

use super::outputs::{LOCK, PLAN};
use crate::usage;
use anyhow::{Context, Result, bail};
use sdft_files::is_temporary;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What becomes of a folder that another plan or someone else filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// The command has no option for it.
    Never,
    /// The user did not say `--overwrite`.
    No,
    Yes,
}

impl From<bool> for Overwrite {
    fn from(said: bool) -> Self {
        if said { Self::Yes } else { Self::No }
    }
}

impl Overwrite {
    fn hint(self, why: &str) -> String {
        match self {
            Self::Never => String::new(),
            Self::No | Self::Yes => format!(", or give --overwrite to {why}"),
        }
    }
}

/// Fails unless a folder is new, empty, or filled by this plan.
pub(crate) fn check<P: Serialize + DeserializeOwned>(
    root: &Path,
    plan: &P,
    overwrite: Overwrite,
) -> Result<()> {
    let shown = root.display();
    if root.exists() && !root.is_dir() {
        return Err(usage(format!(
            "--out {shown}: this is a file, expected a folder"
        )));
    }
    let path = root.join(PLAN);
    let text = toml::to_string(plan).context("the plan cannot be written")?;
    let found = match fs::read_to_string(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if overwrite != Overwrite::Yes && is_occupied(root)? {
                return Err(usage(format!(
                    "--out {shown}: the folder is not empty and was not made by this command; name another{}",
                    overwrite.hint("replace files of the same names")
                )));
            }
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let Ok(there) = toml::from_str::<P>(&found) else {
        return Err(usage(format!(
            "--out {shown}: the plan.toml there is that of something else: a run, another command, or another version of this one; name another folder"
        )));
    };
    let there = toml::to_string(&there).context("the plan cannot be written")?;
    if there != text && overwrite != Overwrite::Yes {
        bail!(
            "{shown}: what is there was made with other settings ({}); name another --out{}",
            difference(&there, &text),
            overwrite.hint("make it again")
        );
    }
    Ok(())
}

/// Fails if a folder of outputs and that of the inputs lie in each other.
pub(crate) fn check_apart(out: &Path, input: &Path) -> Result<()> {
    let folder = match input.is_dir() {
        true => input,
        false => sdft_files::parent_of(input),
    };
    let (full, input_full) = (real(out)?, real(folder)?);
    let nested = full.starts_with(&input_full) || input_full.starts_with(&full);
    if full == input_full || (input.is_dir() && nested) {
        return Err(usage(format!(
            "--out {}: it is the folder of the inputs, or one of them lies inside the other, and outputs would be mixed up with inputs; name another",
            out.display()
        )));
    }
    Ok(())
}

/// Fails if a single file that a command is to write cannot be: it is there already, or its folder is not. Asked before anything is
/// computed.
pub(crate) fn check_new_file(option: &str, path: &Path, overwrite: Overwrite) -> Result<()> {
    let wrong = |problem: &str| Err(usage(format!("{option} {}: {problem}", path.display())));
    if path.is_dir() {
        return wrong("this is a folder, expected a file");
    }
    if !sdft_files::parent_of(path).is_dir() {
        return wrong("its folder does not exist");
    }
    if overwrite != Overwrite::Yes && fs::symlink_metadata(path).is_ok() {
        let hint = overwrite.hint("replace it");
        return wrong(&format!("it is there already; name another file{hint}"));
    }
    Ok(())
}

/// Whether there is anything in the folder, apart from what a command leaves that ends before it has a plan.
fn is_occupied(root: &Path) -> Result<bool> {
    if !root.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let name = entry?.file_name();
        if name != LOCK && !is_temporary(&name.to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The real path of a folder that may not be there yet.
fn real(path: &Path) -> Result<PathBuf> {
    let mut missing = Vec::new();
    let mut there = std::path::absolute(path)
        .with_context(|| format!("cannot make sense of the path {}", path.display()))?;
    loop {
        match there.canonicalize() {
            Ok(full) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(full, |p: PathBuf, part| p.join(part)));
            }
            Err(_) => match (there.parent(), there.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name.to_owned());
                    there = parent.to_owned();
                }
                _ => bail!("{}: no such folder", path.display()),
            },
        }
    }
}

/// The first setting in which two plans differ.
fn difference(there: &str, now: &str) -> String {
    let [there, now] = [there, now].map(|text| {
        let mut all = BTreeMap::new();
        if let Ok(table) = toml::from_str::<toml::Table>(text) {
            settings("", &toml::Value::Table(table), &mut all);
        }
        all
    });
    let differs = |key: &&String| there.get(*key) != now.get(*key);
    let Some(key) = there.keys().chain(now.keys()).find(differs) else {
        return "one lists more than the other".to_owned();
    };
    let name = key.rsplit('.').next().unwrap_or(key);
    let said = |value: Option<&String>| match value {
        Some(value) => format!("{name} = {value}"),
        None => format!("no {name}"),
    };
    format!("there {}, now {}", said(there.get(key)), said(now.get(key)))
}

/// Every single value under its dotted key.
fn settings(key: &str, value: &toml::Value, all: &mut BTreeMap<String, String>) {
    let below = |part: &str| match key {
        "" => part.to_owned(),
        key => format!("{key}.{part}"),
    };
    match value {
        toml::Value::Table(table) => {
            for (part, value) in table {
                settings(&below(part), value, all);
            }
        }
        toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {
            for (i, value) in values.iter().enumerate() {
                settings(&below(&i.to_string()), value, all);
            }
        }
        value => {
            all.insert(key.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_file_is_refused_before_anything_is_computed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        check_new_file("--out", &file, Overwrite::No).unwrap();
        fs::write(&file, b"{}").unwrap();
        assert!(check_new_file("--out", &file, Overwrite::No).is_err());
        check_new_file("--out", &file, Overwrite::Yes).unwrap();
        assert!(check_new_file("--out", dir.path(), Overwrite::Yes).is_err());
        assert!(check_new_file("--out", &dir.path().join("no/a.json"), Overwrite::Yes).is_err());
    }

    #[test]
    fn the_first_setting_that_differs_is_named() {
        let plan = |t0: &str| format!("seed = 1\n[[variants]]\nlabel = \"\"\n{t0}");
        let said = |a: &str, b: &str| difference(&plan(a), &plan(b));
        assert_eq!(said("t0 = 0.5", "t0 = 0.3"), "there t0 = 0.5, now t0 = 0.3");
        assert_eq!(said("", "t0 = 0.3"), "there no t0, now t0 = 0.3");
    }
}
