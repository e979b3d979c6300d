//! Networks that look at images instead of making them.
//!
//! [`DigitsJudge`] is the small classifier of the embedded example: which digit a 16x16 image shows, and in which of the two styles.
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
//! **Invariant:** inputs are [-1, 1] images; nothing here knows about diffusion.

pub use digits::{DigitsJudge, Judgement};

mod digits;
