//! How many generated images are copies of training images.

use crate::error::{Result, of};
use candle_core::{Tensor, bail};
use sdft_metrics::{Features, Neighbour, nearest, nearest_others};

/// Generated images and the training images that are nearest to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// Share of the samples that are closer to a training image than [`Self::limit`].
    pub share: f64,
    /// Half the median distance of a training image to the nearest other one.
    pub limit: f64,
    /// For each sample the nearest training image, with the root mean squared difference of their values in [-1, 1].
    pub nearest: Vec<Neighbour>,
    /// For each sample, whether the nearest training image is so after it has been mirrored.
    pub mirrored: Vec<bool>,
}

/// Compares samples with the images that a model was trained on, as they are and mirrored.
///
/// # Shapes
/// - `samples`: `[N, C, H, W]` in [-1, 1]
/// - `targets`: `[M, C, H, W]` in [-1, 1], at least 2
///
/// # Errors
/// Fails if the images differ in form, or there are too few.
pub fn copied(samples: &Tensor, targets: &Tensor) -> Result<Copies> {
    let ((n, sample), (m, target)) = (form(samples)?, form(targets)?);
    if n == 0 || m < 2 || sample != target {
        let problem = || -> candle_core::Result<Copies> {
            bail!(
                "copies: expected samples and at least 2 targets of one form, found {n} of {sample:?} and {m} of {target:?}"
            )
        };
        return Ok(problem()?);
    }
    let label = "copies of training images";
    let features = |x: &Tensor| -> Result<Features> {
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        of(label, Features::new(values, sample.iter().product()))
    };
    let [samples, plain, mirrored] = [
        features(samples)?,
        features(targets)?,
        features(&targets.flip(&[3])?)?,
    ];
    // From Euclidean distances to root mean squares.
    let scale = 1.0 / (sample.iter().product::<usize>() as f64).sqrt();
    let mut apart = of(label, nearest_others(&plain))?;
    apart.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    let limit = scale * apart[m / 2].distance / 2.0;
    let plain = of(label, nearest(&samples, &plain))?;
    let flipped = of(label, nearest(&samples, &mirrored))?;
    let is_mirrored = plain.iter().zip(&flipped);
    let is_mirrored: Vec<bool> = is_mirrored.map(|(a, b)| b.distance < a.distance).collect();
    let pairs = plain.into_iter().zip(flipped).zip(&is_mirrored);
    let nearest: Vec<Neighbour> = pairs
        .map(|((plain, flipped), is_mirrored)| {
            let closest = if *is_mirrored { flipped } else { plain };
            Neighbour {
                index: closest.index,
                distance: scale * closest.distance,
            }
        })
        .collect();
    Ok(Copies {
        share: nearest.iter().filter(|pair| pair.distance < limit).count() as f64 / n as f64,
        limit,
        nearest,
        mirrored: is_mirrored,
    })
}

/// The number of images, and their shape.
fn form(images: &Tensor) -> Result<(usize, [usize; 3])> {
    let (n, c, h, w) = images.dims4()?;
    Ok((n, [c, h, w]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_noise::{Draw, Purpose};

    fn images(n: usize, seed: u64) -> Tensor {
        let mut values = vec![0.0; n * 48];
        Draw::new(seed, Purpose::Judge, 0, 0).fill_uniform(&mut values);
        let x = Tensor::from_vec(values, (n, 3, 4, 4), &Device::Cpu).unwrap();
        x.affine(2.0, -1.0).unwrap()
    }

    #[test]
    fn a_copy_and_a_mirrored_copy_are_found_and_others_are_not() {
        let targets = images(9, 1);
        let row = |i| targets.narrow(0, i, 1).unwrap();
        let mirrored = (row(7).flip(&[3]).unwrap() + 0.01).unwrap();
        let samples = Tensor::cat(&[row(4), mirrored, images(2, 2)], 0).unwrap();
        let found = copied(&samples, &targets).unwrap();
        assert_eq!(found.share, 0.5);
        assert_eq!(
            (found.nearest[0].index, found.nearest[0].distance),
            (4, 0.0)
        );
        assert_eq!(found.nearest[1].index, 7);
        assert!((found.nearest[1].distance - 0.01).abs() < 1e-6);
        assert_eq!(found.mirrored[..2], [false, true]);
        assert!(found.nearest[2].distance > found.limit);
    }

    #[test]
    fn sets_that_cannot_be_compared_are_refused() {
        let small = Tensor::zeros((3, 3, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let (one, many) = (images(1, 1), images(3, 1));
        for (samples, targets) in [(&small, &many), (&many, &one)] {
            let error = copied(samples, targets).unwrap_err().to_string();
            assert!(error.contains("copies: expected"), "{error}");
        }
    }
}
