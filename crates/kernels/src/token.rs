//! Layer norm over the channels at each position, and gates of branches, both modulated by an embedding of each image.

use crate::Real;
use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use crate::threads::{each_chunk_mut, each_job};

/// Tokens `[batch, channels, n]`, and the embedding `[batch, parts * channels]` that modulates them.
#[derive(Clone, Copy, Debug)]
pub struct TokenShape {
    /// Channels of a token.
    pub channels: usize,
    /// Tokens of one image.
    pub n: usize,
    /// Parts of the embedding, each with one number for a channel.
    pub parts: usize,
    /// The first part that the operation reads.
    pub first: usize,
}

/// Tokens that are normalised together: their columns stay in the cache.
const COLUMNS: usize = 64;

/// Channels that are summed in the type of the data; the sums of runs are added in f64.
const RUN: usize = 32;

impl TokenShape {
    fn check<T>(&self, x: &[T], e: &[T], read: usize) {
        let image = self.channels * self.n;
        assert!(
            image > 0
                && x.len().is_multiple_of(image)
                && e.len() == x.len() / image * self.parts * self.channels
                && self.first + read <= self.parts,
            "tokens: sizes do not fit"
        );
    }

    /// Part `first + i` of the embedding of an image.
    fn part<'a, T>(&self, e: &'a [T], image: usize, i: usize) -> &'a [T] {
        let start = (image * self.parts + self.first + i) * self.channels;
        &e[start..start + self.channels]
    }
}

/// `(x - mean) / sqrt(variance + eps) (1 + scale) + shift`, with mean and variance over the channels of each token. The shift is the
/// part `first` of the embedding, the scale the next one.
pub fn token_norm<T: Real>(shape: &TokenShape, x: &[T], e: &[T], eps: f64) -> Vec<T> {
    shape.check(x, e, 2);
    let (c, n) = (shape.channels, shape.n);
    let simd = Choice::get().simd;
    let blocks = n.div_ceil(COLUMNS);
    // SAFETY: the jobs cover all images and tokens, and each writes all of its own.
    unsafe {
        filled(x.len(), |y: SharedMut<'_, T>| {
            each_job(x.len() / (c * n) * blocks, |job| {
                let (image, start) = (job / blocks, job % blocks * COLUMNS);
                let (shift, scale) = (shape.part(e, image, 0), shape.part(e, image, 1));
                let columns = Columns {
                    x: &x[image * c * n..(image + 1) * c * n],
                    n,
                    start,
                    width: COLUMNS.min(n - start),
                };
                let y = y.as_mut_ptr().wrapping_add(image * c * n);
                simd.vectorise(
                    #[inline(always)]
                    move || {
                        let (mean, rstd) = columns.statistics(eps);
                        let w = columns.width;
                        let (mean, rstd) = (&mean[..w], &rstd[..w]);
                        for (i, x) in columns.rows().enumerate() {
                            let (gain, shift) = (T::from_f64(1.0) + scale[i], shift[i]);
                            let y = y.wrapping_add(i * n + start);
                            for (j, &x) in x.iter().enumerate() {
                                y.add(j).write((x - mean[j]) * rstd[j] * gain + shift);
                            }
                        }
                    },
                );
            });
        })
    }
}

/// The gradients of `x` and of the embedding, one after the other, from that of the result of [`token_norm`].
pub fn token_norm_gradient<T: Real>(
    shape: &TokenShape,
    x: &[T],
    e: &[T],
    eps: f64,
    dy: &[T],
) -> Vec<T> {
    shape.check(x, e, 2);
    assert_eq!(x.len(), dy.len(), "tokens: sizes do not fit");
    let (c, n) = (shape.channels, shape.n);
    let simd = Choice::get().simd;
    let mut all = vec![T::default(); x.len() + e.len()];
    let (dx, de) = all.split_at_mut(x.len());
    let of_image = shape.parts * c;
    let de = SharedMut::new(de);
    each_chunk_mut(dx, c * n, |image, dx| {
        // SAFETY: images do not overlap.
        let de = unsafe { de.slice(image * of_image, of_image) };
        let at = image * c * n..(image + 1) * c * n;
        let (x, dy, scale) = (&x[at.clone()], &dy[at], shape.part(e, image, 1));
        let mut sums = vec![(0.0f64, 0.0f64); c];
        for start in (0..n).step_by(COLUMNS) {
            let width = COLUMNS.min(n - start);
            let of = |x| Columns { x, n, start, width };
            let (x, dy) = (of(x), of(dy));
            simd.vectorise(
                #[inline(always)]
                || x.backward(&dy, scale, eps, dx, &mut sums),
            );
        }
        let de = &mut de[shape.first * c..(shape.first + 2) * c];
        let (dshift, dscale) = de.split_at_mut(c);
        for (i, (shift, scale)) in sums.into_iter().enumerate() {
            dshift[i] = T::from_f64(shift);
            dscale[i] = T::from_f64(scale);
        }
    });
    all
}

