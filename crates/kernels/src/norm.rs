//! Group normalisation with an affine map per image and channel, and SiLU, in one pass each way.

use crate::Element;
use crate::choice::Choice;
use crate::real::Scalar;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::Fused;
use crate::threads::{each_chunk_mut, each_job, each_short_job};

/// What follows the affine map of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The shape of a normalised tensor `[batch, channels, plane]`; any batch.
#[derive(Clone, Copy, Debug)]
pub struct NormShape {
    /// Channels of one image.
    pub channels: usize,
    /// Elements of one channel.
    pub plane: usize,
    /// Groups of channels that are normalised together; divides the channels.
    pub groups: usize,
}

impl NormShape {
    fn check<E: Element>(&self, x: &[E], a: &[E::Real], b: &[E::Real]) {
        assert!(
            self.channels.is_multiple_of(self.groups)
                && a.len().is_multiple_of(self.channels)
                && a.len() == b.len()
                && a.len() * self.plane == x.len(),
            "norm: sizes do not fit"
        );
    }
}

/// Mean and reciprocal standard deviation of each group of each image.
pub type Statistics = Vec<(f64, f64)>;

/// Elements that are summed in the type that kernels compute with; the sums of runs are added in f64.
const RUN: usize = 256;

/// Fewest elements that one job sums.
const SUMMED: usize = 1 << 14;

/// The sum of a slice: short runs in the type that kernels compute with, which vectorises, added in f64.
pub(crate) fn sum<E: Element>(x: &[E]) -> f64 {
    Choice::get().simd.vectorise(
        #[inline(always)]
        || fold::<E, false>(x, E::Real::default()),
    )
}

/// The sum of each plane of this many elements.
pub fn plane_sums<E: Element>(x: &[E], plane: usize) -> Vec<E::Real> {
    let totals = plane_totals(x, plane);
    totals.into_iter().map(E::Real::from_f64).collect()
}

/// The sum of each plane of this many elements, in f64.
pub(crate) fn plane_totals<E: Element>(x: &[E], plane: usize) -> Vec<f64> {
    if plane == 1 {
        return x.iter().map(|x| x.real().to_f64()).collect();
    }
    let plane = plane.max(1);
    // SAFETY: the jobs cover all planes, and each writes its sum.
    unsafe {
        filled(x.len() / plane, |totals: SharedMut<'_, f64>| {
            each_short_job(totals.len(), SUMMED.div_ceil(plane), |i| {
                let total = sum(&x[i * plane..][..plane]);
                totals.as_mut_ptr().add(i).write(total);
            });
        })
    }
}

/// The sum of `x`, or of `(x - centre)^2`. Four vectors of sums, so that their additions overlap.
#[inline(always)]
fn fold<E: Element, const SQUARE: bool>(x: &[E], centre: E::Real) -> f64 {
    let mut total = 0.0;
    for run in x.chunks(RUN) {
        let [mut a, mut b, mut c, mut d] = [[E::Real::default(); 16]; 4];
        let (chunks, rest) = run.as_chunks::<64>();
        for chunk in chunks {
            add_terms::<E, SQUARE>(&mut a, &chunk[..16], centre);
            add_terms::<E, SQUARE>(&mut b, &chunk[16..32], centre);
            add_terms::<E, SQUARE>(&mut c, &chunk[32..48], centre);
            add_terms::<E, SQUARE>(&mut d, &chunk[48..], centre);
        }
        let (chunks, rest) = rest.as_chunks::<16>();
        for chunk in chunks {
            add_terms::<E, SQUARE>(&mut a, chunk, centre);
        }
        add_terms::<E, SQUARE>(&mut b, rest, centre);
        for i in 0..16 {
            a[i] = (a[i] + b[i]) + (c[i] + d[i]);
        }
        total += total_of(a);
    }
    total
}

#[inline(always)]
fn add_terms<E: Element, const SQUARE: bool>(to: &mut [E::Real; 16], x: &[E], centre: E::Real) {
    for (sum, x) in to.iter_mut().zip(x) {
        let v = x.real() - centre;
        *sum += if SQUARE { v * v } else { x.real() };
    }
}

/// The sum of `du (x - centre)` over one run. A loop of its own: two sums in one loop do not vectorise.
#[inline(always)]
fn fold_product<E: Element>(du: &[E::Real], x: &[E], centre: E::Real) -> f64 {
    let mut lanes = [E::Real::default(); 16];
    let ((dus, du_rest), (xs, x_rest)) = (du.as_chunks::<16>(), x.as_chunks::<16>());
    for (du, x) in dus.iter().zip(xs) {
        for i in 0..16 {
            lanes[i] += du[i] * (x[i].real() - centre);
        }
    }
    for ((lane, &du), &x) in lanes.iter_mut().zip(du_rest).zip(x_rest) {
        *lane += du * (x.real() - centre);
    }
    total_of(lanes)
}

