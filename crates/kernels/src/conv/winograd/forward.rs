//! The forward pass, and the input gradient, which is a forward pass with rotated filters.

use super::filters::{FILTER_SCRATCH, Filters, INPUTS, PANEL};
use super::points::Points;
use super::tiles::{Grid, Panes};
use super::transform::{Sink, Source};
use crate::cache::second_cache;
use crate::conv::Added;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, new_call, once_per_thread, put, with_lines};
use std::marker::PhantomData;
use std::ops::Range;

/// Transformed filters larger than this are computed panel by panel where few tiles use them, and those of a single block.
const FILTER_LINES: usize = (4 << 20) / 64;
/// Up to this many tiles, all transformed tiles are in memory at once, and not all transformed filters.
const FEW_TILES: usize = 256;
/// Inputs whose transformed filters are computed at a time in a panel.
const PANEL_INPUTS: usize = 128;

/// What the jobs of one convolution share.
struct Convolution<'a, P, const M: usize, const T: usize> {
    simd: Simd,
    filters: Filters<'a>,
    source: Source<'a>,
    sink: Sink<'a>,
    points: PhantomData<fn() -> P>,
}

/// `w * x` plus what is added, for `x` of the filters' inputs and the grid's images.
pub(super) fn convolve<P: Points<M, T>, const M: usize, const T: usize>(
    simd: Simd,
    grid: Grid,
    x: &[f32],
    filters: Filters<'_>,
    added: Added<'_, f32>,
) -> Vec<f32> {
    let (c_in, c_out) = (filters.inputs(), filters.outputs());
    let products = PANEL.min(c_out);
    // A block's transformed tiles and products stay in the second cache, together with the filters of one product.
    let tile_lines = T * T * (Panes::new(1, c_in).row + Panes::new(1, products).row);
    let tiles = (second_cache() / 64 * 3 / 4 / tile_lines)
        .min(grid.tiles().div_ceil(4))
        .next_multiple_of(8)
        .clamp(16, 64);
    let rows_per_block = grid.rows_per_block(tiles);
    // A single block would leave all threads but one without work.
    let too_large = T * T * filters.panels() * c_in * 2 > FILTER_LINES;
    let by_panel = grid.tiles() <= FEW_TILES && (too_large || rows_per_block == grid.all_rows());
    let rows_per_block = match by_panel {
        true => grid.all_rows(),
        false => rows_per_block,
    };
    let tiles = rows_per_block * grid.columns();
    // SAFETY: every image consists of tiles, and every tile is written for all channels.
    unsafe {
        filled(grid.batch * c_out * grid.h * grid.w, |y| {
            let convolution = Convolution::<P, M, T> {
                simd,
                filters,
                source: Source {
                    x,
                    channels: c_in,
                    grid,
                    panes: Panes::new(tiles, c_in),
                },
                sink: Sink {
                    y,
                    channels: c_out,
                    grid,
                    panes: Panes::new(tiles, products),
                    added,
                },
                points: PhantomData,
            };
            if by_panel {
                convolution.by_panel();
            } else {
                convolution.by_block(rows_per_block);
            }
        })
    }
}

