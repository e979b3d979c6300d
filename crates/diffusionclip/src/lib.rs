//! DiffusionCLIP: editing images by a copy of a diffusion model that is fine-tuned as a whole, on any [`sdft_diffusion::Trainable`].
//!
//! ```text
//! x_t0 = the inversion of an image by the original model               sdft_asyrp::invert
//! x    = the image that the tuned model generates from x_t0            generate
//! L    = w_clip (-log((2 - L_dir) / 2)) + w_l1 mean|x - image| + w_id mean(1 - <id(x), id(image)>)
//! ```
//! The gradient of L passes through all steps of the generation ([`chain_gradients`]). Where that takes too long, [`tuning_steps`] takes L
//! of the clean image that each step predicts, one update at a time. The tuned model edits inversions by the original model: [`Mixture`]
//! mixes the predictions of both.
//!
//! Source: Kim et al. 2022, DiffusionCLIP; its code `diffusionclip.py`.
//!
//! # Example: the gradient of one generated image
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//! use sdft_diffusion::{Condition, Prediction, Trainable};
//! use sdft_diffusionclip::{Tuned, chain_gradients};
//! use sdft_schedule::{Schedule, linear_betas};
//!
//! /// Predicts `w x` as the noise.
//! struct Scaled(Var);
//! impl Trainable for Scaled {
//!     fn vars(&self) -> Vec<(String, Var)> {
//!         vec![("w".to_owned(), self.0.clone())]
//!     }
//!     fn predict(&self, xt: &Tensor, _: &[f32], _: &Condition<'_>) -> Result<Prediction> {
//!         Ok(xt.broadcast_mul(&self.0)?.into())
//!     }
//! }
//!
//! let net = Scaled(Var::new(0.1f32, &Device::Cpu)?);
//! let schedule = Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000)?)?;
//! let latent = Tensor::ones((1, 3, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
//! let tuned = Tuned { net: &net, class: None };
//! let chain = chain_gradients(tuned, &schedule, &latent, &[0, 250, 500], &mut |x| x.sqr()?.mean_all(), &mut || Ok(()))?;
//! assert!(chain.gradients[0].is_some() && chain.image.dims() == latent.dims());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the states of a generation are kept, and the graph of one step at a time; knows no architecture.

pub use crate::{
    chain::{Chain, Tuned, chain_gradients, generate},
    info::{TuningInfo, read_tuning_info},
    mixture::Mixture,
    steps::tuning_steps,
};

mod chain;
mod info;
mod mixture;
mod steps;
