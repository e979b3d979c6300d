//! Where an edit begins and where it is sharpened, from how far the trajectory is from the image.

use crate::invert;
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::Denoiser;
use sdft_schedule::Schedule;

/// How far inversions are from the images they began at, by the step that is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// Distances of the states, summed over images.
    states: Vec<f64>,
    /// Distances of the images predicted on the way, summed likewise.
    predicted: Vec<f64>,
    steps: Vec<usize>,
    images: usize,
}

impl Curves {
    /// Without any image; `steps` are those of the inversion, ascending.
    #[must_use]
    pub fn new(steps: &[usize]) -> Self {
        let n = steps.len().saturating_sub(1);
        Self {
            states: vec![0.0; n],
            predicted: vec![0.0; n],
            steps: steps.to_vec(),
            images: 0,
        }
    }

    /// Inverts images and adds their distances. `distance` gives one number for each image of the batch, of its arguments' images.
    ///
    /// Source: Asyrp `diffusion_latent.py` `compute_lpips_distance`; a step's distance stands at the step that it arrives at.
    ///
    /// # Errors
    /// As [`invert`]; whatever `distance` fails with, or another number of distances than images.
    pub fn add(
        &mut self,
        net: &dyn Denoiser,
        schedule: &Schedule,
        x0: &Tensor,
        distance: &mut dyn FnMut(&Tensor, &Tensor) -> Result<Vec<f64>>,
    ) -> Result<()> {
        let n = x0.dim(0)?;
        let steps = self.steps.clone();
        let (mut states, mut predicted) = (Vec::new(), Vec::new());
        invert(net, schedule, x0, &steps, &mut |step| {
            for (kept, image) in [(&mut states, step.x), (&mut predicted, step.x0)] {
                let distances = distance(image, x0)?;
                if distances.len() != n {
                    bail!("{n} images, {} distances", distances.len());
                }
                kept.push(distances.iter().sum::<f64>());
            }
            Ok(())
        })?;
        // Only whole trajectories count.
        for (sums, new) in [(&mut self.states, states), (&mut self.predicted, predicted)] {
            for (sum, new) in sums.iter_mut().zip(new) {
                *sum += new;
            }
        }
        self.images += n;
        Ok(())
    }

    /// Mean distances of the states, for [`first_reaching`].
    pub fn states(&self) -> Vec<(usize, f64)> {
        self.means(&self.states)
    }

    /// Mean distances of the predicted images.
    pub fn predicted(&self) -> Vec<(usize, f64)> {
        self.means(&self.predicted)
    }

    fn means(&self, sums: &[f64]) -> Vec<(usize, f64)> {
        let n = self.images.max(1) as f64;
        let arrivals = self.steps.iter().skip(1).copied();
        arrivals.zip(sums.iter().map(|sum| sum / n)).collect()
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
        let image =
            |value: f32| Tensor::full(value, (1, 3, 2, 2), &candle_core::Device::Cpu).unwrap();
        let mut mean = |a: &Tensor, b: &Tensor| -> Result<Vec<f64>> {
            let apart = (a - b)?.abs()?.mean((1, 2, 3))?;
            apart.to_dtype(candle_core::DType::F64)?.to_vec1()
        };
        let curves = |batches: &[Tensor], distance: &mut dyn FnMut(&Tensor, &Tensor) -> _| {
            let mut curves = Curves::new(&steps);
            for x0 in batches {
                curves.add(&net, &schedule, x0, distance)?;
            }
            Ok::<_, candle_core::Error>(curves)
        };
        let (a, b) = (image(0.5), image(-0.25));
        let [one, other, both] = [vec![a.clone()], vec![b.clone()], vec![a.clone(), b.clone()]]
            .map(|batches| curves(&batches, &mut mean).unwrap());
        for curve in [Curves::states, Curves::predicted] {
            let (one, other, both) = (curve(&one), curve(&other), curve(&both));
            assert_eq!(both.iter().map(|c| c.0).collect::<Vec<_>>(), [200, 500]);
            for ((one, other), both) in one.iter().zip(&other).zip(&both) {
                assert!((0.5 * (one.1 + other.1) - both.1).abs() < 1e-7);
            }
            assert!(both[0].1 < both[1].1, "{both:?}");
        }
        // A batch is its images one by one.
        let together = Tensor::cat(&[a, b], 0).unwrap();
        let together = curves(&[together], &mut mean).unwrap().predicted();
        for (a, b) in together.iter().zip(both.predicted()) {
            assert!((a.1 - b.1).abs() < 1e-7);
        }
        let mut few = |_: &Tensor, _: &Tensor| Ok(vec![]);
        let error = curves(&[image(1.0)], &mut few).unwrap_err().to_string();
        assert!(error.contains("1 images, 0 distances"), "{error}");
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
