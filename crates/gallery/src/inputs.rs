//! Input images, read ahead on a separate thread.

use crate::changes::Changes;
use crate::error::{Error, Result};
use sdft_files::sha256_bytes;
use sdft_imaging::{
    Fit, Fitting, Image, ImageSpec, ImagingError, Limits, Reading, Samples, fit, read_image_file,
    without_ending,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Largest number of batches that wait.
const AHEAD: usize = 2;
/// Images that would have to be enlarged more than this are refused.
const LARGEST_ENLARGEMENT: usize = 4;

/// An input image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its path inside the input folder.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Its output's path inside the output folder.
    pub name: String,
    /// The number of its noise, a hash of `id`: the same regardless of the other inputs.
    pub number: u64,
    /// Why the input cannot be used, if known in advance.
    pub problem: Option<String>,
}

/// An image in the form of the model.
pub struct Loaded {
    /// The picture.
    pub image: Image,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What was changed in it.
    pub changes: Changes,
}

impl Input {
    /// The inputs with these names inside the folder `root`, and those that are known to be unreadable, with the reason. Outputs have the
    /// names of their inputs, with the extension `ending`.
    ///
    /// Two files whose outputs would have the same name are a problem of the second one.
    pub fn list(
        root: &Path,
        files: Vec<(String, PathBuf)>,
        unreadable: Vec<(String, String)>,
        ending: &str,
    ) -> Vec<Self> {
        let mut taken: HashMap<String, String> = HashMap::new();
        let mut all = Vec::with_capacity(files.len() + unreadable.len());
        for (id, path) in files {
            let name = format!("{}.{ending}", without_ending(&id));
            let problem = taken
                .insert(name.clone(), id.clone())
                .map(|other| format!("its output {name} is already that of {other}"));
            let number = number(&id);
            all.push(Self {
                id,
                path,
                name,
                number,
                problem,
            });
        }
        all.extend(unreadable.into_iter().map(|(id, reason)| Self {
            path: root.join(&id),
            name: String::new(),
            number: 0,
            problem: Some(reason),
            id,
        }));
        all
    }

    /// Reads the image, the first page of several, and brings it to the form of the model's images: by a centre crop to its size, and in
    /// its channels and depth. Values outside the range of the model's images are clamped, unless the range is that of the depth.
    ///
    /// # Errors
    /// The file cannot be read, does not have channels that can be converted, or is too small, or floats are outside 0 to 1.
    pub fn load(&self, spec: &ImageSpec) -> Result<Loaded> {
        let limits = Limits::from_env()?;
        // The list of failures shows the name before the reason.
        let wrong = |e: ImagingError| Error::Input(e.reason());
        let bytes = read_image_file(&self.path, &limits).map_err(wrong)?;
        let reading = Reading {
            limits,
            ..reading(spec)
        };
        let decoded = reading.decode(&bytes, &self.id, 0).map_err(wrong)?;
        let changes = Changes::of(&decoded, spec);
        let mut picture = decoded.image;
        let (width, height) = (picture.width, picture.height);
        let least = [spec.height, spec.width].map(|side| side.div_ceil(LARGEST_ENLARGEMENT));
        if height < least[0] || width < least[1] {
            let expected = match spec.width == spec.height {
                true => format!("{} pixels or more on the short side", least[0]),
                false => format!("{}x{} or more", least[0], least[1]),
            };
            return Err(Error::Input(format!(
                "{height}x{width} is too small for a model of {}x{}, expected {expected}",
                spec.height, spec.width
            )));
        }
        map_range(&mut picture, decoded.range, spec.range);
        let fitted = fit(&picture, &Fitting::new(*spec, Fit::Crop));
        Ok(Loaded {
            image: fitted.image,
            sha256: sha256_bytes(&bytes),
            changes,
        })
    }
}

/// How files are read into the form of a model's images. A range of its own is passed on; otherwise that of the file counts.
pub fn reading(spec: &ImageSpec) -> Reading {
    Reading {
        channels: Some(spec.channels),
        depth: Some(spec.depth),
        range: (spec.range != spec.depth.full_range()).then_some(spec.range),
        ..Reading::default()
    }
}

/// Floats of a file with a range of its own, mapped to the model's.
fn map_range(image: &mut Image, from: [f64; 2], to: [f64; 2]) {
    if let Samples::F32(values) = &mut image.samples
        && from != to
    {
        let scale = (to[1] - to[0]) / (from[1] - from[0]);
        for value in values {
            *value = ((f64::from(*value) - from[0]) * scale + to[0]) as f32;
        }
    }
}

