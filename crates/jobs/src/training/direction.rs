//! Training a direction of edits (Asyrp).

use super::edit_options::{DirectionOptions, open_images};
use super::options::{make_absolute, moved, note_changed_rate};
use super::presets::plan as plan_of;
use super::run::{Run, Training};
use crate::cache::CacheLocation;
use crate::condition::{Conditioned, label_of};
use crate::context::Context;
use crate::data::{fingerprint, same_images};
use crate::edit::{
    Inversion, RANGE_STEPS, RangeImages, goal_networks, locate_goal, measure_range, open_goal,
    open_inversions, range_t_boost, range_t_edit,
};
use crate::error::{Result, usage};
use crate::estimate::{DirectionTrial, Estimate, estimate_direction};
use crate::model::{
    ModelFile, all_fields, check_unchanged, fields_of, form_of, load_source, recorded_form,
    source_options,
};
use sdft_asyrp::Goal;
use sdft_autoencoder::Space;
use sdft_data::ImageSource;
use sdft_directions::{DirectionPlan, DirectionSetup, train_direction};
use sdft_files::plural;
use sdft_settings::{given, put};
use sdft_train::{Ending, LrSchedule, RunFolder, RunPlan};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Table;

/// A run that trains a direction.
pub type DirectionJob = Run<DirectionTraining>;

/// The opened inputs of a [`DirectionJob`].
pub struct DirectionTraining {
    net: Conditioned,
    data: Arc<dyn ImageSource>,
    space: Space,
    autoencoder_sha256: Option<String>,
    goal: Goal,
    cache: CacheLocation,
}

impl DirectionJob {
    /// A new run with these options. With [`EditStep::Auto`](super::EditStep::Auto) and `is_dry_run`, the steps are not searched for.
    ///
    /// # Errors
    /// A run of this name in the folder, and the errors of [`DirectionJob::from_settings`].
    pub fn new(
        options: &DirectionOptions,
        is_dry_run: bool,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        // Checked before the editing range is computed.
        options.check_name_is_free()?;
        let mut job = Self::from_settings(options.settings()?, options, context)?;
        match options.finds() {
            [false, false] => {}
            _ if is_dry_run => context.progress.note(&format!(
                "auto: the editing range is found when the run starts, by {} forward passes and twice as many LPIPS distances, which are not counted below",
                job.inputs.data.len() * RANGE_STEPS.min(job.plan.walk.t_0 + 1)
            )),
            found => job.find_range(found, options, context)?,
        }
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
        let mut plan: DirectionPlan = plan_of(table, context)?;
        let [finds_edit, finds_boost] = options.finds();
        // Valid values until they are found.
        let walk = &mut plan.walk;
        if finds_edit {
            walk.t_edit = walk.t_edit.min(walk.t_0);
        }
        if finds_boost {
            walk.t_boost = walk.t_boost.min(walk.t_0);
        }
        // Checks that need no files come first.
        plan.validate_settings().map_err(|e| usage(e.to_string()))?;
        options
            .weights
            .refuse_others(&goal_networks(&plan.goal, finds_edit || finds_boost))?;
        plan.source = ModelFile::find_lasting(&plan.source)?.noted(context);
        make_absolute(&mut plan.source);
        make_absolute(&mut plan.data.path);
        let given = source_options(&plan.source_key, model, process);
        let model = load_source(&plan.source, &given, context)?;
        let form = form_of(&plan.source, &model, None)?;
        plan.image = recorded_form(&model, &form);
        if let Some(class) = &options.class {
            plan.class = Some(label_of("class", class, &model)?);
        }
        plan.source_sha256.clone_from(&model.sha256);
        plan.network_sha256 = model.network_sha256()?;
        plan.model = model.architecture.clone();
        plan.process = model.process.clone();
        plan.validate().map_err(|e| usage(e.to_string()))?;
        let data = open_images(&plan.data, &form, context)?;
        plan.data.fingerprint = fingerprint(&*data)?;
        locate_goal(&mut plan.goal, &options.weights)?;
        let runtime = context.runtime_in_f32();
        let space = runtime.space(&model, form)?;
        let goal = open_goal(&plan.goal, &space, &runtime.device)?;
        let net = runtime.network_in_steps(&model)?;
        let net = Conditioned::new(net, "class", plan.class, None, &model)?;
        let inputs = DirectionTraining {
            net,
            data,
            space,
            autoencoder_sha256: model.autoencoder_sha256(),
            goal,
            cache: options.cache.clone(),
        };
        Ok(Self::new_run(plan, inputs))
    }

