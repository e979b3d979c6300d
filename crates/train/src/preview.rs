//! Sample grids from fixed noise, the source model's beside the target's.

use crate::error::Result;
use crate::plan::Plan;
use candle_core::{DType, Device, Tensor};
use sdft_adm::Unet;
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_imaging::Rgb8;
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_samplers::{Ddim, SeededNoise, sample_ddim, seeded_normal};
use std::path::Path;

/// Images sampled at once.
const CHUNK: usize = 16;
/// Small images are enlarged to about this many pixels.
const SHOWN: usize = 64;
/// Grey between images.
const GAP: [u8; 3] = [24, 24, 24];

/// Draws the same noise again and again as a model changes.
pub(crate) struct Preview {
    diffusion: Diffusion,
    noise: Tensor,
    /// The source model's grid.
    before: Option<Rgb8>,
}

impl Preview {
    pub(crate) fn new(plan: &Plan, source: Option<&Unet>, device: &Device) -> Result<Self> {
        let respacing = plan.sampler().map_err(candle_core::Error::Msg)?;
        let size = plan.model.image_size;
        let shape = [plan.output.samples, plan.model.in_channels, size, size];
        let mut preview = Self {
            diffusion: plan
                .process
                .diffusion(plan.model.learns_variance(), &respacing)?,
            noise: seeded_normal(plan.seed, Purpose::Preview, 0, 0, &shape, device)?,
            before: None,
        };
        if let Some(source) = source {
            preview.before = Some(preview.grid(source, "source")?);
        }
        Ok(preview)
    }

    fn grid(&self, model: &dyn Denoiser, title: &str) -> Result<Rgb8> {
        let images = sample_images(&self.diffusion, model, &self.noise)?;
        Ok(contact_sheet(&images, title))
    }

    /// Samples the weights and writes the picture.
    pub(crate) fn write(
        &self,
        plan: &Plan,
        weights: &Params,
        step: u64,
        path: &Path,
    ) -> Result<()> {
        let model = Unet::load(weights, &plan.model)?.with_maps(plan.steps.precision.maps());
        let after = self.grid(&model, &format!("step {step}"))?;
        let picture = match &self.before {
            Some(before) => sdft_imaging::side_by_side(&[before.clone(), after], 8, GAP),
            None => after,
        };
        sdft_imaging::write_png(path, &picture)?;
        Ok(())
    }
}

/// Deterministic DDIM from `noise` `[N, 3, H, W]`, a few at a time.
pub(crate) fn sample_images(
    diffusion: &Diffusion,
    model: &dyn Denoiser,
    noise: &Tensor,
) -> Result<Vec<Rgb8>> {
    let n = noise.dim(0)?;
    let mut images = Vec::with_capacity(n);
    for start in (0..n).step_by(CHUNK) {
        let x = noise.narrow(0, start, CHUNK.min(n - start))?;
        let out = sample_ddim(
            diffusion,
            model,
            &x,
            &Ddim::default(),
            &mut SeededNoise::new(0, 0),
            &mut |_| Ok(()),
        )?;
        images.extend(to_images(&out)?);
    }
    Ok(images)
}

/// Pictures of `[N, 3, H, W]` in [-1, 1].
///
/// # Errors
/// A shape other than that; when the device fails.
pub fn to_images(x: &Tensor) -> Result<Vec<Rgb8>> {
    let (n, _, h, w) = x.dims4()?;
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let mut images = Vec::with_capacity(n);
    for i in 0..n {
        let pixels = x.get(i)?.flatten_all()?.to_vec1::<f32>()?;
        images.push(sdft_imaging::from_unit_range_round(&pixels, w, h)?);
    }
    Ok(images)
}

/// `[N, 3, H, W]` in [-1, 1] of pictures of one size.
///
/// # Errors
/// When the device fails.
pub fn to_tensor(images: &[Rgb8]) -> Result<Tensor> {
    let (h, w) = images.first().map_or((0, 0), |i| (i.height, i.width));
    let data: Vec<f32> = images
        .iter()
        .flat_map(sdft_imaging::to_unit_range)
        .collect();
    Ok(Tensor::from_vec(
        data,
        (images.len(), 3, h, w),
        &Device::Cpu,
    )?)
}

/// Images in a near-square grid under a title, small ones enlarged.
pub fn contact_sheet(images: &[Rgb8], title: &str) -> Rgb8 {
    let columns = (1..=images.len())
        .find(|c| c * c >= images.len())
        .unwrap_or(1);
    sheet(images, columns, title)
}

/// Images row by row under a title, small ones enlarged.
pub fn sheet(images: &[Rgb8], columns: usize, title: &str) -> Rgb8 {
    let factor = images
        .first()
        .map_or(1, |image| (SHOWN / image.width.max(1)).max(1));
    let large: Vec<Rgb8> = images
        .iter()
        .map(|image| sdft_imaging::enlarge(image, factor))
        .collect();
    sdft_imaging::titled(&sdft_imaging::grid(&large, columns, 2, GAP), title)
}
