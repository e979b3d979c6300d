//! The emoji as an image source.

use sdft_imaging::{Image, ImageSpec, to_unit_range};

use super::{Emoji, EmojiStyle, Only};
use crate::{DataError, EmbeddedForm, ImageSource, Item, Place, Result, embedded::EmbeddedImages};

/// Which emoji a source has, and in which form.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EmojiOptions {
    /// How they are drawn.
    pub style: EmojiStyle,
    /// What they show; all emoji if empty.
    pub only: Only,
    /// The form of the images; a fourth channel is opaque.
    pub form: EmbeddedForm,
}

impl EmojiOptions {
    /// All emoji in `style`, as 8-bit RGB images of 32x32.
    #[must_use]
    pub fn new(style: EmojiStyle) -> Self {
        Self {
            style,
            only: Only::new(),
            form: EmbeddedForm::rgb8(Emoji::SIZE),
        }
    }
}

/// Emoji in one style as images, 8-bit RGB of 32x32 pixels by default.
#[derive(Debug, Clone)]
pub struct EmojiSource {
    indices: Vec<usize>,
    codes: Vec<String>,
    images: EmbeddedImages,
}

impl EmojiSource {
    /// The emoji that `options` describe.
    ///
    /// # Errors
    /// Fails if `only` has an unknown column or value or leaves no emoji, or for a form that emoji cannot have.
    pub fn new(emoji: &Emoji, options: &EmojiOptions) -> Result<Self> {
        let indices = emoji.select(options.style, &options.only)?;
        if indices.is_empty() {
            let only: Vec<String> = options
                .only
                .iter()
                .map(|(column, values)| format!("{column} = {values:?}"))
                .collect();
            return Err(DataError::Only {
                column: None,
                expected: format!(
                    "values that leave at least one emoji in style {}",
                    options.style
                ),
                found: only.join(", "),
            });
        }
        let spec = options.form.spec("opaque alpha")?;
        // Decoded here, because `picture` cannot report a damaged atlas.
        emoji.atlas(options.style)?;
        let drawn = indices
            .iter()
            .map(|&index| draw(emoji, index, options.style, &spec));
        let images = EmbeddedImages::new(&options.form, spec, drawn)?;
        let codes = indices.iter().map(|&i| emoji.entries()[i].code.clone());
        Ok(Self {
            codes: codes.collect(),
            indices,
            images,
        })
    }

    /// For each image, the index in [`Emoji::entries`].
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl ImageSource for EmojiSource {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn spec(&self) -> &ImageSpec {
        self.images.spec()
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        self.images.item(index, place)
    }

    /// `emoji/` and the code.
    fn id(&self, index: usize) -> String {
        let code = self.codes.get(index);
        code.map_or_else(String::new, |code| format!("emoji/{code}"))
    }
}

/// An emoji in 32x32 pixels with the channels, depth and range of `spec`.
fn draw(emoji: &Emoji, index: usize, style: EmojiStyle, spec: &ImageSpec) -> Result<Image> {
    let picture = emoji.picture(index, style).ok_or(DataError::Index {
        index,
        len: emoji.entries().len(),
    })?;
    let form = ImageSpec {
        width: Emoji::SIZE,
        height: Emoji::SIZE,
        channels: 3,
        ..*spec
    };
    let image = form.from_unit_range(&to_unit_range(&picture))?;
    Ok(image.with_channels(spec.channels)?)
}
