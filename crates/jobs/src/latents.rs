//! The latents of a run's images.

use crate::cache::CacheLocation;
use crate::context::Context;
use crate::error::{Error, Result, usage};
use crate::model::load_autoencoder;
use crate::training::make_absolute;
use candle_core::Tensor;
use sdft_autoencoder::{AutoencoderFile, Space};
use sdft_data::{ImageSource, LatentFile, Moments, WithLatents};
use sdft_files::plural;
use sdft_imaging::Image;
use sdft_models::{LoadedAutoencoder, save_autoencoder, state_shape};
use sdft_train::{Precision, to_tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The autoencoder of a plan: its copy in the folder of the run, or the file that the plan names. The plan gets its hash and architecture.
///
/// # Errors
/// It cannot be read, or is another one than the run began with.
pub(crate) fn reload_autoencoder(
    file: &mut AutoencoderFile,
    root: Option<&Path>,
    context: &mut Context<'_>,
) -> Result<Arc<LoadedAutoencoder>> {
    let record = file.record();
    let copy = root
        .zip(record)
        .map(|(root, record)| root.join(record.file_name()));
    let loaded = match copy.filter(|copy| copy.is_file()) {
        Some(copy) => load_autoencoder(&copy.display().to_string())?,
        None => {
            make_absolute(&mut file.path);
            load_autoencoder(&file.path)?
        }
    };
    context.notes(&loaded.notes);
    let found = &loaded.record.sha256;
    if !file.sha256.is_empty() && file.sha256 != *found {
        return Err(usage(format!(
            "autoencoder: {} has changed since the run began: its SHA-256 was {}, now it is {found}",
            loaded.path.display(),
            file.sha256
        )));
    }
    *file = AutoencoderFile::new(std::mem::take(&mut file.path), &loaded.record);
    Ok(loaded)
}

/// Copies an autoencoder into the folder of a run, unless it is there, and returns its path.
///
/// # Errors
/// The file system fails.
pub(crate) fn keep_autoencoder(root: &Path, autoencoder: &LoadedAutoencoder) -> Result<PathBuf> {
    let LoadedAutoencoder { record, params, .. } = autoencoder;
    let path = root.join(record.file_name());
    if !path.exists() {
        save_autoencoder(&path, &record.config, params, &BTreeMap::new(), None)?;
    }
    Ok(path)
}

/// Images with their latents, those of the mirrored images included if `flip`. Latents that the user's cache lacks are computed.
///
/// # Errors
/// An image cannot be read, there is no cache folder or it cannot be written, or the user stopped the program meanwhile.
pub(crate) fn with_latents(
    images: Arc<dyn ImageSource>,
    autoencoder: &LoadedAutoencoder,
    flip: bool,
    context: &mut Context<'_>,
) -> Result<Arc<dyn ImageSource>> {
    let Some(folder) = CacheLocation::User.folder("latents") else {
        return Err(usage(
            "model.autoencoder: there is no user cache folder for the latents (HOME is not set); set XDG_CACHE_HOME".to_owned(),
        ));
    };
    // Latents train as they are, so they are exact unless the caller asks for another precision.
    let runtime = context.runtime(Precision::F32);
    let record = &autoencoder.record;
    let how = format!(
        "{} {:?} {} {}",
        record.sha256,
        context.precision_or(Precision::F32),
        // Other kernels and devices round differently.
        sdft_kernels::kernel_choice(),
        if context.device.is_cpu() {
            "cpu"
        } else {
            "gpu"
        },
    );
    let name = &sdft_files::sha256_bytes(how.as_bytes())[..32];
    let spec = *images.spec();
    let shape = state_shape(Some(&record.config), &spec);
    // Latents of other sizes are records of another length.
    let [_, height, width] = shape;
    let path = folder.join(format!("{name}-{height}x{width}.latents"));
    let file = LatentFile::open(&path, shape)?;
    let space = Space::latents(spec, Arc::new(runtime.autoencoder(autoencoder)?));
    let (stop, total) = (context.stop, images.len());
    let mut is_noted = false;
    let progress = std::cell::RefCell::new(&mut *context.progress);
    let mut encode = |images: &[Image]| -> Result<Vec<Moments>> {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        if !is_noted {
            progress.borrow_mut().note(&format!(
                "computing the latents of {} with {}; they stay in {}",
                plural(total, "image", "images"),
                autoencoder.path.display(),
                path.display()
            ));
            is_noted = true;
        }
        // A GPU chooses its algorithms by the size of the batch, which depends on what is missing.
        let at_once = match runtime.device.is_cpu() {
            true => images.len().max(1),
            false => 1,
        };
        let mut all = Vec::with_capacity(images.len());
        for images in images.chunks(at_once) {
            let images = to_tensor(images, &spec)?.to_device(&runtime.device)?;
            if let Some(moments) = space.moments(&images)? {
                all.extend(parts(&moments.mean, &moments.std)?);
            }
        }
        Ok(all)
    };
    let mut done = |n: usize, total: usize| progress.borrow_mut().images(n as f64, total);
    Ok(Arc::new(WithLatents::new(
        images,
        file,
        flip,
        &mut encode,
        &mut done,
    )?))
}

/// The moments of each image.
fn parts(mean: &Tensor, std: &Tensor) -> Result<Vec<Moments>> {
    let values = |x: &Tensor, i: usize| -> candle_core::Result<Vec<f32>> {
        x.get(i)?.flatten_all()?.to_vec1::<f32>()
    };
    let each = (0..mean.dim(0)?).map(|i| {
        Ok(Moments {
            mean: values(mean, i)?,
            std: values(std, i)?,
        })
    });
    each.collect()
}
