//! Where the program computes, and in what precision.

use crate::{doctor, usage};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sdft_adm::{Encoder, Unet};
use sdft_cuda::{DeviceSpec, allow_tf32, gpus, open};
use sdft_models::{LoadedEncoder, LoadedModel};
use sdft_parallel::World;
use sdft_train::Precision;
use std::sync::OnceLock;

/// What `--device` and `--precision` say.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    place: DeviceSpec,
    precision: Option<Precision>,
}

static CHOICE: OnceLock<Choice> = OnceLock::new();
static DEVICE: OnceLock<Device> = OnceLock::new();

/// Remembers what the user chose, for the one command that this process carries out.
pub(crate) fn choose(place: DeviceSpec, precision: Option<Precision>) {
    // A process carries out one command, so nothing was chosen before.
    let _ = CHOICE.set(Choice { place, precision });
}

fn choice() -> Choice {
    CHOICE.get().copied().unwrap_or_default()
}

/// The precision that was asked for, if one was.
pub(crate) fn asked() -> Option<Precision> {
    choice().precision
}

/// As many threads as were asked for, or as many as help; starting thousands takes minutes.
pub(crate) fn sensible_threads(asked: usize) -> usize {
    let most = sdft_runtime::most_threads();
    if asked > most {
        crate::console::note(&format!(
            "--threads {asked}: computing with {most}; more do not help this machine's cores"
        ));
    }
    asked.min(most)
}

/// The device; one of several processes takes the GPU of its own number.
pub(crate) fn device() -> Result<Device> {
    if let Some(device) = DEVICE.get() {
        return Ok(device.clone());
    }
    let place = match (choice().place, world()?) {
        (DeviceSpec::Auto, Some(world)) if gpus().is_ok_and(|gpus| !gpus.is_empty()) => {
            DeviceSpec::Cuda(world.local_rank)
        }
        (DeviceSpec::Cuda(0), Some(world)) => DeviceSpec::Cuda(world.local_rank),
        (place, _) => place,
    };
    let device = match open(place) {
        Ok(device) => device,
        Err(_) if !cfg!(feature = "cuda") => return Err(usage(without_gpu_code(place))),
        Err(error) => return Err(usage(format!("--device {error}"))),
    };
    Ok(DEVICE.get_or_init(|| device).clone())
}

/// What a user of `cargo xtask` can do about a build without GPU code.
fn without_gpu_code(place: DeviceSpec) -> String {
    let cause = match doctor::found_nvcc() {
        None => {
            "`cargo xtask` builds it where it finds NVIDIA's CUDA toolkit with cuDNN, and there is no nvcc on the PATH or in CUDA_HOME"
        }
        Some(_) => "start it through `cargo xtask`, which builds it",
    };
    format!(
        "--device {place}: this build has no code for GPUs; {cause} (`cargo xtask doctor` shows what is there; --device cpu does without)"
    )
}

/// Fails where a GPU or another precision was asked for by name and a command has no use for it.
pub(crate) fn on_the_cpu(verb: &str) -> Result<()> {
    if let Some(precision) = asked().filter(|p| ![Precision::Auto, Precision::F32].contains(p)) {
        let name = format!("{precision:?}").to_lowercase();
        return Err(usage(format!("--precision {name}: {verb} computes in f32")));
    }
    match choice().place {
        DeviceSpec::Cuda(_) => Err(usage(format!(
            "--device {}: {verb} computes on the CPU",
            choice().place
        ))),
        DeviceSpec::Auto | DeviceSpec::Cpu => Ok(()),
    }
}

/// Who this process is among several, where it is not alone.
pub(crate) fn world() -> Result<Option<World>> {
    World::from_env().map_err(|error| usage(error.to_string()))
}

/// A precision that leaves nothing open, on this device.
pub(crate) fn resolve_precision(precision: Precision, device: &Device) -> Precision {
    match precision {
        Precision::Auto if !device.is_cuda() => Precision::F32,
        Precision::Auto => {
            let all_have = gpus().is_ok_and(|gpus| gpus.iter().all(sdft_cuda::Gpu::has_bf16));
            if all_have {
                Precision::Bf16
            } else {
                Precision::F16
            }
        }
        given => given,
    }
}

/// Networks that only look and draw: their place and the type of their maps.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) device: Device,
    maps: DType,
}

impl Stage {
    /// The precision that [`Stage::open`] takes.
    pub(crate) fn precision(otherwise: Precision) -> Result<Precision> {
        Ok(resolve_precision(asked().unwrap_or(otherwise), &device()?))
    }

    /// As the user asked; `otherwise` where nothing was asked.
    pub(crate) fn open(otherwise: Precision) -> Result<Self> {
        let (device, precision) = (device()?, Self::precision(otherwise)?);
        allow_tf32(precision == Precision::Tf32);
        Ok(Self {
            device,
            maps: precision.compute_dtype(),
        })
    }

    /// A model's network.
    pub(crate) fn unet(&self, model: &LoadedModel) -> Result<Unet> {
        let params = model
            .params
            .to(DType::F32, &self.device)
            .context("the model does not reach the device")?;
        Ok(Unet::load(&params, &model.config)?
            .with_prediction_type(model.process.prediction_type)
            .with_compute_dtype(self.maps))
    }

    /// A classifier's network; gradients of it steer, so its maps are f32.
    pub(crate) fn encoder(&self, classifier: &LoadedEncoder) -> Result<Encoder> {
        let params = classifier
            .params
            .to(DType::F32, &self.device)
            .context("the classifier does not reach the device")?;
        Ok(Encoder::load(&params, &classifier.config)?)
    }
}

/// What can be done about a device whose memory does not suffice.
pub(crate) fn memory_advice(error: &anyhow::Error, training: bool) -> Option<String> {
    let short = error
        .chain()
        .any(|e| sdft_cuda::is_out_of_memory(&e.to_string()));
    let advice = if training {
        "the GPU's memory does not suffice; --set loop.micro_batch=N lets fewer images through the network at once (the result is the \
         same), --set loop.recompute=true keeps less of each, --precision bf16 halves what f32 keeps; --device cpu does without the GPU"
    } else {
        "the GPU's memory does not suffice; take fewer images at once with --batch, or --device cpu"
    };
    short.then(|| advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_this_build_cannot_use_is_explained_in_the_words_of_the_caller() {
        let text = without_gpu_code(DeviceSpec::Cuda(0));
        assert!(text.starts_with("--device cuda:0: this build has no code for GPUs; "));
        assert!(
            text.contains("cargo xtask") && !text.contains("--features"),
            "{text}"
        );
    }

    #[test]
    fn precision_is_settled_by_the_device_and_memory_errors_get_advice() {
        assert_eq!(
            resolve_precision(Precision::Auto, &Device::Cpu),
            Precision::F32
        );
        assert_eq!(
            resolve_precision(Precision::Bf16, &Device::Cpu),
            Precision::Bf16
        );
        let error = anyhow::anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        let error = error.context("the run stopped");
        assert!(memory_advice(&error, true).is_some_and(|a| a.contains("loop.micro_batch")));
        assert!(memory_advice(&error, false).is_some_and(|a| a.contains("--batch")));
        assert!(memory_advice(&anyhow::anyhow!("no such file"), true).is_none());
    }
}
