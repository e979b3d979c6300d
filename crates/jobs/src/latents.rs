//! The latents of a run's images.

use crate::cache::CacheLocation;
use crate::context::Context;
use crate::error::{Error, Result, usage};
use candle_core::Tensor;
use sdft_autoencoder::Space;
use sdft_data::{ImageSource, LatentFile, Moments, WithLatents};
use sdft_imaging::Image;
use sdft_models::{LoadedAutoencoder, state_shape};
use sdft_train::{Precision, to_tensor};
use std::sync::Arc;

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
                "computing the latents of {total} images with {}; they stay in {}",
                autoencoder.path.display(),
                path.display()
            ));
            is_noted = true;
        }
        let images = to_tensor(images, &spec)?.to_device(&runtime.device)?;
        match space.moments(&images)? {
            Some(moments) => parts(&moments.mean, &moments.std),
            None => Ok(Vec::new()),
        }
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
