//! The report of an image folder.

use std::{collections::BTreeMap, fmt, path::Path};

use sdft_imaging::{Conversions, Fit, ImageSpec};
use serde::{Deserialize, Serialize};

use crate::{
    FolderOptions,
    check::Facts,
    classes::Classes,
    entries::Entries,
    masks::Masks,
    scan::{Scan, describe_skipped},
    tally::Tally,
};

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

impl Report {
    /// Adds classes and masks to the report.
    pub(crate) fn count(&mut self, classes: &Classes, masks: Option<&Masks>) {
        let mut images = vec![0; classes.names.len()];
        for &label in &classes.labels {
            images[label as usize] += 1;
        }
        let counts = classes.names.iter().zip(images);
        self.classes = counts
            .map(|(name, images)| ClassCount {
                name: name.clone(),
                images,
            })
            .collect();
        self.unknown_labels.clone_from(&classes.unknown);
        if let (Some(masks), Some(count)) = (masks, &mut self.masks) {
            count.unused = masks.unused(self.images.iter().map(String::as_str));
        }
    }
}

/// The report of a folder in which `scan` and `images` were found.
pub(crate) fn make(
    folder: &Path,
    options: &FolderOptions,
    form: ImageSpec,
    images: &Entries,
    facts: &[Facts],
    tally: Tally,
    scan: Scan,
) -> Report {
    let named = |wanted: &dyn Fn(&Facts) -> bool| -> Vec<String> {
        let chosen = facts.iter().enumerate().filter(|(_, f)| wanted(f));
        chosen.map(|(i, _)| images.id(i).into_owned()).collect()
    };
    let [sum, pixels] = tally.mask;
    Report {
        folder: folder.display().to_string(),
        size: options.size,
        form,
        fit: options.fit,
        found: images.len() + scan.unreadable.len(),
        usable: images.len(),
        formats: tally.formats,
        channels: tally.channels,
        depths: tally
            .depths
            .iter()
            .map(|(depth, n)| (depth.to_string(), *n))
            .collect(),
        width: tally.width.spread(),
        height: tally.height.spread(),
        short_side: tally.short_side.spread(),
        enlarged: named(&|f| f.enlarged),
        elongated: named(&|f| f.elongated),
        duplicates: duplicates(images, facts),
        transparent: tally.conversions.transparent,
        grey: tally.grey,
        sixteen_bit: tally.conversions.sixteen_bit,
        reoriented: tally.conversions.reoriented,
        animated: tally.conversions.animated,
        profiles: tally.profiles,
        ignored_profiles: tally.ignored_profiles,
        narrowed: tally.conversions.narrowed,
        clamped: tally.conversions.clamped,
        background: options.background,
        stacks: tally.stacks,
        classes: Vec::new(),
        unknown_labels: Vec::new(),
        masks: options.masks.as_ref().map(|_| MaskCount {
            unused: 0,
            mean: sum as f64 / pixels.max(1) as f64,
        }),
        images: named(&|_| true),
        unreadable: scan.unreadable,
        others: scan.others.ids().map(str::to_owned).collect(),
        hidden: scan.hidden,
    }
}

