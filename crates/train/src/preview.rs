//! Sample grids from fixed noise, the source model's beside the target's.

use crate::error::{Result, TrainError};
use crate::plan::Plan;
use candle_core::{DType, Device, Tensor};
use sdft_adm::Unet;
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_imaging::{ImagingError, Rgb8};
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_randn::{SeededNoise, randn};
use sdft_samplers::{Ddim, sample_ddim};
use std::path::Path;

/// Images that tell whether the raw weights draw something else than their average.
const PROBES: usize = 4;
/// From this mean difference of pixels on, of 255 levels, it is something else.
const VISIBLE: f64 = 12.0;
/// Grey between images.
const GAP: [u8; 3] = [24, 24, 24];

/// Draws the same noise again and again as a model changes.
pub(crate) struct Preview {
    diffusion: Diffusion,
    noise: Tensor,
    at_once: usize,
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
            noise: randn(plan.seed, Purpose::Preview, 0, 0, &shape, device)?,
            at_once: plan.sampled_at_once(),
            before: None,
        };
        if let Some(source) = source {
            preview.before = Some(contact_sheet(&preview.images(source)?, "source"));
        }
        Ok(preview)
    }

    fn images(&self, model: &dyn Denoiser) -> Result<Vec<Rgb8>> {
        sample_images(&self.diffusion, model, &self.noise, self.at_once)
    }

    /// Samples the averaged weights, and the raw ones where they draw something else, and writes the picture.
    pub(crate) fn write(
        &self,
        plan: &Plan,
        averaged: &Params,
        raw: &Params,
        step: u64,
        path: &Path,
    ) -> Result<()> {
        let net = |weights: &Params| -> Result<Unet> {
            Ok(Unet::load(weights, &plan.model)?
                .with_prediction_type(plan.process.prediction_type)
                .with_compute_dtype(plan.steps.precision.compute_dtype()))
        };
        let averaged = self.images(&net(averaged)?)?;
        let raw = self.unlike(&net(raw)?, &averaged)?;
        let mut sheets: Vec<Rgb8> = self.before.iter().cloned().collect();
        match raw {
            None => sheets.push(contact_sheet(&averaged, &format!("step {step}"))),
            Some(raw) => {
                sheets.push(contact_sheet(&averaged, &format!("step {step}, average")));
                sheets.push(contact_sheet(&raw, &format!("step {step}, raw weights")));
            }
        }
        sdft_imaging::write_png(path, &sdft_imaging::side_by_side(&sheets, 8, GAP))?;
        Ok(())
    }

    /// What a model draws, unless the first few images look like `others`, which are of the same noise.
    fn unlike(&self, model: &dyn Denoiser, others: &[Rgb8]) -> Result<Option<Vec<Rgb8>>> {
        let few = PROBES.min(others.len());
        let draw = |from: usize, to: usize| {
            let noise = self.noise.narrow(0, from, to - from)?;
            sample_images(&self.diffusion, model, &noise, self.at_once)
        };
        let mut images = draw(0, few)?;
        if mean_difference(&images, &others[..few]) < VISIBLE {
            return Ok(None);
        }
        images.extend(draw(few, others.len())?);
        Ok(Some(images))
    }
}

/// Mean difference of the pixels of two lists of images of one size, 0 to 255; 0 of none.
fn mean_difference(a: &[Rgb8], b: &[Rgb8]) -> f64 {
    let pixels = |images: &'_ [Rgb8]| -> Vec<u8> {
        let all = images.iter().flat_map(|image| &image.pixels);
        all.copied().collect()
    };
    let (a, b) = (pixels(a), pixels(b));
    let sum: u64 = a
        .iter()
        .zip(&b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len().max(1) as f64
}

