//! Limits for the size of pictures.

use std::fmt;

use image::error::LimitErrorKind;

use crate::{ImagingError, Result};

const SIDE: &str = "SDFT_IMAGE_MAX_SIDE";
const MIB: &str = "SDFT_IMAGE_MAX_MIB";
const PER_BYTE: &str = "SDFT_IMAGE_MAX_PIXELS_PER_BYTE";

/// Pictures up to this many pixels may be in a file of any size, because decoding takes at most half a second.
const ALWAYS: u64 = 1 << 24;

/// Limits for the size of pictures, checked against the file's header before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest width and height in pixels.
    pub max_side: u32,
    /// Largest size in bytes, for the file and for the decoded pixels.
    pub max_bytes: u64,
    /// Largest number of pixels for each byte of the file, for pictures above 16 megapixels. A file of a few hundred bytes that claims 170
    /// megapixels takes seconds to decode and shows one colour. Photographs have fewer than 20, drawings on white up to 50.
    pub max_pixels_per_byte: u64,
}

impl Default for Limits {
    /// 32,768 pixels a side, 512 MiB (a photograph of 170 megapixels), and 100 pixels per byte.
    fn default() -> Self {
        Self {
            max_side: 32_768,
            max_bytes: 512 << 20,
            max_pixels_per_byte: 100,
        }
    }
}

impl Limits {
    /// The default limits, changed by the environment variables `SDFT_IMAGE_MAX_SIDE` (pixels), `SDFT_IMAGE_MAX_MIB` and
    /// `SDFT_IMAGE_MAX_PIXELS_PER_BYTE`. Errors about a picture that exceeds a limit name its variable.
    ///
    /// # Errors
    /// Fails if a variable is set and is not a whole number from 1.
    pub fn from_env() -> Result<Self> {
        Self::from_settings(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    fn from_settings(setting: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let usual = Self::default();
        let number = |name: &'static str, usual: u64, most: u64| match setting(name) {
            None => Ok(usual),
            Some(text) => match text.trim().parse() {
                Ok(n) if (1..=most).contains(&n) => Ok(n),
                _ => Err(ImagingError::Setting {
                    name,
                    most,
                    found: text,
                }),
            },
        };
        let side = number(SIDE, u64::from(usual.max_side), u64::from(u32::MAX))?;
        Ok(Self {
            max_side: u32::try_from(side).unwrap_or(u32::MAX),
            max_bytes: number(MIB, usual.max_bytes >> 20, 1 << 20)? << 20,
            max_pixels_per_byte: number(PER_BYTE, usual.max_pixels_per_byte, u64::MAX)?,
        })
    }

    /// Checks the size of a file.
    pub(crate) fn check_file(&self, bytes: u64, origin: &str) -> Result<()> {
        match bytes > self.max_bytes {
            true => Err(Self::exceeded(
                origin,
                format!("a file of {}", Bytes(bytes)),
                Bytes(self.max_bytes).to_string(),
                MIB,
            )),
            false => Ok(()),
        }
    }

    /// Checks the size of a picture in a file of `file` bytes.
    pub(crate) fn check_picture(
        &self,
        [width, height]: [u32; 2],
        per_pixel: u64,
        file: u64,
        origin: &str,
    ) -> Result<()> {
        let pixels = u64::from(width) * u64::from(height);
        let bytes = pixels.saturating_mul(per_pixel);
        let found = |what: String| format!("a picture of {width}x{height} ({what})");
        if width.max(height) > self.max_side {
            let limit = format!("{} pixels a side", self.max_side);
            return Err(Self::exceeded(
                origin,
                found(Bytes(bytes).to_string()),
                limit,
                SIDE,
            ));
        }
        if bytes > self.max_bytes {
            let limit = Bytes(self.max_bytes).to_string();
            return Err(Self::exceeded(
                origin,
                found(Bytes(bytes).to_string()),
                limit,
                MIB,
            ));
        }
        if pixels > ALWAYS && pixels / file.max(1) >= self.max_pixels_per_byte {
            let what = format!("{} pixels per byte of the file", pixels / file.max(1));
            let limit = format!("{} pixels per byte", self.max_pixels_per_byte);
            return Err(Self::exceeded(origin, found(what), limit, PER_BYTE));
        }
        Ok(())
    }

    /// The error for a picture that a decoder refuses because of these limits.
    pub(crate) fn refused(&self, origin: &str, error: &image::error::LimitError) -> ImagingError {
        let found = "the picture".to_owned();
        match error.kind() {
            LimitErrorKind::DimensionError => Self::exceeded(
                origin,
                found,
                format!("{} pixels a side", self.max_side),
                SIDE,
            ),
            _ => Self::exceeded(origin, found, Bytes(self.max_bytes).to_string(), MIB),
        }
    }

    fn exceeded(origin: &str, found: String, limit: String, setting: &'static str) -> ImagingError {
        ImagingError::TooLarge {
            origin: origin.to_owned(),
            found,
            limit,
            setting,
        }
    }
}

/// A number of bytes with a unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 10_000 => write!(f, "{n} bytes"),
            n if n < 10 << 20 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{} MiB", n >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_change_the_limits_and_invalid_ones_are_named() {
        let with = |name: &'static str, value: &'static str| {
            Limits::from_settings(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("X", "1").unwrap(), Limits::default());
        assert_eq!(with(SIDE, "70000").unwrap().max_side, 70_000);
        assert_eq!(with(MIB, " 2048 ").unwrap().max_bytes, 2 << 30);
        assert_eq!(with(PER_BYTE, "9").unwrap().max_pixels_per_byte, 9);
        for (name, value) in [
            (SIDE, "0"),
            (MIB, "1 GB"),
            (PER_BYTE, "-1"),
            (MIB, "99999999"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn each_limit_names_the_variable_that_raises_it() {
        let limits = Limits::default();
        let error = |size: [u32; 2], per_pixel: u64, file: u64| {
            let refused = limits.check_picture(size, per_pixel, file, "x.png");
            refused.map_err(|error| error.to_string())
        };
        assert!(error([4096, 4096], 3, 1).is_ok());
        assert!(error([5000, 4000], 3, 300_000).is_ok());
        for (refused, name) in [
            (error([40_000, 10], 3, 1000), SIDE),
            (error([30_000, 30_000], 3, 1 << 30), MIB),
            (error([13_000, 13_000], 3, 755), PER_BYTE),
            (
                limits.check_file(1 << 30, "x").map_err(|e| e.to_string()),
                MIB,
            ),
        ] {
            let text = refused.unwrap_err();
            assert!(text.contains(name) && text.contains("exceeds"), "{text}");
        }
    }
}
