//! Reads the images of a folder, with their masks.

use std::path::Path;

use sdft_imaging::{
    Decoded, Depth, Fit, Fitting, Image, ImageSpec, ImagingError, Limits, Reading, Samples, fit,
    mask_like, resize_to_cover,
};

use crate::{DataError, FolderOptions, Item, Pages, Place, Result, masks::Masks};

type Decoding<T> = std::result::Result<T, ImagingError>;

/// How the images of a folder are read and fitted.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    reading: Reading,
    pages: Pages,
    size: [usize; 2],
    fit: Fit,
}

impl Reader {
    pub(crate) fn new(options: &FolderOptions) -> Self {
        Self {
            reading: Reading {
                limits: options.limits,
                channels: options.channels,
                depth: options.depth,
                range: options.range,
                background: options.background,
                as_pillow: false,
            },
            pages: options.pages,
            size: options.size,
            fit: options.fit,
        }
    }

    /// The reader of images that all have these channels and depth.
    pub(crate) fn of_form(&self, channels: usize, depth: Depth) -> Self {
        let mut reader = self.clone();
        reader.reading.channels = Some(channels);
        reader.reading.depth = Some(depth);
        reader
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.reading.limits
    }

    /// Whether images have a form of their own because none was asked for.
    pub(crate) fn is_open(&self) -> bool {
        self.reading.channels.is_none() || self.reading.depth.is_none()
    }

    /// Number of images in a file.
    ///
    /// # Errors
    /// Fails if the format is unknown or the file is damaged.
    pub(crate) fn count(&self, bytes: &[u8], origin: &str) -> Decoding<usize> {
        match self.pages {
            Pages::Images => self.reading.pages(bytes, origin),
            Pages::Channels | Pages::First => Ok(1),
        }
    }

    /// Decodes page `page` of a file, or all of its pages as the channels of one image.
    ///
    /// # Errors
    /// Fails for the same reasons as [`Reading::decode`], or if the pages do not make an image together.
    pub(crate) fn decode(&self, bytes: &[u8], origin: &str, page: usize) -> Decoding<Decoded> {
        let pages = match self.pages {
            Pages::Channels => self.reading.pages(bytes, origin)?,
            _ => 1,
        };
        if pages > 1 {
            return self.joined(bytes, origin, pages);
        }
        let decoded = self.reading.decode(bytes, origin, page)?;
        let mut known = self.reading;
        if known.channels.is_none() && decoded.has_alpha {
            // Alpha is kept only if it is asked for.
            known.channels = Some(decoded.channels - 1);
        }
        if known.depth.is_none() && decoded.image.depth() == Depth::F32 {
            // Floats are checked against their range only if they are asked for.
            known.depth = Some(Depth::F32);
        }
        match known == self.reading {
            true => Ok(decoded),
            false => known.decode(bytes, origin, page),
        }
    }

    /// All pages of a file as the channels of one image.
    fn joined(&self, bytes: &[u8], origin: &str, pages: usize) -> Decoding<Decoded> {
        let refuse = |format, reason| ImagingError::Broken {
            origin: origin.to_owned(),
            format,
            reason,
        };
        let native = Self {
            reading: Reading {
                channels: None,
                ..self.reading
            },
            pages: Pages::Images,
            ..self.clone()
        };
        let mut whole = native.decode(bytes, origin, 0)?;
        let mut planes = Vec::with_capacity(pages);
        for page in 1..pages {
            let next = native.decode(bytes, origin, page)?;
            let form = |image: &Image| [image.width, image.height, image.channels];
            if form(&next.image) != form(&whole.image)
                || next.image.depth() != whole.image.depth()
                || next.range != whole.range
            {
                let text = format!(
                    "page {} has another form than the first, so they cannot be the channels of one image (data.pages)",
                    page + 1
                );
                return Err(refuse(whole.format, text));
            }
            // The limits hold for all pages together.
            let total = (planes.len() + 2) * next.image.samples.len() * next.image.depth().bytes();
            if total as u64 > self.reading.limits.max_bytes {
                let text = format!("its {pages} pages are too large together ({total} bytes)");
                return Err(refuse(whole.format, text));
            }
            whole.clamped += next.clamped;
            planes.push(next.image);
        }
        planes.insert(0, whole.image);
        let image = interleaved(&planes);
        if self.reading.channels.is_some_and(|n| n != image.channels) {
            let text = format!(
                "its {pages} pages have {} channels together, expected {} (data.channels)",
                image.channels,
                self.reading.channels.unwrap_or_default()
            );
            return Err(refuse(whole.format, text));
        }
        whole.channels = image.channels;
        whole.grey = false;
        whole.image = image;
        Ok(whole)
    }

