//! `train-classifier`: settings -> plan -> run.

use crate::args::ClassifierArgs;
use crate::assets::Presets;
use crate::console::{self, Console};
use crate::sample::model_file;
use crate::train::{STOP, fingerprint, listen, load_model, open_data};
use crate::{INTERRUPTED, assets, config, usage};
use anyhow::{Context, Result};
use candle_core::Device;
use sdft_data::ImageSource;
use sdft_models::{LoadOptions, LoadedEncoder, load_encoder};
use sdft_train::{
    ClassifierModel, ClassifierPlan, ClassifierSetup, DataPlan, DomainPlan, Ending, RunFolder,
    RunPlan, TrainError, free_run_folder, start_classifier, train_classifier as train,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use toml::Table;

pub(crate) fn train_classifier(args: &ClassifierArgs) -> Result<ExitCode> {
    if args.list {
        for name in ClassifierPlan::preset_names() {
            console::line(name)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let job = match &args.resume {
        Some(folder) => Job::resumed(folder, args)?,
        None => Job::fresh(args)?,
    };
    if args.dry_run {
        console::line(toml::to_string(&job.plan).context("the plan cannot be written")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Job {
        plan,
        init,
        domains,
        place,
    } = job;
    let folder = match place {
        Place::New(root) => RunFolder::create(&root, &plan)?,
        Place::Old(folder) => {
            folder.write_plan(&plan)?;
            folder
        }
    };
    let root = folder.root().to_owned();
    match execute(plan, init, domains, folder) {
        Ok(Ending::Finished { model, shown }) => {
            console::line(format_args!("model    {}", model.display()))?;
            console::line(format_args!("accuracy {}", shown.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ending::Interrupted { checkpoint }) => {
            console::line(format_args!("interrupted; saved {}", checkpoint.display()))?;
            console::line(format_args!(
                "go on with: cargo xtask train-classifier --resume {}",
                root.display()
            ))?;
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error @ TrainError::Plan(_)) => Err(usage(error.to_string())),
        Err(error) => {
            Err(anyhow::Error::new(error).context(format!("the run in {} stopped", root.display())))
        }
    }
}

/// The classifier of the embedded example, trained into `root` unless it is there.
pub(crate) fn digits_classifier(root: &Path) -> Result<Option<PathBuf>> {
    let model = root.join("final.safetensors");
    if model.is_file() {
        return Ok(Some(model));
    }
    let name = root
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut table = config::layers::<ClassifierPlan>(&["digits-classifier".to_owned()])?;
    config::put(&mut table, "name", name);
    let job = Job::from_table(table, None)?;
    let folder = if root.join("plan.toml").exists() {
        RunFolder::open::<ClassifierPlan>(root)?.0
    } else {
        RunFolder::create(root, &job.plan)?
    };
    match execute(job.plan, job.init, job.domains, folder)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

enum Place {
    /// A folder that is not there yet.
    New(PathBuf),
    /// The folder of an earlier run.
    Old(RunFolder),
}

/// A run that is ready to go.
struct Job {
    plan: ClassifierPlan,
    init: Option<LoadedEncoder>,
    domains: [Arc<dyn ImageSource>; 2],
    place: Place,
}

impl Job {
    fn fresh(args: &ClassifierArgs) -> Result<Self> {
        let embedded = args.config.is_empty() && args.source.is_none() && args.target.is_none();
        let configs = if embedded {
            vec!["digits-classifier".to_owned()]
        } else {
            args.config.clone()
        };
        let mut table = config::layers::<ClassifierPlan>(&configs)?;
        let texts = [
            ("data.source.path", &args.source),
            ("data.target.path", &args.target),
            ("init", &args.init),
            ("name", &args.name),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                config::put(&mut table, key, value.as_str());
            }
        }
        let numbers = [
            ("loop.steps", args.steps),
            ("loop.batch", args.batch),
            ("seed", args.seed),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                let value = i64::try_from(value)
                    .map_err(|_| usage(format!("{key}: {value} is too large")))?;
                config::put(&mut table, key, value);
            }
        }
        if args.strict {
            config::put(&mut table, "data.strict", true);
        }
        for assignment in &args.set {
            config::set::<ClassifierPlan>(&mut table, assignment)?;
        }
        let mut job = Self::from_table(table, args.model.as_deref())?;
        let root = match &args.name {
            Some(name) => args.out.join(name),
            None => free_run_folder(&args.out, &job.plan.name),
        };
        if let Some(name) = root.file_name().and_then(|name| name.to_str()) {
            name.clone_into(&mut job.plan.name);
        }
        job.place = Place::New(root);
        Ok(job)
    }

    /// Resolves a table of settings; `beside` is the U-Net that the classifier will stand beside.
    fn from_table(mut table: Table, beside: Option<&str>) -> Result<Self> {
        let given = config::given(&table, "model");
        let mut process = None;
        if let Some(name) = beside {
            let unet = load_model(&model_file(name)?, &LoadOptions::default())?;
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
            process = Some(unet.process);
        }
        let shaped = ["channel_mult", "attention_resolutions"]
            .iter()
            .any(|k| given.contains_key(*k));
        let given = config::given(&table, "model");
        let mut plan: ClassifierPlan = config::plan(table)?;
        if let Some(process) = process {
            plan.process = process;
        }
        for path in [
            &mut plan.init,
            &mut plan.data.source.path,
            &mut plan.data.target.path,
        ] {
            match Path::new(path.as_str()).canonicalize() {
                Ok(full) if path.as_str() != assets::DIGITS => *path = full.display().to_string(),
                _ => {}
            }
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
            let options = LoadOptions {
                given: of_file,
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
            Some(init)
        };
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let domains = open_domains(&plan)?;
        plan.data.source.fingerprint = fingerprint(&*domains[0])?;
        plan.data.target.fingerprint = fingerprint(&*domains[1])?;
        if plan.data.source.fingerprint == plan.data.target.fingerprint {
            return Err(usage(format!(
                "data.target.path: {} holds the same images as the source, and there is nothing to tell apart",
                plan.data.target.path
            )));
        }
        let place = Place::New(PathBuf::from(&plan.name));
        Ok(Self {
            plan,
            init,
            domains,
            place,
        })
    }

    fn resumed(root: &Path, args: &ClassifierArgs) -> Result<Self> {
        let (folder, mut plan) = RunFolder::open::<ClassifierPlan>(root)?;
        if let Some(steps) = args.steps {
            plan.steps.steps = steps;
        }
        for assignment in &args.set {
            let key = assignment.split('=').next().unwrap_or_default().trim();
            if !["loop.steps", "loop.recompute"].contains(&key) && !key.starts_with("output.") {
                return Err(usage(format!(
                    "--set {assignment}: a run goes on with the plan it was started with; only loop.steps, loop.recompute and output.* can change"
                )));
            }
            let mut table = Table::try_from(&plan).context("the plan cannot be changed")?;
            config::set::<ClassifierPlan>(&mut table, assignment)?;
            plan = config::plan(table)?;
        }
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let init = if plan.init.is_empty() {
            None
        } else {
            let init = load_encoder(Path::new(&plan.init), &LoadOptions::default())?;
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
        let domains = open_domains(&plan)?;
        for (domain, source) in [&plan.data.source, &plan.data.target]
            .into_iter()
            .zip(&domains)
        {
            if fingerprint(&**source)? != domain.fingerprint {
                anyhow::bail!(
                    "{}: these are not the images that the run began with, and it would not go on as it began",
                    domain.path
                );
            }
        }
        Ok(Self {
            plan,
            init,
            domains,
            place: Place::Old(folder),
        })
    }
}

/// Trains in a folder, shown on the console, stoppable by Ctrl-C.
fn execute(
    plan: ClassifierPlan,
    init: Option<LoadedEncoder>,
    [source, target]: [Arc<dyn ImageSource>; 2],
    folder: RunFolder,
) -> Result<Ending, TrainError> {
    listen();
    let params = init.as_ref().map(|init| &init.params);
    let device = Device::Cpu;
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

fn open_domains(plan: &ClassifierPlan) -> Result<[Arc<dyn ImageSource>; 2]> {
    let size = plan.model.net.image_size;
    let open = |domain: &DomainPlan| {
        let data = DataPlan {
            path: domain.path.clone(),
            strict: plan.data.strict,
            style: domain.style.clone(),
            classes: domain.classes.clone(),
            per_class: domain.per_class,
            ..DataPlan::default()
        };
        open_data(&data, size)
    };
    Ok([open(&plan.data.source)?, open(&plan.data.target)?])
}
