//! 3x3 convolutions of stride 1 by Winograd's minimal filtering.

mod filters;
mod forward;
mod gradient;
mod points;
mod tiles;
mod transform;

pub(super) use filters::Filters;

use super::{Added, ConvShape};
use crate::choice::{Algorithm, Choice};
use crate::simd::Simd;
use points::{F2, F4};
use tiles::Grid;

// Pixels, filters and outputs are transformed so that fewer products remain; these form one matrix product per transformed pixel. Tensors
// stay `[b, c, h, w]`; transformed data has its channels innermost, sixteen to a vector.

/// The transform and the instruction set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd {
    simd: Simd,
    /// F(4x4) if true, else F(2x2).
    large: bool,
}

impl Winograd {
    /// Returns `Some` where these transforms apply and are faster.
    pub(super) fn of(shape: &ConvShape, choice: Choice) -> Option<Self> {
        let large = match choice.algorithm {
            Algorithm::Direct => return None,
            Algorithm::F2 => false,
            Algorithm::F4 => true,
        };
        let applies =
            shape.k == [3, 3] && shape.stride == 1 && shape.pad == [1; 4] && shape.batch > 0;
        (applies && shape.h.min(shape.w) > 2).then_some(Self {
            simd: choice.simd,
            large,
        })
    }

    fn grid(self, shape: &ConvShape) -> Grid {
        Grid {
            batch: shape.batch,
            h: shape.h,
            w: shape.w,
            m: if self.large { 4 } else { 2 },
        }
    }

    /// Multiplications and additions of the products: of all inputs and outputs, for each transformed pixel of each tile.
    pub(super) fn flops(self, shape: &ConvShape) -> f64 {
        let grid = self.grid(shape);
        let transformed = grid.tiles() * (grid.m + 2) * (grid.m + 2);
        2.0 * (transformed * shape.c_in * shape.c_out) as f64
    }

    /// `x` convolved with the filters, plus what is added; batch and size are those of the shape.
    pub(super) fn convolve(
        self,
        shape: &ConvShape,
        x: &[f32],
        filters: Filters<'_>,
        added: Added<'_, f32>,
    ) -> Vec<f32> {
        let grid = self.grid(shape);
        if self.large {
            forward::convolve::<F4, 4, 6>(self.simd, grid, x, filters, added)
        } else {
            forward::convolve::<F2, 2, 4>(self.simd, grid, x, filters, added)
        }
    }

    pub(super) fn weight_gradient(self, shape: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (grid, x, dy) = (self.grid(shape), (x, shape.c_in), (dy, shape.c_out));
        if self.large {
            gradient::gradient::<F4, 4, 6>(self.simd, grid, x, dy)
        } else {
            gradient::gradient::<F2, 2, 4>(self.simd, grid, x, dy)
        }
    }
}
