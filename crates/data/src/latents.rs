//! Latents of images: computed once, kept on disk, drawn for every batch.

use std::{fs, io, path::Path, sync::Arc};

use sdft_files::{RecordKey, Records, record_key};
use sdft_imaging::{Image, ImageSpec};
use sdft_noise::Draw;

use crate::{DataError, ImageSource, Item, Place, Result, batches::shares};

/// What an autoencoder says about an image: the mean of its latents and their standard deviation, each `[C, H, W]`, as the diffusion
/// model sees latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: Vec<f32>,
    /// The standard deviation; zeros where latents are not drawn.
    pub std: Vec<f32>,
}

/// The latents that one autoencoder gave, in a file of [`Records`] under the hash of each image's samples.
///
/// An image that has changed has no latents here, and images of several sets share them.
#[derive(Debug)]
pub struct LatentFile {
    records: Records,
    shape: [usize; 3],
}

impl LatentFile {
    /// Opens the file of latents of `shape`, `[C, H, W]`; its folder is made. Latents of another autoencoder belong into another file.
    ///
    /// # Errors
    /// The folder cannot be made, or the file cannot be read.
    pub fn open(path: &Path, shape: [usize; 3]) -> Result<Self> {
        let failed = |source| latent_error(path, source);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let values: usize = shape.iter().product();
        let records = Records::open(path, 2 * 4 * values).map_err(failed)?;
        Ok(Self { records, shape })
    }

    /// Adds the latents of images.
    fn put(&mut self, new: &[(RecordKey, Moments)]) -> Result<()> {
        let bytes = |m: &Moments| {
            let all = m.mean.iter().chain(&m.std);
            all.flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
        };
        let values: Vec<Vec<u8>> = new.iter().map(|(_, moments)| bytes(moments)).collect();
        let keys = new.iter().map(|(key, _)| key);
        let put = self.records.put(keys.zip(values.iter().map(Vec::as_slice)));
        put.map_err(|source| latent_error(self.records.path(), source))
    }

    fn get(&self, key: &RecordKey) -> Result<Option<Moments>> {
        let value = self.records.get(key);
        let value = value.map_err(|source| latent_error(self.records.path(), source))?;
        Ok(value.map(|bytes| {
            let values = bytes.as_chunks::<4>().0.iter();
            let mut mean: Vec<f32> = values.map(|b| f32::from_le_bytes(*b)).collect();
            let std = mean.split_off(mean.len() / 2);
            Moments { mean, std }
        }))
    }
}

fn latent_error(path: &Path, source: io::Error) -> DataError {
    DataError::Latents {
        path: path.to_owned(),
        source,
    }
}

/// The name of an image in a file of latents.
fn key_of(image: &Image, spec: &ImageSpec) -> RecordKey {
    let mut bytes = format!("{spec}, {:?}\0", spec.range).into_bytes();
    bytes.extend(image.samples.to_bytes());
    record_key(&bytes)
}

/// The latents of all images of a source.
#[derive(Debug)]
struct Latents {
    file: LatentFile,
    images: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The names of the image, as it is and mirrored left to right.
    keys: [RecordKey; 2],
    /// How much each latent counts in the loss, `[H, W]`.
    mask: Option<Vec<f32>>,
}

impl Latents {
    /// The shape of an image's latents, `[C, H, W]`.
    fn shape(&self) -> [usize; 3] {
        self.file.shape
    }

    /// Draws the latents of image `index`: `mean + std n` with the normal numbers of `draw`.
    ///
    /// # Errors
    /// The file cannot be read any more.
    fn draw(&self, index: usize, mirrored: bool, draw: &Draw, out: &mut [f32]) -> Result<()> {
        let entry = self.images.get(index);
        let key = entry.map(|entry| entry.keys[usize::from(mirrored)]);
        let found = key.map(|key| self.file.get(&key)).transpose()?.flatten();
        let Some(Moments { mean, std }) = found else {
            let len = self.images.len();
            return Err(DataError::Index { index, len });
        };
        draw.fill_normal(out);
        for ((out, mean), std) in out.iter_mut().zip(mean).zip(std) {
            *out = mean + std * *out;
        }
        Ok(())
    }

    /// How much each latent of image `index` counts in the loss, `[H, W]`; `None` if all count.
    fn mask(&self, index: usize, mirrored: bool) -> Option<Vec<f32>> {
        let mut mask = self.images.get(index)?.mask.clone()?;
        if mirrored {
            let rows = mask.chunks_exact_mut(self.shape()[2]);
            rows.for_each(<[f32]>::reverse);
        }
        Some(mask)
    }
}

