//! DDPM-PA: images keep the distances that the source model's predictions of them have.

use candle_core::{D, Result, Tensor, bail};

/// The factors of DDPM-PA's terms; 0 leaves a term out.
///
/// Source: Zhu et al., Few-shot Image Generation with Diffusion Models, 2022; bbzhu-jy16/DomainStudio, `Unconditional/guided_diffusion`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairwise {
    /// Of [`pairwise_divergence`] between the predicted clean images.
    pub weight: f64,
    /// Of [`pairwise_divergence`] between their [`high_frequencies`].
    pub hf_weight: f64,
    /// Of the squared error of the [`high_frequencies`].
    pub hf_mse_weight: f64,
}

/// How different the distances within two batches are: for each image the cosine similarities to all others become a distribution by
/// softmax, and the result is the mean over all entries of `p_source (ln p_source - ln p_student)`. 0 for fewer than two images.
///
/// No gradient reaches the source model.
///
/// # Shapes
/// - `student`, `source`: `[B, ..]` · returns: a scalar
///
/// # Errors
/// Shapes that differ.
pub fn pairwise_divergence(student: &Tensor, source: &Tensor) -> Result<Tensor> {
    if student.dims() != source.dims() {
        bail!(
            "expected as many values from both networks, found {:?} and {:?}",
            student.dims(),
            source.dims()
        );
    }
    let n = student.dim(0)?;
    if n < 2 {
        return Tensor::zeros((), student.dtype(), student.device());
    }
    let student = log_probabilities(student)?;
    let source = log_probabilities(&source.detach())?;
    (source.exp()? * (source - student)?)?.mean_all()
}

/// The logarithm of the softmax over the similarities of each image to the others, `[B, B - 1]`.
fn log_probabilities(x: &Tensor) -> Result<Tensor> {
    let x = x.flatten_from(1)?;
    let n = x.dim(0)?;
    let length = x.sqr()?.sum_keepdim(1)?.maximum(1e-16)?.sqrt()?;
    let unit = x.broadcast_div(&length)?;
    let similarity = unit.matmul(&unit.t()?)?.flatten_all()?;
    let others = (0..n).flat_map(|i| (0..n).filter(move |&j| j != i).map(move |j| i * n + j));
    let others: Vec<u32> = others.map(|place| place as u32).collect();
    let places = Tensor::new(others, x.device())?;
    let similarity = similarity.index_select(&places, 0)?.reshape((n, n - 1))?;
    candle_nn::ops::log_softmax(&similarity, D::Minus1)
}

