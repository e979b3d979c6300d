//! Random tensors, and the difference of two.

use candle_core::{DType, Device, Tensor};
use sdft_noise::{Draw, Purpose};

/// Standard normal numbers in f32 on the CPU. Sample `i` of the first axis depends on the seed and on `i` only.
pub fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let samples = shape.first().map_or(1, |n| *n);
    let each = shape.iter().skip(1).product();
    let draw = |i: usize| Draw::new(seed, Purpose::Test, 0, i as u64).normals(each);
    let values: Vec<f32> = (0..samples).flat_map(draw).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many numbers as the shape has")
}

/// The values of a tensor in f32, row-major.
///
/// # Panics
/// The tensor cannot be converted.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all());
    flat.and_then(|t| t.to_vec1()).expect("a tensor of numbers")
}

/// The largest absolute difference of two tensors of the same shape; NaN if a value is NaN.
///
/// # Panics
/// The shapes differ.
pub fn max_abs_diff(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims(), "tensors of the same shape");
    let (a, b) = (values(a), values(b));
    let differences = a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, |most: f64, d| {
        // `f64::max` would drop NaN.
        if most.is_nan() || d <= most { most } else { d }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_does_not_depend_on_the_batch() {
        let (one, two) = (normal(3, &[1, 4]), normal(3, &[2, 4]));
        assert_eq!(values(&one), values(&two)[..4]);
        assert_ne!(values(&one), values(&two)[4..]);
    }

    #[test]
    fn the_difference_is_the_largest_and_nan_counts() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        assert_eq!(
            max_abs_diff(&tensor(&[1.0, 5.0]), &tensor(&[2.0, 2.0])),
            3.0
        );
        assert!(max_abs_diff(&tensor(&[f32::NAN, 1.0]), &tensor(&[0.0, 0.5])).is_nan());
    }
}
