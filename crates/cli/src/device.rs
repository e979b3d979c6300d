//! The device and the precision given on the command line.

use crate::{console, doctor};
use anyhow::Result;
use candle_core::Device;
use sdft_cuda::{DeviceSpec, allow_recording, gpus};
use sdft_jobs::open_device;
use sdft_parallel::World;
use sdft_runtime::usage;
use sdft_train::Precision;
use std::sync::OnceLock;

/// `--device` and `--precision`.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    spec: DeviceSpec,
    precision: Option<Precision>,
}

static CHOICE: OnceLock<Choice> = OnceLock::new();
static DEVICE: OnceLock<Device> = OnceLock::new();

/// Stores the choice of the user for this process.
pub(crate) fn choose(spec: DeviceSpec, precision: Option<Precision>) {
    // A process runs one command, so this is set once.
    let _ = CHOICE.set(Choice { spec, precision });
}

fn choice() -> Choice {
    CHOICE.get().copied().unwrap_or_default()
}

/// The given precision, if any.
pub(crate) fn asked() -> Option<Precision> {
    choice().precision
}

/// The given number of threads, limited to a useful one: starting thousands takes minutes.
pub(crate) fn sensible_threads(asked: usize) -> usize {
    let most = sdft_runtime::most_threads();
    if asked > most {
        crate::console::note(format!(
            "--threads {asked}: computing with {most}; more do not help this machine's cores"
        ));
    }
    asked.min(most)
}

/// The device, opened once. One of several processes takes the GPU of its own number.
pub(crate) fn device() -> Result<Device> {
    if let Some(device) = DEVICE.get() {
        return Ok(device.clone());
    }
    let spec = choice().spec;
    let device = match open_device(spec, world()?.as_ref()) {
        Ok(device) => device,
        Err(_) if !cfg!(feature = "cuda") => return Err(usage(without_gpu_code(spec))),
        Err(error) => return Err(usage(format!("--device {error}"))),
    };
    // One thread computes; `compare` forbids it where several do.
    allow_recording(true);
    Ok(DEVICE.get_or_init(|| device).clone())
}

/// Fails if a run of `n` processes has fewer GPUs than processes. Without a GPU they compute on the CPU.
pub(crate) fn check_gpus(n: usize) -> Result<()> {
    let found = match choice().spec {
        DeviceSpec::Cpu => 0,
        DeviceSpec::Auto | DeviceSpec::Cuda(_) => gpus().map_or(0, |gpus| gpus.len()),
    };
    match too_many(n, found) {
        Some(problem) => Err(usage(problem)),
        None if found == 0 && n > 1 && choice().spec == DeviceSpec::Auto => {
            console::note(format_args!(
                "--gpus {n}: no GPU was found, so {n} processes share the CPU"
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

fn too_many(n: usize, found: usize) -> Option<String> {
    (found > 0 && n > found).then(|| {
        format!("--gpus {n}: expected at most the number of GPUs, found {found}; each process takes one of its own (CUDA_VISIBLE_DEVICES can hide some)")
    })
}

/// Advice for a build without GPU code.
fn without_gpu_code(spec: DeviceSpec) -> String {
    let how = doctor::how_to_build();
    format!(
        "--device {spec}: this program was built without support for GPUs; --device cpu uses none, and {how}"
    )
}

/// Fails if tf32 was given for the CPU, which computes its products in f32.
pub(crate) fn check_precision() -> Result<()> {
    let has_gpu = match choice().spec {
        DeviceSpec::Cpu => false,
        DeviceSpec::Auto => gpus().is_ok_and(|gpus| !gpus.is_empty()),
        // The command reports a GPU that is not there.
        DeviceSpec::Cuda(_) => true,
    };
    match asked() {
        Some(Precision::Tf32) if !has_gpu => Err(usage(
            "--precision tf32: only GPUs compute in tf32; f32 is the same precision on the CPU",
        )),
        _ => Ok(()),
    }
}

/// Fails if another precision was given for a command that computes in f32. On a GPU, products may be rounded to TF32.
pub(crate) fn in_f32(verb: &str) -> Result<()> {
    match asked() {
        Some(Precision::Bf16) => Err(not_in(Precision::Bf16, verb, "f32")),
        _ => computes_in(verb, "f32"),
    }
}

/// As [`in_f32`] for a command that also computes in bf16. The maps of some networks are larger than f16 can hold.
pub(crate) fn in_f32_or_bf16(verb: &str) -> Result<()> {
    computes_in(verb, "f32 or bf16")
}

fn computes_in(verb: &str, types: &str) -> Result<()> {
    match asked() {
        Some(Precision::F16) => Err(not_in(Precision::F16, verb, types)),
        _ => Ok(()),
    }
}

fn not_in(precision: Precision, verb: &str, types: &str) -> anyhow::Error {
    usage(format!(
        "--precision {}: {verb} computes in {types}, or on a GPU in tf32",
        precision.name()
    ))
}

/// The rank of this process, if it is one of several.
pub(crate) fn world() -> Result<Option<World>> {
    World::from_env().map_err(|error| usage(error.to_string()))
}

/// Advice for a device that is out of memory.
pub(crate) fn memory_advice(error: &anyhow::Error, training: bool) -> Option<String> {
    let short = error
        .chain()
        .any(|e| sdft_cuda::is_out_of_memory(&e.to_string()));
    let advice = if training {
        "the GPU is out of memory; --set loop.micro_batch=N lets fewer images through the network at once (the result is the \
         same), --set loop.recompute=true keeps less of each, --precision bf16 halves what f32 keeps; --device cpu uses no GPU"
    } else {
        "the GPU is out of memory; take fewer images at once with --batch, or --device cpu"
    };
    short.then(|| advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_this_build_cannot_use_is_explained_by_options() {
        let text = without_gpu_code(DeviceSpec::Cuda(0));
        assert!(
            text.starts_with("--device cuda:0: this program was built without support for GPUs; ")
        );
        assert!(
            text.contains("cargo xtask") && !text.contains("--features"),
            "{text}"
        );
    }

    #[test]
    fn more_processes_than_gpus_are_refused() {
        assert!(too_many(4, 1).is_some_and(|text| text.contains("found 1;")));
        assert_eq!((too_many(4, 4), too_many(4, 0)), (None, None));
    }

    #[test]
    fn memory_errors_get_advice() {
        let error = anyhow::anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        let error = error.context("the run stopped");
        assert!(memory_advice(&error, true).is_some_and(|a| a.contains("loop.micro_batch")));
        assert!(memory_advice(&error, false).is_some_and(|a| a.contains("--batch")));
        assert!(memory_advice(&anyhow::anyhow!("no such file"), true).is_none());
    }
}
