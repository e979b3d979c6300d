//! Seeded, counter-based random numbers: every draw is a pure function of its address.
//!
//! A training run needs Gaussian noise, timesteps, an order of the images and random flips. This crate has no generator with a state.
//! Instead a [`Draw`] is the *address* of a stream,
//!
//! ```text
//! stream = (seed, purpose, step, sample)        number = f(stream, element)
//! ```
//!
//! and `f` is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds of two 32x32-bit
//! multiplications that turn a 128-bit counter into 128 random bits.
//! So a resumed run, a run with other batch splits and a run with another number of threads use the same numbers, and a short GPU kernel can
//! compute them too.
//!
//! ```
//! use sdft_noise::{Draw, Purpose};
//!
//! let draw = Draw::new(7, Purpose::Noise, 100, 3); // the fourth sample of step 100 in the run with seed 7
//! let eps = draw.normals(3 * 16 * 16);
//! assert_eq!(eps[..10], draw.normals(10)[..]); // element j depends only on the address and j
//! assert_ne!(eps, Draw::new(7, Purpose::Noise, 100, 4).normals(3 * 16 * 16));
//!
//! let t = Draw::new(7, Purpose::Timestep, 100, 3).below(0, 1000);
//! assert!(t < 1000);
//! ```
//!
//! **Invariant:** knows no tensors, no clock, no operating system and no mutable state; the same address gives the same bits on every
//! platform (transcendental functions come from the `libm` crate, not from the system).

mod draw;
mod dropout_key;
mod philox;
mod purpose;

pub use draw::Draw;
pub use dropout_key::DropoutKey;
pub use philox::philox4x32_10;
pub use purpose::Purpose;