/// A source of images with their latents, so that its [`Batches`](crate::Batches) are batches of latents.
pub struct WithLatents {
    images: Arc<dyn ImageSource>,
    latents: Latents,
}

/// Computes the latents of images.
pub type Encode<'a, E> = dyn FnMut(&[Image]) -> std::result::Result<Vec<Moments>, E> + 'a;

/// Images whose latents are computed together.
const TOGETHER: usize = 8;

impl WithLatents {
    /// Images with the latents in `file`. `encode` computes those that it lacks; with `mirrored` those of the mirrored images, too. `progress`
    /// is called with (images done, total).
    ///
    /// # Errors
    /// An image cannot be read, its size is not a multiple of that of the latents, the file system fails, or `encode` does.
    pub fn new<E: From<DataError>>(
        images: Arc<dyn ImageSource>,
        mut file: LatentFile,
        mirrored: bool,
        encode: &mut Encode<'_, E>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> std::result::Result<Self, E> {
        let (spec, n) = (*images.spec(), images.len());
        let [_, height, width] = file.shape;
        let divides = |side: usize, latents: usize| latents > 0 && side.is_multiple_of(latents);
        if !(divides(spec.height, height) && divides(spec.width, width)) {
            return Err(E::from(DataError::Option {
                option: "size",
                expected: format!("a multiple of the {height}x{width} latents"),
                found: spec.to_string(),
            }));
        }
        let mut entries = Vec::with_capacity(n);
        for start in (0..n).step_by(TOGETHER) {
            let mut missing: Vec<(RecordKey, Image)> = Vec::new();
            for index in start..n.min(start + TOGETHER) {
                let Item { image, mask } = images.item(index, Place::CENTRE).map_err(E::from)?;
                let other = mirrored.then(|| image.flip_horizontal());
                let mut key_of_new = |image: Image| {
                    let key = key_of(&image, &spec);
                    let known = file.records.contains(&key)
                        || missing.iter().any(|(other, _)| *other == key);
                    if !known {
                        missing.push((key, image));
                    }
                    key
                };
                let key = key_of_new(image);
                entries.push(Entry {
                    keys: [key, other.map_or(key, key_of_new)],
                    mask: mask.map(|mask| {
                        let sides = [spec.height, spec.width];
                        shrink_mask(&shares(mask), sides, [height, width])
                    }),
                });
            }
            if !missing.is_empty() {
                let (keys, images): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
                let moments = encode(&images)?;
                let new: Vec<_> = keys.into_iter().zip(moments).collect();
                file.put(&new).map_err(E::from)?;
            }
            progress(entries.len(), n);
        }
        Ok(Self {
            images,
            latents: Latents {
                file,
                images: entries,
            },
        })
    }
}

impl ImageSource for WithLatents {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn spec(&self) -> &ImageSpec {
        self.images.spec()
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        self.images.item(index, place)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.images.label(index)
    }

    fn classes(&self) -> &[String] {
        self.images.classes()
    }

    fn id(&self, index: usize) -> String {
        self.images.id(index)
    }

    fn latent_shape(&self) -> Option<[usize; 3]> {
        Some(self.latents.shape())
    }

    fn draw_latents(
        &self,
        index: usize,
        mirrored: bool,
        draw: &Draw,
        out: &mut [f32],
    ) -> Result<Option<Vec<f32>>> {
        self.latents.draw(index, mirrored, draw, out)?;
        Ok(self.latents.mask(index, mirrored))
    }
}

