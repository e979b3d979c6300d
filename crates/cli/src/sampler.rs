//! Drawing from a model: what decides the images, and a folder of them.

use crate::args::SamplerArg;
use crate::console::{self, Ticker};
use crate::device::Stage;
use crate::gallery::outputs::Outputs;
use crate::gallery::{self, Failures, full_path, go_on};
use crate::runs::STOP;
use crate::usage;
use anyhow::Result;
use candle_core::Tensor;
use sdft_adm::Unet;
use sdft_diffusion::{Clip, Denoiser, Diffusion};
use sdft_models::{LoadedModel, Process};
use sdft_noise::{Draw, Purpose};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ancestral, Ddim, StepCallback, sample_ddim, sample_ddpm};
use sdft_schedule::Respacing;
use sdft_train::{Precision, to_pictures};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// What decides the samples of a folder, apart from how many there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SamplePlan {
    pub(crate) model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub(crate) network_sha256: String,
    pub(crate) image_size: usize,
    pub(crate) seed: u64,
    pub(crate) sampler: SamplerArg,
    pub(crate) steps: String,
    /// DDIM only.
    pub(crate) eta: Option<f64>,
    /// The share of the process at which samples begin.
    pub(crate) start: f64,
    pub(crate) clip: bool,
    /// The class of every image; drawn for each if absent.
    pub(crate) class: Option<u32>,
    /// Numbers of the feature maps.
    pub(crate) precision: Precision,
    pub(crate) process: Process,
}

impl SamplePlan {
    /// 40 steps of deterministic DDIM, as the paper draws.
    pub(crate) fn paper(model: &LoadedModel, name: &str, seed: u64) -> Result<Self> {
        Ok(Self {
            model: full_path(name),
            network_sha256: model.network_sha256()?,
            image_size: model.config.image_size,
            seed,
            sampler: SamplerArg::Ddim,
            steps: "ddim40".into(),
            eta: Some(0.0),
            start: 1.0,
            clip: true,
            class: None,
            precision: Stage::precision(Precision::Auto)?,
            process: model.process.clone(),
        })
    }
}

/// A plan and its network.
pub(crate) struct Sampler {
    pub(crate) plan: SamplePlan,
    diffusion: Diffusion,
    /// The step of the process that samples begin at.
    start: Option<usize>,
    unet: Unet,
    stage: Stage,
    /// `[C, H, W]`
    image: [usize; 3],
    classes: u32,
}

impl Sampler {
    /// # Errors
    /// Steps, a start or a class that the model does not have.
    pub(crate) fn new(plan: SamplePlan, model: &LoadedModel) -> Result<Self> {
        let config = &model.config;
        let wrong = |e: &dyn std::fmt::Display| usage(format!("--steps: {e}"));
        let respacing: Respacing = plan.steps.parse().map_err(|e| wrong(&e))?;
        let diffusion = plan
            .process
            .diffusion(config.learns_variance(), &respacing)
            .map_err(|e| wrong(&e))?;
        let start = sdft_translators::start_of(&diffusion, plan.start)
            .ok()
            .flatten();
        if start.is_none() {
            return Err(usage(format!(
                "--start {}: expected more than 0, up to 1",
                plan.start
            )));
        }
        let classes = u32::try_from(config.num_classes)?;
        if let Some(class) = plan.class.filter(|class| *class >= classes) {
            return Err(usage(format!(
                "--class {class}: the model has {classes} classes"
            )));
        }
        let stage = Stage::open(Precision::Auto)?;
        Ok(Self {
            unet: stage.unet(model)?,
            image: [config.in_channels, config.image_size, config.image_size],
            plan,
            diffusion,
            start,
            stage,
            classes,
        })
    }

    /// Steps of the process that each sample takes.
    pub(crate) fn steps(&self) -> usize {
        self.start.map_or(0, |start| start + 1)
    }

    /// Samples `first .. first + n` of a seed, `[n, 3, H, W]`; each is the same regardless of the batch.
    pub(crate) fn draw(&self, seed: u64, first: usize, n: usize) -> Result<Tensor> {
        self.draw_watched(seed, first, n, &mut |_| Ok(()))
    }

    fn draw_watched(
        &self,
        seed: u64,
        first: usize,
        n: usize,
        observer: &mut StepCallback<'_>,
    ) -> Result<Tensor> {
        let [c, h, w] = self.image;
        let mut noise = SeededNoise::new(seed, first as u64);
        let x = noise.start(&[n, c, h, w], &self.stage.device)?;
        let labels = self.labels(seed, first, n);
        let denoiser = self.unet.with(labels.as_deref(), None);
        let denoiser: &dyn Denoiser = &denoiser;
        let clip = if self.plan.clip { Clip::Yes } else { Clip::No };
        let start = self.start;
        let diffusion = &self.diffusion;
        Ok(match self.plan.sampler {
            SamplerArg::Ddim => {
                let eta = self.plan.eta.unwrap_or_default();
                let options = Ddim { eta, clip, start };
                sample_ddim(diffusion, denoiser, &x, &options, &mut noise, observer)?
            }
            SamplerArg::Ddpm => {
                let options = Ancestral { clip, start };
                sample_ddpm(diffusion, denoiser, &x, &options, &mut noise, observer)?
            }
        })
    }

    /// Labels of a class-conditional model; each depends on the seed and on the image's number only.
    fn labels(&self, seed: u64, first: usize, n: usize) -> Option<Vec<u32>> {
        if self.classes == 0 {
            return None;
        }
        let draw = |i: usize| {
            Draw::new(seed, Purpose::Sample, 1, i as u64).below(0, u64::from(self.classes))
        };
        let label = |i: usize| {
            let drawn = || u32::try_from(draw(i)).unwrap_or(0);
            self.plan.class.unwrap_or_else(drawn)
        };
        Some((first..first + n).map(label).collect())
    }

    /// Makes those of the first `n` samples that are not in the folder yet. How many are there then: fewer than `n` if the user asked for
    /// an end.
    ///
    /// # Errors
    /// Samples that could not be made, after all others were.
    pub(crate) fn fill(&self, outputs: &mut Outputs, n: usize, batch: usize) -> Result<usize> {
        let missing: Vec<usize> = (0..n)
            .filter(|&i| !outputs.is_complete(&file_name(i), ""))
            .collect();
        if missing.len() < n {
            console::note(&format!("{} are complete and stay", n - missing.len()));
        }
        let mut failures = Failures::new("images");
        let mut ticker = Ticker::new("sample", missing.len());
        let mut done = 0;
        for run in missing
            .chunk_by(|a, b| a + 1 == *b)
            .flat_map(|run| run.chunks(batch))
        {
            let drawn = self.draw_watched(self.plan.seed, run[0], run.len(), &mut |step| {
                go_on()?;
                let share = step.done as f64 / step.total as f64;
                ticker.tick(done as f64 + run.len() as f64 * share);
                Ok(())
            });
            if STOP.load(Ordering::Relaxed) {
                ticker.finish(done);
                return Ok(n - missing.len() + done);
            }
            for (&i, image) in run.iter().zip(to_pictures(&drawn?)?) {
                let name = file_name(i);
                if let Some(problem) = gallery::write(outputs, &name, "", image)? {
                    ticker.note(&problem);
                    failures.add(&name, problem);
                }
            }
            done += run.len();
            ticker.tick(done as f64);
        }
        ticker.finish(done);
        failures.conclude(n)?;
        Ok(n)
    }
}

/// The file of a sample.
pub(crate) fn file_name(number: usize) -> String {
    format!("{number:05}.png")
}