/// 64 bits of a name (FNV-1a).
fn number(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A batch: indices into the list, and the images.
type Batch = Vec<(usize, Result<Loaded>)>;

/// Calls `each` with batches of the list's images, and reads the next ones meanwhile. Stops early where `each` returns `false`. Returns
/// whether it reached the end, and the changes of all images.
///
/// # Errors
/// Those of `each`.
pub(crate) fn load_ahead<T: Sync>(
    list: &[(&Input, T)],
    spec: &ImageSpec,
    batch: usize,
    mut each: impl FnMut(Batch) -> Result<bool>,
) -> Result<(bool, Changes)> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Batch>(AHEAD);
        scope.spawn(move || {
            for (first, part) in list.chunks(batch).enumerate() {
                let numbered = part.iter().enumerate();
                let read = numbered.map(|(i, (input, _))| (first * batch + i, input.load(spec)));
                // The receiver is gone when the run ends early.
                if sender.send(read.collect()).is_err() {
                    return;
                }
            }
        });
        let mut changes = Changes::default();
        // The loop drops the receiver, which ends the thread.
        for batch in receiver {
            let read = batch.iter().filter_map(|(_, read)| read.as_ref().ok());
            read.for_each(|loaded| changes += &loaded.changes);
            if !each(batch)? {
                return Ok((false, changes));
            }
        }
        Ok((true, changes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::Depth;

    fn write(path: &Path, side: usize) {
        let picture = sdft_imaging::Rgb8::filled(side, side, [9, 8, 7]);
        sdft_imaging::write_png(path, &picture).unwrap();
    }

    #[test]
    fn names_become_png_and_collisions_are_found() {
        let root = Path::new("in");
        let files = ["a.jpg", "a.png", "sub/b.webp", "v1.2"];
        let files: Vec<_> = files.map(|id| (id.to_owned(), root.join(id))).into();
        let all = Input::list(
            root,
            files,
            vec![("e.heic".into(), "found HEIC".into())],
            "png",
        );
        let names: Vec<&str> = all.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["a.png", "a.png", "sub/b.png", "v1.2.png", ""]);
        let problems: Vec<bool> = all.iter().map(|i| i.problem.is_some()).collect();
        assert_eq!(problems, [false, true, false, false, true]);
        assert!(all[0].number != all[1].number);
        let one = Input::list(
            root,
            vec![("a.jpg".into(), root.join("x"))],
            Vec::new(),
            "png",
        );
        assert_eq!((one.len(), one[0].number), (1, all[0].number));
    }

    #[test]
    fn images_come_in_order_and_small_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a.png", "b.png", "c.png", "d.png"];
        for (name, side) in names.iter().zip([32, 3, 16]) {
            write(&dir.path().join(name), side);
        }
        std::fs::write(dir.path().join("d.png"), b"\x89PNG\r\n\x1a\nno picture").unwrap();
        let files = names.map(|id| (id.to_owned(), dir.path().join(id)));
        let all = Input::list(dir.path(), files.into(), Vec::new(), "png");
        let pending: Vec<(&Input, ())> = all.iter().map(|i| (i, ())).collect();
        let mut seen = Vec::new();
        let read = load_ahead(&pending, &ImageSpec::rgb8(16, 16), 3, |batch| {
            let widths = batch.into_iter().map(|(k, loaded)| {
                let width = loaded.map(|l| l.image.width);
                (k, width.map_err(|error| error.to_string()))
            });
            seen.extend(widths);
            Ok(true)
        });
        assert!(read.unwrap().0);
        assert_eq!(seen[0], (0, Ok(16)));
        assert!(seen[1].1.as_ref().unwrap_err().contains("3x3 is too small"));
        assert_eq!(seen[2], (2, Ok(16)));
        let broken = seen[3].1.as_ref().unwrap_err();
        assert!(broken.starts_with("broken PNG file"), "{broken}");
        let mut batches = 0;
        let read = load_ahead(&pending, &ImageSpec::rgb8(16, 16), 1, |_| {
            batches += 1;
            Ok(batches < 2)
        });
        assert!(!read.unwrap().0 && batches == 2);
    }

    #[test]
    fn an_input_gets_the_size_channels_depth_and_range_of_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let (name, path) = ("a.tif".to_owned(), dir.path().join("a.tif"));
        // Floats with a range of their own.
        let scan = ImageSpec {
            range: [-1000.0, 3000.0],
            ..ImageSpec::new(1, Depth::F32, 32, 64)
        };
        let image = Image::new(32, 64, 1, Samples::F32(vec![1000.0; 32 * 64])).unwrap();
        std::fs::write(&path, scan.encode(&image).unwrap()).unwrap();
        let all = Input::list(dir.path(), vec![(name, path)], Vec::new(), "tif");
        let load = |spec: &ImageSpec| all[0].load(spec).map(|loaded| loaded.image);
        let of = |depth| ImageSpec::new(1, depth, 16, 24);
        for (spec, middle) in [
            (of(Depth::F32), Samples::F32(vec![0.5; 24 * 16])),
            (of(Depth::U8), Samples::U8(vec![128; 24 * 16])),
            (
                ImageSpec {
                    range: [0.0, 4095.0],
                    ..of(Depth::U16)
                },
                Samples::U16(vec![2047; 24 * 16]),
            ),
            (ImageSpec::rgb8(16, 24), Samples::U8(vec![128; 3 * 24 * 16])),
            // A model with a range takes the values of the file.
            (
                ImageSpec {
                    width: 16,
                    height: 24,
                    ..scan
                },
                Samples::F32(vec![1000.0; 24 * 16]),
            ),
        ] {
            let loaded = load(&spec).unwrap();
            assert_eq!((loaded.height, loaded.width), (24, 16));
            assert_eq!(loaded.samples, middle, "{spec}");
        }
        let large = load(&ImageSpec::new(1, Depth::F32, 512, 64));
        let error = large.unwrap_err().to_string();
        assert_eq!(
            error,
            "64x32 is too small for a model of 64x512, expected 16x128 or more"
        );
    }
}
