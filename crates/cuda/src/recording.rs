//! Work of a device that is recorded once and launched as a whole: CUDA's graphs.

use crate::device::is_recording_allowed;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, sys};
use candle_core::{Device, Error, Result, bail};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;

thread_local! {
    static IS_RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread records: work is not run, so nothing can be measured, uploaded or read.
pub(crate) fn is_recording() -> bool {
    IS_RECORDING.get()
}

/// Whether work of this device may be recorded: with `SDFT_CUDA_GRAPHS=1`, after [`crate::allow_recording`], if it has memory pools.
pub fn can_record(device: &Device) -> bool {
    let Ok(device) = device.as_cuda_device() else {
        return false;
    };
    is_recording_allowed()
        && device.cuda_stream().context().has_async_alloc()
        && std::env::var_os("SDFT_CUDA_GRAPHS").is_some_and(|wanted| wanted == "1")
}

/// Runs `f` as a first run of work that is recorded later: small constants that candle uploads, such as the strides of a view, stay on
/// the device, because a recording cannot upload them.
///
/// # Errors
/// Those of `f`, and a device that is no GPU.
pub fn rehearse<T>(device: &Device, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _kept = device.as_cuda_device()?.enable_cuda_graph_htod_cache();
    f()
}

/// Recorded work: kernels, and copies, fills and allocations on the device.
///
/// Memory that the work allocates belongs to the recording. All other memory that it uses must outlive it.
pub struct Recording {
    graph: CudaGraph,
    parts: usize,
    /// Dropped after the graph.
    _memory: Memory,
}

// SAFETY: a graph belongs to no thread; it is not shared, because this is not `Sync`.
unsafe impl Send for Recording {}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording of {} parts", self.parts)
    }
}

impl Recording {
    /// Records what `f` queues on the device, without running it. Before, `f` must have run in [`rehearse`] on this thread with tensors of
    /// the same shapes, which chooses engines and loads kernels. No other thread may use the device meanwhile.
    ///
    /// `f` frees all that it allocates, and leaves its result in memory that was allocated before. It may free what a recording of
    /// [`Self::keeping`] keeps.
    ///
    /// # Errors
    /// Those of `f`; work that cannot be recorded; copies from or to the host, and all other work that is not done by the device alone.
    pub fn new(device: &Device, f: impl FnOnce() -> Result<()>) -> Result<Self> {
        record(device, FREED, f).map(|(recording, ())| recording)
    }

    /// As [`Self::new`], for a function whose result keeps memory that it allocates, and launches the recording. That memory is freed by
    /// dropping the result, which another recording can do, or else by the next launch.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Self::launch`].
    pub fn keeping<T>(device: &Device, f: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let (recording, kept) = record(device, KEPT, f)?;
        match recording.launch() {
            Ok(()) => Ok((recording, kept)),
            Err(error) => {
                drop(kept);
                let _ = forget_errors(device);
                Err(error)
            }
        }
    }

    /// Queues the work on the device.
    ///
    /// # Errors
    /// A lack of memory, or a failure of earlier work on the device.
    pub fn launch(&self) -> Result<()> {
        self.graph.launch().w()
    }

    /// The number of kernels, copies, fills and allocations.
    pub fn parts(&self) -> usize {
        self.parts
    }
}

/// The memory that a device keeps for recordings, of which it frees what no recording needs.
struct Memory(sys::CUdevice);

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the device exists. If this fails, it keeps the memory.
        let _ = unsafe { sys::cuDeviceGraphMemTrim(self.0) };
    }
}

/// A stream that records until this is dropped, also by an error or a panic.
struct Capture(Option<Arc<CudaStream>>);

/// Every launch must find all memory of the last one freed.
const FREED: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);
/// A launch frees what the last one allocated.
const KEPT: sys::CUgraphInstantiate_flags =
    sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

fn record<T>(
    device: &Device,
    flags: sys::CUgraphInstantiate_flags,
    f: impl FnOnce() -> Result<T>,
) -> Result<(Recording, T)> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let recorded = rehearse(device, || {
        let capture = Capture::begin(stream.clone())?;
        let kept = f()?;
        let graph = capture.end(flags)?;
        let recording = Recording {
            parts: count_parts(&graph)?,
            graph,
            _memory: Memory(stream.context().cu_device()),
        };
        Ok((recording, kept))
    });
    // Memory of a recording that failed is freed without having been allocated.
    let earlier = forget_errors(device);
    let recorded = recorded?;
    earlier?;
    Ok(recorded)
}

