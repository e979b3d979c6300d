//! `train-classifier`: settings -> plan -> run.

use crate::args::ClassifierArgs;
use crate::console::{self, Console, duration, size};
use crate::device::device;
use crate::estimate::memory_of_classifier;
use crate::model::{lasting_model_file, model_file};
use crate::runs::{
    STOP, changed, conclude, flags, list, listen, make_whole, moved, new_root, note_changed_rate,
    same_images,
};
use crate::train::{fingerprint, load_model, open_data, resolve_precision_of};
use crate::{config, space, usage};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use sdft_adm::Encoder;
use sdft_classifier::{
    ClassifierModel, ClassifierPlan, ClassifierSetup, DomainPlan, start_classifier,
    train_classifier as train,
};
use sdft_data::ImageSource;
use sdft_diffusion::{PredictionType, Process};
use sdft_models::{LoadOptions, LoadedEncoder, load_encoder};
use sdft_nn::backward;
use sdft_train::{DataPlan, Ending, RunFolder, RunPlan, TrainError};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toml::Table;

pub(crate) fn train_classifier(args: &ClassifierArgs) -> Result<ExitCode> {
    if args.run.list {
        return list::<ClassifierPlan>();
    }
    let job = match &args.run.resume {
        Some(folder) => Job::resumed(folder, args)?,
        None => Job::fresh(args)?,
    };
    if args.run.dry_run {
        job.describe()?;
        return Ok(ExitCode::SUCCESS);
    }
    let Job {
        plan,
        init,
        domains,
        place,
    } = job;
    let device = device()?;
    memory_of_classifier(&plan)?.check().map_err(usage)?;
    let folder = match place {
        RunLocation::New(root) => RunFolder::create(&root, &plan)?,
        RunLocation::Old(folder) => {
            folder.write_plan(&plan)?;
            folder
        }
    };
    let root = folder.root().to_owned();
    let ending = execute(plan, init, domains, folder, device);
    conclude(ending, &root, "train-classifier", "accuracy")
}

