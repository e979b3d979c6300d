//! A set of images, or its statistics, to be compared.

use crate::cache::{FeatureCache, Known};
use crate::error::{EvalError, Result, of};
use crate::extractor::Extractor;
use rayon::prelude::*;
use sdft_data::Listing;
use sdft_files::record_key;
use sdft_imaging::{Conversions, Limits, Rgb8, read_image_file};
use sdft_metrics::{Features, Moments, Statistics};
use std::path::{Path, PathBuf};

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
        let (n, at_once) = (pictures.len(), extractor.at_once());
        let mut data = Vec::with_capacity(n * extractor.dim());
        for first in (0..n).step_by(at_once) {
            let chunk = pictures
                .by_ref()
                .take(at_once)
                .collect::<Result<Vec<_>>>()?;
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
    let (dim, at_once) = (extractor.dim(), extractor.at_once());
    let mut data = vec![0.0; files.len() * dim];
    let mut conversions = Conversions::default();
    for (i, chunk) in files.chunks(at_once).enumerate() {
        // Hashing is much faster than decoding, and decoding than the network.
        let read = chunk
            .par_iter()
            .map(|(_, path)| {
                let bytes = read_image_file(path, &limits)?;
                let key = record_key(&bytes);
                if cache.contains(&key) {
                    return Ok((key, None));
                }
                let decoded = extractor.decode(&bytes, path, 0, limits)?;
                Ok((key, Some(decoded)))
            })
            .collect::<Result<Vec<_>>>()?;
        let (mut added, mut images) = (Vec::new(), Vec::new());
        for (j, (key, decoded)) in read.into_iter().enumerate() {
            let to = &mut data[(i * at_once + j) * dim..][..dim];
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
            data[(i * at_once + j) * dim..][..dim].copy_from_slice(vector);
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
        progress(i * at_once + chunk.len(), files.len());
    }
    let label = files.first().map_or("no image", |(id, _)| id.as_str());
    Ok((of(label, Features::new(data, dim))?, conversions))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::extractor::View;
    use sdft_features::DigitsJudge;
    use sdft_imaging::{Image, ImageSpec, Samples};
    use sdft_nn::Params;
    use sdft_npz::{Array, encode_npz};
    use sdft_parallel::{ProcessGroup, World, free_port};
    use std::sync::Arc;
    use std::time::Duration;

    pub(crate) fn extractor(weights: &str) -> Extractor {
        let specs = DigitsJudge::specs().unwrap();
        let params = Params::init(&specs, 5, &candle_core::Device::Cpu).unwrap();
        let judge = DigitsJudge::load(&params).unwrap();
        Extractor::of_judge(View::Digits, &judge, weights.to_owned()).unwrap()
    }

    pub(crate) fn images(n: usize) -> Vec<u8> {
        (0..n * 768).map(|i| (i * i % 251) as u8).collect()
    }

    #[test]
    fn ranks_extract_together_what_one_extracts_and_the_cpu_has_the_oldest_cache_key() {
        let net = extractor("one");
        assert_eq!(net.cache_key(), net.describe());
        let pictures: Vec<Rgb8> = (0..70)
            .map(|i| Rgb8::filled(16, 16, [3 * i, 255 - i, i]))
            .collect();
        let alone = net.extract(&pictures).unwrap();
        let port = free_port().unwrap();
        let rank = move |rank, pictures: Vec<Rgb8>| {
            let world = World::local(rank, 3, port);
            let patience = Duration::from_secs(30);
            let group = ProcessGroup::join(&world, &candle_core::Device::Cpu, patience).unwrap();
            let group = Arc::new(group);
            let net = extractor("one").with_group(&group, 7);
            if rank > 0 {
                net.serve(&group).unwrap();
                return Vec::new();
            }
            let features = net.extract(&pictures).unwrap();
            assert!(net.extract(&pictures[..1]).unwrap() == features[..net.dim()]);
            group.end();
            features
        };
        let others = [1, 2].map(|n| std::thread::spawn(move || rank(n, Vec::new())));
        assert!(rank(0, pictures) == alone);
        for other in others {
            other.join().unwrap();
        }
    }

    #[test]
    fn pages_are_images_and_an_archive_in_a_folder_is_not() {
        let net = extractor("one");
        let grey = images(1)[..256].to_vec();
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new(16, 16, 1, Samples::U8(grey.clone())).unwrap();
        let spec = ImageSpec::new(1, image.depth(), 16, 16);
        let png = spec.encode(&image).unwrap();
        std::fs::write(dir.path().join("a.png"), png).unwrap();
        let array = Array::u8(vec![1, 16, 16, 1], grey).unwrap();
        let archive = encode_npz(&[("arr_0", &array)], true).unwrap();
        std::fs::write(dir.path().join("samples_1x16x16x1.npz"), archive).unwrap();
        let mut cache = FeatureCache::none();
        let mut open = |path: &Path| ImageSet::open(path, &net, &mut cache, &mut |_, _| {});
        let set = open(dir.path()).unwrap();
        assert_eq!(set.n(), Some(1));
        assert!(set.describe_skipped.unwrap().contains("1 x .npz"));
        let page = open(&dir.path().join("a.png")).unwrap();
        assert_eq!(page.features, set.features);
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
        let mut cache = FeatureCache::none();
        let error = ImageSet::open(dir.path(), &net, &mut cache, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("c.heic"), "{error}");
    }
}
