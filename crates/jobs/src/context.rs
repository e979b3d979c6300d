//! The surroundings of a job: device, precision, stop flag and progress.

use crate::error::{Result, ResultExt as _};
use candle_core::{DType, Device};
use sdft_adm::Encoder;
use sdft_autoencoder::{Autoencoder, Space};
use sdft_cuda::{DeviceSpec, allow_tf32, gpus, open};
use sdft_diffusion::{Network, PredictionType};
use sdft_gallery::Event;
use sdft_imaging::ImageSpec;
use sdft_kernels::bf16_is_fast;
use sdft_models::{Architecture, Frozen, LoadedAutoencoder, LoadedEncoder, LoadedModel};
use sdft_nn::Params;
use sdft_parallel::{ProcessGroup, World};
use sdft_train::{Precision, Progress};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The surroundings of a job.
pub struct Context<'a> {
    /// The device that networks compute on.
    pub device: Device,
    /// The precision of feature maps; the job chooses if `None`.
    pub precision: Option<Precision>,
    /// Set by the caller, from any thread, to stop the job: it saves what is complete and returns.
    pub stop: &'a AtomicBool,
    /// Called with notes and progress.
    pub progress: &'a mut dyn Progress,
    /// The processes that share the images of the job; only one by default. Other ranks than 0 call the functions whose names begin with
    /// `serve`.
    pub group: Arc<ProcessGroup>,
    /// Called once everything is checked and the job starts to write. From here on, stopping through [`Context::stop`] loses nothing.
    pub on_start: &'a dyn Fn(),
}

impl<'a> Context<'a> {
    /// A context on `device`; the job chooses the precision.
    pub fn new(device: Device, stop: &'a AtomicBool, progress: &'a mut dyn Progress) -> Self {
        Self {
            device,
            precision: None,
            stop,
            progress,
            group: Arc::new(ProcessGroup::single()),
            on_start: &|| {},
        }
    }

    /// Whether the job should stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Passes lines on to the caller.
    pub fn notes<S: AsRef<str>>(&mut self, notes: impl IntoIterator<Item = S>) {
        for note in notes {
            self.progress.note(note.as_ref());
        }
    }

    /// The precision of feature maps: the caller's, or else `otherwise`. It is never [`Precision::Auto`].
    pub fn precision_or(&self, otherwise: Precision) -> Precision {
        resolve_precision(self.precision.unwrap_or(otherwise), &self.device)
    }

    /// As [`Self::precision_or`] for what is made for the caller and does not become part of something else, where [`Precision::Auto`] is
    /// `otherwise`, and if that is it, too, bf16 on processors with a matrix unit. Training and experiments do not depend on the processor.
    pub fn fast_precision_or(&self, otherwise: Precision) -> Precision {
        let given = self.precision.filter(|given| *given != Precision::Auto);
        match given.unwrap_or(otherwise) {
            Precision::Auto if !self.device.is_cuda() && bf16_is_fast() => Precision::Bf16,
            precision => resolve_precision(precision, &self.device),
        }
    }

    /// The precision of edits and measurements: on a GPU f32 unless the caller chooses, elsewhere that of [`Self::fast_precision_or`].
    pub(crate) fn fine_precision(&self) -> Precision {
        match self.device.is_cuda() {
            true => self.fast_precision_or(Precision::F32),
            false => self.fast_precision_or(Precision::Auto),
        }
    }

    /// Tells the caller if the processor, and not the caller, chose bf16.
    pub(crate) fn note_precision(&mut self, precision: Precision) {
        let is_chosen = self.precision.is_none_or(|given| given == Precision::Auto);
        if is_chosen && precision == Precision::Bf16 && !self.device.is_cuda() {
            self.progress.note(
                "feature maps are bf16, which this processor computes several times faster than f32; --precision f32 does not round them",
            );
        }
    }

    /// Device and precision for networks, in the caller's precision or else in `otherwise`. Sets whether products round to TF32.
    pub fn runtime(&self, otherwise: Precision) -> Runtime {
        self.runtime_in(self.precision_or(otherwise))
    }

    /// The context's device, and this precision. Sets whether products round to TF32.
    pub(crate) fn runtime_in(&self, precision: Precision) -> Runtime {
        allow_tf32(precision == Precision::Tf32);
        Runtime {
            device: self.device.clone(),
            compute_dtype: precision.compute_dtype(),
        }
    }

    /// The context's device, for what is always computed in f32: the training of edits, and experiments. The caller may choose TF32.
    pub fn runtime_in_f32(&self) -> Runtime {
        self.runtime_in(self.f32_or_tf32())
    }

    pub(crate) fn f32_or_tf32(&self) -> Precision {
        match self.precision {
            Some(Precision::Tf32) => Precision::Tf32,
            _ => Precision::F32,
        }
    }

    /// Passes an event of a gallery on to the caller.
    pub(crate) fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started => (self.on_start)(),
            Event::Note(text) => self.progress.note(text),
            Event::Images { done, total } => self.progress.images(done, total),
        }
    }
}

