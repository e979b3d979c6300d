//! What is counted while the images of a folder are read.

use std::collections::BTreeMap;

use sdft_imaging::{Conversions, Decoded, Depth, Image, ImageSpec, Profile};

use crate::Spread;

/// Different forms or names that are kept apart; there may be as many as there are files.
const NAMES: usize = 64;

/// Sums over images, which do not depend on the order in which they are read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) formats: BTreeMap<String, usize>,
    pub(crate) channels: BTreeMap<usize, usize>,
    pub(crate) depths: BTreeMap<Depth, usize>,
    pub(crate) width: Histogram,
    pub(crate) height: Histogram,
    pub(crate) short_side: Histogram,
    pub(crate) conversions: Conversions,
    pub(crate) grey: usize,
    /// Converted colour profiles.
    pub(crate) profiles: BTreeMap<String, usize>,
    /// Colour profiles that are not applied, with the reason.
    pub(crate) ignored_profiles: BTreeMap<String, usize>,
    /// Sum over the masks at the size of the set, and number of their pixels.
    pub(crate) mask: [u64; 2],
}

impl Tally {
    /// Counts an image.
    fn add(&mut self, decoded: &Decoded) {
        let Image { width, height, .. } = decoded.image;
        *self.formats.entry(decoded.format.to_owned()).or_default() += 1;
        *self.channels.entry(decoded.channels).or_default() += 1;
        *self.depths.entry(decoded.depth).or_default() += 1;
        self.width.add(width);
        self.height.add(height);
        self.short_side.add(width.min(height));
        self.conversions += decoded.conversions();
        self.grey += usize::from(decoded.grey);
        match &decoded.profile {
            Some(Profile::Converted(name)) => count(&mut self.profiles, name.clone()),
            Some(Profile::Ignored { name, reason }) => {
                count(&mut self.ignored_profiles, format!("{name}: {reason}"));
            }
            Some(Profile::Srgb) | None => {}
        }
    }
}

/// The images of one form.
#[derive(Debug)]
pub(crate) struct Group {
    /// The form at the size of the set.
    pub(crate) form: ImageSpec,
    /// The number of the first file.
    pub(crate) first: usize,
    pub(crate) tally: Tally,
}

/// All images by their forms.
#[derive(Debug, Default)]
pub(crate) struct Groups(pub(crate) Vec<Group>);

impl Groups {
    /// Counts an image of file number `file`. Forms beyond the first few are not counted.
    pub(crate) fn add(&mut self, decoded: &Decoded, form: ImageSpec, file: usize) {
        if self.of(&form).is_none() && !self.is_full() {
            self.0.push(Group {
                form,
                first: file,
                tally: Tally::default(),
            });
        }
        if let Some(group) = self.of(&form) {
            group.first = group.first.min(file);
            group.tally.add(decoded);
        }
    }

    /// Whether further forms are not counted.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() == NAMES
    }

    /// The images of a form.
    pub(crate) fn of(&mut self, form: &ImageSpec) -> Option<&mut Group> {
        self.0.iter_mut().find(|group| group.form == *form)
    }
}

/// Counts a name, or all names after the first few as one.
fn count(names: &mut BTreeMap<String, usize>, name: String) {
    let known = names.len() < NAMES || names.contains_key(&name);
    let name = if known { name } else { "others".to_owned() };
    *names.entry(name).or_default() += 1;
}

/// How often each value occurs.
#[derive(Debug, Default)]
pub(crate) struct Histogram(BTreeMap<usize, usize>);

impl Histogram {
    fn add(&mut self, value: usize) {
        *self.0.entry(value).or_default() += 1;
    }

    /// Minimum, median and maximum; zeros without values.
    pub(crate) fn spread(&self) -> Spread {
        let n: usize = self.0.values().sum();
        let mut before = 0;
        let median = self.0.iter().find(|&(_, count)| {
            before += count;
            before > n / 2
        });
        let end = |entry: Option<(&usize, &usize)>| entry.map_or(0, |(value, _)| *value);
        Spread {
            min: end(self.0.first_key_value()),
            median: end(median),
            max: end(self.0.last_key_value()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_larger_one_in_the_middle() {
        let spread = |values: &[usize]| {
            let mut all = Histogram::default();
            values.iter().for_each(|&v| all.add(v));
            let Spread { min, median, max } = all.spread();
            [min, median, max]
        };
        assert_eq!(spread(&[]), [0, 0, 0]);
        assert_eq!(spread(&[7]), [7, 7, 7]);
        assert_eq!(spread(&[9, 3]), [3, 9, 9]);
        assert_eq!(spread(&[4, 4, 1, 9]), [1, 4, 9]);
        assert_eq!(spread(&[4, 5, 1, 9, 1]), [1, 4, 9]);
    }
}
