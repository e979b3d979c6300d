//! Devices: opening, listing, synchronising, memory.

use crate::DeviceSpec;
use candle_core::{Device, Error, Result};

/// A GPU and its properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// All its memory, in bytes.
    pub memory: u64,
}

impl Gpu {
    /// Whether it computes in bf16: compute capability 8 or higher.
    pub fn has_bf16(&self) -> bool {
        self.capability.0 >= 8
    }
}

/// Whether an error message reports that the device is out of memory.
pub fn is_out_of_memory(message: &str) -> bool {
    message.contains("OUT_OF_MEMORY") || message.contains("out of memory")
}

#[cfg(not(feature = "cuda"))]
mod build {
    use super::{Device, DeviceSpec, Error, Gpu, Result};

    /// Opens a device.
    ///
    /// # Errors
    /// A GPU: this build has no GPU code.
    pub fn open(spec: DeviceSpec) -> Result<Device> {
        match spec {
            DeviceSpec::Auto | DeviceSpec::Cpu => Ok(Device::Cpu),
            DeviceSpec::Cuda(_) => Err(Error::Msg(format!(
                "{spec}: this build has no GPU code; build with --features cuda"
            ))),
        }
    }

    /// The GPUs of this machine.
    ///
    /// # Errors
    /// Always: this build has no GPU code.
    pub fn gpus() -> Result<Vec<Gpu>> {
        Err(Error::Msg("this build has no GPU code".to_owned()))
    }

    /// Has no effect without GPU code.
    pub fn allow_tf32(_: bool) {}

    /// Whether f32 products may be rounded to tf32; without a GPU they never are.
    pub fn is_tf32_allowed() -> bool {
        false
    }

    /// Has no effect without GPU code.
    pub fn allow_recording(_: bool) {}

    /// Waits until the device is idle; the CPU always is.
    ///
    /// # Errors
    /// None without a GPU.
    pub fn synchronize(_: &Device) -> Result<()> {
        Ok(())
    }

    /// The peak memory use of a GPU in bytes; `None` on the CPU.
    pub fn peak_memory(_: &Device) -> Option<u64> {
        None
    }

    /// Resets the measurement of [`peak_memory`].
    pub fn reset_peak_memory(_: &Device) {}
}

#[cfg(feature = "cuda")]
mod build {
    use super::{Device, DeviceSpec, Error, Gpu, Result};
    use crate::libraries::{candles_kernels, versions};
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use candle_core::cuda_backend::{CudaDevice, WrapErr};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Opens a device.
    ///
    /// Freed memory stays in the pool of the process, if the GPU has pools, so that the next step allocates it without delay. All work is
    /// on one stream, apart from sums over GPUs, which record events themselves; so nothing else does.
    ///
    /// # Errors
    /// A GPU that does not exist, or cannot be used by this driver and build.
    pub fn open(spec: DeviceSpec) -> Result<Device> {
        let ordinal = match spec {
            DeviceSpec::Cpu => return Ok(Device::Cpu),
            DeviceSpec::Auto if count().is_none_or(|n| n == 0) => return Ok(Device::Cpu),
            DeviceSpec::Auto => 0,
            DeviceSpec::Cuda(n) => n,
        };
        match count() {
            None => return Err(Error::Msg(format!("{spec}: found no NVIDIA driver"))),
            Some(n) if ordinal >= n => {
                return Err(Error::Msg(format!(
                    "{spec}: this machine has {n} GPUs, numbered from 0"
                )));
            }
            Some(_) => {}
        }
        check_build(spec, ordinal)?;
        let device = Device::new_cuda_with_stream(ordinal)?;
        let cuda = device.as_cuda_device()?;
        // SAFETY: all work on this device is on its one stream; sums over GPUs record and wait for their own events.
        unsafe { cuda.disable_event_tracking() };
        keep_memory(cuda)?;
        Ok(device)
    }

    fn count() -> Option<usize> {
        CudaContext::device_count()
            .ok()
            .and_then(|n| n.try_into().ok())
    }

    /// Fails if the driver cannot load the kernels of this build, or the GPU cannot run them.
    fn check_build(spec: DeviceSpec, ordinal: usize) -> Result<()> {
        if let Some(problem) = versions().problems().into_iter().next() {
            return Err(Error::Msg(format!("{spec}: {problem}")));
        }
        let (Some(header), Some(gpu)) = (candles_kernels(), gpus()?.into_iter().nth(ordinal))
        else {
            return Ok(());
        };
        if header.runs_on(gpu.capability) {
            return Ok(());
        }
        let ((major, minor), name) = (gpu.capability, gpu.name);
        Err(Error::Msg(format!(
            "{spec}: this program was built for GPUs of {}, and {name} has {major}.{minor}; build it with CUDA_COMPUTE_CAP={major}{minor} for this one, or with 80 for all from 8.0",
            header.gpus()
        )))
    }

