//! A model that draws images: its settings, and its network.

use crate::choice::{Choice, by_name};
use crate::condition::{names_of_classes, null_for};
use crate::context::{Context, Runtime, check_stop};
use crate::error::{Error, Result, option, usage};
use crate::guide::Guide;
use crate::model::{check_form, recorded_form};
use candle_core::Tensor;
use sdft_diffusion::{
    Clip, Denoiser, Diffusion, Guided, Network, Process, SigmaInterval, TimeUnit,
};
use sdft_gallery::{Failures, Outputs, full_path};
use sdft_imaging::ImageSpec;
use sdft_models::LoadedModel;
use sdft_randn::SeededNoise;
use sdft_samplers::{
    Ancestral, Ddim, DpmSolver, Heun, StepCallback, sample_ddim, sample_ddpm, sample_dpm,
    sample_heun,
};
use sdft_schedule::Respacing;
use sdft_train::{Precision, to_pictures};
use serde::{Deserialize, Serialize};

/// A sampler of diffusion models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerKind {
    /// DDIM, deterministic unless `eta` is above 0.
    Ddim,
    /// DDPM's ancestral sampling.
    Ddpm,
    /// EDM's second-order sampler, with churn if that is given.
    Heun,
    /// DPM-Solver++(2M).
    Dpm,
}

impl Choice for SamplerKind {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Ddim, "ddim", "deterministic unless --eta is above 0"),
        (Self::Ddpm, "ddpm", "ancestral sampling"),
        (
            Self::Heun,
            "heun",
            "EDM's second-order sampler, two evaluations a step",
        ),
        (
            Self::Dpm,
            "dpm",
            "DPM-Solver++(2M), good images in few steps",
        ),
    ];
}

impl SamplerKind {
    /// The usual sampler of a model: Heun's for a continuous process, DDIM otherwise.
    pub fn usual(process: &Process) -> Self {
        match process.continuous {
            Some(_) => Self::Heun,
            None => Self::Ddim,
        }
    }

    /// Its usual steps.
    pub fn usual_steps(self) -> &'static str {
        match self {
            Self::Ddim | Self::Ddpm => "ddim40",
            Self::Heun => "18",
            Self::Dpm => "20",
        }
    }
}

by_name!(SamplerKind);

/// The fresh noise that Heun's sampler adds (EDM's Algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// How much noise all steps add, 0 or more.
    pub s_churn: f64,
    /// The smallest noise level at which it is added.
    pub s_min: f64,
    /// The largest noise level at which it is added.
    pub s_max: f64,
    /// The standard deviation of the noise.
    pub s_noise: f64,
}

impl std::str::FromStr for Churn {
    type Err = Error;

    /// `S_CHURN`, or `S_CHURN,S_MIN,S_MAX,S_NOISE`.
    fn from_str(text: &str) -> Result<Self> {
        let expected = || {
            usage(format!(
                "{text}: expected S_CHURN or S_CHURN,S_MIN,S_MAX,S_NOISE, as in 40,0.05,50,1.003"
            ))
        };
        let numbers: Vec<f64> = text
            .split(',')
            .map(|number| number.trim().parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| expected())?;
        let (s_churn, s_min, s_max, s_noise) = match numbers[..] {
            [churn] => (churn, 0.0, f64::INFINITY, 1.0),
            [churn, min, max, noise] => (churn, min, max, noise),
            _ => return Err(expected()),
        };
        let are_valid = s_churn.is_finite() && s_noise.is_finite() && s_min <= s_max;
        match are_valid && s_churn >= 0.0 && s_noise >= 0.0 && s_min >= 0.0 {
            true => Ok(Self {
                s_churn,
                s_min,
                s_max,
                s_noise,
            }),
            false => Err(usage(format!(
                "{text}: expected numbers from 0, and S_MIN up to S_MAX"
            ))),
        }
    }
}

/// The settings that decide the samples in a folder, apart from their number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplePlan {
    /// The model's file.
    pub model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub network_sha256: String,
    /// The longer side of the images in pixels.
    pub image_size: usize,
    /// Seed; image `i` depends on the seed and on `i` only.
    pub seed: u64,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps, as in `ddim40`, or their number.
    pub steps: String,
    /// DDIM only: share of fresh noise, 0 to 1.
    pub eta: Option<f64>,
    /// Heun's sampler only: fresh noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// The share of the process at which samples begin, above 0 up to 1.
    pub start: f64,
    /// Whether predicted images are clamped to [-1, 1].
    pub clip: bool,
    /// The label of every image's class; if absent, image `i` of a class-conditional model is of class `i` mod the number of classes.
    pub class: Option<u32>,
    /// The names of the classes by label, without the null class. If `class` is given, only names that are not the labels are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The scale of classifier-free guidance, if it is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// The file of the model that images are guided away from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<String>,
    /// Its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_sha256: Option<String>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_weight: Option<f64>,
    /// The noise levels at which it takes part; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide_interval: Option<SigmaInterval>,
    /// Precision of feature maps.
    pub precision: Precision,
    /// The form of the images, if it is not the network's own in 8 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The model's process.
    pub process: Process,
}

impl SamplePlan {
    /// 40 steps of deterministic DDIM, as in the paper.
    ///
    /// # Errors
    /// The network cannot be hashed.
    pub fn paper(
        model: &LoadedModel,
        name: &str,
        seed: u64,
        context: &Context<'_>,
    ) -> Result<Self> {
        Ok(Self {
            model: full_path(name),
            network_sha256: model.network_sha256()?,
            image_size: model.image.height.max(model.image.width),
            seed,
            sampler: SamplerKind::Ddim,
            steps: "ddim40".into(),
            eta: Some(0.0),
            churn: None,
            start: 1.0,
            clip: true,
            class: None,
            classes: names_of_classes(model, None),
            guidance: None,
            guide: None,
            guide_sha256: None,
            guide_weight: None,
            guide_interval: None,
            precision: context.precision_or(Precision::Auto),
            image: recorded_form(model, &model.image),
            process: model.process.clone(),
        })
    }
}

/// A sampler with its options.
enum Way {
    Ddim(Ddim),
    Ddpm(Ancestral),
    Heun(Heun),
    Dpm(DpmSolver),
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
    /// The form of the images.
    spec: ImageSpec,
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
        let runtime = context.runtime(Precision::Auto);
        let net = runtime.network(model)?;
        Ok(Self {
            net: match in_steps {
                true => model.process.in_steps(net)?,
                false => net,
            },
            spec,
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
        &self.spec
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
        let [c, h, w] = self.spec.shape();
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
        match &self.way {
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
        }
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

    /// The name of a sample's file.
    pub(crate) fn file_name(&self, number: usize) -> String {
        format!("{number:05}.{}", self.spec.ending())
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
        for run in missing
            .chunk_by(|a, b| a + 1 == *b)
            .flat_map(|run| run.chunks(batch))
        {
            let Context { stop, progress, .. } = context;
            let drawn = self.draw(self.plan.seed, run[0], run.len(), &mut |step| {
                check_stop(stop)?;
                let share = step.done as f64 / step.total as f64;
                progress.images(done as f64 + run.len() as f64 * share, total);
                Ok(())
            });
            if context.is_stopped() {
                return Ok(n - total + done);
            }
            for (&i, image) in run.iter().zip(to_pictures(&drawn?, &self.spec)?) {
                let name = self.file_name(i);
                if let Some(problem) = outputs.put_image(&name, "", &self.spec, image)? {
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
    let (way, levels) = match plan.sampler {
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