    /// The form of a decoded image at the size of the set.
    pub(crate) fn form(&self, decoded: &Decoded) -> ImageSpec {
        let [height, width] = self.size;
        let image = &decoded.image;
        ImageSpec {
            range: decoded.range,
            ..ImageSpec::new(image.channels, image.depth(), width, height)
        }
    }

    fn fitting(&self, spec: &ImageSpec, place: Place) -> Fitting {
        Fitting {
            place: [place.x, place.y],
            background: self.reading.background,
            ..Fitting::new(*spec, self.fit)
        }
    }

    /// An image of the set, with its mask, in the size of `spec`.
    ///
    /// # Errors
    /// Fails if the mask has another shape than its image.
    pub(crate) fn fitted(&self, raw: &Item, spec: &ImageSpec, place: Place) -> Decoding<Item> {
        let fitting = self.fitting(spec, place);
        let fitted = fit(&raw.image, &fitting);
        // Bicubic filters overshoot at edges.
        let image = clamped(fitted.image, spec);
        let mask = match &raw.mask {
            Some(mask) => {
                let size = [raw.image.height, raw.image.width];
                Some(mask_like(mask, size, &fitting)?)
            }
            None => fitted.mask,
        };
        Ok(Item { image, mask })
    }

    /// What is cached of an image: the fitted one, or for random crops all that may be cropped.
    ///
    /// # Errors
    /// Fails if the mask has another shape than its image.
    pub(crate) fn cacheable(&self, raw: Item, spec: &ImageSpec) -> Decoding<Item> {
        if self.fit != Fit::RandomCrop {
            return self.fitted(&raw, spec, Place::CENTRE);
        }
        let size = [raw.image.height, raw.image.width];
        let image = resize_to_cover(&raw.image, self.size);
        let whole = ImageSpec {
            width: image.width,
            height: image.height,
            ..*spec
        };
        let mask = raw
            .mask
            .map(|mask| mask_like(&mask, size, &Fitting::new(whole, Fit::Resize)));
        Ok(Item {
            image,
            mask: mask.transpose()?,
        })
    }

    /// The image of the set from what [`cacheable`](Self::cacheable) returned.
    ///
    /// # Errors
    /// Never fails for such an item.
    pub(crate) fn cached(&self, kept: &Item, spec: &ImageSpec, place: Place) -> Decoding<Item> {
        match self.fit {
            Fit::RandomCrop => self.fitted(kept, spec, place),
            _ => Ok(kept.clone()),
        }
    }

    /// The mask of an image, as it is in its file.
    ///
    /// # Errors
    /// Fails if there is none, or it cannot be read; the error names it.
    pub(crate) fn mask(&self, masks: &Masks, id: &str, page: usize) -> Result<Image> {
        let path = masks.of(id)?;
        // What is transparent takes no part.
        let reading = Reading {
            channels: Some(1),
            depth: Some(Depth::U8),
            background: [0; 3],
            limits: self.reading.limits,
            ..Reading::default()
        };
        let bytes = sdft_imaging::read_image_file(&path, &reading.limits)?;
        let origin = path.display().to_string();
        let page = match self.pages {
            Pages::Images if reading.pages(&bytes, &origin)? > 1 => page,
            _ => 0,
        };
        Ok(reading.decode(&bytes, &origin, page)?.image)
    }

