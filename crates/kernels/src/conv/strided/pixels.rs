//! Rows of pixels with their channels innermost, and the matrix product on them.

use crate::lanes::{gather, scatter};
use crate::micro::Product;
use crate::simd::Lanes;
use crate::workspace::{Line, floats};

/// Planes `[channels, h, w]` of one image, or where they start.
#[derive(Clone, Copy)]
pub(super) struct Planes<T> {
    pub(super) data: T,
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

/// The layout of rows of pixels: `lines[(row * columns + column) * step + channel / 16]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels {
    /// Pixels of a row.
    pub(super) columns: usize,
    /// Lines that hold channels.
    pub(super) channel_lines: usize,
    /// Lines from one pixel to the next: odd, because powers of two would compete for the same lines of a cache.
    pub(super) step: usize,
}

impl Pixels {
    pub(super) fn new(columns: usize, channel_lines: usize) -> Self {
        Self {
            columns,
            channel_lines,
            step: channel_lines | 1,
        }
    }

    /// Lines of so many rows. The transposition of sixteen pixels may reach behind the last one.
    pub(super) fn lines(&self, rows: usize) -> usize {
        self.at(rows, 16)
    }

    /// The first line of a pixel.
    pub(super) fn at(&self, row: usize, column: usize) -> usize {
        (row * self.columns + column) * self.step
    }

    /// Floats from one pixel to the next.
    pub(super) fn floats(&self) -> usize {
        16 * self.step
    }

    /// Reads `rows` rows of an image from row `first` on, which may lie outside. Zeros fill the `left` columns before the image, what
    /// is behind it, and rows outside.
    #[inline(always)]
    pub(super) fn read<V: Lanes>(
        &self,
        from: Planes<&[f32]>,
        (first, rows): (isize, usize),
        left: usize,
        to: &mut [Line],
    ) {
        let Planes {
            data,
            channels,
            h,
            w,
        } = from;
        assert!(
            data.len() == channels * h * w && channels.div_ceil(16) == self.channel_lines,
            "an image of another size"
        );
        let zero = Line([0.0; 16]);
        for row in 0..rows {
            let line = &mut to[self.at(row, 0)..self.at(row + 1, 0)];
            let inside = first
                .checked_add_unsigned(row)
                .and_then(|y| usize::try_from(y).ok());
            let Some(y) = inside.filter(|&y| y < h) else {
                line.fill(zero);
                continue;
            };
            line[..left * self.step].fill(zero);
            line[(left + w.next_multiple_of(16)) * self.step..].fill(zero);
            for group in 0..self.channel_lines {
                let rows = (channels - 16 * group).min(16);
                let start = (16 * group * h + y) * w;
                let to = &mut line[left * self.step + group..];
                // SAFETY: a row of each of the group's planes, by the assertion.
                unsafe { gather::<V>(data.as_ptr().add(start), h * w, rows, w, to, self.step) };
            }
        }
    }

    /// Writes the pixels from `from[0]` on as row `y` of an image, for the channels from `first` on.
    ///
    /// # Safety
    /// The planes are writable, and nothing else accesses these pixels.
    #[inline(always)]
    pub(super) unsafe fn write<V: Lanes>(
        &self,
        from: &[Line],
        to: Planes<*mut f32>,
        first: usize,
        y: usize,
    ) {
        for group in 0..self.channel_lines {
            let channel = first + 16 * group;
            let rows = (to.channels - channel).min(16);
            let start = to.data.wrapping_add((channel * to.h + y) * to.w);
            // SAFETY: the caller's promise.
            unsafe {
                scatter::<V>(&from[group..], self.step, start, to.h * to.w, rows, to.w);
            }
        }
    }
}

/// The left side of a product: element (i, j) is `data[i * row + j * depth]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [Line],
    pub(super) row: usize,
    pub(super) depth: usize,
}

/// The right side: row j starts at `data[j * depth]`, column 32 lies `panel` floats behind column 0.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) data: &'a [Line],
    pub(super) depth: usize,
    pub(super) panel: usize,
}

/// `c += a b` for `rows` (a multiple of 8) by `columns` (a multiple of 16) sums of `depth` products; rows of `c` are `c_row` floats apart.
#[inline(always)]
pub(super) fn multiply_add<V: Lanes>(
    [rows, columns, depth]: [usize; 3],
    a: Left<'_>,
    b: Right<'_>,
    (c, c_row): (&mut [Line], usize),
) {
    if rows == 0 || columns == 0 || depth == 0 {
        return;
    }
    let last_panel = (columns - 1) / 32;
    assert!(
        rows.is_multiple_of(8)
            && columns.is_multiple_of(16)
            && floats(a.data).len() > (rows - 1) * a.row + (depth - 1) * a.depth
            && floats(b.data).len()
                >= (depth - 1) * b.depth + last_panel * b.panel + columns - 32 * last_panel
            && floats(c).len() >= (rows - 1) * c_row + columns,
        "a product outside its memory"
    );
    let product = Product {
        rows,
        columns,
        depth,
        a: a.data.as_ptr().cast(),
        a_row: a.row,
        a_depth: a.depth,
        b: b.data.as_ptr().cast(),
        b_depth: b.depth,
        b_panel: b.panel,
        c: c.as_mut_ptr().cast(),
        c_row,
        add: true,
        bias: std::ptr::null(),
    };
    // SAFETY: all elements lie inside by the assertion, and `c` is borrowed mutably.
    unsafe { product.run::<V>() }
}
