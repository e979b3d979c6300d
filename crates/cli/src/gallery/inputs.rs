//! The images that others are made of, read ahead on a thread of their own.

use crate::{console, usage};
use anyhow::{Context, Result};
use sdft_data::{Listing, scan_images};
use sdft_imaging::{
    Conversions, Limits, Rgb8, center_crop, decode_described, read_image_file, without_ending,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Batches that wait at most.
const AHEAD: usize = 2;
/// Images that would have to be enlarged more than this are refused.
const LARGEST_ENLARGEMENT: usize = 4;

/// One image that another is made of.
pub(crate) struct Input {
    /// Its path inside the folder.
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    /// Its output's path inside the output folder.
    pub(crate) name: String,
    /// The number that its noise belongs to, made of `id`: the same regardless of the other inputs.
    pub(crate) number: u64,
    /// Why nothing can be made of it, if that is known already.
    pub(crate) problem: Option<String>,
}

/// An image as the model takes it.
pub(crate) struct Loaded {
    pub(crate) image: Rgb8,
    /// Of the file.
    pub(crate) sha256: String,
    /// What was done to it while it was read, as numbers of 0 and 1.
    pub(crate) conversions: Conversions,
}

/// The images of a folder, or a file. What else is in the folder is said.
///
/// # Errors
/// A path that is missing or neither a file nor a folder, a folder without images.
pub(crate) fn list(input: &Path) -> Result<Vec<Input>> {
    let wrong = |what: &str| usage(format!("--input {}: {what}", input.display()));
    let found = match std::fs::metadata(input) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong("no such file or folder"));
        }
        Err(error) => return Err(error).with_context(|| input.display().to_string()),
    };
    let (files, unreadable) = if found.is_dir() {
        let listing = scan_images(input)?;
        if let Some(text) = listing.passed_over() {
            console::note(&format!("{}: passed over: {text}", input.display()));
        }
        let Listing {
            images, unreadable, ..
        } = listing;
        (images, unreadable)
    } else if found.is_file() {
        let name = input.file_name().unwrap_or_default().to_string_lossy();
        (vec![(name.into_owned(), input.to_owned())], Vec::new())
    } else {
        let kind = sdft_files::kind_of(found.file_type());
        return Err(wrong(&format!(
            "expected an image or a folder of images, found {kind}"
        )));
    };
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut all = Vec::with_capacity(files.len());
    for (id, path) in files {
        let name = format!("{}.png", without_ending(&id));
        let problem = taken
            .insert(name.clone(), id.clone())
            .map(|other| format!("its output {name} would be that of {other}"));
        let number = number(&id);
        all.push(Input {
            id,
            path,
            name,
            number,
            problem,
        });
    }
    all.extend(unreadable.into_iter().map(|entry| Input {
        path: input.join(&entry.file),
        name: String::new(),
        number: 0,
        problem: Some(entry.reason),
        id: entry.file,
    }));
    Ok(all)
}

