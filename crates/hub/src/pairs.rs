//! Sets of ten classes, read by candle's loaders: a source of all classes and a small target.

use candle_core::Tensor;
use candle_datasets::vision::{Dataset, cifar, fashion_mnist, mnist};
use sdft_assets::{Asset, HubCache, ImageSet};
use sdft_data::Style;
use sdft_imaging::{ImageSpec, Rgb8};

use crate::{HubError, Result};

/// Classes of the target.
const CLASSES: [u8; 3] = [1, 4, 7];
/// Images of each class in the target.
const PER_CLASS: usize = 100;
const SIDE: usize = ImageSet::PAIR_SIZE;

/// Pictures with their origin, such as `train#17 class 5`.
type Pictures = Vec<(String, Rgb8)>;

/// The source and the target of a set of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// All training images, at 32x32.
    pub source: Pictures,
    /// 100 test images of each of the classes 1, 4 and 7, in the colours of [`Style::Ember`].
    pub target: Pictures,
}

/// Reads `mnist`, `fashion-mnist` or `cifar10` from files in the cache.
///
/// Pictures of 28x28 get a black margin of two pixels.
///
/// # Errors
/// Fails if the asset is not one of these, or if a file is missing or invalid.
pub fn load_pair(asset: &Asset, cache: &HubCache) -> Result<Pair> {
    let problem = |problem: String| HubError::Data {
        what: asset.name.clone(),
        problem,
    };
    let load = match asset.name.as_str() {
        "mnist" => mnist::load,
        "fashion-mnist" => fashion_mnist::load,
        "cifar10" => cifar::load,
        _ => return Err(problem("no loader reads it".to_owned())),
    };
    // The loader finds its files itself, and would download missing ones.
    cache.locate(&asset.name)?;
    let theirs = hf_hub::HFClient::new().map_err(|e| problem(e.to_string()))?;
    if theirs.cache_dir() != cache.root() {
        return Err(problem(format!(
            "candle's loader reads from {}, but the files are in {}; set HF_HUB_CACHE to a full path",
            theirs.cache_dir().display(),
            cache.root().display()
        )));
    }
    // The loader panics on images that it cannot read.
    let data = match sdft_files::guarded(load) {
        Some(Ok(data)) => data,
        Some(Err(error)) => return Err(problem(format!("cannot be read: {error}"))),
        None => return Err(problem("cannot be read: an image is damaged".to_owned())),
    };
    pair(&data).map_err(|error| problem(error.to_string()))
}

fn pair(data: &Dataset) -> candle_core::Result<Pair> {
    let source = pictures("train", &data.train_images, &data.train_labels)?;
    let source = source
        .into_iter()
        .map(|(origin, _, picture)| (origin, picture))
        .collect();
    let mut counts = [0; CLASSES.len()];
    let mut target = Vec::new();
    for (i, (origin, class, picture)) in pictures("test", &data.test_images, &data.test_labels)?
        .into_iter()
        .enumerate()
    {
        let Some(slot) = CLASSES.iter().position(|&known| known == class) else {
            continue;
        };
        if counts[slot] < PER_CLASS {
            counts[slot] += 1;
            target.push((origin, ember(&picture, i)?));
        }
    }
    Ok(Pair { source, target })
}

/// The pictures of one split, with their classes.
fn pictures(
    part: &str,
    images: &Tensor,
    labels: &Tensor,
) -> candle_core::Result<Vec<(String, u8, Rgb8)>> {
    let labels = labels.to_vec1::<u8>()?;
    let (n, values) = (images.dim(0)?, images.elem_count() / images.dim(0)?.max(1));
    if n != labels.len() {
        candle_core::bail!("{n} images and {} labels", labels.len());
    }
    let mut out = Vec::with_capacity(n);
    for (i, &class) in labels.iter().enumerate() {
        let flat = images.get(i)?.flatten_all()?.to_vec1::<f32>()?;
        let level = |v: f32| (255.0 * v).round() as u8;
        let mut picture = Rgb8::filled(SIDE, SIDE, [0; 3]);
        match values {
            // Grey, row by row.
            784 => {
                for (at, &v) in flat.iter().enumerate() {
                    let (x, y) = (at % 28 + 2, at / 28 + 2);
                    picture.pixels[3 * (y * SIDE + x)..][..3].fill(level(v));
                }
            }
            // Channel, column, row: candle's loader swaps rows and columns.
            3072 => {
                for (at, &v) in flat.iter().enumerate() {
                    let (c, x, y) = (at / 1024, at / SIDE % SIDE, at % SIDE);
                    picture.pixels[3 * (y * SIDE + x) + c] = level(v);
                }
            }
            other => candle_core::bail!("images of {other} values, expected 784 or 3072"),
        }
        out.push((format!("{part}#{i} class {class}"), class, picture));
    }
    Ok(out)
}

/// The picture's brightness in the colours of the target domain.
fn ember(picture: &Rgb8, index: usize) -> candle_core::Result<Rgb8> {
    // BT.601, as Pillow's `convert("L")`.
    let light = |p: &[u8]| {
        (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])) / 255.0
    };
    let shape: Vec<f32> = picture.pixels.chunks_exact(3).map(light).collect();
    let painted = Style::Ember.paint(&shape, SIDE, index);
    let image = ImageSpec::rgb8(SIDE, SIDE).from_unit_range(&painted);
    image
        .map(Rgb8::from_image)
        .map_err(candle_core::Error::wrap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn labels(n: usize) -> Tensor {
        let classes: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
        Tensor::from_vec(classes, n, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_target_is_small_and_of_three_classes() {
        let images = |n: usize| Tensor::zeros((n, 784), DType::F32, &Device::Cpu).unwrap();
        let data = Dataset {
            train_images: images(20),
            train_labels: labels(20),
            test_images: images(2500),
            test_labels: labels(2500),
            labels: 10,
        };
        let pair = pair(&data).unwrap();
        assert_eq!(pair.source.len(), 20);
        assert_eq!(pair.target.len(), 300);
        assert_eq!(pair.target[0].0, "test#1 class 1");
        assert_eq!(pair.source[3].0, "train#3 class 3");
    }

    #[test]
    fn grey_rows_get_a_margin() {
        let values: Vec<f32> = (0..784)
            .map(|i| if i == 28 + 3 { 1.0 } else { 0.0 })
            .collect();
        let images = Tensor::from_vec(values, (1, 784), &Device::Cpu).unwrap();
        let (_, _, picture) = pictures("train", &images, &labels(1)).unwrap().remove(0);
        assert_eq!(picture.get(5, 3), Some([255; 3]));
        assert_eq!(picture.pixels.iter().filter(|&&v| v > 0).count(), 3);
    }
}
