//! What is trained of a network, and the files of adapters.
//!
//! An adapter changes parameters of a frozen network. [`AdaptedNetwork`] trains it: before each prediction it computes the changed
//! parameters from the adapter's tensors, and after each backward pass it turns the gradients of these parameters into those of the
//! adapter's tensors. Layers and architectures are not involved, so any [`Trainable`](sdft_diffusion::Trainable) can be adapted.
//! A time-aware adapter is a part of the network: the caller builds the network with it, and it is trained with the attention blocks.
//!
//! | kind | what is trained |
//! |---|---|
//! | [`AdapterKind::Full`] | every parameter; no adapter |
//! | [`AdapterKind::Lora`] | `W + s B A` with B and A of low rank, for linear layers and convolutions; B starts at 0 |
//! | [`AdapterKind::Difffit`] | biases, norms, the class embedding, and a scale for each output channel of each branch, which starts at 1 |
//! | [`AdapterKind::TimeAware`] | the attention blocks, and a [`TimeAdapter`](sdft_nn::TimeAdapter) in each, which starts without an effect |
//! | [`AdapterKind::Names`] | the parameters whose names match patterns |
//!
//! [`Adapter`] is the file of a trained adapter, ours or peft's, and [`merge`] applies several to the parameters of their network.
//!
//! # Example: train the factors of a layer, then merge them
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use sdft_adapters::{AdaptedNetwork, AdapterConfig, AdapterKind, Base};
//! use sdft_diffusion::{Condition, Prediction, PredictionType, Trainable};
//! use sdft_nn::{Init, ParamSpec, Params};
//!
//! struct Scale(Vec<(String, Var)>);
//! impl Trainable for Scale {
//!     fn vars(&self) -> Vec<(String, Var)> { self.0.clone() }
//!     fn predict(&self, x: &Tensor, _: &[f32], _: &Condition<'_>) -> candle_core::Result<Prediction> {
//!         Ok(Prediction::new(x.matmul(&self.0[0].1.t()?)?, PredictionType::Epsilon))
//!     }
//! }
//! let specs = [ParamSpec { name: "to_q.weight".into(), shape: vec![4, 4], init: Init::fan_in(4) }];
//! let params = Params::init(&specs, 0, &Device::Cpu)?;
//! let config = AdapterConfig { kind: AdapterKind::Lora, rank: Some(2), ..AdapterConfig::default() };
//! let base = Base { params: &params, specs: &specs, sha256: String::new() };
//! let network = AdaptedNetwork::new(&config, base, 0, |params| Ok(Box::new(Scale(params.trainable()?.1))))?;
//! let names: Vec<String> = network.vars().into_iter().map(|(name, _)| name).collect();
//! assert_eq!(names, ["base_model.model.to_q.lora_A.weight", "base_model.model.to_q.lora_B.weight"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the base is never changed; an untrained adapter leaves every prediction the same to the bit; a file that states its
//! network is applied to no other.

pub use crate::{
    config::{AdapterConfig, AdapterKind},
    error::{Error, Result},
    file::{Adapter, AdapterFile, KIND},
    merge::merge,
    network::{AdaptedNetwork, Base},
    peft::write_peft,
    sizes::{Sizes, sizes},
};

mod change;
mod config;
mod error;
mod file;
mod layers;
mod merge;
mod network;
mod pattern;
mod peft;
mod sizes;