/// Neighbouring tokens of one image `[channels, n]`.
struct Columns<'a, T> {
    x: &'a [T],
    n: usize,
    start: usize,
    width: usize,
}

/// One number for each token.
type Row<T> = [T; COLUMNS];

impl<T: Real> Columns<'_, T> {
    /// The values of each channel.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &[T]> {
        let rows = self.x.chunks_exact(self.n);
        rows.map(|row| &row[self.start..self.start + self.width])
    }

    /// Mean and reciprocal standard deviation of each token.
    #[inline(always)]
    fn statistics(&self, eps: f64) -> (Row<T>, Row<T>) {
        let channels = (self.x.len() / self.n) as f64;
        let total = self.total(
            #[inline(always)]
            |_, x| x,
        );
        let mut mean = [T::default(); COLUMNS];
        for (mean, total) in mean.iter_mut().zip(total) {
            *mean = T::from_f64(total / channels);
        }
        let squares = self.total(
            #[inline(always)]
            |j, x| (x - mean[j]) * (x - mean[j]),
        );
        let mut rstd = [T::default(); COLUMNS];
        for (rstd, square) in rstd.iter_mut().zip(squares) {
            *rstd = T::from_f64(1.0 / (square / channels + eps).sqrt());
        }
        (mean, rstd)
    }

    /// The sum of `term(token, value)` over the channels of each token.
    #[inline(always)]
    fn total(&self, term: impl Fn(usize, T) -> T) -> Row<f64> {
        let mut total = [0.0; COLUMNS];
        for run in self.x.chunks(RUN * self.n) {
            let mut sums = [T::default(); COLUMNS];
            for row in run.chunks_exact(self.n) {
                let row = &row[self.start..self.start + self.width];
                for (j, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += term(j, x);
                }
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum.to_f64();
            }
        }
        total
    }

    /// Writes the gradient of these tokens into `dx` `[channels, n]`, and adds to the sums of `dy` and of `dy` times the normalised
    /// value over the tokens, for each channel.
    #[inline(always)]
    fn backward(&self, dy: &Self, scale: &[T], eps: f64, dx: &mut [T], sums: &mut [(f64, f64)]) {
        let one = T::from_f64(1.0);
        let (mean, rstd) = self.statistics(eps);
        let w = self.width;
        let (mean, rstd) = (&mean[..w], &rstd[..w]);
        // Sums over the channels of du = dy (1 + scale), and of du times the normalised value.
        let (mut first, mut second) = ([0.0f64; COLUMNS], [0.0f64; COLUMNS]);
        let runs = self.x.chunks(RUN * self.n).zip(dy.x.chunks(RUN * self.n));
        for ((xs, dys), scale) in runs.zip(scale.chunks(RUN)) {
            let (mut a, mut b) = ([T::default(); COLUMNS], [T::default(); COLUMNS]);
            let rows = xs.chunks_exact(self.n).zip(dys.chunks_exact(self.n));
            for ((x, dy), &scale) in rows.zip(scale) {
                let (x, dy) = (&x[self.start..][..w], &dy[self.start..][..w]);
                let (a, b) = (&mut a[..w], &mut b[..w]);
                for j in 0..w {
                    let du = dy[j] * (one + scale);
                    a[j] += du;
                    b[j] += du * ((x[j] - mean[j]) * rstd[j]);
                }
            }
            for j in 0..COLUMNS {
                first[j] += a[j].to_f64();
                second[j] += b[j].to_f64();
            }
        }
        let inverse = self.n as f64 / self.x.len() as f64;
        let first = first.map(|sum| T::from_f64(sum * inverse));
        let second = second.map(|sum| T::from_f64(sum * inverse));
        for (i, (x, dy)) in self.rows().zip(dy.rows()).enumerate() {
            let gain = one + scale[i];
            let (x, dy) = (&x[..w], &dy[..w]);
            let dx = &mut dx[i * self.n + self.start..][..w];
            let (first, second) = (&first[..w], &second[..w]);
            let mut values = [T::default(); COLUMNS];
            let normed = &mut values[..w];
            for j in 0..w {
                normed[j] = (x[j] - mean[j]) * rstd[j];
                dx[j] = rstd[j] * (dy[j] * gain - first[j] - normed[j] * second[j]);
            }
            let (mut shift, mut product) = (0.0, 0.0);
            for (dy, normed) in dy.chunks(16).zip(normed.chunks(16)) {
                let (mut a, mut b) = (T::default(), T::default());
                for (&dy, &normed) in dy.iter().zip(normed) {
                    a += dy;
                    b += dy * normed;
                }
                shift += a.to_f64();
                product += b.to_f64();
            }
            sums[i].0 += shift;
            sums[i].1 += product;
        }
    }
}

