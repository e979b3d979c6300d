use crate::args::{MethodArg, TrainArgs};
use crate::assets::Presets;
use crate::console::{self, Console, duration, size};
use crate::estimate::{Estimate, estimate};
use crate::weights::Weights;
use crate::{INTERRUPTED, assets, config, judge, usage};
use anyhow::{Context, Result};
use candle_core::Device;
use sdft_data::{Digits, DigitsSource, FolderSource, ImageSource, Style};
use sdft_eval::{Extractor, View};
use sdft_features::{InceptionResize, Network};
use sdft_models::{LoadOptions, LoadedModel, load_unet, load_unet_bytes};
use sdft_nn::Params;
use sdft_train::{
    DataPlan, Ending, Examiner, LrSchedule, Plan, RunFolder, Setup, TrainError, free_run_folder,
    run,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toml::Table;

/// Set by Ctrl-C; the loop looks at it between two steps.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) fn train(args: &TrainArgs) -> Result<ExitCode> {
    if args.list {
        return list::<Plan>();
    }
    let job = match &args.resume {
        Some(folder) => Job::resumed(folder, args)?,
        None => Job::fresh(args)?,
    };
    if args.dry_run {
        job.describe()?;
        return Ok(ExitCode::SUCCESS);
    }
    job.start()
}

