//! A set of images, or its statistics, to be compared.

use crate::cache::{FeatureCache, Known};
use crate::error::{EvalError, Result, of};
use crate::extractor::{BATCH, Extractor};
use crate::native::{Native, reading};
use rayon::prelude::*;
use sdft_data::Listing;
use sdft_files::sha256_bytes;
use sdft_imaging::{
    Conversions, Image, Kind, Limits, Rgb8, Samples, kind_of_bytes, read_image_file,
};
use sdft_metrics::{Features, Moments, Statistics};
use sdft_npz::{Array, Values, encode_npz, read_npy_bytes, read_npz_where};
use std::path::{Path, PathBuf};

/// The name of the array of images in an archive.
const IMAGES: &str = "arr_0";

/// One side of a comparison: images or their statistics.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// Its name for people.
    pub label: String,
    /// Relative and full path of each image, if the set is a folder.
    pub files: Vec<(String, PathBuf)>,
    /// A feature vector for each image; `None` if only statistics are known.
    pub features: Option<Features>,
    /// Mean and covariance; `None` for a single image.
    pub statistics: Option<Statistics>,
    /// Network, preprocessing and weights, if known.
    pub made_with: Option<String>,
    /// Conversions of the images while they were read.
    pub conversions: Conversions,
    /// Other files of the folder, in one line.
    pub describe_skipped: Option<String>,
}

