//! Training the classifier of noised images that EGSDE needs.

use super::options::{RunOptions, make_absolute, moved, note_changed_rate};
use super::presets::{CLASSIFIERS, plan as plan_of};
use super::run::{Run, Training};
use crate::context::Context;
use crate::data::{Form, fingerprint, open_data, same_images};
use crate::error::{Result, failed, usage};
use crate::estimate::{Estimate, classifier_disk, estimate_classifier, memory_of_classifier};
use crate::latents::{keep_autoencoder, reload_autoencoder, with_latents};
use crate::model::{ModelFile, load_model};
use sdft_autoencoder::AutoencoderFile;
use sdft_classifier::{
    ClassifierModel, ClassifierPlan, ClassifierSetup, DomainPlan, start_classifier,
    train_classifier,
};
use sdft_data::ImageSource;
use sdft_diffusion::Process;
use sdft_files::plural;
use sdft_imaging::Depth;
use sdft_models::{LoadOptions, LoadedAutoencoder, LoadedEncoder, LoadedModel, load_encoder};
use sdft_settings::{given, layers, put, set_all};
use sdft_train::{ClassesPlan, DataPlan, Ending, RunFolder, RunPlan, Size};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Table;

/// A run that trains a classifier.
pub type ClassifierJob = Run<ClassifierTraining>;

/// The opened inputs of a [`ClassifierJob`].
pub struct ClassifierTraining {
    init: Option<LoadedEncoder>,
    /// Source and target.
    domains: [Arc<dyn ImageSource>; 2],
    /// The autoencoder whose latents are classified.
    autoencoder: Option<Arc<LoadedAutoencoder>>,
}

/// The preset if neither presets nor models and images are named.
const EXAMPLE: &str = "emoji-classifier";

/// The keys that can change when a run is resumed.
const ALLOWED: [&str; 3] = ["loop.steps", "loop.recompute", "loop.precision"];

/// Options of a run that trains a classifier; the defaults train that of the embedded example.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// Options of every run.
    pub run: RunOptions,
    /// The images that translations start from: a folder, or the name of embedded ones.
    pub source: Option<String>,
    /// The images of the target domain.
    pub target: Option<String>,
    /// The model that the classifier will guide; its image size and process are used.
    pub model: Option<String>,
    /// A classifier whose trunk is the start.
    pub init: Option<String>,
}

impl ClassifierOptions {
    /// The table of settings: presets and files, then options, then assignments.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::Error::Settings) for an unknown preset or key, or an invalid value.
    pub fn settings(&self) -> Result<Table> {
        let given = [&self.source, &self.target, &self.model, &self.init];
        let is_embedded = self.run.config.is_empty() && given.iter().all(|given| given.is_none());
        let configs = match is_embedded {
            true => vec![EXAMPLE.to_owned()],
            false => self.run.config.clone(),
        };
        let mut table = layers::<ClassifierPlan>(&CLASSIFIERS, &configs)?;
        let texts = [
            ("data.source.path", &self.source),
            ("data.target.path", &self.target),
            ("init", &self.init),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                put(&mut table, key, value.as_str());
            }
        }
        self.run.apply::<ClassifierPlan>(&mut table)?;
        Ok(table)
    }
}

impl ClassifierJob {
    /// A new run with these options.
    ///
    /// # Errors
    /// See [`ClassifierJob::from_settings`].
    pub fn new(options: &ClassifierOptions, context: &mut Context<'_>) -> Result<Self> {
        let run = Self::from_settings(options.settings()?, options.model.as_deref(), context)?;
        Ok(run.in_folder_of(&options.run.out, options.run.name.is_some()))
    }

    /// A new run with the settings of a table, in the folder of its name. `model` is the diffusion model that the classifier will guide.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that do not fit together or contradict a model, or two domains with the same
    ///   images
    /// - models or images that cannot be read
    pub fn from_settings(
        mut table: Table,
        model: Option<&str>,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let process_given = given(&table, "process");
        let guided = match model {
            Some(name) => Some(guided_model(name, &mut table, &process_given, context)?),
            None => None,
        };
        let model_given = given(&table, "model");
        let mut plan: ClassifierPlan = plan_of(table, context)?;
        let mut autoencoder = None;
        if let Some(model) = guided {
            // A classifier predicts a domain, not an image.
            plan.process = model.process.discrete();
            plan.autoencoder = model.autoencoder.as_deref().map(|autoencoder| {
                let path = autoencoder.path.display().to_string();
                AutoencoderFile::new(path, &autoencoder.record)
            });
            autoencoder = model.autoencoder;
        }
        if !plan.init.is_empty() {
            plan.init = ModelFile::find_lasting(&plan.init)?.noted(context);
        }
        for path in [
            &mut plan.init,
            &mut plan.data.source.path,
            &mut plan.data.target.path,
        ] {
            make_absolute(path);
        }
        let is_process_known = model.is_some() || !process_given.is_empty();
        let init = if plan.init.is_empty() {
            let shape = ["channel_mult", "attention_resolutions"];
            if !shape.iter().any(|key| model_given.contains_key(*key)) {
                plan.model.fit_to(plan.model.net.image_size);
            }
            None
        } else {
            Some(read_init(
                &mut plan,
                &model_given,
                is_process_known,
                context,
            )?)
        };
        if model.is_none() && plan.init.is_empty() && model_given.is_empty() {
            let (side, process) = (plan.model.net.image_size, &plan.process);
            context.progress.note(&format!(
                "no --model: the classifier takes images of {side}x{side} and the {} schedule of {} steps; give --model if the model to guide differs",
                process.noise_schedule, process.diffusion_steps
            ));
        }
        plan.steps.precision = context.precision_or(plan.steps.precision);
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let domains = [
            open_domain(&plan, &plan.data.source, context)?,
            open_domain(&plan, &plan.data.target, context)?,
        ];
        plan.data.source.fingerprint = fingerprint(&*domains[0])?;
        plan.data.target.fingerprint = fingerprint(&*domains[1])?;
        if plan.data.source.fingerprint == plan.data.target.fingerprint {
            return Err(usage(format!(
                "data.target.path: {} holds the same images as the source; a classifier needs two different domains",
                plan.data.target.path
            )));
        }
        let inputs = ClassifierTraining {
            init,
            domains,
            autoencoder,
        };
        Ok(Self::new_run(plan, inputs))
    }

