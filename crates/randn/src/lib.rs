//! Seeded normal tensors: the same numbers for a sample regardless of batch, device and number of threads.
//!
//! [`randn`] is a pure function of (seed, purpose, step, sample). A [`NoiseSource`] supplies the draws of a sampler:
//! [`SeededNoise`] for images that are sampled, [`NumberedNoise`] for images that are translated, [`GivenNoise`] for draws made
//! elsewhere.
//!
//! # Example: a sample is the same in any batch
//! ```
//! use candle_core::Device;
//! use sdft_noise::Purpose;
//! use sdft_randn::randn;
//!
//! let batch = randn(7, Purpose::Noise, 0, 0, &[4, 3, 8, 8], &Device::Cpu)?;
//! let third = randn(7, Purpose::Noise, 0, 2, &[1, 3, 8, 8], &Device::Cpu)?;
//! let difference = (batch.narrow(0, 2, 1)? - third)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert_eq!(difference, 0.0);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** keeps no state; a GPU draws the numbers of the host, except for one unit in the last place.

pub use crate::{
    randn::randn,
    source::{GivenNoise, NoiseSource, NumberedNoise, SeededNoise},
};

mod randn;
mod source;