/// 64 bits of a name (FNV-1a).
fn number(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Reads one image and brings it to `side` pixels.
///
/// # Errors
/// A file that cannot be read, a picture that is too small, in words.
pub(crate) fn load(input: &Input, side: usize) -> Result<Loaded, String> {
    let limits = Limits::from_env().map_err(|e| e.to_string())?;
    // The list of failures puts the name before the reason.
    let bytes = read_image_file(&input.path, &limits).map_err(|e| e.reason())?;
    let decoded = decode_described(&bytes, &input.id, &limits).map_err(|e| e.reason())?;
    let (picture, conversions) = (&decoded.image, decoded.conversions());
    let short = picture.width.min(picture.height);
    let least = side.div_ceil(LARGEST_ENLARGEMENT);
    if short < least {
        return Err(format!(
            "{}x{} is too small for a model of {side}x{side}, expected {least} pixels or more on the short side",
            picture.width, picture.height
        ));
    }
    Ok(Loaded {
        image: center_crop(picture, side),
        sha256: sdft_checkpoint::sha256_bytes(&bytes),
        conversions,
    })
}

/// A batch: places in the list, and what was read.
type Batch = Vec<(usize, Result<Loaded, String>)>;

/// Hands batches of the list's images to `each`, reading the next ones meanwhile; ends early where `each` returns `false`, and returns that.
///
/// What was done to images while they were read is said at the end.
///
/// # Errors
/// Those of `each`.
pub(crate) fn load_ahead<T: Sync>(
    list: &[(&Input, T)],
    side: usize,
    batch: usize,
    mut each: impl FnMut(Batch) -> Result<bool>,
) -> Result<bool> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Batch>(AHEAD);
        scope.spawn(move || {
            for (first, part) in list.chunks(batch).enumerate() {
                let numbered = part.iter().enumerate();
                let read = numbered.map(|(i, (input, _))| (first * batch + i, load(input, side)));
                // Nobody listens any more: the run has ended.
                if sender.send(read.collect()).is_err() {
                    return;
                }
            }
        });
        let mut conversions = Conversions::default();
        let mut ended = true;
        // The receiver goes with this loop, and with it the thread.
        for batch in receiver {
            let read = batch.iter().filter_map(|(_, read)| read.as_ref().ok());
            read.for_each(|loaded| conversions += loaded.conversions);
            if !each(batch)? {
                ended = false;
                break;
            }
        }
        for note in conversions.notes() {
            console::note(&note);
        }
        Ok(ended)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, side: usize) {
        sdft_imaging::write_png(path, &Rgb8::filled(side, side, [9, 8, 7])).unwrap();
    }

    #[test]
    fn names_become_png_and_collisions_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["a.jpg", "a.png", "sub/b.webp", "v1.2"] {
            write(&dir.path().join(name), 8);
        }
        let all = list(dir.path()).unwrap();
        let names: Vec<&str> = all.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["a.png", "a.png", "sub/b.png", "v1.2.png"]);
        let problems: Vec<bool> = all.iter().map(|i| i.problem.is_some()).collect();
        assert_eq!(problems, [false, true, false, false]);
        assert!(all[0].number != all[1].number);
        let one = list(&dir.path().join("a.jpg")).unwrap();
        assert_eq!((one.len(), one[0].number), (1, all[0].number));
        assert!(list(&dir.path().join("none")).is_err());
    }

    #[test]
    fn images_come_in_order_and_small_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, side) in [("a.png", 32), ("b.png", 3), ("c.png", 16)] {
            write(&dir.path().join(name), side);
        }
        std::fs::write(dir.path().join("d.png"), b"\x89PNG\r\n\x1a\nno picture").unwrap();
        std::fs::write(dir.path().join("e.heic"), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
        let all = list(dir.path()).unwrap();
        let problem = all[4].problem.as_ref().unwrap();
        assert!(
            problem.contains("found HEIC") && !problem.contains("e.heic"),
            "{problem}"
        );
        let pending: Vec<(&Input, ())> = all[..4].iter().map(|i| (i, ())).collect();
        let mut seen = Vec::new();
        let ended = load_ahead(&pending, 16, 3, |batch| {
            seen.extend(
                batch
                    .into_iter()
                    .map(|(k, l)| (k, l.map(|l| l.image.width))),
            );
            Ok(true)
        });
        assert!(ended.unwrap());
        assert_eq!(seen[0], (0, Ok(16)));
        assert!(seen[1].1.as_ref().unwrap_err().contains("3x3 is too small"));
        assert_eq!(seen[2], (2, Ok(16)));
        let broken = seen[3].1.as_ref().unwrap_err();
        assert!(broken.starts_with("broken PNG file"), "{broken}");
        let mut batches = 0;
        let ended = load_ahead(&pending, 16, 1, |_| {
            batches += 1;
            Ok(batches < 2)
        });
        assert!(!ended.unwrap() && batches == 2);
    }
}
