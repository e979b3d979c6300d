//! Matrices of separable, differentiable resampling.

use candle_core::{DType, Device, Result, Tensor};

/// The `[target, source]` matrix of PyTorch's adaptive average pooling: bin `i` is the mean of
/// `floor(i source / target) .. ceil((i + 1) source / target)`.
pub(crate) fn adaptive_average(
    source: usize,
    target: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut matrix = vec![0.0f64; target * source];
    for (i, row) in matrix.chunks_exact_mut(source).enumerate() {
        let bin = i * source / target..((i + 1) * source).div_ceil(target);
        let share = 1.0 / bin.len() as f64;
        row[bin].fill(share);
    }
    Tensor::from_vec(matrix, (target, source), device)?.to_dtype(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_autograd::separable;

    #[test]
    fn bins_overlap_where_sizes_do_not_divide() {
        let device = Device::Cpu;
        let matrix = adaptive_average(5, 3, DType::F64, &device).unwrap();
        let half = 0.5;
        let third = 1.0 / 3.0;
        assert_eq!(
            matrix.to_vec2::<f64>().unwrap(),
            [
                [half, half, 0.0, 0.0, 0.0],
                [0.0, third, third, third, 0.0],
                [0.0, 0.0, 0.0, half, half]
            ]
        );
        let x = Tensor::arange(0f64, 50.0, &device)
            .unwrap()
            .reshape((1, 2, 5, 5))
            .unwrap();
        let y = separable(&matrix, &x, &matrix).unwrap();
        assert_eq!(y.dims(), [1, 2, 3, 3]);
        let first = y.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((first - 3.0).abs() < 1e-12);
    }
}
