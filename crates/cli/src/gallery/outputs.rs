//! A folder that a command fills by a plan: what is in it already, what of that stays, and what must not be touched.

use super::refusal::{Overwrite, check};
use anyhow::{Context, Result, bail};
use sdft_checkpoint::{sha256_bytes, sha256_file};
use sdft_files::{Flush, open_append, sweep, write_atomic, write_atomic_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What decides the files, so that files of two settings never lie in one folder.
pub(super) const PLAN: &str = "plan.toml";
/// Says which file was made of what; hidden, so that tools that look for images do not see it.
const RECORDS: &str = ".made.jsonl";
/// Held by the process that writes there.
pub(super) const LOCK: &str = ".made.lock";
/// Bytes that file systems allow in a name.
const LONGEST_NAME: usize = 255;

/// One finished file.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    /// Of what it was made of; empty where the plan alone decides it.
    input_sha256: String,
    output_sha256: String,
}

/// A folder of files made by one plan, locked for this process.
///
/// A file counts as made if its record, what it was made of and its content agree. Files without a record belong to someone else and are
/// never replaced, unless the user said `--overwrite`.
pub(crate) struct Outputs {
    root: PathBuf,
    known: HashMap<String, Record>,
    records: File,
    overwrite: Overwrite,
    /// Folders that were swept.
    swept: HashSet<PathBuf>,
    _lock: File,
}

impl Outputs {
    /// Takes the folder for a plan, or makes it. With `overwrite` whatever an earlier plan made there is removed.
    ///
    /// # Errors
    /// The folder holds another plan's files or anything else · another process writes there · the system refuses.
    pub(crate) fn open<P: Serialize + DeserializeOwned>(
        root: &Path,
        plan: &P,
        overwrite: impl Into<Overwrite>,
    ) -> Result<Self> {
        let overwrite = overwrite.into();
        check(root, plan, overwrite)?;
        fs::create_dir_all(root)
            .with_context(|| format!("cannot make the folder {}", root.display()))?;
        let lock = lock(root)?;
        // Another process may have been there between the look and the lock.
        check(root, plan, overwrite)?;
        sweep(root).with_context(|| format!("cannot clean up {}", root.display()))?;
        let path = root.join(RECORDS);
        let (mut known, ends_well) = read_records(&path)?;
        if overwrite == Overwrite::Yes && !known.is_empty() {
            remove_whole(root, known.values())?;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            known.clear();
        }
        let text = toml::to_string(plan).context("the plan cannot be written")?;
        let plan = root.join(PLAN);
        write_atomic(&plan, text.as_bytes())
            .with_context(|| format!("cannot write {}", plan.display()))?;
        let mut records =
            open_append(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if !known.is_empty() && !ends_well {
            records.write_all(b"\n")?;
        }
        Ok(Self {
            root: root.to_owned(),
            known,
            records,
            overwrite,
            swept: HashSet::new(),
            _lock: lock,
        })
    }

    /// Where the file of this name is or will be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The names of all files that there are records of.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Whether there is a record of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Whether the file is there, whole, and made of this.
    pub(crate) fn is_complete(&self, name: &str, made_of: &str) -> bool {
        self.known.get(name).is_some_and(|record| {
            record.input_sha256 == made_of && is_whole(&self.path(name), record)
        })
    }

    /// One hash of the files with these names, as they were made.
    pub(crate) fn hash_of<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> String {
        let mut all = String::new();
        for name in names {
            if let Some(record) = self.known.get(name.as_ref()) {
                all += &record.output_sha256;
            }
        }
        sha256_bytes(all.as_bytes())
    }

    /// Writes a file; `made_of` is the hash of its input, empty where the plan alone decides it.
    ///
    /// # Errors
    /// A file of that name that this command did not make · a name that is too long · the system refuses.
    pub(crate) fn put(&mut self, name: &str, made_of: &str, bytes: &[u8]) -> Result<()> {
        if let Some(problem) = name_problem(name) {
            bail!(problem);
        }
        self.make_parents(name)?;
        let path = self.path(name);
        let record = Record {
            name: name.to_owned(),
            input_sha256: made_of.to_owned(),
            output_sha256: sha256_bytes(bytes),
        };
        // A record that a power cut lost is made again: the file is what it would be.
        let is_foreign = self.overwrite != Overwrite::Yes
            && !self.knows(name)
            && fs::symlink_metadata(&path).is_ok()
            && !is_whole(&path, &record);
        if is_foreign {
            bail!(
                "{}: it is there already and was not made by this command; move it away",
                path.display()
            );
        }
        // The record comes first: a file without one is never taken for this command's after a crash.
        let line = serde_json::to_string(&record)? + "\n";
        self.records
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot write {}", self.root.join(RECORDS).display()))?;
        self.known.insert(name.to_owned(), record);
        write_atomic_with(&path, Flush::ToSystem, |out| out.write_all(bytes))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the files that were made here, are whole and have other names than these.
    pub(crate) fn retain(&self, names: &HashSet<&str>) -> Result<()> {
        let others = self.known.values().filter(|r| !names.contains(&*r.name));
        remove_whole(&self.root, others)
    }

    /// Removes a file that was made here and is out of date, if it is there.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        if self.knows(name) {
            remove(&self.path(name))?;
        }
        Ok(())
    }

