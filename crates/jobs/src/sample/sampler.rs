//! A model that draws images.

use super::plan::{SamplePlan, SamplerKind};
use crate::condition::null_for;
use crate::context::{Context, Runtime};
use crate::error::{Result, failed, option};
use crate::guide::Guide;
use crate::model::check_form;
use crate::shared::{Team, batch as batch_of};
use candle_core::{DType, Tensor};
use sdft_autoencoder::Space;
use sdft_diffusion::{Clip, Continuous, Denoiser, Diffusion, Guided, Network, TimeUnit};
use sdft_gallery::{Failures, Outputs};
use sdft_imaging::ImageSpec;
use sdft_models::LoadedModel;
use sdft_parallel::{Task, TaskLimit};
use sdft_randn::SeededNoise;
use sdft_samplers::{
    Ancestral, Ddim, DpmSolver, Heun, StepCallback, Straight, StraightMethod, sample_ddim,
    sample_ddpm, sample_dpm, sample_heun, sample_straight,
};
use sdft_schedule::Respacing;
use sdft_train::{Progress, to_pictures};

/// A sampler with its options.
enum Way {
    Ddim(Ddim),
    Ddpm(Ancestral),
    Heun(Heun),
    Dpm(DpmSolver),
    Straight(Straight),
}

/// A plan and its network.
pub struct Sampler {
    plan: SamplePlan,
    diffusion: Diffusion,
    way: Way,
    /// Steps of each sample.
    steps: usize,
    net: Box<dyn Network>,
    runtime: Runtime,
    /// The way from the network's states to images.
    space: Space,
    /// Number of classes, 0 for none.
    classes: u32,
    /// The label of the null class, where guidance needs one.
    null: Option<u32>,
    guide: Option<Guide>,
}

impl Sampler {
    /// Puts the network of `model` on the context's device.
    ///
    /// # Errors
    /// Steps, a start, a form of images or a class that the model does not have; guidance without a null class.
    pub fn new(
        plan: SamplePlan,
        model: &LoadedModel,
        guide: Option<Guide>,
        context: &Context<'_>,
    ) -> Result<Self> {
        // Networks of different kinds meet at the same steps.
        let in_steps = guide.as_ref().map(|guide| guide.time) == Some(TimeUnit::Steps);
        let learned = model.architecture.learns_variance();
        let (diffusion, way, steps) = way(&plan, learned, in_steps)?;
        let classes = u32::try_from(model.n_classes())
            .map_err(|_| option("model", "has too many classes"))?;
        if let Some(class) = plan.class.filter(|class| *class >= classes) {
            return Err(option(
                "class",
                format!("{class}: the model has {classes} classes"),
            ));
        }
        // Classes that are embedded like timesteps have no number that could be taken in turn.
        if classes == u32::MAX && plan.class.is_none() {
            return Err(option(
                "class",
                "expected a number: the model takes any class, and its files do not say which it knows",
            ));
        }
        let spec = plan.image.unwrap_or_else(|| model.architecture.image());
        check_form(&plan.model, model, &spec)?;
        let null = null_for(plan.guidance, model)?;
        let runtime = context.runtime_in(plan.precision);
        let net = runtime.network(model)?;
        Ok(Self {
            net: match in_steps {
                true => model.process.in_steps(net)?,
                false => net,
            },
            space: runtime.space(model, spec)?,
            plan,
            diffusion,
            way,
            steps,
            runtime,
            classes,
            null,
            guide,
        })
    }

    /// The settings.
    pub fn plan(&self) -> &SamplePlan {
        &self.plan
    }

    /// The form of the images.
    pub fn spec(&self) -> &ImageSpec {
        self.space.image()
    }

