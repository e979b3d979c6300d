//! Sums over GPUs.

use crate::connections::Connections;
use crate::error::Result;
use crate::transfer::lock;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, ReduceOp};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Error, Storage, Tensor, bail};
use std::sync::Mutex;

/// The communicator of this process's GPU. One thread at a time may use it.
pub(crate) struct Nccl(Mutex<Communicator>);

struct Communicator(Comm);

// SAFETY: a communicator is not bound to the thread that made it.
unsafe impl Send for Communicator {}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nccl")
    }
}

impl Nccl {
    /// Joins the communicator, whose id comes from rank 0.
    pub(crate) fn join(
        connections: &mut Connections,
        (rank, size): (usize, usize),
        device: &CudaDevice,
    ) -> Result<Self> {
        let id = if rank == 0 {
            let id = Id::new().map_err(|e| problem("a new id", &e))?;
            let bytes: Vec<u8> = id.internal().iter().map(|c| c.cast_unsigned()).collect();
            for connection in 0..connections.len() {
                connections.send(connection, &bytes)?;
            }
            id
        } else {
            let mut internal = [0; 128];
            let bytes = connections.receive(0, internal.len()..=internal.len())?;
            for (to, byte) in internal.iter_mut().zip(bytes) {
                *to = byte.cast_signed();
            }
            Id::uninit(internal)
        };
        let stream = device.cuda_stream();
        stream
            .context()
            .bind_to_thread()
            .map_err(|e| problem("the device", &e))?;
        let comm = Comm::from_rank(stream, rank, size, id).map_err(|e| problem("joining", &e))?;
        Ok(Self(Mutex::new(Communicator(comm))))
    }

    /// The sum of a flat f32 or f64 tensor over all GPUs.
    pub(crate) fn sum(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let device = x.device().as_cuda_device()?.clone();
        let n = x.elem_count();
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("NCCL: expected a contiguous tensor on a GPU");
        };
        macro_rules! all_reduce {
            ($slice:expr, $t:ty) => {{
                // SAFETY: NCCL writes every element.
                let mut out = unsafe { device.alloc::<$t>(n)? };
                lock(&self.0)
                    .0
                    .all_reduce(&$slice.slice(start..end), &mut out, &ReduceOp::Sum)
                    .map_err(|e| problem("a sum", &e))?;
                CudaStorage::wrap_cuda_slice(out, device.clone())
            }};
        }
        let sum = match &storage.slice {
            CudaStorageSlice::F32(slice) => all_reduce!(slice, f32),
            CudaStorageSlice::F64(slice) => all_reduce!(slice, f64),
            _ => bail!("NCCL: expected f32 or f64, found {}", x.dtype().as_str()),
        };
        Ok(Tensor::from_storage(
            Storage::Cuda(sum),
            x.shape(),
            BackpropOp::none(),
            false,
        ))
    }
}

fn problem(what: &str, error: &dyn std::fmt::Debug) -> Error {
    Error::Msg(format!("NCCL: {what}: {error:?}"))
}
