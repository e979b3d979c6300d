//! Normal tensors at an address.

use candle_core::{Device, Result, Tensor, bail};
use sdft_noise::{Draw, Purpose};

/// Independent normal numbers for consecutive samples: sample `i` has the stream (seed, purpose, step, first + i).
///
/// # Shapes
/// - returns: `shape`, whose first dimension counts samples, f32
///
/// # Errors
/// When the device fails.
pub fn randn(
    seed: u64,
    purpose: Purpose,
    step: u64,
    first: u64,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let samples = shape.first().copied().unwrap_or(0) as u64;
    let numbers: Vec<u64> = (first..first + samples).collect();
    numbered(seed, purpose, step, &numbers, shape, device)
}

/// The same for samples that have numbers: sample `i` has the stream (seed, purpose, step, `numbers[i]`).
pub(crate) fn numbered(
    seed: u64,
    purpose: Purpose,
    step: u64,
    numbers: &[u64],
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    if shape.first() != Some(&numbers.len()) {
        bail!(
            "noise: expected a shape that starts with {} samples, found {shape:?}",
            numbers.len()
        );
    }
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return sdft_cuda::normals((seed, purpose as u8, step), numbers, shape, device);
    }
    let n: usize = shape.iter().product();
    let mut data = vec![0.0f32; n];
    let each = n / numbers.len().max(1);
    for (&number, sample) in numbers.iter().zip(data.chunks_exact_mut(each.max(1))) {
        Draw::new(seed, purpose, step, number).fill_normal(sample);
    }
    Tensor::from_vec(data, shape, device)
}