impl ImageSet {
    /// Opens a folder of images, an `.npz` of images (`arr_0`, `[N, H, W, C]`) or of statistics (`mu`, `sigma`), an `.npy` of images, or a
    /// file whose pages are the images. Archives inside a folder are no images: samples may lie next to an archive of the same samples.
    ///
    /// `progress` is called with (images done, total).
    ///
    /// # Errors
    /// Fails if the path does not exist, an image cannot be read, or an archive has other content. No image is left out.
    pub fn open(
        path: &Path,
        extractor: &Extractor,
        cache: &mut FeatureCache,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let label = path.display().to_string();
        let is_named = |ending| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case(ending))
        };
        if is_named("npz") {
            return Self::open_archive(path, label, extractor, progress);
        }
        if path.is_file() {
            return Self::open_stack(path, label, extractor, progress);
        }
        let mut listing = sdft_data::scan_images(path)?;
        leave_out_archives(&mut listing);
        let describe_skipped = listing.describe_skipped();
        let files = listing.all_readable(path)?;
        let (features, conversions) = of_files(&files, extractor, cache, progress)?;
        let set = Self::of_features(label, files, features)?.made_by(extractor);
        Ok(Self {
            conversions,
            describe_skipped,
            ..set
        })
    }

    fn made_by(mut self, extractor: &Extractor) -> Self {
        self.made_with = Some(extractor.describe());
        self
    }

    /// A set with known features.
    ///
    /// # Errors
    /// Fails if the features have no statistics.
    pub fn of_features(
        label: String,
        files: Vec<(String, PathBuf)>,
        features: Features,
    ) -> Result<Self> {
        let statistics = match features.n() {
            0 | 1 => None,
            _ => Some(of(
                &label,
                Moments::of(&features).and_then(|m| m.statistics()),
            )?),
        };
        Ok(Self {
            label,
            files,
            features: Some(features),
            statistics,
            made_with: None,
            conversions: Conversions::default(),
            describe_skipped: None,
        })
    }

    fn open_archive(
        path: &Path,
        label: String,
        extractor: &Extractor,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut names = Vec::new();
        let mut arrays = read_npz_where(path, |name| {
            names.push(name.to_owned());
            ["mu", "sigma", "n", "features"].contains(&name)
        })?;
        // An archive of images may also contain statistics of other features.
        if names.iter().any(|name| name == IMAGES) {
            arrays = read_npz_where(path, |name| name == IMAGES)?;
        }
        let problem = |problem: String| EvalError::Content {
            path: path.to_owned(),
            problem,
        };
        if let (Some(mu), Some(sigma)) = (arrays.get("mu"), arrays.get("sigma")) {
            let dim = extractor.dim();
            if mu.shape != [dim] || sigma.shape != [dim, dim] {
                return Err(problem(format!(
                    "expected mu [{dim}] and sigma [{dim}, {dim}], found {:?} and {:?}",
                    mu.shape, sigma.shape
                )));
            }
            let n = arrays.get("n").and_then(|n| match &n.values {
                Values::I64(n) => u64::try_from(*n.first()?).ok(),
                _ => None,
            });
            let label_of = |array: &Array| match &array.values {
                Values::U8(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            };
            let made_with = arrays.get("features").map(label_of);
            if let Some(other) = made_with.as_ref().filter(|m| **m != extractor.describe()) {
                return Err(problem(format!(
                    "these statistics were made with {other}, expected {}",
                    extractor.describe()
                )));
            }
            let floats = |array: &Array| array.to_f64().map_err(|e| problem(e.to_string()));
            let statistics = Statistics::new(floats(mu)?, floats(sigma)?, n);
            return Ok(Self {
                statistics: Some(of(&label, statistics)?),
                label,
                files: Vec::new(),
                features: None,
                made_with,
                conversions: Conversions::default(),
                describe_skipped: None,
            });
        }
        let Some(array) = arrays.remove(IMAGES) else {
            return Err(problem(format!(
                "expected statistics (mu, sigma) or images (arr_0, [N, H, W, C]), found {}",
                names.join(", ")
            )));
        };
        Self::of_array(&array, path, label, extractor, progress)
    }

    /// A set of the pages of a file: a TIFF, or an `.npy` of `[N, H, W, C]`.
    fn open_stack(
        path: &Path,
        label: String,
        extractor: &Extractor,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let limits = Limits::from_env()?;
        let bytes = read_image_file(path, &limits)?;
        if kind_of_bytes(&bytes) == Kind::Picture("NPY") {
            let array = read_npy_bytes(&bytes, &label, None)?;
            drop(bytes);
            return Self::of_array(&array, path, label, extractor, progress);
        }
        let n = reading(limits).pages(&bytes, &label)?;
        let mut conversions = Conversions::default();
        let pictures = (0..n).map(|page| {
            let (image, converted) = extractor.decode(&bytes, path, page, limits)?;
            conversions += converted;
            Ok(image)
        });
        let set = Self::of_images(label, pictures, extractor, progress)?;
        Ok(Self { conversions, ..set })
    }

    /// A set of the pictures of an array, `[N, H, W, C]`.
    fn of_array(
        array: &Array,
        path: &Path,
        label: String,
        extractor: &Extractor,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let problem = |problem: String| EvalError::Content {
            path: path.to_owned(),
            problem,
        };
        let (n, h, w, c) = match array.shape[..] {
            [n, h, w, c] if n * h * w * c > 0 => (n, h, w, c),
            _ => {
                return Err(problem(format!(
                    "expected images, {IMAGES} of the shape [N, H, W, C], found {} of the shape {:?}",
                    array.values.dtype(),
                    array.shape
                )));
            }
        };
        let pictures = (0..n).map(|i| {
            let at = i * h * w * c..(i + 1) * h * w * c;
            let samples = match &array.values {
                Values::U8(values) => Samples::U8(values[at].to_vec()),
                Values::U16(values) => Samples::U16(values[at].to_vec()),
                Values::F32(values) => Samples::F32(values[at].to_vec()),
                Values::F64(values) => Samples::F32(values[at].iter().map(|&v| v as f32).collect()),
                Values::I64(_) => {
                    return Err(problem(format!(
                        "expected images of uint8, uint16 or floats, found {}",
                        array.values.dtype()
                    )));
                }
            };
            let image = Image::new(w, h, c, samples)?;
            let own = image.depth().full_range();
            let origin = format!("{}, image {i}", path.display());
            Native::new(origin, image, extractor.range(), own)?.into_rgb8()
        });
        let mut conversions = Conversions::default();
        let pictures = pictures.map(|picture: Result<_>| {
            let (image, converted) = picture?;
            conversions += converted;
            Ok(image)
        });
        let set = Self::of_images(label, pictures, extractor, progress)?;
        Ok(Self { conversions, ..set })
    }

    /// A set of pictures from an iterator; the pictures are not kept.
    ///
    /// # Errors
    /// Fails with the first error of the iterator, or if the network does not accept a picture.
    pub fn of_images(
        label: String,
        mut pictures: impl ExactSizeIterator<Item = Result<Rgb8>>,
        extractor: &Extractor,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let n = pictures.len();
        let mut data = Vec::with_capacity(n * extractor.dim());
        for first in (0..n).step_by(BATCH) {
            let chunk = pictures.by_ref().take(BATCH).collect::<Result<Vec<_>>>()?;
            data.extend(extractor.extract(&chunk)?);
            progress(first + chunk.len(), n);
        }
        let features = of(&label, Features::new(data, extractor.dim()))?;
        Self::of_features(label, Vec::new(), features).map(|set| set.made_by(extractor))
    }

    /// Number of images, if known.
    pub fn n(&self) -> Option<u64> {
        match &self.features {
            Some(features) => Some(features.n() as u64),
            None => self.statistics.as_ref().and_then(Statistics::n),
        }
    }

    /// The statistics as an archive: `mu` and `sigma` as pytorch-fid writes them, with `n` and `features` (the network as text in bytes).
    ///
    /// # Errors
    /// Fails if the set has no statistics.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let Some(s) = &self.statistics else {
            return Err(EvalError::Content {
                path: self.label.clone().into(),
                problem: "statistics need at least 2 images".into(),
            });
        };
        let dim = s.dim();
        let mu = Array::f64(vec![dim], s.mean().to_vec())?;
        let sigma = Array::f64(vec![dim, dim], s.covariance().to_vec())?;
        let n = s.n().and_then(|n| i64::try_from(n).ok());
        let n = n.map(|n| Array::i64(vec![1], vec![n])).transpose()?;
        let mut entries = vec![("mu", &mu), ("sigma", &sigma)];
        entries.extend(n.as_ref().map(|n| ("n", n)));
        let label = self.made_with.clone().unwrap_or_default().into_bytes();
        let label = (!label.is_empty())
            .then(|| Array::u8(vec![label.len()], label))
            .transpose()?;
        entries.extend(label.as_ref().map(|label| ("features", label)));
        Ok(encode_npz(&entries, true)?)
    }
}

