//! Makes the image of one picture: decodes it in the common form, gives it the size, and encodes it.

use std::result::Result;

use sdft_imaging::{
    Conversions, Decoded, Fitting, Image, ImageSpec, Kind, Reading, Rgb8, Samples, encode_png, fit,
    kind_of_bytes,
};

use crate::{
    entry::Work,
    error::{Failure, Reason},
    form::Form,
};

/// An image of the set.
pub(crate) struct Made {
    pub(crate) spec: ImageSpec,
    /// Width and height of the original picture.
    pub(crate) sides: (usize, usize),
    pub(crate) conversions: Conversions,
    /// Number of pages of the original file.
    pub(crate) pages: usize,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

impl Made {
    pub(crate) fn form(&self) -> Form {
        Form {
            channels: self.spec.channels,
            depth: self.spec.depth,
        }
    }
}

/// Makes the image of a picture in memory.
pub(crate) fn make_of_picture(
    picture: &Rgb8,
    source: &str,
    work: &Work<'_>,
) -> Result<Made, Failure> {
    if work.common.add(Form::RGB8, source)? != Form::RGB8 {
        let bytes = encode_png(picture).map_err(|error| Reason::from(error.to_string()))?;
        return make(&bytes, source, 0, work);
    }
    let image = Image::from(picture.clone());
    let spec = spec_of(&image, work);
    Ok(Made {
        spec,
        sides: (image.width, image.height),
        conversions: Conversions::default(),
        pages: 1,
        bytes: encode(&image, spec, work)?,
    })
}

/// Makes the image of page `page`, counted from 0, of a file.
pub(crate) fn make(
    bytes: &[u8],
    source: &str,
    page: usize,
    work: &Work<'_>,
) -> Result<Made, Failure> {
    let decoded = decode(bytes, source, page, work)?;
    let conversions = decoded.conversions();
    let image = &decoded.image;
    // A PNG without conversions can be kept as it is. RGB sets always kept grey and palettes of the right size, too.
    let is_plain = decoded.format == "PNG" && conversions == Conversions::default();
    let has_form = (decoded.channels, decoded.depth) == (image.channels, image.depth());
    let is_kept = is_plain && (has_form || Form::of(image) == Form::RGB8);
    let spec = ImageSpec {
        range: decoded.range,
        ..spec_of(image, work)
    };
    let has_size = (image.width, image.height) == (spec.width, spec.height);
    Ok(Made {
        spec,
        sides: (image.width, image.height),
        conversions,
        // The frames of an animation are not pages.
        pages: if decoded.animated { 1 } else { decoded.pages },
        bytes: match is_kept && has_size {
            true => bytes.to_vec(),
            false => encode(image, spec, work)?,
        },
    })
}

/// The form of the set with the channels and depth of this image.
fn spec_of(image: &Image, work: &Work<'_>) -> ImageSpec {
    let [height, width] = work.options.size;
    ImageSpec::new(image.channels, image.depth(), width, height)
}

/// Gives an image the size of the set and encodes it.
fn encode(image: &Image, spec: ImageSpec, work: &Work<'_>) -> Result<Vec<u8>, Failure> {
    let fitting = Fitting {
        background: work.options.background,
        ..Fitting::new(spec, work.options.fit)
    };
    let mut fitted = fit(image, &fitting).image;
    keep_inside(image, &mut fitted, spec.range);
    let encoded = spec.encode(&fitted);
    Ok(encoded.map_err(|error| Reason::from(error.to_string()))?)
}

/// Clamps floats to the range of their file if they were inside it: a bicubic filter overshoots at edges.
fn keep_inside(before: &Image, after: &mut Image, [low, high]: [f64; 2]) {
    let (low, high) = (low as f32, high as f32);
    if let (Samples::F32(before), Samples::F32(after)) = (&before.samples, &mut after.samples)
        && before.iter().all(|v| (low..=high).contains(v))
    {
        for value in after {
            *value = value.clamp(low, high);
        }
    }
}

/// Decodes a picture in the common form of the set.
fn decode(bytes: &[u8], source: &str, page: usize, work: &Work<'_>) -> Result<Decoded, Failure> {
    let options = work.options;
    let native = Reading {
        limits: options.limits,
        channels: options.channels,
        depth: options.depth,
        background: options.background,
        ..Reading::default()
    };
    let decode = |form: Option<Form>| {
        let reading = Reading {
            channels: form.map(|form| form.channels).or(native.channels),
            depth: form.map(|form| form.depth).or(native.depth),
            ..native
        };
        let decoded = reading.decode(bytes, source, page);
        decoded.map_err(|error| Reason::from(error.reason()))
    };
    // Every picture of these formats becomes RGB of 8 bits, so its own form need not be known.
    let is_common = matches!(
        kind_of_bytes(bytes),
        Kind::Picture("PNG" | "JPEG" | "GIF" | "WebP" | "BMP")
    );
    if is_common && work.common.get() == Some(Form::RGB8) {
        return Ok(decode(Some(Form::RGB8))?);
    }
    let decoded = decode(None)?;
    let mut found = Form::of(&decoded.image);
    if options.channels.is_none() && decoded.has_alpha {
        found.channels -= 1;
    }
    let form = work.common.add(found, source)?;
    Ok(match form == Form::of(&decoded.image) {
        true => decoded,
        false => decode(Some(form))?,
    })
}
