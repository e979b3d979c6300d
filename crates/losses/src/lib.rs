//! The objectives of SDFT, one term per equation.
//!
//! ```text
//! Eq. (1)  L_simple  = E || eps - eps_theta(x_t, t) ||^2
//! Eq. (2)  L_base    = E lambda(t) || eps - eps_theta(x_t, t) ||^2,  lambda(t) = 1/(k+SNR)^gamma   [+ variational term]
//! Eq. (3)  L_distill = E w(t) || eps_src(x_t, t) - eps_theta(x_t, t) ||^2          x_t: a noised target image
//! Eq. (4)  w(t)      = 1/(k+SNR(t))^gamma
//! Eq. (5)  L_aux     = E w_aux(t) || eps_src(z, t) - eps_theta(z, t) ||^2          z ~ N(0, I)
//! Eq. (6)  L         = L_base + lambda L_distill + lambda_aux L_aux
//! ```
//!
//! [`Objective`] says which terms the loss has, [`Objective::evaluate`] computes them from two [`sdft_diffusion::Denoiser`]s and returns
//! each. Every equation is a function of its own ([`base`], [`distance`], [`distill`], [`auxiliary`], [`total`]). Networks that predict
//! the clean image or v are trained in the space of their output; [`Objective::distill_space`] is the space of Eq. (3) and (5). Noise levels
//! are [`sdft_diffusion::Level`]s: steps of a discrete process, or any level of a continuous one.
//!
//! Other methods of fine-tuning are further terms, which combine with these: kept samples of the source model (Diff-Tuning,
//! [`Objective::keep`]), distances between images (DDPM-PA, [`Pairwise`]), guidance that is built into the target (DogFit, ANT,
//! [`NoisedBatch::shift`]), and the distance of the weights to those of the source model (L2-SP, EWC, [`Anchor`]).
//!
//! # Example: a student that equals its teacher has nothing to distill
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_diffusion::{Diffusion, GaussianDenoiser, Variance};
//! use sdft_losses::{Auxiliary, NoisedBatch, Objective};
//! use sdft_schedule::{BetaSchedule, Schedule};
//!
//! let schedule = Schedule::new(BetaSchedule::Linear, 1000)?;
//! let model = GaussianDenoiser::new(schedule.alpha_bar(), 0.2, 0.5);
//! let diffusion = Diffusion::new(schedule, Variance::FixedLarge);
//! let x = Tensor::full(0.3f32, (2, 3, 4, 4), &Device::Cpu)?;
//! let objective = Objective::metfaces(false);
//! let aux_levels = diffusion.levels(&[900, 990])?;
//! let aux = Auxiliary { z: &x, levels: &aux_levels, weights: &objective.aux_weights(&aux_levels) };
//! let levels = diffusion.levels(&[10, 700])?;
//! let batch = NoisedBatch::new(&x, &levels, &x);
//! let terms = objective.evaluate(&diffusion, &model, Some(&model), &batch, Some(&aux))?;
//! assert_eq!(terms.report()?.distill, Some(0.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** calls networks through `Denoiser` only, draws no randomness, and skips only the images that its caller names.

pub use crate::{
    anchor::{Anchor, Fisher},
    batch::{Auxiliary, Kept, NoisedBatch},
    equations::{Base, auxiliary, base, distance, distill, total},
    objective::{Distillation, Objective, Variational, distill_factor, distill_odds, weights_at},
    pairwise::{Pairwise, high_frequencies, pairwise_divergence},
    shift::{adversarial_noise, ant_shift, dogfit_shift},
    terms::{Present, Report, Terms},
};

mod anchor;
mod batch;
mod equations;
mod evaluate;
mod objective;
mod pairwise;
mod shift;
mod terms;
