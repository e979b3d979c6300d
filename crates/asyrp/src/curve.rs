//! The range of steps of an edit, from distances between trajectory and image.

use crate::invert;
use candle_core::{DType, Result, Tensor, bail};
use sdft_diffusion::Denoiser;
use sdft_schedule::Schedule;

/// Distances of the inversion of one image `[1, C, H, W]` from the image, at every step it arrives at: of the states, then of the
/// predicted images.
///
/// # Shapes
/// - returns `[2, n - 1]` for `n` steps
///
/// Source: Asyrp `diffusion_latent.py` `compute_lpips_distance`.
///
/// # Errors
/// As [`invert`]; an error of `distance`.
pub fn distances(
    net: &dyn Denoiser,
    schedule: &Schedule,
    x0: &Tensor,
    steps: &[usize],
    distance: &mut dyn FnMut(&Tensor, &Tensor) -> Result<f32>,
) -> Result<Tensor> {
    let (mut states, mut predicted) = (Vec::new(), Vec::new());
    invert(net, schedule, x0, steps, &mut |step| {
        states.push(distance(step.x, x0)?);
        predicted.push(distance(step.x0, x0)?);
        Ok(())
    })?;
    let n = states.len();
    states.extend(predicted);
    Tensor::from_vec(states, (2, n), x0.device())
}

/// Mean [`distances`] over images, for [`first_reaching`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// Of the states, by the step of the process.
    pub states: Vec<(usize, f64)>,
    /// Of the predicted images.
    pub predicted: Vec<(usize, f64)>,
}

impl Curves {
    /// The means of images' distances along `steps`.
    ///
    /// # Errors
    /// No images; distances of another number of steps.
    pub fn mean(steps: &[usize], images: &[Tensor]) -> Result<Self> {
        let all = Tensor::stack(images, 0)?.to_dtype(DType::F64)?.mean(0)?;
        let arrivals = steps.get(1..).unwrap_or_default();
        if all.dims() != [2, arrivals.len()] {
            bail!(
                "distances: expected [2, {}], found {:?}",
                arrivals.len(),
                all.dims()
            );
        }
        let row = |i: usize| -> Result<Vec<(usize, f64)>> {
            let values = all.get(i)?.to_vec1::<f64>()?;
            Ok(arrivals.iter().copied().zip(values).collect())
        };
        Ok(Self {
            states: row(0)?,
            predicted: row(1)?,
        })
    }
}

/// The first step of a curve of distances that reaches a threshold.
///
/// `curve` holds steps of the process, ascending, with the perceptual distance to the clean image at each. For `t_edit` it is that of the
/// predicted image and the threshold 0.33 times the cosine of the two texts; for `t_boost` that of the state and 1.2.
///
/// Source: Asyrp `diffusion_latent.py` `set_t_edit_t_addnoise`.
///
/// # Errors
/// A curve without steps, or whose steps do not ascend; one that never reaches the threshold.
pub fn first_reaching(curve: &[(usize, f64)], threshold: f64) -> Result<usize> {
    if curve.is_empty() || !curve.is_sorted_by(|a, b| a.0 < b.0) {
        bail!(
            "a curve of distances: expected steps that ascend, found {} of them",
            curve.len()
        );
    }
    let found = curve.iter().find(|(_, distance)| *distance >= threshold);
    found.map_or_else(
        || {
            let most = curve.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
            bail!("no step is as far from the image as {threshold}: the largest distance is {most}")
        },
        |(t, _)| Ok(*t),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_diffusion::GaussianDenoiser;
    use sdft_schedule::linear_betas;

    #[test]
    fn distances_are_means_over_images_at_the_steps_they_arrive_at() {
        let schedule =
            Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap();
        let net = GaussianDenoiser::new(schedule.alpha_bar(), 0.0, 1.0);
        let steps = [0, 200, 500];
        let images = [0.5f32, -0.25].map(|value| {
            let x0 = Tensor::full(value, (1, 3, 2, 2), &candle_core::Device::Cpu).unwrap();
            let mut apart = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.mean_all()?.to_scalar::<f32>();
            distances(&net, &schedule, &x0, &steps, &mut apart).unwrap()
        });
        let curves = |images: &[Tensor]| Curves::mean(&steps, images).unwrap();
        let [one, other, both] = [curves(&images[..1]), curves(&images[1..]), curves(&images)];
        for of in [
            |c: &Curves| c.states.clone(),
            |c: &Curves| c.predicted.clone(),
        ] {
            let (one, other, both) = (of(&one), of(&other), of(&both));
            assert_eq!(both.iter().map(|c| c.0).collect::<Vec<_>>(), [200, 500]);
            for ((one, other), both) in one.iter().zip(&other).zip(&both) {
                assert!((0.5 * (one.1 + other.1) - both.1).abs() < 1e-7);
            }
            assert!(both[0].1 < both[1].1, "{both:?}");
        }
        let error = Curves::mean(&[0, 1], &images).unwrap_err().to_string();
        assert!(error.contains("expected [2, 1]"), "{error}");
        assert!(Curves::mean(&steps, &[]).is_err());
    }

    #[test]
    fn the_first_step_that_is_far_enough_is_found() {
        // Part of the published curves of MetFaces: predicted images, states.
        let predicted = [
            (25, 0.0898),
            (200, 0.2590),
            (250, 0.2754),
            (400, 0.3327),
            (999, 1.2407),
        ];
        let states = [(100, 0.9342), (150, 1.1336), (200, 1.2315)];
        assert_eq!(first_reaching(&predicted, 0.33 * 0.8).unwrap(), 250);
        assert_eq!(first_reaching(&states, 1.2).unwrap(), 200);
        assert!(
            first_reaching(&predicted, 2.0)
                .unwrap_err()
                .to_string()
                .contains("1.2407")
        );
        assert!(first_reaching(&[], 0.1).is_err());
        assert!(first_reaching(&[(5, 0.1), (3, 0.2)], 0.1).is_err());
    }
}
