use crate::check::{Report, examine, list};
use crate::error::{DataError, Result};
use crate::source::ImageSource;
use sdft_imaging::{Limits, Rgb8, center_crop, decode_file};
use std::path::{Path, PathBuf};

/// Decoded images are kept in memory up to this many bytes in all; beyond, they are decoded again each time.
const CACHE_BYTES: usize = 2 << 30;

/// The images of a folder, cropped to one size.
#[derive(Debug)]
pub struct FolderSource {
    dir: PathBuf,
    size: usize,
    files: Vec<PathBuf>,
    /// All images, or none.
    cache: Option<Vec<Rgb8>>,
}

impl FolderSource {
    /// Checks every image of `dir` and takes those that can be read, centre-cropped to `size`.
    ///
    /// The report says what was left out. `strict` makes an unreadable image an error.
    ///
    /// # Errors
    /// No such folder; no images; none that can be read; any that cannot, if `strict`.
    pub fn open(dir: &Path, size: usize, strict: bool) -> Result<(Self, Report)> {
        let files = list(dir)?;
        let cached = files.len().saturating_mul(3 * size * size) <= CACHE_BYTES;
        let (report, kept) = examine(dir, size, &files, |_, image| cached.then_some(image));
        let first = |report: &Report| report.unreadable.first().map_or_else(String::new, |u| format!("{}: {}", u.file, u.reason));
        if strict && !report.unreadable.is_empty() {
            return Err(DataError::Unreadable {
                path: dir.to_owned(),
                count: report.unreadable.len(),
                n: report.files,
                first: first(&report),
            });
        }
        if kept.is_empty() {
            let problem = format!("none of the {} images can be read; the first: {}", report.files, first(&report));
            return Err(DataError::Folder { path: dir.to_owned(), problem });
        }
        let readable = kept.iter().map(|(i, _)| files[*i].clone()).collect();
        let cache = kept.into_iter().map(|(_, image)| image).collect();
        Ok((Self { dir: dir.to_owned(), size, files: readable, cache }, report))
    }
}

impl ImageSource for FolderSource {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn image(&self, index: usize) -> Result<Rgb8> {
        match &self.cache {
            Some(images) => Ok(images[index].clone()),
            None => Ok(center_crop(&decode_file(&self.dir.join(&self.files[index]), &Limits::default())?, self.size)),
        }
    }

    fn id(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_folder;
    use sdft_imaging::{encode_png, write_png};

    fn picture(width: usize, height: usize, seed: usize) -> Rgb8 {
        let pixels = (0..3 * width * height).map(|i| u8::try_from((i * 7 + seed * 31) % 251).unwrap()).collect();
        Rgb8::new(width, height, pixels).unwrap()
    }

    #[test]
    fn broken_images_are_listed_and_left_out_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        write_png(&dir.path().join("b/2.png"), &picture(40, 20, 2)).unwrap();
        write_png(&dir.path().join("a.PNG"), &picture(20, 20, 1)).unwrap();
        let whole = encode_png(&picture(20, 20, 3)).unwrap();
        std::fs::write(dir.path().join("cut.png"), &whole[..whole.len() / 2]).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not an image").unwrap();
        let (source, report) = FolderSource::open(dir.path(), 16, false).unwrap();
        assert_eq!((source.len(), report.files, report.readable), (2, 3, 2));
        assert_eq!([source.id(0), source.id(1)], ["a.PNG", "b/2.png"]);
        assert_eq!(report.unreadable[0].file, "cut.png");
        assert_eq!((report.odd_aspect, report.enlarged), (1, 0));
        assert_eq!((source.image(1).unwrap().width, source.image(1).unwrap().height), (16, 16));
        assert!(report.to_string().contains("left out: cut.png"), "{report}");
        let error = FolderSource::open(dir.path(), 16, true).unwrap_err().to_string();
        assert!(error.contains("1 of 3") && error.contains("cut.png"), "{error}");
    }

    #[test]
    fn doubles_are_found_by_bytes_and_by_pixels() {
        let dir = tempfile::tempdir().unwrap();
        write_png(&dir.path().join("one.png"), &picture(9, 9, 1)).unwrap();
        std::fs::copy(dir.path().join("one.png"), dir.path().join("two.png")).unwrap();
        write_png(&dir.path().join("three.png"), &picture(9, 9, 4)).unwrap();
        // The same picture with a trailing comment: other bytes, same pixels.
        let mut bytes = std::fs::read(dir.path().join("three.png")).unwrap();
        bytes.extend(b"comment");
        std::fs::write(dir.path().join("four.png"), bytes).unwrap();
        let report = check_folder(dir.path(), 8).unwrap();
        assert_eq!(report.same_bytes, [["one.png", "two.png"]]);
        assert_eq!(report.same_pixels, [["four.png", "three.png"]]);
    }

    #[test]
    fn folders_that_cannot_serve_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| FolderSource::open(path, 8, false).unwrap_err().to_string();
        assert!(message(&dir.path().join("nowhere")).contains("found nothing"));
        assert!(message(dir.path()).contains("no images: expected files ending in png"));
        std::fs::write(dir.path().join("x.png"), b"nothing").unwrap();
        assert!(message(&dir.path().join("x.png")).contains("found a file"));
        let error = message(dir.path());
        assert!(error.contains("none of the 1 images") && error.contains("x.png"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        write_png(&dir.path().join("a.png"), &picture(9, 9, 1)).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        assert!(check_folder(dir.path(), 8).unwrap().readable >= 1);
    }
}