#[inline(always)]
fn total_of<T: Scalar>(lanes: [T; 16]) -> f64 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = lanes[i].to_f64() + lanes[8 + i].to_f64();
    }
    for i in 0..4 {
        four[i] = eight[i] + eight[4 + i];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

#[inline(always)]
fn statistics<E: Element>(x: &[E], eps: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = fold::<E, false>(x, E::Real::default()) / n;
    let variance = fold::<E, true>(x, E::Real::from_f64(mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `act(a * normalised(x) + b)` with `a` and `b` `[batch, channels]`, and the statistics that [`norm_act_gradient`] needs.
pub fn norm_act<E: Element>(
    shape: &NormShape,
    x: &[E],
    [a, b]: [&[E::Real]; 2],
    eps: f64,
    activation: Activation,
) -> (Vec<E>, Statistics) {
    let per_group = shape.channels / shape.groups;
    let len = per_group * shape.plane;
    let simd = Choice::get().simd;
    shape.check(x, a, b);
    let mut statistics = vec![(0.0, 0.0); x.len() / len.max(1)];
    // SAFETY: the jobs cover all groups, and each writes all of its own.
    let y = unsafe {
        filled(x.len(), |y: SharedMut<'_, E>| {
            each_chunk_mut(&mut statistics, 1, |job, statistics| {
                let x = &x[job * len..][..len];
                let channels = job * per_group..(job + 1) * per_group;
                let y = y.as_mut_ptr().wrapping_add(job * len);
                let (a, b) = (&a[channels.clone()], &b[channels]);
                statistics[0] = simd.vectorise_fused(
                    #[inline(always)]
                    |fused| forward_group(x, a, b, eps, (activation, fused), y),
                );
            });
        })
    };
    (y, statistics)
}

/// One group of one image.
///
/// # Safety
/// `y` has room for as many elements as `x`; all of them are written.
#[inline(always)]
unsafe fn forward_group<E: Element>(
    x: &[E],
    a: &[E::Real],
    b: &[E::Real],
    eps: f64,
    (activation, fused): (Activation, Fused),
    y: *mut E,
) -> (f64, f64) {
    let (mean, rstd) = statistics(x, eps);
    let plane = x.len() / a.len();
    for (c, x) in x.chunks_exact(plane).enumerate() {
        let scale = E::Real::from_f64(a[c].to_f64() * rstd);
        let shift = E::Real::from_f64(b[c].to_f64() - a[c].to_f64() * rstd * mean);
        let y = y.wrapping_add(c * plane);
        match activation {
            Activation::None => {
                for (i, &x) in x.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { y.add(i).write(E::of(x.real() * scale + shift)) };
                }
            }
            Activation::Silu => {
                for (i, &x) in x.iter().enumerate() {
                    let u = x.real() * scale + shift;
                    // SAFETY: the caller's promise.
                    unsafe { y.add(i).write(E::of(u * u.sigmoid(fused))) };
                }
            }
        }
    }
    (mean, rstd)
}

/// The gradient of `x`, plus `earlier` if there is one, and those of `a` and `b` one after the other, from that of the result of
/// [`norm_act`].
pub fn norm_act_gradient<E: Element>(
    shape: &NormShape,
    x: &[E],
    [a, b]: [&[E::Real]; 2],
    statistics: &Statistics,
    activation: Activation,
    dy: &[E],
    earlier: Option<&[E]>,
) -> (Vec<E>, Vec<E::Real>) {
    let per_group = shape.channels / shape.groups;
    let len = per_group * shape.plane;
    let simd = Choice::get().simd;
    shape.check(x, a, b);
    assert!(
        x.len() == dy.len() && earlier.is_none_or(|earlier| earlier.len() == x.len()),
        "norm: sizes do not fit"
    );
    if x.is_empty() {
        return (Vec::new(), vec![E::Real::default(); 2 * a.len()]);
    }
    assert_eq!(statistics.len() * len, x.len(), "norm: sizes do not fit");
    let mut dx = Vec::new();
    // SAFETY: the jobs cover all groups and their channels, and each writes all of its own.
    let dab = unsafe {
        filled(2 * a.len(), |dab: SharedMut<'_, E::Real>| {
            dx = filled(x.len(), |dx: SharedMut<'_, E>| {
                each_job(x.len() / len, |job| {
                    let at = job * len..(job + 1) * len;
                    let (x, dy) = (&x[at.clone()], &dy[at]);
                    let first = job * per_group;
                    let group = Group {
                        x,
                        dy,
                        earlier: earlier.map(|earlier| &earlier[job * len..][..len]),
                        a: &a[first..first + per_group],
                        b: &b[first..first + per_group],
                        mean: statistics[job].0,
                        rstd: statistics[job].1,
                    };
                    let da = dab.as_mut_ptr().wrapping_add(first);
                    let db = da.wrapping_add(a.len());
                    let dx = dx.as_mut_ptr().wrapping_add(job * len);
                    E::Real::with_scratch([len, 0], |du, _| {
                        simd.vectorise_fused(
                            #[inline(always)]
                            |fused| group.backward((activation, fused), du, dx, [da, db]),
                        );
                    });
                });
            });
        })
    };
    (dx, dab)
}

