//! The images of a folder: its files, or their pages.

use std::{borrow::Cow, path::PathBuf};

use crate::paths::Paths;

/// The images of a folder in little memory.
#[derive(Debug)]
pub(crate) struct Entries {
    files: Paths,
    /// File and page of each image; page 0 is the only one of its file. `None` if each file is one image.
    pages: Option<Vec<[u32; 2]>>,
}

impl Entries {
    /// The images with these files and pages. Page 0 is the only one of its file, others are counted from 1.
    pub(crate) fn new(files: Paths, pages: Vec<[u32; 2]>) -> Self {
        let plain = (0..files.len() as u32).map(|file| [file, 0]);
        let is_plain = pages.len() == files.len() && plain.eq(pages.iter().copied());
        Self {
            files,
            pages: (!is_plain).then_some(pages),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.as_ref().map_or(self.files.len(), Vec::len)
    }

    fn at(&self, i: usize) -> [usize; 2] {
        match &self.pages {
            Some(pages) => pages[i].map(|n| n as usize),
            None => [i, 0],
        }
    }

    /// The name of image `i`: the path of its file, and the page if the file has several.
    pub(crate) fn id(&self, i: usize) -> Cow<'_, str> {
        let [file, page] = self.at(i);
        page_id(self.files.id(file), page)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Cow<'_, str>> {
        (0..self.len()).map(|i| self.id(i))
    }

    /// The path of image `i`'s file, its path relative to the folder, and the page, counted from 0.
    pub(crate) fn file(&self, i: usize) -> (PathBuf, &str, usize) {
        let [file, page] = self.at(i);
        let (path, id) = (self.files.path(file), self.files.id(file));
        (path, id, page.saturating_sub(1))
    }
}

/// `a.tif#2` for page 2 of several, `a.tif` for page 0.
pub(crate) fn page_id(file: &str, page: usize) -> Cow<'_, str> {
    match page {
        0 => file.into(),
        page => format!("{file}#{page}").into(),
    }
}
