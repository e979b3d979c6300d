//! The report of an image folder.

use std::{collections::BTreeMap, fmt};

use sdft_imaging::Conversions;
use serde::{Deserialize, Serialize};

use crate::scan::describe_skipped;

/// The result of checking an image folder.
///
/// `Display` prints it for people; serialised, it is for programs. File names are paths relative to the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The folder as given.
    pub folder: String,
    /// The run's image size in pixels, to which every image is cropped and resized.
    pub size: usize,
    /// Number of image candidates, including subfolders that cannot be opened.
    pub found: usize,
    /// Number of readable images.
    pub usable: usize,
    /// Usable images by format.
    pub formats: BTreeMap<String, usize>,
    /// Widths of the usable images.
    pub width: Spread,
    /// Heights of the usable images.
    pub height: Spread,
    /// Shorter sides of the usable images, which decide how much they are resized.
    pub short_side: Spread,
    /// Images whose short side is below [`size`](Self::size), so they are enlarged.
    pub enlarged: Vec<String>,
    /// Images longer than [`ELONGATED`](Self::ELONGATED) times their short side: only the middle is used.
    pub elongated: Vec<String>,
    /// Groups of equal images.
    pub duplicates: Vec<Duplicate>,
    /// Images with transparent pixels; they are composed on white.
    pub transparent: usize,
    /// Images in which every pixel is grey.
    pub grey: usize,
    /// Images of 16 bits per channel; the upper 8 are used.
    pub sixteen_bit: usize,
    /// Images that EXIF or XMP turns or mirrors; they are made upright.
    pub reoriented: usize,
    /// Animations; the first frame is used.
    #[serde(default)]
    pub animated: usize,
    /// Image candidates that are left out.
    pub unreadable: Vec<Unreadable>,
    /// Files that are not images.
    #[serde(default)]
    pub others: Vec<String>,
    /// Hidden files and folders, whose names begin with a dot. They are not opened.
    #[serde(default)]
    pub hidden: Vec<String>,
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// The file, or a subfolder that cannot be opened.
    pub file: String,
    /// Why it cannot be used.
    pub reason: String,
    /// The format, if it is known but cannot be read, such as `HEIC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Images with the same pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// Paths of two or more files.
    pub files: Vec<String>,
    /// Whether the files are identical; otherwise only their decoded pixels are.
    pub same_file: bool,
}

/// Minimum, median and maximum in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Minimum.
    pub min: usize,
    /// Median; for an even number of values the larger one in the middle.
    pub median: usize,
    /// Maximum.
    pub max: usize,
}

impl Spread {
    /// The spread of some values; zeros if there are none.
    pub(crate) fn of(mut values: Vec<usize>) -> Self {
        values.sort_unstable();
        let at = |i: usize| values.get(i).copied().unwrap_or_default();
        Self {
            min: at(0),
            median: at(values.len() / 2),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

impl Report {
    /// An image is elongated if the ratio of its sides is above this.
    pub const ELONGATED: f64 = 1.5;

    /// Conversions of the images while they were read.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        Conversions {
            transparent: self.transparent,
            sixteen_bit: self.sixteen_bit,
            reoriented: self.reoriented,
            animated: self.animated,
            ..Conversions::default()
        }
    }

    /// The files besides images in one line; see [`crate::Listing::describe_skipped`].
    #[must_use]
    pub fn describe_skipped(&self) -> Option<String> {
        describe_skipped(
            self.others.iter().map(String::as_str),
            self.hidden.iter().map(String::as_str),
        )
    }

    /// What a user should know before training on the folder, one entry for each line: how many images are left out and why, how many are
    /// converted while they are read, and which other files there are.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        const SHOWN: usize = 10;
        let mut notes = self.conversions().notes();
        if !self.unreadable.is_empty() {
            let n = self.unreadable.len();
            let mut text = format!("{n} of {} images are left out:", self.found);
            for one in self.unreadable.iter().take(SHOWN) {
                text.push_str(&format!("\n  {one}"));
            }
            if n > SHOWN {
                text.push_str(&format!("\n  and {} more (see data check)", n - SHOWN));
            }
            notes.push(text);
        }
        notes.extend(
            self.describe_skipped()
                .map(|text| format!("skipped: {text}")),
        );
        notes
    }

    /// Whether nothing in the report needs attention before training.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unreadable.is_empty()
            && self.duplicates.is_empty()
            && self.enlarged.is_empty()
            && self.elongated.is_empty()
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.same_file { "file" } else { "pixels" };
        write!(f, "{} (same {what})", self.files.join(" = "))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {} / {}", self.min, self.median, self.max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.size;
        let formats: Vec<String> = self
            .formats
            .iter()
            .map(|(k, n)| format!("{n} {k}"))
            .collect();
        writeln!(
            f,
            "{}: {} of {} images usable at {size}x{size} ({})",
            self.folder,
            self.usable,
            self.found,
            formats.join(", "),
        )?;
        writeln!(
            f,
            "  pixels      short side {}, width {}, height {} (smallest / median / largest)",
            self.short_side, self.width, self.height
        )?;
        let small = format!("smaller than {size} pixels: enlarged, which blurs");
        list(f, "enlarged", &small, &self.enlarged)?;
        let long = format!(
            "longer than {} short sides: only the middle is used",
            Self::ELONGATED
        );
        list(f, "elongated", &long, &self.elongated)?;
        list(
            f,
            "duplicates",
            "more than once in the folder",
            &self.duplicates,
        )?;
        for (label, n, what) in [
            ("transparent", self.transparent, "composed on white"),
            ("grey", self.grey, "without colour"),
            ("16-bit", self.sixteen_bit, "the upper 8 bits are used"),
            (
                "turned",
                self.reoriented,
                "made upright, as EXIF or XMP specifies",
            ),
            ("animated", self.animated, "the first frame is used"),
        ] {
            if n > 0 {
                writeln!(f, "  {label:<12}{n} ({what})")?;
            }
        }
        list(f, "unreadable", "left out", &self.unreadable)?;
        match self.describe_skipped() {
            Some(text) => writeln!(f, "  {:<12}{text}", "other files"),
            None => Ok(()),
        }
    }
}

/// A count with the first few entries; nothing if the count is 0.
fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    what: &str,
    items: &[T],
) -> fmt::Result {
    const SHOWN: usize = 10;
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {label:<12}{} {what}", items.len())?;
    for item in items.iter().take(SHOWN) {
        writeln!(f, "    {item}")?;
    }
    if items.len() > SHOWN {
        writeln!(f, "    and {} more", items.len() - SHOWN)?;
    }
    Ok(())
}
