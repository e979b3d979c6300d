//! The transform of the filters, and its adjoint for their gradient.

use super::points::Points;
use crate::lanes::{gather, scatter};
use crate::simd::Lanes;
use crate::workspace::{Line, get, put};
use std::ops::Range;

/// Inputs whose filters are transposed at a time.
pub(super) const INPUTS: usize = 32;
/// Lines of scratch for [`Filters::transform`].
pub(super) const FILTER_SCRATCH: usize = INPUTS * 9;
/// Outputs per panel of transformed filters.
pub(super) const PANEL: usize = 32;

/// Filters `[c_out, c_in, 3, 3]`.
#[derive(Clone, Copy)]
pub(crate) struct Filters<'a> {
    pub(crate) w: &'a [f32],
    pub(crate) c_out: usize,
    pub(crate) c_in: usize,
    /// Rotated by 180 degrees, with inputs and outputs exchanged: the filters of the input gradient.
    pub(crate) rotated: bool,
}

impl Filters<'_> {
    pub(super) fn inputs(&self) -> usize {
        if self.rotated { self.c_out } else { self.c_in }
    }

    pub(super) fn outputs(&self) -> usize {
        if self.rotated { self.c_in } else { self.c_out }
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs().div_ceil(PANEL)
    }

    /// `G g G^T` of one panel of outputs for some inputs, to `to(product, line)`, where the two lines of
    /// each input follow one another.
    #[inline(always)]
    pub(super) fn transform<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
        &self,
        panel: usize,
        inputs: Range<usize>,
        scratch: &mut [Line],
        mut to: impl FnMut(usize, usize, V),
    ) {
        for first in inputs.clone().step_by(INPUTS) {
            let count = INPUTS.min(inputs.end - first);
            for half in 0..2 {
                let output = panel * PANEL + 16 * half;
                if output >= self.outputs() {
                    break;
                }
                let rows = (self.outputs() - output).min(16);
                assert!(
                    self.w.len() == self.c_out * self.c_in * 9 && first + count <= self.inputs(),
                    "filters of another shape"
                );
                if !self.rotated {
                    let start = (output * self.c_in + first) * 9;
                    // SAFETY: the filters of `rows` outputs for `count` inputs, by the assertion.
                    unsafe {
                        gather::<V>(
                            self.w.as_ptr().add(start),
                            self.c_in * 9,
                            rows,
                            count * 9,
                            scratch,
                            1,
                        )
                    };
                }
                for i in 0..count {
                    let mut g = [[V::zero(); 3]; 3];
                    if self.rotated {
                        let start = ((first + i) * self.c_in + output) * 9;
                        // SAFETY: the filters of one output for `rows` inputs, by the assertion.
                        unsafe { gather::<V>(self.w.as_ptr().add(start), 9, rows, 9, scratch, 1) };
                        for (k, line) in scratch[..9].iter().enumerate() {
                            g[2 - k / 3][2 - k % 3] = get(line);
                        }
                    } else {
                        for (k, line) in scratch[9 * i..][..9].iter().enumerate() {
                            g[k / 3][k % 3] = get(line);
                        }
                    }
                    let mut columns = [[V::zero(); 3]; T];
                    for j in 0..3 {
                        let column = P::filter([g[0][j], g[1][j], g[2][j]]);
                        for (row, &value) in columns.iter_mut().zip(&column) {
                            row[j] = value;
                        }
                    }
                    for (k, &row) in columns.iter().enumerate() {
                        for (j, &value) in P::filter(row).iter().enumerate() {
                            to(k * T + j, 2 * (first + i - inputs.start) + half, value);
                        }
                    }
                }
            }
        }
    }
}

/// `G^T du G` for one output and up to sixteen inputs, to `inputs` filters from `dw` on. `from(product)`
/// gives the gradients of the transformed filters.
///
/// # Safety
/// `9 inputs` writable floats.
#[inline(always)]
pub(super) unsafe fn filter_gradient<V: Lanes, P: Points<M, T>, const M: usize, const T: usize>(
    from: impl Fn(usize) -> V,
    dw: *mut f32,
    inputs: usize,
) {
    let mut columns = [[V::zero(); T]; 3];
    for j in 0..T {
        let mut column = [V::zero(); T];
        for (i, value) in column.iter_mut().enumerate() {
            *value = from(i * T + j);
        }
        for (row, &value) in columns.iter_mut().zip(&P::filter_adjoint(column)) {
            row[j] = value;
        }
    }
    let mut lines = [Line([0.0; 16]); 16];
    for (i, &row) in columns.iter().enumerate() {
        for (line, &value) in lines[3 * i..].iter_mut().zip(&P::filter_adjoint(row)) {
            put(line, value);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { scatter::<V>(&lines, 1, dw, 9, inputs, 9) };
}
