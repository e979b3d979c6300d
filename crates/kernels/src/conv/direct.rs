//! Convolution by im2col: the pixels that a block of output rows reads become a matrix, and one matrix product computes the block.

use super::ConvShape;
use crate::gemm::{View, gemm};
use crate::threads::{each_chunk_mut, each_job};
use crate::{Real, SharedMut};

/// Columns per block that keep the matrix product busy while the block stays in the cache.
const BLOCK_COLUMNS: usize = 512;
/// Upper bound of a block's elements, for wide inputs.
const BLOCK_ELEMENTS: usize = 1 << 20;
/// Partial weight gradients: enough for many cores, few enough to stay small compared to the activations.
const PARTIALS: usize = 16;
/// Upper bound of the elements of all partial gradients together; there are two at least.
const PARTIAL_ELEMENTS: usize = 1 << 24;

/// Some output rows of an image.
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    first: usize,
    rows: usize,
}

impl ConvShape {
    /// Length of one column: the number of weights of one output channel.
    fn depth(&self) -> usize {
        self.c_in * self.taps()
    }

    fn rows_per_block(&self) -> usize {
        let wanted = BLOCK_COLUMNS
            .min(BLOCK_ELEMENTS / self.depth().max(1))
            .max(1);
        wanted.div_ceil(self.out_w()).min(self.out_h()).max(1)
    }

    fn blocks_per_image(&self) -> usize {
        self.out_h().div_ceil(self.rows_per_block())
    }

    fn n_blocks(&self) -> usize {
        self.batch * self.blocks_per_image()
    }

    /// Block `i`. It lies in one image, because a product of another width may sum in another order, and an image must be the same in every
    /// batch.
    fn block(&self, i: usize) -> Block {
        let (image, first) = (
            i / self.blocks_per_image(),
            i % self.blocks_per_image() * self.rows_per_block(),
        );
        Block {
            image,
            first,
            rows: self.rows_per_block().min(self.out_h() - first),
        }
    }

    /// Fills `columns` `[depth, n]` with the pixels that the outputs of the block read.
    fn im2col<T: Real>(&self, x: &[T], block: Block, columns: &mut [T]) {
        let (out_w, plane) = (self.out_w(), self.h * self.w);
        let Block { image, first, rows } = block;
        let n = rows * out_w;
        for depth in 0..self.depth() {
            let (c, ky, kx) = (
                depth / self.taps(),
                depth / self.k[1] % self.k[0],
                depth % self.k[1],
            );
            let line = &mut columns[depth * n..(depth + 1) * n];
            let source = &x[(image * self.c_in + c) * plane..][..plane];
            if self.k == [1, 1] && self.stride == 1 && self.pad == [0; 4] {
                line.copy_from_slice(&source[first * self.w..(first + rows) * self.w]);
                continue;
            }
            for (row, to) in line.chunks_exact_mut(out_w).enumerate() {
                let y = (first + row) * self.stride + ky;
                if y < self.pad[0] || y >= self.h + self.pad[0] {
                    to.fill(T::default());
                    continue;
                }
                let from = &source[(y - self.pad[0]) * self.w..][..self.w];
                // Outputs whose pixel lies inside the row: x_out * stride + kx - pad in 0..w.
                let start = self.pad[1]
                    .saturating_sub(kx)
                    .div_ceil(self.stride)
                    .min(out_w);
                let end = (self.w + self.pad[1])
                    .saturating_sub(kx)
                    .div_ceil(self.stride)
                    .clamp(start, out_w);
                to[..start].fill(T::default());
                to[end..].fill(T::default());
                if start == end {
                    continue;
                }
                let first = start * self.stride + kx - self.pad[1];
                if self.stride == 1 {
                    to[start..end].copy_from_slice(&from[first..first + end - start]);
                } else {
                    for (i, value) in to[start..end].iter_mut().enumerate() {
                        *value = from[first + i * self.stride];
                    }
                }
            }
        }
    }

    /// Adds `columns` `[depth, n]` back to the pixels of one image that they came from.
    fn col2im<T: Real>(&self, columns: &[T], n: usize, dx: &mut [T]) {
        let (out_h, out_w) = (self.out_h(), self.out_w());
        for depth in 0..self.depth() {
            let (c, ky, kx) = (
                depth / self.taps(),
                depth / self.k[1] % self.k[0],
                depth % self.k[1],
            );
            let line = &columns[depth * n..(depth + 1) * n];
            for row in 0..out_h {
                let y = row * self.stride + ky;
                if y < self.pad[0] || y >= self.h + self.pad[0] {
                    continue;
                }
                let to = &mut dx[(c * self.h + y - self.pad[0]) * self.w..][..self.w];
                for column in 0..out_w {
                    let x = column * self.stride + kx;
                    if x >= self.pad[1] && x < self.w + self.pad[1] {
                        to[x - self.pad[1]] += line[row * out_w + column];
                    }
                }
            }
        }
    }