/// The first failure of work that has no result, such as freeing memory.
fn forget_errors(device: &Device) -> Result<()> {
    let stream = device.as_cuda_device()?.cuda_stream();
    stream.context().check_err().w()
}

impl Capture {
    fn begin(stream: Arc<CudaStream>) -> Result<Self> {
        if is_recording() {
            bail!("a recording inside a recording");
        }
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).w()?;
        IS_RECORDING.set(true);
        Ok(Self(Some(stream)))
    }

    fn end(mut self, flags: sys::CUgraphInstantiate_flags) -> Result<CudaGraph> {
        match self.0.take() {
            Some(stream) => end(&stream, flags),
            None => bail!("a recording ended twice"),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            let _ = end(&stream, FREED);
        }
    }
}

fn end(stream: &Arc<CudaStream>, flags: sys::CUgraphInstantiate_flags) -> Result<CudaGraph> {
    IS_RECORDING.set(false);
    // A failure to free memory is reported by the next call, which must not be the one that ends the recording.
    let earlier = stream.context().check_err();
    let graph = stream.end_capture(flags).w()?;
    earlier.w()?;
    graph.ok_or_else(|| Error::Msg("the driver recorded nothing".to_owned()))
}

/// The number of parts of a graph, all of which the device does alone.
fn count_parts(graph: &CudaGraph) -> Result<usize> {
    let mut count = 0usize;
    // SAFETY: without a list, the driver writes the number of nodes.
    unsafe {
        sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &raw mut count).result()
    }
    .w()?;
    let mut nodes = vec![std::ptr::null_mut(); count];
    // SAFETY: the list has room for this number of nodes.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &raw mut count).result() }
        .w()?;
    for node in &nodes {
        check_node(*node)?;
    }
    Ok(nodes.len())
}

fn check_node(node: sys::CUgraphNode) -> Result<()> {
    use sys::CUgraphNodeType as Kind;
    // A newer driver may have kinds that this build does not know.
    let mut kind = 0u32;
    // SAFETY: the node is that of a graph which lives; its kind has 32 bits.
    unsafe { sys::cuGraphNodeGetType(node, (&raw mut kind).cast()).result() }.w()?;
    let is = |known: Kind| kind == known as u32;
    if is(Kind::CU_GRAPH_NODE_TYPE_MEMCPY) {
        return check_copy(node);
    }
    let is_plain = is(Kind::CU_GRAPH_NODE_TYPE_KERNEL)
        || is(Kind::CU_GRAPH_NODE_TYPE_MEMSET)
        || is(Kind::CU_GRAPH_NODE_TYPE_EMPTY)
        || is(Kind::CU_GRAPH_NODE_TYPE_MEM_ALLOC)
        || is(Kind::CU_GRAPH_NODE_TYPE_MEM_FREE);
    match is_plain {
        true => Ok(()),
        false => bail!("work of kind {kind}, which is not repeated"),
    }
}

/// Fails unless both ends of a copy are on the device: memory of the host may have other values by the time of a launch.
fn check_copy(node: sys::CUgraphNode) -> Result<()> {
    // SAFETY: all zeros are a value of each field: numbers and null pointers. The kinds of memory are written below, before they are read.
    let mut copy = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D>::zeroed();
    // SAFETY: the node is a copy; the driver writes all fields.
    let copy = unsafe {
        sys::cuGraphMemcpyNodeGetParams(node, copy.as_mut_ptr())
            .result()
            .w()?;
        copy.assume_init()
    };
    let ends = [
        (copy.srcMemoryType, copy.srcDevice),
        (copy.dstMemoryType, copy.dstDevice),
    ];
    for (memory, at) in ends {
        let on_device = match memory {
            sys::CUmemorytype::CU_MEMORYTYPE_DEVICE => true,
            sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED => is_on_device(at),
            _ => false,
        };
        if !on_device {
            bail!("a copy from or to the host");
        }
    }
    Ok(())
}

fn is_on_device(at: sys::CUdeviceptr) -> bool {
    let mut memory = 0u32;
    // SAFETY: this attribute has 32 bits.
    let known = unsafe {
        sys::cuPointerGetAttribute(
            (&raw mut memory).cast::<c_void>(),
            sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            at,
        )
        .result()
    };
    known.is_ok() && memory == sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32
}
