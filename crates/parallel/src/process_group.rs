//! The collective operations: sums, broadcasts and the commands of rank 0.

use crate::bytes::{add_bytes, from_bytes, to_bytes};
use crate::connections::{CLOSE_TIMEOUT, Connections};
use crate::error::{Result, mismatch};
#[cfg(feature = "nccl")]
use crate::nccl::Nccl;
use crate::sum::{Sum, Total, flatten};
use crate::world::World;
use candle_core::{Device, Tensor};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The most bytes that [`ProcessGroup::broadcast`] accepts. The largest use is a training position with a timestep sampler's history, up to
/// 20 MB of JSON.
const MAX_BROADCAST: usize = 64 << 20;

/// How many bytes longer than expected the name and shape of a tensor may be, to be shown in an error.
const HEADER_SLACK: usize = 256;

/// What rank 0 announces to the other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Another step follows.
    Step = 1,
    /// The run is complete.
    End = 2,
}

/// The processes of a run, as seen by one of them. All ranks must make the collective calls in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    rank: usize,
    size: usize,
    connections: Option<Mutex<Connections>>,
    #[cfg(feature = "nccl")]
    nccl: Option<Nccl>,
}

impl Default for ProcessGroup {
    fn default() -> Self {
        Self::single()
    }
}

impl ProcessGroup {
    /// A group of one process.
    pub fn single() -> Self {
        Self {
            rank: 0,
            size: 1,
            connections: None,
            #[cfg(feature = "nccl")]
            nccl: None,
        }
    }

    /// Connects to the other processes of `world`; waits for them up to `timeout`. `device` is where this process computes.
    ///
    /// # Errors
    /// Fails with [`Error::Rendezvous`](crate::Error::Rendezvous) if a process does not connect in time.
    pub fn join(world: &World, device: &Device, timeout: Duration) -> Result<Self> {
        let connections = Connections::meet(world, timeout)?;
        #[cfg(feature = "nccl")]
        let (connections, nccl) = {
            let mut connections = connections;
            let nccl = match device {
                Device::Cuda(device) => Some(Nccl::join(
                    &mut connections,
                    (world.rank, world.size),
                    device,
                )?),
                _ => None,
            };
            (connections, nccl)
        };
        let _ = device;
        Ok(Self {
            rank: world.rank,
            size: world.size,
            connections: Some(Mutex::new(connections)),
            #[cfg(feature = "nccl")]
            nccl,
        })
    }

