//! Training a diffusion model: from random weights, by naive fine-tuning, or with SDFT.

use super::describe::{describe_device, describe_method};
use super::evaluation::{evaluator, locate_eval_weights};
use super::methods::{ant_classifier, fix_bank, method_inputs, pin_bank};
use super::networks::{
    Networks, OWN_KEYS, TrainPlan, classes, fit_source, metadata, networks, resolved_form, validate,
};
use super::options::{make_absolute, moved, note_changed_rate};
use super::presets::{TRAINING, plan as plan_of};
use super::run::{Run, Training};
use super::settings::{TrainOptions, fit_architecture, fit_process, fit_to_images};
use crate::context::Context;
use crate::data::{Form, fingerprint, open_data, same_images};
use crate::error::{Result, usage};
use crate::estimate::{Estimate, disk, estimate, memory_of};
use crate::latents::{keep_autoencoder, reload_autoencoder, with_latents};
use crate::model::{
    ModelFile, all_fields, check_unchanged, fields_of, load_autoencoder, load_source,
    source_options,
};
use sdft_autoencoder::{AutoencoderFile, Space};
use sdft_data::{ClassesFrom, ImageSource};
use sdft_files::plural;
use sdft_imaging::{Depth, ImageSpec};
use sdft_models::{
    Adapted, LoadOptions, LoadedAutoencoder, LoadedEncoder, LoadedModel, convert_to_diffusers,
};
use sdft_parallel::ProcessGroup;
use sdft_settings::{given, layers, put, set_all};
use sdft_train::{ClassesPlan, DataPlan, Ending, ModelFormat, RunFolder, Setup, run};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Table;

/// A run that trains a diffusion model.
pub type TrainJob = Run<FineTuning>;

/// The opened inputs of a [`TrainJob`].
pub struct FineTuning {
    source: Option<Adapted>,
    data: Arc<dyn ImageSource>,
    /// ANT's classifier.
    classifier: Option<LoadedEncoder>,
    /// The autoencoder in whose latents the network works.
    autoencoder: Option<Arc<LoadedAutoencoder>>,
    group: Arc<ProcessGroup>,
}

/// The keys that can change when a run is resumed.
const ALLOWED: [&str; 4] = [
    "loop.steps",
    "loop.recompute",
    "loop.precision",
    "eval.patience",
];

impl TrainJob {
    /// A new run with these options.
    ///
    /// # Errors
    /// See [`TrainJob::from_settings`].
    pub fn new(options: &TrainOptions, context: &mut Context<'_>) -> Result<Self> {
        let table = options.settings(context)?;
        let mut run = Self::from_settings(table, context)?;
        run.presets = options.configs(&options.asked()?).0;
        Ok(run.in_folder_of(&options.run.out, options.run.name.is_some()))
    }

