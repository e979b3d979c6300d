//! Sinusoids of the noise level.

use crate::EmbeddingType;
use crate::plan::Plan;
use candle_core::{DType, Device, Result, Tensor};
use sdft_nn::{Init, Scope};

/// The standard deviation of Fourier frequencies.
const FOURIER_SCALE: f64 = 16.0;

/// Sinusoids of `c_noise` at fixed frequencies.
///
/// Source: NVlabs/edm `PositionalEmbedding`, `FourierEmbedding`.
#[derive(Clone, Debug)]
pub(crate) struct NoiseEmbedding {
    frequencies: Vec<f32>,
    /// Whether sines come first, as `SongUNet` swaps them.
    sines_first: bool,
}

impl NoiseEmbedding {
    /// Key `map_noise.freqs`, a constant, of the Fourier embedding; the other has none.
    pub(crate) fn load(scope: &Scope<'_>, plan: &Plan<'_>) -> Result<Self> {
        let half = plan.noise() / 2;
        let frequencies = match plan.song.map(|song| song.embedding) {
            Some(EmbeddingType::Fourier) => {
                let freqs =
                    scope
                        .pp("map_noise")
                        .get("freqs", &[half], Init::Normal(FOURIER_SCALE))?;
                let freqs: Vec<f32> = freqs.to_dtype(DType::F32)?.to_vec1()?;
                freqs.iter().map(|f| f * std::f32::consts::TAU).collect()
            }
            Some(EmbeddingType::Positional) => positional(half, half - 1),
            None => positional(half, half),
        };
        Ok(Self {
            frequencies,
            sines_first: plan.song.is_some(),
        })
    }

    /// `[t.len(), 2 frequencies]` f32.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the reference works in f32"
    )]
    pub(crate) fn forward(&self, t: &[f32], device: &Device) -> Result<Tensor> {
        let n = self.frequencies.len();
        let mut out = Vec::with_capacity(2 * n * t.len());
        for &t in t {
            let angles = || self.frequencies.iter().map(|f| f64::from(t * f));
            let (cosines, sines) = (
                angles().map(|a| a.cos() as f32),
                angles().map(|a| a.sin() as f32),
            );
            if self.sines_first {
                out.extend(sines.chain(cosines));
            } else {
                out.extend(cosines.chain(sines));
            }
        }
        Tensor::from_vec(out, (t.len(), 2 * n), device)
    }
}

/// `10000^(-i / last)` for i = 0 .. n, rounded to f32 where the reference does.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference works in f32"
)]
fn positional(n: usize, last: usize) -> Vec<f32> {
    let base = f64::from(1e-4f32);
    (0..n)
        .map(|i| base.powf(f64::from(i as f32 / last as f32)) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frequency_is_reached_with_an_endpoint_only() {
        let with = positional(64, 63);
        let without = positional(64, 64);
        assert_eq!((with[0], without[0]), (1.0, 1.0));
        assert!((with[63] - 1e-4).abs() < 1e-10, "{}", with[63]);
        assert!((without[63] - 1.154_782e-4).abs() < 1e-9, "{}", without[63]);
    }

    #[test]
    fn halves_are_swapped_for_song_unet() {
        let of = |sines_first| {
            let embedding = NoiseEmbedding {
                frequencies: vec![1.0, 0.5],
                sines_first,
            };
            let out = embedding.forward(&[2.0], &Device::Cpu).unwrap();
            out.to_vec2::<f32>().unwrap()[0].clone()
        };
        let expected = [2.0f32.cos(), 1.0f32.cos(), 2.0f32.sin(), 1.0f32.sin()];
        assert!(
            of(false)
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        assert_eq!(of(true)[..2], of(false)[2..]);
        assert_eq!(of(true)[2..], of(false)[..2]);
    }
}
