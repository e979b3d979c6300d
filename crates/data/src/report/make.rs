//! Makes the report of a folder from what was found in it.

use std::path::Path;

use sdft_imaging::ImageSpec;

use super::{ClassCount, Duplicate, MaskCount, Report};
use crate::{
    FolderOptions, classes::Classes, entries::Entries, examination::Facts, masks::Masks,
    scan::Scan, tally::Tally,
};

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
        stacks: 0,
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
