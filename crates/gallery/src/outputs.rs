//! A folder of files made by a plan: which are complete, and which are foreign.

use crate::error::{Error, OnPath as _, Result};
use crate::refusal::check_folder;
use sdft_files::{
    Flush, open_append, sha256_bytes, sha256_file, sweep, write_atomic, write_atomic_with,
};
use sdft_imaging::{Image, ImageSpec, ImagingError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The settings that decide the files, so that a folder never has files of two settings.
pub(crate) const PLAN: &str = "plan.toml";
/// The journal: which file was made of what. It is hidden from tools that look for images.
const RECORDS: &str = ".made.jsonl";
/// Held by the process that writes there.
pub(crate) const LOCK: &str = ".made.lock";
/// Bytes that file systems allow in a name.
const LONGEST_NAME: usize = 255;

/// One finished file.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    /// Hash of its input; empty where the plan alone decides the file.
    input_sha256: String,
    output_sha256: String,
}

/// A folder of files made by one plan, locked for this process.
///
/// A file is complete if its record, its input and its content agree. Files without a record belong to the user and are never
/// replaced, unless the caller overwrites.
pub struct Outputs {
    root: PathBuf,
    known: HashMap<String, Record>,
    records: File,
    overwrite: bool,
    /// Folders that were swept.
    swept: HashSet<PathBuf>,
    _lock: File,
}

impl Outputs {
    /// Locks the folder for a plan, and makes it if necessary. With `overwrite` the files that an earlier plan made there are removed.
    ///
    /// # Errors
    /// The folder holds another plan's files or anything else, another process writes there, or a file system error occurs.
    pub fn open<P: Serialize + DeserializeOwned>(
        root: &Path,
        plan: &P,
        overwrite: bool,
    ) -> Result<Self> {
        check_folder(root, plan, overwrite)?;
        fs::create_dir_all(root).on("make the folder", root)?;
        let lock = lock(root)?;
        // Another process may have written there between the check and the lock.
        check_folder(root, plan, overwrite)?;
        sweep(root).on("clean up", root)?;
        let path = root.join(RECORDS);
        let (mut known, ends_well) = read_records(&path)?;
        if overwrite && !known.is_empty() {
            remove_whole(root, known.values())?;
            fs::remove_file(&path).on("remove", &path)?;
            known.clear();
        }
        let text = toml::to_string(plan)?;
        let plan = root.join(PLAN);
        write_atomic(&plan, text.as_bytes()).on("write", &plan)?;
        let mut records = open_append(&path).on("write", &path)?;
        if !known.is_empty() && !ends_well {
            records.write_all(b"\n").on("write", &path)?;
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

    /// The path of the file of this name, whether it exists or not.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The names of all files in the journal.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Whether this name is in the journal.
    pub fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Whether the file exists, is whole, and was made of the input with this hash.
    pub fn is_complete(&self, name: &str, made_of: &str) -> bool {
        self.known.get(name).is_some_and(|record| {
            record.input_sha256 == made_of && is_whole(&self.path(name), record)
        })
    }

    /// One hash of the files with these names, from the journal.
    pub fn hash_of<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> String {
        let mut all = String::new();
        for name in names {
            if let Some(record) = self.known.get(name.as_ref()) {
                all += &record.output_sha256;
            }
        }
        sha256_bytes(all.as_bytes())
    }

    /// Writes a file; `made_of` is the hash of its input, empty where the plan alone decides the file.
    ///
    /// # Errors
    /// The name is taken by a file that this plan did not make, the name is too long, or a file system error occurs.
    pub fn put(&mut self, name: &str, made_of: &str, bytes: &[u8]) -> Result<()> {
        check_name(name)?;
        self.make_parents(name)?;
        let path = self.path(name);
        let record = Record {
            name: name.to_owned(),
            input_sha256: made_of.to_owned(),
            output_sha256: sha256_bytes(bytes),
        };
        // A power cut may lose a record whose file has the same content.
        let is_foreign = !self.overwrite
            && !self.knows(name)
            && fs::symlink_metadata(&path).is_ok()
            && !is_whole(&path, &record);
        if is_foreign {
            return Err(Error::Foreign { path });
        }
        // The record comes first: after a crash, a file without a record is foreign.
        let line = serde_json::to_string(&record).map_err(std::io::Error::from);
        line.and_then(|line| self.records.write_all((line + "\n").as_bytes()))
            .on("write", &self.root.join(RECORDS))?;
        self.known.insert(name.to_owned(), record);
        write_atomic_with(&path, Flush::ToSystem, |out| out.write_all(bytes)).on("write", &path)
    }

    /// Writes an image of the form `spec`, and returns why that failed if other images may still succeed. `name` ends in
    /// [`ImageSpec::ending`].
    ///
    /// # Errors
    /// An error that every other image would have, too, such as a full disk.
    pub fn put_image(
        &mut self,
        name: &str,
        made_of: &str,
        spec: &ImageSpec,
        image: std::result::Result<Image, ImagingError>,
    ) -> Result<Option<String>> {
        let image = match image {
            Ok(image) => image,
            Err(problem) => return Ok(Some(format!("{name}: {problem}"))),
        };
        match self.put(name, made_of, &spec.encode(&image)?) {
            Ok(()) => Ok(None),
            Err(error) if error.ends_everything() => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Removes the whole files of the journal that have other names than these.
    ///
    /// # Errors
    /// A file system error occurs.
    pub fn retain(&self, names: &HashSet<&str>) -> Result<()> {
        let others = self.known.values().filter(|r| !names.contains(&*r.name));
        remove_whole(&self.root, others)
    }

    /// Removes a file of the journal that is out of date, if it exists.
    ///
    /// # Errors
    /// A file system error occurs.
    pub fn forget(&self, name: &str) -> Result<()> {
        if self.knows(name) {
            remove(&self.path(name))?;
        }
        Ok(())
    }

    /// Makes the parent folders of a file, and removes temporary files of killed processes from them.
    fn make_parents(&mut self, name: &str) -> Result<()> {
        let mut folder = self.root.clone();
        for part in Path::new(name).parent().into_iter().flat_map(Path::iter) {
            folder.push(part);
            if self.swept.contains(&folder) {
                continue;
            }
            if fs::symlink_metadata(&folder).is_ok_and(|found| found.is_symlink()) {
                return Err(Error::Link { path: folder });
            }
            fs::create_dir_all(&folder).on("make the folder", &folder)?;
            sweep(&folder).on("clean up", &folder)?;
            self.swept.insert(folder.clone());
        }
        Ok(())
    }
}

/// Fails if no file can have this name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let length = name.split('/').map(str::len).max().unwrap_or(0);
    match length > LONGEST_NAME {
        true => Err(Error::Name {
            length,
            longest: LONGEST_NAME,
        }),
        false => Ok(()),
    }
}

/// Locks the folder for this process, until the file is dropped or the process ends in any way.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let file = open_append(&path).on("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            path: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(error).on("lock", &path),
    }
}

/// The names of all files in a folder's journal; none where there is no journal.
///
/// # Errors
/// The journal cannot be read.
pub fn recorded_names(root: &Path) -> Result<HashSet<String>> {
    let (records, _) = read_records(&root.join(RECORDS))?;
    Ok(records.into_keys().collect())
}

/// The records by name, and whether the last one is whole. One that a crash cut off is dropped; its file is made again.
fn read_records(path: &Path) -> Result<(HashMap<String, Record>, bool)> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).on("read", path),
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

