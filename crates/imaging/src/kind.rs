//! Recognises file formats by their first bytes.

use std::path::Path;

use crate::tiff;

/// Number of bytes that [`kind_of_bytes`] needs.
pub const START: usize = 512;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A picture in a supported format: `PNG`, `JPEG`, `GIF`, `WebP`, `BMP`, `TIFF`, `NPY` or `NPZ`.
    Picture(&'static str),
    /// A picture in an unsupported format, or a video: `HEIC`, `AVIF`, `camera raw`, `video (MP4)`, ..
    Unread(&'static str),
    /// Not a known format.
    Other,
}

/// Extensions of picture formats in lower case, supported or not.
const ENDINGS: [&str; 64] = [
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "png", "apng", "gif", "webp",
    "bmp", "dib", "tif", "tiff", "heic", "heif", "heics", "heifs", "hif", "avif", "avifs", "avci",
    "jxl", "jp2", "j2k", "j2c", "jpf", "jpx", "jpm", "jxr", "wdp", "psd", "psb", "ico", "cur",
    "svg", "tga", "pcx", "ppm", "pgm", "pbm", "pnm", "pam", "exr", "hdr", "qoi", "dds", "raw",
    "dng", "cr2", "cr3", "nef", "nrw", "arw", "srf", "raf", "orf", "rw2", "pef", "xcf", "npy",
    "npz",
];

/// Whether the file has the extension of a picture format, supported or not.
#[must_use]
pub fn is_named_like_a_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
}

/// A path without the extension of a picture format: `a/b.jpeg` becomes `a/b`, `a/v1.2` is unchanged.
#[must_use]
pub fn without_ending(id: &str) -> &str {
    match id.rsplit_once('.') {
        Some((rest, _)) if is_named_like_a_picture(Path::new(id)) => rest,
        _ => id,
    }
}

/// The kind of a file with these first bytes, of which [`START`] are enough.
#[must_use]
pub fn kind_of_bytes(bytes: &[u8]) -> Kind {
    let start = &bytes[..bytes.len().min(START)];
    match readable(start) {
        Some((_, name)) => Kind::Picture(name),
        None => unread(start).map_or(Kind::Other, Kind::Unread),
    }
}

/// What decodes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The crate `image`, or `gif`.
    Image(image::ImageFormat),
    /// Module `tiff`.
    Tiff,
    /// Module `npy`: one array.
    Npy,
    /// Module `npy`: an archive of arrays.
    Npz,
}

/// The decoder and format name for a file with these first bytes.
pub(crate) fn readable(start: &[u8]) -> Option<(Format, &'static str)> {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    let at = |from: usize, bytes: &[u8]| start.get(from..).is_some_and(|s| s.starts_with(bytes));
    Some(match start {
        _ if at(0, b"\x89PNG\r\n\x1a\n") => (Format::Image(Png), "PNG"),
        _ if at(0, b"\xFF\xD8\xFF") => (Format::Image(Jpeg), "JPEG"),
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => (Format::Image(Gif), "GIF"),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => (Format::Image(WebP), "WebP"),
        // Two letters are not enough, because a text may begin with them. The length of the second header is a small number.
        _ if at(0, b"BM") && start.get(15..18) == Some(&[0; 3]) && start[14] >= 12 => {
            (Format::Image(Bmp), "BMP")
        }
        _ if at(0, b"\x93NUMPY") => (Format::Npy, "NPY"),
        _ if begins_with_array(start) => (Format::Npz, "NPZ"),
        _ if is_tiff(start) && !tiff::is_camera_raw(start) => (Format::Tiff, "TIFF"),
        _ => return None,
    })
}

fn is_tiff(start: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]
        .iter()
        .any(|magic| start.starts_with(*magic))
}

/// Whether a zip archive begins with an array.
fn begins_with_array(start: &[u8]) -> bool {
    let name = || {
        let len = u16::from_le_bytes(start.get(26..28)?.try_into().ok()?);
        start.get(30..30 + usize::from(len))
    };
    start.starts_with(b"PK\x03\x04") && name().is_some_and(|name| name.ends_with(b".npy"))
}

