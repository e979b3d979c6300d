//! Tuning a model for an edit (DiffusionCLIP).

use super::edit_options::{DirectionOptions, open_images};
use super::networks::Trainee;
use super::options::{make_absolute, moved, note_changed_rate};
use super::presets::plan as plan_of;
use super::run::{Run, Training};
use crate::cache::CacheLocation;
use crate::condition::{Conditioned, class_or_null, label_of};
use crate::context::{Context, Runtime};
use crate::data::{fingerprint, same_images};
use crate::edit::{Inversion, goal_networks, locate_goal, open_goal, open_inversions};
use crate::error::{Result, usage};
use crate::estimate::{Estimate, TuningTrial, estimate_tuning, memory_of_tuning, tuning_disk};
use crate::latents::keep_autoencoder;
use crate::model::{
    ModelFile, all_fields, check_unchanged, fields_of, form_of, load_source, recorded_form,
    source_options,
};
use crate::training::sizes_of;
use candle_core::DType;
use sdft_asyrp::Goal;
use sdft_autoencoder::Space;
use sdft_data::ImageSource;
use sdft_diffusion::{ComputeMode, Trainable};
use sdft_directions::{TuningPlan, TuningSetup, tune_model};
use sdft_files::plural;
use sdft_models::{LoadedModel, NetworkFile, form_metadata};
use sdft_settings::given;
use sdft_train::{Ending, LrSchedule, RunFolder, RunPlan};
use std::path::Path;
use std::sync::Arc;
use toml::Table;

/// A run that tunes a model for an edit.
pub type TuningJob = Run<ModelTuning>;

/// The opened inputs of a [`TuningJob`].
pub struct ModelTuning {
    source: LoadedModel,
    data: Arc<dyn ImageSource>,
    space: Space,
    goal: Goal,
    cache: CacheLocation,
}

impl TuningJob {
    /// A new run with these options.
    ///
    /// # Errors
    /// A run of this name in the folder, and the errors of [`TuningJob::from_settings`].
    pub fn new(options: &DirectionOptions, context: &mut Context<'_>) -> Result<Self> {
        options.check_name_is_free()?;
        let job = Self::from_settings(options.settings()?, options, context)?;
        Ok(job.in_folder_of(&options.run.out, options.run.name.is_some()))
    }

    /// A new run with the settings of a table, in the folder of its name. Of the options, `class`, `weights` and `cache` are used.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that do not fit together or contradict the model
    /// - models, weights or images that cannot be read
    pub fn from_settings(
        table: Table,
        options: &DirectionOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let (model, process) = (given(&table, "model"), given(&table, "process"));
        let mut plan: TuningPlan = plan_of(table, context)?;
        // Checks that need no files come first.
        plan.validate_settings().map_err(|e| usage(e.to_string()))?;
        let networks = goal_networks(&plan.goal, false);
        options.weights.refuse_others(&networks)?;
        plan.source = ModelFile::find_lasting(&plan.source)?.noted(context);
        make_absolute(&mut plan.source);
        make_absolute(&mut plan.data.path);
        let given = source_options(&plan.source_key, model, process);
        let source = load_source(&plan.source, &given, context)?;
        let form = form_of(&plan.source, &source, None)?;
        plan.image = recorded_form(&source, &form);
        if let Some(class) = &options.class {
            plan.class = Some(label_of("class", class, &source)?);
        }
        plan.source_sha256.clone_from(&source.sha256);
        plan.network_sha256 = source.network_sha256()?;
        plan.model = source.architecture.clone();
        plan.process = source.process.clone();
        plan.validate().map_err(|e| usage(e.to_string()))?;
        class_or_null("class", plan.class, &source)?;
        if !plan.adapter.is_full() {
            let specs = plan.model.trainable_specs()?;
            plan.adapter = std::mem::take(&mut plan.adapter).resolved(&specs);
        }
        sizes_of(&plan.adapter, &plan.model).map_err(|e| usage(e.to_string()))?;
        let data = open_images(&plan.data, &form, context)?;
        plan.data.fingerprint = fingerprint(&*data)?;
        locate_goal(&mut plan.goal, &options.weights)?;
        let runtime = context.runtime_in_f32();
        let space = runtime.space(&source, form)?;
        let inputs = ModelTuning {
            goal: open_goal(&plan.goal, &space, &runtime.device)?,
            space,
            source,
            data,
            cache: options.cache.clone(),
        };
        Ok(Self::new_run(plan, inputs))
    }

