//! From pixels to transformed tiles and back, for one block of tiles and sixteen channels at a time.

use super::filters::PANEL;
use super::points::Points;
use super::tiles::{Grid, Panes, Strip};
use crate::SharedMut;
use crate::conv::Added;
use crate::lanes::{gather, scatter, scatter_sum};
use crate::simd::Lanes;
use crate::workspace::{Line, get, put};
use std::marker::PhantomData;
use std::ops::Range;

/// A batch of images `[b, channels, h, w]` of which blocks of tiles are transformed.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) x: &'a [f32],
    pub(super) channels: usize,
    pub(super) grid: Grid,
    /// The layout of the transformed tiles.
    pub(super) panes: Panes,
}

/// Working memory of the calling thread: [`Grid::scratch`].
pub(super) type Scratch<'a> = [&'a mut [Line]; 3];

/// One direction of a transform, from windows of `N` pixels.
///
/// A trait and not a function argument, whose calls are not certain to be inlined.
trait Step<const N: usize, const T: usize> {
    /// How many pixels a window starts before its tile.
    const HALO: usize;
    fn apply<V: Lanes>(window: [V; N]) -> [V; T];
}

struct Data<P, const M: usize, const T: usize>(PhantomData<P>);

impl<P: Points<M, T>, const M: usize, const T: usize> Step<T, T> for Data<P, M, T> {
    const HALO: usize = 1;
    #[inline(always)]
    fn apply<V: Lanes>(window: [V; T]) -> [V; T] {
        P::data(window)
    }
}

struct Gradients<P, const M: usize, const T: usize>(PhantomData<P>);

impl<P: Points<M, T>, const M: usize, const T: usize> Step<M, T> for Gradients<P, M, T> {
    const HALO: usize = 0;
    #[inline(always)]
    fn apply<V: Lanes>(window: [V; M]) -> [V; T] {
        P::output_adjoint(window)
    }
}

