//! Noise schedules, signal-to-noise ratios, loss weightings and timestep respacing in f64.
//!
//! A diffusion process is defined by its noise variances `beta_t`, `t = 0..T`, where 0 has the least noise. Everything else follows:
//!
//! ```text
//! alpha_bar_t = prod_{s <= t} (1 - beta_s)              x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps
//! SNR_t       = alpha_bar_t / (1 - alpha_bar_t)         w_t = 1 / (k + SNR_t)^gamma      (P2; SDFT's distillation weight)
//! ```
//!
//! - [`BetaSchedule`] gives the betas, [`Schedule`] all tables that follow from them.
//! - [`Respacing`] parses `"ddim40"`, `"250"` or `"10,15,20"`; [`Schedule::respaced`] keeps these steps and their `alpha_bar`.
//! - [`Spacing`] chooses the steps as diffusers' schedulers do.
//! - [`Weighting`] gives one loss weight per timestep.
//! - [`TimestepSampler`] and [`WeightedTimesteps`] map uniform numbers to timesteps.
//!
//! ```
//! use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};
//!
//! let schedule = Schedule::new(BetaSchedule::Linear, 1000)?;
//! let weights = "snr-3".parse::<Weighting>()?.weights(&schedule);
//! assert!(weights[0] < 1e-11 && weights[999] > 0.999); // distil where little of the image is left
//!
//! let short = schedule.respaced(&"ddim40".parse::<Respacing>()?)?;
//! assert_eq!(short.timestep_map()[..3], [0, 25, 50]);
//! assert_eq!(short.alpha_bar()[39], schedule.alpha_bar()[975]);
//! # Ok::<(), sdft_schedule::ScheduleError>(())
//! ```
//!
//! **Invariant:** knows no tensors and draws no random numbers; tables are f64, and only the code that reads them casts them.

mod betas;
mod error;
mod moments;
mod respacing;
mod spacing;
mod table;
mod timesteps;
mod weighting;

pub use betas::{BetaEnds, BetaSchedule, MAX_STEPS, linear_betas, rescale_zero_terminal_snr};
pub use error::{Result, ScheduleError};
pub use moments::LossSecondMoment;
pub use respacing::Respacing;
pub use spacing::Spacing;
pub use table::Schedule;
pub use timesteps::{TimestepDraw, TimestepSampler, WeightedTimesteps};
pub use weighting::Weighting;
