use crate::ops::mask as masked;
use crate::params::name_hash;
use candle_core::{DType, Result, Tensor};
use sdft_noise::{Draw, DropoutKey, Purpose};

/// Drops features with probability `p` and scales the others by `1 / (1 - p)`.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    p: f64,
    layer: u64,
}

impl Dropout {
    pub(crate) fn new(p: f64, name: &str) -> Self {
        // 40 bits for the layer leave 24 for the sample within a step.
        Self {
            p,
            layer: name_hash(name) << 24,
        }
    }

    /// Without a key nothing is dropped: that is evaluation.
    pub(crate) fn forward(&self, x: &Tensor, key: Option<&DropoutKey<'_>>) -> Result<Tensor> {
        let Some(key) = key.filter(|_| self.p > 0.0) else {
            return Ok(x.clone());
        };
        if key.samples.len() != x.dim(0)? {
            candle_core::bail!(
                "dropout: {} sample numbers for a batch of {}",
                key.samples.len(),
                x.dim(0)?
            );
        }
        let keep = 1.0 - self.p;
        let addresses: Vec<u64> = key
            .samples
            .iter()
            .map(|sample| self.layer | (sample & 0xff_ffff))
            .collect();
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let place = (key.seed, Purpose::Dropout as u8, key.step);
            let factors = sdft_cuda::keep_factors(place, &addresses, x.dims(), keep, x.device())?;
            return masked(x, &factors);
        }
        let per_sample = x.elem_count() / x.dim(0)?.max(1);
        let mut mask = vec![0.0f32; x.elem_count()];
        for (&address, mask) in addresses
            .iter()
            .zip(mask.chunks_exact_mut(per_sample.max(1)))
        {
            Draw::new(key.seed, Purpose::Dropout, key.step, address).fill_uniform(mask);
        }
        for value in &mut mask {
            #[expect(clippy::cast_possible_truncation, reason = "a factor near one")]
            let factor = (1.0 / keep) as f32;
            *value = if f64::from(*value) < keep {
                factor
            } else {
                0.0
            };
        }
        let factors = Tensor::from_vec(mask, x.shape(), x.device())?;
        let dtype = match x.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        masked(x, &factors.to_dtype(dtype)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn drops_the_share_asked_for_keeps_the_mean_and_ignores_how_a_batch_is_split() {
        let x = Tensor::ones((4, 8, 16, 16), DType::F32, &Device::Cpu).unwrap();
        let dropout = Dropout::new(0.25, "input_blocks.1.0");
        assert_eq!(
            dropout
                .forward(&x, None)
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
            8192.0
        );
        let key = DropoutKey {
            seed: 1,
            step: 5,
            samples: &[0, 1, 2, 3],
        };
        let whole = dropout.forward(&x, Some(&key)).unwrap();
        let values: Vec<f32> = whole.flatten_all().unwrap().to_vec1().unwrap();
        let dropped = values.iter().filter(|v| **v == 0.0).count() as f64 / 8192.0;
        assert!((0.22..0.28).contains(&dropped), "{dropped}");
        assert!(
            values
                .iter()
                .all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6)
        );
        let second = DropoutKey {
            samples: &[2, 3],
            ..key
        };
        let half = dropout
            .forward(&x.narrow(0, 2, 2).unwrap(), Some(&second))
            .unwrap();
        assert_eq!(
            half.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            values[4096..]
        );
        let other = Dropout::new(0.25, "input_blocks.2.0")
            .forward(&x, Some(&key))
            .unwrap();
        assert_ne!(
            other.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            values
        );
    }
}
