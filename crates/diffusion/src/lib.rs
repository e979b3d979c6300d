//! Gaussian diffusion on tensors, and the traits through which everything above sees a network.
//!
//! [`Diffusion`] is a schedule with the conversions between clean image, noised image, noise and velocity; [`Process`] is the same as
//! files and plans store it. A [`Denoiser`] returns a [`Prediction`] of a [`PredictionType`].
//! [`FeatureNet`] gives differentiable features of a noised image. [`GaussianDenoiser`] is a denoiser whose answers are known.
//!
//! # Example: noise an image and get it back
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_diffusion::{Diffusion, Variance};
//! use sdft_schedule::{BetaSchedule, Schedule};
//!
//! let diffusion = Diffusion::new(Schedule::new(BetaSchedule::Linear, 1000)?, Variance::FixedSmall);
//! let x0 = Tensor::full(0.5f32, (1, 3, 4, 4), &Device::Cpu)?;
//! let xt = diffusion.q_sample(&x0, &[300], &x0.ones_like()?)?;
//! let back = diffusion.x0_from_eps(&xt, &[300], &x0.ones_like()?)?;
//! assert!((back - x0)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** has no architecture and draws no random numbers; tables are f64 until they are applied to a tensor.

pub use crate::{
    continuous::{Continuous, EdmProcess, LevelDraw, NoiseLevels, StepLevels},
    denoiser::{Bottleneck, BottleneckNet, Change, Denoiser, Edited, FeatureNet},
    diffusion::{Clip, Diffusion, Moments, Reverse, TimeUnit, Variance},
    flow::{FlowConvention, FlowProcess, FlowTimes},
    gaussian::GaussianDenoiser,
    guided::Guided,
    guided_by::{GuidedBy, SigmaInterval},
    level::{Level, eps_from_x0, predict_at, q_sample, velocity, x0_from_eps},
    network::Network,
    pixels::mean_over_pixels,
    precond::Precond,
    preconditioned::{PRECOND_KEY, Preconditioned},
    prediction::{Prediction, PredictionType},
    process::{Process, ProcessError},
    sampling::Sampling,
    trainable::{
        AUTOENCODER_KEY, CLASSES_KEY, ComputeMode, Condition, IMAGE_KEY, KIND_KEY, MODEL_KEY,
        PROCESS_KEY, PROVENANCE_PREFIX, Trainable, file_metadata, named_vars,
    },
    trained::{TrainableNetwork, Trained, config_metadata},
    variational::{discretized_gaussian_log_likelihood, normal_kl},
};

mod continuous;
mod convert;
mod denoiser;
mod diffusion;
mod flow;
mod gaussian;
mod guided;
mod guided_by;
mod in_steps;
mod level;
mod network;
mod pixels;
mod precond;
mod preconditioned;
mod prediction;
mod process;
mod quantile;
mod sampling;
mod trainable;
mod trained;
mod variational;