/// The classifier of the embedded example, trained into `root` unless it is there; none if that was interrupted.
pub(crate) fn digits_classifier(root: &Path) -> Result<Option<PathBuf>> {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    let mut table = config::layers::<ClassifierPlan>(&["digits-classifier".to_owned()])?;
    config::put(&mut table, "name", name.into_owned());
    let Job {
        plan,
        init,
        domains,
        ..
    } = Job::from_table(table, None)?;
    let folder = if root.join("plan.toml").exists() {
        let (folder, stored) = RunFolder::open::<ClassifierPlan>(root)?;
        if stored != plan {
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
        RunFolder::create(root, &plan)?
    };
    match execute(plan, init, domains, folder, device()?)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

enum RunLocation {
    /// A folder that is not there yet.
    New(PathBuf),
    /// The folder of an earlier run.
    Old(RunFolder),
}

/// Presets and files, then flags, then `--set`.
pub(crate) fn assemble(args: &ClassifierArgs) -> Result<Table> {
    let said = [&args.source, &args.target, &args.model, &args.init];
    let embedded = args.run.config.is_empty() && said.iter().all(|said| said.is_none());
    let configs = if embedded {
        vec!["digits-classifier".to_owned()]
    } else {
        args.run.config.clone()
    };
    let mut table = config::layers::<ClassifierPlan>(&configs)?;
    let texts = [
        ("data.source.path", &args.source),
        ("data.target.path", &args.target),
        ("init", &args.init),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            config::put(&mut table, key, value.as_str());
        }
    }
    flags::<ClassifierPlan>(&mut table, &args.run)?;
    Ok(table)
}

/// A run that is ready to go.
struct Job {
    plan: ClassifierPlan,
    init: Option<LoadedEncoder>,
    domains: [Arc<dyn ImageSource>; 2],
    place: RunLocation,
}

impl Job {
    fn fresh(args: &ClassifierArgs) -> Result<Self> {
        let table = assemble(args)?;
        let mut job = Self::from_table(table, args.model.as_deref())?;
        let root = new_root(&args.run, &mut job.plan.name);
        job.place = RunLocation::New(root);
        Ok(job)
    }

    /// Resolves a table of settings; `beside` is the U-Net that the classifier will stand beside.
    fn from_table(mut table: Table, beside: Option<&str>) -> Result<Self> {
        let given = config::given(&table, "model");
        let given_process = config::given(&table, "process");
        let mut process = None;
        if let Some(name) = beside {
            // A file that does not say its process has the one given for the classifier.
            let said = serde_json::from_value(given_process.clone().into());
            let options = LoadOptions {
                process_otherwise: said.ok().filter(|_| !given_process.is_empty()),
                ..LoadOptions::default()
            };
            let unet = load_model(&model_file(name)?, &options)?;
            for note in &unet.notes {
                console::note(note);
            }
            let size = unet.config.image_size;
            if given
                .get("image_size")
                .is_some_and(|v| v.as_u64() != Some(size as u64))
            {
                return Err(usage(format!(
                    "model.image_size: {name} makes images of {size}x{size}, the configuration says {}",
                    given["image_size"]
                )));
            }
            let size = i64::try_from(size).context("the model's image size")?;
            config::put(&mut table, "model.image_size", size);
            if let Some(field) = contradiction(&given_process, &unet.process) {
                return Err(usage(format!(
                    "process.{field}: {name} was trained with another value, and the classifier must know the same noise"
                )));
            }
            // A classifier predicts a domain.
            process = Some(Process {
                prediction_type: PredictionType::Epsilon,
                ..unet.process
            });
        }
        let shaped = ["channel_mult", "attention_resolutions"]
            .iter()
            .any(|k| given.contains_key(*k));
        let given = config::given(&table, "model");
        let mut plan: ClassifierPlan = config::plan(table)?;
        if let Some(process) = process {
            plan.process = process;
        }
        if !plan.init.is_empty() {
            plan.init = lasting_model_file(&plan.init)?;
        }
        for path in [
            &mut plan.init,
            &mut plan.data.source.path,
            &mut plan.data.target.path,
        ] {
            make_whole(path);
        }
        let init = if plan.init.is_empty() {
            if !shaped {
                plan.model.fit_to(plan.model.net.image_size);
            }
            None
        } else {
            let mut of_file = given.clone();
            for ours in ["out_channels", "pool"] {
                of_file.remove(ours);
            }
            let resolve_precision = beside.is_some() || !given_process.is_empty();
            let options = LoadOptions {
                given: of_file,
                process_otherwise: resolve_precision.then(|| plan.process.clone()),
                ..LoadOptions::default()
            };
            let init = load_encoder(Path::new(&plan.init), &options)?;
            for note in &init.notes {
                console::note(note);
            }
            plan.init_sha256.clone_from(&init.sha256);
            let pool = plan.model.pool;
            plan.model = ClassifierModel::from(init.config.clone());
            plan.model.net.out_channels = 2;
            if given.contains_key("pool") {
                plan.model.pool = pool;
            }
            if beside.is_none() && given_process.is_empty() {
                plan.process = init.process.clone();
            }
            Some(init)
        };
        resolve_precision_of(&mut plan.steps)?;
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let domains = [
            open_domain(&plan, &plan.data.source)?,
            open_domain(&plan, &plan.data.target)?,
        ];
        plan.data.source.fingerprint = fingerprint(&*domains[0])?;
        plan.data.target.fingerprint = fingerprint(&*domains[1])?;
        if plan.data.source.fingerprint == plan.data.target.fingerprint {
            return Err(usage(format!(
                "data.target.path: {} holds the same images as the source, and there is nothing to tell apart",
                plan.data.target.path
            )));
        }
        let place = RunLocation::New(PathBuf::from(&plan.name));
        Ok(Self {
            plan,
            init,
            domains,
            place,
        })
    }

    /// The folder of the run.
    fn root(&self) -> &Path {
        match &self.place {
            RunLocation::New(root) => root,
            RunLocation::Old(folder) => folder.root(),
        }
    }

    /// The plan, and what it will take.
    fn describe(&self) -> Result<()> {
        let plan = &self.plan;
        console::line(toml::to_string(plan).context("the plan cannot be written")?)?;
        let specs = Encoder::specs(&plan.model.encoder())?;
        let parameters: usize = specs
            .iter()
            .map(|s| s.shape.iter().product::<usize>())
            .sum();
        let batch = plan.steps.batch;
        let at_once = match plan.steps.micro_batch {
            0 => batch,
            n => n.min(batch),
        };
        let needed = memory_of_classifier(plan)?;
        let time = match needed.check() {
            Err(problem) => {
                console::note(&format!("warning: {problem}"));
                "not tried, because the memory does not suffice".to_owned()
            }
            Ok(()) => {
                let all = trial(plan, at_once)? * batch as f64 * plan.steps.steps as f64;
                let time = Duration::try_from_secs_f64(all).unwrap_or(Duration::MAX);
                format!("about {} on this machine, by a trial pass", duration(time))
            }
        };
        let disk = disk(plan, parameters);
        let [source, target] = [0, 1].map(|i| self.domains[i].len());
        for line in [
            format!("# {source} source and {target} target images, {parameters} parameters"),
            format!("# time    {time}"),
            format!(
                "# memory  about {}; --set loop.micro_batch=N needs less",
                size(needed.bytes)
            ),
            format!(
                "# disk    about {}{}",
                size(disk),
                space::compared(self.root(), disk)
            ),
        ] {
            console::line(line)?;
        }
        Ok(())
    }

    fn resumed(root: &Path, args: &ClassifierArgs) -> Result<Self> {
        let (folder, stored) = RunFolder::open::<ClassifierPlan>(root)?;
        let before = stored.steps.steps;
        let allowed = ["loop.steps", "loop.recompute", "loop.precision"];
        let mut plan = changed(stored, &args.run, &allowed)?;
        if let Some(init) = &args.init {
            moved(&mut plan.init, Some(&model_file(init)?));
        }
        moved(&mut plan.data.source.path, args.source.as_deref());
        moved(&mut plan.data.target.path, args.target.as_deref());
        resolve_precision_of(&mut plan.steps)?;
        if plan.steps.steps != before {
            note_changed_rate(plan.optim.schedule);
        }
        // Where there is a checkpoint, the first weights are not needed any more.
        let init = if plan.init.is_empty() || folder.has_checkpoint() {
            None
        } else {
            let options = LoadOptions {
                process_otherwise: Some(plan.process.clone()),
                ..LoadOptions::default()
            };
            let init = load_encoder(Path::new(&plan.init), &options)?;
            if init.sha256 != plan.init_sha256 {
                anyhow::bail!(
                    "{}: the file changed since the run began: its SHA-256 was {}, now it is {}",
                    plan.init,
                    plan.init_sha256,
                    init.sha256
                );
            }
            Some(init)
        };
        let same = |domain: &DomainPlan, option| {
            let open = || open_domain(&plan, domain);
            same_images(&domain.path, &domain.fingerprint, option, open)
        };
        let domains = [
            same(&plan.data.source, "--source")?,
            same(&plan.data.target, "--target")?,
        ];
        Ok(Self {
            plan,
            init,
            domains,
            place: RunLocation::Old(folder),
        })
    }
}

/// The first field given that the model's process says otherwise.
fn contradiction(given: &Map<String, Value>, process: &Process) -> Option<String> {
    let known = serde_json::to_value(process).unwrap_or_default();
    let other = given
        .iter()
        .find(|(field, value)| known.get(*field) != Some(*value));
    other.map(|(field, _)| field.clone())
}

/// Seconds that a trial may take.
const PATIENCE: f64 = 10.0;

/// Seconds that a forward and backward pass of one image takes among `at_once`, by trial.
fn trial(plan: &ClassifierPlan, at_once: usize) -> Result<f64> {
    let config = plan.model.encoder();
    let device = Device::Cpu;
    let (start, _) = start_classifier(&config, plan.seed, None, &device)?;
    let (params, _) = start.trainable()?;
    let encoder = Encoder::load(&params, &config)?;
    let side = config.net.image_size;
    let pass = |n: usize| -> Result<f64> {
        let x = Tensor::ones((n, 3, side, side), DType::F32, &device)?;
        let started = Instant::now();
        let log_probs = encoder.log_probs(&x, &vec![500.0; n])?;
        backward(&log_probs.narrow(1, 0, 1)?.sum_all()?)?;
        Ok(started.elapsed().as_secs_f64() / n as f64)
    };
    let seconds = pass(1)?;
    if seconds * (at_once as f64) < PATIENCE {
        // The first pass of many mostly fetches memory.
        return Ok(pass(at_once)?.min(pass(at_once)?));
    }
    Ok(seconds)
}

/// Bytes of everything in the run folder; the newest checkpoint is written before the oldest goes.
fn disk(plan: &ClassifierPlan, parameters: usize) -> u64 {
    let weights = 4 * parameters as u64;
    let checkpoints = (plan.output.keep as u64 + 1).saturating_mul(4 * weights);
    checkpoints.saturating_add(weights)
}

/// Trains in a folder, shown on the console, stoppable by Ctrl-C.
fn execute(
    plan: ClassifierPlan,
    init: Option<LoadedEncoder>,
    [source, target]: [Arc<dyn ImageSource>; 2],
    folder: RunFolder,
    device: Device,
) -> Result<Ending, TrainError> {
    listen();
    let params = init.as_ref().map(|init| &init.params);
    let (start, taken) = start_classifier(&plan.model.encoder(), plan.seed, params, &device)?;
    if init.is_some() {
        console::note(&format!(
            "{taken} of {} tensors start as in {}",
            start.len(),
            plan.init
        ));
    }
    console::note(&format!(
        "{}: {} source and {} target images of {}x{}, {} steps of {}; writes {}",
        plan.name,
        source.len(),
        target.len(),
        source.size(),
        source.size(),
        plan.steps.steps,
        plan.steps.batch,
        folder.root().display()
    ));
    let parameters = start.iter().map(|(_, tensor)| tensor.elem_count()).sum();
    space::warn(folder.root(), disk(&plan, parameters));
    let mut console = Console::new(&plan.name);
    let setup = ClassifierSetup {
        plan,
        folder,
        start,
        source,
        target,
        device,
    };
    let ending = train(setup, &STOP, &mut console);
    console.finish();
    ending
}

fn open_domain(plan: &ClassifierPlan, domain: &DomainPlan) -> Result<Arc<dyn ImageSource>> {
    let data = DataPlan {
        path: domain.path.clone(),
        strict: plan.data.strict,
        style: domain.style.clone(),
        classes: domain.classes.clone(),
        per_class: domain.per_class,
        ..DataPlan::default()
    };
    open_data(&data, plan.model.net.image_size)
}
