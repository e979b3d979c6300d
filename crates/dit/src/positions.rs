//! The positions of tokens: constants of sines and cosines.

use candle_core::{Device, Result, Tensor};

/// The positions of a grid of tokens, rows of the image one after the other: half of the channels for the column, half for the row, sines
/// before cosines.
///
/// `base` is the side of the grid that the network was made for: other grids are stretched to its range.
///
/// Source: diffusers `get_2d_sincos_pos_embed`; the official code's `get_2d_sincos_pos_embed` at its own size.
///
/// # Shapes
/// - returns: `[channels, h w]` f32
///
/// # Errors
/// An allocation that fails.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the references round places and results to f32"
)]
pub fn positions(channels: usize, base: usize, [h, w]: [usize; 2]) -> Result<Tensor> {
    let quarter = channels / 4;
    // Along one side: for each frequency the sine, then the cosine, of every place.
    let along = |side: usize| -> Vec<f32> {
        let stretch = (side as f64 / base as f64) as f32;
        let functions: [fn(f64) -> f64; 2] = [f64::sin, f64::cos];
        let mut values = Vec::with_capacity(2 * quarter * side);
        for function in functions {
            for i in 0..quarter {
                let omega = 1.0 / 10_000f64.powf(i as f64 / quarter as f64);
                let place = |at| f64::from(at as f32 / stretch);
                values.extend((0..side).map(|at| function(place(at) * omega) as f32));
            }
        }
        values
    };
    let (columns, rows) = (along(w), along(h));
    let mut all = Vec::with_capacity(4 * quarter * h * w);
    for values in columns.chunks_exact(w.max(1)) {
        (0..h).for_each(|_| all.extend_from_slice(values));
    }
    for values in rows.chunks_exact(h.max(1)) {
        for &value in values {
            all.extend(std::iter::repeat_n(value, w));
        }
    }
    Tensor::from_vec(all, (4 * quarter, h * w), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_before_rows_and_larger_grids_keep_the_range() {
        let at = |t: &Tensor, channel: usize, token: usize| -> f32 {
            let row: Vec<f32> = t.get(channel).unwrap().to_vec1().unwrap();
            row[token]
        };
        // Channels: sine and cosine of the column with frequencies 1 and 1/100, then those of the row.
        let own = positions(8, 2, [2, 2]).unwrap();
        assert_eq!(own.dims(), [8, 4]);
        assert_eq!(at(&own, 0, 1), 1f32.sin());
        assert_eq!(at(&own, 0, 2), 0.0);
        assert_eq!(at(&own, 1, 3), 0.01f64.sin() as f32);
        assert_eq!(at(&own, 2, 1), 1f64.cos() as f32);
        assert_eq!(at(&own, 4, 2), 1f64.sin() as f32);
        assert_eq!(at(&own, 4, 1), 0.0);
        let wide = positions(8, 2, [2, 8]).unwrap();
        assert_eq!(at(&wide, 0, 4), 1f64.sin() as f32);
        assert_eq!(at(&wide, 0, 6), 1.5f64.sin() as f32);
        assert_eq!(at(&wide, 4, 8), 1f64.sin() as f32);
    }
}
