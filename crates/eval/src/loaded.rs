//! The two images of a pair, read and brought to one form.

use crate::error::{EvalError, Result};
use crate::native::{Native, read_native};
use crate::pairing::Pair;
use sdft_imaging::{Depth, Limits, read_image_file, resize_short_side};
use std::path::Path;

/// Longest side of a resized picture.
const LONGEST: usize = 16_384;

/// How pairs are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairOptions {
    /// The short side that every image is resized to first, with Pillow's bicubic, as EGSDE's evaluation does with 256.
    pub size: Option<usize>,
    /// The lowest and the highest possible value of images of 16 bits and of floats; of their type or file if `None`.
    pub range: Option<[f64; 2]>,
}

/// The images of a pair, of one size and form.
pub(crate) fn load(pair: &Pair, options: &PairOptions, limits: Limits) -> Result<[Native; 2]> {
    let read = |path: &Path| {
        read_native(
            &read_image_file(path, &limits)?,
            path,
            0,
            limits,
            options.range,
        )
    };
    let [mut a, mut b] = in_one_form(pair, [read(&pair.input)?, read(&pair.output)?])?;
    if let Some(size) = options.size {
        a = resized(a, size, &pair.input)?;
        b = resized(b, size, &pair.output)?;
    }
    if (a.image.width, a.image.height) != (b.image.width, b.image.height) {
        return Err(EvalError::Content {
            path: pair.output.clone(),
            problem: format!(
                "expected the {}x{} pixels (height x width) of {}, found {}x{}; --size brings pictures of one aspect ratio to one size. \
                 Results of a translation or an edit are cropped as the model's images: compare them with inputs prepared in the same size \
                 (data prepare)",
                a.image.height,
                a.image.width,
                pair.input.display(),
                b.image.height,
                b.image.width,
            ),
        });
    }
    Ok([a, b])
}

/// Two images with the same channels, depth and range, converted to 8-bit RGB where that is needed and possible.
fn in_one_form(pair: &Pair, [mut a, mut b]: [Native; 2]) -> Result<[Native; 2]> {
    if !a.is_transparent() && !b.is_transparent() {
        a.without_alpha();
        b.without_alpha();
    }
    let same_form = a.channels_and_depth() == b.channels_and_depth();
    if same_form && a.range == b.range {
        return Ok([a, b]);
    }
    let hint = match same_form {
        true => "; --range LOW,HIGH is the range of both",
        false => "",
    };
    let convertible = |native: &Native| native.image.depth() != Depth::F32 && native.is_visible();
    if !convertible(&a) || !convertible(&b) {
        return Err(EvalError::Content {
            path: pair.output.clone(),
            problem: format!(
                "{}, expected the form of {}: {}{hint}",
                b.form(),
                pair.input.display(),
                a.form()
            ),
        });
    }
    Ok([in_rgb8(a)?, in_rgb8(b)?])
}

fn in_rgb8(native: Native) -> Result<Native> {
    let (origin, outside) = (native.origin.clone(), native.outside);
    let (image, conversions) = native.into_rgb8()?;
    Ok(Native {
        origin,
        image: image.into(),
        range: Depth::U8.full_range(),
        outside,
        has_alpha: false,
        conversions,
    })
}

fn resized(native: Native, size: usize, path: &Path) -> Result<Native> {
    let (width, height) = (native.image.width, native.image.height);
    let (short, long) = (width.min(height), width.max(height));
    if long * size / short > LONGEST {
        return Err(EvalError::Content {
            path: path.to_owned(),
            problem: format!(
                "{width}x{height} pixels: resizing the short side to {size} makes it longer than {LONGEST}"
            ),
        });
    }
    Ok(Native {
        image: resize_short_side(&native.image, size),
        ..native
    })
}
