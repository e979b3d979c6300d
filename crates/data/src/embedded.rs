//! Images that are embedded in the program, in the form that is asked for.

use sdft_imaging::{Depth, Fit, Fitted, Fitting, Image, ImageSpec, fit};

use crate::{
    DataError, Item, Place, Result,
    reader::{check_range, clamped},
};

/// The form of embedded images.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedForm {
    /// Height and width in pixels; an image is drawn in its own size and then fitted.
    pub size: [usize; 2],
    /// 1 (grey), 3, or 4 (with alpha).
    pub channels: usize,
    /// Type of the samples.
    pub depth: Depth,
    /// The values that become -1 and 1; the full range of the type if `None`.
    pub range: Option<[f64; 2]>,
    /// How an image gets the size.
    pub fit: Fit,
    /// The colour around padded images.
    pub background: [u8; 3],
}

impl EmbeddedForm {
    /// 8-bit RGB images of `size` x `size` pixels.
    #[must_use]
    pub fn rgb8(size: usize) -> Self {
        Self {
            size: [size; 2],
            channels: 3,
            depth: Depth::U8,
            range: None,
            fit: Fit::Crop,
            background: [255; 3],
        }
    }

    /// The form as the images state it; `fourth` says what a fourth channel is.
    ///
    /// # Errors
    /// Fails if a side is 0, the number of channels is not 1, 3 or 4, or the depth does not have the range.
    pub(crate) fn spec(&self, fourth: &str) -> Result<ImageSpec> {
        let [height, width] = self.size;
        let refuse = |option, expected: String, found: String| {
            Err(DataError::Option {
                option,
                expected,
                found,
            })
        };
        if self.size.contains(&0) {
            return refuse(
                "image size",
                "at least 1".into(),
                format!("{height}x{width}"),
            );
        }
        if ![1, 3, 4].contains(&self.channels) {
            let expected = format!("1 (grey), 3, or 4 ({fourth})");
            return refuse("channels", expected, self.channels.to_string());
        }
        if let Some(range) = self.range {
            check_range(range, self.depth)?;
        }
        Ok(ImageSpec {
            range: self.range.unwrap_or_else(|| self.depth.full_range()),
            ..ImageSpec::new(self.channels, self.depth, width, height)
        })
    }
}

/// Embedded images that were drawn.
#[derive(Debug, Clone)]
pub(crate) struct EmbeddedImages {
    /// As they are drawn for random crops, otherwise fitted.
    images: Vec<Item>,
    spec: ImageSpec,
    fitting: Fitting,
}

impl EmbeddedImages {
    /// Takes images that were drawn in their own size with the channels, depth and range of `spec`.
    ///
    /// # Errors
    /// The first error of `drawn`.
    pub(crate) fn new(
        form: &EmbeddedForm,
        spec: ImageSpec,
        drawn: impl Iterator<Item = Result<Image>>,
    ) -> Result<Self> {
        let fitting = Fitting {
            background: form.background,
            ..Fitting::new(spec, form.fit)
        };
        let item = |image: Result<Image>| {
            Ok(match form.fit {
                Fit::RandomCrop => image?.into(),
                _ => fitted(&image?, &fitting),
            })
        };
        Ok(Self {
            images: drawn.map(item).collect::<Result<_>>()?,
            spec,
            fitting,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    pub(crate) fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// As [`crate::ImageSource::item`].
    pub(crate) fn item(&self, index: usize, place: Place) -> Result<Item> {
        let item = self.images.get(index).ok_or(DataError::Index {
            index,
            len: self.len(),
        })?;
        Ok(match self.fitting.fit {
            Fit::RandomCrop => {
                let place = [place.x, place.y];
                let fitting = Fitting {
                    place,
                    ..self.fitting
                };
                fitted(&item.image, &fitting)
            }
            _ => item.clone(),
        })
    }
}

fn fitted(image: &Image, fitting: &Fitting) -> Item {
    let Fitted { image, mask } = fit(image, fitting);
    Item {
        image: clamped(image, &fitting.spec),
        mask,
    }
}
