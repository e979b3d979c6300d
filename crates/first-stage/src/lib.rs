//! Trains the autoencoder of latent diffusion models, an `AutoencoderKL`.
//!
//! A run is an [`AutoencoderPlan`] in and a run folder out, as in [`sdft_train`]; the loop, the checkpoints and the logs are those of that
//! crate. `samples/step-N.png` shows held-out images next to their reconstructions, and `reconstruction.json` has their PSNR in the end.
//! The finished file has the scaling factor of its latents.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_first_stage::AutoencoderPlan;
//! use sdft_train::RunPlan;
//!
//! let plan = AutoencoderPlan::default();
//! assert_eq!(plan.validate().unwrap_err().key, "data.path");
//! ```
//!
//! **Invariant:** held-out images are never trained on.

pub use crate::{
    perceptual::Perceptual,
    plan::{
        AutoencoderEval, AutoencoderLoss, AutoencoderModel, AutoencoderOutput, AutoencoderPlan,
        PerceptualNet,
    },
    quality::Reconstruction,
    train::{AutoencoderSetup, train_autoencoder},
};

mod perceptual;
mod plan;
mod quality;
mod train;