    /// A new run with the settings of a table, in the folder of its name. The source model's file decides the architecture and the
    /// process.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that do not fit together or contradict the source model
    /// - models, weights or images that cannot be read
    pub fn from_settings(table: Table, context: &mut Context<'_>) -> Result<Self> {
        let (mut model, process) = (given(&table, "model"), given(&table, "process"));
        for key in OWN_KEYS {
            model.remove(key);
        }
        let is_base_given = given(&table, "loss").contains_key("base");
        let mut plan: TrainPlan = plan_of(table, context)?;
        // Checks that need no files come first.
        plan.validate().map_err(|e| usage(e.to_string()))?;
        if !plan.source.is_empty() {
            plan.source = ModelFile::find_lasting(&plan.source)?.noted(context);
        }
        for path in [
            &mut plan.source,
            &mut plan.data.path,
            &mut plan.eval.weights,
        ]
        .into_iter()
        .chain(&mut plan.data.masks)
        {
            make_absolute(path);
        }
        if let Some(ClassesPlan::From(ClassesFrom::File(file))) = &mut plan.data.classes {
            let mut path = file.display().to_string();
            make_absolute(&mut path);
            *file = path.into();
        }
        let mut autoencoder = autoencoder_of(&mut plan, None, context)?;
        let source = if plan.source.is_empty() {
            fit_to_images(&mut plan, &model)?;
            fit_architecture(&mut plan.model, &model);
            fit_process(&mut plan);
            None
        } else {
            let given = LoadOptions {
                autoencoder: autoencoder.take(),
                ..source_options(&plan.source_key, model, process)
            };
            let model = load_source(&plan.source, &given, context)?;
            plan.source_sha256.clone_from(&model.sha256);
            autoencoder.clone_from(&model.autoencoder);
            plan.model.autoencoder = autoencoder.as_deref().map(|autoencoder| {
                let path = autoencoder.path.display().to_string();
                AutoencoderFile::new(path, &autoencoder.record)
            });
            let dropout = plan.model.dropout();
            plan.model.architecture = model.architecture.clone().with_dropout(dropout);
            plan.process = model.process.clone();
            Some(model)
        };
        if !is_base_given {
            plan.loss.base = plan.process.usual_base();
        }
        plan.steps.precision = context.precision_or(plan.steps.precision);
        validate(&plan).map_err(|e| usage(e.to_string()))?;
        let data = open_data(&plan.data, &form(&plan, source.as_ref()), context)?;
        plan.data.fingerprint = fingerprint(data.as_ref())?;
        plan.data.resolve(data.as_ref(), plan.model.form().size);
        let mut classifier = None;
        let source = match source {
            Some(source) => {
                let shape = source.state_shape(data.spec());
                classifier = ant_classifier(&mut plan, &source, shape, context)?;
                let adapted = fit_source(&mut plan, &source, data.as_ref())?;
                context.notes(&adapted.notes);
                Some(adapted)
            }
            None => {
                let classes = classes(&plan);
                let architecture = plan.model.architecture.clone();
                plan.model.architecture = architecture.with_classes(classes.as_ref());
                None
            }
        };
        if !plan.adapter.is_full() {
            plan.adapter = plan.adapter.resolved(&plan.model.trainable_specs()?);
        }
        validate(&plan).map_err(|e| usage(e.to_string()))?;
        locate_eval_weights(&mut plan)?;
        fix_bank(&mut plan, context)?;
        let inputs = FineTuning::new(source, data, classifier, autoencoder);
        Ok(Self::new_run(plan, inputs))
    }

    /// The run in a folder, to be continued from its newest checkpoint. Of the options, `steps` and `set` change the plan; `source` and
    /// `data` are the new paths of moved files.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that cannot change
    /// - a folder without a run, or one that another process uses
    /// - a source model or images that are missing or have changed
    pub fn resume(
        folder: &Path,
        options: &TrainOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let (folder, stored) = RunFolder::open::<TrainPlan>(folder)?;
        let steps = stored.steps.steps;
        let mut plan = options.run.change(stored, &ALLOWED, context)?;
        validate(&plan).map_err(|e| usage(e.to_string()))?;
        if let Some(source) = &options.source {
            moved(
                &mut plan.source,
                Some(&ModelFile::find(source)?.noted(context)),
            );
        }
        moved(&mut plan.data.path, options.data.as_deref());
        plan.steps.precision = context.precision_or(plan.steps.precision);
        let autoencoder = autoencoder_of(&mut plan, Some(folder.root()), context)?;
        let source = reload_source(&plan, autoencoder.clone(), context)?;
        let DataPlan {
            path, fingerprint, ..
        } = &plan.data;
        let data = same_images(path, fingerprint, "--data", || {
            open_data(&plan.data, &resolved_form(&plan), context)
        })?;
        let mut classifier = None;
        let source = match source {
            Some(source) => {
                let shape = source.state_shape(data.spec());
                classifier = ant_classifier(&mut plan, &source, shape, context)?;
                Some(fit_source(&mut plan, &source, data.as_ref())?)
            }
            None => None,
        };
        if plan.steps.steps != steps {
            note_changed_rate(plan.optim.schedule, context);
        }
        let inputs = FineTuning::new(source, data, classifier, autoencoder);
        Ok(Self::resumed(plan, inputs, folder))
    }

    /// Shares every batch among the processes of a group. This process is rank 0; the others call [`follow`](super::follow).
    pub fn with_group(mut self, group: Arc<ProcessGroup>) -> Self {
        self.inputs.group = group;
        self
    }

    /// The number of training images.
    pub fn images(&self) -> usize {
        self.inputs.data.len()
    }
}

