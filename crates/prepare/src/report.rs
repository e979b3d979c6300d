//! The report of a prepared set.

use sdft_files::plural;
use std::{fmt, path::PathBuf, time::Duration};

use sdft_imaging::{Conversions, Depth, ImageSpec};

/// An entry of an input that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its source.
    pub source: String,
    /// Why it is not in the set.
    pub reason: String,
}

/// The result of preparing a set.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The target folder.
    pub folder: PathBuf,
    /// Height and width of the images in pixels.
    pub size: [usize; 2],
    /// Their number of channels and the type of their samples.
    pub form: Option<(usize, Depth)>,
    /// Images in the set.
    pub images: usize,
    /// Images made by this call; the others already existed.
    pub made: usize,
    /// Images whose short side was below the size and was enlarged.
    pub enlarged: usize,
    /// Entries that cannot be used: damaged, encrypted, too large or empty.
    pub skipped: Vec<Skipped>,
    /// Entries with the same bytes as an earlier one.
    pub duplicates: Vec<Skipped>,
    /// Entries left out because the exclusions list them.
    pub excluded: usize,
    /// Exclusions that matched no entry.
    pub unmatched: Vec<String>,
    /// The colour under transparent pixels.
    pub background: [u8; 3],
    /// Whether images have classes.
    pub has_labels: bool,
    /// The names of the classes; empty if they are only numbered, or there are none.
    pub classes: Vec<String>,
    /// Images without a class.
    pub unlabelled: usize,
    /// Classes that are not used, and why.
    pub notes: Vec<String>,
    /// Number of hidden files and files that are not images.
    pub others: usize,
    /// These files as one line of text.
    pub describe_skipped: Option<String>,
    /// Conversions of the images in the set.
    pub conversions: Conversions,
    /// Images of an earlier preparation that were deleted because they are no longer in the set.
    pub removed: usize,
    /// The contact sheet, if there is one.
    pub sheet: Option<PathBuf>,
    /// Another file in the place of the contact sheet, which stays.
    pub kept: Option<PathBuf>,
    /// Number of threads used.
    pub threads: usize,
    /// Number of threads requested.
    pub threads_asked: Option<usize>,
    /// Time taken.
    pub took: Duration,
}

impl Report {
    /// The size and form of the images.
    fn describe(&self) -> ImageSpec {
        let [height, width] = self.size;
        let (channels, depth) = self.form.unwrap_or((3, Depth::U8));
        ImageSpec::new(channels, depth, width, height)
    }

    /// One line about the classes, if there are any.
    fn describe_classes(&self) -> Option<String> {
        let classes = match self.classes.len() {
            _ if !self.has_labels => return None,
            0 => "classes by number".to_owned(),
            n => plural(n, "class", "classes"),
        };
        Some(match self.unlabelled {
            0 => format!("{classes}, in dataset.json"),
            n => {
                let images = plural(n, "image", "images");
                format!("{classes}, in dataset.json; {images} without one")
            }
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{}: {} of {}",
            self.folder.display(),
            plural(self.images, "image", "images"),
            self.describe()
        )?;
        match self.made {
            0 => write!(f, ", all up to date")?,
            made if made < self.images => write!(f, ", {made} new")?,
            _ => {}
        }
        write!(f, " ({seconds:.1} s")?;
        if self.made > 0 && self.made == self.images {
            write!(f, ", {:.0} images/s", self.made as f64 / seconds.max(1e-9))?;
        }
        write!(f, ")")?;
        for text in self.describe_classes().iter().chain(&self.notes) {
            write!(f, "\n  {text}")?;
        }
        let mut line = |n: usize, text: &str| match n {
            0 => Ok(()),
            n => write!(f, "\n  {n} {text}"),
        };
        line(self.enlarged, "smaller, so enlarged")?;
        line(self.excluded, "left out because the exclusions list them")?;
        line(
            self.removed,
            "deleted because they are no longer in the set",
        )?;
        for note in self.conversions.notes_on(self.background) {
            write!(f, "\n  {note}")?;
        }
        if let Some(text) = &self.describe_skipped {
            write!(f, "\n  skipped: {text}")?;
        }
        let mut list = |n: usize, text: &str, entries: &[Skipped]| -> fmt::Result {
            if n == 0 {
                return Ok(());
            }
            write!(f, "\n  {n} {text}")?;
            for Skipped { source, reason } in entries.iter().take(SHOWN) {
                write!(f, "\n    {source}: {reason}")?;
            }
            if n > SHOWN {
                write!(f, "\n    and {} more, all in the index", n - SHOWN)?;
            }
            Ok(())
        };
        list(
            self.duplicates.len(),
            "left out as duplicates",
            &self.duplicates,
        )?;
        list(
            self.skipped.len(),
            "left out because they cannot be used",
            &self.skipped,
        )?;
        if !self.unmatched.is_empty() {
            let shown: Vec<&str> = self
                .unmatched
                .iter()
                .take(SHOWN)
                .map(String::as_str)
                .collect();
            let more = if self.unmatched.len() > SHOWN {
                ", .."
            } else {
                ""
            };
            write!(
                f,
                "\n  {} exclusions matched nothing: {}{more}",
                self.unmatched.len(),
                shown.join(", ")
            )?;
        }
        if let Some(sheet) = &self.sheet {
            write!(f, "\n  contact sheet: {}", sheet.display())?;
        }
        if let Some(kept) = &self.kept {
            write!(
                f,
                "\n  contact sheet not written: {} is another file; move it to get one",
                kept.display()
            )?;
        }
        if let Some(asked) = self.threads_asked.filter(|asked| *asked > self.threads) {
            write!(
                f,
                "\n  --threads {asked}: used {}, because more threads than cores are not faster",
                self.threads
            )?;
        }
        Ok(())
    }
}
