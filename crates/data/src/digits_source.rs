//! The digits as an image source.

use sdft_imaging::{Image, ImageSpec};

use crate::{DataError, Digits, ImageSource, Item, Place, Result, Style};

/// Digits of some classes in one style, as 8-bit pictures of 16x16 pixels.
///
/// They are rounded to 8 bits so that a model sees the same values as from image files.
#[derive(Debug, Clone)]
pub struct DigitsSource {
    indices: Vec<usize>,
    labels: Vec<u8>,
    images: Vec<Image>,
    spec: ImageSpec,
}

impl DigitsSource {
    /// The first `per_class` digits of each class in `style`. An empty `classes` selects all ten; `usize::MAX` selects all digits of a class.
    ///
    /// The source domain is `(Chalk, &[], usize::MAX)`, the limited and biased target set `(Ember, &[1, 4, 7], 30)`.
    ///
    /// # Errors
    /// Fails if a class is above 9 or no digit is left.
    pub fn new(digits: Digits, style: Style, classes: &[u8], per_class: usize) -> Result<Self> {
        let indices = digits.subset(classes, per_class)?;
        if indices.is_empty() {
            return Err(DataError::Option {
                option: "digits",
                expected: "classes and a number per class that leave at least one".to_owned(),
                found: format!("{per_class} of each of the classes {classes:?}"),
            });
        }
        let spec = ImageSpec::rgb8(Digits::SIZE, Digits::SIZE);
        let images: std::result::Result<_, _> = indices
            .iter()
            .map(|&i| spec.from_unit_range(&digits.render(i, style)))
            .collect();
        Ok(Self {
            labels: indices.iter().map(|&i| digits.labels()[i]).collect(),
            images: images?,
            indices,
            spec,
        })
    }

    /// The class of every picture, 0 to 9.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }
}

impl ImageSource for DigitsSource {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    fn item(&self, index: usize, _: Place) -> Result<Item> {
        let image = self.images.get(index).cloned();
        let image = image.ok_or(DataError::Index {
            index,
            len: self.len(),
        })?;
        Ok(image.into())
    }

    /// `digits/` and the four-digit index in the data set.
    fn id(&self, index: usize) -> String {
        let number = self.indices.get(index);
        number.map_or_else(String::new, |number| format!("digits/{number:04}"))
    }
}
