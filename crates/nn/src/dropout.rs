//! Dropout as a layer with a name.

use crate::params::name_hash;
use candle_core::{Result, Tensor};
use sdft_autograd::dropout;
use sdft_noise::DropoutKey;

/// Drops features with probability `p` and scales the others by `1 / (1 - p)`.
#[derive(Clone, Debug)]
pub struct Dropout {
    p: f64,
    layer: u64,
}

impl Dropout {
    /// A layer that drops with probability `p`; `name` tells its masks from those of other layers.
    pub fn new(p: f64, name: &str) -> Self {
        // 40 bits for the layer leave 24 for the sample within a step.
        Self {
            p,
            layer: name_hash(name) << 24,
        }
    }

    /// Drops nothing without a key: that is evaluation.
    ///
    /// # Errors
    /// A key for another number of samples.
    pub fn forward(&self, x: &Tensor, key: Option<&DropoutKey<'_>>) -> Result<Tensor> {
        match key {
            Some(key) if self.p > 0.0 => dropout(x, self.p, key, self.layer),
            _ => Ok(x.clone()),
        }
    }
}

/// An owned [`DropoutKey`], for the backward pass.
#[derive(Clone, Debug)]
pub struct OwnedKey {
    seed: u64,
    step: u64,
    samples: Vec<u64>,
}

impl OwnedKey {
    /// A copy of `key`.
    pub fn new(key: &DropoutKey<'_>) -> Self {
        Self {
            seed: key.seed,
            step: key.step,
            samples: key.samples.to_vec(),
        }
    }

    /// The key.
    pub fn lend(&self) -> DropoutKey<'_> {
        DropoutKey {
            seed: self.seed,
            step: self.step,
            samples: &self.samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn dropout_has_its_rate_keeps_the_mean_and_ignores_how_samples_are_batched() {
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
