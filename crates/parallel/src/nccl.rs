//! Sums over GPUs.

use crate::connections::Connections;
use crate::error::Result;
use crate::transfer::lock;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, ReduceOp};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{
    CpuStorage, CudaStorage, Error, InplaceOp1, Layout, Tensor, backend::BackendStorage, bail,
};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The communicator of this process's GPU, with a stream of its own. One thread at a time may use it.
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
    Queued(Arc<CudaEvent>),
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
        let context = Arc::clone(device.cuda_stream().context());
        let join = move || {
            // This binds the device to the thread, too.
            let stream = context.new_stream().map_err(|e| problem("a stream", &e));
            let comm = stream.and_then(|stream| {
                Comm::from_rank(stream, rank, size, id).map_err(|e| problem("joining", &e))
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
            LastSum::Queued(event) => {
                event.context().bind_to_thread().is_ok()
                    && matches!(event.try_is_complete(), Ok(false))
            }
        }
    }

    /// Begins to replace a flat f32 or f64 tensor, which shares no memory, by its sum over all GPUs. Sums run one after the other on a
    /// stream of their own, while work that is queued on the device runs at the same time.
    pub(crate) fn start_sum(&self, flat: Tensor) -> candle_core::Result<SumOnGpu> {
        let stream = flat.device().as_cuda_device()?.cuda_stream();
        *lock(&self.last) = LastSum::Called;
        let done = self.queue(&flat, &stream).map(Arc::new);
        *lock(&self.last) = match &done {
            Ok(done) => LastSum::Queued(Arc::clone(done)),
            Err(_) => LastSum::Complete,
        };
        Ok(SumOnGpu {
            flat,
            done: done?,
            stream,
        })
    }

    /// Queues the sum after everything that is queued on the device's `stream`; the event at which it is done.
    fn queue(&self, flat: &Tensor, stream: &CudaStream) -> candle_core::Result<CudaEvent> {
        let ready = stream
            .record_event(None)
            .map_err(|e| problem("an event", &e))?;
        let communicator = lock(&self.communicator);
        let own = communicator.0.stream();
        own.wait(&ready).map_err(|e| problem("an event", &e))?;
        flat.inplace_op1(&AllReduce(&communicator.0))?;
        own.record_event(None).map_err(|e| problem("an event", &e))
    }
}

/// A sum that NCCL computes. The device's stream waits for it before the memory is used again, also where it is dropped unfinished.
pub(crate) struct SumOnGpu {
    flat: Tensor,
    done: Arc<CudaEvent>,
    /// That of the device.
    stream: Arc<CudaStream>,
}

impl SumOnGpu {
    /// The sum, for work that is queued from now on.
    pub(crate) fn finish(self) -> candle_core::Result<Tensor> {
        self.wait()?;
        Ok(self.flat.clone())
    }

    fn wait(&self) -> candle_core::Result<()> {
        let waited = self.stream.wait(&self.done);
        waited.map_err(|e| problem("a sum", &e))
    }
}

impl Drop for SumOnGpu {
    fn drop(&mut self) {
        // After `finish` the stream has waited already. A device that fails here fails in the next operation, too.
        let _ = self.wait();
    }
}

/// The sum of a tensor over all GPUs, in place, on the communicator's stream.
struct AllReduce<'a>(&'a Comm);

impl InplaceOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "NCCL's sum"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        bail!("NCCL: expected a tensor on a GPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("NCCL: expected a contiguous tensor");
        };
        let queued = match &mut storage.slice {
            CudaStorageSlice::F32(x) => {
                let mut part = x.slice_mut(start..end);
                self.0.all_reduce_in_place(&mut part, &ReduceOp::Sum)
            }
            CudaStorageSlice::F64(x) => {
                let mut part = x.slice_mut(start..end);
                self.0.all_reduce_in_place(&mut part, &ReduceOp::Sum)
            }
            _ => bail!(
                "NCCL: expected f32 or f64, found {}",
                storage.dtype().as_str()
            ),
        };
        queued.map(drop).map_err(|e| problem("a sum", &e))
    }
}

fn problem(what: &str, error: &dyn std::fmt::Debug) -> Error {
    Error::Msg(format!("NCCL: {what}: {error:?}"))
}