    /// The rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process is rank 0, which announces commands and writes the files.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// The sum of each tensor over all processes, added in rank order. All tensors have the same type, f32 or f64.
    ///
    /// # Errors
    /// Fails if a process has failed, is disconnected, or adds tensors of other shapes.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        match self.size {
            1 => Ok(tensors.to_vec()),
            _ => self.start_sum(tensors)?.finish(),
        }
    }

    /// Begins the sum of each tensor over all processes. NCCL adds those on GPUs while the program continues; others are added before this
    /// returns.
    pub(crate) fn start_sum(&self, tensors: &[Tensor]) -> Result<Sum> {
        let Some(first) = tensors.first() else {
            return Ok(Sum::new(Vec::new(), Total::Known(None)));
        };
        let flat = flatten(tensors)?;
        let shapes = tensors.iter().map(|tensor| tensor.shape().clone());
        let shapes = shapes.collect();
        #[cfg(feature = "nccl")]
        if let Some(nccl) = &self.nccl
            && flat.device().is_cuda()
        {
            return Ok(Sum::new(shapes, Total::OnGpu(nccl.start_sum(flat)?)));
        }
        let total = match self.size {
            1 => flat,
            _ => self.sum_through_hosts(&flat)?.to_device(first.device())?,
        };
        Ok(Sum::new(shapes, Total::Known(Some(total))))
    }

    fn sum_through_hosts(&self, flat: &Tensor) -> Result<Tensor> {
        let mut bytes = to_bytes(flat)?;
        self.with_connections(|connections| {
            if self.is_leader() {
                for connection in 0..connections.len() {
                    let other = connections.receive(connection, bytes.len()..=bytes.len())?;
                    add_bytes(&mut bytes, &other, flat.dtype());
                }
                for connection in 0..connections.len() {
                    connections.send(connection, &bytes)?;
                }
            } else {
                connections.send(0, &bytes)?;
                bytes = connections.receive(0, bytes.len()..=bytes.len())?;
            }
            Ok(())
        })?;
        from_bytes(&bytes, flat.dtype(), flat.elem_count())
    }

    /// The bytes that rank 0 passed, on every rank; up to 64 MiB.
    ///
    /// # Errors
    /// Fails if a process has failed or is disconnected.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.broadcast_sized(bytes, 0..=MAX_BROADCAST)
    }

    /// The bytes that rank 0 passed, whose length the other ranks expect.
    fn broadcast_sized(&self, bytes: Vec<u8>, expected: RangeInclusive<usize>) -> Result<Vec<u8>> {
        if self.size == 1 {
            return Ok(bytes);
        }
        self.with_connections(|connections| {
            if !self.is_leader() {
                return connections.receive(0, expected);
            }
            for connection in 0..connections.len() {
                connections.send(connection, &bytes)?;
            }
            Ok(bytes)
        })
    }

    /// Rank 0's tensors (f32, f64 or u32), on the CPU of every rank. The other ranks pass tensors of the same names, types and shapes.
    ///
    /// # Errors
    /// Fails if a process has failed, is disconnected, or expects other tensors.
    pub fn broadcast_tensors(&self, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let own = header(name, tensor);
            let expected = 0..=own.len() + HEADER_SLACK;
            let head = self.broadcast_sized(own.clone().into_bytes(), expected)?;
            if head != own.as_bytes() {
                return Err(mismatch(0, own, String::from_utf8_lossy(&head)));
            }
            let n = tensor.elem_count();
            let size = n * tensor.dtype().size_in_bytes();
            let body = match self.is_leader() {
                true => to_bytes(tensor)?,
                false => Vec::new(),
            };
            let body = self.broadcast_sized(body, size..=size)?;
            let tensor = from_bytes(&body, tensor.dtype(), n)?.reshape(tensor.shape())?;
            all.push((name.clone(), tensor));
        }
        Ok(all)
    }

    /// On rank 0: sends a command to all other ranks, including those after a disconnected one. After [`Command::End`] it waits up to 10 s
    /// for them to exit.
    ///
    /// # Errors
    /// Fails if a process is disconnected.
    pub fn announce(&self, command: Command) -> Result<()> {
        if self.size == 1 {
            return Ok(());
        }
        self.with_connections(|connections| {
            // Send to all before reporting an error.
            let told = (0..connections.len())
                .map(|connection| connections.send(connection, &[command as u8]));
            let told = told.collect::<Vec<_>>();
            if command == Command::End {
                connections.wait_closed(CLOSE_TIMEOUT);
            }
            told.into_iter().collect()
        })
    }

    /// On the other ranks: the next command of rank 0.
    ///
    /// # Errors
    /// Fails with [`Error::Failed`](crate::Error::Failed) if rank 0 has failed, and also if rank 0 is disconnected or sends something else.
    pub fn next_command(&self) -> Result<Command> {
        match self.broadcast_sized(Vec::new(), 1..=1)?.as_slice() {
            [command] if *command == Command::Step as u8 => Ok(Command::Step),
            [command] if *command == Command::End as u8 => Ok(Command::End),
            other => Err(mismatch(0, "a command", format!("{other:?}"))),
        }
    }

    /// Tells the other processes that this one has failed, and why, so that they stop waiting for it.
    pub fn fail(&self, why: &str) {
        if self.size > 1 {
            // A process that cannot be reached notices the end of the connection.
            let _ = self.with_connections(|connections| {
                connections.fail(why);
                Ok(())
            });
        }
    }

    /// Whether NCCL sums tensors on GPUs.
    pub(crate) fn has_nccl(&self) -> bool {
        #[cfg(feature = "nccl")]
        return self.nccl.is_some();
        #[cfg(not(feature = "nccl"))]
        false
    }

    /// Whether a sum of GPUs is not complete.
    pub(crate) fn is_summing(&self) -> bool {
        #[cfg(feature = "nccl")]
        return self.nccl.as_ref().is_some_and(Nccl::is_summing);
        #[cfg(not(feature = "nccl"))]
        false
    }

    /// Fails if another process has failed, is disconnected or has timed out. It must be called once per `every`. A process that exchanges
    /// messages notices by itself.
    pub(crate) fn poll(&self, every: Duration) -> Result<()> {
        let connections = self.connections.as_ref().map(Mutex::try_lock);
        match connections {
            Some(Ok(mut connections)) => connections.poll(every),
            _ => Ok(()),
        }
    }

    pub(crate) fn with_connections<T>(
        &self,
        f: impl FnOnce(&mut Connections) -> Result<T>,
    ) -> Result<T> {
        match &self.connections {
            Some(connections) => f(&mut connections.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Err(candle_core::Error::Msg(
                "a group of one process has no connections".to_owned(),
            )
            .into()),
        }
    }
}

