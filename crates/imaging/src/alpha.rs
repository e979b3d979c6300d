//! Alpha: multiplied into colours, divided out of them, and composed on a background; and the grey of a colour.

/// A type of samples in which colours are mixed. `range` is the darkest and the lightest value of floats; integers use all their levels.
pub(crate) trait Tone: Copy + PartialEq + Default {
    /// Pillow's grey of red, green and blue: 0.299, 0.587 and 0.114; integers with weights of 16 fractional bits, rounded.
    fn luma(rgb: [Self; 3]) -> Self;

    /// This colour over `background`, rounded.
    fn over(self, background: Self, alpha: Self, range: [f64; 2]) -> Self;

    /// A level of 8 bits.
    fn from_level(level: u8, range: [f64; 2]) -> Self;
}

/// An integer sample with alpha from 0 to its largest value.
pub(crate) trait Level: Tone + Into<u64> {
    /// The largest value, which is opaque.
    const MAX: u64;
    /// Narrows a value of at most [`MAX`](Self::MAX).
    fn narrow(value: u64) -> Self;
}

macro_rules! levels {
    ($type:ident, $wide:ident, $per_level:literal) => {
        impl Tone for $type {
            fn luma([r, g, b]: [Self; 3]) -> Self {
                let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7471;
                ((sum + 0x8000) >> 16) as Self
            }

            fn over(self, background: Self, alpha: Self, _: [f64; 2]) -> Self {
                const MAX: $wide = $type::MAX as $wide;
                let [v, b, a] = [self, background, alpha].map($wide::from);
                ((v * a + b * (MAX - a) + MAX / 2) / MAX) as Self
            }

            fn from_level(level: u8, _: [f64; 2]) -> Self {
                Self::from(level) * $per_level
            }
        }

        impl Level for $type {
            const MAX: u64 = $type::MAX as u64;

            fn narrow(value: u64) -> Self {
                value as Self
            }
        }
    };
}

levels!(u8, u32, 1);
levels!(u16, u64, 257);

impl Tone for f32 {
    fn luma(rgb: [Self; 3]) -> Self {
        let [r, g, b] = rgb.map(f64::from);
        (0.299 * r + 0.587 * g + 0.114 * b) as Self
    }

    fn over(self, background: Self, alpha: Self, [low, high]: [f64; 2]) -> Self {
        let a = ((f64::from(alpha) - low) / (high - low)).clamp(0.0, 1.0);
        (f64::from(self) * a + f64::from(background) * (1.0 - a)) as Self
    }

    fn from_level(level: u8, [low, high]: [f64; 2]) -> Self {
        (low + (high - low) * f64::from(level) / 255.0) as Self
    }
}

/// Pixels of 4 channels with colours multiplied by alpha, rounded: Pillow's mode `RGBa`.
pub(crate) fn premultiply<T: Level>(values: &[T]) -> Vec<T> {
    let mut out = values.to_vec();
    for pixel in out.as_chunks_mut::<4>().0 {
        let alpha: u64 = pixel[3].into();
        for value in &mut pixel[..3] {
            *value = T::narrow(((*value).into() * alpha + T::MAX / 2) / T::MAX);
        }
    }
    out
}

/// The inverse of [`premultiply`] for pixels of `n` channels, rounded down and clamped. Colours of fully transparent pixels stay.
pub(crate) fn unpremultiply<T: Level>(values: &mut [T], n: usize) {
    for pixel in values.chunks_exact_mut(n) {
        let Some((alpha, colours)) = pixel.split_last_mut() else {
            return;
        };
        let alpha: u64 = (*alpha).into();
        if alpha == 0 || alpha == T::MAX {
            continue;
        }
        for value in colours {
            *value = T::narrow(((*value).into() * T::MAX / alpha).min(T::MAX));
        }
    }
}