    /// The memory pool of a device; `None` if it has none. Its memory is then allocated and freed at once by the driver, which is slower.
    fn pool(device: &CudaDevice) -> Result<Option<sys::CUmemoryPool>> {
        let context = device.cuda_stream().context().clone();
        if !context.has_async_alloc() {
            return Ok(None);
        }
        let mut pool = std::ptr::null_mut();
        // SAFETY: the device exists and `pool` is written before it is read.
        unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result() }
            .w()?;
        Ok(Some(pool))
    }

    /// Keeps freed memory in the pool.
    fn keep_memory(device: &CudaDevice) -> Result<()> {
        let Some(pool) = pool(device)? else {
            return Ok(());
        };
        let mut all = u64::MAX;
        // SAFETY: this attribute is a 64-bit number.
        unsafe {
            sys::cuMemPoolSetAttribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut all).cast(),
            )
            .result()
        }
        .w()
    }

    /// The GPUs of this machine.
    ///
    /// # Errors
    /// A driver that is missing or fails.
    pub fn gpus() -> Result<Vec<Gpu>> {
        let problem = |e: result::DriverError| Error::Msg(format!("the NVIDIA driver failed: {e}"));
        let n = CudaContext::device_count().map_err(problem)?;
        // Queries the devices, because contexts on them would take memory.
        let gpu = |i| {
            let device = result::device::get(i)?;
            use sys::CUdevice_attribute_enum as Attribute;
            let major = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
            let minor = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
            // SAFETY: the driver has just returned this device.
            unsafe {
                Ok(Gpu {
                    name: result::device::get_name(device)?,
                    capability: (
                        result::device::get_attribute(device, major)?,
                        result::device::get_attribute(device, minor)?,
                    ),
                    memory: result::device::total_mem(device)? as u64,
                })
            }
        };
        (0..n).map(|i| gpu(i).map_err(problem)).collect()
    }

    static TF32: AtomicBool = AtomicBool::new(false);

    /// Whether matrix products and convolutions of f32 may round their factors to tf32 (10 bits of mantissa); like PyTorch's
    /// `allow_tf32`. The default is no.
    pub fn allow_tf32(allow: bool) {
        TF32.store(allow, Ordering::Relaxed);
    }

    /// Whether matrix products and convolutions of f32 may round their factors to tf32.
    pub fn is_tf32_allowed() -> bool {
        TF32.load(Ordering::Relaxed)
    }

    static RECORDING: AtomicBool = AtomicBool::new(false);

    /// Whether networks may record their work and launch it as a whole. The default is no: while one thread records, no other thread may
    /// use the device, because its work would be recorded, too.
    pub fn allow_recording(allow: bool) {
        RECORDING.store(allow, Ordering::Relaxed);
    }

    /// Whether networks may record their work.
    pub(crate) fn is_recording_allowed() -> bool {
        RECORDING.load(Ordering::Relaxed)
    }

    /// Waits until the device is idle.
    ///
    /// # Errors
    /// A failure of earlier work on the device.
    pub fn synchronize(device: &Device) -> Result<()> {
        device.synchronize()
    }

    /// The peak memory use of a GPU in bytes since [`reset_peak_memory`]; `None` on the CPU and on GPUs without memory pools. The peak of
    /// recorded work is added to that of other work, so the sum may be too large.
    pub fn peak_memory(device: &Device) -> Option<u64> {
        let pool = pool(device.as_cuda_device().ok()?).ok()??;
        let mut bytes = 0u64;
        // SAFETY: this attribute is a 64-bit number.
        unsafe {
            sys::cuMemPoolGetAttribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
                (&raw mut bytes).cast(),
            )
            .result()
        }
        .ok()?;
        Some(bytes + memory_of_graphs(device).unwrap_or(0))
    }

    const PEAK_OF_GRAPHS: sys::CUgraphMem_attribute =
        sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;

    /// The peak of the memory that graphs allocate, which does not come from the pool.
    fn memory_of_graphs(device: &Device) -> Option<u64> {
        let device = device.as_cuda_device().ok()?.cuda_stream();
        let device = device.context().cu_device();
        let mut bytes = 0u64;
        // SAFETY: this attribute is a 64-bit number.
        unsafe {
            sys::cuDeviceGetGraphMemAttribute(device, PEAK_OF_GRAPHS, (&raw mut bytes).cast())
                .result()
        }
        .ok()?;
        Some(bytes)
    }

    /// Resets the measurement of [`peak_memory`].
    pub fn reset_peak_memory(device: &Device) {
        let Ok(cuda) = device.as_cuda_device() else {
            return;
        };
        let Some(pool) = pool(cuda).ok().flatten() else {
            return;
        };
        let mut zero = 0u64;
        let device = cuda.cuda_stream().context().cu_device();
        // SAFETY: as below.
        let _ = unsafe {
            sys::cuDeviceSetGraphMemAttribute(device, PEAK_OF_GRAPHS, (&raw mut zero).cast())
        };
        // SAFETY: this attribute is a 64-bit number. If it cannot be reset, the peak is that of a longer time.
        let _ = unsafe {
            sys::cuMemPoolSetAttribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
                (&raw mut zero).cast(),
            )
        };
    }
}

#[cfg(feature = "cuda")]
pub(crate) use build::is_recording_allowed;
pub use build::{
    allow_recording, allow_tf32, gpus, is_tf32_allowed, open, peak_memory, reset_peak_memory,
    synchronize,
};