    /// Steps that each sample takes.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Samples `first .. first + n` of a seed, `[n, C, H, W]` in [-1, 1]; each is the same regardless of the batch. `observer` is called
    /// after each step, and its error ends the sampling.
    ///
    /// # Errors
    /// A tensor operation or `observer` fails.
    pub fn draw(
        &self,
        seed: u64,
        first: usize,
        n: usize,
        observer: &mut StepCallback<'_>,
    ) -> candle_core::Result<Tensor> {
        let [c, h, w] = self.space.shape();
        let mut noise = SeededNoise::new(seed, first as u64);
        let x = noise.start(&[n, c, h, w], &self.runtime.device)?;
        let labels = self.labels(first, n);
        let guided = labels.as_ref().map(|labels| Guided {
            net: &*self.net,
            labels,
            null: self.null,
            guidance: self.plan.guidance.unwrap_or(1.0),
        });
        let model: &dyn Denoiser = match &guided {
            Some(guided) => guided,
            None => &*self.net,
        };
        let (diffusion, guide) = (&self.diffusion, self.guide.as_ref());
        let guided = guide.map(|guide| guide.around(model, labels.as_deref(), diffusion));
        let denoiser: &dyn Denoiser = match &guided {
            Some(guided) => guided,
            None => model,
        };
        let states = match &self.way {
            Way::Ddim(options) => {
                sample_ddim(diffusion, denoiser, &x, options, &mut noise, observer)
            }
            Way::Ddpm(options) => {
                sample_ddpm(diffusion, denoiser, &x, options, &mut noise, observer)
            }
            Way::Heun(options) => {
                sample_heun(diffusion, denoiser, &x, options, &mut noise, observer)
            }
            Way::Dpm(options) => sample_dpm(diffusion, denoiser, &x, options, observer),
            Way::Straight(options) => sample_straight(diffusion, denoiser, &x, options, observer),
        };
        self.space.decode(&states?)
    }

