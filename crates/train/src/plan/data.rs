//! The training images: where they are, their form, their classes, and how they are augmented.

use super::check::{PlanError, check_ranges, error};
use super::{OnlyPlan, Size};
use sdft_data::{Augment, ClassesFrom, Fit, ImageSource, Pages};
use sdft_imaging::Depth;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The most channels of an image.
const MOST_CHANNELS: usize = 1024;
/// The path of the embedded digits.
const DIGITS: &str = "digits";
/// The path of the embedded emoji.
const EMOJI: &str = "emoji";

/// The training images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataPlan {
    /// An image folder, or `digits` or `emoji` for embedded images.
    pub path: String,
    /// Whether images are flipped horizontally half of the time.
    pub flip: bool,
    /// Images are shifted by up to this many pixels in both directions.
    pub shift: usize,
    /// Unreadable images stop the run instead of being skipped.
    pub strict: bool,
    /// Hash of the images' names and of some of their pixels, set when they are read.
    pub fingerprint: String,
    /// Of the digits `chalk`, `ember` or `both`, of the emoji `noto` or `fluent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Where the classes are: `folders`, or a CSV or JSON file. A list of digits, as [`DataPlan::digits`], chooses digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassesPlan>,
    /// Digits only: at most this many of each class, the first ones; 0 means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// Digits only: the digits to take; all if empty. Overrides a list of digits in `classes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<Vec<u8>>,
    /// Channels of the images; those of the model if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Type of the samples: `8`, `16` or `float`; that of the files if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// The values that become -1 and 1, as in `[0, 4095]`; the full range of the type, or the range that files state, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// Height and width, as `256` or `"192x256"`; those of the model if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How images get the size: `crop`, `random-crop`, `pad` or `resize`.
    #[serde(skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// The colour under transparent pixels and around padded images.
    #[serde(skip_serializing_if = "is_white")]
    pub background: [u8; 3],
    /// What the pages of a file are: `images`, `channels` or `first`.
    #[serde(skip_serializing_if = "is_default")]
    pub pages: Pages,
    /// A folder of masks; dark pixels take no part in the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<String>,
    /// Whether images are flipped vertically half of the time.
    #[serde(skip_serializing_if = "is_default")]
    pub flip_vertical: bool,
    /// Images are zoomed by a factor of up to 1 + scale, in and out.
    #[serde(skip_serializing_if = "is_default")]
    pub scale: f64,
    /// The probability of each transform of EDM's augmentation; 0 is off.
    #[serde(skip_serializing_if = "is_default")]
    pub augment: f64,
    /// The names of the classes, set when the images are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// The number of images of each class, set when the images are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_counts: Vec<usize>,
    /// Emoji only: which of them are taken, by what they show; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<OnlyPlan>,
}

impl Default for DataPlan {
    fn default() -> Self {
        Self {
            path: String::new(),
            flip: true,
            shift: 0,
            strict: false,
            fingerprint: String::new(),
            style: Some("chalk".into()),
            classes: Some(ClassesPlan::Digits(Vec::new())),
            per_class: Some(0),
            digits: None,
            channels: None,
            depth: None,
            range: None,
            size: None,
            fit: Fit::Crop,
            background: [255; 3],
            pages: Pages::Images,
            masks: None,
            flip_vertical: false,
            scale: 0.0,
            augment: 0.0,
            class_names: Vec::new(),
            class_counts: Vec::new(),
            only: None,
        }
    }
}