    /// The run in a folder, to be continued from its newest checkpoint. Of the options, `steps` and `set` change the plan; `source`,
    /// `target` and `init` are the new paths of moved files.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that cannot change
    /// - a folder without a run, or one that another process uses
    /// - a model or images that are missing or have changed
    pub fn resume(
        folder: &Path,
        options: &ClassifierOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let (folder, stored) = RunFolder::open::<ClassifierPlan>(folder)?;
        let steps = stored.steps.steps;
        let mut plan = options.run.change(stored, &ALLOWED, context)?;
        if let Some(init) = &options.init {
            moved(&mut plan.init, Some(&ModelFile::find(init)?.noted(context)));
        }
        moved(&mut plan.data.source.path, options.source.as_deref());
        moved(&mut plan.data.target.path, options.target.as_deref());
        plan.steps.precision = context.precision_or(plan.steps.precision);
        if plan.steps.steps != steps {
            note_changed_rate(plan.optim.schedule, context);
        }
        // A run with a checkpoint does not need the first weights again.
        let init = if plan.init.is_empty() || folder.has_checkpoint() {
            None
        } else {
            Some(reload_init(&plan)?)
        };
        let mut same = |domain: &DomainPlan, option| {
            let open = || open_domain(&plan, domain, context);
            same_images(&domain.path, &domain.fingerprint, option, open)
        };
        let domains = [
            same(&plan.data.source, "--source")?,
            same(&plan.data.target, "--target")?,
        ];
        let autoencoder = match &mut plan.autoencoder {
            Some(file) => Some(reload_autoencoder(file, Some(folder.root()), context)?),
            None => None,
        };
        let inputs = ClassifierTraining {
            init,
            domains,
            autoencoder,
        };
        Ok(Self::resumed(plan, inputs, folder))
    }
}