/// Removes recorded files whose content is still that of the record; files that someone changed stay.
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
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).on("remove", path),
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
        // Its own file is made again.
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
        // A lost record leaves a file of the same content.
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
        let error = check_folder(dir.path(), &TWO, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("(there no eta, now eta = 0.5)"), "{error}");
        let outputs = Outputs::open(dir.path(), &TWO, true).unwrap();
        assert!(!outputs.path("x.png").exists() && !outputs.knows("y.png"));
        assert_eq!(
            fs::read(outputs.path("y.png")).unwrap(),
            b"touched up by hand"
        );
        drop(outputs);
        assert!(check_folder(dir.path(), &ONE, false).is_err());
    }

    #[test]
    fn a_folder_that_is_not_this_commands_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at(LOCK), b"").unwrap();
        fs::write(at(".sdft-1-2-3.tmp"), b"left by a killed process").unwrap();
        check_folder(dir.path(), &ONE, false).unwrap();
        fs::write(at("notes.txt"), b"mine").unwrap();
        assert!(check_folder(dir.path(), &ONE, false).is_err());
        drop(Outputs::open(dir.path(), &ONE, true).unwrap());
        assert!(at("notes.txt").exists() && !at(".sdft-1-2-3.tmp").exists());
        fs::write(at(PLAN), b"lr = 1.0\n").unwrap();
        assert!(check_folder(dir.path(), &ONE, true).is_err());
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
        assert!(!error.ends_everything());
        let full = Err::<(), _>(std::io::Error::from(ErrorKind::StorageFull));
        assert!(full.on("write", dir.path()).unwrap_err().ends_everything());
    }

    #[test]
    fn outdated_files_are_removed_and_the_others_stay() {
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
