//! Counts of the conversions of pictures while they are read.

use sdft_files::plural;
use std::ops::AddAssign;

/// How many pictures were converted while they were read, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversions {
    /// Pictures with transparent pixels, composed on the background.
    pub transparent: usize,
    /// Pictures of 16 bits per channel, of which the upper 8 are used.
    pub sixteen_bit: usize,
    /// Pictures that EXIF or XMP rotates or mirrors, made upright.
    pub reoriented: usize,
    /// Animations, of which the first frame is used.
    pub animated: usize,
    /// Pictures in another colour space, converted to sRGB.
    pub profile: usize,
    /// Pictures with a colour profile that was not applied.
    pub ignored_profile: usize,
    /// Pictures of floats, or of more than 16 bits, rounded to the type that they are read as.
    pub narrowed: usize,
    /// Pictures with samples outside the range, clamped to it.
    pub clamped: usize,
}

/// Names of the fields, in the order of [`Conversions::counts`].
const NAMES: [&str; 8] = [
    "transparent",
    "sixteen_bit",
    "reoriented",
    "animated",
    "profile",
    "ignored_profile",
    "narrowed",
    "clamped",
];

impl Conversions {
    fn counts(self) -> [usize; NAMES.len()] {
        [
            self.transparent,
            self.sixteen_bit,
            self.reoriented,
            self.animated,
            self.profile,
            self.ignored_profile,
            self.narrowed,
            self.clamped,
        ]
    }

    fn from_counts(counts: [usize; NAMES.len()]) -> Self {
        let [
            transparent,
            sixteen_bit,
            reoriented,
            animated,
            profile,
            ignored_profile,
            narrowed,
            clamped,
        ] = counts;
        Self {
            transparent,
            sixteen_bit,
            reoriented,
            animated,
            profile,
            ignored_profile,
            narrowed,
            clamped,
        }
    }

    /// One line for each kind of conversion, with the number of pictures; for pictures read on white.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes_on([255; 3])
    }

    /// [`notes`](Self::notes) for pictures read on a background.
    #[must_use]
    pub fn notes_on(&self, background: [u8; 3]) -> Vec<String> {
        let composed = format!("composed on {}", colour(background));
        let texts = [
            ("transparent", composed.as_str()),
            ("of 16 bits", "the upper 8 bits are used"),
            (
                "stored rotated or mirrored",
                "made upright, as EXIF or XMP specifies",
            ),
            ("animated", "the first frame is used"),
            ("in another colour space", "converted to sRGB"),
            (
                "with a colour profile that cannot be applied",
                "the colours are used as they are stored",
            ),
            (
                "of floats or more than 16 bits",
                "rounded to the type that is used",
            ),
            ("with values outside the range", "clamped to it"),
        ];
        let lines = self.counts().into_iter().zip(texts);
        lines
            .filter(|(n, _)| *n > 0)
            .map(|(n, (what, done))| {
                let images = plural(n, "image", "images");
                let text = match (what.strip_prefix("with "), n) {
                    (Some(what), 1) => format!("has {what}"),
                    (Some(what), _) => format!("have {what}"),
                    (None, 1) => format!("is {what}"),
                    (None, _) => format!("are {what}"),
                };
                format!("{images} {text}: {done}")
            })
            .collect()
    }

    /// The names of the fields that are not 0.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let named = NAMES.iter().zip(self.counts()).filter(|(_, n)| *n > 0);
        named.map(|(name, _)| (*name).to_owned()).collect()
    }

    /// The conversions of one picture, from the names that [`names`](Self::names) returns; unknown names are ignored.
    #[must_use]
    pub fn from_names(names: &[String]) -> Self {
        Self::from_counts(NAMES.map(|name| usize::from(names.iter().any(|n| n == name))))
    }

    /// One bit for each field that is not 0, the first field lowest.
    #[must_use]
    pub fn bits(&self) -> u8 {
        let counts = self.counts().into_iter().enumerate();
        counts.fold(0, |all, (i, n)| all | u8::from(n > 0) << i)
    }

    /// The conversions of one picture, from its [`bits`](Self::bits).
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self::from_counts(std::array::from_fn(|i| usize::from(bits >> i & 1)))
    }
}

/// A colour for people.
fn colour(rgb: [u8; 3]) -> String {
    match rgb {
        [255, 255, 255] => "white".to_owned(),
        [0, 0, 0] => "black".to_owned(),
        [r, g, b] => format!("[{r}, {g}, {b}]"),
    }
}

impl AddAssign for Conversions {
    fn add_assign(&mut self, other: Self) {
        let (mine, others) = (self.counts(), other.counts());
        *self = Self::from_counts(std::array::from_fn(|i| mine[i] + others[i]));
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
            profile: 1,
            ..Conversions::default()
        };
        assert_eq!(
            all.notes(),
            [
                "2 images are transparent: composed on white",
                "1 image is animated: the first frame is used",
                "1 image is in another colour space: converted to sRGB"
            ]
        );
        assert_eq!(
            all.notes_on([9, 0, 7])[0],
            "2 images are transparent: composed on [9, 0, 7]"
        );
        assert_eq!(all.names(), ["transparent", "animated", "profile"]);
        let one = Conversions::from_names(&all.names());
        assert_eq!((one.transparent, one.sixteen_bit, one.animated), (1, 0, 1));
        assert_eq!(all.bits(), 0b1_1001);
        assert_eq!(Conversions::from_bits(all.bits()), one);
    }
}
