//! The report of an image folder.

mod make;
mod text;

use std::collections::BTreeMap;

use sdft_files::plural;
use sdft_imaging::{Conversions, Fit, ImageSpec};
use serde::{Deserialize, Serialize};

use crate::scan::{describe_skipped, is_foreign};

pub(crate) use make::make;
use text::counted;

/// The result of checking an image folder.
///
/// `Display` prints it for people; serialised, it is for programs. File names are paths relative to the folder, with `#` and the number of
/// the page in files of several pages. Every file of the folder is in one of `images`, `unreadable`, `others` and `hidden`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The folder as given.
    pub folder: String,
    /// The run's image size: the side of a square, or height and width as `HEIGHTxWIDTH`.
    #[serde(with = "size")]
    pub size: [usize; 2],
    /// The form in which the images are used.
    pub form: ImageSpec,
    /// How images get the size.
    pub fit: Fit,
    /// Number of image candidates, including subfolders that cannot be opened.
    pub found: usize,
    /// Number of readable images.
    pub usable: usize,
    /// Usable images by format.
    pub formats: BTreeMap<String, usize>,
    /// Usable images by the number of channels in the file, alpha included.
    pub channels: BTreeMap<usize, usize>,
    /// Usable images by the depth of the file: `8`, `16` or `float`.
    pub depths: BTreeMap<String, usize>,
    /// Widths of the usable images.
    pub width: Spread,
    /// Heights of the usable images.
    pub height: Spread,
    /// Shorter sides of the usable images, which decide how much they are resized.
    pub short_side: Spread,
    /// Images smaller than [`size`](Self::size), so they are enlarged.
    pub enlarged: Vec<String>,
    /// Images longer than [`ELONGATED`](Self::ELONGATED) times the shape of [`size`](Self::size).
    pub elongated: Vec<String>,
    /// Groups of equal images.
    pub duplicates: Vec<Duplicate>,
    /// Images with transparent pixels, which are composed on the background.
    pub transparent: usize,
    /// Images in which every pixel is grey.
    pub grey: usize,
    /// Images of 16 bits per channel of which the upper 8 are used.
    pub sixteen_bit: usize,
    /// Images that EXIF or XMP turns or mirrors; they are made upright.
    pub reoriented: usize,
    /// Animations; the first frame is used.
    #[serde(default)]
    pub animated: usize,
    /// Images converted to sRGB, by the name of their colour profile.
    #[serde(default)]
    pub profiles: BTreeMap<String, usize>,
    /// Images whose colour profile is not applied, by its name and the reason.
    #[serde(default)]
    pub ignored_profiles: BTreeMap<String, usize>,
    /// Images of floats, or of more than 16 bits, rounded to the type that they are used in.
    #[serde(default)]
    pub narrowed: usize,
    /// Images with values outside the range, which are clamped.
    #[serde(default)]
    pub clamped: usize,
    /// The colour under transparent pixels and around padded images.
    #[serde(default)]
    pub background: [u8; 3],
    /// Files whose pages are images.
    #[serde(default)]
    pub stacks: usize,
    /// The classes, if there are any.
    #[serde(default)]
    pub classes: Vec<ClassCount>,
    /// Files that have a label and are not among the images.
    #[serde(default)]
    pub unknown_labels: Vec<String>,
    /// The masks, if there are any.
    #[serde(default)]
    pub masks: Option<MaskCount>,
    /// The usable images.
    #[serde(default)]
    pub images: Vec<String>,
    /// Image candidates that are left out.
    pub unreadable: Vec<Unreadable>,
    /// Files that are not images.
    #[serde(default)]
    pub others: Vec<String>,
    /// Hidden files and folders, whose names begin with a dot. They are not opened.
    #[serde(default)]
    pub hidden: Vec<String>,
}

/// A class and its images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The name.
    pub name: String,
    /// Number of usable images.
    pub images: usize,
}