/// Prints the presets of a command.
pub(crate) fn list<P: Presets>() -> Result<ExitCode> {
    for name in P::preset_names() {
        let about = P::preset(name)
            .and_then(|text| text.lines().next())
            .unwrap_or("")
            .trim_start_matches("# ");
        console::line(format_args!("{name:17} {about}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a path whole, so that a run can be continued from another folder than the one it was started in; names of what is embedded stay.
pub(crate) fn make_whole(path: &mut String) {
    let embedded = [assets::DIGITS, assets::DIGITS_SOURCE].contains(&path.as_str());
    match Path::new(path.as_str()).canonicalize() {
        Ok(full) if !embedded => *path = full.display().to_string(),
        _ => {}
    }
}

/// Says how a run of `verb` ended; `label` stands before what shows how good the model is.
pub(crate) fn conclude(
    ending: Result<Ending, TrainError>,
    root: &Path,
    verb: &str,
    label: &str,
) -> Result<ExitCode> {
    match ending {
        Ok(Ending::Finished { model, shown }) => {
            console::line(format_args!("model    {}", model.display()))?;
            let log = root.join("log.jsonl");
            if shown != log {
                console::line(format_args!("{label:8} {}", shown.display()))?;
            }
            console::line(format_args!("log      {}", log.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ending::Interrupted { checkpoint }) => {
            console::line(format_args!("interrupted; saved {}", checkpoint.display()))?;
            console::line(format_args!(
                "go on with: cargo xtask {verb} --resume {}",
                root.display()
            ))?;
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error @ TrainError::Plan(_)) => Err(usage(error.to_string())),
        Err(error) => {
            let context = format!("the run in {} stopped", root.display());
            Err(anyhow::Error::new(error).context(context))
        }
    }
}

/// What everyone should know who changes the number of steps on the way.
pub(crate) fn note_changed_rate(schedule: LrSchedule) {
    if schedule != LrSchedule::Constant {
        console::note(
            "the learning rate follows the number of steps, so another number changes its course from here on",
        );
    }
}

/// A run that is ready to go.
pub(crate) struct Job {
    plan: Plan,
    source: Option<Params>,
    data: Arc<dyn ImageSource>,
    place: Place,
}

enum Place {
    /// A folder that is not there yet.
    New(std::path::PathBuf),
    /// The folder of an earlier run.
    Old(RunFolder),
}

impl Job {
    fn fresh(args: &TrainArgs) -> Result<Self> {
        let table = assemble(args)?;
        let named = args.name.is_some();
        let mut job = Self::from_table(table)?;
        let root = args.out.join(&job.plan.name);
        let root = if named {
            root
        } else {
            free_run_folder(&args.out, &job.plan.name)
        };
        if let Some(name) = root.file_name().and_then(|name| name.to_str()) {
            name.clone_into(&mut job.plan.name);
        }
        job.place = Place::New(root);
        Ok(job)
    }

    /// Resolves a table of settings: source model, architecture, data.
    pub(crate) fn from_table(table: Table) -> Result<Self> {
        let given = config::given(&table, "model");
        let given_process = config::given(&table, "process");
        let mut plan: Plan = config::plan(table)?;
        // What does not depend on files is checked before they are read.
        plan.validate_settings().map_err(|e| usage(e.to_string()))?;
        for path in [
            &mut plan.source,
            &mut plan.data.path,
            &mut plan.eval.weights,
        ] {
            make_whole(path);
        }
        let source = if plan.source.is_empty() {
            None
        } else {
            let model = load_source(&plan, given, given_process)?;
            plan.source_sha256.clone_from(&model.sha256);
            plan.model = sdft_adm::AdmConfig {
                dropout: plan.model.dropout,
                ..model.config
            };
            plan.process = model.process;
            Some(model.params)
        };
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let data = open_data(&plan.data, plan.model.image_size)?;
        plan.data.fingerprint = fingerprint(data.as_ref())?;
        locate_eval_weights(&mut plan)?;
        let place = Place::New(std::path::PathBuf::from(&plan.name));
        Ok(Self {
            plan,
            source,
            data,
            place,
        })
    }

    fn resumed(folder: &Path, args: &TrainArgs) -> Result<Self> {
        let (folder, mut plan) = RunFolder::open::<Plan>(folder)?;
        let mut changes = Table::new();
        for assignment in &args.set {
            let key = assignment.split('=').next().unwrap_or_default().trim();
            if !["loop.steps", "loop.recompute", "eval.patience"].contains(&key)
                && !key.starts_with("output.")
            {
                return Err(usage(format!(
                    "--set {assignment}: a run goes on with the plan it was started with; only loop.steps, loop.recompute, eval.patience and output.* can change"
                )));
            }
            config::set::<Plan>(&mut changes, assignment)?;
        }
        if let Some(steps) = args.steps {
            config::put(
                &mut changes,
                "loop.steps",
                i64::try_from(steps).unwrap_or(i64::MAX),
            );
        }
        let changed = !changes.is_empty();
        if changed {
            let mut table = Table::try_from(&plan).context("the plan cannot be changed")?;
            for (section, values) in changes {
                for (key, value) in values.as_table().cloned().unwrap_or_default() {
                    config::put(&mut table, &format!("{section}.{key}"), value);
                }
            }
            plan = config::plan(table)?;
            plan.validate().map_err(|e| usage(e.to_string()))?;
        }
        let source = if plan.source.is_empty() {
            None
        } else {
            let model = load_source(&plan, all_fields(&plan.model), all_fields(&plan.process))?;
            if model.sha256 != plan.source_sha256 {
                anyhow::bail!(
                    "{}: the source model changed since the run began: its SHA-256 was {}, now it is {}",
                    plan.source,
                    plan.source_sha256,
                    model.sha256
                );
            }
            Some(model.params)
        };
        let data = open_data(&plan.data, plan.model.image_size)?;
        if fingerprint(data.as_ref())? != plan.data.fingerprint {
            anyhow::bail!(
                "{}: these are not the images that the run began with, and it would not go on as it began; \
                 put them back, or start a new run with --source CHECKPOINT/weights.safetensors",
                plan.data.path
            );
        }
        if changed {
            folder.write_plan(&plan)?;
            note_changed_rate(plan.optim.schedule);
        }
        Ok(Self {
            plan,
            source,
            data,
            place: Place::Old(folder),
        })
    }

    /// The plan, and what it will take.
    fn describe(&self) -> Result<()> {
        let text = toml::to_string(&self.plan).context("the plan cannot be written")?;
        console::line(text)?;
        let Estimate {
            step_seconds,
            memory,
            checkpoint,
            disk,
            parameters,
        } = estimate(&self.plan)?;
        let time = Duration::try_from_secs_f64(step_seconds * self.plan.steps.steps as f64)
            .unwrap_or(Duration::MAX);
        console::line(format_args!(
            "# {} images, {parameters} parameters",
            self.data.len()
        ))?;
        console::line(format_args!(
            "# time    about {} on this machine, by a trial pass",
            duration(time)
        ))?;
        console::line(format_args!("# memory  about {}", size(memory)))?;
        console::line(format_args!(
            "# disk    about {} ({} a checkpoint, {} kept)",
            size(disk),
            size(checkpoint),
            self.plan.output.keep
        ))?;
        if let Place::New(root) = &self.place {
            console::line(format_args!("# writes  {}", root.display()))?;
        }
        Ok(())
    }

    fn start(self) -> Result<ExitCode> {
        let Self {
            plan,
            source,
            data,
            place,
        } = self;
        let folder = match place {
            Place::New(root) => RunFolder::create(&root, &plan)?,
            Place::Old(folder) => folder,
        };
        let root = folder.root().to_owned();
        console::note(&format!(
            "{} on {} images, {} steps of {}; writes {}",
            plan.name,
            data.len(),
            plan.steps.steps,
            plan.steps.batch,
            root.display()
        ));
        let ending = execute(plan, folder, source, data);
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
            let model = folder.final_model();
            if model.is_file() {
                let shown = folder.samples();
                return Ok(Ending::Finished { model, shown });
            }
            folder
        } else {
            RunFolder::create(root, &plan)?
        };
        execute(plan, folder, source, data)
            .with_context(|| format!("the run in {} stopped", root.display()))
    }
}

/// The model of the embedded example, trained into `root` unless it is there; none if that was interrupted.
pub(crate) fn train_digits(root: &Path) -> Result<Option<PathBuf>> {
    let mut table = config::layers::<Plan>(&["digits-sdft".to_owned()])?;
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
) -> Result<Ending, TrainError> {
    listen();
    let examiner = match plan.eval.every {
        0 => None,
        _ => Some(examiner(&plan).map_err(|e| TrainError::Evaluation(format!("{e:#}")))?),
    };
    let mut console = Console::new(&plan.name);
    let setup = Setup {
        plan,
        folder,
        source,
        data,
        examiner,
        device: Device::Cpu,
    };
    let ending = run(setup, &STOP, &mut console);
    console.finish();
    ending
}

/// What the samples of a run are looked at with: the embedded judge on digits, Inception on everything else.
fn examiner(plan: &Plan) -> Result<Examiner> {
    if plan.data.path == assets::DIGITS {
        let present = match plan.data.classes.is_empty() {
            true => (0..10).collect(),
            false => plan.data.classes.clone(),
        };
        return Ok(Examiner {
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
    Ok(Examiner {
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

/// Presets and files, then flags, then `--set`.
fn assemble(args: &TrainArgs) -> Result<Table> {
    // Without anything said it is the embedded example; with data of one's own, the paper's settings are the start.
    let configs = if args.config.is_empty() && args.data.is_none() && args.source.is_none() {
        vec!["digits-sdft".to_owned()]
    } else {
        args.config.clone()
    };
    let mut table = config::layers::<Plan>(&configs)?;
    let text = |table: &mut Table, key: &str, value: &Option<String>| {
        if let Some(value) = value {
            config::put(table, key, value.as_str());
        }
    };
    text(&mut table, "source", &args.source);
    text(&mut table, "source_key", &args.source_key);
    text(&mut table, "data.path", &args.data);
    text(&mut table, "name", &args.name);
    let number = |table: &mut Table, key: &str, value: Option<u64>| -> Result<()> {
        if let Some(value) = value {
            let value =
                i64::try_from(value).map_err(|_| usage(format!("{key}: {value} is too large")))?;
            config::put(table, key, value);
        }
        Ok(())
    };
    number(&mut table, "loop.steps", args.steps)?;
    number(&mut table, "loop.batch", args.batch)?;
    number(&mut table, "seed", args.seed)?;
    if let Some(method) = args.method {
        let name = match method {
            MethodArg::Scratch => "scratch",
            MethodArg::Naive => "naive",
            MethodArg::Sdft => "sdft",
        };
        config::put(&mut table, "method", name);
    }
    if args.strict {
        config::put(&mut table, "data.strict", true);
    }
    for assignment in &args.set {
        config::set::<Plan>(&mut table, assignment)?;
    }
    Ok(table)
}

/// The source model of a plan, with what should be known about how it was read.
fn load_source(
    plan: &Plan,
    given: Map<String, Value>,
    given_process: Map<String, Value>,
) -> Result<LoadedModel> {
    let key = (!plan.source_key.is_empty()).then(|| plan.source_key.clone());
    let options = LoadOptions {
        given,
        given_process,
        key,
        ..LoadOptions::default()
    };
    let model = load_model(&plan.source, &options)?;
    for note in &model.notes {
        console::note(note);
    }
    Ok(model)
}

/// A settled section as fields that were all given.
fn all_fields(section: &impl serde::Serialize) -> Map<String, Value> {
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
        let style: Style = plan
            .style
            .parse()
            .map_err(|e| usage(format!("data.style: {e}")))?;
        if size != Digits::SIZE {
            return Err(usage(format!(
                "data.path: the digits are {0}x{0}, the model takes {size}x{size}",
                Digits::SIZE
            )));
        }
        let per_class = if plan.per_class == 0 {
            usize::MAX
        } else {
            plan.per_class
        };
        let source = DigitsSource::new(Digits::embedded()?, style, &plan.classes, per_class)?;
        return Ok(Arc::new(source));
    }
    let (source, report) = FolderSource::open(Path::new(&plan.path), size, plan.strict)?;
    if !report.unreadable.is_empty() {
        console::note(&report.to_string());
    }
    Ok(Arc::new(source))
}

/// First Ctrl-C: finish the step, save, leave. Second: leave at once.
pub(crate) fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let handler = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(INTERRUPTED));
            }
            console::note(
                "interrupted: finishing what is under way and saving; once more to leave at once",
            );
        });
        if let Err(error) = handler {
            console::note(&format!("Ctrl-C will stop without saving: {error}"));
        }
    });
}