/// A tensor's name, dimensions and type, as text.
fn header(name: &str, tensor: &Tensor) -> String {
    let dims: Vec<String> = tensor.dims().iter().map(usize::to_string).collect();
    format!("{name} [{}] {}", dims.join(", "), tensor.dtype().as_str())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::world::free_port;
    use candle_core::DType;
    use std::sync::Arc;

    /// Runs the same function on every rank, in threads.
    pub(crate) fn in_world<T: Send + 'static>(
        size: usize,
        f: impl Fn(&ProcessGroup) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        arcs_in_world(size, move |group| f(&group))
    }

    /// [`in_world`] for functions that drop the group or share it.
    pub(crate) fn arcs_in_world<T: Send + 'static>(
        size: usize,
        f: impl Fn(Arc<ProcessGroup>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let port = free_port().unwrap();
        let ranks = (0..size).map(|rank| {
            let f = f.clone();
            std::thread::spawn(move || {
                let world = World::local(rank, size, port);
                let timeout = Duration::from_secs(20);
                f(Arc::new(
                    ProcessGroup::join(&world, &Device::Cpu, timeout).unwrap(),
                ))
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    }

    #[test]
    fn every_rank_sees_the_same_sums() {
        let seen = in_world(3, |group| {
            let rank = group.rank() as f32;
            let a = Tensor::new(&[[1.0f32, rank], [0.1 * rank, -rank]], &Device::Cpu).unwrap();
            let b = Tensor::new(&[rank], &Device::Cpu).unwrap();
            let sums = group.all_reduce_sum(&[a, b]).unwrap();
            let wide = Tensor::new(&[0.5f64], &Device::Cpu).unwrap();
            let wide = group.all_reduce_sum(&[wide]).unwrap()[0]
                .to_vec1::<f64>()
                .unwrap();
            assert_eq!(wide, [1.5]);
            (
                sums[0].to_vec2::<f32>().unwrap(),
                sums[1].to_vec1::<f32>().unwrap(),
            )
        });
        assert_eq!(seen[0].0[0], [3.0, 3.0]);
        assert_eq!(seen[0].1, [3.0]);
        assert!(seen.iter().all(|other| *other == seen[0]));
    }

    #[test]
    fn rank_0_leads_and_shares_what_it_has() {
        let seen = in_world(2, |group| {
            let mine = Tensor::new(&[[group.rank() as u32 + 7]], &Device::Cpu).unwrap();
            let named = vec![("a name".to_owned(), mine)];
            let shared = group.broadcast_tensors(&named).unwrap();
            let mut steps = 0;
            if group.is_leader() {
                for _ in 0..3 {
                    group.announce(Command::Step).unwrap();
                    steps += 1;
                }
                group.announce(Command::End).unwrap();
            } else {
                while group.next_command().unwrap() == Command::Step {
                    steps += 1;
                }
            }
            (
                shared[0].0.clone(),
                shared[0].1.to_vec2::<u32>().unwrap(),
                steps,
            )
        });
        assert_eq!(seen[0], ("a name".to_owned(), vec![vec![7]], 3));
        assert_eq!(seen[1], seen[0]);
    }

    #[test]
    fn a_large_position_is_shared() {
        let position = || vec![b'7'; 20 << 20];
        let seen = in_world(2, move |group| {
            let own = if group.is_leader() {
                position()
            } else {
                Vec::new()
            };
            group.broadcast(own).unwrap() == position()
        });
        assert_eq!(seen, [true, true]);
    }

    #[test]
    fn a_failure_of_rank_0_ends_a_sum() {
        let seen = in_world(2, |group| {
            if group.is_leader() {
                group.fail("no space left");
                return String::new();
            }
            let x = Tensor::zeros(10_000, DType::F32, &Device::Cpu).unwrap();
            group.all_reduce_sum(&[x]).unwrap_err().to_string()
        });
        assert_eq!(seen[1], "rank 0 failed: no space left");
    }

    #[test]
    fn a_rank_that_adds_other_tensors_or_disconnects_is_named() {
        let seen = in_world(2, |group| {
            let n = 4 * (group.rank() + 1);
            let x = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            group
                .all_reduce_sum(&[x])
                .map_err(|error| error.to_string())
                .err()
        });
        let of_0 = seen[0].as_deref().unwrap();
        assert!(
            of_0.contains("rank 1") && of_0.contains("expected 16 bytes, found 32 bytes"),
            "{of_0}"
        );
        let of_1 = seen[1].as_deref().unwrap();
        assert!(of_1.contains("rank 0 is disconnected"), "{of_1}");
    }

    #[test]
    fn long_sums_work_and_tensors_of_another_shape_are_refused() {
        let seen = in_world(3, |group| {
            let x = Tensor::full(1.5f32, 100_000, &Device::Cpu).unwrap();
            let sum = group.all_reduce_sum(std::slice::from_ref(&x)).unwrap();
            let sum = sum[0].to_vec1::<f32>().unwrap();
            assert!(sum.iter().all(|&v| v == 4.5) && sum.len() == 100_000);
            group.broadcast_tensors(&[("x".to_owned(), x)]).unwrap();
            let own = Tensor::zeros((group.rank() + 2, 3), DType::F32, &Device::Cpu).unwrap();
            group
                .broadcast_tensors(&[("w".to_owned(), own)])
                .map_err(|error| error.to_string())
                .err()
        });
        assert_eq!(
            seen[2].as_deref(),
            Some("rank 0: expected w [4, 3] f32, found w [2, 3] f32")
        );
    }

    #[test]
    fn a_process_that_does_not_connect_times_out() {
        let world = World::local(0, 2, free_port().unwrap());
        let timeout = Duration::from_millis(100);
        let error = ProcessGroup::join(&world, &Device::Cpu, timeout)
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 of 2 processes"), "{error}");
        let alone = ProcessGroup::single();
        let x = Tensor::new(&[2.0f32], &Device::Cpu).unwrap();
        assert_eq!(
            alone.all_reduce_sum(&[x]).unwrap()[0]
                .to_vec1::<f32>()
                .unwrap(),
            [2.0]
        );
    }
}
