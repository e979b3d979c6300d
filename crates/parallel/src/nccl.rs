//! Sums over GPUs.

use crate::connections::Connections;
use crate::error::Result;
use crate::transfer::lock;
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, ReduceOp};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Error, Storage, Tensor, backend::BackendStorage, bail};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The communicator of this process's GPU. One thread at a time may use it.
pub(crate) struct Nccl {
    communicator: Mutex<Communicator>,
    last: Mutex<LastSum>,
}

/// The time between two checks of the other processes while they join.
const EVERY: Duration = Duration::from_secs(1);

/// How far the last sum has come.
enum LastSum {
    Complete,
    /// A call that queues it has not returned.
    Called,
    /// It is complete at this event.
    Queued(CudaEvent),
}

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
        // NCCL waits without an end for a process that is gone.
        let (result, joined) = channel();
        let stream = device.cuda_stream();
        let join = move || {
            let bound = stream.context().bind_to_thread();
            let comm = bound.map_err(|e| problem("the device", &e)).and_then(|()| {
                Comm::from_rank(stream.clone(), rank, size, id).map_err(|e| problem("joining", &e))
            });
            // After a failure nothing waits for it.
            let _ = result.send(comm.map(Communicator));
        };
        let thread = thread::Builder::new().name("nccl".to_owned());
        thread.spawn(join).map_err(Error::wrap)?;
        let communicator = loop {
            match joined.recv_timeout(EVERY) {
                Ok(communicator) => break communicator?,
                Err(RecvTimeoutError::Timeout) => connections.poll(EVERY)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(problem("joining", &"no result").into());
                }
            }
        };
        Ok(Self {
            communicator: Mutex::new(communicator),
            last: Mutex::new(LastSum::Complete),
        })
    }

    /// Whether the last sum is not complete. Any thread may ask.
    pub(crate) fn is_summing(&self) -> bool {
        match &*lock(&self.last) {
            LastSum::Complete => false,
            LastSum::Called => true,
            // An error comes to light where the sum is used.
            LastSum::Queued(event) => matches!(event.try_is_complete(), Ok(false)),
        }
    }

    /// The sum of a flat f32 or f64 tensor over all GPUs.
    pub(crate) fn sum(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let device = x.device().as_cuda_device()?.clone();
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("NCCL: expected a contiguous tensor on a GPU");
        };
        *lock(&self.last) = LastSum::Called;
        let sum = self.queue(storage, start..end, &device);
        let stream = device.cuda_stream();
        *lock(&self.last) = match &sum {
            Ok(_) => LastSum::Queued(
                stream
                    .record_event(None)
                    .map_err(|e| problem("an event", &e))?,
            ),
            Err(_) => LastSum::Complete,
        };
        Ok(Tensor::from_storage(
            Storage::Cuda(sum?),
            x.shape(),
            BackpropOp::none(),
            false,
        ))
    }

    fn queue(
        &self,
        storage: &CudaStorage,
        range: Range<usize>,
        device: &CudaDevice,
    ) -> candle_core::Result<CudaStorage> {
        macro_rules! all_reduce {
            ($slice:expr, $t:ty) => {{
                // SAFETY: NCCL writes every element.
                let mut out = unsafe { device.alloc::<$t>(range.len())? };
                lock(&self.communicator)
                    .0
                    .all_reduce(&$slice.slice(range), &mut out, &ReduceOp::Sum)
                    .map_err(|e| problem("a sum", &e))?;
                CudaStorage::wrap_cuda_slice(out, device.clone())
            }};
        }
        Ok(match &storage.slice {
            CudaStorageSlice::F32(slice) => all_reduce!(slice, f32),
            CudaStorageSlice::F64(slice) => all_reduce!(slice, f64),
            _ => bail!(
                "NCCL: expected f32 or f64, found {}",
                storage.dtype().as_str()
            ),
        })
    }
}

fn problem(what: &str, error: &dyn std::fmt::Debug) -> Error {
    Error::Msg(format!("NCCL: {what}: {error:?}"))
}