    /// The run in a folder, to be continued from its newest checkpoint. Of the options, `epochs` and `set` change the plan; `model`,
    /// `data` and `weights` are the new paths of moved files.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for settings that cannot change
    /// - a folder without a run, or one that another process uses
    /// - a model, weights or images that are missing or have changed
    pub fn resume(
        folder: &Path,
        options: &DirectionOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        options.refuse_steps()?;
        let (folder, stored) = RunFolder::open::<TuningPlan>(folder)?;
        let epochs = stored.pace.epochs;
        let allowed = ["loop.epochs", "loop.recompute"];
        let mut plan = options.run.change(stored, &allowed, context)?;
        if let Some(epochs) = options.epochs {
            plan.pace.epochs = epochs.into();
            plan.validate().map_err(|e| usage(e.to_string()))?;
        }
        // A rate that changes by epochs does not depend on their number.
        if plan.pace.epochs != epochs && plan.optim.schedule != LrSchedule::Step {
            note_changed_rate(plan.optim.schedule, context);
        }
        if let Some(model) = &options.model {
            let model = ModelFile::find(model)?.noted(context);
            moved(&mut plan.source, Some(&model));
        }
        moved(&mut plan.data.path, options.data.as_deref());
        locate_goal(&mut plan.goal, &options.weights)?;
        let (model, process) = (fields_of(&plan.model), all_fields(&plan.process));
        let given = source_options(&plan.source_key, model, process);
        let source = load_source(&plan.source, &given, context)?;
        check_unchanged(&plan.source, &plan.source_sha256, &source)?;
        let form = plan.image.unwrap_or_else(|| source.architecture.image());
        let (path, known) = (&plan.data.path, &plan.data.fingerprint);
        let data = same_images(path, known, "--data", || {
            open_images(&plan.data, &form, context)
        })?;
        let runtime = context.runtime_in_f32();
        let space = runtime.space(&source, form)?;
        let inputs = ModelTuning {
            goal: open_goal(&plan.goal, &space, &runtime.device)?,
            space,
            source,
            data,
            cache: options.cache.clone(),
        };
        Ok(Self::resumed(plan, inputs, folder))
    }
}

impl ModelTuning {
    /// The original model.
    fn original(&self, plan: &TuningPlan, runtime: &Runtime) -> Result<Conditioned> {
        let net = runtime.network_in_steps(&self.source)?;
        Conditioned::new(net, "class", plan.class, None, &self.source)
    }

    /// Its copy, of which the plan's part is trained.
    fn network(&self, plan: &TuningPlan, runtime: &Runtime) -> Result<Box<dyn Trainable>> {
        let trainee = Trainee {
            model: &plan.model,
            adapter: &plan.adapter,
            prediction_type: plan.process.prediction_type,
            mode: ComputeMode {
                recompute: plan.pace.recompute,
                ..ComputeMode::default()
            },
            seed: plan.seed,
        };
        let params = self.source.params.to(DType::F32, &runtime.device)?;
        let network = trainee.network(&params, &self.source.architecture)?;
        Ok(plan.process.trainable_in_steps(network)?)
    }
}

impl Training for ModelTuning {
    type Plan = TuningPlan;

    fn name(plan: &mut TuningPlan) -> &mut String {
        &mut plan.name
    }

    fn check(&self, plan: &TuningPlan, context: &mut Context<'_>) -> Result<()> {
        memory_of_tuning(plan, &self.space)?.check(&context.device)
    }

    fn estimate(&self, plan: &TuningPlan, context: &mut Context<'_>) -> Result<Estimate> {
        let runtime = context.runtime_in_f32();
        estimate_tuning(&TuningTrial {
            plan,
            networks: &|| {
                let original = self.original(plan, &runtime)?;
                Ok((original, self.network(plan, &runtime)?))
            },
            class: class_or_null("class", plan.class, &self.source)?,
            data: &*self.data,
            space: &self.space,
            goal: &self.goal,
            cache: &self.cache,
            device: &runtime.device,
        })
    }

    fn disk(&self, plan: &TuningPlan) -> Result<(u64, u64)> {
        let (checkpoint, all) = tuning_disk(plan)?;
        Ok((all, checkpoint))
    }

    fn train(
        self,
        plan: TuningPlan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending> {
        let autoencoder = self.source.autoencoder_sha256();
        let inversion = Inversion {
            network_sha256: &plan.network_sha256,
            autoencoder_sha256: autoencoder.as_deref(),
            class: plan.class,
            process: &plan.process,
            t_0: plan.walk.t_0,
            steps: plan.walk.inversion,
            precision: context.f32_or_tf32(),
        };
        let latents = open_inversions(&self.cache, &inversion, context);
        let form = self.data.spec();
        context.progress.note(&format!(
            "{}: a copy of the model{} learns from {:?} to {:?} on {} of {form}, {}; writes {}",
            plan.name,
            match plan.adapter.is_full() {
                true => String::new(),
                false => format!(" as {}", plan.adapter),
            },
            plan.goal.from,
            plan.goal.to,
            plural(self.data.len(), "image", "images"),
            plural(plan.pace.epochs, "epoch", "epochs"),
            folder.root().display(),
        ));
        if let Some(autoencoder) = &self.source.autoencoder {
            keep_autoencoder(folder.root(), autoencoder)?;
        }
        let runtime = context.runtime_in_f32();
        let setup = TuningSetup {
            original: Box::new(self.original(&plan, &runtime)?),
            network: self.network(&plan, &runtime)?,
            class: class_or_null("class", plan.class, &self.source)?,
            metadata: form_metadata(&NetworkFile {
                image: Some(form),
                ..self.source.file()
            })?,
            plan,
            folder,
            goal: self.goal,
            data: self.data,
            space: self.space,
            latents,
            device: runtime.device,
        };
        Ok(tune_model(setup, context.stop, context.progress)?)
    }
}