impl<P: Points<M, T>, const M: usize, const T: usize> Convolution<'_, P, M, T> {
    /// Each job computes a block of tiles from pixels to pixels, with all filters.
    fn by_block(&self, rows_per_block: usize) {
        let (filters, c_in) = (&self.filters, self.filters.inputs());
        let plane = (filters.panels() * c_in * 2) | 1;
        let lines = T * T * plane;
        if 64 * lines <= second_cache() / 2 {
            self.blocks(rows_per_block, plane, Transformed::OnEachThread(new_call()));
            return;
        }
        with_lines([lines], |[memory]| {
            let shared = SharedMut::new(memory);
            let pieces = c_in.div_ceil(INPUTS);
            each_job(filters.panels() * pieces, |i| {
                let (panel, first) = (i / pieces, i % pieces * INPUTS);
                let inputs = first..(first + INPUTS).min(c_in);
                self.transform_filters(panel, inputs, plane, shared);
            });
            // SAFETY: all jobs above have ended.
            let transformed = unsafe { shared.read(lines) };
            self.blocks(rows_per_block, plane, Transformed::Once(transformed));
        });
    }

    /// Some filters of a panel, to their place among all of them.
    fn transform_filters(
        &self,
        panel: usize,
        inputs: Range<usize>,
        plane: usize,
        to: SharedMut<'_, Line>,
    ) {
        let start = (panel * self.filters.inputs() + inputs.start) * 2;
        with_lines([FILTER_SCRATCH], |[scratch]| {
            self.simd.run(TransformFilters {
                of: self,
                panel,
                inputs,
                start,
                plane,
                scratch,
                to,
            });
        });
    }

    fn blocks(&self, rows_per_block: usize, plane: usize, filters: Transformed<'_>) {
        let (source, sink) = (&self.source, &self.sink);
        let [pixels, zeros, half] = source.grid.scratch(T);
        let (data, products) = (source.panes.lines(T), sink.panes.lines(T));
        let lengths = [pixels, zeros, half, data, products];
        let blocks = source.grid.all_rows().div_ceil(rows_per_block);
        each_job(blocks, |i| {
            let rows = source.grid.block(i, rows_per_block);
            with_lines(lengths, |[pixels, zeros, half, data, products]| {
                let run = |filters: &[Line]| {
                    self.simd.run(Block {
                        of: self,
                        rows,
                        filters,
                        plane,
                        scratch: [pixels, zeros, half],
                        data,
                        products,
                    });
                };
                let fill = |lines: &mut [Line]| {
                    let to = SharedMut::new(lines);
                    for panel in 0..self.filters.panels() {
                        self.transform_filters(panel, 0..self.filters.inputs(), plane, to);
                    }
                };
                match filters {
                    Transformed::Once(filters) => run(filters),
                    Transformed::OnEachThread(call) => {
                        once_per_thread(call, T * T * plane, fill, run);
                    }
                }
            });
        });
    }

    /// Transforms all tiles first; then each job transforms the filters of 32 outputs and computes their pixels.
    fn by_panel(&self) {
        let Self {
            simd,
            source,
            filters,
            sink,
            ..
        } = self;
        let [pixels, zeros, half] = source.grid.scratch(T);
        with_lines([source.panes.lines(T)], |[lines]| {
            let shared = SharedMut::new(lines);
            each_job(source.panes.channel_lines, |line| {
                with_lines([pixels, zeros, half], |scratch| {
                    simd.run(TransformTiles {
                        of: self,
                        line,
                        scratch,
                        to: shared,
                    });
                });
            });
            // SAFETY: all jobs above have ended.
            let data = unsafe { shared.read(source.panes.lines(T)) };
            let plane = (PANEL_INPUTS.min(filters.inputs()) * 2) | 1;
            let lengths = [FILTER_SCRATCH, T * T * plane, sink.panes.lines(T), pixels];
            each_job(filters.panels(), |panel| {
                with_lines(lengths, |[scratch, filters, products, pixels]| {
                    simd.run(Panel {
                        of: self,
                        panel,
                        data,
                        scratch,
                        filters,
                        plane,
                        products,
                        pixels,
                    });
                });
            });
        });
    }

    /// Multiplies the first `rows` tiles with the filters of one panel of outputs.
    #[inline(always)]
    fn multiply<V: Lanes>(
        &self,
        rows: usize,
        data: &[Line],
        first_input: usize,
        filters: &PanelFilters<'_>,
        products: &mut [Line],
    ) {
        let (source, sink) = (&self.source.panes, &self.sink.panes);
        let last = T * T - 1;
        let rows = rows.next_multiple_of(8);
        assert!(
            data.len() >= source.lines(T) && products.len() >= sink.lines(T),
            "tiles too short"
        );
        assert!(
            rows * source.row <= source.plane && rows * sink.row <= sink.plane,
            "more tiles than planned"
        );
        assert!(
            filters.lines.len() >= last * filters.plane + filters.inputs * 2,
            "filters too short"
        );
        assert!(
            first_input + filters.inputs <= 16 * source.channel_lines,
            "more inputs than planned"
        );
        for p in 0..T * T {
            let product = Product {
                rows,
                columns: 16 * sink.channel_lines,
                depth: filters.inputs,
                a: data[p * source.plane..]
                    .as_ptr()
                    .cast::<f32>()
                    .wrapping_add(first_input),
                a_row: 16 * source.row,
                a_depth: 1,
                b: filters.lines[p * filters.plane..].as_ptr().cast(),
                b_depth: 32,
                b_panel: 32,
                c: products[p * sink.plane..].as_mut_ptr().cast(),
                c_row: 16 * sink.row,
                add: first_input > 0,
                bias: std::ptr::null(),
            };
            // SAFETY: in bounds by the assertions.
            unsafe { product.run::<V>() };
        }
    }
}

