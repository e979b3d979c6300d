//! Asyrp: editing images by a small block on the deepest features `h` of a frozen diffusion model, on any
//! [`sdft_diffusion::BottleneckNet`].
//!
//! ```text
//! h' = c0 h + sum_i c_i Delta_i(h, emb)                        while t >= t_edit, h' = h below
//! x0 = (x_t - sqrt(1 - ab) eps(h')) / sqrt(ab)                 the image is predicted from the changed features,
//! x_next = sqrt(ab_next) x0 + sqrt(1 - ab_next) eps(h)         the direction is that of the unchanged ones
//! ```
//! With noise (quality boosting, `t < t_boost`) the direction is that of DDIM with eta 1.
//!
//! # Example: a direction of strength 0 changes nothing
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_adm::{AdmConfig, Unet};
//! use sdft_asyrp::{DeltaBlock, Direction, EditPlan, Mix, invert, sequence, edit};
//! use sdft_diffusion::BottleneckNet;
//! use sdft_nn::Params;
//! use sdft_randn::GivenNoise;
//! use sdft_schedule::{Schedule, linear_betas};
//!
//! let config = AdmConfig { image_size: 8, model_channels: 8, channel_mult: vec![1.0], attention_resolutions: vec![],
//!     num_head_channels: 8, norm_groups: 4, num_res_blocks: 1, ..AdmConfig::default() };
//! let unet = Unet::load(&Params::init(&Unet::specs(&config)?, 1, &Device::Cpu)?, &config)?;
//! let block = DeltaBlock::specs(unet.bottleneck(), 4)?;
//! let block = DeltaBlock::load(&Params::init(&block, 2, &Device::Cpu)?, unet.bottleneck(), 4)?;
//! let schedule = Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000)?)?;
//! let x0 = Tensor::zeros((1, 3, 8, 8), candle_core::DType::F32, &Device::Cpu)?;
//! let latent = invert(&unet, &schedule, &x0, &sequence(10, 500), &mut |_| Ok(()))?;
//! let run = |strength: f64| {
//!     let mix = Mix::of(vec![Direction { block: &block, strength }]);
//!     let plan = EditPlan { steps: sequence(10, 500), t_edit: 250, t_boost: 0 };
//!     let mut none = GivenNoise::new(latent.zeros_like()?.unsqueeze(0)?);
//!     edit(&unet, &schedule, &latent, &mix, &plan, &mut none, &mut |_| Ok(()))
//! };
//! let plain = { let mix = Mix::of(vec![]); let plan = EditPlan { steps: sequence(10, 500), t_edit: 250, t_boost: 0 };
//!     edit(&unet, &schedule, &latent, &mix, &plan, &mut GivenNoise::new(latent.unsqueeze(0)?), &mut |_| Ok(()))? };
//! let difference = (run(0.0)? - plain)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(difference < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the diffusion model is frozen: gradients reach the blocks of the directions and nothing else; a trajectory is detached
//! from its graph at every step, so memory does not grow with the number of steps.

pub use crate::{
    clip_input::ClipInput,
    curve::{Curves, distances, first_reaching},
    delta::{DeltaBlock, Direction, Mix},
    edit::{EditPlan, descent, edit, invert, strength_at},
    file::{DirectionInfo, LoadedDirection, direction_metadata, read_direction, write_direction},
    goal::{Embed, Goal, GoalLoss, GoalWeights, Reference, cosine_of_texts},
    latents::{InversionCache, image_key},
    loss::{TextDirection, asyrp_loss, clip_loss, directional_similarity, l1_term},
    rgb::as_rgb,
    sequence::{sequence, shifted, training_sequence},
    step::{Levels, step},
    training_step::{TrainingStep, training_steps},
};

mod clip_input;
mod curve;
mod delta;
mod edit;
mod file;
mod goal;
mod latents;
mod loss;
mod rgb;
mod sequence;
mod step;
mod training_step;
