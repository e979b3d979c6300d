//! The types that feature maps are stored in.

use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use crate::threads::each_job;
use crate::{Added, AttentionShape, ConvShape, Real};
use crate::{attention, conv};
use half::bf16;

/// A type that feature maps are stored in: f32, f64 or bf16.
///
/// Kernels compute with its [`Real`] type (f32 for bf16) and round each element of a result once. Parameters, their gradients and
/// sums have the [`Real`] type. Implemented for these three only.
pub trait Element: Stored {}

impl Element for f32 {}
impl Element for f64 {}
impl Element for bf16 {}

/// What kernels need of an element. Public in a private module, which seals [`Element`].
pub trait Stored: Copy + Default + Send + Sync + 'static {
    /// The type that kernels compute with.
    type Real: Real;
    /// The same number.
    fn real(self) -> Self::Real;
    /// The nearest element; of two equally near ones the even one.
    fn of(x: Self::Real) -> Self;
    /// The convolution `w * x`, plus what is added.
    fn conv2d(
        shape: &ConvShape,
        x: &[Self],
        w: &[Self::Real],
        added: Added<'_, Self::Real, Self>,
    ) -> Vec<Self>;
    /// The gradient of the input of a convolution.
    fn conv2d_input_gradient(shape: &ConvShape, dy: &[Self], w: &[Self::Real]) -> Vec<Self>;
    /// The gradient of the weights of a convolution.
    fn conv2d_weight_gradient(shape: &ConvShape, x: &[Self], dy: &[Self]) -> Vec<Self::Real>;
    /// Multi-head self-attention.
    fn attention(shape: &AttentionShape, qkv: &[Self]) -> Vec<Self>;
    /// The gradient of its input.
    fn attention_gradient(shape: &AttentionShape, qkv: &[Self], dout: &[Self]) -> Vec<Self>;
}

macro_rules! real_element {
    ($($t:ty),+) => {$(
        impl Stored for $t {
            type Real = Self;
            #[inline(always)]
            fn real(self) -> Self {
                self
            }
            #[inline(always)]
            fn of(x: Self) -> Self {
                x
            }
            fn conv2d(shape: &ConvShape, x: &[Self], w: &[Self], added: Added<'_, Self>) -> Vec<Self> {
                conv::forward(Choice::get(), shape, x, w, added)
            }
            fn conv2d_input_gradient(shape: &ConvShape, dy: &[Self], w: &[Self]) -> Vec<Self> {
                conv::input_gradient(Choice::get(), shape, dy, w)
            }
            fn conv2d_weight_gradient(shape: &ConvShape, x: &[Self], dy: &[Self]) -> Vec<Self> {
                conv::weight_gradient(Choice::get(), shape, x, dy)
            }
            fn attention(shape: &AttentionShape, qkv: &[Self]) -> Vec<Self> {
                attention::attention_by(Choice::get().simd, shape, qkv)
            }
            fn attention_gradient(
                shape: &AttentionShape,
                qkv: &[Self],
                dout: &[Self],
            ) -> Vec<Self> {
                attention::gradient_by(Choice::get().simd, shape, qkv, dout)
            }
        }
    )+};
}
real_element!(f32, f64);

impl Stored for bf16 {
    type Real = f32;
    #[inline(always)]
    fn real(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    /// Without branches, so that loops over it become vector code.
    #[inline(always)]
    fn of(x: f32) -> Self {
        let bits = x.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could turn a NaN into an infinity.
        let quiet = (bits >> 16) | 0x40;
        let bits = if x.is_nan() { quiet } else { nearest };
        #[expect(clippy::cast_possible_truncation, reason = "the upper half is zero")]
        Self::from_bits(bits as u16)
    }
    fn conv2d(shape: &ConvShape, x: &[Self], w: &[f32], added: Added<'_, f32, Self>) -> Vec<Self> {
        conv::bf16::forward(Choice::get(), shape, x, w, added)
    }
    fn conv2d_input_gradient(shape: &ConvShape, dy: &[Self], w: &[f32]) -> Vec<Self> {
        conv::bf16::input_gradient(Choice::get(), shape, dy, w)
    }
    fn conv2d_weight_gradient(shape: &ConvShape, x: &[Self], dy: &[Self]) -> Vec<f32> {
        conv::bf16::weight_gradient(Choice::get(), shape, x, dy)
    }
    fn attention(shape: &AttentionShape, qkv: &[Self]) -> Vec<Self> {
        attention::forward_bf16(Choice::get(), shape, qkv)
    }
    fn attention_gradient(shape: &AttentionShape, qkv: &[Self], dout: &[Self]) -> Vec<Self> {
        attention::gradient_bf16(Choice::get(), shape, qkv, dout)
    }
}

/// Elements of one job.
const CHUNK: usize = 1 << 15;

/// The same numbers as f32.
pub fn to_f32(x: &[bf16]) -> Vec<f32> {
    convert(x, bf16::real)
}

/// The nearest bf16 of each number; of two equally near ones the even one.
pub fn to_bf16(x: &[f32]) -> Vec<bf16> {
    convert(x, bf16::of)
}

/// The nearest bf16 of each number, as f32.
pub(crate) fn round_to_bf16(x: &[f32]) -> Vec<f32> {
    convert(
        x,
        #[inline(always)]
        |x| bf16::of(x).real(),
    )
}

fn convert<A: Copy + Sync, B: Copy + Send>(x: &[A], f: impl Fn(A) -> B + Copy + Sync) -> Vec<B> {
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all elements, and each writes all of its own.
    unsafe {
        filled(x.len(), |y: SharedMut<'_, B>| {
            each_job(x.len().div_ceil(CHUNK), |i| {
                let x = &x[i * CHUNK..x.len().min((i + 1) * CHUNK)];
                let y = y.as_mut_ptr().wrapping_add(i * CHUNK);
                simd.vectorise(
                    #[inline(always)]
                    move || {
                        for (j, &x) in x.iter().enumerate() {
                            y.add(j).write(f(x));
                        }
                    },
                );
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_that_of_the_crate_half() {
        let special = [
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NEG_INFINITY,
            // Halfway between two bf16, and one bit above and below.
            f32::from_bits(0x3f80_8000),
            f32::from_bits(0x3f81_8000),
            f32::from_bits(0x3f80_8001),
            f32::from_bits(0x3f80_7fff),
            1e-45,
        ];
        let mut state = 1u32;
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(state)
        });
        let numbers: Vec<f32> = special.into_iter().chain(random.take(100_000)).collect();
        let rounded = to_bf16(&numbers);
        let back = to_f32(&rounded);
        for (i, &x) in numbers.iter().enumerate() {
            let want = bf16::from_f32(x);
            assert_eq!(rounded[i].is_nan(), x.is_nan(), "{x:e}");
            if !x.is_nan() {
                assert_eq!(rounded[i].to_bits(), want.to_bits(), "{x:e}");
                assert_eq!(back[i].to_bits(), want.to_f32().to_bits(), "{x:e}");
            }
        }
    }
}