/// Fails between two steps once the stop flag is set.
///
/// # Errors
/// The flag is set.
pub fn check_stop(stop: &AtomicBool) -> candle_core::Result<()> {
    if stop.load(Ordering::Relaxed) {
        candle_core::bail!("interrupted");
    }
    Ok(())
}

/// Opens a device. One of several processes takes the GPU of its own number ([`World::gpu`]), unless another one is named.
///
/// # Errors
/// The device does not exist or cannot be used by this build.
pub fn open_device(spec: DeviceSpec, world: Option<&World>) -> candle_core::Result<Device> {
    let visible = || gpus().map_or(0, |gpus| gpus.len());
    let spec = match (spec, world) {
        (DeviceSpec::Auto, Some(world)) if visible() > 0 => DeviceSpec::Cuda(world.gpu(visible())),
        (DeviceSpec::Cuda(0), Some(world)) => DeviceSpec::Cuda(world.gpu(visible())),
        (spec, _) => spec,
    };
    open(spec)
}

/// Replaces [`Precision::Auto`] by the best one to train in on the device: f32 on the CPU, bf16 on GPUs that have it, f16 on others.
pub fn resolve_precision(precision: Precision, device: &Device) -> Precision {
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

/// The precision of plans that state none: f32 is not written, so that plans are as they were before there was a choice.
pub(crate) fn f32_if_absent() -> Precision {
    Precision::F32
}

pub(crate) fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// The device and the type of feature maps of networks that are not trained.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The device.
    pub device: Device,
    pub(crate) compute_dtype: DType,
}

impl Runtime {
    /// The network of a model.
    ///
    /// # Errors
    /// The device has no memory left, or the parameters do not fit.
    pub fn network(&self, model: &LoadedModel) -> Result<Box<dyn Network>> {
        let kind = model.process.prediction_type;
        self.load(&model.architecture, &model.params, kind)
    }

    /// The network of a model that was fitted to the images and classes of another one.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub(crate) fn frozen(&self, model: &Frozen, kind: PredictionType) -> Result<Box<dyn Network>> {
        self.load(&model.architecture, &model.params, kind)
    }

    fn load(
        &self,
        architecture: &Architecture,
        params: &Params,
        kind: PredictionType,
    ) -> Result<Box<dyn Network>> {
        let params = params
            .to(DType::F32, &self.device)
            .context("the model cannot be copied to the device")?;
        Ok(architecture.load(&params, kind, self.compute_dtype)?)
    }

    /// The network of a model, called with the steps of its process.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn network_in_steps(&self, model: &LoadedModel) -> Result<Box<dyn Network>> {
        Ok(model.process.in_steps(self.network(model)?)?)
    }

    /// The way between images of this form and the states of a model.
    ///
    /// # Errors
    /// The device has no memory left, or the parameters do not fit.
    pub fn space(&self, model: &LoadedModel, form: ImageSpec) -> Result<Space> {
        let Some(autoencoder) = &model.autoencoder else {
            return Ok(Space::images(form));
        };
        let autoencoder = Arc::new(self.autoencoder(autoencoder)?);
        Ok(Space::latents(form, autoencoder))
    }

    /// An autoencoder.
    ///
    /// # Errors
    /// The device has no memory left, or the parameters do not fit.
    pub fn autoencoder(&self, autoencoder: &LoadedAutoencoder) -> Result<Autoencoder> {
        let params = autoencoder
            .params
            .to(DType::F32, &self.device)
            .context("the autoencoder cannot be copied to the device")?;
        let autoencoder = Autoencoder::load(&params, &autoencoder.record.config)?;
        Ok(autoencoder.with_compute_dtype(self.compute_dtype))
    }

    /// The network of a classifier, in f32, because its gradients guide images.
    ///
    /// # Errors
    /// The device has no memory left, or the parameters do not fit.
    pub fn encoder(&self, classifier: &LoadedEncoder) -> Result<Encoder> {
        let params = classifier
            .params
            .to(DType::F32, &self.device)
            .context("the classifier cannot be copied to the device")?;
        Ok(Encoder::load(&params, &classifier.config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_resolves_the_precision() {
        let resolve = |precision| resolve_precision(precision, &Device::Cpu);
        assert_eq!(resolve(Precision::Auto), Precision::F32);
        assert_eq!(resolve(Precision::Bf16), Precision::Bf16);
    }

    #[test]
    fn the_processor_chooses_the_precision_of_measurements_unless_the_caller_does() {
        let (stop, mut silent) = (AtomicBool::new(false), sdft_train::NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut silent);
        let fast = match bf16_is_fast() {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        for (given, expected, trained) in [
            (None, fast, Precision::F32),
            (Some(Precision::Auto), fast, Precision::F32),
            (Some(Precision::F32), Precision::F32, Precision::F32),
            (Some(Precision::Bf16), Precision::Bf16, Precision::F32),
            (Some(Precision::Tf32), Precision::Tf32, Precision::Tf32),
        ] {
            context.precision = given;
            assert_eq!(context.fine_precision(), expected, "{given:?}");
            assert_eq!(context.f32_or_tf32(), trained, "{given:?}");
        }
    }
}
