//! Reads `.pt` and `.safetensors` weights without executing anything; writes `.safetensors`.
//!
//! [`read`] takes PyTorch's zip and legacy containers and safetensors, told apart by their content. A pickle is interpreted, never
//! run: containers and tensors are rebuilt, everything else stays a name. Weights nested under a key (`ema`, `state_dict`, ..) are
//! found; [`describe`] lists what a file holds without reading its numbers. What is written appears whole or not at all.
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_checkpoint::{ReadOptions, read, write_safetensors};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("weights.safetensors");
//! let w = Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((2, 3))?;
//! write_safetensors(&path, [("w", &w)], &Default::default(), Some(DType::F16))?;
//! let state = read(&path, &ReadOptions::default())?;
//! assert_eq!(state.get("w").unwrap().to_vec2::<f32>()?, w.to_vec2::<f32>()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** never executes anything in a file, never allocates more than a small multiple of its size, never writes over the
//! only good copy.

pub use crate::{
    dtype::Dtype,
    error::{Error, Result},
    select::Prefer,
    state::{Container, ReadOptions, StateDict, Summary, TensorInfo, describe, read, read_bytes},
    write::{sha256_file, sync_dir, write_bytes_atomic, write_safetensors},
};

pub use sdft_files::sha256_bytes;

mod dtype;
mod error;
mod input;
mod pickle;
mod safetensors_file;
mod select;
mod state;
mod tensors;
mod torch;
mod value;
mod write;
mod zip;
