//! `doctor`: what this machine has, and what the program will use.

use crate::console::{line, size};
use crate::device::{asked, device};
use anyhow::Result;
use sdft_cuda::{gpus, libraries, versions};
use sdft_jobs::resolve_precision;
use std::path::{Path, PathBuf};

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
    line(format_args!("kernels   {}", sdft_kernels::kernel_choice()))?;
    line(format_args!(
        "speed     {:.0} GFLOP/s in matrix products, measured now",
        sdft_kernels::measure_flops() / 1e9
    ))?;
    if let Some((total, available)) = memory() {
        line(format_args!(
            "memory    {} in total, {} available",
            size(total),
            size(available)
        ))?;
    }
    match sdft_gallery::free_space(Path::new(".")) {
        Some(bytes) => line(format_args!(
            "disk      {} free in this folder",
            size(bytes)
        ))?,
        None => line("disk      unknown")?,
    }
    match gpus() {
        Ok(gpus) => {
            for (i, gpu) in gpus.iter().enumerate() {
                line(format_args!(
                    "gpu       cuda:{i}: {}, {}, compute capability {}.{}{}",
                    gpu.name,
                    size(gpu.memory),
                    gpu.capability.0,
                    gpu.capability.1,
                    if gpu.has_bf16() { "" } else { ", without bf16" }
                ))?;
            }
            for (name, version) in libraries() {
                line(format_args!("{name:<9} {version}"))?;
            }
            for problem in versions().problems() {
                line(format_args!("problem   {problem}"))?;
            }
        }
        Err(problem) => line(format_args!("gpu       {}; {problem}", driver()))?,
    }
    line(format_args!("toolkit   {}", toolkit()))?;
    line(format_args!("device    {}", device_line()))?;
    Ok(())
}

/// The device that will be used, or what is missing for a GPU.
fn device_line() -> String {
    match device() {
        Ok(device) if device.is_cuda() => {
            let precision = resolve_precision(asked().unwrap_or_default(), &device);
            format!("GPU, {precision:?} where models train and draw").to_lowercase()
        }
        Ok(_) if driver_gpus() == 0 => "cpu".to_owned(),
        Ok(_) if cfg!(feature = "cuda") => "cpu, as asked".to_owned(),
        Ok(_) if found_nvcc().is_none() => {
            "cpu: for the GPU, install NVIDIA's CUDA toolkit with cuDNN (nvcc on the PATH, or its folder in CUDA_HOME), and start through cargo xtask"
                .to_owned()
        }
        Ok(_) => "cpu: this build has no GPU code; cargo xtask builds one with it".to_owned(),
        Err(error) => format!("none: {error:#}"),
    }
}

/// All memory and the available part of it, where the system reports it.
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

/// Number of GPUs that the system's driver lists.
fn driver_gpus() -> usize {
    std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count)
}

fn driver() -> String {
    match driver_gpus() {
        0 => "no NVIDIA driver found".to_owned(),
        n => format!("{n} with an NVIDIA driver"),
    }
}

pub(crate) fn found_nvcc() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter();
    folders.extend(
        homes
            .filter_map(std::env::var_os)
            .map(|home| PathBuf::from(home).join("bin")),
    );
    folders.push("/usr/local/cuda/bin".into());
    folders
        .into_iter()
        .map(|dir| dir.join("nvcc"))
        .find(|nvcc| nvcc.is_file())
}

fn toolkit() -> String {
    match found_nvcc() {
        Some(nvcc) => format!("{}", nvcc.display()),
        None => "no nvcc on the PATH".to_owned(),
    }
}