/// Deterministic DDIM from `noise` `[N, 3, H, W]`, `at_once` at a time.
pub(crate) fn sample_images(
    diffusion: &Diffusion,
    model: &dyn Denoiser,
    noise: &Tensor,
    at_once: usize,
) -> Result<Vec<Rgb8>> {
    let n = noise.dim(0)?;
    let mut images = Vec::with_capacity(n);
    for start in (0..n).step_by(at_once) {
        let x = noise.narrow(0, start, at_once.min(n - start))?;
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
/// An image with a value that is NaN or infinite; a shape other than that; when the device fails.
pub fn to_images(x: &Tensor) -> Result<Vec<Rgb8>> {
    let all = to_pictures(x)?;
    let n = all.len();
    let named = all.into_iter().enumerate().map(|(i, image)| {
        image.map_err(|source| TrainError::Image {
            number: i + 1,
            n,
            source,
        })
    });
    named.collect()
}

/// Like [`to_images`], with an error of its own for each image that cannot be shown.
///
/// # Errors
/// When the device fails.
pub fn to_pictures(x: &Tensor) -> Result<Vec<Result<Rgb8, ImagingError>>> {
    let (n, _, h, w) = x.dims4()?;
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let mut images = Vec::with_capacity(n);
    for i in 0..n {
        let pixels = x.get(i)?.flatten_all()?.to_vec1::<f32>()?;
        images.push(sdft_imaging::from_unit_range_round(&pixels, w, h));
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
    sdft_imaging::contact_sheet::<&str>(images, columns, &[], title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_adm::AdmConfig;

    fn plan() -> Plan {
        let model = AdmConfig {
            image_size: 8,
            out_channels: 3,
            model_channels: 8,
            channel_mult: vec![1.0],
            attention_resolutions: Vec::new(),
            num_head_channels: 8,
            norm_groups: 4,
            ..AdmConfig::default()
        };
        let mut plan = Plan {
            model,
            ..Plan::default()
        };
        plan.output.samples = 5;
        plan.output.sampler = "ddim4".into();
        plan
    }

    /// The width of a picture of `n` grids of five 8x8 images, without titles that widen it.
    fn written(plan: &Plan, averaged: &Params, raw: &Params) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.png");
        let preview = Preview::new(plan, None, &Device::Cpu).unwrap();
        preview.write(plan, averaged, raw, 1, &path).unwrap();
        sdft_imaging::decode_file(&path, &sdft_imaging::Limits::default())
            .unwrap()
            .width
    }

    #[test]
    fn raw_weights_are_shown_next_to_their_average_while_they_draw_something_else() {
        let plan = plan();
        let specs = Unet::specs(&plan.model).unwrap();
        let start = Params::init(&specs, 0, &Device::Cpu).unwrap();
        // A fresh network puts out zeros; this one moves every image.
        let moved = start.iter().map(|(name, tensor)| {
            let last = name == "out.2.bias";
            let tensor = if last {
                (tensor + 0.5).unwrap()
            } else {
                tensor.clone()
            };
            (name.to_owned(), tensor)
        });
        let moved = Params::new(moved.collect());
        let one = written(&plan, &start, &start);
        assert!(written(&plan, &start, &moved) > one + one / 2);
        assert_eq!(written(&plan, &moved, &moved), one);
    }

    #[test]
    fn differences_are_means_of_levels() {
        let grey = |level| vec![Rgb8::filled(2, 2, [level; 3])];
        assert_eq!(mean_difference(&grey(10), &grey(13)), 3.0);
        assert_eq!(mean_difference(&[], &[]), 0.0);
    }

    #[test]
    fn an_image_that_is_not_finite_is_named_and_the_others_are_kept() {
        let mut values = vec![0.5f32; 3 * 12];
        values[12 + 7] = f32::NAN;
        let x = Tensor::from_vec(values, (3, 3, 2, 2), &Device::Cpu).unwrap();
        let each = to_pictures(&x).unwrap();
        let good: Vec<bool> = each.iter().map(std::result::Result::is_ok).collect();
        assert_eq!(good, [true, false, true]);
        assert_eq!(
            to_images(&x).unwrap_err().to_string(),
            "image 2 of 3: 1 of 12 values are NaN or infinite"
        );
    }
}