/// The name of an unsupported format.
fn unread(start: &[u8]) -> Option<&'static str> {
    let at = |from: usize, bytes: &[u8]| start.get(from..).is_some_and(|s| s.starts_with(bytes));
    let simple = [
        (&b"\xFF\x0A"[..], "JPEG XL"),
        (b"\0\0\0\x0CJXL ", "JPEG XL"),
        (b"\0\0\0\x0CjP  ", "JPEG 2000"),
        (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
        (b"II\xBC\x01", "JPEG XR"),
        (b"8BPS", "Photoshop"),
        (b"gimp xcf", "GIMP"),
        (b"\x76\x2F\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"farbfeld", "farbfeld"),
        (b"\x8AMNG", "MNG"),
        (b"\x8BJNG", "JNG"),
        (b"FUJIFILMCCD-RAW", "camera raw"),
        (b"IIRO", "camera raw"),
        (b"IIRS", "camera raw"),
        (b"IIU\0", "camera raw"),
        (b"FOVb", "camera raw"),
        (b"\0MRM", "camera raw"),
        (b"SIMPLE  =", "FITS"),
        (b"<svg", "SVG"),
        (b"FLV\x01", "video (FLV)"),
        (b"\0\0\x01\xBA", "video (MPEG)"),
        (b"\0\0\x01\xB3", "video (MPEG)"),
    ];
    if let Some((_, name)) = simple.iter().find(|(magic, _)| at(0, magic)) {
        return Some(name);
    }
    match start {
        _ if is_tiff(start) => Some("camera raw"),
        _ if at(4, b"ftyp") => brand(start),
        _ if at(4, b"moov") || at(4, b"mdat") || at(4, b"wide") => Some("video (QuickTime)"),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => Some("video (AVI)"),
        _ if at(0, b"\x1A\x45\xDF\xA3") => Some(match start.windows(4).any(|w| w == b"webm") {
            true => "video (WebM)",
            false => "video (Matroska)",
        }),
        [0, 0, 1 | 2, 0, n, 0, ..] if *n > 0 => Some("icon"),
        [b'P', b'1'..=b'7', space, next, ..] if space.is_ascii_whitespace() => {
            (next.is_ascii_digit() || matches!(next, b'#' | b'W')).then_some("PNM")
        }
        _ if at(0, b"<?xml") && start.windows(4).any(|w| w == b"<svg") => Some("SVG"),
        _ => None,
    }
}

/// The format of an ISO container.
fn brand(start: &[u8]) -> Option<&'static str> {
    let length = u32::from_be_bytes(start.get(..4)?.try_into().ok()?) as usize;
    let brands = start.get(8..length.min(start.len()))?;
    let has = |names: &[&[u8; 4]]| {
        let mut all = brands.as_chunks::<4>().0.iter();
        all.any(|brand| names.contains(&brand))
    };
    match () {
        () if has(&[b"avif", b"avis"]) => Some("AVIF"),
        () if has(&[
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
        ]) =>
        {
            Some("HEIC")
        }
        () if has(&[b"crx "]) => Some("camera raw"),
        () if has(&[b"M4A ", b"M4B ", b"M4P "]) => None,
        () if has(&[b"qt  "]) => Some("video (QuickTime)"),
        () => Some("video (MP4)"),
    }
}

/// Describes, for errors, what was found instead of a picture, and what to do.
pub(crate) fn describe(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    match kind_of_bytes(bytes) {
        _ if bytes.is_empty() => "no bytes (an empty file)".to_owned(),
        Kind::Picture(name) => name.to_owned(),
        Kind::Unread(name) => format!("{name}, which is not read; convert it to PNG, TIFF or JPEG"),
        Kind::Other => format!(
            "bytes that start \"{}\"",
            bytes[..bytes.len().min(SHOWN)].escape_ascii()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
        let avif = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf";
        let zip = |name: &str| {
            let header = [&b"PK\x03\x04"[..], &[0; 22], &[name.len() as u8, 0, 0, 0]].concat();
            [&header, name.as_bytes()].concat()
        };
        let bmp = [&b"BM"[..], &[0; 12], &[40, 0, 0, 0]].concat();
        for (bytes, kind) in [
            (&b"\xFF\xD8\xFF\xE0"[..], Kind::Picture("JPEG")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Kind::Picture("WebP")),
            (&bmp, Kind::Picture("BMP")),
            (heic, Kind::Unread("HEIC")),
            (avif, Kind::Unread("AVIF")),
            (b"II*\0\x08\0\0\0", Kind::Picture("TIFF")),
            (b"MM\0+\0\x08\0\0", Kind::Picture("TIFF")),
            (b"II*\0\x10\0\0\0CR\x02\0", Kind::Unread("camera raw")),
            (
                b"II*\0\x08\0\0\0\x01\0\xFE\0\x04\0\x01\0\0\0\x01\0\0\0",
                Kind::Unread("camera raw"),
            ),
            (b"\x93NUMPY\x01\0", Kind::Picture("NPY")),
            (&zip("arr_0.npy"), Kind::Picture("NPZ")),
            (&zip("arr_0.txt"), Kind::Other),
            (b"\x1A\x45\xDF\xA3\0\0webm", Kind::Unread("video (WebM)")),
            (b"RIFF\x10\0\0\0AVI LIST", Kind::Unread("video (AVI)")),
            (b"P6\n3 2\n", Kind::Unread("PNM")),
            (b"P7\nWIDTH 3", Kind::Unread("PNM")),
            (b"\0\0\x01\0\x02\0 ", Kind::Unread("icon")),
            (
                b"<?xml version=\"1.0\"?>\n<!-- x -->\n<svg>",
                Kind::Unread("SVG"),
            ),
            (
                b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
                Kind::Unread("video (MP4)"),
            ),
            (b"BMW and others, a list of names", Kind::Other),
            (b"P1 is a name", Kind::Other),
            (b"<!DOCTYPE html>", Kind::Other),
            (b"RIFF\x10\0\0\0WAVEfmt ", Kind::Other),
            (b"{\"size\":256}", Kind::Other),
            (b"", Kind::Other),
        ] {
            assert_eq!(kind_of_bytes(bytes), kind, "{}", bytes.escape_ascii());
        }
        for n in 0..avif.len() {
            assert!(!matches!(kind_of_bytes(&avif[..n]), Kind::Picture(_)));
        }
    }

    #[test]
    fn endings_of_all_kinds_of_pictures_are_known() {
        for name in ["a.jfif", "a.JPE", "b.tif", "c.HEIC", "d.x.webp", "e.NEF"] {
            assert!(is_named_like_a_picture(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "Thumbs.db", "png", ".png", "index.jsonl", "a.mp4"] {
            assert!(!is_named_like_a_picture(Path::new(name)), "{name}");
        }
        let names = ["a.b/c.JPEG", "a.b/c", "v1.2", ".png"].map(without_ending);
        assert_eq!(names, ["a.b/c", "a.b/c", "v1.2", ".png"]);
    }
}
