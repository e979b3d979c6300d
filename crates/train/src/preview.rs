//! Sample grids from fixed noise, the source model's next to the target's.

use crate::error::{Result, TrainError};
use crate::learner::Learner;
use crate::plan::Plan;
use crate::progress::Progress;
use candle_core::{DType, Device, Tensor};
use sdft_autoencoder::Space;
use sdft_diffusion::{Diffusion, Prediction};
use sdft_imaging::{Image, ImageSpec, ImagingError, Rgb8};
use sdft_noise::Purpose;
use sdft_randn::{SeededNoise, randn};
use sdft_samplers::{Ddim, sample_ddim};
use sdft_schedule::Respacing;
use std::ops::Range;
use std::path::Path;

/// Images that show whether the raw weights draw something else than their average.
const PROBES: usize = 4;
/// How many samples are drawn, at most, for a grid of `n` samples of a model in training: with a few of the raw weights.
pub fn drawn_for_grid(n: usize) -> usize {
    n + PROBES.min(n)
}

/// Images are different from this mean difference of pixels on, of 255 levels.
const VISIBLE: f64 = 12.0;
/// Grey between images.
const GAP: [u8; 3] = [24, 24, 24];

/// The prediction of a model for images with these labels.
pub(crate) type Predict<'a> =
    &'a dyn Fn(&Tensor, &[f32], Option<&[u32]>) -> candle_core::Result<Prediction>;

/// Samples models from the same noise and labels again and again while they change.
pub(crate) struct Samples {
    diffusion: Diffusion,
    noise: Tensor,
    labels: Option<Vec<u32>>,
    space: Space,
    at_once: usize,
}

/// Which samples are drawn.
pub(crate) struct Choice<'a> {
    /// Their number.
    pub(crate) n: usize,
    /// The steps of the sampler.
    pub(crate) respacing: &'a Respacing,
    /// The address of their noise.
    pub(crate) number: u64,
}

impl Samples {
    /// Images of this space, with balanced classes.
    pub(crate) fn new<M>(
        plan: &Plan<M>,
        learner: &Learner,
        choice: Choice<'_>,
        space: Space,
        device: &Device,
    ) -> Result<Self> {
        let Choice {
            n,
            respacing,
            number,
        } = choice;
        let shape = [&[n], &space.shape()[..]].concat();
        Ok(Self {
            diffusion: plan
                .process
                .diffusion(learner.learns_variance(), respacing)?,
            noise: randn(plan.seed, Purpose::Preview, number, 0, &shape, device)?,
            labels: learner.balanced_labels(n),
            space,
            at_once: plan.sampled_at_once(),
        })
    }