    /// Reads an image of the set, with its mask.
    ///
    /// # Errors
    /// Fails if the image or its mask cannot be read.
    pub(crate) fn load(
        &self,
        (path, id, page): (&Path, &str, usize),
        masks: Option<&Masks>,
    ) -> Result<Item> {
        let bytes = sdft_imaging::read_image_file(path, self.limits())?;
        let decoded = self.decode(&bytes, &path.display().to_string(), page)?;
        let mask = masks.map(|masks| self.mask(masks, id, page)).transpose()?;
        Ok(Item {
            image: decoded.image,
            mask,
        })
    }
}

/// Images of the same form as one with all their channels.
fn interleaved(planes: &[Image]) -> Image {
    fn join<T: Copy>(planes: &[&[T]], channels: usize) -> Vec<T> {
        let n = planes[0].len() / channels;
        let mut out = Vec::with_capacity(n * channels * planes.len());
        for i in 0..n {
            for plane in planes {
                out.extend_from_slice(&plane[channels * i..][..channels]);
            }
        }
        out
    }
    let first = &planes[0];
    macro_rules! joined {
        ($kind:ident) => {{
            let of = |image: &'_ Image| match &image.samples {
                Samples::$kind(values) => values.clone(),
                _ => Vec::new(),
            };
            let values: Vec<_> = planes.iter().map(of).collect();
            let values: Vec<_> = values.iter().map(Vec::as_slice).collect();
            Samples::$kind(join(&values, first.channels))
        }};
    }
    let samples = match first.samples {
        Samples::U8(_) => joined!(U8),
        Samples::U16(_) => joined!(U16),
        Samples::F32(_) => joined!(F32),
    };
    Image {
        channels: first.channels * planes.len(),
        samples,
        ..*first
    }
}

/// Clamps the samples of an image to the range of `spec`.
pub(crate) fn clamped(mut image: Image, spec: &ImageSpec) -> Image {
    let [low, high] = spec.range;
    if spec.depth != Depth::F32 && spec.range == spec.depth.full_range() {
        return image;
    }
    match &mut image.samples {
        Samples::U8(values) => {
            let (low, high) = (low as u8, high as u8);
            values.iter_mut().for_each(|v| *v = (*v).clamp(low, high));
        }
        Samples::U16(values) => {
            let (low, high) = (low as u16, high as u16);
            values.iter_mut().for_each(|v| *v = (*v).clamp(low, high));
        }
        Samples::F32(values) => {
            let (low, high) = (low as f32, high as f32);
            values.iter_mut().for_each(|v| *v = v.clamp(low, high));
        }
    }
    image
}

/// Checks the options of a set.
///
/// # Errors
/// Fails if a side or the number of channels is 0, or the range is not two numbers in ascending order that the samples can have.
pub(crate) fn check_options(options: &FolderOptions) -> Result<()> {
    let refuse = |option, expected: &str, found: String| {
        Err(DataError::Option {
            option,
            expected: expected.to_owned(),
            found,
        })
    };
    if options.size.contains(&0) {
        let [height, width] = options.size;
        return refuse("image size", "at least 1", format!("{height}x{width}"));
    }
    if options.channels == Some(0) {
        return refuse("channels", "at least 1", "0".to_owned());
    }
    match (options.range, options.depth) {
        (Some(range), depth) => check_range(range, depth.unwrap_or(Depth::F32)),
        (None, _) => Ok(()),
    }
}

/// Checks a range that was given.
///
/// # Errors
/// Fails if it is not two numbers in ascending order that samples of this depth can have.
pub(crate) fn check_range([low, high]: [f64; 2], depth: Depth) -> Result<()> {
    let refuse = |expected: String| {
        Err(DataError::Option {
            option: "range",
            expected,
            found: format!("[{low}, {high}]"),
        })
    };
    let full = match depth {
        Depth::F32 => [f64::from(f32::MIN), f64::from(f32::MAX)],
        depth => depth.full_range(),
    };
    if !(low.is_finite() && high.is_finite() && low < high) {
        return refuse("two numbers, the lower one first".to_owned());
    }
    if low < full[0] || high > full[1] {
        let larger = match depth {
            Depth::U8 => "16 or ",
            _ => "",
        };
        return refuse(format!(
            "values from {} to {}, because the depth is {depth}; data.depth = {larger}\"float\" takes others",
            full[0], full[1]
        ));
    }
    Ok(())
}
