//! A long list of files in little memory.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
};

/// Files of a folder by their paths relative to it: one text for all, so that a million files take tens of megabytes.
#[derive(Clone, Default)]
pub(crate) struct Paths {
    root: PathBuf,
    /// All relative paths, one after the other.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
    /// Relative paths that are not UTF-8, by their text, which has replacement characters.
    odd: HashMap<String, PathBuf>,
}

impl Paths {
    /// No files of the folder `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the file `name` of a subfolder: the subfolder's text, which is empty or ends in `/`, and its path.
    pub(crate) fn push(&mut self, prefix: &str, folder: &Path, name: &OsStr) {
        let start = self.text.len();
        self.text.push_str(prefix);
        self.text.push_str(&name.to_string_lossy());
        self.ends.push(self.text.len());
        let path = folder.join(name);
        if path.to_str().is_none() {
            self.odd.insert(self.text[start..].to_owned(), path);
        }
    }

    /// The path of file `i` relative to the folder, with `/` separators.
    pub(crate) fn id(&self, i: usize) -> &str {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[i]]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.id(i))
    }

    /// The path of file `i`.
    pub(crate) fn path(&self, i: usize) -> PathBuf {
        let id = self.id(i);
        match self.odd.get(id) {
            Some(path) => path.clone(),
            None => self.root.join(id),
        }
    }

    /// The files for which `kept` holds, in the order of `order`.
    pub(crate) fn select(&self, order: impl Iterator<Item = usize>) -> Self {
        let mut chosen = Self {
            odd: self.odd.clone(),
            ..Self::new(&self.root)
        };
        for i in order {
            chosen.text.push_str(self.id(i));
            chosen.ends.push(chosen.text.len());
        }
        chosen.text.shrink_to_fit();
        chosen.ends.shrink_to_fit();
        chosen
    }

    /// The numbers of the files, sorted by the bytes of their relative paths.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        // More than 2^32 files do not fit into memory.
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| self.id(a as usize).cmp(self.id(b as usize)));
        order
    }

    /// Relative and full paths as owned values.
    pub(crate) fn to_vec(&self) -> Vec<(String, PathBuf)> {
        (0..self.len())
            .map(|i| (self.id(i).to_owned(), self.path(i)))
            .collect()
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files of {}", self.len(), self.root.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Paths {
        let mut paths = Paths::new(Path::new("root"));
        for (prefix, name) in [("", "b.png"), ("a/", "z.png"), ("", "a.png")] {
            paths.push(prefix, &Path::new("root").join(prefix), name.as_ref());
        }
        paths
    }

    #[test]
    fn files_are_sorted_by_bytes_and_have_their_paths() {
        let paths = three();
        let sorted = paths.select(paths.sorted().into_iter().map(|i| i as usize));
        assert!(sorted.ids().eq(["a.png", "a/z.png", "b.png"]));
        assert_eq!(sorted.path(1), Path::new("root").join("a/z.png"));
        assert_eq!((sorted.len(), sorted.to_vec().len()), (3, 3));
        assert_eq!(format!("{sorted:?}"), "3 files of root");
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf_8_keeps_its_path() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = OsStr::from_bytes(b"caf\xE9.png");
        let mut paths = three();
        paths.push("a/", Path::new("root/a"), name);
        assert_eq!(paths.id(3), "a/caf\u{FFFD}.png");
        assert_eq!(paths.path(3), Path::new("root/a").join(name));
    }
}
