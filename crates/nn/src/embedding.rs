//! Embedding of timesteps.

use candle_core::{Device, Result, Tensor};

/// Sinusoidal embedding of timesteps: cosines first, then sines, a zero at the end if `dim` is odd.
///
/// Source: guided-diffusion `timestep_embedding`.
/// ```text
/// f_i = exp(-ln(max_period) i / half),  half = dim / 2        [ cos(t f_0) .. sin(t f_0) .. ]
/// ```
/// The frequencies are rounded to f32 as the reference does, since t f_i reaches 1000 radians.
///
/// # Shapes
/// - returns: `[t.len(), dim]` f32
///
/// # Errors
/// An allocation that fails.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference works in f32"
)]
pub fn timestep_embedding(
    t: &[f32],
    dim: usize,
    max_period: f64,
    device: &Device,
) -> Result<Tensor> {
    let half = dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = -(max_period.ln() as f32) * i as f32 / half as f32;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let mut out = Vec::with_capacity(t.len() * dim);
    for &t in t {
        let angle = |f: &f32| f64::from(t * f);
        out.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
        out.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
        out.extend(std::iter::repeat_n(0.0, dim % 2));
    }
    Tensor::from_vec(out, (t.len(), dim), device)
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
}
