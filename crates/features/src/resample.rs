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

/// The `[target, source]` matrix of PyTorch's bicubic interpolation without antialiasing, with `align_corners=False`: the Keys cubic with
/// a = -0.75 at `scale (i + 0.5) - 0.5`; pixels outside are those of the border. `like` has the type and the device of the matrix.
pub(crate) fn bicubic([source, target]: [usize; 2], scale: f64, like: &Tensor) -> Result<Tensor> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let mut matrix = vec![0.0f64; target * source];
    for (i, row) in matrix.chunks_exact_mut(source).enumerate() {
        let at = scale * (i as f64 + 0.5) - 0.5;
        let (first, share) = (at.floor(), at - at.floor());
        let weights = [
            far(share + 1.0),
            near(share),
            near(1.0 - share),
            far(2.0 - share),
        ];
        for (tap, weight) in weights.into_iter().enumerate() {
            let place = (first + tap as f64 - 1.0).clamp(0.0, source as f64 - 1.0);
            row[place as usize] += weight;
        }
    }
    Tensor::from_vec(matrix, (target, source), like.device())?.to_dtype(like.dtype())
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
