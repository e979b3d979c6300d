//! How a batch of images is cut into tiles, and the layout of the transformed tiles.

use std::ops::Range;

/// Pixels of sixteen channels that are transposed at a time; with their transform they stay in the
/// fastest caches.
const STRIP_PIXELS: usize = 512;

/// The tiles of a batch: `m x m` outputs each, row by row, image after image. Those at the lower and
/// right borders may reach outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) batch: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Side of a tile.
    pub(super) m: usize,
}

/// Rows of tiles of one image.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) image: usize,
    pub(super) rows: Range<usize>,
    /// Number of the first tile, counted from the start of the block.
    pub(super) first_tile: usize,
}

impl Grid {
    /// Rows of tiles in one image.
    pub(super) fn rows(&self) -> usize {
        self.h.div_ceil(self.m)
    }

    /// Tiles in one row.
    pub(super) fn columns(&self) -> usize {
        self.w.div_ceil(self.m)
    }

    /// Rows of tiles in the batch.
    pub(super) fn all_rows(&self) -> usize {
        self.batch * self.rows()
    }

    /// Tiles in the batch.
    pub(super) fn tiles(&self) -> usize {
        self.all_rows() * self.columns()
    }

    /// Cuts the batch into blocks of about `tiles` tiles: the rows of tiles per block.
    pub(super) fn rows_per_block(&self, tiles: usize) -> usize {
        (tiles / self.columns()).clamp(1, self.all_rows())
    }

    /// The rows of block `i`.
    pub(super) fn block(&self, i: usize, rows_per_block: usize) -> Range<usize> {
        i * rows_per_block..((i + 1) * rows_per_block).min(self.all_rows())
    }

    fn rows_per_strip(&self) -> usize {
        ((STRIP_PIXELS / self.w).saturating_sub(2) / self.m).clamp(1, self.rows())
    }

    /// Lines of scratch memory for the pixels of a strip with its border, a row of zeros, and the rows
    /// transformed along one direction.
    pub(super) fn scratch(&self, t: usize) -> [usize; 3] {
        let pixel_rows = (self.rows_per_strip() * self.m + 2).min(self.h);
        [
            (pixel_rows * self.w).next_multiple_of(16),
            self.w,
            t * (self.columns() * self.m + 2),
        ]
    }

    /// The strips of a block of rows.
    pub(super) fn strips(&self, block: Range<usize>) -> impl Iterator<Item = Strip> {
        let (grid, mut row) = (*self, block.start);
        std::iter::from_fn(move || {
            (row < block.end).then(|| {
                let (image, y) = (row / grid.rows(), row % grid.rows());
                let end = grid
                    .rows()
                    .min(y + block.end - row)
                    .min(y + grid.rows_per_strip());
                let first_tile = (row - block.start) * grid.columns();
                row += end - y;
                Strip {
                    image,
                    rows: y..end,
                    first_tile,
                }
            })
        })
    }
}

/// A matrix of tiles by channels for each of the `t x t` products: `lines[plane p + row i + channel / 16]`.
///
/// Rows and planes are an odd number of lines apart: powers of two would compete for the same lines of
/// a cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panes {
    /// Lines from one tile to the next.
    pub(super) row: usize,
    /// Lines from one product to the next.
    pub(super) plane: usize,
    /// Lines that hold channels.
    pub(super) channel_lines: usize,
}

impl Panes {
    /// `rows` is rounded up to a multiple that the matrix product needs.
    pub(super) fn new(rows: usize, channels: usize) -> Self {
        let channel_lines = channels.div_ceil(16);
        let row = channel_lines | 1;
        Self {
            row,
            plane: (rows.next_multiple_of(8) * row) | 1,
            channel_lines,
        }
    }

    /// Lines of all `t x t` products.
    pub(super) fn lines(&self, t: usize) -> usize {
        t * t * self.plane
    }
}
