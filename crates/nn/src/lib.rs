//! Layers and blocks of diffusion networks, and the named parameters they are made of.
//!
//! Blocks ([`ResBlock`], [`AttentionBlock`], ..) use the parameter names of guided-diffusion or of diffusers, so a public checkpoint loads
//! without renaming. A network is a function of a [`Scope`]: the same code lists its parameters ([`specs_of`]), initialises and loads them.
//!
//! # Example: a block, its parameters, its gradient
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_autograd::backward;
//! use sdft_kernels::AttentionOrder;
//! use sdft_nn::{AttentionBlock, Params, Scope, specs_of};
//!
//! let build = |scope: &Scope<'_>| AttentionBlock::load(scope, 32, 2, 8, AttentionOrder::Legacy);
//! let params = Params::init(&specs_of(build)?, 0, &Device::Cpu)?;
//! let (params, vars) = params.trainable()?;
//! let x = Tensor::ones((1, 32, 4, 4), DType::F32, &Device::Cpu)?;
//! let y = build(&Scope::root(&params))?.forward(&x, None)?;
//! let gradients = backward(&y.sum_all()?)?;
//! assert!(gradients.get(&vars[0].1).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** the names, shapes and initial values of a network's parameters depend on its configuration and the seed only.

pub use crate::{
    attention_block::{AttentionBlock, AttentionConfig, ConvStart},
    attention_pool::AttentionPool,
    cost::{Cost, Tally},
    dropout::{Dropout, OwnedKey},
    emb_layer::EmbLayer,
    embedding::{Sinusoids, timestep_embedding},
    layers::{Conv2d, GroupNorm, Linear, Nonlinearity, Pointwise},
    mismatch::Mismatch,
    params::{Init, ParamSource, ParamSpec, Params, Scope, Taps, specs_of},
    qkv::Qkv,
    res_block::{Convention, ResBlock, ResBlockConfig, Resample},
    resize::Resize,
    sequence::{Embedded, Layer, Sequence},
    time_adapter::TimeAdapter,
};

mod attention_block;
mod attention_pool;
mod cost;
mod dropout;
mod emb_layer;
mod embedding;
mod layers;
mod mismatch;
mod params;
mod qkv;
mod res_block;
mod resize;
mod sequence;
mod time_adapter;
