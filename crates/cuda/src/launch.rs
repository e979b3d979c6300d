//! Kernels: compiled once per GPU, launched on the stream of the device.

use crate::ptx_cache;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::sys::{nvrtcResult, nvrtcVersion};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Error, Result};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum File {
    Attention,
    Conv,
    Elementwise,
    Layout,
    Noise,
    Norm,
    Optim,
    Resample,
    Rows,
    Token,
}

const COMMON: &str = include_str!("kernels/common.cuh");

impl File {
    fn source(self) -> &'static str {
        match self {
            Self::Attention => include_str!("kernels/attention.cu"),
            Self::Conv => include_str!("kernels/conv.cu"),
            Self::Elementwise => include_str!("kernels/elementwise.cu"),
            Self::Layout => include_str!("kernels/layout.cu"),
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

/// A grid of `x` by `y` blocks of 256 threads.
pub(crate) fn blocks(x: usize, y: usize) -> LaunchConfig {
    let side = |n: usize, most: u32| u32::try_from(n.max(1)).unwrap_or(most).min(most);
    LaunchConfig {
        grid_dim: (side(x, i32::MAX as u32), side(y, 65535), 1),
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
    (file, name): (File, &str),
    config: LaunchConfig,
    args: &[Arg],
) -> Result<()> {
    let function = function(device, file, name)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
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

fn compile(device: &CudaDevice, file: File) -> Result<Arc<CudaModule>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability().w()?;
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        ..CompileOptions::default()
    };
    let source = format!("{COMMON}\n{}", file.source());
    // Compiling takes seconds, and the result is the same in every process.
    let cached = cache_file(&source, (major, minor));
    if let Some(ptx) = cached
        .as_ref()
        .and_then(|path| ptx_cache::verified(&std::fs::read_to_string(path).ok()?))
        && let Ok(module) = context.load_module(Ptx::from_src(ptx))
    {
        return Ok(module);
    }
    let ptx = compile_ptx_with_opts(source, options).map_err(|error| {
        Error::Msg(format!(
            "the CUDA kernels in {file:?} failed to compile for compute capability {major}.{minor}: {error:?}"
        ))
    })?;
    if let Some(path) = cached {
        // If it cannot be written, the next process compiles again.
        let _ = ptx_cache::write(&path, &ptx.to_src());
    }
    context.load_module(ptx).w()
}

/// The file of a compiled source: in the cache folder of the user, named by a hash of everything it depends on.
fn cache_file(source: &str, capability: (i32, i32)) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
            Some(PathBuf::from(home).join(".cache"))
        })?;
    let compiler = nvrtc_version()?;
    let mut hash = DefaultHasher::new();
    (source, capability, compiler).hash(&mut hash);
    Some(
        cache
            .join("sdft")
            .join(format!("kernels-{:016x}.ptx", hash.finish())),
    )
}

fn nvrtc_version() -> Option<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two numbers are written.
    let status = unsafe { nvrtcVersion(&raw mut major, &raw mut minor) };
    (status == nvrtcResult::NVRTC_SUCCESS).then_some((major, minor))
}
