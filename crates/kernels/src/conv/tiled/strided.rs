//! Strided convolutions as convolutions of stride 1: the pixels of each phase of the stride become channels of their own.

// x'[(p_y s + p_x) C + c, i, j] = x[c, s i + p_y, s j + p_x]        w'[o, (p_y s + p_x) C + c, a, b] = w[o, c, s a + p_y, s b + p_x]
//
// Filters whose size the stride does not divide get taps of zero weight.

use super::Tiled;
use crate::conv::{Added, ConvShape};
use crate::simd::Simd;
use crate::tiles::Unit;
use half::bf16;

/// A strided convolution that is computed by tiles.
#[derive(Clone, Copy)]
pub(crate) struct Phased {
    shape: ConvShape,
    /// That of stride 1, with phases as channels. Its tiles may cut the rows differently.
    dense: ConvShape,
    tiles: Tiled,
}

impl Phased {
    pub(crate) fn of(unit: Unit, shape: &ConvShape) -> Option<Self> {
        let s = shape.stride;
        // The zero weights cost more than slow units gain.
        if s < 2 || !unit.beats_winograd() || shape.c_in < super::FEW {
            return None;
        }
        let k = shape.k.map(|k| k.div_ceil(s));
        let dense = ConvShape {
            batch: shape.batch,
            c_in: shape.c_in * s * s,
            h: shape.out_h() + k[0] - 1,
            w: shape.out_w() + k[1] - 1,
            c_out: shape.c_out,
            k,
            stride: 1,
            pad: [0; 4],
        };
        Some(Self {
            shape: *shape,
            dense,
            tiles: Tiled::of(unit, &dense)?,
        })
    }

    pub(crate) fn forward(
        &self,
        simd: Simd,
        x: &[bf16],
        w: &[f32],
        added: Added<'_, f32, bf16>,
    ) -> Vec<bf16> {
        self.tiles
            .forward(simd, &self.phases_of(x), &self.filters_of(w), added)
    }

    pub(crate) fn input_gradient(&self, simd: Simd, dy: &[bf16], w: &[f32]) -> Vec<bf16> {
        let phases = self.tiles.input_gradient(simd, dy, &self.filters_of(w));
        let s = &self.shape;
        let mut dx = vec![bf16::ZERO; s.batch * s.c_in * s.h * s.w];
        self.each_row(|image, phase, dense| {
            for (to, from) in image.zip(phase) {
                dx[to] = phases[dense + from];
            }
        });
        dx
    }

    pub(crate) fn weight_gradient(&self, simd: Simd, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
        let filters = self.tiles.weight_gradient(simd, &self.phases_of(x), dy);
        let mut dw = vec![0.0; self.shape.c_out * self.shape.c_in * self.shape.taps()];
        self.each_weight(|i, dense| dw[i] = filters[dense]);
        dw
    }

    fn phases_of(&self, x: &[bf16]) -> Vec<bf16> {
        let d = &self.dense;
        let mut phases = vec![bf16::ZERO; d.batch * d.c_in * d.h * d.w];
        self.each_row(|image, phase, dense| {
            for (from, to) in image.zip(phase) {
                phases[dense + to] = x[from];
            }
        });
        phases
    }

    fn filters_of(&self, w: &[f32]) -> Vec<f32> {
        let d = &self.dense;
        let mut filters = vec![0.0; d.c_out * d.c_in * d.taps()];
        self.each_weight(|i, dense| filters[dense] = w[i]);
        filters
    }

    /// Calls `f` with the pixels of one phase of one row of the image, their columns in the phase, and where its row begins.
    fn each_row(
        &self,
        mut f: impl FnMut(std::iter::StepBy<std::ops::Range<usize>>, std::ops::RangeFrom<usize>, usize),
    ) {
        let (s, d) = (&self.shape, &self.dense);
        let step = s.stride;
        for plane in 0..s.batch * s.c_in {
            let (image, channel) = (plane / s.c_in, plane % s.c_in);
            for y in 0..s.h {
                let padded = y + s.pad[0];
                if padded / step >= d.h {
                    continue;
                }
                for phase_x in 0..step {
                    // The first column of this phase inside the image, and how many of them the convolution sees.
                    let column = s.pad[1].saturating_sub(phase_x).div_ceil(step);
                    let x = column * step + phase_x - s.pad[1];
                    let n = d.w.saturating_sub(column);
                    let end = (x + n * step).min(s.w).max(x);
                    let phase = (padded % step * step + phase_x) * s.c_in + channel;
                    let row = ((image * d.c_in + phase) * d.h + padded / step) * d.w;
                    let start = plane * s.h * s.w + y * s.w;
                    f((start + x..start + end).step_by(step), column.., row);
                }
            }
        }
    }

    /// Calls `f` with the place of each weight in the filters, and in those of stride 1.
    fn each_weight(&self, mut f: impl FnMut(usize, usize)) {
        let (s, d) = (&self.shape, &self.dense);
        let step = s.stride;
        let mut i = 0;
        for filter in 0..s.c_out * s.c_in {
            let (o, c) = (filter / s.c_in, filter % s.c_in);
            for y in 0..s.k[0] {
                for x in 0..s.k[1] {
                    let phase = (y % step * step + x % step) * s.c_in + c;
                    let tap = y / step * d.k[1] + x / step;
                    f(i, (o * d.c_in + phase) * d.taps() + tap);
                    i += 1;
                }
            }
        }
    }
}