/// Fails unless all classes are digits.
///
/// # Errors
/// The [`PlanError`] of `key`.
pub fn check_classes(key: &str, classes: Option<&[u8]>) -> Result<(), PlanError> {
    match classes.unwrap_or_default().iter().find(|class| **class > 9) {
        None => Ok(()),
        Some(class) => Err(error(
            key,
            format!("expected digits from 0 to 9, found {class}"),
        )),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_white(colour: &[u8; 3]) -> bool {
    *colour == [255; 3]
}

impl DataPlan {
    /// Whether the images are the embedded digits.
    #[must_use]
    pub fn is_digits(&self) -> bool {
        self.path == DIGITS
    }

    /// Whether the images are the embedded emoji.
    #[must_use]
    pub fn is_emoji(&self) -> bool {
        self.path == EMOJI
    }

    /// The digits to take; all if empty.
    #[must_use]
    pub fn chosen_digits(&self) -> &[u8] {
        match (&self.digits, &self.classes) {
            (Some(digits), _) | (None, Some(ClassesPlan::Digits(digits))) => digits,
            (None, _) => &[],
        }
    }

    /// Where the classes of the images are; `None` trains without classes.
    #[must_use]
    pub fn classes_from(&self) -> Option<ClassesFrom> {
        match &self.classes {
            Some(ClassesPlan::From(from)) => Some(from.clone()),
            _ => None,
        }
    }

    /// The random augmentation.
    #[must_use]
    pub fn augmentation(&self) -> Augment {
        Augment {
            flip: self.flip,
            flip_vertical: self.flip_vertical,
            shift: self.shift,
            scale: self.scale,
            edm: self.augment,
        }
    }

    /// Writes down what was found in the images, so that a resumed run does not determine it again. Values that follow from a model of
    /// 8-bit RGB images of `sides` (height, width) are left out.
    pub fn resolve(&mut self, images: &dyn ImageSource, sides: [usize; 2]) {
        let spec = images.spec();
        if spec.channels != 3 {
            self.channels = Some(spec.channels);
        }
        if spec.depth != Depth::U8 {
            self.depth = Some(spec.depth);
        }
        if spec.range != spec.depth.full_range() {
            self.range = Some(spec.range);
        }
        if [spec.height, spec.width] != sides {
            self.size = Some(Size::new(spec.height, spec.width));
        }
        self.class_names = images.classes().to_vec();
        self.class_counts = vec![0; self.class_names.len()];
        for label in (0..images.len()).filter_map(|i| images.label(i)) {
            if let Some(count) = self.class_counts.get_mut(label as usize) {
                *count += 1;
            }
        }
    }

    /// Fails unless the settings make sense.
    ///
    /// # Errors
    /// The [`PlanError`] of the first key that does not.
    pub fn check(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| Err(error(&format!("data.{key}"), problem));
        if self.path.is_empty() {
            return wrong(
                "path",
                "expected an image folder, \"digits\" or \"emoji\"; give --data".into(),
            );
        }
        if let Some(ClassesPlan::Digits(digits)) = &self.classes {
            check_classes("data.classes", Some(digits))?;
        }
        check_classes("data.digits", self.digits.as_deref())?;
        if let Some(n) = self.channels.filter(|n| !(1..=MOST_CHANNELS).contains(n)) {
            return wrong(
                "channels",
                format!("expected 1 to {MOST_CHANNELS}, found {n}"),
            );
        }
        if let Some([low, high]) = self.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return wrong(
                "range",
                format!("expected a number and a larger one, found [{low}, {high}]"),
            );
        }
        if self.is_digits() {
            if let Some(ClassesFrom::File(path)) = self.classes_from() {
                return wrong(
                    "classes",
                    format!(
                        "the classes of the digits are their digits; expected \"folders\", found {:?}",
                        path.display().to_string()
                    ),
                );
            }
        } else if self.is_emoji() && self.classes_from().is_some() {
            return wrong(
                "classes",
                "the embedded emoji have no classes; drop it".into(),
            );
        }
        if let (true, Some(_)) = (self.is_digits() || self.is_emoji(), &self.masks) {
            return wrong(
                "masks",
                format!("the embedded {} have no masks; drop it", self.path),
            );
        }
        if let (false, Some(_)) = (self.is_emoji(), &self.only) {
            return wrong(
                "only",
                format!(
                    "chooses embedded emoji, and the images are those of {}; drop it",
                    self.path
                ),
            );
        }
        if !self.is_digits() && self.digits.is_some() {
            return wrong(
                "digits",
                format!(
                    "chooses embedded digits, and the images are those of {}; drop it",
                    self.path
                ),
            );
        }
        check_ranges(&[
            ("data.scale", self.scale, 0.0, 8.0),
            ("data.augment", self.augment, 0.0, 1.0),
        ])
    }
}

/// The setting `data.classes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassesPlan {
    /// The digits to take, without classes.
    Digits(Vec<u8>),
    /// Where the classes are.
    From(ClassesFrom),
}

