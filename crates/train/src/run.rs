//! Fine-tuning a denoising network: setup, and the processes that share a run.

use crate::drive::{DriveSetup, Ending, drive};
use crate::error::{Result, TrainError};
use crate::evaluator::{Evaluation, Evaluator};
use crate::fine_tuning::FineTuning;
use crate::folder::{RunFolder, RunPlan};
use crate::learner::Learner;
use crate::methods::{LogProbGradient, missing};
use crate::plan::{Method, Plan, Precision};
use crate::progress::Progress;
use crate::source::Source;
use candle_core::Device;
use sdft_autoencoder::Space;
use sdft_cuda::allow_tf32;
use sdft_data::{Batches, ImageSource};
use sdft_diffusion::{Denoiser, Trainable};
use sdft_parallel::{Command, ProcessGroup};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run needs.
pub struct Setup<M = toml::Table> {
    /// The plan, resolved.
    pub plan: Plan<M>,
    /// The folder that the run writes to.
    pub folder: RunFolder,
    /// The network. It starts from the values of its variables, unless the folder has a checkpoint.
    pub network: Box<dyn Trainable>,
    /// The frozen source model, unless the method is `scratch`. [`Frozen`](crate::Frozen) makes one of a [`Trainable`].
    pub source: Option<Source>,
    /// The images, with their latents if the network works on those.
    pub data: Arc<dyn ImageSource>,
    /// The way from the network's states to images.
    pub space: Space,
    /// What other methods than SDFT need.
    pub methods: MethodInputs,
    /// Entries for the metadata of the files of weights, in addition to those of the network.
    pub metadata: BTreeMap<String, String>,
    /// The networks that judge samples; needed if the plan evaluates.
    pub evaluator: Option<Evaluator>,
    /// The device of the network and of the images.
    pub device: Device,
    /// The processes that share the run. This one has rank 0.
    pub group: Arc<ProcessGroup>,
}

impl<M> Setup<M>
where
    Plan<M>: RunPlan,
{
    /// Trains `network` on `images`, in this process and on the device of its variables. The run in the folder `root` is continued if it has
    /// this plan; otherwise the folder is made. Give the source model with [`Setup::with_source`].
    ///
    /// # Errors
    /// See [`RunFolder::open_or_create`].
    pub fn new(
        root: impl AsRef<Path>,
        plan: Plan<M>,
        network: impl Trainable + 'static,
        images: impl ImageSource + 'static,
    ) -> Result<Self> {
        let vars = network.vars();
        let device = vars
            .first()
            .map_or(Device::Cpu, |(_, var)| var.device().clone());
        Ok(Self {
            folder: RunFolder::open_or_create(root.as_ref(), &plan)?,
            plan,
            network: Box::new(network),
            source: None,
            space: Space::images(*images.spec()),
            data: Arc::new(images),
            methods: MethodInputs::default(),
            metadata: BTreeMap::new(),
            evaluator: None,
            device,
            group: Arc::new(ProcessGroup::single()),
        })
    }

    /// Sets the frozen source model.
    #[must_use]
    pub fn with_source(mut self, source: impl Denoiser + 'static) -> Self {
        self.source = Some(Source::Plain(Box::new(source)));
        self
    }
}

/// Trains from the newest undamaged checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
///
/// # Errors
/// [`TrainError::Plan`] if the plan does not fit the network, [`TrainError::Diverged`] after several steps in a row without finite
/// numbers, [`TrainError::Audit`] if a variable gets no gradient, or the file system fails.
pub fn run<M>(setup: Setup<M>, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<Ending> {
    let Setup {
        plan,
        folder,
        network,
        source,
        data,
        space,
        methods,
        metadata,
        evaluator,
        device,
        group,
    } = setup;
    check_device(&*network, &device)?;
    let learner = learner(&plan, network, source, methods, &*data, &group)?;
    let evaluation = match evaluator {
        _ if plan.eval.every == 0 => None,
        Some(evaluator) => {
            let data = data.clone();
            let (by, space) = (evaluator, space.clone());
            Some(Evaluation::new(by, &plan, &learner, data, space, &device)?)
        }
        None => {
            return Err(TrainError::Evaluation(
                "the plan evaluates, but there is no network to judge samples with".into(),
            ));
        }
    };
    let metadata = &metadata;
    let setup = DriveSetup {
        folder: &folder,
        pace: &plan.steps,
        output: &plan.output,
        batches: batches(&plan, data)?,
        device: &device,
        stop,
    };
    let mut task = FineTuning {
        group: &group,
        plan: &plan,
        folder: &folder,
        device: &device,
        metadata,
        learner,
        issued: VecDeque::new(),
        evaluation,
        space,
        preview: None,
    };
    let ending = drive(&mut task, setup, progress);
    match &ending {
        Ok(_) => {
            // All sums were complete, so nothing is missing from the result.
            if let Err(error) = group.announce(Command::End) {
                progress.note(&format!("after the last step: {error}"));
            }
        }
        Err(error) => group.fail(&error.to_string()),
    }
    ending
}

/// Fails unless every variable is on the device that images are copied to.
fn check_device(network: &dyn Trainable, device: &Device) -> Result<()> {
    let vars = network.vars();
    let Some((name, var)) = vars
        .iter()
        .find(|(_, var)| !var.device().same_device(device))
    else {
        return Ok(());
    };
    Err(candle_core::Error::Msg(format!(
        "the variable {name}: expected on {:?}, the device of the run, found on {:?}",
        device.location(),
        var.device().location()
    ))
    .into())
}

/// A learner for this process.
pub(crate) fn learner<M>(
    plan: &Plan<M>,
    network: Box<dyn Trainable>,
    source: Option<Source>,
    methods: MethodInputs,
    data: &dyn ImageSource,
    group: &Arc<ProcessGroup>,
) -> Result<Learner> {
    plan.validate()?;
    if source.is_some() != (plan.method != Method::Scratch) {
        return Err(TrainError::Source);
    }
    allow_tf32(plan.steps.precision == Precision::Tf32);
    let (image, classes) = (data.shape(), data.classes().len());
    let mut learner =
        Learner::new(plan, network, source, image, classes)?.in_group(group.clone())?;
    match methods.bank {
        Some(bank) if bank.shape() != image => {
            let found = bank.shape();
            let problem = format!("expected images of {image:?} [C, H, W], found {found:?}");
            return Err(missing("loss.bank.path", &problem));
        }
        Some(bank) => learner = learner.with_bank(plan, bank)?,
        None if plan.needs_bank() => {
            let problem = "the method needs samples of the source model, but none were given";
            return Err(missing("loss.bank", problem));
        }
        None => {}
    }
    Ok(match methods.classifier {
        Some(classifier) => learner.with_classifier(classifier),
        None => learner,
    })
}

/// What methods of fine-tuning other than SDFT need in addition to the networks and the images.
#[derive(Default)]
pub struct MethodInputs {
    /// Samples of the source model, for Diff-Tuning and EWC.
    pub bank: Option<Arc<dyn ImageSource>>,
    /// The classifier of ANT.
    pub classifier: Option<LogProbGradient>,
}

/// The batches of a plan.
pub(crate) fn batches<M>(plan: &Plan<M>, data: Arc<dyn ImageSource>) -> Result<Batches> {
    let spec = data.spec();
    plan.check_images([spec.height, spec.width])?;
    Ok(Batches::new(
        data,
        plan.seed,
        plan.steps.batch,
        plan.data.augmentation(),
    )?)
}