/// All transformed filters.
#[derive(Clone, Copy)]
enum Transformed<'a> {
    Once(&'a [Line]),
    /// Each thread transforms them for this call, since reading what another core has just written takes longer.
    OnEachThread(u64),
}

/// Transformed filters of 32 outputs, two lines for each input.
struct PanelFilters<'a> {
    lines: &'a [Line],
    inputs: usize,
    /// Lines from one product to the next.
    plane: usize,
}

struct TransformFilters<'a, P, const M: usize, const T: usize> {
    of: &'a Convolution<'a, P, M, T>,
    panel: usize,
    inputs: Range<usize>,
    /// The line of the first input.
    start: usize,
    plane: usize,
    scratch: &'a mut [Line],
    to: SharedMut<'a, Line>,
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for TransformFilters<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            start, plane, to, ..
        } = self;
        self.of.filters.transform::<V, P, M, T>(
            self.panel,
            self.inputs,
            self.scratch,
            #[inline(always)]
            |p, line, value| {
                // SAFETY: jobs transform different panels or inputs.
                put(
                    &mut unsafe { to.slice(p * plane + start + line, 1) }[0],
                    value,
                );
            },
        );
    }
}

struct Block<'a, P, const M: usize, const T: usize> {
    of: &'a Convolution<'a, P, M, T>,
    rows: Range<usize>,
    filters: &'a [Line],
    plane: usize,
    scratch: [&'a mut [Line]; 3],
    data: &'a mut [Line],
    products: &'a mut [Line],
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for Block<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            of:
                Convolution {
                    source,
                    sink,
                    filters,
                    ..
                },
            ..
        } = self;
        let (c_in, tiles) = (filters.inputs(), self.rows.len() * source.grid.columns());
        let [pixels, zeros, half] = self.scratch;
        let all = 0..source.panes.channel_lines;
        source.data::<V, P, M, T>(
            self.rows.clone(),
            all,
            [pixels, zeros, half],
            &SharedMut::new(self.data),
        );
        for panel in 0..filters.panels() {
            // In the pieces of `by_panel`, so that both round alike and the result of an image is the same regardless of batch.
            for first in (0..c_in).step_by(PANEL_INPUTS) {
                let filters = PanelFilters {
                    lines: &self.filters[(panel * c_in + first) * 2..],
                    inputs: PANEL_INPUTS.min(c_in - first),
                    plane: self.plane,
                };
                self.of
                    .multiply::<V>(tiles, self.data, first, &filters, self.products);
            }
            let lines = sink.panel(panel);
            sink.outputs::<V, P, M, T>(self.rows.clone(), lines, pixels, self.products);
        }
    }
}

struct TransformTiles<'a, P, const M: usize, const T: usize> {
    of: &'a Convolution<'a, P, M, T>,
    line: usize,
    scratch: [&'a mut [Line]; 3],
    to: SharedMut<'a, Line>,
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for TransformTiles<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let source = &self.of.source;
        let (all, lines) = (0..source.grid.all_rows(), self.line..self.line + 1);
        source.data::<V, P, M, T>(all, lines, self.scratch, &self.to);
    }
}

struct Panel<'a, P, const M: usize, const T: usize> {
    of: &'a Convolution<'a, P, M, T>,
    panel: usize,
    data: &'a [Line],
    scratch: &'a mut [Line],
    filters: &'a mut [Line],
    plane: usize,
    products: &'a mut [Line],
    pixels: &'a mut [Line],
}

impl<P: Points<M, T>, const M: usize, const T: usize> Task for Panel<'_, P, M, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            of:
                Convolution {
                    source,
                    sink,
                    filters,
                    ..
                },
            plane,
            ..
        } = self;
        for first in (0..filters.inputs()).step_by(PANEL_INPUTS) {
            let inputs = first..(first + PANEL_INPUTS).min(filters.inputs());
            let count = inputs.len();
            let to = &mut *self.filters;
            filters.transform::<V, P, M, T>(
                self.panel,
                inputs,
                self.scratch,
                #[inline(always)]
                |p, line, value| {
                    put(&mut to[p * plane + line], value);
                },
            );
            let panel = PanelFilters {
                lines: self.filters,
                inputs: count,
                plane,
            };
            self.of
                .multiply::<V>(source.grid.tiles(), self.data, first, &panel, self.products);
        }
        let lines = sink.panel(self.panel);
        sink.outputs::<V, P, M, T>(0..source.grid.all_rows(), lines, self.pixels, self.products);
    }
}
