//! PNG out: as bytes, and as a file that is either whole or not there.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use crate::{ImagingError, Result, Rgb8, rgb8::check_length};

/// The picture as an 8-bit RGB PNG file in memory.
///
/// # Errors
/// - the fields of `image` contradict each other
pub fn encode_png(image: &Rgb8) -> Result<Vec<u8>> {
    let (width, height) = (image.width, image.height);
    check_length("encode_png", width, height, image.pixels.len())?;
    let fail = |reason: String| ImagingError::Encode {
        width,
        height,
        reason,
    };
    let (w, h) = u32::try_from(width)
        .and_then(|w| Ok((w, u32::try_from(height)?)))
        .map_err(|_| fail("a side of a PNG has at most 4294967295 pixels".to_owned()))?;
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&image.pixels, w, h, ExtendedColorType::Rgb8)
        .map_err(|e| fail(e.to_string()))?;
    Ok(bytes)
}

/// Writes the picture to `path` as PNG, replacing a file that is there.
///
/// It is written aside in the same folder, synchronised and renamed: a reader, a crash or a full disk never leaves half a picture.
///
/// # Errors
/// - the folder is missing or not writable, or the disk is full (the message names `path`; nothing is left behind)
/// - the fields of `image` contradict each other
pub fn write_png(path: &Path, image: &Rgb8) -> Result<()> {
    let bytes = encode_png(image)?;
    replace(path, &bytes).map_err(|source| ImagingError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Puts `bytes` at `path` in one step.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = aside(path)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)
        .and_then(|file| fill(file, bytes))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&aside);
        return written;
    }
    // Not every file system can synchronise a folder; the picture itself is safe by now.
    if let Some(folder) = aside.parent() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Writes and synchronises.
fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name next to `path` that no other writer of this or another process uses.
fn aside(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    hidden.push(format!(".{}-{n}.tmp", process::id()));
    // A bare file name has the empty parent, which stands for the current folder.
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(folder.join(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, decode_bytes, decode_file};

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
    fn a_place_that_cannot_be_written_is_named_and_left_clean() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-folder/a.png");
        let message = write_png(&missing, &picture()).unwrap_err().to_string();
        assert!(message.contains("no-such-folder/a.png"), "{message}");

        // A folder in the place of the file: the rename fails after the data were written.
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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = fill(full, b"picture").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