/// Groups of images with the same pixels, in the order of their first images.
fn duplicates(images: &Entries, facts: &[Facts]) -> Vec<Duplicate> {
    let mut order: Vec<u32> = (0..facts.len() as u32).collect();
    let pixels = |i: &u32| facts[*i as usize].pixels;
    order.sort_by_key(pixels);
    let groups = order.chunk_by(|a, b| pixels(a) == pixels(b));
    let mut groups: Vec<&[u32]> = groups.filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    groups
        .into_iter()
        .map(|group| {
            let bytes = |i: &u32| facts[*i as usize].bytes;
            Duplicate {
                same_file: group.iter().all(|i| bytes(i) == bytes(&group[0])),
                files: group
                    .iter()
                    .map(|&i| images.id(i as usize).into_owned())
                    .collect(),
            }
        })
        .collect()
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

    /// Every file of the folder with what becomes of it, one for each line, sorted by name.
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
        let [height, width] = self.size;
        let size = format!("{height}x{width}");
        writeln!(
            f,
            "{}: {} of {} images usable at {size} ({})",
            self.folder,
            self.usable,
            self.found,
            counted(self.formats.iter()),
        )?;
        writeln!(
            f,
            "  pixels      short side {}, width {}, height {} (smallest / median / largest)",
            self.short_side, self.width, self.height
        )?;
        if !self.form.is_plain() || self.channels.len() > 1 || self.depths.len() > 1 {
            self.describe_form(f)?;
        }
        if !self.classes.is_empty() {
            let all: Vec<_> = self
                .classes
                .iter()
                .map(|c| format!("{} of {}", c.images, c.name))
                .collect();
            list(f, "classes", "classes", &all)?;
        }
        if let Some(MaskCount { unused, mean }) = self.masks {
            let unused = match unused {
                0 => String::new(),
                n => format!(", {} of no image", plural(n, "mask", "masks")),
            };
            writeln!(
                f,
                "  {:<12}{:.1} % of the pixels count{unused}",
                "masks",
                100.0 * mean
            )?;
        }
        let small = match height == width {
            true => format!("smaller than {height} pixels: enlarged, which blurs"),
            false => format!("smaller than {size} pixels: enlarged, which blurs"),
        };
        list(f, "enlarged", &small, &self.enlarged)?;
        let done = match self.fit {
            Fit::Crop => "only the middle is used",
            Fit::RandomCrop => "a random part is used each time",
            Fit::Pad => "padded on two sides",
            Fit::Resize => "stretched",
        };
        let long = match height == width {
            true => format!("longer than {} short sides: {done}", Self::ELONGATED),
            false => format!(
                "longer than {} times the shape of {size}: {done}",
                Self::ELONGATED
            ),
        };
        list(f, "elongated", &long, &self.elongated)?;
        list(
            f,
            "duplicates",
            "more than once in the folder",
            &self.duplicates,
        )?;
        let composed = match self.background {
            [255, 255, 255] => "composed on white".to_owned(),
            [r, g, b] => format!("composed on the colour {r},{g},{b}"),
        };
        for (label, n, what) in [
            ("transparent", self.transparent, composed.as_str()),
            ("grey", self.grey, "without colour"),
            ("16-bit", self.sixteen_bit, "the upper 8 bits are used"),
            (
                "turned",
                self.reoriented,
                "made upright, as EXIF or XMP specifies",
            ),
            ("animated", self.animated, "the first frame is used"),
            ("rounded", self.narrowed, "floats or more than 16 bits"),
            ("clamped", self.clamped, "values outside the range"),
            (
                "stacks",
                self.stacks,
                "files of several pages, each an image",
            ),
            (
                "labels",
                self.unknown_labels.len(),
                "for files that are not among the images",
            ),
        ] {
            if n > 0 {
                writeln!(f, "  {label:<12}{n} ({what})")?;
            }
        }
        let by_profile = |all: &BTreeMap<String, usize>| -> Vec<String> {
            all.iter()
                .map(|(name, n)| format!("{n} of {name}"))
                .collect()
        };
        list(
            f,
            "profiles",
            "colour profiles converted to sRGB",
            &by_profile(&self.profiles),
        )?;
        let ignored = by_profile(&self.ignored_profiles);
        list(f, "profiles", "colour profiles not applied", &ignored)?;
        let left_out = format!("left out{}", self.kinds());
        list(f, "unreadable", &left_out, &self.unreadable)?;
        match self.describe_skipped() {
            Some(text) => writeln!(f, "  {:<12}{text}", "other files"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// Writes the channels and depths of the files, and the form that the images are used in.
    fn describe_form(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels = self
            .channels
            .iter()
            .map(|(n, images)| (format!("with {n}"), images));
        let depths = self
            .depths
            .iter()
            .map(|(depth, images)| match depth.as_str() {
                "float" => ("of floats".to_owned(), images),
                bits => (format!("of {bits} bits"), images),
            });
        let [low, high] = self.form.range;
        writeln!(f, "  {:<12}{}", "channels", counted(channels))?;
        writeln!(f, "  {:<12}{}", "depth", counted(depths))?;
        writeln!(
            f,
            "  {:<12}{}, {low} to {high} become -1 to 1",
            "used as", self.form
        )
    }
}

/// A number and the words for it.
fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Counts with names: `3 PNG, 1 TIFF`.
fn counted<K: fmt::Display, N: fmt::Display>(counts: impl IntoIterator<Item = (K, N)>) -> String {
    let counts = counts.into_iter().map(|(name, n)| format!("{n} {name}"));
    counts.collect::<Vec<_>>().join(", ")
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
