//! How picture files are read: which channels and depth, on which background.

use std::path::Path;

use crate::{
    Decoded, Depth, Limits, Result,
    decode::{count_pages, decode_page, read_image_file},
};

/// How picture files are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Largest sizes.
    pub limits: Limits,
    /// The channels of the picture; those of the file if `None`. Of colours, 1 is Pillow's mode `L`; of grey, 3 repeats it; 4 has alpha last,
    /// opaque if the file has none. Another number must be the file's own.
    pub channels: Option<usize>,
    /// The depth of the picture; that of the file if `None`. Without a range, 16 bits become 8 by their upper byte, and 8 become 16 by
    /// repeating it. Otherwise, and for floats, the range of the file becomes the range of the result.
    pub depth: Option<Depth>,
    /// The values that are black and white; those of the file or its depth if `None`. Samples outside a range that is given are clamped and
    /// counted. Without it, floats outside the file's own range, or 0 to 1, are an error if a depth is asked for.
    pub range: Option<[f64; 2]>,
    /// The colour under transparent pixels, where alpha is not kept.
    pub background: [u8; 3],
    /// Whether transparency is dropped, and orientation and colour profiles are ignored, as in `PIL.Image.open(..).convert("RGB")`.
    pub as_pillow: bool,
}

impl Default for Reading {
    /// The file's own channels and depth, on white.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            channels: None,
            depth: None,
            range: None,
            background: [255; 3],
            as_pillow: false,
        }
    }
}

impl Reading {
    /// 8-bit RGB on white.
    #[must_use]
    pub fn rgb8(limits: Limits) -> Self {
        Self {
            limits,
            channels: Some(3),
            depth: Some(Depth::U8),
            ..Self::default()
        }
    }

    /// Decodes page `page`, counted from 0, of a file in memory; `origin` names it in errors.
    ///
    /// # Errors
    /// Fails if the format is unknown, the data is damaged or truncated, the picture exceeds the limits, or it does not have the channels
    /// that were asked for.
    pub fn decode(&self, bytes: &[u8], origin: &str, page: usize) -> Result<Decoded> {
        decode_page(bytes, origin, page, self)
    }

    /// Decodes page `page` of a file.
    ///
    /// # Errors
    /// Fails for the same reasons as [`decode`](Self::decode), or if the file cannot be read or is not a regular file; the error names it.
    pub fn decode_file(&self, path: &Path, page: usize) -> Result<Decoded> {
        let bytes = read_image_file(path, &self.limits)?;
        self.decode(&bytes, &path.display().to_string(), page)
    }

    /// Number of pages of a file in memory; its pages are not decoded.
    ///
    /// # Errors
    /// Fails if the format is unknown or the file is damaged.
    pub fn pages(&self, bytes: &[u8], origin: &str) -> Result<usize> {
        count_pages(bytes, origin, self)
    }
}