/// Trains the classifier of a preset with these settings into `root`, unless it exists. Returns its file, or `None` if the run was
/// interrupted.
///
/// # Errors
/// Those of [`ClassifierJob::from_settings`] and [`Run::run_in`].
pub fn train_classifier_preset(
    preset: &str,
    assignments: &[&str],
    root: &Path,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    let mut table = layers::<ClassifierPlan>(&CLASSIFIERS, &[preset])?;
    set_all::<ClassifierPlan>(&mut table, assignments)?;
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    put(&mut table, "name", name.into_owned());
    match ClassifierJob::from_settings(table, None, context)?.run_in(root, context)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

impl Training for ClassifierTraining {
    type Plan = ClassifierPlan;

    fn name(plan: &mut ClassifierPlan) -> &mut String {
        &mut plan.name
    }

    fn check(&self, plan: &ClassifierPlan, context: &mut Context<'_>) -> Result<()> {
        memory_of_classifier(plan)?.check(&context.device)
    }

    fn estimate(&self, plan: &ClassifierPlan, context: &mut Context<'_>) -> Result<Estimate> {
        let images = self.domains.each_ref().map(|domain| domain.len());
        estimate_classifier(plan, images, &context.device)
    }

    fn disk(&self, plan: &ClassifierPlan) -> Result<(u64, u64)> {
        let all = classifier_disk(plan)?;
        Ok((all, all))
    }

    fn train(
        self,
        plan: ClassifierPlan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending> {
        let params = self.init.as_ref().map(|init| &init.params);
        let (start, taken) =
            start_classifier(&plan.model.encoder(), plan.seed, params, &context.device)?;
        if params.is_some() {
            context.progress.note(&format!(
                "{taken} of {} tensors start as in {}",
                start.len(),
                plan.init
            ));
        }
        let [mut source, mut target] = self.domains;
        if let Some(autoencoder) = &self.autoencoder {
            keep_autoencoder(folder.root(), autoencoder)?;
            for images in [&mut source, &mut target] {
                *images = with_latents(images.clone(), autoencoder, plan.data.flip, context)?;
            }
        }
        let spec = *source.spec();
        context.progress.note(&format!(
            "{}: {} source and {} of {spec}, {} of {}; writes {}",
            plan.name,
            source.len(),
            plural(target.len(), "target image", "target images"),
            plural(plan.steps.steps, "step", "steps"),
            plan.steps.batch,
            folder.root().display()
        ));
        let setup = ClassifierSetup {
            plan,
            folder,
            start,
            source,
            target,
            device: context.device.clone(),
        };
        Ok(train_classifier(setup, context.stop, context.progress)?)
    }
}

/// The diffusion model that the classifier will guide. The form of its images goes into the table.
fn guided_model(
    name: &str,
    table: &mut Table,
    process: &Map<String, Value>,
    context: &mut Context<'_>,
) -> Result<LoadedModel> {
    // A file that does not name its process has the one given for the classifier.
    let stated = serde_json::from_value(process.clone().into());
    let options = LoadOptions {
        process_otherwise: stated.ok().filter(|_| !process.is_empty()),
        ..LoadOptions::default()
    };
    let file = ModelFile::find(name)?.noted(context);
    let model = load_model(&file, &options)?;
    for note in &model.notes {
        context.progress.note(note);
    }
    let image = &model.image;
    let [channels, height, width] = model.state_shape(image);
    let wanted = [("image_size", height.max(width)), ("in_channels", channels)];
    for (field, value) in wanted {
        let set = given(table, "model").remove(field);
        if let Some(set) = set.filter(|set| set.as_u64() != Some(value as u64)) {
            return Err(usage(format!(
                "model.{field}: the network of {name} takes {value}, the configuration has {set}"
            )));
        }
        let value = i64::try_from(value)
            .map_err(|_| failed(format!("{name}: its images are too large")))?;
        put(table, &format!("model.{field}"), value);
    }
    if image.height != image.width {
        let size = Size::new(image.height, image.width);
        put(table, "data.size", size.to_string());
    }
    if image.depth != Depth::U8 {
        let depth = toml::Value::try_from(image.depth)?;
        put(table, "data.depth", depth);
    }
    if image.range != image.depth.full_range() {
        put(table, "data.range", image.range.to_vec());
    }
    if let Some(field) = contradiction(process, &model.process) {
        return Err(usage(format!(
            "process.{field}: {name} was trained with another value, and the classifier must be trained on the same noise"
        )));
    }
    Ok(model)
}

/// The first field that was given and differs from the model's process.
fn contradiction(given: &Map<String, Value>, process: &Process) -> Option<String> {
    let known = serde_json::to_value(process).unwrap_or_default();
    let other = given
        .iter()
        .find(|(field, value)| known.get(*field) != Some(*value));
    other.map(|(field, _)| field.clone())
}

/// The classifier whose trunk is the start. Its architecture goes into the plan, and its process unless one is known.
fn read_init(
    plan: &mut ClassifierPlan,
    given: &Map<String, Value>,
    is_process_known: bool,
    context: &mut Context<'_>,
) -> Result<LoadedEncoder> {
    let mut of_file = given.clone();
    for ours in ["out_channels", "pool"] {
        of_file.remove(ours);
    }
    let options = LoadOptions {
        given: of_file,
        process_otherwise: is_process_known.then(|| plan.process.clone()),
        ..LoadOptions::default()
    };
    let init = load_encoder(Path::new(&plan.init), &options)?;
    for note in &init.notes {
        context.progress.note(note);
    }
    plan.init_sha256.clone_from(&init.sha256);
    let pool = plan.model.pool;
    plan.model = ClassifierModel::from(init.config.clone());
    plan.model.net.out_channels = 2;
    if given.contains_key("pool") {
        plan.model.pool = pool;
    }
    if !is_process_known {
        plan.process = init.process.clone();
    }
    Ok(init)
}

/// The classifier that a run started from, which must not have changed.
fn reload_init(plan: &ClassifierPlan) -> Result<LoadedEncoder> {
    let options = LoadOptions {
        process_otherwise: Some(plan.process.clone()),
        ..LoadOptions::default()
    };
    let init = load_encoder(Path::new(&plan.init), &options)?;
    if init.sha256 != plan.init_sha256 {
        return Err(failed(format!(
            "{}: the file changed since the run began: its SHA-256 was {}, now it is {}",
            plan.init, plan.init_sha256, init.sha256
        )));
    }
    Ok(init)
}

fn open_domain(
    plan: &ClassifierPlan,
    domain: &DomainPlan,
    context: &mut Context<'_>,
) -> Result<Arc<dyn ImageSource>> {
    let data = DataPlan {
        path: domain.path.clone(),
        strict: plan.data.strict,
        style: domain.style.clone(),
        classes: domain.classes.clone().map(ClassesPlan::Digits),
        per_class: domain.per_class,
        only: domain.only.clone(),
        ..DataPlan::default()
    };
    let form = Form {
        size: plan.image_size().sides(),
        channels: Some(plan.image_channels()),
        depth: Some(plan.data.depth.unwrap_or_default()),
        range: plan.data.range,
    };
    open_data(&data, &form, context)
}
