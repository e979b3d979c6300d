//! Alpha: multiplied into colours, divided out of them, and composed on a background.

/// An integer sample with alpha from 0 to its largest value.
pub(crate) trait Level: Copy {
    /// The largest value, which is opaque.
    const MAX: u64;
    /// Widens the sample.
    fn widen(self) -> u64;
    /// Narrows a value of at most [`MAX`](Self::MAX).
    fn narrow(value: u64) -> Self;
}

impl Level for u8 {
    const MAX: u64 = 255;

    fn widen(self) -> u64 {
        self.into()
    }

    fn narrow(value: u64) -> Self {
        value as Self
    }
}

impl Level for u16 {
    const MAX: u64 = 65_535;

    fn widen(self) -> u64 {
        self.into()
    }

    fn narrow(value: u64) -> Self {
        value as Self
    }
}

/// Pixels of 4 channels with colours multiplied by alpha, rounded: Pillow's mode `RGBa`.
pub(crate) fn premultiply<T: Level>(values: &[T]) -> Vec<T> {
    let mut out = values.to_vec();
    for pixel in out.as_chunks_mut::<4>().0 {
        let alpha = pixel[3].widen();
        for value in &mut pixel[..3] {
            *value = T::narrow((value.widen() * alpha + T::MAX / 2) / T::MAX);
        }
    }
    out
}

/// The inverse of [`premultiply`], rounded down and clamped. Colours of fully transparent pixels stay.
pub(crate) fn unpremultiply<T: Level>(values: &mut [T]) {
    for pixel in values.as_chunks_mut::<4>().0 {
        let alpha = pixel[3].widen();
        if alpha == 0 || alpha == T::MAX {
            continue;
        }
        for value in &mut pixel[..3] {
            *value = T::narrow((value.widen() * T::MAX / alpha).min(T::MAX));
        }
    }
}
