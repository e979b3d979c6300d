use crate::DeviceSpec;
use candle_core::{Device, Error, Result};

/// A GPU, and what it can do.
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
    /// Whether bf16 is arithmetic of its own here (from compute capability 8 on).
    pub fn has_bf16(&self) -> bool {
        self.capability.0 >= 8
    }
}

/// How products of f32 numbers are computed on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precise {
    /// In f32, by algorithms that give the same bits again.
    Yes,
    /// In tf32: factors are rounded to 10 bits of mantissa.
    Tf32,
}

/// Whether an error says that the device's memory does not suffice.
pub fn is_out_of_memory(message: &str) -> bool {
    message.contains("OUT_OF_MEMORY") || message.contains("out of memory")
}

#[cfg(not(feature = "cuda"))]
mod build {
    use super::{Device, DeviceSpec, Error, Gpu, Precise, Result};

    /// The device of a place.
    ///
    /// # Errors
    /// A GPU, which this build has no code for.
    pub fn open(place: DeviceSpec) -> Result<Device> {
        match place {
            DeviceSpec::Auto | DeviceSpec::Cpu => Ok(Device::Cpu),
            DeviceSpec::Cuda(_) => Err(Error::Msg(format!(
                "{place}: this build has no GPU code; build with --features cuda"
            ))),
        }
    }

    /// The GPUs that this build can use; none.
    pub fn gpus() -> std::result::Result<Vec<Gpu>, String> {
        Err("this build has no GPU code".to_owned())
    }

    /// The libraries of this build for GPUs and their versions; none.
    pub fn libraries() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// How f32 products are computed from now on; without a GPU nothing changes.
    pub fn precise(_: Precise) {}

    /// Waits for a device; the CPU is never behind.
    ///
    /// # Errors
    /// None without a GPU.
    pub fn synchronize(_: &Device) -> Result<()> {
        Ok(())
    }

    /// The most bytes of a GPU's memory that were in use at once; none on the CPU.
    pub fn peak_memory(_: &Device) -> Option<u64> {
        None
    }

    /// Begins the measurement of [`peak_memory`] anew.
    pub fn forget_peak(_: &Device) {}
}

#[cfg(feature = "cuda")]
mod build {
    use super::{Device, DeviceSpec, Error, Gpu, Precise, Result};
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use candle_core::cuda_backend::{CudaDevice, WrapErr};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The device of a place.
    ///
    /// Memory that is given back stays with the process, so that a step finds it again at once; and since all work is on one stream,
    /// nothing is spent on events between streams.
    ///
    /// # Errors
    /// A GPU that is not there, or cannot be used.
    pub fn open(place: DeviceSpec) -> Result<Device> {
        let ordinal = match place {
            DeviceSpec::Cpu => return Ok(Device::Cpu),
            DeviceSpec::Auto if count().is_none_or(|n| n == 0) => return Ok(Device::Cpu),
            DeviceSpec::Auto => 0,
            DeviceSpec::Cuda(n) => n,
        };
        match count() {
            None => return Err(Error::Msg(format!("{place}: no NVIDIA driver answers"))),
            Some(n) if ordinal >= n => {
                return Err(Error::Msg(format!(
                    "{place}: there are {n} GPUs here, counted from 0"
                )));
            }
            Some(_) => {}
        }
        let device = Device::new_cuda_with_stream(ordinal)?;
        let cuda = device.as_cuda_device()?;
        // SAFETY: every operation of this program on this device is put on the device's one stream.
        unsafe { cuda.disable_event_tracking() };
        keep_memory(cuda)?;
        Ok(device)
    }

    fn count() -> Option<usize> {
        CudaContext::device_count()
            .ok()
            .and_then(|n| n.try_into().ok())
    }

    /// The pool of a device's memory.
    fn pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
        let context = device.cuda_stream().context().clone();
        let mut pool = std::ptr::null_mut();
        // SAFETY: the device exists and `pool` is written before it is read.
        unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result() }
            .w()?;
        Ok(pool)
    }

    fn keep_memory(device: &CudaDevice) -> Result<()> {
        let mut all = u64::MAX;
        // SAFETY: this attribute is a 64-bit number.
        unsafe {
            sys::cuMemPoolSetAttribute(
                pool(device)?,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut all).cast(),
            )
            .result()
        }
        .w()
    }

    /// The GPUs of this machine, or why there are none.
    pub fn gpus() -> std::result::Result<Vec<Gpu>, String> {
        let problem = |e: result::DriverError| format!("the NVIDIA driver does not answer: {e}");
        let n = CudaContext::device_count().map_err(problem)?;
        // Asked of the devices and not of contexts on them, which would take their memory.
        let gpu = |i| {
            let device = result::device::get(i)?;
            use sys::CUdevice_attribute_enum as Attribute;
            let major = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
            let minor = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
            // SAFETY: the driver has just given this device.
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

    /// The libraries for GPUs and their versions, as they are at run time.
    pub fn libraries() -> Vec<(&'static str, String)> {
        let mut driver = 0;
        // SAFETY: a number is written; a failure leaves 0.
        let _ = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
        let cudnn = candle_core::cuda_backend::cudarc::cudnn::result::get_version();
        vec![
            (
                "driver",
                format!("CUDA {}.{}", driver / 1000, driver % 1000 / 10),
            ),
            (
                "cudnn",
                format!(
                    "{}.{}.{}",
                    cudnn / 10_000,
                    cudnn % 10_000 / 100,
                    cudnn % 100
                ),
            ),
        ]
    }

    static TF32: AtomicBool = AtomicBool::new(false);

    /// How f32 products are computed from now on.
    pub fn precise(precise: Precise) {
        TF32.store(precise == Precise::Tf32, Ordering::Relaxed);
    }

    pub(crate) fn tf32() -> bool {
        TF32.load(Ordering::Relaxed)
    }

    /// Waits until a device has done what it was given.
    ///
    /// # Errors
    /// Whatever went wrong there.
    pub fn synchronize(device: &Device) -> Result<()> {
        device.synchronize()
    }

    /// The most bytes of a GPU's memory that were in use at once since [`forget_peak`]; none on the CPU.
    pub fn peak_memory(device: &Device) -> Option<u64> {
        let pool = pool(device.as_cuda_device().ok()?).ok()?;
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
        Some(bytes)
    }

    /// Begins the measurement of [`peak_memory`] anew.
    pub fn forget_peak(device: &Device) {
        let Some(pool) = device.as_cuda_device().ok().and_then(|d| pool(d).ok()) else {
            return;
        };
        let mut zero = 0u64;
        // SAFETY: this attribute is a 64-bit number. A mark that cannot be reset only measures more.
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
pub(crate) use build::tf32;
pub use build::{forget_peak, gpus, libraries, open, peak_memory, precise, synchronize};
