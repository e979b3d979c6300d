//! Large images in overlapping tiles.

use candle_core::{Result, Tensor};

/// The most pixels, of all images together, that are computed at once. Decoding that many with Stable Diffusion's autoencoder takes less
/// than 2 GB in f32.
pub const MOST_PIXELS: usize = 512 * 512;

/// Side of the tiles of larger images, in pixels.
pub(crate) const TILE: usize = 512;

/// `f` on overlapping tiles of a map of `size` (height, width), blended linearly.
///
/// `f` gets the start and the size of a tile, and returns a map that is `scale` times as large. Neighbours overlap by at least a quarter of
/// `tile`, the side of a tile. The last tile of a row or column ends with the map.
pub(crate) fn tiled(
    size: [usize; 2],
    tile: usize,
    scale: usize,
    f: impl Fn([usize; 2], [usize; 2]) -> Result<Tensor>,
) -> Result<Tensor> {
    let [rows, columns] = size.map(|len| starts(len, tile));
    let sides = size.map(|len| len.min(tile));
    join_all(&rows, sides[0], scale, 2, |top| {
        join_all(&columns, sides[1], scale, 3, |left| f([top, left], sides))
    })
}

/// Where the tiles along an axis start.
fn starts(len: usize, tile: usize) -> Vec<usize> {
    if len <= tile {
        return vec![0];
    }
    let step = (tile - tile / 4).max(1);
    let n = (len - tile).div_ceil(step);
    (0..=n).map(|i| i * (len - tile) / n).collect()
}

/// The parts of an axis, each as long as `side`, joined along `axis` and blended where they overlap.
fn join_all(
    starts: &[usize],
    side: usize,
    scale: usize,
    axis: usize,
    part: impl Fn(usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut joined: Option<(usize, Tensor)> = None;
    for &start in starts {
        let next = part(start)?;
        let all = match joined {
            None => next,
            Some((before, all)) => join(&all, &next, (before + side - start) * scale, axis)?,
        };
        joined = Some((start, all));
    }
    match joined {
        Some((_, all)) => Ok(all),
        None => candle_core::bail!("expected at least one tile"),
    }
}

/// Two maps along an axis, the last `overlap` of the first blended linearly into the first `overlap` of the second.
fn join(a: &Tensor, b: &Tensor, overlap: usize, axis: usize) -> Result<Tensor> {
    let (a_len, b_len) = (a.dim(axis)?, b.dim(axis)?);
    let mut shape = [1; 4];
    shape[axis] = overlap;
    let ramp = (1..=overlap).map(|i| i as f64 / (overlap + 1) as f64);
    let ramp = Tensor::from_iter(ramp, a.device())?.reshape(&shape)?;
    let (falling, rising) = (
        (1.0 - &ramp)?.to_dtype(a.dtype())?,
        ramp.to_dtype(a.dtype())?,
    );
    let from_a = a.narrow(axis, a_len - overlap, overlap)?;
    let from_b = b.narrow(axis, 0, overlap)?;
    let mixed = (from_a.broadcast_mul(&falling)? + from_b.broadcast_mul(&rising)?)?;
    Tensor::cat(
        &[
            a.narrow(axis, 0, a_len - overlap)?,
            mixed,
            b.narrow(axis, overlap, b_len - overlap)?,
        ],
        axis,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tiles_cover_the_axis_and_overlap_by_a_quarter() {
        for tile in [4, 7, 64] {
            for len in 1..300 {
                let starts = starts(len, tile);
                assert_eq!(starts[0], 0);
                let last = starts.last().unwrap();
                assert_eq!(last + len.min(tile), len);
                for pair in starts.windows(2) {
                    let overlap = pair[0] + tile - pair[1];
                    assert!(
                        (tile / 4..tile).contains(&overlap),
                        "{len} {tile} {starts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn equal_tiles_blend_to_the_map_they_were_cut_from() {
        let whole = Tensor::arange(0f32, 2.0 * 21.0 * 34.0, &Device::Cpu).unwrap();
        let whole = whole.reshape((1, 2, 21, 34)).unwrap();
        let blended = tiled([21, 34], 8, 1, |[top, left], [h, w]| {
            whole.narrow(2, top, h)?.narrow(3, left, w)
        });
        let error = (blended.unwrap() - &whole).unwrap().abs().unwrap();
        assert!(error.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-3);
    }
}
