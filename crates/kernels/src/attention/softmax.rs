//! Softmax over the keys, for a block of queries: matrices have a row for each key, in two vectors.

use super::{AttentionShape, QUERIES};
use crate::workspace::{Line, floats, floats_mut};

/// Terms that are summed in f32; the sums of runs are added in f64.
const RUN: usize = 32;

/// One number for each query of a block.
type Row<T> = [T; QUERIES];

/// `exp(scale (s - top))` of the scores of all keys, and the reciprocal of its sum for each query.
#[inline(always)]
pub(super) fn exponentials(shape: &AttentionShape, scores: &mut [Line]) -> Row<f32> {
    let scale: f32 = crate::real::Scalar::from_f64(shape.scale());
    let rows = &mut floats_mut(scores).as_chunks_mut::<QUERIES>().0[..shape.n];
    let mut top = rows[0];
    for row in rows.iter() {
        for (top, &value) in top.iter_mut().zip(row) {
            *top = if value > *top { value } else { *top };
        }
    }
    let mut total = [0.0f64; QUERIES];
    for run in rows.chunks_mut(RUN) {
        let mut sums = [0.0; QUERIES];
        for row in run {
            for ((value, &top), sum) in row.iter_mut().zip(&top).zip(&mut sums) {
                *value = crate::real::exp_f32((*value - top) * scale);
                *sum += *value;
            }
        }
        add_to(&mut total, &sums);
    }
    narrow(total.map(|total| 1.0 / total))
}

/// From the gradient of the weights to that of the scores before `scale`: `scale p (dp - sum(p dp))`.
#[inline(always)]
pub(super) fn through_softmax(shape: &AttentionShape, weights: &[Line], gradient: &mut [Line]) {
    let scale: f32 = crate::real::Scalar::from_f64(shape.scale());
    let weights = &floats(weights).as_chunks::<QUERIES>().0[..shape.n];
    let gradient = &mut floats_mut(gradient).as_chunks_mut::<QUERIES>().0[..shape.n];
    let mut total = [0.0f64; QUERIES];
    for (ps, dps) in weights.chunks(RUN).zip(gradient.chunks(RUN)) {
        let mut sums = [0.0; QUERIES];
        for (p, dp) in ps.iter().zip(dps) {
            for ((&p, &dp), sum) in p.iter().zip(dp).zip(&mut sums) {
                *sum += p * dp;
            }
        }
        add_to(&mut total, &sums);
    }
    let total = narrow(total);
    for (p, dp) in weights.iter().zip(gradient) {
        for ((&p, dp), &total) in p.iter().zip(dp).zip(&total) {
            *dp = p * (*dp - total) * scale;
        }
    }
}

/// Multiplies every row of 32.
#[inline(always)]
pub(super) fn scale_columns(rows: &mut [Line], factors: &Row<f32>) {
    for row in floats_mut(rows).as_chunks_mut::<QUERIES>().0 {
        for (value, &factor) in row.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

#[inline(always)]
fn add_to(total: &mut Row<f64>, sums: &Row<f32>) {
    for (total, &sum) in total.iter_mut().zip(sums) {
        *total += f64::from(sum);
    }
}

#[inline(always)]
fn narrow(row: Row<f64>) -> Row<f32> {
    row.map(crate::real::Scalar::from_f64)
}
