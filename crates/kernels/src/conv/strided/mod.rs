//! Convolutions of stride 2 and more: each tap of the filters is a matrix product on pixels whose channels are innermost.

mod maps;
mod pixels;
mod weights;

use super::ConvShape;
use crate::lanes::gather;
use crate::shared_mut::SharedMut;
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, with_lines};
use pixels::Right;
use std::ops::Range;

/// Fewest channels on both sides: a vector holds sixteen.
const CHANNELS: usize = 16;
/// Jobs that keep several cores busy; where rows are too few, jobs share them and compute different channels.
const JOBS: usize = 16;
/// Lines of channels that such a job computes.
const SHARE: usize = 4;

/// A convolution whose filters are `stride` pixels apart.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    simd: Simd,
    shape: &'a ConvShape,
}

/// Filters as the right sides of products: for each tap panels of 32 results, `[terms][32]`.
struct Taps<'a> {
    lines: &'a [Line],
    panels: usize,
    /// Products that are summed in each result.
    terms: usize,
}

impl Taps<'_> {
    /// The panel of a tap; it has `lines <= 2` lines of results.
    fn panel(&self, tap: usize, panel: usize) -> Right<'_> {
        Right {
            data: &self.lines[(tap * self.panels + panel) * self.terms * 2..][..self.terms * 2],
            depth: 32,
            panel: 32,
        }
    }
}

/// The part of a map that one job computes.
#[derive(Clone)]
struct Part {
    image: usize,
    rows: Range<usize>,
    /// Lines of channels.
    lines: Range<usize>,
}

impl<'a> Strided<'a> {
    /// Returns `Some` where this applies and is faster.
    pub(super) fn of(shape: &'a ConvShape, simd: Simd) -> Option<Self> {
        let applies = shape.stride > 1
            && shape.c_in.min(shape.c_out) >= CHANNELS
            && shape.batch > 0
            && shape.h * shape.w > 0;
        applies.then_some(Self { simd, shape })
    }

    /// Cuts `rows` rows of each image and `lines` lines of channels into jobs of about `block` rows.
    fn parts(&self, rows: usize, lines: usize, block: usize) -> Vec<Part> {
        let block = block.clamp(1, rows);
        let blocks = rows.div_ceil(block);
        let few = self.shape.batch * blocks < JOBS;
        let share = if few { SHARE.min(lines) } else { lines };
        let shares = lines.div_ceil(share);
        (0..self.shape.batch * blocks * shares)
            .map(|i| {
                let (image, first) = (i / shares / blocks, i / shares % blocks * block);
                let line = i % shares * share;
                Part {
                    image,
                    rows: first..(first + block).min(rows),
                    lines: line..(line + share).min(lines),
                }
            })
            .collect()
    }

    /// Calls `f` with the filters as right sides: those of the forward pass, or of the input gradient.
    fn with_taps<R>(&self, w: &[f32], back: bool, f: impl FnOnce(Taps<'_>) -> R) -> R {
        let s = self.shape;
        let (results, terms) = if back {
            (s.c_in, s.c_out)
        } else {
            (s.c_out, s.c_in)
        };
        let panels = results.div_ceil(32);
        with_lines([s.taps() * panels * terms * 2], |[lines]| {
            let shared = SharedMut::new(lines);
            each_job(results.div_ceil(16), |line| {
                with_lines([s.taps().next_multiple_of(16)], |[scratch]| {
                    self.simd.run(PackTaps {
                        of: *self,
                        w,
                        back,
                        line,
                        scratch,
                        to: shared,
                    });
                });
            });
            f(Taps {
                lines,
                panels,
                terms,
            })
        })
    }
}

/// The filters of sixteen results.
struct PackTaps<'a> {
    of: Strided<'a>,
    w: &'a [f32],
    back: bool,
    line: usize,
    scratch: &'a mut [Line],
    to: SharedMut<'a, Line>,
}

impl Task for PackTaps<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let s = self.of.shape;
        let (taps, first) = (s.taps(), 16 * self.line);
        let (results, terms) = if self.back {
            (s.c_in, s.c_out)
        } else {
            (s.c_out, s.c_in)
        };
        let panels = results.div_ceil(32);
        assert!(
            self.w.len() == s.c_out * s.c_in * taps
                && first < results
                && self.to.len() == taps * panels * terms * 2,
            "filters of another shape"
        );
        for term in 0..terms {
            let (start, stride) = if self.back {
                ((term * s.c_in + first) * taps, taps)
            } else {
                ((first * s.c_in + term) * taps, s.c_in * taps)
            };
            let rows = (results - first).min(16);
            // SAFETY: the taps between one term and `rows` results.
            unsafe {
                let from = self.w.as_ptr().add(start);
                gather::<V>(from, stride, rows, taps, self.scratch, 1);
            }
            for (tap, line) in self.scratch[..taps].iter().enumerate() {
                let place = ((tap * panels + self.line / 2) * terms + term) * 2 + self.line % 2;
                // SAFETY: a line of these results, which no other job writes.
                unsafe { self.to.as_mut_ptr().add(place).write(*line) };
            }
        }
    }
}