    /// Copies the block's part of `[b, c_out, out_h, out_w]` into `[c_out, n]`.
    fn gather<T: Real>(&self, dy: &[T], block: Block, out: &mut [T]) {
        let n = block.rows * self.out_w();
        for (c, out) in out.chunks_exact_mut(n).enumerate() {
            out.copy_from_slice(&dy[self.start(block, c)..][..n]);
        }
    }

    /// Where a channel of a block starts in `[b, c_out, out_h, out_w]`.
    fn start(&self, block: Block, channel: usize) -> usize {
        let row = (block.image * self.c_out + channel) * self.out_h() + block.first;
        row * self.out_w()
    }
}

/// `y = w * x + bias`.
pub(super) fn forward<T: Real>(shape: &ConvShape, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (out_w, plane, depth) = (shape.out_w(), shape.out_h() * shape.out_w(), shape.depth());
    let mut y = vec![T::default(); shape.batch * shape.c_out * plane];
    let shared = SharedMut::new(&mut y);
    each_job(shape.n_blocks(), |i| {
        let block = shape.block(i);
        let n = block.rows * out_w;
        T::with_scratch([depth * n, shape.c_out * n], |columns, result| {
            shape.im2col(x, block, columns);
            gemm(
                shape.c_out,
                n,
                depth,
                result,
                n,
                false,
                View::new(w, depth),
                View::new(columns, n),
            );
            for (c, from) in result.chunks_exact(n).enumerate() {
                // SAFETY: blocks do not share output rows.
                let to = unsafe { shared.slice(shape.start(block, c), n) };
                match bias {
                    Some(bias) => {
                        for (to, &from) in to.iter_mut().zip(from) {
                            *to = from + bias[c];
                        }
                    }
                    None => to.copy_from_slice(from),
                }
            }
        });
    });
    y
}

/// The gradient of `x`, from `dy` shaped like the output.
pub(super) fn input_gradient<T: Real>(shape: &ConvShape, dy: &[T], w: &[T]) -> Vec<T> {
    let fits = |side: usize| shape.pad[side] < shape.k[side % 2];
    if shape.stride == 1 && (0..4).all(fits) {
        // With stride 1 it is a convolution of dy with the weights rotated by 180 degrees.
        let k2 = shape.taps();
        let mut rotated = vec![T::default(); w.len()];
        for o in 0..shape.c_out {
            for i in 0..shape.c_in {
                let from = &w[(o * shape.c_in + i) * k2..][..k2];
                let to = &mut rotated[(i * shape.c_out + o) * k2..][..k2];
                for (to, from) in to.iter_mut().zip(from.iter().rev()) {
                    *to = *from;
                }
            }
        }
        let back = ConvShape {
            c_in: shape.c_out,
            c_out: shape.c_in,
            h: shape.out_h(),
            w: shape.out_w(),
            pad: [0, 1, 2, 3].map(|side| shape.k[side % 2] - 1 - shape.pad[side]),
            ..*shape
        };
        return forward(&back, dy, &rotated, None);
    }
    let (depth, n) = (shape.depth(), shape.out_h() * shape.out_w());
    let mut dx = vec![T::default(); shape.batch * shape.c_in * shape.h * shape.w];
    each_chunk_mut(&mut dx, shape.c_in * shape.h * shape.w, |image, dx| {
        let dy = &dy[image * shape.c_out * n..][..shape.c_out * n];
        T::with_scratch([depth * n, 0], |columns, _| {
            gemm(
                depth,
                n,
                shape.c_out,
                columns,
                n,
                false,
                View::new(w, depth).t(),
                View::new(dy, n),
            );
            shape.col2im(columns, n, dx);
        });
    });
    dx
}

/// The gradient of `w`.
pub(super) fn weight_gradient<T: Real>(shape: &ConvShape, x: &[T], dy: &[T]) -> Vec<T> {
    let (out_w, depth, blocks) = (shape.out_w(), shape.depth(), shape.n_blocks());
    let len = shape.c_out * depth;
    let partials = PARTIALS
        .min(PARTIAL_ELEMENTS / len.max(1))
        .max(2)
        .min(blocks);
    let mut sums = vec![Vec::new(); partials];
    each_chunk_mut(&mut sums, 1, |p, sum| {
        let mut dw = vec![T::default(); len];
        for i in p * blocks / partials..(p + 1) * blocks / partials {
            let block = shape.block(i);
            let n = block.rows * out_w;
            T::with_scratch([depth * n, shape.c_out * n], |columns, part| {
                shape.im2col(x, block, columns);
                shape.gather(dy, block, part);
                let (left, right) = (View::new(part, n), View::new(columns, n).t());
                gemm(shape.c_out, depth, n, &mut dw, depth, true, left, right);
            });
        }
        sum[0] = dw;
    });
    let mut sums = sums.into_iter();
    let mut dw = sums.next().unwrap_or_else(|| vec![T::default(); len]);
    for part in sums {
        for (sum, value) in dw.iter_mut().zip(part) {
            *sum += value;
        }
    }
    dw
}