impl Serialize for ClassesPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Digits(digits) => digits.serialize(serializer),
            Self::From(from) => serializer.collect_str(from),
        }
    }
}

impl<'de> Deserialize<'de> for ClassesPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Digits(Vec<i64>),
            Text(String),
        }
        let expected = "\"folders\", a CSV or JSON file, or a list of digits from 0 to 9";
        match Written::deserialize(deserializer) {
            Ok(Written::Digits(digits)) => {
                let digits = digits.iter().map(|&digit| {
                    u8::try_from(digit).map_err(|_| {
                        D::Error::custom(format!("expected {expected}, found {digit}"))
                    })
                });
                Ok(Self::Digits(digits.collect::<Result<_, _>>()?))
            }
            Ok(Written::Text(text)) if text.is_empty() => Err(D::Error::custom(format!(
                "expected {expected}, found an empty text"
            ))),
            Ok(Written::Text(text)) => match text.parse() {
                Ok(from) => Ok(Self::From(from)),
                Err(never) => match never {},
            },
            Err(_) => Err(D::Error::custom(format!("expected {expected}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DataPlan, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn new_keys_are_written_only_if_they_differ_from_the_default() {
        let plan = DataPlan::default();
        let text = toml::to_string(&plan).unwrap();
        let keys: Vec<&str> = text.lines().filter_map(|l| l.split(" = ").next()).collect();
        let old = [
            "path",
            "flip",
            "shift",
            "strict",
            "fingerprint",
            "style",
            "classes",
            "per_class",
        ];
        assert_eq!(keys, old);
        let text = "size = \"24x16\"\ndepth = 16\nrange = [0, 4095]\nfit = \"random-crop\"\nclasses = \"folders\"\n\
                    background = [0, 0, 0]\npages = \"channels\"\nmasks = \"m\"\nscale = 0.1\naugment = 0.12\nflip_vertical = true\n\
                    channels = 2\n[only]\nkind = [\"portrait\"]\n";
        let plan = read(text).unwrap();
        assert_eq!(plan.size, Some(Size::new(24, 16)));
        assert_eq!(plan.range, Some([0.0, 4095.0]));
        assert_eq!(plan.classes_from(), Some(ClassesFrom::Folders));
        assert_eq!(read(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn classes_are_a_place_or_digits() {
        for (text, digits, from) in [
            ("classes = [1, 4, 7]", &[1u8, 4, 7][..], None),
            ("digits = [2]\nclasses = [1, 4, 7]", &[2], None),
            (
                "digits = [2]\nclasses = \"folders\"",
                &[2],
                Some(ClassesFrom::Folders),
            ),
            (
                "classes = \"labels.csv\"",
                &[],
                Some(ClassesFrom::File("labels.csv".into())),
            ),
        ] {
            let plan = read(text).unwrap();
            assert_eq!((plan.chosen_digits(), plan.classes_from()), (digits, from));
        }
        for text in ["classes = 3", "classes = \"\"", "classes = [300]"] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("\"folders\""), "{message}");
        }
    }

    #[test]
    fn impossible_settings_name_the_key() {
        for (text, key) in [
            ("", "data.path"),
            ("path = \"p\"\nchannels = 0", "data.channels"),
            ("path = \"p\"\nrange = [1, 1]", "data.range"),
            ("path = \"p\"\naugment = 1.5", "data.augment"),
            ("path = \"p\"\nscale = -1", "data.scale"),
            ("path = \"p\"\ndigits = [1]", "data.digits"),
            ("path = \"digits\"\ndigits = [10]", "data.digits"),
            ("path = \"digits\"\nclasses = [10]", "data.classes"),
            ("path = \"digits\"\nclasses = \"a.csv\"", "data.classes"),
            ("path = \"digits\"\nmasks = \"m\"", "data.masks"),
            ("path = \"emoji\"\nmasks = \"m\"", "data.masks"),
            ("path = \"emoji\"\nclasses = \"folders\"", "data.classes"),
            ("path = \"emoji\"\ndigits = [1]", "data.digits"),
            ("path = \"digits\"\nonly.tone = [\"dark\"]", "data.only"),
            ("path = \"p\"\nonly.tone = [\"dark\"]", "data.only"),
        ] {
            assert_eq!(read(text).unwrap().check().unwrap_err().key, key, "{text}");
        }
    }
}