/// The sum of the three high bands of Haar's wavelet, at half the size; an odd last row or column is left out.
///
/// For each 2x2 block `[[a, b], [c, d]]` it is `(3 d - a - b - c) / 2`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, H/2, W/2]`
///
/// # Errors
/// Images without two rows and columns.
pub fn high_frequencies(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let (h, w) = (h / 2, w / 2);
    let blocks = x.narrow(2, 0, 2 * h)?.narrow(3, 0, 2 * w)?;
    let blocks = blocks.contiguous()?.reshape(&[b, c, h, 2, w, 2][..])?;
    let sum = blocks.sum(5)?.sum(3)?;
    let last = blocks.narrow(3, 1, 1)?.narrow(5, 1, 1)?;
    let last = last.contiguous()?.reshape((b, c, h, w))?;
    (last * 2.0)? - (sum * 0.5)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use sdft_autograd::backward;

    fn images(seed: u64) -> Tensor {
        let dims = [3, 2, 4, 4];
        sdft_randn::randn(seed, sdft_noise::Purpose::Test, 0, 0, &dims, &Device::Cpu).unwrap()
    }

    /// The definition, in f64 and with loops.
    fn by_hand(student: &Tensor, source: &Tensor) -> f64 {
        let rows = |x: &Tensor| -> Vec<Vec<f64>> {
            let x = x.to_dtype(candle_core::DType::F64).unwrap();
            x.flatten_from(1).unwrap().to_vec2().unwrap()
        };
        let softmax = |x: &Tensor| -> Vec<Vec<f64>> {
            let rows = rows(x);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            (0..rows.len())
                .map(|i| {
                    let others = (0..rows.len()).filter(|&j| j != i).map(|j| {
                        let (a, b) = (&rows[i], &rows[j]);
                        (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).exp()
                    });
                    let all: Vec<f64> = others.collect();
                    let sum: f64 = all.iter().sum();
                    all.iter().map(|value| value / sum).collect()
                })
                .collect()
        };
        let (student, source) = (softmax(student), softmax(source));
        let pairs = student.iter().flatten().zip(source.iter().flatten());
        let sum: f64 = pairs.map(|(s, p)| p * (p.ln() - s.ln())).sum();
        sum / (student.len() * (student.len() - 1)) as f64
    }

    #[test]
    fn the_divergence_is_that_of_its_definition_and_zero_for_equal_batches() {
        let (a, b) = (images(1), images(2));
        let found: f32 = pairwise_divergence(&a, &b).unwrap().to_scalar().unwrap();
        let expected = by_hand(&a, &b);
        assert!(expected > 1e-4 && (f64::from(found) - expected).abs() < 1e-6);
        let same: f32 = pairwise_divergence(&a, &a).unwrap().to_scalar().unwrap();
        assert_eq!(same, 0.0);
        let one = a.narrow(0, 0, 1).unwrap();
        let none: f32 = pairwise_divergence(&one, &one)
            .unwrap()
            .to_scalar()
            .unwrap();
        assert_eq!(none, 0.0);
        assert!(pairwise_divergence(&one, &a).is_err());
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (a, b) = (images(1), images(2));
        let value = |x: &Tensor| by_hand(x, &b) + by_hand(&half(x), &half(&b));
        fn half(x: &Tensor) -> Tensor {
            high_frequencies(x).unwrap()
        }
        let var = Var::from_tensor(&a).unwrap();
        let whole = pairwise_divergence(var.as_tensor(), &b).unwrap();
        let fine = pairwise_divergence(&half(var.as_tensor()), &half(&b)).unwrap();
        let gradients = backward(&(whole + fine).unwrap()).unwrap();
        let gradient: Vec<f32> = gradients
            .get(&var)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let flat: Vec<f32> = a.flatten_all().unwrap().to_vec1().unwrap();
        for i in [0, 7, 31, 64, 95] {
            let at = |step: f32| {
                let mut moved = flat.clone();
                moved[i] += step;
                value(&Tensor::from_vec(moved, a.dims(), &Device::Cpu).unwrap())
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            let error = (slope - f64::from(gradient[i])).abs();
            assert!(error < 2e-5, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn high_frequencies_are_the_sum_of_the_three_high_bands() {
        let x = images(3);
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let found: Vec<f32> = high_frequencies(&x)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        for (i, value) in found.iter().enumerate() {
            let (image, row, column) = (i / 4, i / 2 % 2, i % 2);
            let at = |y: usize, x: usize| values[image * 16 + (2 * row + y) * 4 + 2 * column + x];
            let lowpass_high = (at(0, 1) + at(1, 1) - at(0, 0) - at(1, 0)) / 2.0;
            let high_lowpass = (at(1, 0) + at(1, 1) - at(0, 0) - at(0, 1)) / 2.0;
            let both = (at(0, 0) + at(1, 1) - at(0, 1) - at(1, 0)) / 2.0;
            assert!((value - (lowpass_high + high_lowpass + both)).abs() < 1e-5);
        }
        let flat = Tensor::full(0.7f32, (1, 1, 5, 4), &Device::Cpu).unwrap();
        let none = high_frequencies(&flat).unwrap();
        assert_eq!(none.dims(), [1, 1, 2, 2]);
        assert!(
            none.abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
                < 1e-6
        );
    }
}