    /// Makes the folders that lead to a file, and removes what a killed process left in them.
    fn make_parents(&mut self, name: &str) -> Result<()> {
        let mut folder = self.root.clone();
        for part in Path::new(name).parent().into_iter().flat_map(Path::iter) {
            folder.push(part);
            if self.swept.contains(&folder) {
                continue;
            }
            let shown = folder.display();
            if fs::symlink_metadata(&folder).is_ok_and(|found| found.is_symlink()) {
                bail!("{shown}: it is a link, and is not written through");
            }
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {shown}"))?;
            sweep(&folder).with_context(|| format!("cannot clean up {shown}"))?;
            self.swept.insert(folder.clone());
        }
        Ok(())
    }
}

/// Whether an error of [`Outputs::put`] would meet every other file, too: a full disk, for example.
pub(crate) fn ends_everything(error: &anyhow::Error) -> bool {
    use ErrorKind::{NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kinds = [NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    let system =
        |e: &(dyn std::error::Error + 'static)| Some(e.downcast_ref::<std::io::Error>()?.kind());
    error
        .chain()
        .filter_map(system)
        .any(|kind| kinds.contains(&kind))
}

/// Why no file can have this name.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    let longest = name.split('/').map(str::len).max().unwrap_or(0);
    (longest > LONGEST_NAME).then(|| {
        format!("its output would have a name of {longest} bytes, and file systems take {LONGEST_NAME}; give it a shorter one")
    })
}

/// Takes the folder for this process, until the file is dropped or the process ends in any way.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let file = open_append(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{}: another process is writing into this folder",
            root.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The records by name, and whether the last one is whole. One that was cut off by a crash is none; its file is made again.
/// The names of all files in a folder that there are records of.
pub(crate) fn recorded_names(root: &Path) -> Result<HashSet<String>> {
    let (records, _) = read_records(&root.join(RECORDS))?;
    Ok(records.into_keys().collect())
}

fn read_records(path: &Path) -> Result<(HashMap<String, Record>, bool)> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let records = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let known = records.map(|r: Record| (r.name.clone(), r)).collect();
    Ok((known, text.is_empty() || text.ends_with('\n')))
}

fn is_whole(path: &Path, record: &Record) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
        && sha256_file(path).is_ok_and(|found| found == record.output_sha256)
}

