//! What processes do together: sums, and what rank 0 says.

use crate::error::{Error, Result};
use crate::links::Links;
#[cfg(feature = "nccl")]
use crate::nccl::Nccl;
use crate::world::World;
use candle_core::{DType, Device, Shape, Tensor};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The most that [`ProcessGroup::broadcast`] takes. The largest is a position with what a timestep sampler remembers, up to 20 MB of JSON.
const MOST_BROADCAST: usize = 64 << 20;

/// What rank 0 tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// There is another step.
    Step = 1,
    /// All is done.
    End = 2,
}

/// This process among the others. Calls that all have to make together come in the same order everywhere.
#[derive(Debug)]
pub struct ProcessGroup {
    rank: usize,
    size: usize,
    links: Option<Mutex<Links>>,
    #[cfg(feature = "nccl")]
    nccl: Option<Nccl>,
}

impl Default for ProcessGroup {
    fn default() -> Self {
        Self::single()
    }
}

impl ProcessGroup {
    /// The only process there is.
    pub fn single() -> Self {
        Self {
            rank: 0,
            size: 1,
            links: None,
            #[cfg(feature = "nccl")]
            nccl: None,
        }
    }

    /// Meets the others of `world`, who have as long as `patience` to come. `device` is where this process computes.
    ///
    /// # Errors
    /// [`Error::Meeting`] where somebody does not come.
    pub fn join(world: &World, device: &Device, patience: Duration) -> Result<Self> {
        let links = Links::meet(world, patience)?;
        #[cfg(feature = "nccl")]
        let (links, nccl) = {
            let mut links = links;
            let nccl = match device {
                Device::Cuda(device) => {
                    Some(Nccl::join(&mut links, (world.rank, world.size), device)?)
                }
                _ => None,
            };
            (links, nccl)
        };
        let _ = device;
        Ok(Self {
            rank: world.rank,
            size: world.size,
            links: Some(Mutex::new(links)),
            #[cfg(feature = "nccl")]
            nccl,
        })
    }