    /// These images of a model as a screen shows them, by deterministic DDIM.
    pub(crate) fn draw(
        &self,
        predict: Predict<'_>,
        range: Range<usize>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Rgb8>> {
        let mut states = Vec::new();
        if !range.is_empty() {
            progress.samples(0.0, range.len());
        }
        for start in range.clone().step_by(self.at_once) {
            let n = self.at_once.min(range.end - start);
            let before = (start - range.start) as f64;
            let labels = self.labels.as_ref().map(|all| &all[start..start + n]);
            let model = |xt: &Tensor, t: &[f32]| predict(xt, t, labels);
            let out = sample_ddim(
                &self.diffusion,
                &model,
                &self.noise.narrow(0, start, n)?,
                &Ddim::default(),
                &mut SeededNoise::new(0, 0),
                &mut |step| {
                    let part = step.done as f64 / step.total as f64;
                    progress.samples(before + n as f64 * part, range.len());
                    Ok(())
                },
            )?;
            states.push(out);
        }
        if states.is_empty() {
            return Ok(Vec::new());
        }
        // An autoencoder is opened once for all of them.
        let images = self.space.decode(&Tensor::cat(&states, 0)?)?;
        to_screens(&images, self.space.image())
    }

    /// All images of the averaged weights.
    pub(crate) fn averaged(
        &self,
        learner: &Learner,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Rgb8>> {
        learner
            .updater()
            .with_averaged(|| self.draw(&frozen(learner), 0..self.len(), progress))
    }

    pub(crate) fn len(&self) -> usize {
        self.noise.dims()[0]
    }
}

/// The network in training, without gradients.
fn frozen(
    learner: &Learner,
) -> impl Fn(&Tensor, &[f32], Option<&[u32]>) -> candle_core::Result<Prediction> {
    |xt, t, labels| learner.predict_frozen(xt, t, labels)
}

/// Grids of samples of a run.
pub(crate) struct Preview {
    samples: Samples,
    /// The source model's grid.
    before: Option<Rgb8>,
}

impl Preview {
    /// A preview of images of this space; draws the source model's grid if there is a source.
    pub(crate) fn new<M>(
        plan: &Plan<M>,
        learner: &Learner,
        space: Space,
        device: &Device,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let choice = Choice {
            n: plan.output.samples,
            respacing: &plan.sampler()?,
            number: 0,
        };
        let samples = Samples::new(plan, learner, choice, space, device)?;
        let before = match learner.source() {
            None => None,
            Some(source) => {
                let predict = |xt: &Tensor, t: &[f32], labels: Option<&[u32]>| {
                    source.predict(xt, t, labels, None)
                };
                let images = samples.draw(&predict, 0..samples.len(), progress)?;
                Some(contact_sheet(&images, "source"))
            }
        };
        Ok(Self { samples, before })
    }

    /// Samples the averaged weights, and the raw ones if they draw something else, and writes the picture.
    pub(crate) fn write(
        &self,
        learner: &Learner,
        step: u64,
        path: &Path,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let averaged = self.samples.averaged(learner, progress)?;
        let raw = self.raw_unless_similar(learner, &averaged, progress)?;
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

    /// The images of the raw weights, unless the first few look like `others`, which are of the same noise.
    fn raw_unless_similar(
        &self,
        learner: &Learner,
        others: &[Rgb8],
        progress: &mut dyn Progress,
    ) -> Result<Option<Vec<Rgb8>>> {
        let few = PROBES.min(others.len());
        let mut images = self.samples.draw(&frozen(learner), 0..few, progress)?;
        if mean_difference(&images, &others[..few]) < VISIBLE {
            return Ok(None);
        }
        let rest = few..others.len();
        images.extend(self.samples.draw(&frozen(learner), rest, progress)?);
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

/// Images of the form `spec` from `[N, C, H, W]` in [-1, 1].
///
/// # Errors
/// An image with a value that is NaN or infinite; a shape other than that of `spec`; when the device fails.
pub fn to_images(x: &Tensor, spec: &ImageSpec) -> Result<Vec<Image>> {
    let all = to_pictures(x, spec)?;
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

/// Like [`to_images`], as a screen shows them ([`ImageSpec::screen`]).
///
/// # Errors
/// As [`to_images`].
pub fn to_screens(x: &Tensor, spec: &ImageSpec) -> Result<Vec<Rgb8>> {
    let images = to_images(x, spec)?;
    Ok(images.iter().map(|image| spec.screen(image)).collect())
}

/// Like [`to_images`], with a separate result for each image.
///
/// # Errors
/// When the device fails.
pub fn to_pictures(x: &Tensor, spec: &ImageSpec) -> Result<Vec<Result<Image, ImagingError>>> {
    let n = x.dim(0)?;
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let mut images = Vec::with_capacity(n);
    for i in 0..n {
        let values = x.get(i)?.flatten_all()?.to_vec1::<f32>()?;
        images.push(spec.from_unit_range(&values));
    }
    Ok(images)
}

/// `[N, C, H, W]` in [-1, 1] of images of the form `spec`.
///
/// # Errors
/// An image of another form; when the device fails.
pub fn to_tensor<I: Clone + Into<Image>>(images: &[I], spec: &ImageSpec) -> Result<Tensor> {
    let mut data = Vec::with_capacity(images.len() * spec.len());
    for image in images {
        let image: Image = image.clone().into();
        let found = ImageSpec::new(image.channels, image.depth(), image.width, image.height);
        if found.shape() != spec.shape() || found.depth != spec.depth {
            let text = format!("expected images of {spec}, found {found}");
            return Err(candle_core::Error::Msg(text).into());
        }
        data.extend(spec.to_unit_range(&image));
    }
    let [c, h, w] = spec.shape();
    Ok(Tensor::from_vec(
        data,
        (images.len(), c, h, w),
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

    /// The shares of the samples that were reported.
    #[derive(Default)]
    struct Counted(Vec<f64>);

    impl Progress for Counted {
        fn samples(&mut self, done: f64, total: usize) {
            self.0.push(done / total as f64);
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
        let learner = Learner::new(&plan, network, None, [3, 8, 8], 0).unwrap();
        var.set(&value(raw)).unwrap();
        let space = Space::images(ImageSpec::rgb8(8, 8));
        let progress = &mut Counted::default();
        let preview = Preview::new(&plan, &learner, space, &Device::Cpu, progress).unwrap();
        preview.write(&learner, 1, &path, progress).unwrap();
        assert!(
            progress
                .0
                .is_sorted_by(|before, next| before < next || *before == 1.0)
        );
        let ends = [progress.0.first(), progress.0.last()];
        assert_eq!(ends, [Some(&0.0), Some(&1.0)]);
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
        let spec = ImageSpec::rgb8(2, 2);
        let each = to_pictures(&x, &spec).unwrap();
        let good: Vec<bool> = each.iter().map(std::result::Result::is_ok).collect();
        assert_eq!(good, [true, false, true]);
        assert_eq!(
            to_images(&x, &spec).unwrap_err().to_string(),
            "image 2 of 3: 1 of 12 values are NaN or infinite"
        );
    }
}
