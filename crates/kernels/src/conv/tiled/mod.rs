//! Convolutions of bf16 as products of tiles: each tap of the filters multiplies the same pixels, shifted.

// The pixels of a band of rows lie one after the other, each row with its padding. So the pixel that a tap sees is a fixed distance from
// the pixel of the result, and results that start in a row's padding are computed and thrown away. A value that is not finite can make
// gradients of all taps NaN, since it is multiplied by the zeros of the padding.

mod forward;
mod pack;
mod strided;
#[cfg(test)]
mod tests;
mod weights;

pub(super) use strided::Phased;

use super::ConvShape;
use crate::tiles::{BLOCK, Unit};
use std::ops::Range;

/// Pixels of one job: its inputs stay in the second cache.
const PIXELS: usize = 512;
/// Below this many channels or pixels, most of a tile would be padding.
const FEW: usize = 16;

/// A convolution that is computed by tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiled {
    unit: Unit,
    shape: ConvShape,
}

impl Tiled {
    pub(super) fn of(unit: Unit, shape: &ConvShape) -> Option<Self> {
        let applies = shape.stride == 1
            && shape.c_in >= FEW
            && shape.c_out >= FEW
            && shape.h * shape.w >= FEW
            && shape.pad[0].max(shape.pad[2]) < shape.k[0]
            && shape.pad[1].max(shape.pad[3]) < shape.k[1];
        let conv = Self {
            unit,
            shape: short_rows(shape),
        };
        // Steps are addressed by 32-bit distances in bytes.
        let pixels = PIXELS.max(conv.row() * shape.k[0]) + conv.reach() + 2 * BLOCK;
        let bytes = pixels * 2 * shape.c_in.next_multiple_of(BLOCK);
        (applies && u32::try_from(bytes).is_ok()).then_some(conv)
    }

    /// The width of a row with its padding.
    fn row(&self) -> usize {
        self.shape.w + self.shape.pad[1] + self.shape.pad[3]
    }

    /// How far a tap's pixel is from that of the result.
    fn distance(&self, tap: usize) -> usize {
        tap / self.shape.k[1] * self.row() + tap % self.shape.k[1]
    }

    /// The largest [`Self::distance`].
    fn reach(&self) -> usize {
        self.distance(self.shape.taps() - 1)
    }

    /// All rows of the result in bands of about this many pixels: several images, or rows of one.
    fn bands(&self, pixels: usize) -> Vec<Band> {
        let (height, row) = (self.shape.out_h(), self.row());
        let halo = self.shape.k[0] - 1;
        let image = (height + halo) * row;
        if image <= pixels {
            let images = pixels / image;
            let starts = (0..self.shape.batch).step_by(images);
            let band = |first| Band {
                images: first..(first + images).min(self.shape.batch),
                rows: 0..height,
                halo,
            };
            return starts.map(band).collect();
        }
        let rows = (pixels / row).max(1);
        (0..self.shape.batch)
            .flat_map(|image| {
                (0..height).step_by(rows).map(move |first| Band {
                    images: image..image + 1,
                    rows: first..(first + rows).min(height),
                    halo,
                })
            })
            .collect()
    }
}

/// Pixels of a 1x1 convolution have no neighbours, so their rows can be as short as a band needs.
fn short_rows(shape: &ConvShape) -> ConvShape {
    let pixels = shape.h * shape.w;
    let width = [64, 32, 16]
        .into_iter()
        .find(|width| pixels.is_multiple_of(*width));
    match width {
        Some(w) if shape.taps() == 1 => ConvShape {
            h: pixels / w,
            w,
            ..*shape
        },
        _ => *shape,
    }
}

/// Rows of the result, of all of these images.
struct Band {
    images: Range<usize>,
    rows: Range<usize>,
    /// Rows of the input beyond those of the result.
    halo: usize,
}

impl Band {
    /// Rows of the input of one image.
    fn input_rows(&self) -> usize {
        self.rows.len() + self.halo
    }

    /// Pixels with padding, in whole blocks.
    fn pixels(&self, row: usize) -> usize {
        (self.images.len() * self.input_rows() * row).next_multiple_of(BLOCK)
    }

    /// Image, row of the result, and where that row begins in the band.
    fn result_rows(&self, row: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let (rows, step) = (self.rows.clone(), self.input_rows());
        self.images.clone().enumerate().flat_map(move |(i, image)| {
            rows.clone()
                .enumerate()
                .map(move |(j, y)| (image, y, (i * step + j) * row))
        })
    }
}