/// Counts archives among the files that are no images.
pub(crate) fn leave_out_archives(listing: &mut Listing) {
    let is_archive = |(_, path): &mut (String, PathBuf)| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("npz"))
    };
    listing
        .others
        .extend(listing.images.extract_if(.., is_archive));
}

/// The feature vectors of image files, from the cache if possible, and the conversions of the images.
///
/// # Errors
/// Fails if an image cannot be read or the network does not accept it.
pub fn of_files(
    files: &[(String, PathBuf)],
    extractor: &Extractor,
    cache: &mut FeatureCache,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Features, Conversions)> {
    let limits = Limits::from_env()?;
    let dim = extractor.dim();
    let mut data = vec![0.0; files.len() * dim];
    let mut conversions = Conversions::default();
    for (i, chunk) in files.chunks(BATCH).enumerate() {
        // Hashing is much faster than decoding, and decoding than the network.
        let read = chunk
            .par_iter()
            .map(|(_, path)| {
                let bytes = read_image_file(path, &limits)?;
                let key = key_of(&bytes);
                if cache.contains(&key) {
                    return Ok((key, None));
                }
                let decoded = extractor.decode(&bytes, path, 0, limits)?;
                Ok((key, Some(decoded)))
            })
            .collect::<Result<Vec<_>>>()?;
        let (mut added, mut images) = (Vec::new(), Vec::new());
        for (j, (key, decoded)) in read.into_iter().enumerate() {
            let to = &mut data[(i * BATCH + j) * dim..][..dim];
            if let Some((image, converted)) = decoded {
                added.push((j, key, converted));
                images.push(image);
            } else if let Some(known) = cache.get(&key)? {
                to.copy_from_slice(&known.vector);
                conversions += known.conversions;
            }
        }
        let vectors = extractor.extract(&images)?;
        let mut new = Vec::with_capacity(added.len());
        for ((j, key, converted), vector) in added.into_iter().zip(vectors.chunks_exact(dim)) {
            // NaN is an error and must not be cached.
            if vector.iter().any(|x| !x.is_finite()) {
                return Err(EvalError::Content {
                    path: chunk[j].1.clone(),
                    problem: format!(
                        "{} gives features that are not finite",
                        extractor.describe()
                    ),
                });
            }
            data[(i * BATCH + j) * dim..][..dim].copy_from_slice(vector);
            conversions += converted;
            let known = Known {
                conversions: converted,
                vector: vector.to_vec(),
            };
            new.push((key, known));
        }
        if !new.is_empty() {
            cache.put(&new);
        }
        progress(i * BATCH + chunk.len(), files.len());
    }
    let label = files.first().map_or("no image", |(id, _)| id.as_str());
    Ok((of(label, Features::new(data, dim))?, conversions))
}

