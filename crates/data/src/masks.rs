//! The masks of the images of a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sdft_imaging::{Image, Samples, without_ending};

use crate::{DataError, Result, paths::Paths, scan::scan};

/// Images without a mask that an error names.
const NAMED: usize = 10;

/// A folder of masks. The mask of `a/b.jpg` is `a/b` with any ending.
#[derive(Debug)]
pub(crate) struct Masks {
    folder: PathBuf,
    files: Paths,
    /// The numbers of the files, sorted by their paths without endings.
    by_stem: Vec<u32>,
}

impl Masks {
    /// Lists the masks in `folder` of the images `ids` in `images`.
    ///
    /// # Errors
    /// Fails if `folder` cannot be listed, lies inside `images`, has two masks for an image, or none for some.
    pub(crate) fn open<'a>(
        folder: &Path,
        images: &Path,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Self> {
        let refuse = |problem: String| DataError::Masks {
            folder: folder.to_owned(),
            problem,
        };
        let scan = scan(folder).and_then(|scan| scan.with_images(folder));
        let files = scan.map_err(|error| match error {
            DataError::Missing { .. } => refuse("the folder does not exist".to_owned()),
            DataError::Empty { .. } => refuse("the folder is empty".to_owned()),
            DataError::NoImages { found, .. } => {
                refuse(format!("expected a folder of pictures, found {found}"))
            }
            other => other,
        })?;
        let files = files.images;
        if let (Ok(inside), Ok(outside)) = (fs::canonicalize(folder), fs::canonicalize(images))
            && inside.starts_with(&outside)
        {
            let text = format!(
                "the folder is inside {}, so the masks would be images too; move it out",
                images.display()
            );
            return Err(refuse(text));
        }
        let stem = |i: u32| without_ending(files.id(i as usize));
        let mut by_stem: Vec<u32> = (0..files.len() as u32).collect();
        by_stem.sort_by(|&a, &b| stem(a).cmp(stem(b)));
        if let Some(pair) = by_stem
            .windows(2)
            .find(|pair| stem(pair[0]) == stem(pair[1]))
        {
            let [a, b] = [pair[0], pair[1]].map(|i| files.id(i as usize));
            return Err(refuse(format!(
                "{a} and {b} are masks of the same image; keep one of them"
            )));
        }
        let masks = Self {
            folder: folder.to_owned(),
            files,
            by_stem,
        };
        let (mut n, mut without) = (0, Vec::new());
        for id in ids.filter(|id| masks.find(id).is_none()) {
            n += 1;
            if without.len() < NAMED {
                without.push(id.to_owned());
            }
        }
        match n {
            0 => Ok(masks),
            n => Err(masks.missing(n, without)),
        }
    }

    /// Number of masks that belong to none of the images `ids`, whose pages share a mask.
    pub(crate) fn unused<'a>(&self, ids: impl Iterator<Item = &'a str>) -> usize {
        let mut used = vec![false; self.files.len()];
        for id in ids {
            let file = || id.rsplit_once('#').map_or(id, |(file, _)| file);
            if let Some(i) = self.find(id).or_else(|| self.find(file())) {
                used[i] = true;
            }
        }
        used.iter().filter(|&&used| !used).count()
    }

    fn find(&self, id: &str) -> Option<usize> {
        let wanted = without_ending(id);
        let stem = |i: u32| without_ending(self.files.id(i as usize));
        let at = self
            .by_stem
            .binary_search_by(|&i| stem(i).cmp(wanted))
            .ok()?;
        Some(self.by_stem[at] as usize)
    }

    /// The mask of an image.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn of(&self, id: &str) -> Result<PathBuf> {
        let found = self.find(id).map(|i| self.files.path(i));
        found.ok_or_else(|| self.missing(1, vec![id.to_owned()]))
    }

    fn missing(&self, n: usize, files: Vec<String>) -> DataError {
        DataError::Incomplete {
            n,
            what: format!("masks {} have none for", self.folder.display()),
            hint: "put a picture with the same name there, all white if every pixel counts, or move the images out".to_owned(),
            files,
        }
    }
}

/// The mean of a mask, 0 to 1.
pub(crate) fn mean(mask: &Image) -> f64 {
    match &mask.samples {
        Samples::U8(values) => {
            let sum: u64 = values.iter().map(|&v| u64::from(v)).sum();
            sum as f64 / (255 * values.len().max(1)) as f64
        }
        _ => 0.0,
    }
}
