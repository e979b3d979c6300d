//! Kernels on plain slices: convolution, normalisation, attention, pooling, resampling, and their gradients.
//!
//! There is no tensor library here, so each kernel can be read and tested alone. Tensors are row-major and contiguous; feature maps are
//! `[batch, channels, height, width]`. Kernels of feature maps are generic over their [`Element`]: f32 and bf16 have
//! the fast kernels, f64 is what they are tested against. Others are generic over [`Real`], f32 or f64.
//!
//! One source is compiled for AVX-512, for AVX2 with FMA, and for the baseline of the target. [`kernel_choice`] names the one in use, and
//! the environment variables `SDFT_SIMD`, `SDFT_CONV` and `SDFT_BF16` select another.
//!
//! A kernel panics if its slices do not have the lengths that its shape asks for; callers check shapes first.
//!
//! # Example: a 3x3 convolution of ones
//! ```
//! use sdft_kernels::{Added, ConvShape, conv2d};
//!
//! let shape = ConvShape { batch: 1, c_in: 1, h: 3, w: 3, c_out: 1, k: [3, 3], stride: 1, pad: [1; 4] };
//! let y = conv2d(&shape, &[1.0f64; 9], &[1.0; 9], Added::NOTHING);
//! assert_eq!(y, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
//! ```
//!
//! **Invariant:** no result depends on the number of threads. Work is cut into jobs whose number and borders depend on shapes only, and
//! partial sums are added in a fixed order.

use crate::shared_mut::SharedMut;
pub use crate::{
    attention::{AttentionOrder, AttentionShape, attention, attention_gradient},
    choice::{bf16_is_fast, check_kernel_environment, kernel_choice},
    conv::{
        Added, ConvShape, conv2d, conv2d_bias_gradient, conv2d_input_gradient,
        conv2d_weight_gradient,
    },
    element::{Element, to_bf16, to_f32},
    elementwise::{
        add, add_per_plane, add_scaled, affine, gelu, gelu_gradient, mul, relu, relu_gradient,
        scale, silu, silu_gradient,
    },
    error::Error,
    filter::{FilterShape, filter_down, filter_up},
    measure::{measure_bandwidth, measure_flops},
    modulate::{modulate, modulate_gradient},
    norm::{Activation, NormShape, Statistics, norm_act, norm_act_gradient, plane_sums},
    pool::{PoolKind, PoolShape, pool, pool_gradient},
    real::Real,
    resample::{pool_2x, pool_2x_gradient, upsample_2x},
    threads::{join, keep_awake},
    token::{TokenShape, add_gated, add_gated_gradient, token_norm, token_norm_gradient},
};

mod attention;
mod cache;
mod choice;
mod conv;
mod element;
mod elementwise;
mod error;
mod filter;
mod gemm;
mod lanes;
mod measure;
mod micro;
mod modulate;
mod norm;
mod pool;
mod real;
mod resample;
mod shared_mut;
mod simd;
mod threads;
mod tiles;
mod token;
mod workspace;
