//! Reads `.pt`, `.pkl` and `.safetensors` weights without executing anything; writes `.safetensors`.
//!
//! [`read`] takes PyTorch's zip and legacy containers, NVIDIA's pickled networks and safetensors; the content determines which. A pickle is interpreted, never
//! executed: containers and tensors are rebuilt, other objects are only named. Weights may be under a key (`ema`, `state_dict`, ..),
//! behind a wrapper's prefix, in a list, or in several files with an index. Checksums are compared, and values that are NaN or infinite
//! are an error. [`describe`] lists the contents of a file without reading its numbers. Files are written atomically.
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
//! **Invariant:** never executes anything in a file; takes time in proportion to its size, and at most 16 times its size and 64 MB of memory;
//! never writes over the only good copy.

pub use crate::{
    dtype::Dtype,
    error::{Error, Result},
    finite::NonFinite,
    module::CONSTRUCTOR_KEY,
    notes::removed_prefix,
    open::{describe, read, read_bytes, scan},
    select::{Prefer, Wanted},
    shards::sha256_weights,
    state::{Container, ReadOptions, StateDict, Summary, TensorInfo},
    write::write_safetensors,
};

mod detect;
mod dtype;
mod error;
mod finite;
mod input;
mod inventory;
mod module;
mod notes;
mod open;
mod parts;
mod pickle;
mod safetensors_file;
mod select;
mod shards;
mod short;
mod state;
mod tensors;
mod torch;
mod value;
mod write;
mod zip;