    /// This process's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this one leads: tells the others what comes, and writes the files.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// The sum of each tensor over all processes, added in the order of their ranks. All tensors are of one type, f32 or f64.
    ///
    /// # Errors
    /// A process that has gone or cannot go on, or that adds something else.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        let Some(first) = tensors.first() else {
            return Ok(Vec::new());
        };
        if self.size == 1 {
            return Ok(tensors.to_vec());
        }
        // Each begins at a multiple of four numbers, as kernels that read four at a time like it.
        let flat: Vec<Tensor> = tensors
            .iter()
            .map(|tensor| {
                let flat = tensor.detach().flatten_all()?;
                let gap = padded(flat.elem_count()) - flat.elem_count();
                flat.pad_with_zeros(0, 0, gap)
            })
            .collect::<candle_core::Result<_>>()?;
        let flat = Tensor::cat(&flat, 0)?;
        let total = self.sum_flat(&flat)?;
        let shapes = tensors.iter().map(Tensor::shape);
        split(&total.to_device(first.device())?, shapes)
    }

    fn sum_flat(&self, flat: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "nccl")]
        if let Some(nccl) = &self.nccl {
            return Ok(nccl.sum(flat)?);
        }
        let mut bytes = to_bytes(flat)?;
        self.with_links(|links| {
            if self.is_leader() {
                for link in 0..links.len() {
                    let other = links.receive(link, bytes.len()..=bytes.len())?;
                    add_bytes(&mut bytes, &other, flat.dtype());
                }
                for link in 0..links.len() {
                    links.send(link, &bytes)?;
                }
            } else {
                links.send(0, &bytes)?;
                bytes = links.receive(0, bytes.len()..=bytes.len())?;
            }
            Ok(())
        })?;
        from_bytes(&bytes, flat.dtype(), flat.elem_count())
    }

    /// What rank 0 says, on every rank: up to 64 MiB.
    ///
    /// # Errors
    /// A process that has gone or cannot go on.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.broadcast_sized(bytes, 0..=MOST_BROADCAST)
    }

    /// What rank 0 says, of a length that the others expect.
    fn broadcast_sized(&self, bytes: Vec<u8>, expected: RangeInclusive<usize>) -> Result<Vec<u8>> {
        if self.size == 1 {
            return Ok(bytes);
        }
        self.with_links(|links| {
            if !self.is_leader() {
                return links.receive(0, expected);
            }
            for link in 0..links.len() {
                links.send(link, &bytes)?;
            }
            Ok(bytes)
        })
    }

    /// Rank 0's tensors, f32, f64 or u32, on the CPU of every rank. The others pass tensors of the same names, types and shapes.
    ///
    /// # Errors
    /// A process that has gone or cannot go on, or that expects others.
    pub fn broadcast_tensors(&self, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let own = header(name, tensor);
            let head = self.broadcast(own.clone().into_bytes())?;
            if head != own.as_bytes() {
                return Err(unlike(0, own, String::from_utf8_lossy(&head)));
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

    /// On rank 0: tells the others what comes. All are told who can be; after the end, it waits up to 10 s until they have left.
    ///
    /// # Errors
    /// The first process that has gone.
    pub fn announce(&self, command: Command) -> Result<()> {
        if self.size == 1 {
            return Ok(());
        }
        self.with_links(|links| {
            // Only then is looked at how that went.
            let told = (0..links.len()).map(|link| links.send(link, &[command as u8]));
            let told = told.collect::<Vec<_>>();
            if command == Command::End {
                links.wait_closed();
            }
            told.into_iter().collect()
        })
    }

    /// On the others: what comes.
    ///
    /// # Errors
    /// [`Error::Failed`] where rank 0 cannot go on; when it has gone, or says something else.
    pub fn next_command(&self) -> Result<Command> {
        match self.broadcast_sized(Vec::new(), 1..=1)?.as_slice() {
            [command] if *command == Command::Step as u8 => Ok(Command::Step),
            [command] if *command == Command::End as u8 => Ok(Command::End),
            other => Err(unlike(0, "a command", format!("{other:?}"))),
        }
    }

    /// Tells the others that this process cannot go on, wherever they wait for it: sums under way will never be complete.
    pub fn fail(&self) {
        if self.size > 1 {
            // Nothing can be done about those that cannot be told.
            let _ = self.with_links(|links| {
                links.fail();
                Ok(())
            });
        }
    }

    fn with_links<T>(&self, f: impl FnOnce(&mut Links) -> Result<T>) -> Result<T> {
        match &self.links {
            Some(links) => f(&mut links.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Err(candle_core::Error::Msg("a process alone has no peers".to_owned()).into()),
        }
    }
}

fn unlike(rank: usize, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Unlike {
        rank,
        expected: expected.into(),
        found: found.into(),
    }
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(4)
}

fn split<'a>(flat: &Tensor, shapes: impl Iterator<Item = &'a Shape>) -> Result<Vec<Tensor>> {
    let mut start = 0;
    shapes
        .map(|shape| {
            let n = shape.elem_count();
            let part = flat.narrow(0, start, n)?.reshape(shape)?;
            start += padded(n);
            Ok(part)
        })
        .collect()
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?.to_device(&Device::Cpu)?;
    Ok(match flat.dtype() {
        DType::F32 => bytes_of(&flat.to_vec1::<f32>()?, f32::to_le_bytes),
        DType::F64 => bytes_of(&flat.to_vec1::<f64>()?, f64::to_le_bytes),
        DType::U32 => bytes_of(&flat.to_vec1::<u32>()?, u32::to_le_bytes),
        other => {
            return Err(unlike(0, "f32, f64 or u32", other.as_str()));
        }
    })
}

fn bytes_of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

fn from_bytes(bytes: &[u8], dtype: DType, n: usize) -> Result<Tensor> {
    if bytes.len() != n * dtype.size_in_bytes() {
        let found = format!("{} bytes", bytes.len());
        return Err(unlike(
            0,
            format!("{n} numbers of {}", dtype.as_str()),
            found,
        ));
    }
    let (four, eight) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<8>().0);
    let cpu = &Device::Cpu;
    Ok(match dtype {
        DType::F64 => {
            let values: Vec<f64> = eight.iter().map(|b| f64::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
        DType::U32 => {
            let values: Vec<u32> = four.iter().map(|b| u32::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
        _ => {
            let values: Vec<f32> = four.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
    })
}

/// Adds numbers of the same length.
fn add_bytes(sum: &mut [u8], other: &[u8], dtype: DType) {
    if dtype == DType::F64 {
        let pairs = sum.as_chunks_mut::<8>().0.iter_mut();
        for (a, b) in pairs.zip(other.as_chunks::<8>().0) {
            *a = (f64::from_le_bytes(*a) + f64::from_le_bytes(*b)).to_le_bytes();
        }
    } else {
        let pairs = sum.as_chunks_mut::<4>().0.iter_mut();
        for (a, b) in pairs.zip(other.as_chunks::<4>().0) {
            *a = (f32::from_le_bytes(*a) + f32::from_le_bytes(*b)).to_le_bytes();
        }
    }
}

/// Name, dimensions and type, as text.
fn header(name: &str, tensor: &Tensor) -> String {
    let dims: Vec<String> = tensor.dims().iter().map(usize::to_string).collect();
    format!("{name} [{}] {}", dims.join(", "), tensor.dtype().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::free_port;

    /// The same function as every rank of a world, in threads.
    fn in_world<T: Send + 'static>(
        size: usize,
        f: impl Fn(&ProcessGroup) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let port = free_port().unwrap();
        let ranks = (0..size).map(|rank| {
            let f = f.clone();
            std::thread::spawn(move || {
                let world = World::here(rank, size, port);
                let patience = Duration::from_secs(20);
                f(&ProcessGroup::join(&world, &Device::Cpu, patience).unwrap())
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    }

    #[test]
    fn every_rank_sees_the_same_sums() {
        let seen = in_world(3, |peers| {
            let rank = peers.rank() as f32;
            let a = Tensor::new(&[[1.0f32, rank], [0.1 * rank, -rank]], &Device::Cpu).unwrap();
            let b = Tensor::new(&[rank], &Device::Cpu).unwrap();
            let sums = peers.all_reduce_sum(&[a, b]).unwrap();
            let wide = Tensor::new(&[0.5f64], &Device::Cpu).unwrap();
            let wide = peers.all_reduce_sum(&[wide]).unwrap()[0]
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
        let seen = in_world(2, |peers| {
            let mine = Tensor::new(&[[peers.rank() as u32 + 7]], &Device::Cpu).unwrap();
            let named = vec![("a name".to_owned(), mine)];
            let shared = peers.broadcast_tensors(&named).unwrap();
            let mut steps = 0;
            if peers.is_leader() {
                for _ in 0..3 {
                    peers.announce(Command::Step).unwrap();
                    steps += 1;
                }
                peers.announce(Command::End).unwrap();
            } else {
                while peers.next_command().unwrap() == Command::Step {
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
        let seen = in_world(2, move |peers| {
            let own = if peers.is_leader() {
                position()
            } else {
                Vec::new()
            };
            peers.broadcast(own).unwrap() == position()
        });
        assert_eq!(seen, [true, true]);
    }

    #[test]
    fn a_failure_of_rank_0_ends_a_sum() {
        let seen = in_world(2, |peers| {
            if peers.is_leader() {
                peers.fail();
                return String::new();
            }
            let x = Tensor::zeros(10_000, DType::F32, &Device::Cpu).unwrap();
            peers.all_reduce_sum(&[x]).unwrap_err().to_string()
        });
        assert!(seen[1].contains("rank 0 cannot go on"), "{}", seen[1]);
    }

    #[test]
    fn who_adds_something_else_or_goes_is_named() {
        let seen = in_world(2, |peers| {
            let n = 4 * (peers.rank() + 1);
            let x = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            peers
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
        assert!(of_1.contains("rank 0 has gone"), "{of_1}");
    }

    #[test]
    fn long_sums_and_tensors_of_the_same_kind_only_are_shared() {
        let seen = in_world(3, |peers| {
            let x = Tensor::full(1.5f32, 100_000, &Device::Cpu).unwrap();
            let sum = peers.all_reduce_sum(std::slice::from_ref(&x)).unwrap();
            let sum = sum[0].to_vec1::<f32>().unwrap();
            assert!(sum.iter().all(|&v| v == 4.5) && sum.len() == 100_000);
            peers.broadcast_tensors(&[("x".to_owned(), x)]).unwrap();
            let own = Tensor::zeros((peers.rank() + 2, 3), DType::F32, &Device::Cpu).unwrap();
            peers
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
    fn a_process_that_does_not_come_is_noticed() {
        let world = World::here(0, 2, free_port().unwrap());
        let patience = Duration::from_millis(100);
        let error = ProcessGroup::join(&world, &Device::Cpu, patience)
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
