//! Embedding of timesteps.

use candle_core::{Device, Result, Tensor};

/// The variants of a sinusoidal embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sinusoids {
    /// The longest period, over 2 pi.
    pub max_period: f64,
    /// Subtracted from the number of frequencies, so that the last one is closer to `1 / max_period`.
    pub freq_shift: f64,
    /// Sines before cosines.
    pub sines_first: bool,
}

impl Sinusoids {
    /// The embedding of `t`, with a zero at the end if `dim` is odd.
    ///
    /// Source: diffusers `get_timestep_embedding`.
    /// ```text
    /// f_i = exp(-ln(max_period) i / (half - freq_shift)),  half = dim / 2        [ cos(t f_0) .. sin(t f_0) .. ]
    /// ```
    /// The frequencies are rounded to f32 as the references do, since t f_i reaches 1000 radians.
    ///
    /// # Shapes
    /// - returns: `[t.len(), dim]` f32
    ///
    /// # Errors
    /// An allocation that fails.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the references work in f32"
    )]
    pub fn embed(&self, t: &[f32], dim: usize, device: &Device) -> Result<Tensor> {
        let half = dim / 2;
        let divisor = (half as f64 - self.freq_shift) as f32;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let exponent = -(self.max_period.ln() as f32) * i as f32 / divisor;
                f64::from(exponent).exp() as f32
            })
            .collect();
        let functions: [fn(f64) -> f64; 2] = match self.sines_first {
            true => [f64::sin, f64::cos],
            false => [f64::cos, f64::sin],
        };
        let mut out = Vec::with_capacity(t.len() * dim);
        for &t in t {
            for function in functions {
                let value = |f: &f32| function(f64::from(t * f)) as f32;
                out.extend(frequencies.iter().map(value));
            }
            out.extend(std::iter::repeat_n(0.0, dim % 2));
        }
        Tensor::from_vec(out, (t.len(), dim), device)
    }
}

/// Sinusoidal embedding of timesteps: cosines first, then sines, a zero at the end if `dim` is odd.
///
/// Source: guided-diffusion `timestep_embedding`; [`Sinusoids`] with a shift of 0.
///
/// # Shapes
/// - returns: `[t.len(), dim]` f32
///
/// # Errors
/// An allocation that fails.
pub fn timestep_embedding(
    t: &[f32],
    dim: usize,
    max_period: f64,
    device: &Device,
) -> Result<Tensor> {
    let sinusoids = Sinusoids {
        max_period,
        freq_shift: 0.0,
        sines_first: false,
    };
    sinusoids.embed(t, dim, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_at_both_ends() {
        let e = timestep_embedding(&[1.0, 999.0], 128, 10000.0, &Device::Cpu).unwrap();
        let e: Vec<Vec<f32>> = e.to_vec2().unwrap();
        let near = |got: f32, want: f32| assert!((got - want).abs() < 2e-6, "{got} {want}");
        near(e[0][0], 0.540_302_34);
        near(e[0][1], 0.647_905_9);
        near(e[0][64], 0.841_470_96);
        near(e[0][63], 1.0);
        near(e[0][127], 1.154_781_6e-4);
        near(e[1][0], 0.999_649_8);
        assert!((e[1][1] + 0.399_020_55).abs() < 2e-4);
    }

    #[test]
    fn a_shift_of_one_ends_at_the_longest_period_and_sines_may_come_first() {
        let sinusoids = Sinusoids {
            max_period: 10000.0,
            freq_shift: 1.0,
            sines_first: true,
        };
        let e = sinusoids.embed(&[2.0], 9, &Device::Cpu).unwrap();
        let e: Vec<f32> = e.flatten_all().unwrap().to_vec1().unwrap();
        let near = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 2e-6);
        near(e[0], 2f64.sin());
        near(e[3], 2e-4f64.sin());
        near(e[4], 2f64.cos());
        near(e[7], 2e-4f64.cos());
        assert_eq!(e[8], 0.0);
    }
}