    /// Sets the steps that are to be found: `t_edit`, `t_boost`.
    fn find_range(
        &mut self,
        [edit, boost]: [bool; 2],
        options: &DirectionOptions,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let DirectionTraining {
            net,
            data,
            space,
            autoencoder_sha256,
            goal,
            ..
        } = &self.inputs;
        let plan = &mut self.plan;
        let images = RangeImages {
            net,
            data: &**data,
            space,
            autoencoder_sha256: autoencoder_sha256.as_deref(),
            weights: &options.weights,
            cache: &options.cache,
            steps: RANGE_STEPS,
        };
        let curves = measure_range(plan, &images, context)?;
        if edit {
            plan.walk.t_edit = range_t_edit(&curves, goal.cosine())?;
        }
        if boost {
            plan.walk.t_boost = range_t_boost(&curves)?;
        }
        context.progress.note(&format!(
            "range: t_edit {}, t_boost {}",
            plan.walk.t_edit, plan.walk.t_boost
        ));
        plan.validate().map_err(|e| usage(e.to_string()))
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
        let (folder, stored) = RunFolder::open::<DirectionPlan>(folder)?;
        let epochs = stored.pace.epochs;
        let mut plan = options.run.change(stored, &["loop.epochs"], context)?;
        if let Some(epochs) = options.epochs {
            plan.pace.epochs = epochs.into();
            plan.validate().map_err(|e| usage(e.to_string()))?;
        }
        // A rate that falls by epochs does not depend on their number.
        if plan.pace.epochs != epochs && plan.optim.schedule != LrSchedule::Step {
            note_changed_rate(plan.optim.schedule, context);
        }
        if let Some(model) = &options.model {
            moved(
                &mut plan.source,
                Some(&ModelFile::find(model)?.noted(context)),
            );
        }
        moved(&mut plan.data.path, options.data.as_deref());
        locate_goal(&mut plan.goal, &options.weights)?;
        let (model, process) = (fields_of(&plan.model), all_fields(&plan.process));
        let given = source_options(&plan.source_key, model, process);
        let model = load_source(&plan.source, &given, context)?;
        check_unchanged(&plan.source, &plan.source_sha256, &model)?;
        let (path, known) = (&plan.data.path, &plan.data.fingerprint);
        let form = plan.image.unwrap_or_else(|| model.architecture.image());
        let runtime = context.runtime_in_f32();
        let space = runtime.space(&model, form)?;
        let net = runtime.network_in_steps(&model)?;
        let inputs = DirectionTraining {
            data: same_images(path, known, "--data", || {
                open_images(&plan.data, &form, context)
            })?,
            net: Conditioned::new(net, "class", plan.class, None, &model)?,
            goal: open_goal(&plan.goal, &space, &runtime.device)?,
            space,
            autoencoder_sha256: model.autoencoder_sha256(),
            cache: options.cache.clone(),
        };
        Ok(Self::resumed(plan, inputs, folder))
    }
}

/// Trains the direction of a preset with these settings on a model into `root`, unless it exists. Returns its file, or `None` if the run
/// was interrupted.
///
/// # Errors
/// Those of [`DirectionJob::from_settings`] and [`Run::run_in`].
pub fn train_direction_preset(
    preset: &str,
    assignments: &[&str],
    root: &Path,
    model: &str,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    let mut options = DirectionOptions {
        model: Some(model.to_owned()),
        ..DirectionOptions::default()
    };
    options.run.config = vec![preset.to_owned()];
    options.run.set = assignments.iter().map(|&set| set.to_owned()).collect();
    let mut table = options.settings()?;
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    put(&mut table, "name", name.into_owned());
    train_direction_in(root, table, &options, context)
}

/// Trains the direction of a table of settings into `root`, unless it exists. Returns its file, or `None` if the run was interrupted.
///
/// # Errors
/// Those of [`DirectionJob::from_settings`] and [`Run::run_in`].
pub fn train_direction_in(
    root: &Path,
    table: Table,
    options: &DirectionOptions,
    context: &mut Context<'_>,
) -> Result<Option<PathBuf>> {
    match DirectionJob::from_settings(table, options, context)?.run_in(root, context)? {
        Ending::Finished { model, .. } => Ok(Some(model)),
        Ending::Interrupted { .. } => Ok(None),
    }
}

impl Training for DirectionTraining {
    type Plan = DirectionPlan;

    fn name(plan: &mut DirectionPlan) -> &mut String {
        &mut plan.name
    }

    fn check(&self, _: &DirectionPlan, _: &mut Context<'_>) -> Result<()> {
        Ok(())
    }

    fn estimate(&self, plan: &DirectionPlan, context: &mut Context<'_>) -> Result<Estimate> {
        estimate_direction(
            plan,
            &DirectionTrial {
                net: &self.net,
                data: &*self.data,
                space: &self.space,
                goal: &self.goal,
                cache: &self.cache,
                device: &context.device,
            },
        )
    }

    fn disk(&self, _: &DirectionPlan) -> Result<(u64, u64)> {
        Ok((0, 0))
    }

    fn train(
        self,
        plan: DirectionPlan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending> {
        let inversion = Inversion {
            network_sha256: &plan.network_sha256,
            autoencoder_sha256: self.autoencoder_sha256.as_deref(),
            class: plan.class,
            process: &plan.process,
            t_0: plan.walk.t_0,
            steps: plan.walk.inversion,
            precision: context.f32_or_tf32(),
        };
        let latents = open_inversions(&self.cache, &inversion, context);
        let form = self.data.spec();
        context.progress.note(&format!(
            "{}: from {:?} to {:?} on {} of {form}, {}; writes {}",
            plan.name,
            plan.goal.from,
            plan.goal.to,
            plural(self.data.len(), "image", "images"),
            plural(plan.pace.epochs, "epoch", "epochs"),
            folder.root().display(),
        ));
        let setup = DirectionSetup {
            plan,
            folder,
            net: Box::new(self.net),
            goal: self.goal,
            data: self.data,
            space: self.space,
            latents,
            device: context.device.clone(),
        };
        Ok(train_direction(setup, context.stop, context.progress)?)
    }
}
