//! A prepared run: a resolved plan, its opened inputs, and the folder that it writes.

use crate::context::Context;
use crate::error::{Error, Result, ResultExt as _, failed, usage};
use crate::estimate::Estimate;
use candle_core::{Device, DeviceLocation};
use sdft_cuda::gpus;
use sdft_gallery::space_warning;
use sdft_train::{Ending, Machine, Recorder, RunFolder, RunPlan, TrainError, free_run_folder};
use std::path::{Path, PathBuf};

/// The differences between the kinds of training. `Self` holds the opened models and images of a plan.
pub trait Training: Sized {
    /// The type of `plan.toml`.
    type Plan: RunPlan + PartialEq;

    /// The name of a run.
    fn name(plan: &mut Self::Plan) -> &mut String;

    /// Settings that are valid and probably not intended.
    fn warnings(_: &Self::Plan) -> Vec<String> {
        Vec::new()
    }

    /// Fails before anything is written if the run cannot start on this machine.
    fn check(&self, plan: &Self::Plan, context: &mut Context<'_>) -> Result<()>;

    /// Time, memory and disk of the run in the folder `root`.
    fn estimate(&self, plan: &Self::Plan, context: &mut Context<'_>) -> Result<Estimate>;

    /// Bytes that a run writes: a new one, and one that is resumed.
    fn disk(&self, plan: &Self::Plan) -> Result<(u64, u64)>;

    /// Trains in a folder that holds the plan.
    fn train(
        self,
        plan: Self::Plan,
        folder: RunFolder,
        context: &mut Context<'_>,
    ) -> Result<Ending>;
}

/// A run that is ready to start.
pub struct Run<T: Training> {
    pub(crate) plan: T::Plan,
    pub(crate) inputs: T,
    /// The presets and files of settings that the plan began with, if known.
    pub(crate) presets: Vec<String>,
    place: Place,
}

enum Place {
    /// A folder that does not exist yet.
    New(PathBuf),
    /// The folder of the run that is resumed.
    Resumed(RunFolder),
}

impl<T: Training> Run<T> {
    /// A new run in the folder of its name.
    pub(crate) fn new_run(mut plan: T::Plan, inputs: T) -> Self {
        let place = Place::New(PathBuf::from(&*T::name(&mut plan)));
        Self {
            plan,
            inputs,
            presets: Vec::new(),
            place,
        }
    }

    /// The run that a folder holds.
    pub(crate) fn resumed(plan: T::Plan, inputs: T, folder: RunFolder) -> Self {
        Self {
            plan,
            inputs,
            presets: Vec::new(),
            place: Place::Resumed(folder),
        }
    }

    /// Puts a new run into a folder of `parent`: the one of its name if `is_named`, otherwise the first free one of that name, which then
    /// becomes the name of the run.
    pub fn in_folder_of(mut self, parent: &Path, is_named: bool) -> Self {
        let name = T::name(&mut self.plan);
        let root = match is_named {
            true => parent.join(&*name),
            false => free_run_folder(parent, name),
        };
        if let Some(part) = root.file_name().and_then(|part| part.to_str()) {
            part.clone_into(name);
        }
        self.place = Place::New(root);
        self
    }

    /// The plan with every setting.
    pub fn plan(&self) -> &T::Plan {
        &self.plan
    }

    /// The name of the run.
    pub fn name(&mut self) -> &str {
        T::name(&mut self.plan)
    }

    /// The folder of the run.
    pub fn root(&self) -> &Path {
        match &self.place {
            Place::New(root) => root,
            Place::Resumed(folder) => folder.root(),
        }
    }

    /// Whether the run continues an earlier one.
    pub fn is_resumed(&self) -> bool {
        matches!(self.place, Place::Resumed(_))
    }

    /// Time, memory and disk of the run, by a trial pass of its network on this machine.
    ///
    /// # Errors
    /// A network that cannot be made or run.
    pub fn estimate(&self, context: &mut Context<'_>) -> Result<Estimate> {
        note_warnings::<T>(&self.plan, context);
        let estimate = self.inputs.estimate(&self.plan, context)?;
        let problem = estimate.problem.iter();
        context.notes(problem.map(|problem| format!("warning: {problem}")));
        Ok(estimate)
    }

    /// Trains until the steps are done or the caller stops it, from the newest checkpoint if there is one.
    ///
    /// # Errors
    /// - [`Error::Usage`](crate::Error::Usage) for a plan that does not fit this machine
    /// - a folder that is in use or holds other files
    /// - an error of training
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending> {
        self.inputs.check(&self.plan, context)?;
        let (new, resumed) = self.inputs.disk(&self.plan)?;
        let (folder, needed) = match self.place {
            Place::New(root) => (RunFolder::create(&root, &self.plan)?, new),
            // The other checkpoints exist already.
            Place::Resumed(folder) => {
                folder.write_plan(&self.plan)?;
                (folder, resumed)
            }
        };
        let warning = space_warning(folder.root(), needed);
        train(
            self.inputs,
            self.plan,
            folder,
            (self.presets, warning),
            context,
        )
    }

    /// Trains in the folder `root`, or continues there. A run that is finished is returned without training.
    ///
    /// # Errors
    /// A run of another plan in the folder, and the errors of [`Run::run`].
    pub fn run_in(self, root: &Path, context: &mut Context<'_>) -> Result<Ending> {
        if !root.join("plan.toml").exists() {
            let folder = RunFolder::create(root, &self.plan)?;
            return train(
                self.inputs,
                self.plan,
                folder,
                (self.presets, None),
                context,
            );
        }
        let (folder, stored) = RunFolder::open::<T::Plan>(root)?;
        if stored != self.plan {
            return Err(failed(format!(
                "{}: the run in this folder has another plan; remove or move the folder, or name another --out",
                root.display()
            )));
        }
        match folder.finished() {
            Some(model) => Ok(Ending::Finished {
                model,
                shown: folder.samples(),
            }),
            None => train(
                self.inputs,
                self.plan,
                folder,
                (self.presets, None),
                context,
            ),
        }
    }
}

fn train<T: Training>(
    inputs: T,
    plan: T::Plan,
    folder: RunFolder,
    (presets, warning): (Vec<String>, Option<String>),
    context: &mut Context<'_>,
) -> Result<Ending> {
    let root = folder.root().to_owned();
    let machine = Machine {
        presets,
        ..machine(&context.device)
    };
    let mut recorder = Recorder::start(&folder, machine, &mut *context.progress)?;
    let mut recorded = Context {
        device: context.device.clone(),
        precision: context.precision,
        stop: context.stop,
        group: context.group.clone(),
        progress: &mut recorder,
        on_start: context.on_start,
    };
    recorded.notes(warning);
    note_warnings::<T>(&plan, &mut recorded);
    (recorded.on_start)();
    let ended = inputs.train(plan, folder, &mut recorded);
    let ending = match &ended {
        Ok(Ending::Finished { .. }) => "finished".to_owned(),
        Ok(Ending::Interrupted { .. }) | Err(Error::Interrupted) => "interrupted".to_owned(),
        Err(error) => error.to_string(),
    };
    let recorded = recorder.end(ending, sdft_runtime::peak_memory());
    if let Err(error) = &ended
        && let Some(TrainError::Plan(problem)) = error.train_error()
    {
        return Err(usage(problem.to_string()));
    }
    match ended {
        // The caller asked for it.
        Err(Error::Interrupted) => Err(Error::Interrupted),
        // The first error matters more.
        Err(_) => ended.with_context(|| format!("the run in {} stopped", root.display())),
        Ok(ending) => {
            recorded?;
            Ok(ending)
        }
    }
}

/// How this process computes on a device.
fn machine(device: &Device) -> Machine {
    let gpu = |number: usize| gpus().ok()?.get(number).map(|gpu| gpu.name.clone());
    Machine {
        program: format!("sdft {}", env!("CARGO_PKG_VERSION")),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        presets: Vec::new(),
        device: match device.location() {
            DeviceLocation::Cuda { gpu_id } => gpu(gpu_id).unwrap_or_else(|| "GPU".to_owned()),
            _ => "cpu".to_owned(),
        },
        processor: sdft_runtime::processor_name().unwrap_or_default(),
        kernels: sdft_kernels::kernel_choice(),
        threads: rayon::current_num_threads(),
    }
}

fn note_warnings<T: Training>(plan: &T::Plan, context: &mut Context<'_>) {
    let warnings = T::warnings(plan);
    context.notes(warnings.iter().map(|warning| format!("warning: {warning}")));
}
