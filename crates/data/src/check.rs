//! Decodes every image of a folder once.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;
use sdft_imaging::{Conversions, Image, ImagingError, Reading, Rgb8, center_crop, read_image_file};

use crate::{
    DataError, Duplicate, FolderOptions, Listing, Report, Result, Spread, Unreadable, scan_images,
};

/// An image: its path relative to the folder, and its full path.
type Found = (String, PathBuf);

/// The properties of a decoded image.
struct Facts {
    width: usize,
    height: usize,
    format: &'static str,
    grey: bool,
    conversions: Conversions,
    /// Hash of the file.
    bytes: u64,
    /// Hash of the decoded pixels.
    pixels: u64,
    /// The image at the run's size, if it is to be cached.
    crop: Option<Image>,
}

/// A checked folder.
pub(crate) struct Checked {
    /// The report.
    pub(crate) report: Report,
    /// The readable images.
    pub(crate) images: Vec<Found>,
    /// Their pixels at the run's size, if `keep` was set and all images fit the memory limit.
    pub(crate) crops: Option<Vec<Image>>,
}

/// Decodes every image of `folder`; calls `on_image` with (done, total) from any thread.
///
/// # Errors
/// Fails for the same reasons as [`scan_images`], if no image can be read, or if one cannot be read and `options.strict` is set.
pub(crate) fn check(
    folder: &Path,
    options: &FolderOptions,
    keep: bool,
    on_image: &(dyn Fn(usize, usize) + Sync),
) -> Result<Checked> {
    if options.size.contains(&0) {
        return Err(DataError::Option {
            option: "image size",
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
        });
    }
    let scan = scan_images(folder)?;
    let total = scan.images.len();
    let n_bytes = [3, options.size[0], options.size[1], total]
        .into_iter()
        .fold(1_u64, |n, factor| n.saturating_mul(factor as u64));
    let keep = keep && n_bytes <= options.cache_bytes;
    let done = AtomicUsize::new(0);
    let examined: Vec<_> = scan
        .images
        .par_iter()
        .map(|found| {
            let facts = examine(found, options, keep);
            on_image(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            facts
        })
        .collect();

    let Listing {
        images: found,
        mut unreadable,
        others,
        hidden,
    } = scan;
    let (mut images, mut facts) = (Vec::new(), Vec::new());
    for (found, examined) in found.into_iter().zip(examined) {
        match examined {
            Ok(these) => {
                images.push(found);
                facts.push(these);
            }
            Err(error) => unreadable.push(Unreadable {
                reason: error.reason(),
                kind: None,
                file: found.0,
            }),
        }
    }
    unreadable.sort_by(|a, b| a.file.cmp(&b.file));
    let path = folder.to_owned();
    if images.is_empty() {
        return Err(DataError::AllUnreadable { path, unreadable });
    }
    if options.strict && !unreadable.is_empty() {
        return Err(DataError::SomeUnreadable { path, unreadable });
    }
    let mut report = report(folder, options.size[0], &images, &facts, unreadable);
    report.others = others.into_iter().map(|(id, _)| id).collect();
    report.hidden = hidden;
    let crops = facts.into_iter().map(|facts| facts.crop).collect();
    Ok(Checked {
        report,
        images,
        crops,
    })
}

/// Decodes one image and collects its properties.
fn examine(
    (id, path): &Found,
    options: &FolderOptions,
    keep: bool,
) -> std::result::Result<Facts, ImagingError> {
    let bytes = read_image_file(path, &options.limits)?;
    let decoded = Reading::rgb8(options.limits).decode(&bytes, id, 0)?;
    let (conversions, grey, format) = (decoded.conversions(), decoded.grey, decoded.format);
    let image = Rgb8::from_image(decoded.image);
    Ok(Facts {
        width: image.width,
        height: image.height,
        format,
        grey,
        conversions,
        bytes: hash(&bytes),
        pixels: hash(&image),
        crop: keep.then(|| center_crop(&image, options.size[0]).into()),
    })
}

/// A 64-bit hash: among a million images, two different ones collide with a probability of one in 40 million.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn report(
    folder: &Path,
    size: usize,
    images: &[Found],
    facts: &[Facts],
    unreadable: Vec<Unreadable>,
) -> Report {
    let named = |wanted: &dyn Fn(&Facts) -> bool| -> Vec<String> {
        let pairs = images.iter().zip(facts);
        pairs
            .filter(|(_, f)| wanted(f))
            .map(|(i, _)| i.0.clone())
            .collect()
    };
    let mut conversions = Conversions::default();
    for facts in facts {
        conversions += facts.conversions;
    }
    let spread = |side: &dyn Fn(&Facts) -> usize| Spread::of(facts.iter().map(side).collect());
    let mut formats = BTreeMap::new();
    for facts in facts {
        *formats.entry(facts.format.to_owned()).or_insert(0) += 1;
    }
    Report {
        folder: folder.display().to_string(),
        size,
        found: images.len() + unreadable.len(),
        usable: images.len(),
        formats,
        width: spread(&|f| f.width),
        height: spread(&|f| f.height),
        short_side: spread(&|f| f.width.min(f.height)),
        enlarged: named(&|f| f.width.min(f.height) < size),
        elongated: named(&|f| {
            f.width.max(f.height) as f64 > Report::ELONGATED * f.width.min(f.height) as f64
        }),
        duplicates: duplicates(images, facts),
        transparent: conversions.transparent,
        grey: facts.iter().filter(|f| f.grey).count(),
        sixteen_bit: conversions.sixteen_bit,
        reoriented: conversions.reoriented,
        animated: conversions.animated,
        unreadable,
        others: Vec::new(),
        hidden: Vec::new(),
    }
}

/// Groups of images with the same pixels, in the order of their first images.
fn duplicates(images: &[Found], facts: &[Facts]) -> Vec<Duplicate> {
    let mut groups: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, facts) in facts.iter().enumerate() {
        groups.entry(facts.pixels).or_default().push(i);
    }
    let mut groups: Vec<_> = groups
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort_unstable();
    groups
        .into_iter()
        .map(|group| Duplicate {
            same_file: group
                .iter()
                .all(|&i| facts[i].bytes == facts[group[0]].bytes),
            files: group.into_iter().map(|i| images[i].0.clone()).collect(),
        })
        .collect()
}
