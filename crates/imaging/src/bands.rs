//! Samples as scientific formats store them: other types of numbers, packed bits, planes, palettes and inks.

use crate::{Depth, Samples};

/// A type of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Numbers {
    /// By TIFF's number of the format, and bits. Fewer than 8 bits are unpacked to 8.
    pub(crate) fn of(format: u64, bits: u64) -> Option<Self> {
        Some(match (format, bits) {
            (1 | 4, 1 | 2 | 4 | 8) => Self::U8,
            (1 | 4, 16) => Self::U16,
            (1 | 4, 32) => Self::U32,
            (1 | 4, 64) => Self::U64,
            (2, 8) => Self::I8,
            (2, 16) => Self::I16,
            (2, 32) => Self::I32,
            (2, 64) => Self::I64,
            (3, 16) => Self::F16,
            (3, 32) => Self::F32,
            (3, 64) => Self::F64,
            _ => return None,
        })
    }

    /// The depth that they are read as: 8 and 16 bits, all others floats.
    pub(crate) fn depth(self) -> Depth {
        match self {
            Self::U8 => Depth::U8,
            Self::U16 => Depth::U16,
            _ => Depth::F32,
        }
    }

    /// Whether they have a smallest and a largest value that are black and white.
    pub(crate) fn are_levels(self) -> bool {
        self.depth() != Depth::F32
    }

    /// Whether floats do not have all of their values.
    pub(crate) fn are_rounded(self) -> bool {
        matches!(
            self,
            Self::U32 | Self::U64 | Self::I32 | Self::I64 | Self::F64
        )
    }

    /// Samples from bytes in the machine's order. Integers of other types keep their value, rounded to a float.
    pub(crate) fn samples(self, bytes: Vec<u8>) -> Samples {
        fn floats<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Samples {
            Samples::F32(bytes.as_chunks().0.iter().map(|&b| value(b)).collect())
        }
        match self {
            Self::U8 => Samples::U8(bytes),
            Self::U16 => {
                let pairs = bytes.as_chunks().0.iter();
                Samples::U16(pairs.map(|&pair| u16::from_ne_bytes(pair)).collect())
            }
            Self::U32 => floats(&bytes, |b| u32::from_ne_bytes(b) as f32),
            Self::U64 => floats(&bytes, |b| u64::from_ne_bytes(b) as f32),
            Self::I8 => floats(&bytes, |[b]: [u8; 1]| f32::from(b as i8)),
            Self::I16 => floats(&bytes, |b| i16::from_ne_bytes(b).into()),
            Self::I32 => floats(&bytes, |b| i32::from_ne_bytes(b) as f32),
            Self::I64 => floats(&bytes, |b| i64::from_ne_bytes(b) as f32),
            Self::F16 => floats(&bytes, |b| half::f16::from_ne_bytes(b).to_f32()),
            Self::F32 => floats(&bytes, f32::from_ne_bytes),
            Self::F64 => floats(&bytes, |b| f64::from_ne_bytes(b) as f32),
        }
    }
}

/// Unpacks rows of values of 1, 2 or 4 bits, each row padded to whole bytes.
pub(crate) fn unpack(bytes: &[u8], rows: usize, per_row: usize, bits: u64) -> Vec<u8> {
    let bits = bits as usize;
    let stride = (per_row * bits).div_ceil(8);
    let mask = (1_u16 << bits) as u8 - 1;
    let mut out = Vec::with_capacity(rows * per_row);
    for row in bytes.chunks_exact(stride.max(1)).take(rows) {
        out.extend((0..per_row).map(|i| {
            let at = i * bits;
            row[at / 8] >> (8 - bits - at % 8) & mask
        }));
    }
    out
}

/// Planes one after another become pixels with all their channels.
pub(crate) fn interleave(samples: &Samples, channels: usize) -> Samples {
    fn pixels<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
        let n = values.len() / channels;
        let mut out = Vec::with_capacity(values.len());
        for i in 0..n {
            out.extend((0..channels).map(|c| values[c * n + i]));
        }
        out
    }
    match samples {
        Samples::U8(values) => Samples::U8(pixels(values, channels)),
        Samples::U16(values) => Samples::U16(pixels(values, channels)),
        Samples::F32(values) => Samples::F32(pixels(values, channels)),
    }
}

/// Colours of indices. `map` has all reds, greens and blues of 16 bits, of which the upper byte counts, as in Pillow; some writers store 8 bits.
/// `None` if an index has no colour.
pub(crate) fn through_palette(indices: &[u8], map: &[u64]) -> Option<Vec<u8>> {
    let n = map.len() / 3;
    if indices.iter().any(|&i| usize::from(i) >= n) {
        return None;
    }
    let shift = if map.iter().all(|&v| v < 256) { 0 } else { 8 };
    let colours: Vec<[u8; 3]> = (0..n)
        .map(|i| [i, n + i, 2 * n + i].map(|at| (map[at] >> shift) as u8))
        .collect();
    Some(
        indices
            .iter()
            .flat_map(|&i| colours[usize::from(i)])
            .collect(),
    )
}

/// Inverts the first channel, where 0 is white.
pub(crate) fn invert_first(samples: &mut Samples, channels: usize) {
    match samples {
        Samples::U8(values) => values.iter_mut().step_by(channels).for_each(|v| *v = !*v),
        Samples::U16(values) => values.iter_mut().step_by(channels).for_each(|v| *v = !*v),
        Samples::F32(_) => {}
    }
}

/// Inks become red, green and blue without a profile, as in Pillow's `convert("RGB")`: `(1 - ink) (1 - black)`.
pub(crate) fn from_cmyk(samples: &mut Samples) {
    match samples {
        Samples::U8(values) => {
            let pixels = values.as_chunks::<4>().0.iter();
            *values = pixels
                .flat_map(|&[c, m, y, k]| {
                    [c, m, y].map(|ink| {
                        // Pillow rounds the product, and then subtracts.
                        let light = 255 - u32::from(k);
                        let product = u32::from(ink) * light + 128;
                        (light - (((product >> 8) + product) >> 8)) as u8
                    })
                })
                .collect();
        }
        Samples::U16(values) => {
            let pixels = values.as_chunks::<4>().0.iter();
            *values = pixels
                .flat_map(|&[c, m, y, k]| {
                    [c, m, y].map(|ink| {
                        let light = 65_535 - u64::from(k);
                        (light - (u64::from(ink) * light + 32_767) / 65_535) as u16
                    })
                })
                .collect();
        }
        Samples::F32(_) => {}
    }
}

/// Luma and chroma of JPEG become red, green and blue.
pub(crate) fn from_ycbcr(samples: &mut Samples) {
    let Samples::U8(values) = samples else {
        return;
    };
    for pixel in values.as_chunks_mut::<3>().0 {
        let [y, cb, cr] = pixel.map(f64::from);
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        let rgb = [
            y + 1.402 * cr,
            y - 0.344_136_286 * cb - 0.714_136_286 * cr,
            y + 1.772 * cb,
        ];
        // Casts clamp.
        *pixel = rgb.map(|v| (v + 0.5) as u8);
    }
}

/// Divides colours that were multiplied by alpha, which is the last of `n` channels.
pub(crate) fn divide_by_alpha(values: &mut [f32], n: usize) {
    for pixel in values.chunks_exact_mut(n) {
        let alpha = pixel[n - 1];
        if alpha > 0.0 {
            pixel[..n - 1].iter_mut().for_each(|v| *v /= alpha);
        }
    }
}
