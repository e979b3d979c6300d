//! `edit train`: settings -> plan -> run.

use super::args::{CacheArgs, EditTrainArgs, StepArg};
use super::latents::{self, Inversion};
use super::{goal, range};
use crate::console::{self, Console, duration, size};
use crate::model::{lasting_model_file, model_file};
use crate::runs::{
    STOP, changed, conclude, flags, list, listen, make_whole, moved, new_root, note_changed_rate,
    same_images,
};
use crate::sample::unconditional;
use crate::train::{all_fields, fingerprint, load_source, open_data, unchanged};
use crate::weights::Weights;
use crate::{config, space, usage};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_asyrp::{DeltaBlock, Direction, Goal, Mix, training_steps};
use sdft_data::{ImageSource, Joined};
use sdft_diffusion::{BottleneckNet, Denoiser};
use sdft_directions::{DirectionPlan, DirectionSetup, train_direction};
use sdft_imaging::to_unit_range;
use sdft_nn::{Params, backward};
use sdft_train::{DataPlan, Ending, LrSchedule, RunFolder, RunPlan, TrainError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toml::Table;

/// The preset of the embedded example.
pub(crate) const DIGITS: &str = "digits-3-to-2";

pub(super) fn train(args: &EditTrainArgs) -> Result<ExitCode> {
    if args.run.list {
        return list::<DirectionPlan>();
    }
    let (job, place) = match &args.run.resume {
        Some(folder) => {
            let (job, folder) = Job::resumed(folder, args)?;
            (job, RunLocation::Old(folder))
        }
        None => {
            refuse_taken(args)?;
            let mut job = Job::from_table(assemble(args)?, args)?;
            let root = new_root(&args.run, &mut job.plan.name);
            (job, RunLocation::New(root))
        }
    };
    if args.run.dry_run {
        job.describe(&args.cache)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = match place {
        RunLocation::New(root) => RunFolder::create(&root, &job.plan)?,
        RunLocation::Old(folder) => {
            folder.write_plan(&job.plan)?;
            folder
        }
    };
    let root = folder.root().to_owned();
    let ending = job.execute(folder, args);
    conclude(ending, &root, "edit train", "samples")
}

enum RunLocation {
    /// A folder that is not there yet.
    New(PathBuf),
    /// The folder of an earlier run.
    Old(RunFolder),
}

/// Fails if there is a run of this name already, before anything is computed for a new one.
fn refuse_taken(args: &EditTrainArgs) -> Result<()> {
    let Some(name) = &args.run.name else {
        return Ok(());
    };
    let root = args.run.out.join(name);
    if root.join("plan.toml").exists() {
        anyhow::bail!(
            "{}: there is a run already; continue it with --resume {0}, or give the new one another --name",
            root.display()
        );
    }
    Ok(())
}

/// Other runs have a number of steps.
fn refuse_steps(args: &EditTrainArgs) -> Result<()> {
    if args.run.steps.is_some() {
        return Err(usage(
            "--steps: a direction is trained for a number of --epochs; steps of trajectories are --set walk.steps=N",
        ));
    }
    Ok(())
}

/// Presets and files, then flags, then `--set`.
pub(crate) fn assemble(args: &EditTrainArgs) -> Result<Table> {
    refuse_steps(args)?;
    let said = [&args.model, &args.data, &args.from, &args.to];
    let embedded = args.run.config.is_empty() && said.iter().all(|said| said.is_none());
    let configs = if embedded {
        vec![DIGITS.to_owned()]
    } else {
        args.run.config.clone()
    };
    let mut table = config::layers::<DirectionPlan>(&configs)?;
    let texts = [
        ("source", &args.model),
        ("source_key", &args.source_key),
        ("data.path", &args.data),
        ("goal.from", &args.from),
        ("goal.to", &args.to),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            config::put(&mut table, key, value.as_str());
        }
    }
    let step = |arg| match arg {
        Some(StepArg::At(step)) => i64::try_from(step).ok(),
        _ => None,
    };
    let numbers = [
        ("loop.epochs", args.epochs.map(i64::from)),
        ("data.images", args.images.map(i64::from)),
        ("walk.t_edit", step(args.t_edit)),
        ("walk.t_boost", step(args.t_boost)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            config::put(&mut table, key, value);
        }
    }
    flags::<DirectionPlan>(&mut table, &args.run)?;
    Ok(table)
}

/// A run that is ready to go.
pub(crate) struct Job {
    plan: DirectionPlan,
    net: Unet,
    data: Arc<dyn ImageSource>,
    goal: Goal,
}

impl Job {
    /// Resolves a table of settings: model, images, networks that look.
    pub(crate) fn from_table(table: Table, args: &EditTrainArgs) -> Result<Self> {
        let given = config::given(&table, "model");
        let given_process = config::given(&table, "process");
        let weights = Weights::parse(&args.weights)?;
        let mut plan: DirectionPlan = config::plan(table)?;
        let auto = |arg| arg == Some(StepArg::Auto);
        let (find_edit, find_boost) = (auto(args.t_edit), auto(args.t_boost));
        // Until they are found.
        let walk = &mut plan.walk;
        if find_edit {
            walk.t_edit = walk.t_edit.min(walk.t_0);
        }
        if find_boost {
            walk.t_boost = walk.t_boost.min(walk.t_0);
        }
        // What does not depend on files is checked before they are read.
        plan.validate_settings().map_err(|e| usage(e.to_string()))?;
        weights.refuse_others(&goal::networks(&plan.goal, find_edit || find_boost))?;
        plan.source = lasting_model_file(&plan.source)?;
        make_whole(&mut plan.source);
        make_whole(&mut plan.data.path);
        let model = load_source(&plan.source, &plan.source_key, given, given_process)?;
        unconditional(&plan.source, &model)?;
        plan.source_sha256.clone_from(&model.sha256);
        plan.network_sha256 = model.network_sha256()?;
        plan.model = model.config.clone();
        plan.process = model.process.clone();
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let data = open_images(&plan)?;
        plan.data.fingerprint = fingerprint(&*data)?;
        goal::locate(&mut plan.goal, &weights)?;
        // Texts that cannot be are found out before there is a run.
        let goal = goal::open(&plan.goal, plan.model.image_size)?;
        let net = model.unet()?;
        if find_edit || find_boost {
            if args.run.dry_run {
                console::note(&format!(
                    "auto: the editing range is found when the run starts, by {} forward passes and twice as many looks of LPIPS that are not counted below",
                    data.len() * range::STEPS.min(plan.walk.t_0 + 1)
                ));
            } else {
                let curves = range::look(&plan, &net, &*data, &weights, &args.cache, range::STEPS)?;
                if find_edit {
                    plan.walk.t_edit = range::t_edit(&curves, goal.cosine())?;
                }
                if find_boost {
                    plan.walk.t_boost = range::t_boost(&curves)?;
                }
                console::note(&format!(
                    "range: t_edit {}, t_boost {}",
                    plan.walk.t_edit, plan.walk.t_boost
                ));
                plan.validate().map_err(|e| usage(e.to_string()))?;
            }
        }
        Ok(Self {
            plan,
            net,
            data,
            goal,
        })
    }

    fn resumed(root: &Path, args: &EditTrainArgs) -> Result<(Self, RunFolder)> {
        refuse_steps(args)?;
        let (folder, stored) = RunFolder::open::<DirectionPlan>(root)?;
        let before = stored.pace.epochs;
        let mut plan = changed(stored, &args.run, &["loop.epochs"])?;
        if let Some(epochs) = args.epochs {
            plan.pace.epochs = epochs.into();
            plan.validate().map_err(|e| usage(e.to_string()))?;
        }
        // A rate that falls by epochs does so whatever their number.
        if plan.pace.epochs != before && plan.optim.schedule != LrSchedule::Step {
            note_changed_rate(plan.optim.schedule);
        }
        if let Some(model) = &args.model {
            moved(&mut plan.source, Some(&model_file(model)?));
        }
        moved(&mut plan.data.path, args.data.as_deref());
        goal::locate(&mut plan.goal, &Weights::parse(&args.weights)?)?;
        let (model, process) = (all_fields(&plan.model), all_fields(&plan.process));
        let model = load_source(&plan.source, &plan.source_key, model, process)?;
        unchanged(&plan.source, &plan.source_sha256, &model)?;
        let (path, known) = (&plan.data.path, &plan.data.fingerprint);
        let data = same_images(path, known, "--data", || open_images(&plan))?;
        let job = Self {
            net: model.unet()?,
            goal: goal::open(&plan.goal, plan.model.image_size)?,
            plan,
            data,
        };
        Ok((job, folder))
    }

    /// Trains into `root`, going on where an earlier call left off; the file of the direction, or none if that was interrupted.
    pub(crate) fn run_in(self, root: &Path, args: &EditTrainArgs) -> Result<Option<PathBuf>> {
        let folder = if root.join("plan.toml").exists() {
            let (folder, stored) = RunFolder::open::<DirectionPlan>(root)?;
            if stored != self.plan {
                anyhow::bail!(
                    "{}: another plan was begun here; move it away, or name another --out",
                    root.display()
                );
            }
            if let Some(model) = folder.finished() {
                return Ok(Some(model));
            }
            folder
        } else {
            RunFolder::create(root, &self.plan)?
        };
        let ending = self
            .execute(folder, args)
            .with_context(|| format!("the run in {} stopped", root.display()))?;
        match ending {
            Ending::Finished { model, .. } => Ok(Some(model)),
            Ending::Interrupted { .. } => Ok(None),
        }
    }

    /// Trains in a folder, shown on the console, stoppable by Ctrl-C.
    fn execute(self, folder: RunFolder, args: &EditTrainArgs) -> Result<Ending, TrainError> {
        listen();
        let Self {
            plan,
            net,
            data,
            goal,
        } = self;
        let latents = latents::open(
            &args.cache,
            &Inversion {
                network_sha256: &plan.network_sha256,
                process: &plan.process,
                t_0: plan.walk.t_0,
                steps: plan.walk.inversion,
            },
        );
        console::note(&format!(
            "{}: from {:?} to {:?} on {} images of {side}x{side}, {} epochs; writes {}",
            plan.name,
            plan.goal.from,
            plan.goal.to,
            data.len(),
            plan.pace.epochs,
            folder.root().display(),
            side = data.size(),
        ));
        let mut console = Console::new(&plan.name);
        let setup = DirectionSetup {
            plan,
            folder,
            net: Box::new(net),
            goal,
            data,
            latents,
            device: Device::Cpu,
        };
        let ending = train_direction(setup, &STOP, &mut console);
        console.finish();
        ending
    }

    /// The plan, and what it will take.
    fn describe(&self, cache: &CacheArgs) -> Result<()> {
        let (plan, net) = (&self.plan, &self.net);
        console::line(toml::to_string(plan).context("the plan cannot be written")?)?;
        let walk = &plan.walk;
        let steps = sdft_asyrp::training_sequence(walk.steps, walk.t_0, walk.t_edit);
        let (forward, training_step) = self.trial(&steps)?;
        let n = self.data.len() as f64;
        let walks = n * plan.pace.epochs as f64;
        let seconds =
            n * walk.inversion as f64 * forward + walks * steps.len() as f64 * training_step;
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let specs = DeltaBlock::specs(net.bottleneck(), plan.model.norm_groups)?;
        let parameters: usize = specs
            .iter()
            .map(|s| s.shape.iter().product::<usize>())
            .sum();
        let memory = console::memory().unwrap_or(0);
        let inversions = self.data.len() as u64 * 12 * (plan.model.image_size as u64).pow(2);
        for line in [
            format!(
                "# {} images, {parameters} parameters of the direction, {} steps of a trajectory at which it learns",
                self.data.len(),
                steps.len()
            ),
            format!(
                "# time    about {} on this machine, by a trial step; {} for a trajectory",
                duration(time),
                duration(Duration::from_secs_f64(training_step * steps.len() as f64))
            ),
            format!("# memory  about {}, by the same", size(memory)),
            match latents::folder(cache) {
                None => "# disk    inversions are not kept".to_owned(),
                Some(folder) => format!(
                    "# disk    about {} for inversions, which are kept between runs{}",
                    size(inversions),
                    space::compared(&folder, inversions)
                ),
            },
        ] {
            console::line(line)?;
        }
        Ok(())
    }

    /// Seconds of a forward pass and of a step at which the direction learns, for one image.
    fn trial(&self, steps: &[usize]) -> Result<(f64, f64)> {
        let (plan, net, goal) = (&self.plan, &self.net, &self.goal);
        let side = self.data.size();
        let picture = to_unit_range(&self.data.image(0)?);
        let x0 = Tensor::from_vec(picture, (1, 3, side, side), &Device::Cpu)?;
        let started = Instant::now();
        net.predict(&x0, &[500.0])?;
        let forward = started.elapsed().as_secs_f64();
        let groups = plan.model.norm_groups;
        let specs = DeltaBlock::specs(net.bottleneck(), groups)?;
        let (params, _) = Params::init(&specs, plan.seed, &Device::Cpu)?.trainable()?;
        let block = DeltaBlock::load(&params, net.bottleneck(), groups)?;
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength: 1.0,
        }]);
        let schedule = plan.process.published()?.schedule;
        let seen = goal.reference(&x0)?;
        let one = &steps[..1];
        let started = Instant::now();
        training_steps(net, &schedule, &x0, &mix, one, &mut |training_step| {
            backward(&goal.loss(&seen, training_step)?.total)?;
            Ok(())
        })?;
        Ok((forward, started.elapsed().as_secs_f64()))
    }
}

/// The first images of a plan's data.
fn open_images(plan: &DirectionPlan) -> Result<Arc<dyn ImageSource>> {
    let data = DataPlan {
        path: plan.data.path.clone(),
        strict: plan.data.strict,
        style: plan.data.style.clone(),
        classes: plan.data.classes.clone(),
        per_class: plan.data.per_class,
        ..DataPlan::default()
    };
    let all = open_data(&data, plan.model.image_size)?;
    let n = match plan.data.images {
        0 => all.len(),
        n => n.min(all.len()),
    };
    Ok(Arc::new(Joined::new(vec![(all, (0..n).collect())])?))
}
