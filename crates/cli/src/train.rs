use crate::args::TrainArgs;
use crate::bridge::{judge, space};
use crate::console::{self, Console, duration, size};
use crate::device::{asked, device, world};
use crate::estimate::{Estimate, disk, estimate, memory_of};
use crate::model::{lasting_model_file, model_file};
use crate::runs::{
    STOP, changed, conclude, list, listen, make_whole, moved, new_root, note_changed_rate,
    same_images,
};
use crate::{assets, config, crew, usage};
use anyhow::{Context, Result};
use candle_core::Device;
use sdft_data::{Digits, DigitsSource, FolderSource, ImageSource, Style};
use sdft_eval::{Extractor, View};
use sdft_features::{InceptionResize, Network};
use sdft_jobs::{Weights, resolve_precision};
use sdft_models::{LoadOptions, LoadedModel, load_unet, load_unet_bytes};
use sdft_nn::Params;
use sdft_parallel::ProcessGroup;
use sdft_train::{
    DataPlan, Ending, Evaluator, LoopPlan, Method, Plan, RunFolder, Setup, TrainError, run,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use toml::Table;

pub(crate) use settings::assemble;

mod example;
mod settings;

pub(crate) fn train(args: &TrainArgs) -> Result<ExitCode> {
    if args.run.list {
        return list::<Plan>();
    }
    if settings::is_example(args) && world()?.is_none() {
        return example::example(&args.run.out);
    }
    let job = || match &args.run.resume {
        Some(folder) => Job::resumed(folder, args),
        None => Job::fresh(args),
    };
    if args.run.dry_run {
        job()?.describe()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(n) = args.gpus.filter(|&n| n > 1)
        && world()?.is_none()
    {
        return crew::launch(n);
    }
    // The others wait for the plan, or notice that this process has gone.
    let peers = crew::peers()?;
    if peers.is_leader() {
        job()?.start(peers)
    } else {
        crew::help(peers)
    }
}

/// A run that is ready to go.
pub(crate) struct Job {
    plan: Plan,
    source: Option<Params>,
    data: Arc<dyn ImageSource>,
    place: RunLocation,
}

enum RunLocation {
    /// A folder that is not there yet.
    New(std::path::PathBuf),
    /// The folder of an earlier run.
    Old(RunFolder),
}

impl Job {
    fn fresh(args: &TrainArgs) -> Result<Self> {
        let (table, notes) = settings::settings(args)?;
        notes.iter().for_each(|note| console::note(note));
        let mut job = Self::from_table(table)?;
        let root = new_root(&args.run, &mut job.plan.name);
        job.place = RunLocation::New(root);
        Ok(job)
    }

    /// Resolves a table of settings: source model, architecture, data.
    pub(crate) fn from_table(table: Table) -> Result<Self> {
        let given = config::given(&table, "model");
        let given_process = config::given(&table, "process");
        let mut plan: Plan = config::plan(table)?;
        // What does not depend on files is checked before they are read.
        plan.validate_settings().map_err(|e| usage(e.to_string()))?;
        if !plan.source.is_empty() {
            plan.source = lasting_model_file(&plan.source)?;
        }
        for path in [
            &mut plan.source,
            &mut plan.data.path,
            &mut plan.eval.weights,
        ] {
            make_whole(path);
        }
        let source = if plan.source.is_empty() {
            settings::fit_architecture(&mut plan.model, &given);
            None
        } else {
            let model = load_source(&plan.source, &plan.source_key, given, given_process)?;
            plan.source_sha256.clone_from(&model.sha256);
            plan.model = sdft_adm::AdmConfig {
                dropout: plan.model.dropout,
                ..model.config
            };
            plan.process = model.process;
            Some(model.params)
        };
        resolve_precision_of(&mut plan.steps)?;
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let data = open_data(&plan.data, plan.model.image_size)?;
        plan.data.fingerprint = fingerprint(data.as_ref())?;
        locate_eval_weights(&mut plan)?;
        let place = RunLocation::New(std::path::PathBuf::from(&plan.name));
        Ok(Self {
            plan,
            source,
            data,
            place,
        })
    }

    fn resumed(folder: &Path, args: &TrainArgs) -> Result<Self> {
        let (folder, stored) = RunFolder::open::<Plan>(folder)?;
        let allowed = [
            "loop.steps",
            "loop.recompute",
            "loop.precision",
            "eval.patience",
        ];
        let before = stored.steps.steps;
        let mut plan = changed(stored, &args.run, &allowed)?;
        if let Some(source) = &args.source {
            moved(&mut plan.source, Some(&model_file(source)?));
        }
        moved(&mut plan.data.path, args.data.as_deref());
        resolve_precision_of(&mut plan.steps)?;
        let source = if plan.source.is_empty() {
            None
        } else {
            let (model, process) = (all_fields(&plan.model), all_fields(&plan.process));
            let model = load_source(&plan.source, &plan.source_key, model, process)?;
            unchanged(&plan.source, &plan.source_sha256, &model)?;
            Some(model.params)
        };
        let (path, known) = (&plan.data.path, &plan.data.fingerprint);
        let open = || open_data(&plan.data, plan.model.image_size);
        let data = same_images(path, known, "--data", open)?;
        if plan.steps.steps != before {
            note_changed_rate(plan.optim.schedule);
        }
        Ok(Self {
            plan,
            source,
            data,
            place: RunLocation::Old(folder),
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
        let text = toml::to_string(&self.plan).context("the plan cannot be written")?;
        console::line(text)?;
        for warning in self.plan.warnings() {
            console::note(&format!("warning: {warning}"));
        }
        let needed = memory_of(&self.plan)?;
        let Estimate {
            step_seconds,
            memory,
            checkpoint,
            disk,
            parameters,
        } = estimate(&self.plan, &needed)?;
        console::line(format_args!(
            "# {} images, {parameters} parameters",
            self.data.len()
        ))?;
        match step_seconds {
            Some(seconds) => {
                let all = seconds * self.plan.steps.steps as f64;
                let time = Duration::try_from_secs_f64(all).unwrap_or(Duration::MAX);
                console::line(format_args!(
                    "# time    about {} on this machine, by a trial pass",
                    duration(time)
                ))?;
            }
            None => console::line("# time    not tried, because the memory does not suffice")?,
        }
        console::line(format_args!("# memory  about {}", size(memory)))?;
        if let Err(problem) = needed.check() {
            console::note(&format!("warning: {problem}"));
        }
        console::line(format_args!(
            "# disk    about {} ({} a checkpoint, {} kept){}",
            size(disk),
            size(checkpoint),
            self.plan.output.keep,
            space::compared(self.root(), disk)
        ))?;
        if let RunLocation::New(root) = &self.place {
            console::line(format_args!("# writes  {}", root.display()))?;
        }
        Ok(())
    }

    fn start(self, peers: Arc<ProcessGroup>) -> Result<ExitCode> {
        let Self {
            plan,
            source,
            data,
            place,
        } = self;
        if plan.steps.batch < peers.size() {
            return Err(usage(format!(
                "loop.batch: {} images do not reach for {} processes",
                plan.steps.batch,
                peers.size()
            )));
        }
        let device = device()?;
        memory_of(&plan)?.check().map_err(usage)?;
        let (checkpoint, all) = disk(&plan);
        let (folder, needed) = match place {
            RunLocation::New(root) => (RunFolder::create(&root, &plan)?, all),
            // The other checkpoints are there.
            RunLocation::Old(folder) => {
                folder.write_plan(&plan)?;
                (folder, checkpoint)
            }
        };
        let root = folder.root().to_owned();
        space::warn(&root, needed);
        for warning in plan.warnings() {
            console::note(&format!("warning: {warning}"));
        }
        let side = plan.model.image_size;
        console::note(&format!(
            "{}: {} on {} images of {side}x{side}, {} steps of {}{}; writes {}",
            plan.name,
            what_is_trained(&plan),
            data.len(),
            plan.steps.steps,
            plan.steps.batch,
            on_what(&plan, &device, peers.size()),
            root.display()
        ));
        let text = toml::to_string(&plan).context("the plan cannot be written")?;
        peers.broadcast(text.into_bytes())?;
        let ending = execute(plan, folder, source, data, device, peers);
        conclude(ending, &root, "train", "samples")
    }

    /// Trains into `root`, going on where an earlier call left off. Used by experiments of several runs.
    pub(crate) fn run_in(self, root: &Path) -> Result<Ending> {
        let Self {
            mut plan,
            source,
            data,
            ..
        } = self;
        plan.output.keep = 1;
        let folder = if root.join("plan.toml").exists() {
            let (folder, stored) = RunFolder::open::<Plan>(root)?;
            if stored != plan {
                anyhow::bail!(
                    "{}: another plan was begun here; move it away, or name another --out",
                    root.display()
                );
            }
            if let Some(model) = folder.finished() {
                let shown = folder.samples();
                return Ok(Ending::Finished { model, shown });
            }
            folder
        } else {
            RunFolder::create(root, &plan)?
        };
        let peers = Arc::new(ProcessGroup::single());
        execute(plan, folder, source, data, device()?, peers)
            .with_context(|| format!("the run in {} stopped", root.display()))
    }
}

/// Fixes the type of feature maps: what `--precision` says, or the plan, or else what the device is best at.
pub(crate) fn resolve_precision_of(steps: &mut LoopPlan) -> Result<()> {
    let wanted = asked().unwrap_or(steps.precision);
    steps.precision = resolve_precision(wanted, &device()?);
    Ok(())
}

/// From what, and how.
fn what_is_trained(plan: &Plan) -> String {
    let source = Path::new(&plan.source).file_name().unwrap_or_default();
    let source = source.to_string_lossy();
    match plan.method {
        Method::Scratch => "random weights".to_owned(),
        Method::Naive => format!("{source}, fine-tuned without distillation,"),
        Method::Sdft => format!("{source}, fine-tuned with SDFT,"),
    }
}

/// Where a run computes, where that is worth a word.
fn on_what(plan: &Plan, device: &Device, processes: usize) -> String {
    let crew = match processes {
        1 => String::new(),
        n => format!(" by {n} processes"),
    };
    match device {
        Device::Cpu => crew,
        _ => format!("{crew} on the GPU, {:?}", plan.steps.precision).to_lowercase(),
    }
}

/// The model of the embedded example, trained into `root` unless it is there; none if that was interrupted.
pub(crate) fn train_digits(root: &Path) -> Result<Option<PathBuf>> {
    train_preset("digits-sdft", &[], root)
}

/// The model of a preset with these settings on top, trained into `root` unless it is there; none if that was interrupted.
fn train_preset(preset: &str, set: &[&str], root: &Path) -> Result<Option<PathBuf>> {
    let mut table = config::layers::<Plan>(&[preset.to_owned()])?;
    for assignment in set {
        config::set::<Plan>(&mut table, assignment)?;
    }
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    config::put(&mut table, "name", name.into_owned());
    match Job::from_table(table)?.run_in(root)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

/// Runs a plan in a folder, shown on the console, stoppable by Ctrl-C.
fn execute(
    plan: Plan,
    folder: RunFolder,
    source: Option<Params>,
    data: Arc<dyn ImageSource>,
    device: Device,
    peers: Arc<ProcessGroup>,
) -> Result<Ending, TrainError> {
    listen();
    let evaluator = match plan.eval.every {
        0 => None,
        _ => Some(evaluator(&plan).map_err(|e| TrainError::Evaluation(format!("{e:#}")))?),
    };
    let mut console = Console::new(&plan.name);
    let setup = Setup {
        plan,
        folder,
        source,
        data,
        evaluator,
        device,
        peers,
    };
    let ending = run(setup, &STOP, &mut console);
    console.finish();
    ending
}

/// What the samples of a run are looked at with: the embedded judge on digits, Inception on everything else.
fn evaluator(plan: &Plan) -> Result<Evaluator> {
    if plan.data.path == assets::DIGITS {
        let present = match plan.data.classes.as_deref() {
            None | Some([]) => (0..10).collect(),
            Some(classes) => classes.to_vec(),
        };
        return Ok(Evaluator {
            extractor: judge::extractor()?,
            judge: Some((judge::load()?, present)),
        });
    }
    let files = [PathBuf::from(&plan.eval.weights)];
    let extractor = Extractor::read(View::Inception(InceptionResize::default()), &files)?;
    if extractor.weights() != plan.eval.weights_sha256 {
        anyhow::bail!(
            "{}: other weights than the run began with: their SHA-256 was {}, now it is {}",
            plan.eval.weights,
            plan.eval.weights_sha256,
            extractor.weights()
        );
    }
    Ok(Evaluator {
        extractor,
        judge: None,
    })
}

/// Finds Inception's weights for a run that evaluates, before there is a run.
fn locate_eval_weights(plan: &mut Plan) -> Result<()> {
    if plan.eval.every == 0 || plan.data.path == assets::DIGITS {
        return Ok(());
    }
    if plan.eval.weights.is_empty() {
        let otherwise =
            "give --set eval.weights=FILE, or leave the evaluation out with --set eval.every=0";
        let files = Weights::parse(&[])?.of(Network::Inception, otherwise)?;
        let file = files.weights.first().context("no file of weights")?;
        plan.eval.weights = file.display().to_string();
    }
    let path = Path::new(&plan.eval.weights);
    if !path.is_file() {
        return Err(usage(format!(
            "eval.weights: {} is no file",
            path.display()
        )));
    }
    plan.eval.weights_sha256 = sdft_checkpoint::sha256_file(path)?;
    Ok(())
}

/// A model, with what should be known about how it was read; an empty `key` chooses a part of its file.
pub(crate) fn load_source(
    name: &str,
    key: &str,
    given: Map<String, Value>,
    given_process: Map<String, Value>,
) -> Result<LoadedModel> {
    let options = LoadOptions {
        given,
        given_process,
        key: (!key.is_empty()).then(|| key.to_owned()),
        ..LoadOptions::default()
    };
    let model = load_model(name, &options)?;
    for note in &model.notes {
        console::note(note);
    }
    Ok(model)
}

/// Fails unless a model is that which a run began with.
pub(crate) fn unchanged(name: &str, began_with: &str, model: &LoadedModel) -> Result<()> {
    if model.sha256 != began_with {
        anyhow::bail!(
            "{name}: the model changed since the run began: its SHA-256 was {began_with}, now it is {}",
            model.sha256
        );
    }
    Ok(())
}

/// A resolve_precision section as fields that were all given.
pub(crate) fn all_fields(section: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(section) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Images whose pixels are part of a data set's fingerprint, spread over all of it.
const FINGERPRINTED: usize = 32;

/// What tells one set of images from another: all names, and the pixels of some.
pub(crate) fn fingerprint(data: &dyn ImageSource) -> Result<String> {
    let mut bytes = Vec::new();
    for i in 0..data.len() {
        bytes.extend(data.id(i).into_bytes());
        bytes.push(0);
    }
    let stride = data.len().div_ceil(FINGERPRINTED).max(1);
    for i in (0..data.len()).step_by(stride) {
        bytes.extend(data.image(i)?.pixels);
    }
    Ok(sdft_checkpoint::sha256_bytes(&bytes))
}

/// The model behind a name: the embedded one, or a file.
pub(crate) fn load_model(name: &str, options: &LoadOptions) -> Result<LoadedModel> {
    if name == assets::DIGITS_SOURCE {
        return Ok(load_unet_bytes(
            name,
            assets::DIGITS_SOURCE_WEIGHTS,
            options,
        )?);
    }
    Ok(load_unet(Path::new(name), options)?)
}

pub(crate) fn open_data(plan: &DataPlan, size: usize) -> Result<Arc<dyn ImageSource>> {
    if plan.path == assets::DIGITS {
        let style = plan.style.as_deref().unwrap_or("chalk");
        let style: Style = style
            .parse()
            .map_err(|e| usage(format!("data.style: {e}")))?;
        if size != Digits::SIZE {
            return Err(usage(format!(
                "data.path: the digits are {0}x{0}, the model takes {size}x{size}",
                Digits::SIZE
            )));
        }
        let per_class = match plan.per_class {
            None | Some(0) => usize::MAX,
            Some(n) => n,
        };
        let classes = plan.classes.as_deref().unwrap_or_default();
        let source = DigitsSource::new(Digits::embedded()?, style, classes, per_class)?;
        return Ok(Arc::new(source));
    }
    let (source, report) = FolderSource::open(Path::new(&plan.path), size, plan.strict)?;
    for note in report.notes() {
        console::note(&format!("{}: {note}", plan.path));
    }
    Ok(Arc::new(source))
}
