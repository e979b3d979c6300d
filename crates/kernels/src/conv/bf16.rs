//! Convolutions of bf16 maps: by tiles where the processor multiplies bf16 fast, otherwise in f32 on the rounded factors.

use super::small::SmallMaps;
use super::tiled::{Phased, Tiled};
use super::winograd::Winograd;
use super::{Added, ConvShape};
use crate::choice::Choice;
use crate::element::{round_to_bf16, to_bf16, to_f32};
use half::bf16;

pub(crate) fn forward(
    choice: Choice,
    shape: &ConvShape,
    x: &[bf16],
    w: &[f32],
    added: Added<'_, f32, bf16>,
) -> Vec<bf16> {
    match tiled(choice, shape) {
        Some(InTiles::Dense(conv)) => conv.forward(choice.simd, x, w, added),
        Some(InTiles::Strided(conv)) => conv.forward(choice.simd, x, w, added),
        None => {
            let map = added.map.map(to_f32);
            let added = Added {
                bias: added.bias,
                map: map.as_deref(),
            };
            let (x, w) = (to_f32(x), round_to_bf16(w));
            to_bf16(&super::forward(choice, shape, &x, &w, added))
        }
    }
}

pub(crate) fn input_gradient(
    choice: Choice,
    shape: &ConvShape,
    dy: &[bf16],
    w: &[f32],
) -> Vec<bf16> {
    match tiled(choice, shape) {
        Some(InTiles::Dense(conv)) => conv.input_gradient(choice.simd, dy, w),
        Some(InTiles::Strided(conv)) => conv.input_gradient(choice.simd, dy, w),
        None => to_bf16(&super::input_gradient(
            choice,
            shape,
            &to_f32(dy),
            &round_to_bf16(w),
        )),
    }
}

pub(crate) fn weight_gradient(
    choice: Choice,
    shape: &ConvShape,
    x: &[bf16],
    dy: &[bf16],
) -> Vec<f32> {
    match tiled(choice, shape) {
        Some(InTiles::Dense(conv)) => conv.weight_gradient(choice.simd, x, dy),
        Some(InTiles::Strided(conv)) => conv.weight_gradient(choice.simd, x, dy),
        None => super::weight_gradient(choice, shape, &to_f32(x), &to_f32(dy)),
    }
}

/// How a convolution of bf16 maps is computed in bf16. The others are computed in f32, and rounded.
pub(super) fn tiled(choice: Choice, shape: &ConvShape) -> Option<InTiles> {
    let unit = choice.bf16?;
    if SmallMaps::of(shape, choice.simd).is_some()
        || !unit.beats_winograd() && Winograd::of(shape, choice).is_some()
    {
        return None;
    }
    if shape.stride > 1 {
        return Phased::of(unit, shape).map(InTiles::Strided);
    }
    Tiled::of(unit, shape).map(InTiles::Dense)
}

/// A convolution of bf16 that is computed in bf16.
pub(super) enum InTiles {
    Dense(Tiled),
    Strided(Phased),
}
