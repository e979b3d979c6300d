//! Refuses output paths before anything is computed.

use crate::error::{Error, OnPath as _, Result};
use crate::outputs::{LOCK, PLAN};
use sdft_files::is_temporary;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Fails unless a folder is new, empty, or filled by this plan. With `overwrite` it may hold other files, too, and those of another plan
/// of the same kind.
///
/// # Errors
/// The folder holds something else, or a file system error occurs.
pub fn check_folder<P: Serialize + DeserializeOwned>(
    root: &Path,
    plan: &P,
    overwrite: bool,
) -> Result<()> {
    if root.exists() && !root.is_dir() {
        return Err(Error::refused(root, "this is a file, expected a folder"));
    }
    let path = root.join(PLAN);
    let text = toml::to_string(plan)?;
    let found = match fs::read_to_string(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if !overwrite && is_occupied(root)? {
                return Err(Error::Refused {
                    path: root.to_owned(),
                    problem: "the folder is not empty and was not made by this command; name another folder".to_owned(),
                    overwriting: Some("replace files of the same names"),
                });
            }
            return Ok(());
        }
        Err(error) => return Err(error).on("read", &path),
    };
    let Ok(there) = toml::from_str::<P>(&found) else {
        return Err(Error::refused(
            root,
            "its plan.toml belongs to a run, another command, or another version of this one; name another folder",
        ));
    };
    let there = toml::to_string(&there)?;
    if there != text && !overwrite {
        return Err(Error::OtherPlan {
            path: root.to_owned(),
            difference: difference(&there, &text),
        });
    }
    Ok(())
}

/// Fails if a folder of outputs is that of the inputs, or one lies inside the other.
///
/// # Errors
/// The folders overlap, or a path cannot be resolved.
pub fn check_apart(out: &Path, input: &Path) -> Result<()> {
    let folder = match input.is_dir() {
        true => input,
        false => sdft_files::parent_of(input),
    };
    let (full, input_full) = (real(out)?, real(folder)?);
    let nested = full.starts_with(&input_full) || input_full.starts_with(&full);
    if full == input_full || (input.is_dir() && nested) {
        return Err(Error::refused(
            out,
            "it is or contains the folder of the inputs, or is inside it, so outputs would be mixed with inputs; name another folder",
        ));
    }
    Ok(())
}

/// Fails if a single file cannot be written: it exists already and is not to be overwritten, or its folder does not exist.
///
/// # Errors
/// The file cannot be written.
pub fn check_new_file(path: &Path, overwrite: bool) -> Result<()> {
    if path.is_dir() {
        return Err(Error::refused(path, "this is a folder, expected a file"));
    }
    if !sdft_files::parent_of(path).is_dir() {
        return Err(Error::refused(path, "its folder does not exist"));
    }
    if !overwrite && fs::symlink_metadata(path).is_ok() {
        return Err(Error::Refused {
            path: path.to_owned(),
            problem: "this file exists already; name another file".to_owned(),
            overwriting: Some("replace it"),
        });
    }
    Ok(())
}

/// Whether the folder holds anything, apart from files of a command that exited before it wrote its plan.
fn is_occupied(root: &Path) -> Result<bool> {
    if !root.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(root).on("read", root)? {
        let name = entry.on("read", root)?.file_name();
        if name != LOCK && !is_temporary(&name.to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The real path of a folder that may not exist yet.
fn real(path: &Path) -> Result<PathBuf> {
    let mut missing = Vec::new();
    let mut there = std::path::absolute(path).on("resolve", path)?;
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
                _ => return Err(Error::refused(path, "no such folder")),
            },
        }
    }
}

/// The first setting in which two plans, as TOML, differ: `there seed = 1, now seed = 2`.
pub fn difference(there: &str, now: &str) -> String {
    let [there, now] = [there, now].map(|text| {
        let mut all = BTreeMap::new();
        if let Ok(table) = toml::from_str::<toml::Table>(text) {
            settings("", &toml::Value::Table(table), &mut all);
        }
        all
    });
    let differs = |key: &&String| there.get(*key) != now.get(*key);
    // Settings of both sides come first: another sampler has other settings, too.
    let is_in_both = |key: &&String| there.contains_key(*key) && now.contains_key(*key);
    let either = there.keys().chain(now.keys()).find(differs);
    let Some(key) = there.keys().filter(is_in_both).find(differs).or(either) else {
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
        check_new_file(&file, false).unwrap();
        fs::write(&file, b"{}").unwrap();
        assert!(check_new_file(&file, false).is_err());
        check_new_file(&file, true).unwrap();
        assert!(check_new_file(dir.path(), true).is_err());
        assert!(check_new_file(&dir.path().join("no/a.json"), true).is_err());
    }

    #[test]
    fn the_first_setting_that_differs_is_named() {
        let plan = |t0: &str| format!("seed = 1\n[[variants]]\nlabel = \"\"\n{t0}");
        let said = |a: &str, b: &str| difference(&plan(a), &plan(b));
        assert_eq!(said("t0 = 0.5", "t0 = 0.3"), "there t0 = 0.5, now t0 = 0.3");
        assert_eq!(said("", "t0 = 0.3"), "there no t0, now t0 = 0.3");
        // Another sampler has other settings.
        let of_ddim = "eta = 0.5\nsampler = \"ddim\"";
        let of_dpm = "sampler = \"dpm\"";
        let expected = "there sampler = \"ddim\", now sampler = \"dpm\"";
        assert_eq!(difference(of_ddim, of_dpm), expected);
    }
}
