//! `doctor`: what this machine has, and what the program will use.

use crate::console::{line, plural, size};
use crate::device::{asked, device};
use anyhow::Result;
use sdft_cuda::{gpus, libraries, versions};
use sdft_jobs::resolve_precision;
use sdft_kernels::bf16_is_fast;
use sdft_toolkit::{Toolkit, caution, driver, has_gpu, problem, toolkit};
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
        "cores     {cores}; {} will be used",
        plural(rayon::current_num_threads(), "thread", "threads")
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
        Err(problem) => line(format_args!("gpu       {}; {problem}", driver_line()))?,
    }
    line(format_args!(
        "toolkit   {}",
        toolkit_line(toolkit(&driver()).as_ref())
    ))?;
    line(format_args!("device    {}", device_line()))?;
    Ok(())
}

/// The device that will be used, or what is missing for a GPU.
fn device_line() -> String {
    match device() {
        Ok(device) if device.is_cuda() => {
            let precision = resolve_precision(asked().unwrap_or_default(), &device);
            format!("gpu, {} where models train and draw", precision.name())
        }
        Ok(_) if !has_gpu() && bf16_is_fast() => {
            "cpu, with a matrix unit: bf16 except for training".to_owned()
        }
        Ok(_) if !has_gpu() => "cpu".to_owned(),
        Ok(_) if cfg!(feature = "cuda") => "cpu, as asked".to_owned(),
        Ok(_) => format!(
            "cpu: this program was built without support for GPUs; {}",
            how_to_build()
        ),
        Err(error) => format!("none: {error:#}"),
    }
}

/// How to get a build of this program for GPUs on this machine.
pub(crate) fn how_to_build() -> String {
    let driver = driver();
    let toolkit = toolkit(&driver);
    let caution = toolkit
        .as_ref()
        .and_then(|toolkit| caution(toolkit, &driver));
    advice(problem(toolkit.as_ref(), &driver).or(caution))
}

fn advice(problem: Option<String>) -> String {
    match problem {
        Some(problem) => format!("`cargo xtask` builds one with a complete toolkit: {problem}"),
        None => "`cargo xtask` builds one".to_owned(),
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

fn driver_line() -> &'static str {
    if has_gpu() {
        "found an NVIDIA driver"
    } else {
        "found no NVIDIA driver"
    }
}

fn toolkit_line(toolkit: Option<&Toolkit>) -> String {
    let Some(toolkit) = toolkit else {
        return "none".to_owned();
    };
    let version = toolkit.version.map_or_else(
        || "which does not start".to_owned(),
        |(major, minor)| format!("CUDA {major}.{minor}"),
    );
    format!("{}, {version}", toolkit.nvcc.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_what_is_missing_and_how_to_start() {
        let text = advice(Some("no cuDNN; install: LINE".to_owned()));
        // The command can be copied up to the end of the line.
        assert!(text.ends_with("no cuDNN; install: LINE") && text.contains("cargo xtask"));
        assert!(advice(None).contains("cargo xtask"));
    }

    #[test]
    fn the_toolkit_is_named_with_its_version() {
        let mut toolkit = Toolkit {
            nvcc: "c/bin/nvcc".into(),
            version: Some((13, 0)),
            ..Toolkit::default()
        };
        assert_eq!(toolkit_line(Some(&toolkit)), "c/bin/nvcc, CUDA 13.0");
        toolkit.version = None;
        assert!(toolkit_line(Some(&toolkit)).contains("does not start"));
        assert_eq!(toolkit_line(None), "none");
    }
}
