//! Images from one domain to another: SDEdit, EGSDE, DDIB and ILVR, on any [`sdft_diffusion::Denoiser`].
//!
//! ```text
//! SDEdit   x = sqrt(ab) x0 + sqrt(1 - ab) e at a level below T, then the target model's reverse process
//! EGSDE    the same, with eps' = eps + sqrt(1 - ab) grad_y [ lambda_s S(y, xt) + lambda_i D(y, xt) ],   xt = the noised source
//! DDIB     the source model's flow to noise, the target model's flow back
//! ILVR     x_prev <- x_prev + LP(y_prev) - LP(x_prev),   y_prev = the noised reference, LP a low-pass filter
//! ```
//! All noise comes from a [`sdft_randn::NoiseSource`]; a [`sdft_samplers::StepCallback`] is called after every step.
//!
//! # Example: an image of the model's only colour stays the same
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_diffusion::{Diffusion, GaussianDenoiser, Variance};
//! use sdft_randn::SeededNoise;
//! use sdft_schedule::{BetaSchedule, Schedule};
//! use sdft_translators::{SdeditOptions, Walk, sdedit, start_of};
//!
//! let full = Schedule::new(BetaSchedule::Linear, 1000)?;
//! let model = GaussianDenoiser::new(full.alpha_bar(), 0.25, 0.0);
//! let diffusion = Diffusion::new(full.respaced(&"ddim40".parse()?)?, Variance::FixedSmall);
//! let x0 = Tensor::full(0.25f32, (1, 3, 8, 8), &Device::Cpu)?;
//! let edit = SdeditOptions { walk: Walk::PAPER, start: start_of(&diffusion, 0.5)?, repeats: 1 };
//! let out = sdedit(&diffusion, &model, &x0, None, &edit, &mut SeededNoise::new(7, 0), &mut |_| Ok(()))?;
//! assert!((out - 0.25)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** sees networks through their traits only; gradients reach the image and no parameter; memory does not grow with the
//! number of steps.

pub use crate::{
    ddib::{Bridge, ddib},
    egsde::egsde,
    energies::{DomainIndependent, DomainSpecific, Energies, Gradients},
    ilvr::{Ilvr, ilvr},
    lowpass::LowPass,
    sdedit::sdedit,
    strength::{levels_of, start_of, steps_inside},
    walk::{Guide, SdeditOptions, Walk, edit_step},
};

mod ddib;
mod egsde;
mod energies;
mod ilvr;
mod lowpass;
mod sdedit;
mod strength;
mod walk;
