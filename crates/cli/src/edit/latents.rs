//! Where inversions are kept.

use super::args::CacheArgs;
use crate::console;
use crate::evaluate::user_cache_folder;
use sdft_asyrp::InversionCache;
use sdft_models::Process;
use std::collections::BTreeMap;
use std::path::PathBuf;

const INVERSIONS: &str = "inversions";

/// What decides an inversion, besides the image.
pub(super) struct Inversion<'a> {
    pub(super) network_sha256: &'a str,
    pub(super) process: &'a Process,
    pub(super) t_0: usize,
    pub(super) steps: usize,
}

/// The cache that the arguments ask for; one that cannot be used is done without, and that is said.
pub(super) fn open(args: &CacheArgs, inversion: &Inversion<'_>) -> InversionCache {
    kept(args, inversion, INVERSIONS, None)
}

/// Likewise for how far inversions are from their images, as `eye` sees it.
pub(super) fn open_distances(
    args: &CacheArgs,
    inversion: &Inversion<'_>,
    eye: &str,
) -> InversionCache {
    kept(args, inversion, "distances", Some(eye))
}

/// The folder that inversions are kept under, if they are.
pub(super) fn folder(args: &CacheArgs) -> Option<PathBuf> {
    parent(args, INVERSIONS)
}

fn parent(args: &CacheArgs, what: &str) -> Option<PathBuf> {
    if args.no_cache {
        return None;
    }
    // Next to the features of images, which are under the same folder of the user's.
    let usual = || Some(user_cache_folder()?.with_file_name(what));
    args.cache.clone().or_else(usual)
}

fn kept(
    args: &CacheArgs,
    inversion: &Inversion<'_>,
    what: &str,
    eye: Option<&str>,
) -> InversionCache {
    let Some(parent) = parent(args, what) else {
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
            // Other kernels round otherwise.
            ("kernels", sdft_nn::kernel_choice()),
            ("program", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if !process.prediction_type.is_epsilon() {
        let kind = process.prediction_type.to_string();
        settings.insert("prediction_type".to_owned(), kind);
    }
    if let Some(eye) = eye {
        settings.insert("seen_by".to_owned(), eye.to_owned());
    }
    InversionCache::open(&parent, &settings).unwrap_or_else(|error| {
        console::note(&format!("{what} are not kept: {error}"));
        InversionCache::in_memory()
    })
}