/// The mean of a mask `[H, W]` over the pixels that belong to each of `height` x `width` latents.
fn shrink_mask(mask: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let (down, across) = (h / height, w / width);
    let mean = |y: usize, x: usize| {
        let rows = (y * down..(y + 1) * down).map(|row| row * w + x * across);
        let sum: f32 = rows
            .map(|start| mask[start..start + across].iter().sum::<f32>())
            .sum();
        sum / (down * across) as f32
    };
    (0..height)
        .flat_map(|y| (0..width).map(move |x| (y, x)))
        .map(|(y, x)| mean(y, x))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Augment, Batches, Digits, DigitsSource, Style};
    use std::cell::Cell;

    fn digits() -> Arc<dyn ImageSource> {
        let digits = Digits::embedded().unwrap();
        Arc::new(DigitsSource::new(digits, Style::Ember, &[1, 4], 3).unwrap())
    }

    /// The digits with latents `[1, 2, 2]`: the image's first sample that differs from its mirror image, and this deviation. Returns how
    /// many images were encoded, too.
    fn with_latents(path: &Path, std: f32, mirrored: bool) -> (Arc<dyn ImageSource>, usize) {
        let encoded = Cell::new(0);
        let source = WithLatents::new(
            digits(),
            LatentFile::open(path, [1, 2, 2]).unwrap(),
            mirrored,
            &mut |images| {
                encoded.set(encoded.get() + images.len());
                let moments = images.iter().map(|image| Moments {
                    mean: vec![mark(image); 4],
                    std: vec![std; 4],
                });
                Ok::<_, DataError>(moments.collect())
            },
            &mut |_, _| {},
        );
        (Arc::new(source.unwrap()), encoded.get())
    }

    /// A number by which an image is known.
    fn mark(image: &Image) -> f32 {
        let bytes = image.samples.to_bytes();
        let weighted = bytes.iter().zip(1..).map(|(b, i)| f32::from(*b) * i as f32);
        weighted.sum::<f32>() / 1e4
    }

    fn flipped() -> Augment {
        Augment {
            flip: true,
            ..Augment::default()
        }
    }

    #[test]
    fn batches_are_latents_in_the_order_and_with_the_flips_of_the_images() {
        let dir = tempfile::tempdir().unwrap();
        let (source, _) = with_latents(&dir.path().join("a"), 0.0, true);
        let latents = Batches::new(source, 7, 4, flipped()).unwrap();
        let images = Batches::new(digits(), 7, 4, flipped()).unwrap();
        let spec = *digits().spec();
        let mut flips = 0;
        for step in 0..4 {
            let (found, expected) = (latents.batch(step).unwrap(), images.batch(step).unwrap());
            assert_eq!(found.shape, [4, 1, 2, 2]);
            assert_eq!(found.indices, expected.indices);
            for (i, index) in found.indices.iter().enumerate() {
                let plain = digits().image(*index).unwrap();
                let shown = &expected.data[i * spec.len()..][..spec.len()];
                let is_plain = shown == spec.to_unit_range(&plain);
                flips += usize::from(!is_plain);
                let image = if is_plain {
                    plain
                } else {
                    plain.flip_horizontal()
                };
                assert_eq!(found.data[i * 4..][..4], [mark(&image); 4]);
            }
        }
        assert!((1..16).contains(&flips));
    }

    #[test]
    fn drawn_latents_follow_their_moments_and_are_the_same_for_any_split() {
        let dir = tempfile::tempdir().unwrap();
        let source = || with_latents(&dir.path().join("a"), 2.0, false).0;
        let plain = Augment::default();
        let large = Batches::new(source(), 3, 6, plain).unwrap();
        let small = Batches::new(source(), 3, 3, plain).unwrap();
        let both = [small.batch(0).unwrap().data, small.batch(1).unwrap().data].concat();
        assert_eq!(large.batch(0).unwrap().data, both);
        let means: Vec<f32> = (0..6).map(|i| mark(&digits().image(i).unwrap())).collect();
        let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
        for step in 0..200 {
            let batch = large.batch(step).unwrap();
            for (i, value) in batch.data.iter().enumerate() {
                let off = f64::from(value - means[batch.indices[i / 4]]);
                (sum, squares, n) = (sum + off, squares + off * off, n + 1.0);
            }
        }
        assert!((sum / n).abs() < 0.1, "{}", sum / n);
        assert!((squares / n - 4.0).abs() < 0.3, "{}", squares / n);
    }

    #[test]
    fn only_missing_latents_are_computed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(with_latents(&path, 0.0, false).1, 6);
        // The mirrored images are new.
        assert_eq!(with_latents(&path, 0.0, true).1, 6);
        assert_eq!(with_latents(&path, 0.0, true).1, 0);
        // A record that a killed process did not finish.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(with_latents(&path, 0.0, true).1, 1);
    }

    #[test]
    fn augmentation_that_latents_cannot_follow_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (source, _) = with_latents(&dir.path().join("a"), 0.0, false);
        let plain = Augment::default();
        for augment in [
            Augment { shift: 1, ..plain },
            Augment {
                flip_vertical: true,
                ..plain
            },
            Augment {
                scale: 0.1,
                ..plain
            },
            Augment { edm: 0.1, ..plain },
        ] {
            let error = Batches::new(source.clone(), 0, 2, augment).unwrap_err();
            assert!(error.to_string().contains("latents"), "{error}");
        }
    }

    #[test]
    fn masks_shrink_to_means() {
        let mask = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0];
        assert_eq!(shrink_mask(&mask, [2, 4], [1, 2]), [0.5, 0.5]);
    }
}
