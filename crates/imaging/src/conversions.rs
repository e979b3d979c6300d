//! Counts of the conversions of pictures while they are read.

use std::ops::AddAssign;

/// How many pictures were converted while they were read, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversions {
    /// Pictures with transparent pixels, composed on white.
    pub transparent: usize,
    /// Pictures of 16 bits per channel, of which the upper 8 are used.
    pub sixteen_bit: usize,
    /// Pictures that EXIF or XMP rotates or mirrors, made upright.
    pub reoriented: usize,
    /// Animations, of which the first frame is used.
    pub animated: usize,
}

impl Conversions {
    /// One line for each kind of conversion, with the number of pictures.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let lines = [
            (self.transparent, "transparent", "composed on white"),
            (self.sixteen_bit, "of 16 bits", "the upper 8 bits are used"),
            (
                self.reoriented,
                "stored rotated or mirrored",
                "made upright, as EXIF or XMP specifies",
            ),
            (self.animated, "animated", "the first frame is used"),
        ];
        let lines = lines.iter().filter(|(n, ..)| *n > 0);
        lines
            .map(|(n, what, done)| {
                let images = if *n == 1 { "image is" } else { "images are" };
                format!("{n} {images} {what}: {done}")
            })
            .collect()
    }
}

impl Conversions {
    /// The names of the fields that are not 0.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let all = [
            self.transparent,
            self.sixteen_bit,
            self.reoriented,
            self.animated,
        ];
        let named = NAMES.iter().zip(all).filter(|(_, n)| *n > 0);
        named.map(|(name, _)| (*name).to_owned()).collect()
    }

    /// The conversions of one picture, from the names that [`names`](Self::names) returns; unknown names are ignored.
    #[must_use]
    pub fn from_names(names: &[String]) -> Self {
        let n = |i: usize| usize::from(names.iter().any(|name| name == NAMES[i]));
        Self {
            transparent: n(0),
            sixteen_bit: n(1),
            reoriented: n(2),
            animated: n(3),
        }
    }
}

const NAMES: [&str; 4] = ["transparent", "sixteen_bit", "reoriented", "animated"];

impl AddAssign for Conversions {
    fn add_assign(&mut self, other: Self) {
        self.transparent += other.transparent;
        self.sixteen_bit += other.sixteen_bit;
        self.reoriented += other.reoriented;
        self.animated += other.animated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_a_line_with_its_number() {
        let mut all = Conversions::default();
        assert!(all.notes().is_empty() && all.names().is_empty());
        for _ in 0..2 {
            all += Conversions {
                transparent: 1,
                ..Conversions::default()
            };
        }
        all += Conversions {
            animated: 1,
            ..Conversions::default()
        };
        assert_eq!(
            all.notes(),
            [
                "2 images are transparent: composed on white",
                "1 image is animated: the first frame is used"
            ]
        );
        assert_eq!(all.names(), ["transparent", "animated"]);
        let one = Conversions::from_names(&all.names());
        assert_eq!((one.transparent, one.sixteen_bit, one.animated), (1, 0, 1));
    }
}
