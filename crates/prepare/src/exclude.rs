//! Lists of images to leave out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{PrepareError, Result, input::Item};

/// Images to leave out, by name or by hash.
///
/// An entry is an image's source as in the index, its file name with or without the extension, or the SHA-256 of its bytes.
#[derive(Clone, Debug, Default)]
pub struct Exclusions(BTreeSet<String>);

impl Exclusions {
    /// Reads a text file with one entry for each line. Empty lines, lines that start with `#` and a byte order mark are ignored.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is not a regular file, or is not UTF-8 text.
    pub fn read(path: &Path) -> Result<Self> {
        let text = sdft_files::read_text(path).map_err(|source| PrepareError::Exclusions {
            path: path.to_owned(),
            cause: source,
        })?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The entry that names this image, if any.
    pub(crate) fn by_name(&self, item: &Item) -> Option<&str> {
        // Rows of tables also match by their number.
        let (row, path) = match &item.row {
            Some((row, path)) => (row.as_str(), path.as_deref().unwrap_or_default()),
            None => ("", item.source.as_str()),
        };
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        [item.source.as_str(), row, path, name, stem]
            .into_iter()
            .find_map(|text| self.0.get(text).map(String::as_str))
    }

    /// The entry that equals this hash, if any.
    pub(crate) fn by_hash(&self, sha256: &str) -> Option<&str> {
        self.0.get(sha256).map(String::as_str)
    }

    /// The entries that matched no image.
    pub(crate) fn unmatched(&self, met: &BTreeMap<String, usize>) -> Vec<String> {
        let unmet = self.0.iter().filter(|entry| !met.contains_key(*entry));
        unmet.cloned().collect()
    }
}

impl FromIterator<String> for Exclusions {
    fn from_iter<I: IntoIterator<Item = String>>(lines: I) -> Self {
        let entries = lines.into_iter().map(|line| line.trim().to_owned());
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let entries = entries.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            entries
                .map(|line| match is_hash(&line) {
                    true => line.to_ascii_lowercase(),
                    false => line,
                })
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Content;

    #[test]
    fn an_image_matches_by_source_name_and_stem() {
        let list = |entry: &str| Exclusions::from_iter([format!("  {entry} ")]);
        let file = |source: &str| Item::new(source, Content::Bytes(Vec::new()));
        for entry in ["a/b/c.png", "c.png", "c"] {
            assert_eq!(list(entry).by_name(&file("a/b/c.png")), Some(entry));
        }
        let row = Item::row(
            "train-0.parquet",
            17,
            Some("faces/of-1042.png"),
            Content::Bytes(Vec::new()),
        );
        for entry in [
            "train-0.parquet#17 faces/of-1042.png",
            "train-0.parquet#17",
            "of-1042.png",
            "of-1042",
            "faces/of-1042.png",
        ] {
            assert_eq!(list(entry).by_name(&row), Some(entry), "{entry}");
        }
        let bare = Item::row("t", 1, None, Content::Bytes(Vec::new()));
        assert_eq!(list("t#1").by_name(&bare), Some("t#1"));
        for entry in ["b", "a/b", "C.png", "c.pn", "# c"] {
            assert_eq!(list(entry).by_name(&file("a/b/c.png")), None, "{entry}");
        }
        // File names may contain spaces and number signs.
        assert_eq!(
            list("portrait").by_name(&file("portrait of a man.png")),
            None
        );
        assert_eq!(list("copy").by_name(&file("photo#2 copy.png")), None);
    }

    #[test]
    fn hashes_match_in_any_case_and_unmatched_entries_are_reported() {
        let hash = "AB".repeat(32);
        let list = Exclusions::from_iter([hash.clone(), "x.png".to_owned(), String::new()]);
        let lower = hash.to_lowercase();
        assert_eq!(list.by_hash(&lower), Some(lower.as_str()));
        let met = BTreeMap::from([(lower, 1)]);
        assert_eq!(list.unmatched(&met), ["x.png"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, b"\xEF\xBB\xBFa.png\r\nb.png\r\n").unwrap();
        let list = Exclusions::read(&path).unwrap();
        assert_eq!(list.unmatched(&BTreeMap::new()), ["a.png", "b.png"]);
        std::fs::write(&path, b"\xFF\xFEa\0.\0p\0n\0g\0").unwrap();
        let error = Exclusions::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("list.txt") && error.contains("UTF-16"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_list_is_named() {
        let error = Exclusions::read(Path::new("no-such-list.txt")).unwrap_err();
        assert!(error.to_string().contains("no-such-list.txt"), "{error}");
    }
}