/// Removes recorded files that still are what was written; whatever someone changed stays.
fn remove_whole<'a>(root: &Path, records: impl Iterator<Item = &'a Record>) -> Result<()> {
    for record in records {
        let path = root.join(&record.name);
        if is_whole(&path, record) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plan {
        seed: u64,
        eta: Option<f64>,
    }

    const ONE: Plan = Plan { seed: 1, eta: None };
    const TWO: Plan = Plan {
        seed: 1,
        eta: Some(0.5),
    };

    fn open(root: &Path) -> Outputs {
        Outputs::open(root, &ONE, false).unwrap()
    }

    #[test]
    fn a_file_counts_only_whole_and_of_its_own_input() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("out");
        open(&root).put("a/x.png", "one", b"pixels").unwrap();
        let outputs = open(&root);
        assert!(outputs.is_complete("a/x.png", "one"));
        assert!(!outputs.is_complete("a/x.png", "two") && !outputs.is_complete("b.png", "one"));
        fs::write(outputs.path("a/x.png"), b"pix").unwrap();
        assert!(!outputs.is_complete("a/x.png", "one"));
        // What it made itself, it makes again.
        let mut outputs = outputs;
        outputs.put("a/x.png", "one", b"pixels").unwrap();
        assert!(outputs.is_complete("a/x.png", "one"));
    }

    #[test]
    fn a_record_that_was_cut_off_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).put("w.png", "one", b"pixels").unwrap();
        let mut records = open_append(&dir.path().join(RECORDS)).unwrap();
        records.write_all(b"{\"name\":\"x.png\",\"inp").unwrap();
        let mut outputs = open(dir.path());
        assert!(!outputs.knows("x.png") && outputs.knows("w.png"));
        outputs.put("y.png", "one", b"pixels").unwrap();
        drop(outputs);
        assert!(open(dir.path()).is_complete("y.png", "one"));
    }

    #[test]
    fn files_of_others_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut outputs = open(dir.path());
        fs::write(outputs.path("mine.png"), b"precious").unwrap();
        let error = outputs.put("mine.png", "", b"pixels").unwrap_err();
        assert!(
            error.to_string().contains("not made by this command"),
            "{error}"
        );
        assert_eq!(fs::read(outputs.path("mine.png")).unwrap(), b"precious");
        // The very same content is what a lost record leaves.
        outputs.put("mine.png", "", b"precious").unwrap();
        outputs.put("mine.png", "", b"pixels").unwrap();
        #[cfg(unix)]
        {
            let elsewhere = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(elsewhere.path(), outputs.path("sub")).unwrap();
            assert!(outputs.put("sub/x.png", "", b"pixels").is_err());
            assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn another_plan_is_refused_by_the_setting_that_differs_or_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut outputs = open(dir.path());
        outputs.put("x.png", "", b"of one").unwrap();
        outputs.put("y.png", "", b"of one").unwrap();
        fs::write(outputs.path("y.png"), b"touched up by hand").unwrap();
        drop(outputs);
        let error = check(dir.path(), &TWO, Overwrite::No)
            .unwrap_err()
            .to_string();
        assert!(error.contains("(there no eta, now eta = 0.5)"), "{error}");
        let outputs = Outputs::open(dir.path(), &TWO, Overwrite::Yes).unwrap();
        assert!(!outputs.path("x.png").exists() && !outputs.knows("y.png"));
        assert_eq!(
            fs::read(outputs.path("y.png")).unwrap(),
            b"touched up by hand"
        );
        drop(outputs);
        assert!(check(dir.path(), &ONE, Overwrite::No).is_err());
    }

    #[test]
    fn a_folder_that_is_not_this_commands_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at(LOCK), b"").unwrap();
        fs::write(at(".sdft-1-2-3.tmp"), b"left by a killed process").unwrap();
        check(dir.path(), &ONE, Overwrite::No).unwrap();
        fs::write(at("notes.txt"), b"mine").unwrap();
        assert!(check(dir.path(), &ONE, Overwrite::No).is_err());
        drop(Outputs::open(dir.path(), &ONE, Overwrite::Yes).unwrap());
        assert!(at("notes.txt").exists() && !at(".sdft-1-2-3.tmp").exists());
        fs::write(at(PLAN), b"lr = 1.0\n").unwrap();
        assert!(check(dir.path(), &ONE, Overwrite::Yes).is_err());
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let error = Outputs::open(dir.path(), &ONE, false).err().unwrap();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(first);
        open(dir.path());
    }

    #[test]
    fn the_longest_name_is_written_and_a_longer_one_is_an_error_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut outputs = open(dir.path());
        let name = |n: usize| format!("sub/{}.png", "n".repeat(n));
        outputs.put(&name(251), "", b"pixels").unwrap();
        let error = outputs.put(&name(252), "", b"pixels").unwrap_err();
        assert!(error.to_string().contains("256 bytes"), "{error}");
        assert!(!ends_everything(&error));
        let full = anyhow::Error::new(std::io::Error::from(ErrorKind::StorageFull)).context("x");
        assert!(ends_everything(&full));
    }

    #[test]
    fn what_is_out_of_date_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut outputs = open(dir.path());
        for name in ["a", "b", "c"] {
            outputs.put(name, "", name.as_bytes()).unwrap();
        }
        fs::write(outputs.path("c"), b"changed by hand").unwrap();
        fs::write(outputs.path("d"), b"of others").unwrap();
        outputs.retain(&HashSet::from(["a"])).unwrap();
        let exist = ["a", "b", "c", "d"].map(|name| outputs.path(name).exists());
        assert_eq!(exist, [true, false, true, true]);
        outputs.forget("a").unwrap();
        outputs.forget("d").unwrap();
        assert!(!outputs.path("a").exists() && outputs.path("d").exists());
        assert_eq!(
            outputs.hash_of(["a", "b"]),
            sha256_bytes((sha256_bytes(b"a") + &sha256_bytes(b"b")).as_bytes())
        );
    }
}
