use std::{fmt, path::PathBuf, time::Duration};

use sdft_imaging::Conversions;

/// Something of an input that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub source: String,
    /// Why it was left out.
    pub reason: String,
}

/// What was prepared.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// Side of the images.
    pub size: usize,
    /// Images in the set.
    pub images: usize,
    /// Images of it that were made now; the others were there already.
    pub made: usize,
    /// Images whose short side was below the size, so that they were enlarged.
    pub enlarged: usize,
    /// What could not be used: broken, encrypted, too large, without bytes.
    pub skipped: Vec<Skipped>,
    /// What has the same bytes as an earlier one.
    pub duplicates: Vec<Skipped>,
    /// How many were left out because the exclusions name them.
    pub excluded: usize,
    /// Exclusions that named nothing.
    pub unmatched: Vec<String>,
    /// Files that are no images, and hidden ones.
    pub others: usize,
    /// Which these are, in a line.
    pub passed_over: Option<String>,
    /// What was done to images of the set while they were read.
    pub conversions: Conversions,
    /// Images of an earlier preparation that do not belong to the set any more and were removed.
    pub removed: usize,
    /// The contact sheet, where there is one.
    pub sheet: Option<PathBuf>,
    /// What lies where the contact sheet would go: another file, which stays.
    pub kept: Option<PathBuf>,
    /// Threads that worked.
    pub threads: usize,
    /// Threads that were asked for.
    pub threads_asked: Option<usize>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{}: {} images of {}x{}",
            self.folder.display(),
            self.images,
            self.size,
            self.size
        )?;
        match self.made {
            0 => write!(f, ", all there already")?,
            made if made < self.images => write!(f, ", {made} made now")?,
            _ => {}
        }
        write!(f, " ({seconds:.1} s")?;
        if self.made > 0 && self.made == self.images {
            write!(f, ", {:.0} images/s", self.made as f64 / seconds.max(1e-9))?;
        }
        write!(f, ")")?;
        let mut line = |n: usize, text: &str| match n {
            0 => Ok(()),
            n => write!(f, "\n  {n} {text}"),
        };
        line(self.enlarged, "were smaller and have been enlarged")?;
        line(self.excluded, "left out because the exclusions name them")?;
        line(self.removed, "removed that belong to the set no more")?;
        for note in self.conversions.notes() {
            write!(f, "\n  {note}")?;
        }
        if let Some(text) = &self.passed_over {
            write!(f, "\n  passed over: {text}")?;
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
                "\n  {} exclusions named nothing: {}{more}",
                self.unmatched.len(),
                shown.join(", ")
            )?;
        }
        if let Some(sheet) = &self.sheet {
            write!(f, "\n  to look at: {}", sheet.display())?;
        }
        if let Some(kept) = &self.kept {
            write!(
                f,
                "\n  no contact sheet was written: {} is something else, which stays; move it away to get one",
                kept.display()
            )?;
        }
        if let Some(asked) = self.threads_asked.filter(|asked| *asked > self.threads) {
            write!(
                f,
                "\n  --threads {asked}: worked with {}; more do not help this machine's cores",
                self.threads
            )?;
        }
        Ok(())
    }
}
