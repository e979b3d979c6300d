//! Kernels: compiled once per GPU, launched on the stream of the device.

use crate::architecture::code_for;
use crate::recording::is_recording;
use crate::{kernel_cache, nvrtc};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Error, Result, bail};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum File {
    Attention,
    Conv,
    Elementwise,
    Embedding,
    FusedAttention,
    Layout,
    Linears,
    Noise,
    Norm,
    Optim,
    Resample,
    Rows,
    Token,
}

const COMMON: &str = include_str!("kernels/common.cuh");

impl File {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 13] = [
        Self::Attention,
        Self::Conv,
        Self::Elementwise,
        Self::Embedding,
        Self::FusedAttention,
        Self::Layout,
        Self::Linears,
        Self::Noise,
        Self::Norm,
        Self::Optim,
        Self::Resample,
        Self::Rows,
        Self::Token,
    ];

    fn source(self) -> &'static str {
        match self {
            Self::Attention => include_str!("kernels/attention.cu"),
            Self::Conv => include_str!("kernels/conv.cu"),
            Self::Elementwise => include_str!("kernels/elementwise.cu"),
            Self::Embedding => include_str!("kernels/embedding.cu"),
            Self::FusedAttention => include_str!("kernels/fused_attention.cu"),
            Self::Layout => include_str!("kernels/layout.cu"),
            Self::Linears => include_str!("kernels/linears.cu"),
            Self::Noise => include_str!("kernels/noise.cu"),
            Self::Norm => include_str!("kernels/norm.cu"),
            Self::Optim => include_str!("kernels/optim.cu"),
            Self::Resample => include_str!("kernels/resample.cu"),
            Self::Rows => include_str!("kernels/rows.cu"),
            Self::Token => include_str!("kernels/token.cu"),
        }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// An address.
    At(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
}

impl From<usize> for Arg {
    /// A size that kernels take as `int`.
    fn from(n: usize) -> Self {
        Self::Int(i32::try_from(n).unwrap_or(i32::MAX))
    }
}

/// A number of elements, which may exceed 2^31.
pub(crate) fn long(n: usize) -> Arg {
    Arg::Long(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Threads of a block.
pub(crate) const BLOCK: usize = 256;

/// The most blocks in a grid's second dimension.
pub(crate) const MOST_ROWS: usize = 65535;

/// A grid of `x` by `y` blocks of 256 threads, of at most [`MOST_ROWS`] rows.
pub(crate) fn blocks(x: usize, y: usize) -> LaunchConfig {
    let side = |n: usize, most: u32| u32::try_from(n.max(1)).unwrap_or(most).min(most);
    LaunchConfig {
        grid_dim: (side(x, i32::MAX as u32), side(y, MOST_ROWS as u32), 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Blocks for a grid-stride loop over `n` units: enough to fill the largest GPU.
pub(crate) fn spread(n: usize) -> LaunchConfig {
    blocks(n.div_ceil(BLOCK).min(1 << 14), 1)
}

/// The suffix of a kernel's name.
pub(crate) fn suffix(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    }
}

/// Elements in 16 bytes.
pub(crate) fn lanes(dtype: DType) -> usize {
    16 / dtype.size_in_bytes()
}

type Functions = HashMap<(DeviceId, File, String), CudaFunction>;
type Modules = HashMap<(DeviceId, File), Arc<CudaModule>>;

static LOADED: Mutex<Option<(Modules, Functions)>> = Mutex::new(None);

/// Launches a kernel on the stream of the device.
pub(crate) fn launch(
    device: &CudaDevice,
    kernel: (File, &str),
    config: LaunchConfig,
    args: &[Arg],
) -> Result<()> {
    launch_with::<u8>(device, kernel, config, None, args)
}

/// Launches a kernel whose first argument is this structure, passed by value; [`launch`] if there is none.
pub(crate) fn launch_with<T: DeviceRepr>(
    device: &CudaDevice,
    (file, name): (File, &str),
    config: LaunchConfig,
    first: Option<&T>,
    args: &[Arg],
) -> Result<()> {
    let function = function(device, file, name)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    if let Some(first) = first {
        builder.arg(first);
    }
    for arg in args {
        match arg {
            Arg::At(v) => builder.arg(v),
            Arg::Int(v) => builder.arg(v),
            Arg::Long(v) => builder.arg(v),
            Arg::Float(v) => builder.arg(v),
            Arg::Double(v) => builder.arg(v),
        };
    }
    // SAFETY: callers pass the arguments of the kernel's declaration, with memory of the sizes that it states.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Launches a kernel for a type: `name_f32`, `name_bf16` or `name_f16`.
pub(crate) fn launch_for(
    device: &CudaDevice,
    (file, name, dtype): (File, &str, DType),
    config: LaunchConfig,
    args: &[Arg],
) -> Result<()> {
    launch(
        device,
        (file, &format!("{name}_{}", suffix(dtype))),
        config,
        args,
    )
}

fn function(device: &CudaDevice, file: File, name: &str) -> Result<CudaFunction> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let (modules, functions) = loaded.get_or_insert_with(Default::default);
    let key = (device.id(), file, name.to_owned());
    if let Some(function) = functions.get(&key) {
        return Ok(function.clone());
    }
    let module = match modules.get(&(device.id(), file)) {
        Some(module) => module.clone(),
        None => {
            let module = compile(device, file)?;
            modules.insert((device.id(), file), module.clone());
            module
        }
    };
    let function = module.load_function(name).w()?;
    functions.insert(key, function.clone());
    Ok(function)
}

/// The whole source of a file.
pub(crate) fn source_of(file: File) -> String {
    format!("{COMMON}\n{}", file.source())
}

/// Compiles a file for a device and loads it. Compiling takes seconds and the result is the same in every process, so it is cached.
fn compile(device: &CudaDevice, file: File) -> Result<Arc<CudaModule>> {
    if is_recording() {
        bail!("a recording cannot load kernels");
    }
    let stream = device.cuda_stream();
    let context = stream.context();
    let capability = context.compute_capability().w()?;
    let version = nvrtc::version();
    let Some(code) = code_for(capability, &nvrtc::supported()) else {
        let ((major, minor), version) = (capability, version.unwrap_or_default());
        return Err(Error::Msg(format!(
            "NVRTC of CUDA {version} compiles for no GPU of compute capability {major}.{minor}; install a CUDA toolkit that supports it"
        )));
    };
    let source = source_of(file);
    let cached = kernel_cache::folder()
        .zip(version)
        .map(|(folder, version)| kernel_cache::file_of(&folder, &source, code, version));
    if let Some(binary) = cached
        .as_ref()
        .and_then(|path| kernel_cache::verified(std::fs::read(path).ok()?))
        && let Ok(module) = context.load_module(Ptx::from_binary(binary))
    {
        return Ok(module);
    }
    let binary = nvrtc::compile(&source, code)?;
    if let Some(path) = cached {
        // If it cannot be written, the next process compiles again.
        let _ = kernel_cache::write(&path, &binary);
    }
    context.load_module(Ptx::from_binary(binary)).w()
}