    /// Labels of a class-conditional model: the plan's class, or every class in turn.
    pub(crate) fn labels(&self, first: usize, n: usize) -> Option<Vec<u32>> {
        let classes = usize::try_from(self.classes).ok().filter(|n| *n > 0)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "less than the number of classes"
        )]
        let in_turn = |i: usize| (i % classes) as u32;
        let labels = first..first + n;
        Some(
            labels
                .map(|i| self.plan.class.unwrap_or_else(|| in_turn(i)))
                .collect(),
        )
    }

    /// On rank 0: samples `first .. first + n` of the plan's seed, `[n, C, H, W]`. Each rank draws a contiguous part of them.
    fn draw_together(
        &self,
        first: usize,
        n: usize,
        context: &mut Context<'_>,
        report: &mut dyn FnMut(&mut dyn Progress, f64),
    ) -> Result<Tensor> {
        let group = context.group.clone();
        let team = Team {
            group: &group,
            stop: context.stop,
        };
        let part = team.part(n);
        let tasks = (0..n).step_by(part).map(|start| {
            let count = part.min(n - start);
            Task {
                kind: 0,
                numbers: [self.plan.seed, (first + start) as u64, count as u64].to_vec(),
                values: Vec::new(),
                answer: count * self.spec().len(),
            }
        });
        let answers = group.share(tasks.collect(), |task| {
            self.answer(&task, &mut |step| {
                team.check()?;
                report(context.progress, step.done as f64 / step.total as f64);
                Ok(())
            })
        })?;
        Ok(batch_of(answers.concat(), self.spec())?)
    }

    /// On the other ranks: draws samples for rank 0 until it ends the work, up to `batch` at once.
    ///
    /// # Errors
    /// A sample cannot be drawn; rank 0 fails or disconnects.
    pub(crate) fn serve(&self, batch: usize, context: &Context<'_>) -> Result<()> {
        let team = Team {
            group: &context.group,
            stop: context.stop,
        };
        let limit = TaskLimit {
            numbers: 3,
            values: batch.saturating_mul(self.spec().len()),
        };
        let group = &context.group;
        group.serve(limit, |task| self.answer(&task, &mut |_| team.check()))
    }

    /// The samples of a task: its numbers are a seed, the first sample and the number of samples.
    fn answer(&self, task: &Task, observer: &mut StepCallback<'_>) -> Result<Vec<f32>> {
        let numbers = match task.numbers[..] {
            [seed, first, n] => usize::try_from(first)
                .ok()
                .zip(usize::try_from(n).ok())
                .map(|n| (seed, n)),
            _ => None,
        };
        let known =
            numbers.filter(|(_, (_, n))| n.checked_mul(self.spec().len()) == Some(task.answer));
        let Some((seed, (first, n))) = known else {
            return Err(failed(format!(
                "rank 0 asks for samples {:?} with {} values",
                task.numbers, task.answer
            )));
        };
        let drawn = self.draw(seed, first, n, observer)?;
        Ok(drawn.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    /// The name of a sample's file.
    pub(crate) fn file_name(&self, number: usize) -> String {
        format!("{number:05}.{}", self.spec().ending())
    }

    /// Makes those of the first `n` samples that the folder lacks. Returns the number of complete samples: fewer than `n` if the job is stopped.
    ///
    /// # Errors
    /// A sample could not be made; all others were.
    pub fn fill(
        &self,
        outputs: &mut Outputs,
        n: usize,
        batch: usize,
        context: &mut Context<'_>,
    ) -> Result<usize> {
        let missing: Vec<usize> = (0..n)
            .filter(|&i| !outputs.is_complete(&self.file_name(i), ""))
            .collect();
        if missing.len() < n {
            let text = format!("{} are complete and stay", n - missing.len());
            context.progress.note(&text);
        }
        let mut failures = Failures::new("images");
        let (mut done, total) = (0, missing.len());
        context.progress.images(0.0, total);
        let at_once = batch.saturating_mul(context.group.size());
        for run in missing
            .chunk_by(|a, b| a + 1 == *b)
            .flat_map(|run| run.chunks(at_once))
        {
            let drawn = self.draw_together(run[0], run.len(), context, &mut |progress, share| {
                progress.images(done as f64 + run.len() as f64 * share, total);
            });
            if context.is_stopped() {
                return Ok(n - total + done);
            }
            for (&i, image) in run.iter().zip(to_pictures(&drawn?, self.spec())?) {
                let name = self.file_name(i);
                if let Some(problem) = outputs.put_image(&name, "", self.spec(), image)? {
                    context.progress.note(&problem);
                    failures.add(&name, problem);
                }
            }
            done += run.len();
            context.progress.images(done as f64, total);
        }
        failures.check(n)?;
        Ok(n)
    }
}

/// The sampler of a plan, the process that it goes through, and the number of its steps.
fn way(
    plan: &SamplePlan,
    learns_variance: bool,
    in_steps: bool,
) -> Result<(Diffusion, Way, usize)> {
    let wrong = |e: &dyn std::fmt::Display| option("steps", format!("{}: {e}", plan.steps));
    let clip = if plan.clip { Clip::Yes } else { Clip::No };
    let has_respacing = matches!(plan.sampler, SamplerKind::Ddim | SamplerKind::Ddpm);
    let respacing: Respacing = match has_respacing {
        true => plan.steps.parse().map_err(|e| wrong(&e))?,
        false => Respacing::All,
    };
    let diffusion = plan.process.diffusion(learns_variance, &respacing);
    let diffusion = diffusion.map_err(|e| wrong(&e))?;
    let diffusion = match in_steps {
        true => diffusion.in_steps(),
        false => diffusion,
    };
    let expected = |what: &str| option("start", format!("{}: expected {what}", plan.start));
    if has_respacing {
        let start = sdft_translators::start_of(&diffusion, plan.start);
        let start = start.ok().flatten();
        let steps = 1 + start.ok_or_else(|| expected("more than 0, up to 1"))?;
        let way = match plan.sampler {
            SamplerKind::Ddpm => Way::Ddpm(Ancestral { clip, start }),
            _ => Way::Ddim(Ddim {
                eta: plan.eta.unwrap_or_default(),
                clip,
                start,
            }),
        };
        return Ok((diffusion, way, steps));
    }
    if plan.start != 1.0 {
        return Err(expected(
            "1 with this sampler; others begin with ddim and ddpm",
        ));
    }
    let steps = plan
        .steps
        .parse()
        .ok()
        .filter(|&n| (1..=MOST_STEPS).contains(&n));
    let steps: usize = steps.ok_or_else(|| {
        wrong(&format!(
            "expected a number of steps with {}, 1 to {MOST_STEPS}",
            plan.sampler
        ))
    })?;
    let is_flow = matches!(plan.process.continuous, Some(Continuous::Flow(_)));
    let straight = |method| {
        let options = Straight { steps, method };
        Ok::<_, crate::Error>((Way::Straight(options), options.levels(&diffusion)?))
    };
    let (way, levels) = match plan.sampler {
        SamplerKind::Euler => straight(StraightMethod::Euler)?,
        SamplerKind::Heun if is_flow => straight(StraightMethod::Heun)?,
        SamplerKind::Dpm => {
            let options = DpmSolver { steps, clip };
            (Way::Dpm(options), options.levels(&diffusion)?)
        }
        _ => {
            let options = match plan.churn {
                None => Heun {
                    steps,
                    ..Heun::default()
                },
                Some(churn) => Heun {
                    steps,
                    s_churn: churn.s_churn,
                    s_min: churn.s_min,
                    s_max: churn.s_max,
                    s_noise: churn.s_noise,
                    ..Heun::default()
                },
            };
            (Way::Heun(options), options.levels(&diffusion)?)
        }
    };
    Ok((diffusion, way, levels.len()))
}

/// The most steps of a sampler that chooses its own noise levels.
const MOST_STEPS: usize = 10_000;
