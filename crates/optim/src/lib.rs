//! AdamW, SGD, EMA, learning-rate schedules and gradient clipping with named, restorable state.
//!
//! One training step, with `g` the gradient, `c` the clip coefficient and `k` the number of updates so far:
//!
//! ```text
//! c = min(1, max_norm / (|g| + 1e-6))                                            clip_coefficient
//! m = b1 m + (1 - b1) c g        v = b2 v + (1 - b2) (c g)^2
//! p = (1 - lr wd) p - lr / (1 - b1^k) m / (sqrt(v) / sqrt(1 - b2^k) + eps)       Optimizer, rule AdamW
//! e = r e + (1 - r) p                                                            Ema
//! ```
//!
//! Parameters are an ordered list of `(name, Var)`; gradients are a list in the same order ([`collect_gradients`]).
//! State is saved and loaded as named tensors. A restored optimiser continues bit for bit, and loading lists missing names and
//! other shapes.
//!
//! ```
//! use candle_core::{Device, Var};
//! use sdft_autograd::backward;
//! use sdft_optim::{AdamW, Optimizer, Rule, clip_coefficient, collect_gradients, global_norm};
//!
//! let params = vec![("w".to_owned(), Var::new(&[3.0_f32, -4.0], &Device::Cpu)?)];
//! let mut optimizer = Optimizer::new(Rule::AdamW(AdamW::default()), &params)?;
//! let loss = params[0].1.sqr()?.sum_all()?;
//! let grads = collect_gradients(&params, &backward(&loss)?);
//! let scale = clip_coefficient(global_norm(&grads)?, 1.0);
//! optimizer.step(&grads, 0.1, scale)?;
//! assert_eq!(params[0].1.to_vec1::<f32>()?, [2.9, -3.9]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** no result depends on the number of threads, and all state can be read, saved and restored by name.

mod accumulate;
mod ema;
mod engine;
mod error;
mod inplace;
mod kernels;
mod learning_rate;
mod loss_scale;
mod norm;
mod optimizer;
mod parameters;
mod rules;
mod slot;

pub use accumulate::{Accumulator, LastMicroBatch, MicroBatches};
pub use ema::{Ema, EmaRamp};
pub use engine::{EmaRate, Engine, Pending, StepSize, Verdict};
pub use error::{OptimError, Result, StateMismatch};
pub use learning_rate::{Decay, LearningRate};
pub use loss_scale::LossScale;
pub use norm::{clip_coefficient, global_norm, non_finite};
pub use optimizer::Optimizer;
pub use parameters::collect_gradients;
pub use rules::{AdamW, Rule, Sgd};
