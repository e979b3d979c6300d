//! Sample grids from fixed noise, the source model's next to the target's.

use crate::error::{Result, TrainError};
use crate::learner::Learner;
use crate::plan::Plan;
use candle_core::{DType, Device, Tensor};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_imaging::{ImagingError, Rgb8};
use sdft_noise::Purpose;
use sdft_randn::{SeededNoise, randn};
use sdft_samplers::{Ddim, sample_ddim};
use std::path::Path;

/// Images that show whether the raw weights draw something else than their average.
const PROBES: usize = 4;
/// Images are different from this mean difference of pixels on, of 255 levels.
const VISIBLE: f64 = 12.0;
/// Grey between images.
const GAP: [u8; 3] = [24, 24, 24];

/// Samples a model from the same noise again and again while it changes.
pub(crate) struct Preview {
    diffusion: Diffusion,
    noise: Tensor,
    at_once: usize,
    /// The source model's grid.
    before: Option<Rgb8>,
}

impl Preview {
    /// A preview of images `[C, H, W]`; draws the source model's grid if there is a source.
    pub(crate) fn new<M>(
        plan: &Plan<M>,
        learner: &Learner,
        image: [usize; 3],
        device: &Device,
    ) -> Result<Self> {
        let respacing = plan.sampler()?;
        let shape = [&[plan.output.samples], &image[..]].concat();
        let mut preview = Self {
            diffusion: plan
                .process
                .diffusion(learner.learns_variance(), &respacing)?,
            noise: randn(plan.seed, Purpose::Preview, 0, 0, &shape, device)?,
            at_once: plan.sampled_at_once(),
            before: None,
        };
        if let Some(source) = learner.source() {
            preview.before = Some(contact_sheet(&preview.images(source)?, "source"));
        }
        Ok(preview)
    }

    fn images(&self, model: &dyn Denoiser) -> Result<Vec<Rgb8>> {
        sample_images(&self.diffusion, model, &self.noise, self.at_once)
    }

    /// Samples the averaged weights, and the raw ones if they draw something else, and writes the picture.
    pub(crate) fn write(&self, learner: &Learner, step: u64, path: &Path) -> Result<()> {
        let network = learner.frozen();
        let averaged = learner.updater().with_averaged(|| self.images(&network))?;
        let raw = self.images_unless_similar(&network, &averaged)?;
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

    /// The images of a model, unless the first few look like `others`, which are of the same noise.
    fn images_unless_similar(
        &self,
        model: &dyn Denoiser,
        others: &[Rgb8],
    ) -> Result<Option<Vec<Rgb8>>> {
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

/// Like [`to_images`], with a separate result for each image.
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

/// Images in a nearly square grid under a title. Small ones are enlarged.
pub fn contact_sheet(images: &[Rgb8], title: &str) -> Rgb8 {
    let columns = (1..=images.len())
        .find(|c| c * c >= images.len())
        .unwrap_or(1);
    sheet(images, columns, title)
}

/// Images row by row under a title. Small ones are enlarged.
pub fn sheet(images: &[Rgb8], columns: usize, title: &str) -> Rgb8 {
    sdft_imaging::contact_sheet::<&str>(images, columns, &[], title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use sdft_diffusion::{Condition, Prediction, PredictionType, Trainable};
    use std::collections::BTreeMap;

    /// Predicts its only variable, whatever the input.
    struct Constant(Var);

    impl Trainable for Constant {
        fn vars(&self) -> Vec<(String, Var)> {
            vec![("eps".into(), self.0.clone())]
        }
        fn predict(
            &self,
            xt: &Tensor,
            _: &[f32],
            _: &Condition<'_>,
        ) -> candle_core::Result<Prediction> {
            let eps = self.0.broadcast_as(xt.shape())?;
            Ok(Prediction::new(eps, PredictionType::Epsilon))
        }
        fn metadata(&self) -> BTreeMap<String, String> {
            BTreeMap::new()
        }
    }

    /// The width of a picture of grids of five 8x8 images, for a network whose variable moved from `average` to `raw`.
    fn written(average: f32, raw: f32) -> usize {
        let mut plan = <Plan>::default();
        plan.output.samples = 5;
        plan.output.sampler = "ddim4".into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.png");
        let value = |value: f32| Tensor::full(value, (1, 3, 1, 1), &Device::Cpu).unwrap();
        let var = Var::from_tensor(&value(average)).unwrap();
        let network = Box::new(Constant(var.clone()));
        let learner = Learner::new(&plan, network, None, [3, 8, 8]).unwrap();
        var.set(&value(raw)).unwrap();
        let preview = Preview::new(&plan, &learner, [3, 8, 8], &Device::Cpu).unwrap();
        preview.write(&learner, 1, &path).unwrap();
        sdft_imaging::decode_file(&path, &sdft_imaging::Limits::default())
            .unwrap()
            .width
    }

    #[test]
    fn raw_weights_are_shown_next_to_their_average_while_they_draw_something_else() {
        let one = written(0.0, 0.0);
        assert!(written(0.0, 0.5) > one + one / 2);
        assert_eq!(written(0.5, 0.5), one);
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
