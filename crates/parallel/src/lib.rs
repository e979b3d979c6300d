//! Several processes of one run: sums over all of them for training, and tasks for each for everything else.
//!
//! Each process has a rank. Rank 0 is the leader: it listens at an address that all ranks know, announces every step, and is the only rank
//! that writes files. Gradients are summed over all ranks: tensors on GPUs by NCCL if the build includes it, everything else through rank 0.
//! [`BucketedSum`] begins to sum the first gradients on GPUs while the others are computed.
//! Other work is shared by [`ProcessGroup::share`] and [`ProcessGroup::serve`]. A process must know [`World::secret`] to join, and both ends
//! of a connection prove it first. The receiver of a message knows its size, or a bound, beforehand. A process that sends nothing for
//! [`World::timeout`], not even heartbeats, has timed out and counts as disconnected. [`ProcessGroup::watch`] ends processes that wait inside
//! NCCL for one that is gone.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sdft_parallel::{ProcessGroup, World, share_of};
//! use std::time::Duration;
//!
//! // Two ranks, as two threads.
//! let port = sdft_parallel::free_port()?;
//! let rank = move |rank| {
//!     let world = World::local(rank, 2, port);
//!     let group = ProcessGroup::join(&world, &Device::Cpu, Duration::from_secs(30))?;
//!     let gradient = Tensor::new(&[1.0f32, rank as f32], &Device::Cpu)?;
//!     Ok::<_, sdft_parallel::Error>(group.all_reduce_sum(&[gradient])?[0].to_vec1::<f32>()?)
//! };
//! let other = std::thread::spawn(move || rank(1));
//! assert_eq!(rank(0)?, [2.0, 1.0]);
//! assert_eq!(other.join().unwrap()?, [2.0, 1.0]);
//! assert_eq!(share_of(8, 1, 3), 2..5);
//! # Ok::<(), sdft_parallel::Error>(())
//! ```
//!
//! **Invariant:** every rank computes the same sums, to the bit, and acts only on decisions of rank 0.

pub use crate::{
    buckets::BucketedSum,
    error::{Error, Result},
    process_group::{Command, ProcessGroup},
    work::{Task, TaskLimit},
    world::{World, free_port, new_secret, share_of},
};

/// Whether this build sums tensors on GPUs by NCCL. Otherwise they go through the hosts and rank 0.
pub const HAS_NCCL: bool = cfg!(feature = "nccl");

mod buckets;
mod bytes;
mod connection;
mod connections;
mod error;
mod introduction;
mod listen;
#[cfg(feature = "nccl")]
mod nccl;
mod process_group;
mod proof;
mod rendezvous;
mod sum;
mod transfer;
mod watch;
mod work;
mod world;
