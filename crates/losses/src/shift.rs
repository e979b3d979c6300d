//! Guidance that is built into the target of the base loss.

use candle_core::{D, Result, Tensor};
use sdft_diffusion::Level;

/// DogFit: `(w - 1) (eps_average - eps_source)`, so that the network learns `eps + (w - 1) (eps_average - eps_source)`. `w = 1` is 0.
///
/// `average` is the prediction of the averaged weights, `source` that of the source model without class.
///
/// Source: DogFit, 2025; yaramohamadi/DogFit `train_DogFit.py`.
///
/// # Errors
/// Shapes that differ.
pub fn dogfit_shift(w: f64, average: &Tensor, source: &Tensor) -> Result<Tensor> {
    Ok(((average - source)? * (w - 1.0))?.detach())
}

/// ANT: `-c (1 - alpha_bar) grad_x log p(target | x_t)`, the similarity-guided part of the target.
///
/// Source: Wang et al., Bridging Data Gaps in Diffusion Models with Adversarial Noise-Based Transfer Learning, 2024;
/// ChhaviPan23/DPMs-ANT `train.py`.
///
/// # Shapes
/// - `gradient`: `[B, C, H, W]` of the log-probability · `levels`: `B`
///
/// # Errors
/// Another number of levels than images.
pub fn ant_shift(c: f64, levels: &[Level], gradient: &Tensor) -> Result<Tensor> {
    let factors: Vec<f64> = levels
        .iter()
        .map(|level| -c * (1.0 - level.alpha_bar))
        .collect();
    let factors = Tensor::new(factors, gradient.device())?.to_dtype(gradient.dtype())?;
    let factors = factors.reshape((levels.len(), 1, 1, 1))?;
    gradient.detach().broadcast_mul(&factors)
}

/// ANT: one round of the choice of adversarial noise. The noise moves away from its prediction, and every image's noise gets mean 0 and
/// deviation 1 again: `e <- normalise(e + omega grad_e || e - eps_theta ||^2)`, where the prediction is a constant. The public code does
/// the same after its first round, and takes the mean over its batch: its omega of 0.02 at a batch of 5 is 0.004 here.
///
/// # Shapes
/// - `noise`, `prediction`: `[B, C, H, W]`
///
/// # Errors
/// Shapes that differ.
pub fn adversarial_noise(omega: f64, noise: &Tensor, prediction: &Tensor) -> Result<Tensor> {
    let moved = (noise + ((noise - prediction)? * (2.0 * omega))?)?;
    let flat = moved.flatten_from(1)?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
    let count = flat.dim(1)?.saturating_sub(1).max(1) as f64;
    let deviation = (centred.sqr()?.sum_keepdim(1)? / count)?
        .maximum(1e-16)?
        .sqrt()?;
    centred.broadcast_div(&deviation)?.reshape(noise.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_noise::Purpose;
    use sdft_randn::randn;

    fn images(seed: u64) -> Tensor {
        randn(seed, Purpose::Test, 0, 0, &[2, 3, 4, 4], &Device::Cpu).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn dogfit_of_weight_one_shifts_nothing() {
        let (a, b) = (images(1), images(2));
        assert!(
            numbers(&dogfit_shift(1.0, &a, &b).unwrap())
                .iter()
                .all(|x| *x == 0.0)
        );
        let shift = numbers(&dogfit_shift(1.5, &a, &b).unwrap());
        let pairs = numbers(&a).into_iter().zip(numbers(&b));
        for (found, (a, b)) in shift.iter().zip(pairs) {
            assert!((found - 0.5 * (a - b)).abs() < 1e-6);
        }
    }

    #[test]
    fn similarity_guidance_grows_with_the_noise() {
        let gradient = images(3);
        let level = |alpha_bar| Level {
            alpha_bar,
            t: 0.0,
            step: None,
        };
        let shift = numbers(&ant_shift(5.0, &[level(0.9), level(0.2)], &gradient).unwrap());
        for (i, (found, gradient)) in shift.iter().zip(numbers(&gradient)).enumerate() {
            let factor = if i < 48 { -0.5 } else { -4.0 };
            assert!((found - factor * gradient).abs() < 1e-5, "{i}");
        }
    }

    #[test]
    fn adversarial_noise_is_further_from_its_prediction_and_stays_normal() {
        let (noise, prediction) = (images(4), images(5));
        let harder = adversarial_noise(0.02, &noise, &prediction).unwrap();
        let flat: Vec<Vec<f32>> = harder.flatten_from(1).unwrap().to_vec2().unwrap();
        for row in flat {
            let mean = row.iter().sum::<f32>() / 48.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 47.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
        }
        // By hand: normalise(e + 0.04 (e - prediction)).
        let moved = ((&noise * 1.04).unwrap() - (&prediction * 0.04).unwrap()).unwrap();
        let row: Vec<f32> = moved
            .get(0)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let mean = row.iter().sum::<f32>() / 48.0;
        let deviation = (row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 47.0).sqrt();
        for (found, x) in numbers(&harder).iter().zip(&row) {
            assert!((found - (x - mean) / deviation).abs() < 1e-5);
        }
        let same = adversarial_noise(0.0, &harder, &prediction).unwrap();
        let pairs = numbers(&same).into_iter().zip(numbers(&harder));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
