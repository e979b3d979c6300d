//! The training of an autoencoder: its loss, its pictures and its finished file.

use crate::perceptual::Perceptual;
use crate::plan::AutoencoderPlan;
use crate::quality::{HeldOut, Reconstruction, latent_std};
use candle_core::{Device, Tensor};
use sdft_autoencoder::{Autoencoder, AutoencoderConfig};
use sdft_autograd::backward;
use sdft_data::{Batch, Batches, ImageSource, Joined, held_out};
use sdft_files::short_name;
use sdft_imaging::ImageSpec;
use sdft_models::autoencoder_metadata;
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_randn::randn;
use sdft_train::{
    Checkpoint, DriveSetup, Ending, Finished, Log, Position, Progress, Result, RunFolder, RunPlan,
    StepOutcome, Task, TrainError, TrainingState, Updater, audit_gradients, drive, due, provenance,
    sheet, to_screens,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Pairs of an image and its reconstruction in a row of a picture.
const PAIRS: usize = 4;

/// What a run that trains an autoencoder needs.
pub struct AutoencoderSetup {
    /// The plan, resolved.
    pub plan: AutoencoderPlan,
    /// The folder that the run writes to.
    pub folder: RunFolder,
    /// The images.
    pub source: Arc<dyn ImageSource>,
    /// The network of the perceptual term, on the device.
    pub perceptual: Perceptual,
    /// The device of the network and of the images.
    pub device: Device,
}

/// Trains the autoencoder from the newest undamaged checkpoint in the folder, or from random weights, until the steps are done or `stop` is
/// set. In the end `reconstruction.json` has the [`Reconstruction`], and the file of the model the scaling factor: one over the standard
/// deviation of the latents of the training images.
///
/// # Errors
/// As [`sdft_train::run`].
pub fn train_autoencoder(
    setup: AutoencoderSetup,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let AutoencoderSetup {
        plan,
        folder,
        source,
        perceptual,
        device,
    } = setup;
    plan.validate()?;
    let share = if source.len() >= 2 {
        plan.eval.held_out
    } else {
        0.0
    };
    let (kept, held) = held_out(source.len(), share);
    let shown = match held.is_empty() {
        true => {
            progress.note("no images are held out, so training images are measured");
            HeldOut::new(&*source, &kept, false, &device)?
        }
        false => HeldOut::new(&*source, &held, true, &device)?,
    };
    let trained = Arc::new(Joined::new(vec![(source.clone(), kept.clone())])?);
    let augment = plan.data.augmentation();
    let batches = Batches::new(trained, plan.seed, plan.steps.batch, augment)?;
    let config = plan.config();
    let start = Params::init(&Autoencoder::specs(&config)?, plan.seed, &device)?;
    let (params, vars) = start.trainable()?;
    drop(start);
    let dtype = plan.steps.precision.compute_dtype();
    let autoencoder = Autoencoder::load(&params, &config)?.with_compute_dtype(dtype);
    let output = plan.pace();
    let mut task = Reconstructing {
        objective: Objective {
            plan: &plan,
            device: &device,
            config,
            autoencoder: match plan.steps.recompute {
                true => autoencoder.recomputed(),
                false => autoencoder,
            },
            perceptual,
        },
        updater: Updater::new(&plan.optim, plan.steps.precision, plan.steps.steps, vars)?,
        plan: &plan,
        folder: &folder,
        source,
        kept,
        shown,
    };
    let setup = DriveSetup {
        folder: &folder,
        pace: &plan.steps,
        output: &output,
        batches,
        device: &device,
        stop,
    };
    drive(&mut task, setup, progress)
}

struct Reconstructing<'a> {
    plan: &'a AutoencoderPlan,
    folder: &'a RunFolder,
    objective: Objective<'a>,
    updater: Updater,
    source: Arc<dyn ImageSource>,
    /// The images that are trained on.
    kept: Vec<usize>,
    shown: HeldOut,
}

struct Objective<'a> {
    plan: &'a AutoencoderPlan,
    device: &'a Device,
    config: AutoencoderConfig,
    autoencoder: Autoencoder,
    perceptual: Perceptual,
}

/// The terms of the loss, each a mean over the batch.
struct Terms {
    total: Tensor,
    l1: Tensor,
    perceptual: Option<Tensor>,
    /// Per value of an image.
    kl: Tensor,
}

impl Objective<'_> {
    /// The loss of images whose latents are sampled with `noise`.
    ///
    /// Source: latent diffusion `LPIPSWithDiscriminator` without a discriminator and with a log-variance of 0, divided by the number of
    /// values of an image.
    fn loss(&self, x: &Tensor, noise: &Tensor) -> Result<Terms> {
        let moments = self.autoencoder.encode(x)?;
        let y = self.autoencoder.decode(&moments.sample(noise)?)?;
        let (_, c, h, w) = x.dims4()?;
        let l1 = (x - &y)?.abs()?.mean_all()?;
        let kl = (moments.kl()?.mean_all()? / (c * h * w) as f64)?;
        let mut total = (&l1 + (&kl * self.plan.loss.kl_weight)?)?;
        let weight = self.plan.loss.perceptual_weight;
        let perceptual = match weight > 0.0 {
            true => self.perceptual.distance(&y, x)?,
            false => None,
        };
        let perceptual = perceptual.map(|p| p.mean_all()).transpose()?;
        if let Some(perceptual) = &perceptual {
            total = (total + (perceptual * weight)?)?;
        }
        Ok(Terms {
            total,
            l1,
            perceptual,
            kl,
        })
    }

    /// The noise of the latents of `n` images, the first of which is number `first` of the batch of `step`.
    fn noise(
        &self,
        purpose: Purpose,
        step: u64,
        first: usize,
        n: usize,
        x: &Tensor,
    ) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let factor = self.config.factor();
        let shape = [n, self.config.latent_channels(), h / factor, w / factor];
        Ok(randn(
            self.plan.seed,
            purpose,
            step,
            first as u64,
            &shape,
            self.device,
        )?)
    }
}

