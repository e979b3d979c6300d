//! Writes PNG files atomically, optionally with a text in them.

use std::{io::Read as _, path::Path};

use image::ExtendedColorType;

use crate::{ImagingError, Result, Rgb8, encode::png, picture::check_length};

/// Encodes the picture as an 8-bit RGB PNG file.
///
/// # Errors
/// Fails if the fields of `image` do not match.
pub fn encode_png(image: &Rgb8) -> Result<Vec<u8>> {
    let (width, height) = (image.width, image.height);
    check_length("encode_png", [width, height, 3], image.pixels.len())?;
    png([width, height], ExtendedColorType::Rgb8, &image.pixels)
}

/// Writes the picture to `path` as PNG atomically, replacing an existing file.
///
/// # Errors
/// Fails if the folder does not exist or is not writable, the disk is full, or the fields of `image` do not match; the error names `path`,
/// and no partial file is left.
pub fn write_png(path: &Path, image: &Rgb8) -> Result<()> {
    let bytes = encode_png(image)?;
    sdft_files::write_atomic(path, &bytes).map_err(|source| ImagingError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Signature and header of a PNG file; other chunks follow.
const HEADER: usize = 8 + 25;

/// The text that marks a contact sheet.
const KEYWORD: &str = "Software";
const NOTE: &str = "sdft contact sheet";
/// Number of bytes that are searched for the text, which is before the pixels.
const BEGINNING: u64 = 1024;

/// Encodes a contact sheet as PNG, with a text by which [`is_sheet`] recognises it. Viewers do not show the text.
///
/// # Errors
/// Fails for the same reasons as [`encode_png`].
pub fn encode_sheet(image: &Rgb8) -> Result<Vec<u8>> {
    Ok(annotate_png(&encode_png(image)?, KEYWORD, NOTE))
}

/// Whether `path` is a contact sheet from [`encode_sheet`], which may be replaced.
#[must_use]
pub fn is_sheet(path: &Path) -> bool {
    let Ok(file) = sdft_files::open_regular(path) else {
        return false;
    };
    let mut beginning = Vec::new();
    let read = file.take(BEGINNING).read_to_end(&mut beginning);
    let is_link = path.is_symlink();
    !is_link && read.is_ok() && png_annotation(&beginning, KEYWORD).as_deref() == Some(NOTE)
}

/// Adds a text (a `tEXt` chunk) to a PNG file. Other data is returned unchanged.
fn annotate_png(png: &[u8], keyword: &str, text: &str) -> Vec<u8> {
    let Some((header, rest)) = png.split_at_checked(HEADER) else {
        return png.to_vec();
    };
    let content = [b"tEXt", keyword.as_bytes(), &[0], text.as_bytes()].concat();
    let length = u32::try_from(content.len() - 4).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(&content).to_be_bytes();
    [header, &length.to_be_bytes(), &content, &checksum, rest].concat()
}

/// The text that [`annotate_png`] added to a PNG file under a keyword, if any.
fn png_annotation(png: &[u8], keyword: &str) -> Option<String> {
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (chunk, after) = after.split_at_checked(length.checked_add(4)?)?;
        if let Some(text) = chunk.strip_prefix(b"tEXt")
            && let Some(text) = text.strip_prefix(keyword.as_bytes())
            && let Some(text) = text.strip_prefix(&[0])
        {
            return String::from_utf8(text.to_vec()).ok();
        }
        rest = after.get(4..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, decode_bytes, decode_file};
    use std::fs;

    fn picture() -> Rgb8 {
        Rgb8::new(5, 7, (0..105).collect()).unwrap()
    }

    #[test]
    fn a_png_gives_the_pixels_back() {
        let bytes = encode_png(&picture()).unwrap();
        assert_eq!(decode_bytes(&bytes, &Limits::default()).unwrap(), picture());
    }

    #[test]
    fn a_picture_that_contradicts_itself_is_refused() {
        let broken = Rgb8 {
            width: 6,
            ..picture()
        };
        assert!(matches!(
            encode_png(&broken),
            Err(ImagingError::Length { .. })
        ));
    }

    #[test]
    fn writing_replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, b"old").unwrap();
        write_png(&path, &picture()).unwrap();
        assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named_and_left_clean() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-folder/a.png");
        let message = write_png(&missing, &picture()).unwrap_err().to_string();
        assert!(message.contains("no-such-folder/a.png"), "{message}");

        // The path is a folder, so the rename fails after the data was written.
        let taken = folder.path().join("taken.png");
        fs::create_dir_all(taken.join("x")).unwrap();
        let message = write_png(&taken, &picture()).unwrap_err().to_string();
        assert!(message.contains("taken.png"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        assert!(matches!(
            write_png(Path::new("/"), &picture()),
            Err(ImagingError::Write { .. })
        ));
    }

    #[test]
    fn a_sheet_is_distinguished_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-grid.png");
        assert!(!is_sheet(&path));
        let sheet = encode_sheet(&picture()).unwrap();
        fs::write(&path, &sheet).unwrap();
        assert!(is_sheet(&path));
        assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture());
        for other in [encode_png(&picture()).unwrap(), sheet[..40].to_vec()] {
            fs::write(&path, other).unwrap();
            assert!(!is_sheet(&path));
        }
        assert!(!is_sheet(folder.path()));
    }

    #[test]
    fn a_text_is_found_again_and_changes_no_pixel() {
        let plain = encode_png(&picture()).unwrap();
        let noted = annotate_png(&plain, "Software", "a test");
        assert_eq!(decode_bytes(&noted, &Limits::default()).unwrap(), picture());
        assert_eq!(
            png_annotation(&noted, "Software").as_deref(),
            Some("a test")
        );
        assert_eq!(png_annotation(&noted, "Soft"), None);
        assert_eq!(png_annotation(&plain, "Software"), None);
        for cut in 0..noted.len() {
            // A prefix of any length does not cause a panic.
            let _ = png_annotation(&noted[..cut], "Other");
        }
        assert_eq!(annotate_png(b"GIF", "a", "b"), b"GIF");
    }
}
