//! Networks that look at images instead of making them.
//!
//! ```text
//! Inception     FID, KID, precision and recall: 2048 features        IdentityNet   ArcFace IR-SE50: is it the same face?
//! Lpips         how different two images look                        Clip          images and texts in one space
//! DigitsJudge   the embedded example: which digit, in which style
//! ```
//! [`Network`] reads their public files strictly; [`inception_input`] and [`clip_input`] prepare
//! pictures as pytorch-fid, clean-fid, torch-fidelity and CLIP's own `preprocess` do.
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_features::DigitsJudge;
//! use sdft_nn::Params;
//!
//! let params = Params::init(&DigitsJudge::specs()?, 0, &Device::Cpu)?;
//! let judge = DigitsJudge::load(&params)?;
//! let seen = judge.look(&Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu)?)?;
//! assert_eq!(seen.classes.dims(), [2, 10]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** inputs are pictures or [-1, 1] images; nothing here knows about diffusion.

pub use crate::{
    clip::{Clip, ClipConfig, ClipTokenizer, clip_prompts},
    digits::{DigitsJudge, Judgement},
    error::Error,
    identity::{IDENTITY_SIDE, IdentityNet},
    inception::{INCEPTION_FEATURES, INCEPTION_SIDE, Inception},
    inputs::{InceptionResize, clip_input, inception_input, inception_plane},
    lpips::{Lpips, LpipsDistance, LpipsNet},
    weights::Network,
};

mod clip;
mod conv_norm;
mod digits;
mod error;
mod identity;
mod inception;
mod inputs;
mod lpips;
mod resample;
mod weights;
