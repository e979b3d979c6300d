//! Dropout with an addressable mask.

use super::elementwise::mask;
use candle_core::{DType, Result, Tensor, bail};
use sdft_noise::{Draw, DropoutKey, Purpose};

/// Zeroes each element of `x` `[B, ..]` with probability `p` and scales the others by `1 / (1 - p)`.
///
/// The mask is a pure function of the key, `layer` (its lowest 24 bits are replaced by the number of the sample) and the position
/// within a sample, so it does not depend on how samples are batched.
///
/// # Errors
/// A key with another number of samples than `x`, or a type that is not floating-point.
pub fn dropout(x: &Tensor, p: f64, key: &DropoutKey<'_>, layer: u64) -> Result<Tensor> {
    if key.samples.len() != x.dim(0)? {
        bail!(
            "dropout: expected {} sample numbers, one for each image, found {}",
            x.dim(0)?,
            key.samples.len()
        );
    }
    let keep = 1.0 - p;
    let addresses: Vec<u64> = key
        .samples
        .iter()
        .map(|sample| (layer & !0xff_ffff) | (sample & 0xff_ffff))
        .collect();
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let address = (key.seed, Purpose::Dropout as u8, key.step);
        let factors = sdft_cuda::keep_factors(address, &addresses, x.dims(), keep, x.device())?;
        return mask(x, &factors);
    }
    let per_sample = x.elem_count() / x.dim(0)?.max(1);
    let mut factors = vec![0.0f32; x.elem_count()];
    for (&address, factors) in addresses
        .iter()
        .zip(factors.chunks_exact_mut(per_sample.max(1)))
    {
        Draw::new(key.seed, Purpose::Dropout, key.step, address).fill_uniform(factors);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a factor near one")]
    let scale = (1.0 / keep) as f32;
    for value in &mut factors {
        *value = if f64::from(*value) < keep { scale } else { 0.0 };
    }
    let factors = Tensor::from_vec(factors, x.shape(), x.device())?;
    let dtype = match x.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    mask(x, &factors.to_dtype(dtype)?)
}
