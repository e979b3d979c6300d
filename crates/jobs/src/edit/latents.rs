//! The cache of inversions.

use crate::cache::CacheLocation;
use crate::context::Context;
use candle_core::DType;
use sdft_asyrp::InversionCache;
use sdft_diffusion::Process;
use sdft_train::Precision;
use std::collections::BTreeMap;
use std::path::PathBuf;

const INVERSIONS: &str = "inversions";

/// The settings that decide an inversion, apart from the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inversion<'a> {
    /// SHA-256 of the network.
    pub(crate) network_sha256: &'a str,
    /// SHA-256 of the autoencoder of the model's latents: one with the same encoder shows them as other images.
    pub(crate) autoencoder_sha256: Option<&'a str>,
    /// The label of the class that the network is asked for, if it has classes and this is not the null class.
    pub(crate) class: Option<u32>,
    /// The model's process.
    pub(crate) process: &'a Process,
    /// The last step.
    pub(crate) t_0: usize,
    /// Number of steps.
    pub(crate) steps: usize,
    /// The precision of the network's maps.
    pub(crate) precision: Precision,
}

/// Opens the cache of these inversions. A cache that cannot be used is replaced by memory, with a note.
pub(crate) fn open_inversions(
    location: &CacheLocation,
    inversion: &Inversion<'_>,
    context: &mut Context<'_>,
) -> InversionCache {
    kept(location, inversion, INVERSIONS, None, context)
}

/// As [`open_inversions`], for the distances of inversions from their images by the network `eye`.
pub(crate) fn open_distances(
    location: &CacheLocation,
    inversion: &Inversion<'_>,
    eye: &str,
    context: &mut Context<'_>,
) -> InversionCache {
    kept(location, inversion, "distances", Some(eye), context)
}

/// The folder of all inversions, if they are kept.
pub(crate) fn inversions_folder(location: &CacheLocation) -> Option<PathBuf> {
    location.folder(INVERSIONS)
}

/// The kernels that compute in this context, and their precision. Those of a GPU do not depend on those of its host.
fn kernels(precision: Precision, context: &Context<'_>) -> String {
    let kernels = match context.device.is_cuda() {
        true => "cuda".to_owned(),
        false => sdft_kernels::kernel_choice(),
    };
    // The CPU does not round to TF32.
    match (context.device.is_cuda(), precision.compute_dtype()) {
        (false, DType::F32) => kernels,
        _ => format!("{kernels} {}", precision.name()),
    }
}

fn kept(
    location: &CacheLocation,
    inversion: &Inversion<'_>,
    what: &str,
    eye: Option<&str>,
    context: &mut Context<'_>,
) -> InversionCache {
    let Some(parent) = location.folder(what) else {
        return InversionCache::in_memory();
    };
    let process = inversion.process;
    let mut settings = BTreeMap::from(
        [
            ("what", what.to_owned()),
            ("network_sha256", inversion.network_sha256.to_owned()),
            ("noise_schedule", process.noise_schedule.clone()),
            ("diffusion_steps", process.diffusion_steps.to_string()),
            ("t_0", inversion.t_0.to_string()),
            ("steps", inversion.steps.to_string()),
            // Other kernels round differently.
            ("kernels", kernels(inversion.precision, context)),
            ("program", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if !process.prediction_type.is_epsilon() {
        let kind = process.prediction_type.to_string();
        settings.insert("prediction_type".to_owned(), kind);
    }
    if let Some(autoencoder) = inversion.autoencoder_sha256 {
        settings.insert("autoencoder_sha256".to_owned(), autoencoder.to_owned());
    }
    if let Some(class) = inversion.class {
        settings.insert("class".to_owned(), class.to_string());
    }
    let usual = Process::default();
    let like_usual = Process {
        noise_schedule: usual.noise_schedule.clone(),
        diffusion_steps: usual.diffusion_steps,
        prediction_type: usual.prediction_type,
        // Inversions do not depend on these.
        sigma_small: usual.sigma_small,
        sampling: usual.sampling,
        ..process.clone()
    };
    if like_usual != usual
        && let Ok(text) = serde_json::to_string(&like_usual)
    {
        settings.insert("process".to_owned(), text);
    }
    if let Some(eye) = eye {
        settings.insert("seen_by".to_owned(), eye.to_owned());
    }
    InversionCache::open(&parent, &settings).unwrap_or_else(|error| {
        context
            .progress
            .note(&format!("{what} are not kept: {error}"));
        InversionCache::in_memory()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_train::NoopProgress;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn distances_seen_through_another_autoencoder_or_in_bf16_are_others() {
        let folder = tempfile::tempdir().unwrap();
        let location = CacheLocation::Folder(folder.path().to_owned());
        let (process, stop) = (Process::default(), AtomicBool::new(false));
        let kept_in = |precision, autoencoder_sha256| {
            let inversion = Inversion {
                network_sha256: "ab",
                autoencoder_sha256,
                class: None,
                process: &process,
                t_0: 500,
                steps: 40,
                precision,
            };
            let mut progress = NoopProgress;
            let mut context = Context::new(Device::Cpu, &stop, &mut progress);
            let cache = open_distances(&location, &inversion, "lpips", &mut context);
            cache.folder().unwrap().to_owned()
        };
        let kept = |autoencoder| kept_in(Precision::F32, autoencoder);
        assert_eq!(kept(Some("a")), kept(Some("a")));
        assert_ne!(kept(Some("a")), kept(Some("b")));
        assert_ne!(kept(Some("a")), kept(None));
        assert_ne!(kept(None), kept_in(Precision::Bf16, None));
        // The CPU computes TF32 in f32.
        assert_eq!(kept(None), kept_in(Precision::Tf32, None));
    }
}
