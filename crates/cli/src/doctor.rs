use crate::console::{line, size};
use anyhow::Result;
use std::path::Path;

pub(crate) fn doctor() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    line(format_args!(
        "program   sdft {} ({})",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            "debug build: about ten times slower, build with --release"
        } else {
            "release build"
        }
    ))?;
    line(format_args!(
        "cores     {cores}; {} threads will be used",
        rayon::current_num_threads()
    ))?;
    line(format_args!("kernels   {}", sdft_nn::kernel_choice()))?;
    line(format_args!(
        "speed     {:.0} GFLOP/s in matrix products, measured now",
        sdft_nn::measure_flops() / 1e9
    ))?;
    if let Some((total, available)) = memory() {
        line(format_args!(
            "memory    {} in all, {} available",
            size(total),
            size(available)
        ))?;
    }
    match free_space(Path::new(".")) {
        Some(bytes) => line(format_args!(
            "disk      {} free in this folder",
            size(bytes)
        ))?,
        None => line("disk      unknown")?,
    }
    line(format_args!("gpu       {}", gpu()))?;
    line(format_args!("toolkit   {}", toolkit()))?;
    line("device    cpu: this build has no GPU code")?;
    Ok(())
}

/// All memory and what is available of it, where the system tells.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

/// Bytes that this user can still write in the file system of `path`.
#[cfg(unix)]
fn free_space(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid value of a plain C struct.
    let mut out: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `out` is writable.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut out) };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    (result == 0).then(|| out.f_bavail as u64 * out.f_frsize as u64)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

fn gpu() -> String {
    let names = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .map(|entries| entries.count())
        .unwrap_or(0);
    match names {
        0 => "no NVIDIA driver found".to_owned(),
        n => format!("{n} with an NVIDIA driver"),
    }
}

fn toolkit() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path)
        .map(|dir| dir.join("nvcc"))
        .find(|nvcc| nvcc.is_file())
    {
        Some(nvcc) => format!("{}", nvcc.display()),
        None => "no nvcc on the PATH".to_owned(),
    }
}