impl Reconstructing<'_> {
    /// The autoencoder with the averaged weights: plain tensors, so nothing is recorded.
    fn averaged(&self) -> Result<Autoencoder> {
        let averaged = Params::new(self.updater.averaged()?);
        let dtype = self.plan.steps.precision.compute_dtype();
        Ok(Autoencoder::load(&averaged, &self.objective.config)?.with_compute_dtype(dtype))
    }

    fn measure(&self) -> Result<Reconstruction> {
        self.shown.measure(&self.averaged()?)
    }

    /// Writes the picture of images next to their reconstructions.
    fn draw(&self, step: u64) -> Result<PathBuf> {
        let path = self.folder.samples().join(format!("step-{step:06}.png"));
        let n = self.plan.output.samples;
        if n == 0 {
            return Ok(path);
        }
        let pairs = self.shown.pairs(&self.averaged()?, n)?;
        let spec: ImageSpec = *self.source.spec();
        let [images, reconstructed] = pairs.map(|x| to_screens(&x, &spec));
        let both = images?.into_iter().zip(reconstructed?);
        let both: Vec<_> = both.flat_map(|(image, again)| [image, again]).collect();
        let title = format!("step {step}: images, reconstructions");
        sdft_imaging::write_png(&path, &sheet(&both, 2 * PAIRS, &title))?;
        Ok(path)
    }

    fn file_metadata(
        &self,
        config: &AutoencoderConfig,
        position: &Position,
    ) -> BTreeMap<String, String> {
        let plan = self.plan;
        let facts = provenance(&[
            ("run", plan.name.clone()),
            ("data", short_name(&plan.data.path)),
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ]);
        autoencoder_metadata(config, &facts)
    }
}

/// The key of an attention adds a constant to all scores of a query, which the softmax removes.
fn has_zero_gradient(name: &str) -> bool {
    name.ends_with(".to_k.bias")
}

impl Task for Reconstructing<'_> {
    fn audit(&mut self, images: &Tensor) -> Result<()> {
        let (seed, n) = (self.plan.seed, images.dim(0)?);
        let objective = &self.objective;
        let noise = objective.noise(Purpose::Audit, 2, 0, n, images)?;
        audit_gradients(self.updater.vars(), seed, &has_zero_gradient, &|factor| {
            let loss = objective.loss(images, &noise)?.total;
            Ok(backward(&(loss * factor)?)?)
        })
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.updater.load(checkpoint)
    }

    fn step(&mut self, step: u64, x0: &Tensor, _: &Batch) -> Result<StepOutcome> {
        let objective = &self.objective;
        let names = ["l1", "perceptual", "kl"];
        let steps = &self.plan.steps;
        self.updater.step_in_parts(step, steps, names, |part| {
            let x = x0.narrow(0, part.start, part.len())?;
            let noise = objective.noise(Purpose::Noise, step, part.start, part.len(), &x)?;
            let terms = objective.loss(&x, &noise)?;
            let each = [Some(terms.l1), terms.perceptual, Some(terms.kl)];
            Ok((terms.total, each))
        })
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.updater.learning_rate(step)
    }

    fn evaluate(
        &mut self,
        position: &mut Position,
        log: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let done = position.step;
        if !due(done, self.plan.eval.every) && done != self.plan.steps.steps {
            return Ok(());
        }
        let found = self.measure()?;
        log.write_evaluation(
            done,
            &[
                ("eval.psnr".to_owned(), found.psnr),
                ("eval.l1".to_owned(), found.l1),
            ],
        )?;
        progress.note(&format!(
            "step {done}: PSNR {:.2} dB, mean absolute error {:.4} of {} {} images",
            found.psnr,
            found.l1,
            found.images,
            if found.held_out {
                "held-out"
            } else {
                "training"
            },
        ));
        Ok(())
    }

    fn draw_samples(&mut self, step: u64, progress: &mut dyn Progress) -> Result<Option<PathBuf>> {
        let path = self.draw(step)?;
        progress.note(&format!("reconstructions: {}", path.display()));
        Ok(Some(path))
    }

    fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        self.updater.state(position)
    }

    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>> {
        Ok(self.file_metadata(&self.objective.config, position))
    }

    fn finish(&mut self, position: &Position, _: &mut dyn Progress) -> Result<Finished> {
        let model = self.folder.final_model();
        let shown = self.draw(position.step)?;
        let device = self.objective.device;
        let std = latent_std(&self.averaged()?, &*self.source, &self.kept, device)?;
        let factor = 1.0 / std;
        if !factor.is_finite() {
            return Err(TrainError::Evaluation(format!(
                "the latents of the training images have the standard deviation {std}, so they have no scaling factor"
            )));
        }
        let config = self.objective.config.clone().with_scaling_factor(factor);
        #[derive(serde::Serialize)]
        struct Report {
            #[serde(flatten)]
            reconstruction: Reconstruction,
            latent_std: f64,
            scaling_factor: f64,
        }
        let report = Report {
            reconstruction: self.measure()?,
            latent_std: std,
            scaling_factor: factor,
        };
        self.folder.write_json("reconstruction.json", &report)?;
        let weights = self.updater.averaged()?;
        let metadata = self.file_metadata(&config, position);
        self.folder.put_weights(&model, &weights, &metadata)?;
        Ok(Finished { model, shown })
    }
}
