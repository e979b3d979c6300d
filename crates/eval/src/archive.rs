//! Sets of images and statistics in one file.

use crate::error::{EvalError, Result, of};
use crate::extractor::Extractor;
use crate::native::{Native, reading};
use crate::set::ImageSet;
use sdft_imaging::{Conversions, Image, Kind, Limits, Samples, kind_of_bytes, read_image_file};
use sdft_metrics::Statistics;
use sdft_npz::{Array, Values, encode_npz, read_npy_bytes, read_npz_where};
use std::path::Path;

/// The name of the array of images in an archive.
const IMAGES: &str = "arr_0";

impl ImageSet {
    pub(crate) fn open_archive(
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
    pub(crate) fn open_stack(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeatureCache;
    use crate::set::tests::{extractor, images};
    use sdft_imaging::Rgb8;
    use sdft_npz::encode_npy;

    fn open(bytes: &[u8], extractor: &Extractor) -> Result<ImageSet> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.npz");
        std::fs::write(&path, bytes).unwrap();
        let mut cache = FeatureCache::none();
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
        let mut cache = FeatureCache::none();
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

    /// 40 grey images in other forms that networks see as the same 8-bit RGB.
    #[test]
    fn archives_and_stacks_of_every_form_give_the_same_features() {
        let net = extractor("one");
        let grey: Vec<u8> = images(40).into_iter().step_by(3).collect();
        let with = |n: usize, pixel: &dyn Fn(u8) -> Vec<u8>| {
            Array::u8(
                vec![40, 16, 16, n],
                grey.iter().flat_map(|&v| pixel(v)).collect(),
            )
            .unwrap()
        };
        let wide = grey.iter().map(|&v| 257 * u16::from(v)).collect();
        let float = |v: &u8| f32::from(*v) / 255.0;
        let forms = [
            with(1, &|v| vec![v]),
            with(3, &|v| vec![v; 3]),
            with(4, &|v| vec![v, v, v, 255]),
            Array::u16(vec![40, 16, 16, 1], wide).unwrap(),
            Array::f32(vec![40, 16, 16, 1], grey.iter().map(float).collect()).unwrap(),
            Array::f64(
                vec![40, 16, 16, 1],
                grey.iter().map(|v| f64::from(float(v))).collect(),
            )
            .unwrap(),
        ];
        let dir = tempfile::tempdir().unwrap();
        let stack = dir.path().join("set.npy");
        let mut expected = None;
        for array in &forms {
            let set = open(&encode_npz(&[("arr_0", array)], false).unwrap(), &net).unwrap();
            std::fs::write(&stack, encode_npy(array).unwrap()).unwrap();
            let mut cache = FeatureCache::none();
            let same = ImageSet::open(&stack, &net, &mut cache, &mut |_, _| {}).unwrap();
            assert_eq!(set.features, same.features);
            let wide = array.values.dtype() == "uint16";
            assert_eq!(set.conversions.sixteen_bit, if wide { 40 } else { 0 });
            let features = set.features.unwrap();
            assert_eq!(*expected.get_or_insert(features.clone()), features);
        }
        // 12 bits: the range is part of the extractor.
        let twelve = grey.iter().map(|&v| 16 * u16::from(v)).collect();
        let twelve = Array::u16(vec![40, 16, 16, 1], twelve).unwrap();
        let bytes = encode_npz(&[("arr_0", &twelve)], false).unwrap();
        let net = extractor("one").with_range(Some([0.0, 4080.0]));
        assert!(net.describe().ends_with("range 0 to 4080"));
        assert_eq!(open(&bytes, &net).unwrap().features, expected);
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
        let many = Array::u8(vec![1, 16, 16, 5], vec![0; 1280]).unwrap();
        refused(
            "arr_0",
            many,
            "image 0: networks such as Inception take RGB, found 5",
        );
        let wide = Array::f32(vec![1, 16, 16, 1], vec![7.5; 256]).unwrap();
        refused("arr_0", wide, "found 7.5 to 7.5; give --range");
        let labels = Array::i64(vec![1, 16, 16, 1], vec![0; 256]).unwrap();
        refused("arr_0", labels, "found int64");
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
