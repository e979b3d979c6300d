//! Several processes, one model: who they are, sums over all of them, and who leads.
//!
//! Each process has a rank and a share of every batch. Rank 0 leads: it listens at an address that the others know, tells them before
//! each step whether there is one, and is the only one that writes files. Gradients are summed over all; tensors on GPUs by NCCL where
//! the build has it, everything else through rank 0. The processes talk to each other and to nobody else: who wants to join has to know
//! [`World::secret`]. What comes has a size that is known before, and a process that sends nothing for [`World::timeout`], not even
//! heartbeats, counts as gone.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_parallel::{ProcessGroup, World, share_of};
//! use std::time::Duration;
//!
//! // Two ranks, here as two threads.
//! let port = sdft_parallel::free_port()?;
//! let rank = move |rank| {
//!     let world = World::here(rank, 2, port);
//!     let peers = ProcessGroup::join(&world, &Device::Cpu, Duration::from_secs(30))?;
//!     let gradient = Tensor::new(&[1.0f32, rank as f32], &Device::Cpu)?;
//!     Ok::<_, sdft_parallel::Error>(peers.all_reduce_sum(&[gradient])?[0].to_vec1::<f32>()?)
//! };
//! let other = std::thread::spawn(move || rank(1));
//! assert_eq!(rank(0)?, [2.0, 1.0]);
//! assert_eq!(other.join().unwrap()?, [2.0, 1.0]);
//! assert_eq!(share_of(8, 1, 3), 2..5);
//! # Ok::<(), sdft_parallel::Error>(())
//! ```
//!
//! **Invariant:** every rank sees the same sums, to the bit, and no rank decides anything that rank 0 has not told.

pub use crate::{
    error::{Error, Result},
    process_group::{Command, ProcessGroup},
    world::{World, free_port, new_secret, share_of},
};

mod error;
mod links;
mod meeting;
#[cfg(feature = "nccl")]
mod nccl;
mod process_group;
mod world;
