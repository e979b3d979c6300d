//! What was changed in input images while they were read.

use sdft_files::plural;
use sdft_imaging::{Conversions, Decoded, Depth, ImageSpec};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// What was changed in input images to give them the form of a model, each with the number of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The conversions of single pictures.
    pub conversions: Conversions,
    /// Images with other channels than the model's, by the file's number and the model's.
    channels: BTreeMap<[usize; 2], usize>,
    /// Images of another depth than the model's, by the file's depth and the model's.
    depths: BTreeMap<[Depth; 2], usize>,
    /// Images that are the first page of several.
    pages: usize,
}

impl Changes {
    /// The changes of one picture for a model of images of the form `spec`.
    pub(crate) fn of(decoded: &Decoded, spec: &ImageSpec) -> Self {
        let conversions = decoded.conversions();
        let (found, expected) = (decoded.channels, spec.channels);
        let without_alpha = found - usize::from(decoded.has_alpha);
        let mut changes = Self {
            pages: usize::from(decoded.pages > 1 && !decoded.animated),
            ..Self::default()
        };
        if found != expected && without_alpha != expected {
            changes.channels.insert([found, expected], 1);
        }
        let is_noted = conversions.sixteen_bit + conversions.narrowed > 0;
        if decoded.depth != spec.depth && !is_noted {
            changes.depths.insert([decoded.depth, spec.depth], 1);
        }
        Self {
            conversions,
            ..changes
        }
    }

    /// One line for each kind of change.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.conversions.notes();
        let images = |n: usize, one: &str, several: &str| match n {
            1 => format!("1 image {one}"),
            n => format!("{n} images {several}"),
        };
        for ([found, expected], &n) in &self.channels {
            let channels = plural(*found, "channel", "channels");
            notes.push(format!(
                "{} {channels}: converted to the model's {expected}",
                images(n, "has", "have")
            ));
        }
        for ([found, expected], &n) in &self.depths {
            notes.push(format!(
                "{} {}: converted to the model's {}",
                images(n, "is of", "are of"),
                in_words(*found),
                in_words(*expected)
            ));
        }
        if self.pages > 0 {
            let several = images(self.pages, "has", "have");
            notes.push(format!("{several} several pages: the first is used"));
        }
        notes
    }
}

fn in_words(depth: Depth) -> String {
    match depth {
        Depth::F32 => "floats".to_owned(),
        depth => format!("{depth} bits"),
    }
}

impl AddAssign<&Self> for Changes {
    fn add_assign(&mut self, other: &Self) {
        self.conversions += other.conversions;
        for (key, n) in &other.channels {
            *self.channels.entry(*key).or_default() += n;
        }
        for (key, n) in &other.depths {
            *self.depths.entry(*key).or_default() += n;
        }
        self.pages += other.pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_has_a_line_with_its_number() {
        let grey = Changes {
            channels: BTreeMap::from([([1, 3], 1)]),
            pages: 1,
            ..Changes::default()
        };
        let mut all = Changes {
            depths: BTreeMap::from([([Depth::U8, Depth::F32], 1)]),
            ..Changes::default()
        };
        all += &grey;
        all += &grey;
        assert_eq!(
            all.notes(),
            [
                "2 images have 1 channel: converted to the model's 3",
                "1 image is of 8 bits: converted to the model's floats",
                "2 images have several pages: the first is used",
            ]
        );
        assert!(Changes::default().notes().is_empty());
    }
}
