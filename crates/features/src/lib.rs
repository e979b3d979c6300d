//! Networks that measure images.
//!
//! ```text
//! Dinov2        FD-DINOv2 and memorisation: class tokens
//! Inception     FID, KID, precision and recall: 2048 features        IdentityNet   ArcFace IR-SE50: identity of faces
//! Lpips         perceptual distance of two images                    Clip          images and texts in one space
//! AttributeJudge   style and attributes of an embedded set's images; DigitsJudge, the same network for digits
//! ```
//! [`Network`] reads their public files strictly; [`inception_input`], [`dinov2_input`] and [`clip_input`] prepare
//! images as pytorch-fid, clean-fid, torch-fidelity, dgm-eval and CLIP's own `preprocess` do.
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_features::DigitsJudge;
//! use sdft_nn::Params;
//!
//! let params = Params::init(&DigitsJudge::specs()?, 0, &Device::Cpu)?;
//! let judge = DigitsJudge::load(&params)?;
//! let seen = judge.classify(&Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu)?)?;
//! assert_eq!(seen.heads[0].dims(), [2, 10]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** inputs are 8-bit images or tensors in [-1, 1]; nothing here knows about diffusion.

pub use crate::{
    attributes::{AttributeJudge, JudgeConfig, JudgeHead, Judgement},
    clip::{Clip, ClipConfig, ClipTokenizer, clip_prompts},
    digits::DigitsJudge,
    dinov2::{Dinov2, Dinov2Config, HiddenAct},
    error::Error,
    identity::{IDENTITY_SIDE, IdentityNet},
    inception::{INCEPTION_FEATURES, INCEPTION_SIDE, Inception},
    inputs::{
        DINOV2_SIDE, InceptionResize, clip_input, dinov2_input, inception_input, inception_plane,
    },
    lpips::{Lpips, LpipsDistance, LpipsNet, feature_distance},
    weights::Network,
};

mod attributes;
mod clip;
mod conv_norm;
mod digits;
mod dinov2;
mod error;
mod identity;
mod inception;
mod inputs;
mod layer_norm;
mod lpips;
mod narrow;
mod resample;
mod weights;
