//! The report of an image folder for people.

use std::{collections::BTreeMap, fmt};

use sdft_files::plural;
use sdft_imaging::Fit;

use super::{Duplicate, MaskCount, Report, Spread, Unreadable};

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

/// Counts with names: `3 PNG, 1 TIFF`.
pub(super) fn counted<K: fmt::Display, N: fmt::Display>(
    counts: impl IntoIterator<Item = (K, N)>,
) -> String {
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