/// The backward pass of one group of one image.
struct Group<'a, E: Element> {
    x: &'a [E],
    dy: &'a [E],
    earlier: Option<&'a [E]>,
    a: &'a [E::Real],
    b: &'a [E::Real],
    mean: f64,
    rstd: f64,
}

impl<E: Element> Group<'_, E> {
    /// Writes the gradients of `x`, `a` and `b`. `du` is a buffer of the length of `x`.
    ///
    /// # Safety
    /// There is room for as many elements as `x`, `a` and `b` have; all of them are written.
    #[inline(always)]
    unsafe fn backward(
        &self,
        (activation, fused): (Activation, Fused),
        du: &mut [E::Real],
        dx: *mut E,
        [da, db]: [*mut E::Real; 2],
    ) {
        let Self { mean, rstd, .. } = *self;
        let plane = self.x.len() / self.a.len();
        let centre = E::Real::from_f64(mean);
        let (mut sum_du, mut sum_du_x) = (0.0, 0.0);
        for (c, ((x, dy), du)) in self
            .x
            .chunks_exact(plane)
            .zip(self.dy.chunks_exact(plane))
            .zip(du.chunks_exact_mut(plane))
            .enumerate()
        {
            let scale = E::Real::from_f64(self.a[c].to_f64() * rstd);
            let shift = E::Real::from_f64(self.b[c].to_f64() - self.a[c].to_f64() * rstd * mean);
            let (total, total_x) = match activation {
                Activation::None => Self::affine::<false>(x, dy, [scale, shift, centre], fused, du),
                Activation::Silu => Self::affine::<true>(x, dy, [scale, shift, centre], fused, du),
            };
            let total_x = total_x * rstd;
            // SAFETY: the caller's promise.
            unsafe {
                da.add(c).write(E::Real::from_f64(total_x));
                db.add(c).write(E::Real::from_f64(total));
            }
            sum_du += self.a[c].to_f64() * total;
            sum_du_x += self.a[c].to_f64() * total_x;
        }
        let n = self.x.len() as f64;
        // dx = rstd (a du - mean(a du) - normalised(x) mean(a du normalised(x)))
        let slope = -rstd * rstd * sum_du_x / n;
        let (slope, offset) = (
            E::Real::from_f64(slope),
            E::Real::from_f64(-rstd * sum_du / n - slope * mean),
        );
        for (c, (du, x)) in du
            .chunks_exact(plane)
            .zip(self.x.chunks_exact(plane))
            .enumerate()
        {
            let scale = E::Real::from_f64(self.a[c].to_f64() * rstd);
            let dx = dx.wrapping_add(c * plane);
            match self.earlier {
                None => {
                    for (i, (&du, &x)) in du.iter().zip(x).enumerate() {
                        let own = du * scale + x.real() * slope + offset;
                        // SAFETY: the caller's promise.
                        unsafe { dx.add(i).write(E::of(own)) };
                    }
                }
                Some(earlier) => {
                    let earlier = &earlier[c * plane..][..plane];
                    for (i, ((&du, &x), earlier)) in du.iter().zip(x).zip(earlier).enumerate() {
                        let own = du * scale + x.real() * slope + offset;
                        // SAFETY: the caller's promise.
                        unsafe { dx.add(i).write(E::of(earlier.real() + own)) };
                    }
                }
            }
        }
    }

    /// The gradient `du` of the affine map's output for one channel, the sum of it, and that of
    /// `du (x - centre)`.
    #[inline(always)]
    fn affine<const SILU: bool>(
        x: &[E],
        dy: &[E],
        [scale, shift, centre]: [E::Real; 3],
        fused: Fused,
        du: &mut [E::Real],
    ) -> (f64, f64) {
        let (mut total, mut total_x) = (0.0, 0.0);
        let one = E::Real::from_f64(1.0);
        for ((x, dy), du) in x.chunks(RUN).zip(dy.chunks(RUN)).zip(du.chunks_mut(RUN)) {
            for ((&x, &dy), du) in x.iter().zip(dy).zip(&mut *du) {
                let dy = dy.real();
                *du = if SILU {
                    let u = x.real() * scale + shift;
                    let s = u.sigmoid(fused);
                    dy * s * (one + u * (one - s))
                } else {
                    dy
                };
            }
            total += fold::<_, false>(du, E::Real::default());
            total_x += fold_product(du, x, centre);
        }
        (total, total_x)
    }
}
