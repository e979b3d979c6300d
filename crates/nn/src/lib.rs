//! Layers of diffusion networks with exact gradients, and the named parameters they are made of.
//!
//! The operations ([`conv2d`], [`norm_act`], [`attention`], [`upsample_nearest_2x`], ..) carry their own
//! backward passes; the layers on top ([`ResBlock`], [`AttentionBlock`], ..) use the key names of
//! guided-diffusion, so a public checkpoint loads without renaming. A network is a function of a
//! [`Scope`]: the same code lists its parameters ([`specs_of`]), initialises and loads them.
//!
//! Feature maps may be f32, f64, bf16 or f16; parameters are f32 beside half maps, and so are their gradients. With the feature `cuda`
//! every operation runs on a GPU, too. A network wrapped in [`taped`] is one node of candle's graph and walks its own record backwards:
//! no gradient is added to zeros, and what an operation kept goes once it has been read.
//!
//! # Example: a block, its parameters, its gradient
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_nn::{AttentionBlock, AttentionOrder, Params, Scope, backward, specs_of};
//!
//! let build = |scope: &Scope<'_>| AttentionBlock::load(scope, 32, 2, 8, AttentionOrder::Legacy);
//! let params = Params::init(&specs_of(build)?, 0, &Device::Cpu)?;
//! let (params, vars) = params.trainable()?;
//! let x = Tensor::ones((1, 32, 4, 4), DType::F32, &Device::Cpu)?;
//! let y = build(&Scope::root(&params))?.forward(&x)?;
//! let gradients = backward(&y.sum_all()?)?;
//! assert!(gradients.get(&vars[0].1).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** nothing above this crate knows how an operation is computed, and no operation's bits
//! depend on the number of threads.

pub use crate::{
    attention_block::{AttentionBlock, AttentionPool, ConvStart},
    backward::backward,
    embedding::timestep_embedding,
    kernels::attention::AttentionOrder,
    kernels::check_kernel_environment,
    kernels::kernel_choice,
    kernels::measure_flops,
    kernels::norm::Activation,
    kernels::pool::PoolKind,
    layers::{Conv2d, GroupNorm, Linear, Pointwise},
    ops::{
        add, attention, average_pool_2x, concat, conv2d, linear, lookup, norm_act, pool, relu,
        separable, silu, to_nchw, to_type, upsample_nearest_2x,
    },
    params::{Init, Mismatch, ParamSource, ParamSpec, Params, Scope, specs_of},
    recompute::recompute,
    res_block::{ResBlock, ResBlockConfig, Resample, Resize},
    tape::{no_grad, taped},
};

mod attention_block;
mod backward;
mod dropout;
mod embedding;
mod kernels;
mod layers;
mod ops;
mod params;
mod recompute;
mod res_block;
mod tape;
