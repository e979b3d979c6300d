//! The gradient of the filters: `dw = G^T [ sum over tiles of (A dy A^T) x (B^T d B) ] G`.

use super::filters::filter_gradient;
use super::points::Points;
use super::tiles::{Grid, Panes};
use super::transform::Source;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, get, with_lines};
use std::marker::PhantomData;
use std::ops::Range;

/// Lines of a block's transformed tiles of both sides.
const BLOCK_LINES: usize = (4 << 20) / 64;
/// Tiles per block. Short sums also have smaller rounding errors than one long sum.
const BLOCK_TILES: (usize, usize) = (64, 256);
/// Up to this many tiles form one block where the gradient of the transformed filters is too large to
/// stay in a cache between blocks.
const FEW_TILES: usize = 256;
const MANY_LINES: usize = (4 << 20) / 64;
/// Outputs of one job.
const OUTPUTS: usize = 32;
/// Lines of inputs of one job where all tiles are transformed first.
const INPUT_LINES: usize = 8;

struct Gradient<'a, P, const M: usize, const T: usize> {
    simd: Simd,
    x: Source<'a>,
    dy: Source<'a>,
    dw: SharedMut<'a, f32>,
    points: PhantomData<fn() -> P>,
}

/// The gradient of filters `[c_out, c_in, 3, 3]`.
pub(super) fn gradient<P: Points<M, T>, const M: usize, const T: usize>(
    simd: Simd,
    grid: Grid,
    (x, c_in): (&[f32], usize),
    (dy, c_out): (&[f32], usize),
) -> Vec<f32> {
    let lines = c_in.div_ceil(16) + c_out.div_ceil(16);
    let few = grid.tiles() <= FEW_TILES && T * T * c_out * c_in.div_ceil(16) > MANY_LINES;
    let tiles = (BLOCK_LINES / (T * T * lines)).clamp(BLOCK_TILES.0, BLOCK_TILES.1);
    let rows_per_block = if few {
        grid.all_rows()
    } else {
        grid.rows_per_block(tiles)
    };
    let tiles = rows_per_block * grid.columns();
    let source = |x, channels| Source {
        x,
        channels,
        grid,
        panes: Panes::new(tiles, channels),
    };
    // SAFETY: the jobs cover all outputs and inputs.
    unsafe {
        filled(c_out * c_in * 9, |dw| {
            let gradient = Gradient::<P, M, T> {
                simd,
                x: source(x, c_in),
                dy: source(dy, c_out),
                dw,
                points: PhantomData,
            };
            if few {
                gradient.at_once()
            } else {
                gradient.in_blocks(rows_per_block)
            }
        })
    }
}

