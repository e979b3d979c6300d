//! The digits as an image source.

use sdft_imaging::{Image, ImageSpec};

use crate::{
    DataError, Digits, EmbeddedForm, ImageSource, Item, Place, Result, Style,
    embedded::EmbeddedImages,
};

/// Which digits a source has, and in which form.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DigitsOptions {
    /// How they are drawn.
    pub style: Style,
    /// The digits to take, 0 to 9; all if empty.
    pub digits: Vec<u8>,
    /// At most this many of each digit, the first ones.
    pub per_class: usize,
    /// Whether the images have classes: their digits.
    pub labelled: bool,
    /// The form of the images; a fourth channel is the shape.
    pub form: EmbeddedForm,
}

impl DigitsOptions {
    /// All digits in `style`, as 8-bit RGB images of 16x16 without classes.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self {
            style,
            digits: Vec::new(),
            per_class: usize::MAX,
            labelled: false,
            form: EmbeddedForm::rgb8(Digits::SIZE),
        }
    }
}

/// Digits in one style as images, 8-bit RGB of 16x16 pixels by default.
///
/// They are rounded to the levels of their type, so that a model sees the same values as from image files.
#[derive(Debug, Clone)]
pub struct DigitsSource {
    indices: Vec<usize>,
    labels: Vec<u8>,
    images: EmbeddedImages,
    classes: Vec<String>,
}

impl DigitsSource {
    /// The first `per_class` digits of each class in `style`. An empty `classes` selects all ten; `usize::MAX` selects all digits of a class.
    ///
    /// The source domain is `(Chalk, &[], usize::MAX)`, the limited and biased target set `(Ember, &[1, 4, 7], 30)`.
    ///
    /// # Errors
    /// Fails if a class is above 9 or no digit is left.
    pub fn new(digits: Digits, style: Style, classes: &[u8], per_class: usize) -> Result<Self> {
        let options = DigitsOptions {
            digits: classes.to_vec(),
            per_class,
            ..DigitsOptions::new(style)
        };
        Self::with_options(&digits, &options)
    }

    /// The digits that `options` describe.
    ///
    /// # Errors
    /// Fails if a class is above 9, no digit is left, or `options` ask for a number of channels other than 1, 3 and 4.
    pub fn with_options(digits: &Digits, options: &DigitsOptions) -> Result<Self> {
        let indices = digits.subset(&options.digits, options.per_class)?;
        if indices.is_empty() {
            return Err(DataError::Option {
                option: "digits",
                expected: "classes and a number per class that leave at least one".to_owned(),
                found: format!(
                    "{} of each of the classes {:?}",
                    options.per_class, options.digits
                ),
            });
        }
        let spec = options.form.spec("the shape is alpha")?;
        let drawn = indices
            .iter()
            .map(|&index| draw(digits, index, options.style, &spec));
        let images = EmbeddedImages::new(&options.form, spec, drawn)?;
        let labels: Vec<u8> = indices.iter().map(|&i| digits.labels()[i]).collect();
        let mut present = labels.clone();
        present.sort_unstable();
        present.dedup();
        let present = if options.labelled {
            present
        } else {
            Vec::new()
        };
        Ok(Self {
            labels,
            images,
            indices,
            classes: present.iter().map(u8::to_string).collect(),
        })
    }

    /// The digit of every image, 0 to 9.
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
        self.images.spec()
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        self.images.item(index, place)
    }

    /// The digits in the set are its classes, named by their numerals.
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        let digit = self.labels.get(index)?.to_string();
        self.classes
            .iter()
            .position(|name| *name == digit)
            .map(|class| class as u32)
    }

    /// `digits/` and the four-digit index in the data set.
    fn id(&self, index: usize) -> String {
        let number = self.indices.get(index);
        number.map_or_else(String::new, |number| format!("digits/{number:04}"))
    }
}

/// Draws a digit in 16x16 pixels with the channels, depth and range of `spec`.
fn draw(digits: &Digits, index: usize, style: Style, spec: &ImageSpec) -> Result<Image> {
    let mut drawn = digits.render(index, style);
    let mut form = ImageSpec {
        width: Digits::SIZE,
        height: Digits::SIZE,
        channels: 3,
        ..*spec
    };
    if spec.channels == 4 {
        form.channels = 4;
        drawn.extend(digits.shape(index).map(|v| 2.0 * v - 1.0));
    }
    let image = form.from_unit_range(&drawn)?;
    Ok(image.with_channels(spec.channels)?)
}