/// The SHA-256 of a file.
fn key_of(bytes: &[u8]) -> [u8; 32] {
    let hex = sha256_bytes(bytes);
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digit = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extractor::View;
    use sdft_features::DigitsJudge;
    use sdft_nn::Params;

    fn extractor(weights: &str) -> Extractor {
        let specs = DigitsJudge::specs().unwrap();
        let params = Params::init(&specs, 5, &candle_core::Device::Cpu).unwrap();
        Extractor::new(View::Digits, &params, weights.to_owned()).unwrap()
    }

    fn images(n: usize) -> Vec<u8> {
        (0..n * 768).map(|i| (i * i % 251) as u8).collect()
    }

    fn open(bytes: &[u8], extractor: &Extractor) -> Result<ImageSet> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.npz");
        std::fs::write(&path, bytes).unwrap();
        let mut cache = FeatureCache::none(extractor.dim());
        ImageSet::open(&path, extractor, &mut cache, &mut |_, _| {})
    }

    #[test]
    fn an_archive_of_images_equals_their_folder_and_its_statistics_are_restored() {
        let (net, bytes) = (extractor("one"), images(40));
        let array = Array::u8(vec![40, 16, 16, 3], bytes.clone()).unwrap();
        // Statistics next to the images belong to other features and are ignored.
        let other = Array::f64(vec![1], vec![0.0]).unwrap();
        let entries = [("arr_0", &array), ("mu", &other), ("sigma", &other)];
        let set = open(&encode_npz(&entries, true).unwrap(), &net).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (i, pixels) in bytes.chunks_exact(768).enumerate() {
            let image = Rgb8::new(16, 16, pixels.to_vec()).unwrap();
            sdft_imaging::write_png(&dir.path().join(format!("{i:02}.png")), &image).unwrap();
        }
        let mut cache = FeatureCache::none(net.dim());
        let mut last = (0, 0);
        let folder = ImageSet::open(dir.path(), &net, &mut cache, &mut |a, b| last = (a, b));
        let folder = folder.unwrap();
        assert_eq!((folder.n(), last), (Some(40), (40, 40)));
        assert_eq!(folder.features, set.features);

        let archive = folder.archive().unwrap();
        let back = open(&archive, &net).unwrap();
        assert_eq!(back.statistics, folder.statistics);
        assert_eq!(
            (back.n(), back.made_with.clone()),
            (Some(40), Some(net.describe()))
        );
        let error = open(&archive, &extractor("two")).unwrap_err().to_string();
        assert!(
            error.contains("made with digits judge, weights one"),
            "{error}"
        );
    }

    #[test]
    fn transparent_images_are_composed_on_white_with_and_without_the_cache() {
        let net = extractor("one");
        let dir = tempfile::tempdir().unwrap();
        // A palette with a transparent entry; GIF writes one directly.
        let palette = [10, 200, 30, 90, 0, 60];
        for (name, clear) in [("a.gif", Some(1)), ("b.gif", None)] {
            let mut file = std::fs::File::create(dir.path().join(name)).unwrap();
            let mut encoder = gif::Encoder::new(&mut file, 16, 16, &palette).unwrap();
            let frame = gif::Frame {
                width: 16,
                height: 16,
                transparent: clear,
                buffer: (0..=255).map(|i| i / 16 % 2).collect::<Vec<u8>>().into(),
                ..gif::Frame::default()
            };
            encoder.write_frame(&frame).unwrap();
        }
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let kept = tempfile::tempdir().unwrap();
        let open = || {
            let mut cache = FeatureCache::open(kept.path(), "x", net.dim()).unwrap();
            ImageSet::open(dir.path(), &net, &mut cache, &mut |_, _| {}).unwrap()
        };
        let (first, again) = (open(), open());
        assert_eq!(first.features, again.features);
        for set in [&first, &again] {
            assert_eq!(set.conversions.transparent, 1);
            assert!(set.describe_skipped.as_ref().unwrap().contains("1 x .txt"));
        }
        let options = crate::sets::SetOptions::default();
        let (report, _) = crate::sets::compare_sets(&first, &again, &options).unwrap();
        let text = report.text();
        assert!(
            text.contains("1 image is transparent: composed on white"),
            "{text}"
        );
        assert!(
            text.contains("pytorch-fid") && text.contains("1 x .txt"),
            "{text}"
        );
        std::fs::write(dir.path().join("c.heic"), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
        let mut cache = FeatureCache::none(net.dim());
        let error = ImageSet::open(dir.path(), &net, &mut cache, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("c.heic"), "{error}");
    }

    #[test]
    fn archives_of_other_content_are_refused() {
        let net = extractor("one");
        let refused = |name: &str, array: Array, word: &str| {
            let error = open(&encode_npz(&[(name, &array)], false).unwrap(), &net).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        };
        refused("x", Array::u8(vec![3], vec![0; 3]).unwrap(), "found x");
        refused(
            "arr_0",
            Array::u8(vec![0, 16, 16, 3], vec![]).unwrap(),
            "[0, 16, 16, 3]",
        );
        refused(
            "arr_0",
            Array::u8(vec![1, 4, 4, 3], vec![0; 48]).unwrap(),
            "16x16",
        );
        refused("arr_0", Array::f32(vec![1], vec![0.0]).unwrap(), "arr_0");
        let mu = Array::f64(vec![2], vec![0.0; 2]).unwrap();
        let sigma = Array::f64(vec![2, 2], vec![0.0; 4]).unwrap();
        let bytes = encode_npz(&[("mu", &mu), ("sigma", &sigma)], false).unwrap();
        let error = open(&bytes, &net).unwrap_err().to_string();
        assert!(
            error.contains("mu [64]") && error.contains("[2]"),
            "{error}"
        );
    }
}
