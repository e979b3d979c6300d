//! The folder of outputs: what is in it already, and what of that can stay.

use crate::usage;
use anyhow::{Context, Result, bail};
use sdft_checkpoint::{sha256_bytes, sha256_file, write_bytes_atomic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Says which output was made of which input; hidden, so that tools that look for images do not see it.
const RECORDS: &str = ".made.jsonl";

/// Held by the process that writes there.
const LOCK: &str = ".made.lock";

/// One finished image.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    input_sha256: String,
    output_sha256: String,
}

/// The images of one variant.
pub(crate) struct Outputs {
    folder: PathBuf,
    known: HashMap<String, Record>,
    records: File,
}

impl Outputs {
    /// Opens or makes the folder.
    pub(crate) fn open(folder: &Path, overwrite: bool) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(RECORDS);
        if overwrite && path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        // A line that was cut off by a crash is no record; its image is made again.
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let known = records.map(|r: Record| (r.name.clone(), r)).collect();
        let mut records = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            records.write_all(b"\n")?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            known,
            records,
        })
    }

    /// Where the image of this name is or will be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The names of all images that there are records of.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Whether there is a record of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Whether the image is there, whole, and made of this input.
    pub(crate) fn is_complete(&self, name: &str, input_sha256: &str) -> bool {
        let Some(record) = self.known.get(name) else {
            return false;
        };
        record.input_sha256 == input_sha256
            && sha256_file(&self.path(name)).is_ok_and(|found| found == record.output_sha256)
    }

    /// Writes an image and then its record.
    pub(crate) fn write(&mut self, name: &str, input_sha256: &str, png: &[u8]) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        write_bytes_atomic(&path, png)?;
        let record = Record {
            name: name.to_owned(),
            input_sha256: input_sha256.to_owned(),
            output_sha256: sha256_bytes(png),
        };
        let line = serde_json::to_string(&record)? + "\n";
        self.records
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot write {}", self.folder.join(RECORDS).display()))?;
        self.known.insert(name.to_owned(), record);
        Ok(())
    }
}

/// Fails if the output folder and the input's lie in each other, or if it holds something else than this plan's images.
pub(crate) fn check<P: Serialize + DeserializeOwned>(
    out: &Path,
    input: &Path,
    plan: &P,
    overwrite: bool,
) -> Result<()> {
    if out.exists() && !out.is_dir() {
        return Err(usage(format!(
            "--out {}: this is a file, expected a folder",
            out.display()
        )));
    }
    let folder = if input.is_dir() {
        input
    } else {
        input
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    };
    let full = real(out)?;
    let input_full = real(folder)?;
    let nested = full.starts_with(&input_full) || input_full.starts_with(&full);
    if full == input_full || (input.is_dir() && nested) {
        return Err(usage(format!(
            "--out {}: it is the folder of the inputs, or one of them lies inside the other, and outputs would be mixed up with inputs; name another",
            out.display()
        )));
    }
    let path = out.join("plan.toml");
    let text = toml::to_string(plan).context("the plan cannot be written")?;
    match fs::read_to_string(&path) {
        Ok(found) if found == text => Ok(()),
        Ok(found) if toml::from_str::<P>(&found).is_err() => Err(usage(format!(
            "--out {}: the plan.toml there is that of something else, a run perhaps; name another folder",
            out.display()
        ))),
        Ok(_) if overwrite => Ok(()),
        Ok(found) => {
            let difference = first_difference(&found, &text);
            bail!(
                "{}: these images were made with other settings ({difference}); name another --out, or give --overwrite to make them anew",
                out.display()
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !overwrite && is_occupied(out)? {
                return Err(usage(format!(
                    "--out {}: the folder is not empty and was not made by this command; name another, or give --overwrite to replace images of the same names",
                    out.display()
                )));
            }
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whether there is anything in the folder; what a command leaves that ends before it has a plan does not count.
fn is_occupied(out: &Path) -> Result<bool> {
    if !out.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))? {
        if entry?.file_name() != LOCK {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the folder for this process, until the file is dropped or the process ends in any way.
pub(crate) fn lock(out: &Path) -> Result<File> {
    fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let path = out.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{}: another process is writing into this folder",
            out.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Writes the plan; where there was another one, once nothing is believed of it any more.
pub(crate) fn write_plan<P: Serialize>(out: &Path, plan: &P) -> Result<()> {
    let text = toml::to_string(plan).context("the plan cannot be written")?;
    write_bytes_atomic(&out.join("plan.toml"), text.as_bytes())?;
    Ok(())
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

/// The first line in which two plans differ.
fn first_difference(found: &str, expected: &str) -> String {
    let mut pairs = found.lines().zip(expected.lines());
    match pairs.find(|(a, b)| a != b) {
        Some((found, now)) => format!("there {found}, now {now}"),
        None => "one has more lines than the other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_counts_only_whole_and_of_its_own_input() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        let mut outputs = Outputs::open(&folder, false).unwrap();
        outputs.write("a/x.png", "one", b"pixels").unwrap();
        drop(outputs);
        let outputs = Outputs::open(&folder, false).unwrap();
        assert!(outputs.is_complete("a/x.png", "one"));
        assert!(!outputs.is_complete("a/x.png", "two") && !outputs.is_complete("b.png", "one"));
        fs::write(outputs.path("a/x.png"), b"pix").unwrap();
        assert!(!outputs.is_complete("a/x.png", "one"));
    }

    #[test]
    fn a_record_that_was_cut_off_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORDS), "{\"name\":\"x.png\",\"inp").unwrap();
        let mut outputs = Outputs::open(dir.path(), false).unwrap();
        assert!(!outputs.knows("x.png"));
        outputs.write("y.png", "one", b"pixels").unwrap();
        assert!(
            Outputs::open(dir.path(), false)
                .unwrap()
                .is_complete("y.png", "one")
        );
        assert!(!Outputs::open(dir.path(), true).unwrap().knows("y.png"));
    }
}
