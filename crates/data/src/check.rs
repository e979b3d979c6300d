use crate::error::{DataError, Result};
use rayon::prelude::*;
use sdft_imaging::{Decoded, Limits, center_crop, decode_described, read_image_file};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// File name endings that count as images, in any case.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];
/// Width over height (or the other way round) from which a centre crop loses much.
const ODD_ASPECT: f64 = 1.5;

/// An image that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its path below the folder.
    pub file: String,
    /// The reason.
    pub reason: String,
}

/// Smallest, middle and largest of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The smallest.
    pub min: usize,
    /// The middle one.
    pub median: usize,
    /// The largest.
    pub max: usize,
}

impl Range {
    fn of(mut values: Vec<usize>) -> Self {
        values.sort_unstable();
        match values.as_slice() {
            [] => Self::default(),
            all => Self { min: all[0], median: all[all.len() / 2], max: all[all.len() - 1] },
        }
    }
}

/// What is in a folder of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// Files that look like images by their names.
    pub files: usize,
    /// Files that could be decoded.
    pub readable: usize,
    /// The others.
    pub unreadable: Vec<Unreadable>,
    /// Side that images get in training.
    pub size: usize,
    /// Widths.
    pub width: Range,
    /// Heights.
    pub height: Range,
    /// Images whose shorter side is below `size`: they are enlarged.
    pub enlarged: usize,
    /// Images more than half as long again as wide, or the other way round: the centre crop loses much of them.
    pub odd_aspect: usize,
    /// Images with transparency, which is dropped.
    pub transparent: usize,
    /// Images without colour.
    pub grey: usize,
    /// Images of 16 bits a channel, which become 8.
    pub sixteen_bit: usize,
    /// Images turned upright as their EXIF orientation asks.
    pub reoriented: usize,
    /// Groups of files with the same bytes.
    pub same_bytes: Vec<Vec<String>>,
    /// Groups of files with the same pixels but other bytes.
    pub same_pixels: Vec<Vec<String>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} of {} images can be read", self.folder.display(), self.readable, self.files)?;
        for Unreadable { file, reason } in &self.unreadable {
            writeln!(f, "  left out: {file}: {reason}")?;
        }
        let range = |r: Range| format!("{} to {}, half below {}", r.min, r.max, r.median);
        writeln!(f, "  width {}; height {}; each becomes {size}x{size}", range(self.width), range(self.height), size = self.size)?;
        for (count, what) in [
            (self.enlarged, "smaller than that and will be enlarged"),
            (self.odd_aspect, "far from square: the centre crop loses much of them"),
            (self.transparent, "with transparency, which is dropped"),
            (self.sixteen_bit, "of 16 bits, of which 8 are kept"),
            (self.grey, "without colour"),
            (self.reoriented, "turned upright as their EXIF orientation asks"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        for (groups, what) in [(&self.same_bytes, "the same file"), (&self.same_pixels, "the same picture")] {
            for group in groups {
                writeln!(f, "  {what}: {}", group.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Decodes every image of a folder and reports what is broken, doubled or odd. `size` is the side that training will use.
///
/// # Errors
/// No such folder; a folder without images.
pub fn check_folder(dir: &Path, size: usize) -> Result<Report> {
    let files = list(dir)?;
    Ok(examine(dir, size, &files, |_, _| ()).0)
}

/// Images below a folder, by their paths relative to it, in byte order.
///
/// # Errors
/// No such folder; a folder without images.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let problem = |problem: String| DataError::Folder { path: dir.to_owned(), problem };
    if !dir.exists() {
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let there = if parent.is_dir() { String::new() } else { format!("; {} is not there either", parent.display()) };
        return Err(problem(format!("expected a folder of images, found nothing{there}")));
    }
    if !dir.is_dir() {
        return Err(problem("expected a folder of images, found a file".into()));
    }
    let mut found = Vec::new();
    let mut others = 0;
    walk(dir, Path::new(""), 0, &mut found, &mut others)?;
    if found.is_empty() {
        return Err(problem(format!("no images: expected files ending in {}, found {others} other files", EXTENSIONS.join(", "))));
    }
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found)
}

/// Deeper than any sensible tree; stops loops of links.
const DEEPEST: usize = 32;

fn walk(root: &Path, below: &Path, depth: usize, found: &mut Vec<PathBuf>, others: &mut usize) -> Result<()> {
    let here = root.join(below);
    let io = |source| DataError::Io { path: here.clone(), source };
    for entry in std::fs::read_dir(&here).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let relative = below.join(&name);
        let full = root.join(&relative);
        if full.is_dir() {
            if depth < DEEPEST && !name.as_encoded_bytes().starts_with(b".") {
                walk(root, &relative, depth + 1, found, others)?;
            }
            continue;
        }
        let extension = relative.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) {
            found.push(relative);
        } else {
            *others += 1;
        }
    }
    Ok(())
}

/// What the report needs of one image.
struct Facts {
    width: usize,
    height: usize,
    transparent: bool,
    grey: bool,
    sixteen_bit: bool,
    reoriented: bool,
    bytes: [u8; 32],
    pixels: [u8; 32],
}

/// Decodes all files and hands each centre crop to `keep`; returns the report and what was kept, for readable files only.
pub(crate) fn examine<K: Send>(
    dir: &Path,
    size: usize,
    files: &[PathBuf],
    keep: impl Fn(usize, sdft_imaging::Rgb8) -> K + Sync,
) -> (Report, Vec<(usize, K)>) {
    let results: Vec<_> = files
        .par_iter()
        .enumerate()
        .map(|(i, file)| {
            let path = dir.join(file);
            let bytes = read_image_file(&path, &Limits::default())?;
            let Decoded { image, transparent, grey, sixteen_bit, reoriented, .. } =
                decode_described(&bytes, &path.display().to_string(), &Limits::default())?;
            let facts = Facts {
                width: image.width,
                height: image.height,
                transparent,
                grey,
                sixteen_bit,
                reoriented,
                bytes: Sha256::digest(&bytes).into(),
                pixels: Sha256::new().chain_update(image.width.to_le_bytes()).chain_update(&image.pixels).finalize().into(),
            };
            Ok((facts, keep(i, center_crop(&image, size))))
        })
        .collect::<Vec<std::result::Result<_, sdft_imaging::ImagingError>>>();

    let name = |i: usize| files[i].display().to_string();
    let mut unreadable = Vec::new();
    let mut facts = Vec::new();
    let mut kept = Vec::new();
    for (i, result) in results.into_iter().enumerate() {
        match result {
            Ok((fact, keep)) => {
                facts.push((i, fact));
                kept.push((i, keep));
            }
            Err(error) => unreadable.push(Unreadable { file: name(i), reason: error.to_string() }),
        }
    }
    let count = |f: fn(&Facts) -> bool| facts.iter().filter(|(_, fact)| f(fact)).count();
    let groups = |key: fn(&Facts) -> [u8; 32]| {
        let mut groups: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
        for (i, fact) in &facts {
            groups.entry(key(fact)).or_default().push(name(*i));
        }
        let mut groups: Vec<Vec<String>> = groups.into_values().filter(|group| group.len() > 1).collect();
        groups.sort();
        groups
    };
    let same_bytes = groups(|f| f.bytes);
    let mut same_pixels = groups(|f| f.pixels);
    same_pixels.retain(|group| !same_bytes.contains(group));
    let report = Report {
        folder: dir.to_owned(),
        files: files.len(),
        readable: facts.len(),
        unreadable,
        size,
        width: Range::of(facts.iter().map(|(_, f)| f.width).collect()),
        height: Range::of(facts.iter().map(|(_, f)| f.height).collect()),
        enlarged: facts.iter().filter(|(_, f)| f.width.min(f.height) < size).count(),
        odd_aspect: count(|f| {
            let (long, short) = (f.width.max(f.height) as f64, f.width.min(f.height) as f64);
            long > ODD_ASPECT * short
        }),
        transparent: count(|f| f.transparent),
        grey: count(|f| f.grey),
        sixteen_bit: count(|f| f.sixteen_bit),
        reoriented: count(|f| f.reoriented),
        same_bytes,
        same_pixels,
    };
    (report, kept)
}