impl Source<'_> {
    /// `B^T d B` of every tile: its pixels with a border of one.
    #[inline(always)]
    pub(super) fn data<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
        &self,
        block: Range<usize>,
        lines: Range<usize>,
        scratch: Scratch<'_>,
        to: &SharedMut<'_, Line>,
    ) {
        self.transform::<V, Data<P, M, T>, T, T>(block, lines, scratch, to);
    }

    /// `A dy A^T` of every tile: the gradients of its outputs.
    #[inline(always)]
    pub(super) fn gradients<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
        &self,
        block: Range<usize>,
        lines: Range<usize>,
        scratch: Scratch<'_>,
        to: &SharedMut<'_, Line>,
    ) {
        self.transform::<V, Gradients<P, M, T>, M, T>(block, lines, scratch, to);
    }

    /// Applies a step along columns and rows of the window of each tile, and stores the results of the
    /// channels in `lines` (sixteen each) in the layout of the panes.
    #[inline(always)]
    fn transform<V: Lanes, S: Step<N, T>, const N: usize, const T: usize>(
        &self,
        block: Range<usize>,
        lines: Range<usize>,
        [pixels, zeros, half]: Scratch<'_>,
        to: &SharedMut<'_, Line>,
    ) {
        let Grid { h, w, m, .. } = self.grid;
        let Panes {
            row: tile_lines,
            plane,
            ..
        } = self.panes;
        let (halo, columns) = (S::HALO, self.grid.columns());
        let width = columns * m + 2 * halo;
        assert!(
            m + 2 * halo == N && zeros.len() >= w && half.len() >= T * width,
            "windows and scratch memory of another size"
        );
        zeros.fill(Line([0.0; 16]));
        // The columns outside the image are never written below.
        for row in half[..T * width].chunks_exact_mut(width) {
            row[..halo].fill(Line([0.0; 16]));
            row[halo + w..].fill(Line([0.0; 16]));
        }
        for strip in self.grid.strips(block) {
            let top = (strip.rows.start * m).saturating_sub(halo);
            let bottom = (strip.rows.end * m + halo).min(h);
            for line in lines.clone() {
                let channels = (self.channels - 16 * line).min(16);
                let start = ((strip.image * self.channels + 16 * line) * h + top) * w;
                let n = (bottom - top) * w;
                assert!(
                    start + (channels - 1) * h * w + n <= self.x.len(),
                    "image outside the batch"
                );
                // SAFETY: the last row ends inside the batch by the assertion.
                unsafe { gather::<V>(self.x.as_ptr().add(start), h * w, channels, n, pixels, 1) };
                // The loops below use pointers: testing every index took longer than the arithmetic.
                for row in strip.rows.clone() {
                    let mut sources = [zeros.as_ptr(); N];
                    for (i, source) in sources.iter_mut().enumerate() {
                        let y = row * m + i;
                        if y >= halo && y < h + halo {
                            *source = pixels[(y - halo - top) * w..][..w].as_ptr();
                        }
                    }
                    let start = half.as_mut_ptr().wrapping_add(halo);
                    for x in 0..w {
                        let mut column = [V::zero(); N];
                        for (value, source) in column.iter_mut().zip(&sources) {
                            // SAFETY: each source has `w` lines.
                            *value = unsafe { get(&*source.add(x)) };
                        }
                        for (i, &value) in S::apply(column).iter().enumerate() {
                            // SAFETY: `T` rows of `width` lines, by the first assertion.
                            unsafe { put(&mut *start.add(i * width + x), value) };
                        }
                    }
                    let first = strip.first_tile + (row - strip.rows.start) * columns;
                    let last = (T * T - 1) * plane + (first + columns - 1) * tile_lines + line;
                    assert!(last < to.len(), "more tiles than planned");
                    for i in 0..T {
                        let half = half.as_ptr().wrapping_add(i * width);
                        let at = i * T * plane + first * tile_lines + line;
                        let to = to.as_mut_ptr().wrapping_add(at);
                        for tile in 0..columns {
                            let mut window = [V::zero(); N];
                            for (j, value) in window.iter_mut().enumerate() {
                                // SAFETY: the last window ends with its row, by the first assertion.
                                *value = unsafe { get(&*half.add(tile * m + j)) };
                            }
                            let to = to.wrapping_add(tile * tile_lines);
                            for (j, &value) in S::apply(window).iter().enumerate() {
                                // SAFETY: in bounds by the assertion above; jobs transform different tiles or channels.
                                unsafe { put(&mut *to.add(j * plane), value) };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Images `[b, channels, h, w]` that are written tile by tile.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    pub(super) y: SharedMut<'a, f32>,
    pub(super) channels: usize,
    pub(super) grid: Grid,
    pub(super) panes: Panes,
    pub(super) added: Added<'a, f32>,
}

impl Sink<'_> {
    /// The lines of channels of a panel of outputs.
    pub(super) fn panel(&self, panel: usize) -> Range<usize> {
        let first = panel * PANEL / 16;
        first..(first + PANEL / 16).min(self.channels.div_ceil(16))
    }

    /// `A^T p A` of every tile in `block`, plus what is added,, for sixteen channels of each line. `from` holds the
    /// products, the first line of a row being `lines.start`.
    #[inline(always)]
    pub(super) fn outputs<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
        &self,
        block: Range<usize>,
        lines: Range<usize>,
        pixels: &mut [Line],
        from: &[Line],
    ) {
        let Grid { h, w, m, .. } = self.grid;
        for strip in self.grid.strips(block) {
            let (top, bottom) = (strip.rows.start * m, (strip.rows.end * m).min(h));
            for line in lines.clone() {
                let channels = (self.channels - 16 * line).min(16);
                let mut bias = [0.0; 16];
                if let Some(all) = self.added.bias {
                    bias[..channels].copy_from_slice(&all[16 * line..][..channels]);
                }
                let bias = get::<V>(&Line(bias));
                self.strip::<V, P, M, T>(&strip, bias, &from[line - lines.start..], pixels);
                let (plane, n) = (h * w, (bottom - top) * w);
                let start = (strip.image * self.channels + 16 * line) * plane + top * w;
                let end = start + (channels - 1) * plane + n;
                assert!(
                    end <= self.y.len() && self.added.map.is_none_or(|map| end <= map.len()),
                    "image outside the batch"
                );
                let y = self.y.as_mut_ptr().wrapping_add(start);
                // SAFETY: in bounds by the assertion; jobs write different tiles or channels.
                unsafe {
                    match self.added.map {
                        None => scatter::<V>(pixels, 1, y, plane, channels, n),
                        Some(map) => {
                            let map = map.as_ptr().add(start);
                            scatter_sum::<V>(pixels, map, y, plane, channels, n);
                        }
                    }
                };
            }
        }
    }

    #[inline(always)]
    fn strip<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
        &self,
        strip: &Strip,
        bias: V,
        from: &[Line],
        pixels: &mut [Line],
    ) {
        let Grid { h, w, .. } = self.grid;
        let Panes {
            row: tile_lines,
            plane,
            ..
        } = self.panes;
        let (top, columns) = (strip.rows.start * M, self.grid.columns());
        let last = strip.first_tile + strip.rows.len() * columns - 1;
        assert!(
            (T * T - 1) * plane + last * tile_lines < from.len(),
            "more tiles than planned"
        );
        for row in strip.rows.clone() {
            for column in 0..columns {
                let tile = strip.first_tile + (row - strip.rows.start) * columns + column;
                let from = from.as_ptr().wrapping_add(tile * tile_lines);
                let mut half = [[V::zero(); T]; M];
                for j in 0..T {
                    let mut products = [V::zero(); T];
                    for (i, value) in products.iter_mut().enumerate() {
                        // SAFETY: in bounds by the assertion.
                        *value = unsafe { get(&*from.add((i * T + j) * plane)) };
                    }
                    for (half, &value) in half.iter_mut().zip(&P::output(products)) {
                        half[j] = value;
                    }
                }
                let (rows, columns) = (M.min(h - row * M), M.min(w - column * M));
                for (i, half) in half.iter().enumerate() {
                    let out = P::output(*half);
                    if i < rows {
                        let to = &mut pixels[(row * M + i - top) * w + column * M..][..columns];
                        // A loop of constant length is unrolled.
                        if let Some(to) = to.first_chunk_mut::<M>() {
                            for (line, &value) in to.iter_mut().zip(&out) {
                                put(line, value.add(bias));
                            }
                        } else {
                            for (line, &value) in to.iter_mut().zip(&out) {
                                put(line, value.add(bias));
                            }
                        }
                    }
                }
            }
        }
    }
}