impl<P: Points<M, T>, const M: usize, const T: usize> Gradient<'_, P, M, T> {
    /// Transforms the tiles of both sides for all channels.
    fn transform(
        &self,
        rows: &Range<usize>,
        data: SharedMut<'_, Line>,
        gradients: SharedMut<'_, Line>,
    ) {
        let [pixels, zeros, half] = self.x.grid.scratch(T);
        let data_lines = self.x.panes.channel_lines;
        each_job(data_lines + self.dy.panes.channel_lines, |i| {
            with_lines([pixels, zeros, half], |scratch| {
                let (line, to) = if i < data_lines {
                    (Ok(i), data)
                } else {
                    (Err(i - data_lines), gradients)
                };
                self.simd.run(TransformTiles {
                    of: self,
                    rows: rows.clone(),
                    line,
                    scratch,
                    to,
                });
            });
        });
    }

    /// For few tiles of many channels: each job computes one part of the gradient from all tiles.
    fn at_once(&self) {
        let (x, dy) = (&self.x.panes, &self.dy.panes);
        let panes = Panes::new(OUTPUTS, 16 * INPUT_LINES.min(x.channel_lines));
        with_lines([x.lines(T), dy.lines(T)], |[data, gradients]| {
            let (data, gradients) = (SharedMut::new(data), SharedMut::new(gradients));
            self.transform(&(0..self.x.grid.all_rows()), data, gradients);
            let pieces = x.channel_lines.div_ceil(INPUT_LINES);
            each_job(self.dy.channels.div_ceil(OUTPUTS) * pieces, |i| {
                let (outputs, lines) = (i / pieces * OUTPUTS, i % pieces * INPUT_LINES);
                let part = Part {
                    outputs: outputs..(outputs + OUTPUTS).min(self.dy.channels),
                    lines: lines..(lines + INPUT_LINES).min(x.channel_lines),
                };
                with_lines([panes.lines(T)], |[sums]| {
                    // SAFETY: all transforms have ended; the jobs from here on only read them.
                    let (data, gradients) =
                        unsafe { (data.read(x.lines(T)), gradients.read(dy.lines(T))) };
                    let tiles = self.x.grid.tiles();
                    let sums = SharedMut::new(sums);
                    self.simd.run(Multiply {
                        of: self,
                        tiles,
                        data,
                        gradients,
                        part: part.clone(),
                        products: 0..T * T,
                        panes,
                        sums,
                        origin: 0,
                        add: false,
                    });
                    self.simd.run(Finish {
                        of: self,
                        part,
                        panes,
                        sums,
                        origin: 0,
                    });
                });
            });
        });
    }

    /// Transforms block after block of tiles and adds them to the gradient of the transformed filters.
    fn in_blocks(&self, rows_per_block: usize) {
        let (x, dy) = (&self.x.panes, &self.dy.panes);
        let panes = Panes::new(16 * dy.channel_lines, self.x.channels);
        let lengths = [x.lines(T), dy.lines(T), panes.lines(T)];
        let all_lines = 0..x.channel_lines;
        let groups = self.dy.channels.div_ceil(OUTPUTS);
        let part = |group: usize| Part {
            outputs: group * OUTPUTS..((group + 1) * OUTPUTS).min(self.dy.channels),
            lines: all_lines.clone(),
        };
        with_lines(lengths, |[data, gradients, sums]| {
            let (data, gradients) = (SharedMut::new(data), SharedMut::new(gradients));
            let sums = SharedMut::new(sums);
            for block in 0..self.x.grid.all_rows().div_ceil(rows_per_block) {
                let rows = self.x.grid.block(block, rows_per_block);
                self.transform(&rows, data, gradients);
                let tiles = rows.len() * self.x.grid.columns();
                each_job(T * T * groups, |i| {
                    // SAFETY: all transforms have ended; these jobs only read them.
                    let (data, gradients) =
                        unsafe { (data.read(x.lines(T)), gradients.read(dy.lines(T))) };
                    let (product, group) = (i / groups, i % groups);
                    self.simd.run(Multiply {
                        of: self,
                        tiles,
                        data,
                        gradients,
                        part: part(group),
                        products: product..product + 1,
                        panes,
                        sums,
                        origin: group * OUTPUTS,
                        add: block > 0,
                    });
                });
            }
            each_job(groups, |group| {
                self.simd.run(Finish {
                    of: self,
                    part: part(group),
                    panes,
                    sums,
                    origin: group * OUTPUTS,
                });
            });
        });
    }
}

/// A part of the filters: some outputs, some lines of sixteen inputs.
#[derive(Clone)]
struct Part {
    outputs: Range<usize>,
    lines: Range<usize>,
}

struct TransformTiles<'a, P, const M: usize, const T: usize> {
    of: &'a Gradient<'a, P, M, T>,
    rows: Range<usize>,
    /// Channels of `x`, or (`Err`) of `dy`.
    line: Result<usize, usize>,
    scratch: [&'a mut [Line]; 3],
    to: SharedMut<'a, Line>,
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for TransformTiles<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        match self.line {
            Ok(line) => {
                self.of
                    .x
                    .data::<V, P, M, T>(self.rows, line..line + 1, self.scratch, &self.to)
            }
            Err(line) => self.of.dy.gradients::<V, P, M, T>(
                self.rows,
                line..line + 1,
                self.scratch,
                &self.to,
            ),
        }
    }
}