/// Trains the model of a preset with these settings into `root`, unless it exists. Returns the file of the model, or `None` if the run
/// was interrupted.
///
/// # Errors
/// Those of [`TrainJob::from_settings`] and [`Run::run_in`].
pub fn train_preset(
    preset: &str,
    assignments: &[&str],
    root: &Path,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    let mut table = layers::<TrainPlan>(&TRAINING, &[preset])?;
    set_all::<TrainPlan>(&mut table, assignments)?;
    train_table(table, root, context)
}

/// The plan that a table of settings describes. Settings that its images do not have are dropped with a note.
///
/// # Errors
/// An unknown key or a value of another type.
pub fn train_plan(table: Table, context: &mut Context<'_>) -> Result<TrainPlan> {
    plan_of(table, context)
}

/// Trains the model of a table of settings into `root`, unless it exists. The run is named after its folder and keeps its last checkpoint.
/// Returns the file of the model, or `None` if the run was interrupted.
///
/// # Errors
/// Those of [`TrainJob::from_settings`] and [`Run::run_in`].
pub fn train_table(
    mut table: Table,
    root: &Path,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    put(&mut table, "name", name.into_owned());
    put(&mut table, "output.keep", 1);
    match TrainJob::from_settings(table, context)?.run_in(root, context)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

/// How many runs like this one the machine holds at once: as many as there are threads, if memory allows. A GPU holds one.
///
/// # Errors
/// Those of [`TrainJob::from_settings`].
pub fn runs_at_once(table: &Table, context: &mut Context<'_>) -> Result<usize> {
    if !context.device.is_cpu() {
        return Ok(1);
    }
    let job = TrainJob::from_settings(table.clone(), context)?;
    let threads = rayon::current_num_threads();
    Ok(memory_of(job.plan())?.times_available().clamp(1, threads))
}

impl FineTuning {
    fn new(
        source: Option<Adapted>,
        data: Arc<dyn ImageSource>,
        classifier: Option<LoadedEncoder>,
        autoencoder: Option<Arc<LoadedAutoencoder>>,
    ) -> Self {
        Self {
            source,
            data,
            classifier,
            autoencoder,
            group: Arc::new(ProcessGroup::single()),
        }
    }
}

impl Training for FineTuning {
    type Plan = TrainPlan;

    fn name(plan: &mut TrainPlan) -> &mut String {
        &mut plan.name
    }

    fn warnings(plan: &TrainPlan) -> Vec<String> {
        plan.warnings()
    }

    fn check(&self, plan: &TrainPlan, context: &mut Context<'_>) -> Result<()> {
        let compares = plan.loss.pairwise.weight > 0.0 || plan.loss.pairwise.hf_weight > 0.0;
        if compares && plan.steps.batch < 2 * self.group.size() {
            return Err(usage(format!(
                "loss.pairwise: expected at least 2 images for each of {} processes, found a batch of {}",
                self.group.size(),
                plan.steps.batch
            )));
        }
        if plan.steps.batch < self.group.size() {
            return Err(usage(format!(
                "loop.batch: expected at least one image for each of {} processes, found {}",
                self.group.size(),
                plan.steps.batch
            )));
        }
        memory_of(plan)?.check(&context.device)
    }

    fn estimate(&self, plan: &TrainPlan, context: &mut Context<'_>) -> Result<Estimate> {
        estimate(plan, self.data.len(), &context.device)
    }

    fn disk(&self, plan: &TrainPlan) -> Result<(u64, u64)> {
        let (checkpoint, all) = disk(plan)?;
        Ok((all, checkpoint))
    }

    fn train(
        self,
        plan: TrainPlan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending> {
        let spec = *self.data.spec();
        context.progress.note(&format!(
            "{}: {} on {} of {spec}{}, {} of {}{}; writes {}",
            plan.name,
            describe_method(&plan),
            plural(self.data.len(), "image", "images"),
            match plan.data.class_names.len() {
                0 => String::new(),
                n => format!(" in {}", plural(n, "class", "classes")),
            },
            plural(plan.steps.steps, "step", "steps"),
            plan.steps.batch,
            describe_device(&plan, &context.device, self.group.size()),
            folder.root().display()
        ));
        let Self {
            source,
            mut data,
            classifier,
            autoencoder,
            group,
        } = self;
        let (mut shared, mut space) = (plan.clone(), Space::images(spec));
        // Before the other processes look for them.
        if let Some(autoencoder) = &autoencoder {
            data = with_latents(data, autoencoder, plan.data.flip, context)?;
            let copy = keep_autoencoder(folder.root(), autoencoder)?;
            if let Some(file) = &mut shared.model.autoencoder {
                file.path = copy.display().to_string();
                make_absolute(&mut file.path);
            }
            space = kept_space(spec, autoencoder, copy, &plan, context);
        }
        let methods = method_inputs(&plan, classifier.as_ref(), autoencoder.as_ref(), context)?;
        // From here on it is read for previews only.
        drop(autoencoder);
        if let Some(bank) = &methods.bank {
            shared.loss.bank.fingerprint = pin_bank(folder.root(), bank.as_ref())?;
        }
        group.broadcast(toml::to_string(&shared)?.into_bytes())?;
        let evaluator = match plan.eval.every {
            0 => None,
            _ => Some(evaluator(&plan, &context.device)?),
        };
        let Networks { network, source } = networks(&plan, source, &context.device)?;
        let setup = Setup {
            metadata: metadata(&plan, data.as_ref())?,
            plan,
            folder,
            network,
            source,
            data,
            space,
            methods,
            evaluator,
            device: context.device.clone(),
            group,
        };
        let (format, root) = (setup.plan.output.format, setup.folder.root().to_owned());
        let ending = run(setup, context.stop, context.progress)?;
        if let (Ending::Finished { model, .. }, ModelFormat::Diffusers) = (&ending, format) {
            let folder = root.join("diffusers");
            let notes = convert_to_diffusers(model, &folder, &LoadOptions::default(), None)?;
            context.notes(notes);
            context.notes([format!("for diffusers: {}", folder.display())]);
        }
        Ok(ending)
    }
}

/// The form of the images of a new run: that of the source model, or of a new network.
fn form(plan: &TrainPlan, source: Option<&LoadedModel>) -> Form {
    let own = plan.model.form();
    match source {
        None => own,
        // Nearly all models state no depth, and take what the files have.
        Some(source) if source.image.depth == Depth::U8 => Form {
            size: [source.image.height, source.image.width],
            ..own
        },
        Some(source) => Form::of(&source.image),
    }
}

/// The autoencoder of a plan: the copy in the folder of the run, or the one that the plan names. It must not have changed.
pub(super) fn autoencoder_of(
    plan: &mut TrainPlan,
    root: Option<&Path>,
    context: &mut Context<'_>,
) -> Result<Option<Arc<LoadedAutoencoder>>> {
    let Some(file) = &mut plan.model.autoencoder else {
        return Ok(None);
    };
    let loaded = reload_autoencoder(file, root, context)?;
    plan.process.unbounded |= plan.process.sampling.is_none();
    Ok(Some(loaded))
}

/// The way from latents to images of this form, by a copy of the autoencoder in the folder of the run. It is read for each use, because
/// training does not need it.
fn kept_space(
    image: ImageSpec,
    autoencoder: &LoadedAutoencoder,
    copy: PathBuf,
    plan: &TrainPlan,
    context: &Context<'_>,
) -> Space {
    let runtime = context.runtime(plan.steps.precision);
    Space::opened(image, autoencoder.record.config.clone(), move || {
        let path = copy.display().to_string();
        let opened = load_autoencoder(&path).and_then(|loaded| runtime.autoencoder(&loaded));
        opened
            .map(Arc::new)
            .map_err(|e| candle_core::Error::Msg(e.to_string()))
    })
}

/// The source model of a plan, which must not have changed.
pub(super) fn reload_source(
    plan: &TrainPlan,
    autoencoder: Option<Arc<LoadedAutoencoder>>,
    context: &mut Context<'_>,
) -> Result<Option<LoadedModel>> {
    if plan.source.is_empty() {
        return Ok(None);
    }
    let (mut model, process) = (fields_of(&plan.model), all_fields(&plan.process));
    // The run's own channels and classes can differ from the source model's.
    for field in FITTED {
        model.remove(field);
    }
    let given = LoadOptions {
        autoencoder,
        ..source_options(&plan.source_key, model, process)
    };
    let model = load_source(&plan.source, &given, context)?;
    check_unchanged(&plan.source, &plan.source_sha256, &model)?;
    Ok(Some(model))
}

/// The fields of an architecture that follow from the images.
pub(super) const FITTED: [&str; 7] = [
    "in_channels",
    "out_channels",
    "num_classes",
    "num_class_embeds",
    "img_channels",
    "label_dim",
    "num_embeds_ada_norm",
];