/// The masks of the images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskCount {
    /// Number of masks that belong to no image.
    pub unused: usize,
    /// The share of the pixels that count, at the size of the set, 0 to 1.
    pub mean: f64,
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

/// A size in JSON: the side of a square, or `HEIGHTxWIDTH`.
mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>([h, w]: &[usize; 2], to: S) -> Result<S::Ok, S::Error> {
        match h == w {
            true => to.serialize_u64(*h as u64),
            false => to.collect_str(&format_args!("{h}x{w}")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[usize; 2], D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Size {
            Side(usize),
            Sides(String),
        }
        match Size::deserialize(from)? {
            Size::Side(side) => Ok([side, side]),
            Size::Sides(text) => {
                let sides = text.split_once('x');
                let sides = sides.and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
                sides
                    .ok_or_else(|| D::Error::custom(format!("expected HEIGHTxWIDTH, found {text}")))
            }
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
            profile: self.profiles.values().sum(),
            ignored_profile: self.ignored_profiles.values().sum(),
            narrowed: self.narrowed,
            clamped: self.clamped,
        }
    }

    /// The files besides images in one line; see [`crate::Listing::describe_skipped`].
    #[must_use]
    pub fn describe_skipped(&self) -> Option<String> {
        let is_foreign = |id: &&str| is_foreign(id);
        let [others, hidden] = [&self.others, &self.hidden]
            .map(|all| all.iter().map(String::as_str).filter(is_foreign));
        describe_skipped(others, hidden)
    }

    /// What a user should know before training on the folder, one entry for each line: how many images are left out and why, how many are
    /// converted while they are read, and which other files there are.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        const SHOWN: usize = 10;
        let mut notes = self.conversions().notes_on(self.background);
        if self.sixteen_bit > 0 && self.depths.len() > 1 {
            notes.push(
                "there are images of 8 and of 16 bits, so all are read with 8; data.depth = 16 keeps 16".to_owned(),
            );
        }
        for (profile, n) in &self.ignored_profiles {
            let images = plural(*n, "image", "images");
            notes.push(format!("colour profile not applied in {images}: {profile}"));
        }
        if self.stacks > 0 {
            let files = plural(self.stacks, "file has", "files have");
            notes.push(format!(
                "{files} several pages, and each page is an image (data.pages)"
            ));
        }
        if !self.unknown_labels.is_empty() {
            let n = self.unknown_labels.len();
            let shown = self.unknown_labels[..n.min(SHOWN)].join(", ");
            let more = if n > SHOWN { ", .." } else { "" };
            let labels = plural(
                n,
                "label is for a file that is",
                "labels are for files that are",
            );
            notes.push(format!("{labels} not among the images ({shown}{more})"));
        }
        if !self.unreadable.is_empty() {
            let n = self.unreadable.len();
            let kinds = self.kinds();
            let mut text = format!("{n} of {} images are left out{kinds}:", self.found);
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

    /// The formats that cannot be read, with a space in front: ` (3 HEIC, 1 AVIF)`.
    fn kinds(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for kind in self.unreadable.iter().filter_map(|one| one.kind.as_deref()) {
            *counts.entry(kind).or_default() += 1;
        }
        match counts.is_empty() {
            true => String::new(),
            false => format!(" ({})", counted(counts)),
        }
    }

    /// Every file of the folder and whether it is used, one for each line, sorted by name.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let used = self.images.iter().map(|file| (file, "used".to_owned()));
        let left_out = self.unreadable.iter();
        let left_out = left_out.map(|one| (&one.file, format!("left out: {}", one.reason)));
        let others = self
            .others
            .iter()
            .map(|file| (file, "not an image".to_owned()));
        let hidden = self.hidden.iter().map(|file| (file, "hidden".to_owned()));
        let mut all: Vec<_> = used.chain(left_out).chain(others).chain(hidden).collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all.into_iter()
            .map(|(file, what)| format!("{file}: {what}"))
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
