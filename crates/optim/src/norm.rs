//! The global norm of the gradients, clipping, and the names of gradients that are not finite.

use candle_core::{CpuStorage, DType, Storage, Tensor};

use crate::{error::Result, kernels::sum_of_squares};

/// The 2-norm over all gradients together, accumulated in f64; missing gradients count as zero.
///
/// On the CPU the sum runs over chunks of fixed size whose sums are added in order, so its bits do not depend on the number of threads.
/// It is not finite if and only if some gradient is not.
///
/// # Errors
/// A tensor operation fails.
pub fn global_norm(grads: &[Option<Tensor>]) -> Result<f64> {
    let sum: Result<f64> = rayon::scope(|_| {
        let mut sum = 0.0;
        for grad in grads.iter().flatten() {
            sum += squares(grad)?;
        }
        Ok(sum)
    });
    Ok(sum?.sqrt())
}

/// The factor that brings gradients of norm `norm` to at most `max_norm`: `min(1, max_norm / (norm + 1e-6))`.
///
/// NaN if `norm` is not finite, because no factor repairs such gradients; [`Optimizer::step`](crate::Optimizer::step) refuses it.
///
/// Code reference: torch `clip_grad_norm_`.
#[must_use]
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    if norm.is_finite() {
        (max_norm / (norm + 1e-6)).min(1.0)
    } else {
        f64::NAN
    }
}

/// The names of the gradients that have an entry that is infinite or NaN.
///
/// # Shapes
/// - `names` and `grads` in the same order
/// # Errors
/// A tensor operation fails.
pub fn non_finite<'a>(
    names: impl IntoIterator<Item = &'a str>,
    grads: &[Option<Tensor>],
) -> Result<Vec<&'a str>> {
    let mut broken = Vec::new();
    for (name, grad) in names.into_iter().zip(grads) {
        if let Some(grad) = grad
            && !squares(grad)?.is_finite()
        {
            broken.push(name);
        }
    }
    Ok(broken)
}

/// The sum of squares of one tensor. Squares of f32 do not overflow in f64, so it is finite exactly when every entry is.
fn squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let Storage::Cpu(CpuStorage::F32(values)) = &*storage
            && let Some((start, end)) = layout.contiguous_offsets()
        {
            return Ok(sum_of_squares(&values[start..end]));
        }
    }
    Ok(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(values, &Device::Cpu).unwrap())
    }

    #[test]
    fn the_norm_is_that_of_all_entries_together() {
        let grads = [tensor(&[3.0, 0.0]), None, tensor(&[4.0]), tensor(&[12.0])];
        assert_eq!(global_norm(&grads).unwrap(), 13.0);
        assert_eq!(global_norm(&[]).unwrap(), 0.0);
        let wide = Some(Tensor::new(&[3.0_f64, 4.0], &Device::Cpu).unwrap());
        assert_eq!(global_norm(&[wide]).unwrap(), 5.0);
    }

    #[test]
    fn views_are_read_as_views() {
        let matrix = Tensor::new(&[[1.0_f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let column = matrix.narrow(1, 1, 1).unwrap();
        assert_eq!(global_norm(&[Some(column)]).unwrap(), 20.0_f64.sqrt());
        let row = matrix.narrow(0, 1, 1).unwrap();
        assert_eq!(global_norm(&[Some(row)]).unwrap(), 5.0);
    }

    #[test]
    fn large_entries_do_not_overflow() {
        let norm = global_norm(&[tensor(&[f32::MAX, f32::MAX])]).unwrap();
        assert!((norm / (f64::from(f32::MAX) * 2.0_f64.sqrt()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn clipping_only_shrinks() {
        assert_eq!(clip_coefficient(0.5, 1.0), 1.0);
        assert_eq!(clip_coefficient(0.0, 1.0), 1.0);
        assert_eq!(clip_coefficient(4.0, 1.0), 1.0 / 4.000001);
        assert!(clip_coefficient(f64::NAN, 1.0).is_nan());
        assert!(clip_coefficient(f64::INFINITY, 1.0).is_nan());
    }

    #[test]
    fn broken_gradients_are_named() {
        let grads = [
            tensor(&[1.0]),
            tensor(&[1.0, f32::NAN]),
            None,
            tensor(&[f32::NEG_INFINITY]),
            tensor(&[f32::MAX]),
        ];
        let names = ["a", "b", "c", "d", "e"];
        assert_eq!(non_finite(names, &grads).unwrap(), ["b", "d"]);
    }
}
