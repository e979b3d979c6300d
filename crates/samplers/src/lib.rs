//! From noise to images and back: DDIM, ancestral DDPM, Heun, DPM-Solver++, the solvers of flows and deterministic inversion, on any
//! [`sdft_diffusion::Denoiser`].
//!
//! ```text
//! DDIM      x_prev = sqrt(ab_prev) x0^ + sqrt(1 - ab_prev - s^2) eps^ + s z,   s = eta sqrt((1-ab_prev)/(1-ab)) sqrt(1 - ab/ab_prev)
//! inverse   x_next = sqrt(ab_next) x0^ + sqrt(1 - ab_next) eps^
//! DDPM      x_prev = mean + sqrt(variance) z
//! Heun      x' = x + (sigma' - sigma) (eps^ + eps^') / 2,                                 x = x_t / sqrt(ab), sigma = sqrt((1 - ab) / ab)
//! DPM++     x' = (sigma' / sigma) x + (1 - sigma' / sigma) D,                             D extrapolates x0^ of two steps
//! Euler     x' = x + (tau' - tau) (eps^ - x0^),                                           x = (1 - tau) x0 + tau eps, tau = sigma / (1 + sigma)
//! ```
//! The first three visit the steps of a process. The others choose levels of their own: exact ones for a network that is called with sigma
//! or tau, otherwise the nearest steps. [`sample_straight`] has Heun's method in tau too.
//! Steps, noise levels and clamping are those of the process: guided-diffusion's, or diffusers' ([`sdft_diffusion::Sampling`]).
//!
//! Noise comes from a [`sdft_randn::NoiseSource`]. A [`StepCallback`] is called after every step, so progress, previews and metrics stay
//! outside.
//!
//! # Example: deterministic sampling of data that are all 0.25
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_diffusion::{Clip, Diffusion, GaussianDenoiser, Variance};
//! use sdft_randn::SeededNoise;
//! use sdft_samplers::{Ddim, sample_ddim};
//! use sdft_schedule::{BetaSchedule, Schedule};
//!
//! let full = Schedule::new(BetaSchedule::Linear, 1000)?;
//! let model = GaussianDenoiser::new(full.alpha_bar(), 0.25, 0.0);
//! let diffusion = Diffusion::new(full.respaced(&"ddim40".parse()?)?, Variance::FixedLarge);
//! let mut noise = SeededNoise::new(7, 0);
//! let x = noise.start(&[2, 3, 8, 8], &Device::Cpu)?;
//! let images = sample_ddim(&diffusion, &model, &x, &Ddim::default(), &mut noise, &mut |_| Ok(()))?;
//! assert!((images - 0.25)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** knows no architecture; a step takes both noise levels from the process and never computes one index from the other.

pub use crate::{
    ancestral::{Ancestral, ddpm_step, sample_ddpm},
    ddim::{Ddim, ddim_reverse_step, ddim_step, invert_ddim, sample_ddim},
    dpm_solver::{DpmSolver, sample_dpm},
    heun::{Heun, sample_heun},
    step::{Step, StepCallback, Stepped},
    straight::{Straight, StraightMethod, sample_straight},
};

mod ancestral;
mod ddim;
mod dpm_solver;
mod flow;
mod heun;
mod step;
mod straight;
