//! Differentiable operations on candle tensors, and the tape that records them.
//!
//! An operation ([`conv2d`], [`norm_act`], [`attention`], [`upsample_nearest_2x`], ..) carries its own backward pass. Called on variables
//! it becomes part of candle's graph. Inside [`taped`] it is recorded on a tape instead: the function is then a single node of candle's
//! graph, no gradient is added to zeros, and what an operation saved for its gradient is freed as soon as it has been used. [`recompute`]
//! saves only the inputs of a block.
//!
//! Feature maps are `[B, C, H, W]` in f32, f64, bf16 or f16. Parameters are f32 next to half feature maps, and so are their gradients.
//! With the feature `cuda` every operation also runs on a GPU, where feature maps have their channels last in memory.
//!
//! # Example: the gradient of a convolution
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use sdft_autograd::{backward, conv2d, taped};
//!
//! let x = Tensor::ones((1, 2, 4, 4), DType::F32, &Device::Cpu)?;
//! let w = Var::ones((3, 2, 3, 3), DType::F32, &Device::Cpu)?;
//! let b = Var::zeros(3, DType::F32, &Device::Cpu)?;
//! let y = taped(&x, |x| conv2d(x, &w, &b, 1, [1, 1]))?;
//! let gradients = backward(&y.sum_all()?)?;
//! assert_eq!(gradients.get(&b).map(|g| g.to_vec1::<f32>()).transpose()?, Some(vec![16.0; 3]));
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** nothing above this crate knows how an operation is computed, and no result depends on the number of threads.

pub use crate::{
    backward::{backward, backward_each},
    graphs::Graphs,
    ops::{
        add, add_gated, add_per_channel, add_scaled, affine, attention, average_pool_2x, concat,
        conv2d, conv2d_joined, conv2d_onto, conv2d_padded, conv2d_unbiased, dropout, embedding,
        flatten_space, gelu, group_norm, group_norm_biased, group_norm_joined, heads_apart,
        join_rows, linear, linears, norm_act, pointwise, pointwise_onto, pool, relu,
        resample_filter_down, resample_filter_up, separable, silu, to_dtype, to_nchw, token_norm,
        unflatten_space, unpatchify, upsample_nearest_2x,
    },
    profile::{Part, profile, profile_part},
    recompute::recompute,
    tape::{no_grad, taped},
};

mod backward;
mod graphs;
mod ops;
mod parameters;
mod profile;
mod recompute;
mod tape;