/// `x + gate h`, with the part `first` of the embedding as the gate.
pub fn add_gated<T: Real>(shape: &TokenShape, x: &[T], h: &[T], e: &[T]) -> Vec<T> {
    shape.check(x, e, 1);
    assert_eq!(x.len(), h.len(), "tokens: sizes do not fit");
    each_row(
        shape,
        [x, h],
        e,
        #[inline(always)]
        |[x, h], gate| x + gate * h,
    )
}

/// The gradients of `h` and of the embedding, one after the other, from that of the result of [`add_gated`].
pub fn add_gated_gradient<T: Real>(shape: &TokenShape, h: &[T], e: &[T], dy: &[T]) -> Vec<T> {
    shape.check(h, e, 1);
    assert_eq!(h.len(), dy.len(), "tokens: sizes do not fit");
    let (c, n) = (shape.channels, shape.n);
    let mut all = each_row(
        shape,
        [dy, dy],
        e,
        #[inline(always)]
        |[dy, _], gate| gate * dy,
    );
    let simd = Choice::get().simd;
    let mut de = vec![T::default(); e.len()];
    each_chunk_mut(&mut de, shape.parts * c, |image, de| {
        let at = image * c * n..(image + 1) * c * n;
        let (h, dy) = (&h[at.clone()], &dy[at]);
        let de = &mut de[shape.first * c..(shape.first + 1) * c];
        let rows = h.chunks_exact(n).zip(dy.chunks_exact(n));
        simd.vectorise(
            #[inline(always)]
            || {
                for (de, (h, dy)) in de.iter_mut().zip(rows) {
                    *de = T::from_f64(dot(h, dy));
                }
            },
        );
    });
    all.extend(de);
    all
}

/// `f` of two tensors and the part `first` of the embedding.
fn each_row<T: Real>(
    shape: &TokenShape,
    [a, b]: [&[T]; 2],
    e: &[T],
    f: impl Fn([T; 2], T) -> T + Copy + Send + Sync,
) -> Vec<T> {
    let (c, n) = (shape.channels, shape.n);
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all images, and each writes all of its own.
    unsafe {
        filled(a.len(), |y: SharedMut<'_, T>| {
            each_job(a.len() / (c * n), |image| {
                let at = image * c * n..(image + 1) * c * n;
                let (a, b) = (&a[at.clone()], &b[at]);
                let gates = shape.part(e, image, 0);
                let y = y.as_mut_ptr().wrapping_add(image * c * n);
                simd.vectorise(
                    #[inline(always)]
                    move || {
                        let rows = a.chunks_exact(n).zip(b.chunks_exact(n));
                        for (i, ((a, b), &gate)) in rows.zip(gates).enumerate() {
                            let y = y.wrapping_add(i * n);
                            for (j, (&a, &b)) in a.iter().zip(b).enumerate() {
                                y.add(j).write(f([a, b], gate));
                            }
                        }
                    },
                );
            });
        })
    }
}

/// The sum of products: short runs in the type of the data, which vectorise, added in f64.
#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut total = 0.0;
    for (a, b) in a.chunks(256).zip(b.chunks(256)) {
        let mut lanes = [T::default(); 16];
        let ((aa, a_rest), (bb, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
        for (a, b) in aa.iter().zip(bb) {
            for i in 0..16 {
                lanes[i] += a[i] * b[i];
            }
        }
        for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += a * b;
        }
        for lane in lanes {
            total += lane.to_f64();
        }
    }
    total
}