/// Sums over tiles for some products of one part, to rows `origin..` of `sums`.
struct Multiply<'a, P, const M: usize, const T: usize> {
    of: &'a Gradient<'a, P, M, T>,
    tiles: usize,
    data: &'a [Line],
    gradients: &'a [Line],
    part: Part,
    products: Range<usize>,
    panes: Panes,
    sums: SharedMut<'a, Line>,
    origin: usize,
    add: bool,
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for Multiply<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (x, dy) = (&self.of.x.panes, &self.of.dy.panes);
        let rows = self.part.outputs.len().next_multiple_of(8);
        assert!(
            self.data.len() >= x.lines(T) && self.gradients.len() >= dy.lines(T),
            "tiles too short"
        );
        assert!(
            self.tiles * x.row <= x.plane && self.tiles * dy.row <= dy.plane,
            "more tiles than planned"
        );
        assert!(
            self.part.lines.end <= x.channel_lines
                && self.part.lines.len() <= self.panes.channel_lines,
            "inputs"
        );
        assert!(
            self.part.outputs.start + rows <= 16 * dy.channel_lines,
            "outputs"
        );
        assert!(
            (self.origin + rows) * self.panes.row <= self.panes.plane,
            "rows of sums"
        );
        assert!(
            self.sums.len() >= self.panes.lines(T) && self.products.end <= T * T,
            "sums too short"
        );
        for p in self.products {
            let start = p * self.panes.plane + self.origin * self.panes.row;
            let product = Product {
                rows,
                columns: 16 * self.part.lines.len(),
                depth: self.tiles,
                a: self.gradients[p * dy.plane..]
                    .as_ptr()
                    .cast::<f32>()
                    .wrapping_add(self.part.outputs.start),
                a_row: 1,
                a_depth: 16 * dy.row,
                b: self.data[p * x.plane + self.part.lines.start..]
                    .as_ptr()
                    .cast(),
                b_depth: 16 * x.row,
                b_panel: 32,
                c: self.sums.as_mut_ptr().wrapping_add(start).cast(),
                c_row: 16 * self.panes.row,
                add: self.add,
                bias: std::ptr::null(),
            };
            // SAFETY: in bounds by the assertions; jobs have different products, outputs or sums.
            unsafe { product.run::<V>() };
        }
    }
}

/// From the sums of one part to its filters.
struct Finish<'a, P, const M: usize, const T: usize> {
    of: &'a Gradient<'a, P, M, T>,
    part: Part,
    panes: Panes,
    sums: SharedMut<'a, Line>,
    origin: usize,
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for Finish<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (c_in, c_out) = (self.of.x.channels, self.of.dy.channels);
        let (panes, sums) = (self.panes, self.sums);
        assert!(
            self.of.dw.len() == c_out * c_in * 9 && self.part.outputs.end <= c_out,
            "filters of another shape"
        );
        for output in self.part.outputs.clone() {
            for line in self.part.lines.clone() {
                let at = (self.origin + output - self.part.outputs.start) * panes.row + line
                    - self.part.lines.start;
                let to = self
                    .of
                    .dw
                    .as_mut_ptr()
                    .wrapping_add((output * c_in + 16 * line) * 9);
                let inputs = (c_in - 16 * line).min(16);
                // SAFETY: this job's filters of one output; the sums are complete and only read.
                unsafe {
                    filter_gradient::<V, P, M, T>(
                        #[inline(always)]
                        |p| get(&sums.read(p * panes.plane + at + 1)[p * panes.plane + at]),
                        to,
                        inputs,
                    );
                }
            }
        }
    }
}
