//! Runs that train a diffusion network: their plan, its checks, and the networks that it needs.

use crate::error::{Result, usage};
use candle_core::{DType, Device};
use sdft_adapters::{AdaptedNetwork, AdapterConfig, Base, Sizes, sizes};
use sdft_autoencoder::{AutoencoderConfig, AutoencoderFile};
use sdft_data::{Fit, ImageSource};
use sdft_diffusion::{ComputeMode, Precond, PredictionType, Trainable};
use sdft_imaging::Depth;
use sdft_models::{
    Adapted, Architecture, Classes, LoadedModel, ModelError, NetworkFile, Target, adapt,
    check_diffusers, form_metadata, network_sha256, state_shape,
};
use sdft_nn::Params;
use sdft_train::{ModelFormat, PlanError, Source, adapter_error};
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use crate::data::Form;

/// A plan whose `[model]` section is an architecture.
pub type TrainPlan = sdft_train::Plan<ModelPlan>;

/// The section `[model]`: an architecture, and how the source model becomes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    /// The network in training.
    pub architecture: Architecture,
    /// Whether a source model of another number of channels is adapted; otherwise it is an error. Written only if not.
    pub adapt_channels: bool,
    /// The autoencoder in whose latents the network works; `None` if it works on images.
    pub autoencoder: Option<AutoencoderFile>,
}

/// The keys of a `[model]` section that are not fields of the architecture.
pub(super) const OWN_KEYS: [&str; 2] = [ADAPT_CHANNELS, AUTOENCODER];
const ADAPT_CHANNELS: &str = "adapt_channels";
const AUTOENCODER: &str = "autoencoder";

impl ModelPlan {
    /// The architecture of the autoencoder, if it was read.
    pub(crate) fn autoencoder_config(&self) -> Option<&AutoencoderConfig> {
        self.autoencoder.as_ref()?.config.as_ref()
    }

    /// Pixels of a side for one value of the network's input.
    pub(super) fn factor(&self) -> usize {
        self.autoencoder.as_ref().map_or(1, AutoencoderFile::factor)
    }

    /// The form of the images that the network was made for, where a plan does not set it.
    pub(super) fn form(&self) -> Form {
        let channels = match self.autoencoder_config() {
            Some(config) => config.decoded_channels(),
            None => self.in_channels(),
        };
        Form {
            size: self.sides().map(|side| side * self.factor()),
            channels: Some(channels),
            ..Form::default()
        }
    }
}

impl Default for ModelPlan {
    fn default() -> Self {
        Architecture::default().into()
    }
}

impl From<Architecture> for ModelPlan {
    fn from(architecture: Architecture) -> Self {
        Self {
            architecture,
            adapt_channels: true,
            autoencoder: None,
        }
    }
}

impl Deref for ModelPlan {
    type Target = Architecture;

    fn deref(&self) -> &Architecture {
        &self.architecture
    }
}

impl DerefMut for ModelPlan {
    fn deref_mut(&mut self) -> &mut Architecture {
        &mut self.architecture
    }
}

impl Serialize for ModelPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        if self.adapt_channels && self.autoencoder.is_none() {
            return self.architecture.serialize(serializer);
        }
        let mut fields = serde_json::to_value(&self.architecture).map_err(S::Error::custom)?;
        if let Value::Object(fields) = &mut fields {
            if !self.adapt_channels {
                fields.insert(ADAPT_CHANNELS.to_owned(), false.into());
            }
            if let Some(autoencoder) = &self.autoencoder {
                let autoencoder = serde_json::to_value(autoencoder).map_err(S::Error::custom)?;
                fields.insert(AUTOENCODER.to_owned(), autoencoder);
            }
        }
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ModelPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        let adapt_channels = match fields.remove(ADAPT_CHANNELS) {
            None => true,
            Some(Value::Bool(adapts)) => adapts,
            Some(found) => {
                return Err(D::Error::custom(format!(
                    "{ADAPT_CHANNELS}: expected true or false, found {found}"
                )));
            }
        };
        let autoencoder = fields.remove(AUTOENCODER).map(serde_json::from_value);
        Ok(Self {
            autoencoder: autoencoder.transpose().map_err(D::Error::custom)?,
            architecture: Architecture::from_fields(fields).map_err(D::Error::custom)?,
            adapt_channels,
        })
    }
}

/// Height and width of a run's images.
pub(crate) fn image_sides(plan: &TrainPlan) -> [usize; 2] {
    let given = plan.data.size.map(|size| size.sides());
    given.unwrap_or_else(|| plan.model.form().size)
}

/// Height and width of the network's input: images or latents.
pub(crate) fn sides(plan: &TrainPlan) -> [usize; 2] {
    image_sides(plan).map(|side| side / plan.model.factor())
}

/// The form of the images of a plan whose images were read before.
pub(super) fn resolved_form(plan: &TrainPlan) -> Form {
    Form {
        depth: Some(Depth::U8),
        ..plan.model.form()
    }
}

/// The classes of a plan whose images were read; `None` trains without classes.
pub(super) fn classes(plan: &TrainPlan) -> Option<Classes> {
    let names = &plan.data.class_names;
    let has_null = plan.loss.label_dropout > 0.0;
    (!names.is_empty()).then(|| Classes::new(names.clone(), has_null))
}

/// The metadata of a run's models about their images and classes.
///
/// # Errors
/// A value cannot be written as JSON.
pub(super) fn metadata(
    plan: &TrainPlan,
    images: &dyn ImageSource,
) -> Result<BTreeMap<String, String>> {
    let classes = classes(plan);
    let autoencoder = plan.model.autoencoder.as_ref();
    let autoencoder = autoencoder.and_then(AutoencoderFile::record);
    Ok(form_metadata(&NetworkFile {
        image: Some(images.spec()),
        autoencoder: autoencoder.as_ref(),
        classes: classes.as_ref(),
        ..NetworkFile::new(&plan.model, &plan.process)
    })?)
}

/// Checks a plan and its architecture.
pub(super) fn validate(plan: &TrainPlan) -> std::result::Result<(), PlanError> {
    let wrong = |key: &str, problem: String| {
        Err(PlanError {
            key: key.to_owned(),
            problem,
        })
    };
    plan.model.check_trainable().map_err(|error| PlanError {
        key: format!("model.{}", error.field),
        problem: error.problem,
    })?;
    let expected = match (plan.model.precond(), plan.process.continuous) {
        (Some(precond), Some(continuous)) if continuous.fits(&precond) => None,
        (None, None) => None,
        (Some(Precond::Flow { .. }), _) => {
            Some("process_type = \"flow\", as the network predicts the velocity of a flow")
        }
        (Some(_), None) => {
            Some("a continuous process, as the network has EDM's preconditioning, found none")
        }
        (Some(_), Some(_)) => Some("no process_type, as the network has EDM's preconditioning"),
        (None, Some(_)) => Some("none, as the network is called with steps"),
    };
    if let Some(expected) = expected {
        return wrong("process.continuous", format!("expected {expected}"));
    }
    let config = plan.model.autoencoder_config();
    if let Err(error) = plan.model.check_image_size(image_sides(plan), config) {
        let key = match plan.data.size {
            Some(_) => "data.size",
            None => "model",
        };
        return wrong(key, error.to_string());
    }
    let augment_dim = plan.model.augment_dim();
    if plan.data.augment > 0.0 && ![0, AUGMENT_LABELS].contains(&augment_dim) {
        return wrong(
            "data.augment",
            format!(
                "the network takes {augment_dim} augmentation labels, the augmentation gives {AUGMENT_LABELS}; expected 0, which turns it off"
            ),
        );
    }
    if plan.output.format == ModelFormat::Diffusers {
        check_diffusers(&trained_architecture(plan), &plan.process).map_err(|error| PlanError {
            key: "output.format".to_owned(),
            problem: error.to_string(),
        })?;
    }
    if let Some(config) = config {
        check_latents(plan, config)?;
    }
    plan.check_images(image_sides(plan))?;
    plan.validate()?;
    adapter_sizes(plan).map(drop)
}

/// Checks the settings of a run on the latents of an autoencoder, which are computed once for each image.
fn check_latents(
    plan: &TrainPlan,
    config: &AutoencoderConfig,
) -> std::result::Result<(), PlanError> {
    let wrong = |key: &str, problem: String| {
        Err(PlanError {
            key: key.to_owned(),
            problem,
        })
    };
    let (expected, found) = (plan.model.in_channels(), config.latent_channels());
    if expected != found {
        return wrong(
            "model.autoencoder",
            format!("expected latents of {expected} channels, as the network takes, found {found}"),
        );
    }
    if plan.data.fit == Fit::RandomCrop {
        return wrong(
            "data.fit",
            "the latents of an image are computed once; expected crop, pad or resize, found random-crop".to_owned(),
        );
    }
    let once = [
        ("data.shift", plan.data.shift > 0, "0"),
        ("data.flip_vertical", plan.data.flip_vertical, "false"),
        ("data.scale", plan.data.scale != 0.0, "0"),
        ("data.augment", plan.data.augment != 0.0, "0"),
    ];
    match once.into_iter().find(|(_, is_on, _)| *is_on) {
        Some((key, _, expected)) => wrong(
            key,
            format!("the latents of an image are computed once; expected {expected}"),
        ),
        None => Ok(()),
    }
}

/// The network in training: that of the plan, with the parts that an adapter adds to it.
pub(crate) fn trained_architecture(plan: &TrainPlan) -> Architecture {
    with_adapter(&plan.model, &plan.adapter)
}

/// The network with the parts that an adapter adds to it.
pub(crate) fn with_adapter(model: &Architecture, adapter: &AdapterConfig) -> Architecture {
    match adapter.time_adapter_rank() {
        None => model.clone(),
        Some(rank) => model.clone().with_time_adapter(rank),
    }
}

/// How many numbers are trained; `None` if all are.
///
/// # Errors
/// The [`PlanError`] of settings that do not fit the network.
pub(crate) fn adapter_sizes(plan: &TrainPlan) -> std::result::Result<Option<Sizes>, PlanError> {
    sizes_of(&plan.adapter, &plan.model)
}

/// As [`adapter_sizes`], for an adapter of a network.
///
/// # Errors
/// As [`adapter_sizes`].
pub(crate) fn sizes_of(
    adapter: &AdapterConfig,
    model: &Architecture,
) -> std::result::Result<Option<Sizes>, PlanError> {
    if adapter.is_full() {
        return Ok(None);
    }
    let wrong = |key: &str, problem: String| PlanError {
        key: key.to_owned(),
        problem,
    };
    if let (Some(own), Some(rank)) = (model.time_adapter_rank(), adapter.rank)
        && adapter.time_adapter_rank().is_some_and(|rank| rank != own)
    {
        return Err(wrong(
            "adapter.rank",
            format!(
                "the source model has time-aware adapters of its own, which are trained further; expected no rank, found {rank}"
            ),
        ));
    }
    let specs = with_adapter(model, adapter).trainable_specs();
    let specs = specs.map_err(|error| wrong("model", error.to_string()))?;
    sizes(adapter, &specs).map(Some).map_err(adapter_error)
}

/// Augmentation labels of an image.
pub(super) const AUGMENT_LABELS: usize = 9;

/// Fits the source model to the images of a run. The architecture goes into the plan.
///
/// # Errors
/// Another number of channels where the plan does not allow it, or classes that the network cannot have.
pub(super) fn fit_source(
    plan: &mut TrainPlan,
    source: &LoadedModel,
    images: &dyn ImageSource,
) -> Result<Adapted> {
    let config = plan.model.autoencoder_config();
    let [found, height, width] = state_shape(config, images.spec());
    let channels = source.architecture.in_channels();
    if found != channels && !plan.model.adapt_channels {
        return Err(usage(format!(
            "data.channels: the images have {found}, the source model has {channels}; set model.adapt_channels=true to fit its first and last \
             kernels, or data.channels={channels}"
        )));
    }
    let target = Target {
        channels: found,
        classes: classes(plan),
        size: [height, width],
    };
    let adapted = adapt(source, &target).map_err(|error| match error {
        error @ (ModelError::Size { .. } | ModelError::Adapt { .. }) => {
            usage(format!("{}: {error}", plan.source))
        }
        error => error.into(),
    })?;
    if !plan.adapter.is_full() && !adapted.notes.is_empty() {
        return Err(usage(format!(
            "adapter.kind: expected \"full\", because the source model is changed to fit the images ({}), and an adapter belongs to a model \
             that it leaves unchanged; found {:?}",
            adapted.notes.join("; "),
            plan.adapter.kind.name()
        )));
    }
    let dropout = plan.model.dropout();
    plan.model.architecture = adapted.architecture.clone().with_dropout(dropout);
    Ok(adapted)
}

/// The networks of a run.
pub(crate) struct Networks {
    /// The network in training.
    pub(crate) network: Box<dyn Trainable>,
    /// The frozen source model, unless the run starts from random weights.
    pub(crate) source: Option<Source>,
}

/// The networks of a plan on a device; `source` is the source model, fitted to the images.
pub(crate) fn networks(
    plan: &TrainPlan,
    source: Option<Adapted>,
    device: &Device,
) -> Result<Networks> {
    let Some(Adapted {
        params,
        frozen,
        notes,
        ..
    }) = source
    else {
        let start = Params::init(&plan.model.specs()?, plan.seed, device)?;
        return Ok(Networks {
            network: trainable(&start, &plan.model, plan)?,
            source: None,
        });
    };
    let kept = frozen.params.to(DType::F32, device)?;
    // Equal weights are in memory once.
    let start = match notes.is_empty() {
        true => kept.clone(),
        false => params.to(DType::F32, device)?,
    };
    let dtype = plan.steps.precision.compute_dtype();
    let network = frozen
        .architecture
        .load(&kept, plan.process.prediction_type, dtype)?;
    let takes_augment = frozen.architecture.augment_dim() > 0;
    Ok(Networks {
        network: trainable(&start, &frozen.architecture, plan)?,
        source: Some(
            match frozen.labels.is_some() || takes_augment || frozen.channels.is_some() {
                false => Source::Plain(network),
                true => Source::Conditional {
                    network,
                    labels: frozen.labels,
                    takes_augment,
                    channels: frozen.channels,
                },
            },
        ),
    })
}

/// A network that starts from `params`, the weights of `source`, and computes as the plan says. What the plan does not train is shared
/// with `params`.
pub(crate) fn trainable(
    params: &Params,
    source: &Architecture,
    plan: &TrainPlan,
) -> Result<Box<dyn Trainable>> {
    let trainee = Trainee {
        model: &plan.model,
        adapter: &plan.adapter,
        prediction_type: plan.process.prediction_type,
        mode: ComputeMode {
            dtype: plan.steps.precision.compute_dtype(),
            recompute: plan.steps.recompute,
        },
        seed: plan.seed,
    };
    trainee.network(params, source)
}

/// What is trained of a network, and how it computes.
pub(crate) struct Trainee<'a> {
    pub(crate) model: &'a Architecture,
    pub(crate) adapter: &'a AdapterConfig,
    pub(crate) prediction_type: PredictionType,
    pub(crate) mode: ComputeMode,
    /// The seed of the adapter's random values.
    pub(crate) seed: u64,
}

impl Trainee<'_> {
    /// The network, which starts from `params`, the weights of `source`.
    pub(crate) fn network(
        &self,
        params: &Params,
        source: &Architecture,
    ) -> Result<Box<dyn Trainable>> {
        let architecture = with_adapter(self.model, self.adapter);
        let build =
            |params: &Params| architecture.trainable(params, self.prediction_type, self.mode);
        if self.adapter.is_full() {
            return Ok(build(params)?);
        }
        let base = Base {
            params: &params.completed(&architecture.specs()?, self.seed)?,
            specs: &architecture.trainable_specs()?,
            sha256: network_sha256(source, params)?,
        };
        let network = AdaptedNetwork::new(self.adapter, base, self.seed, build);
        Ok(Box::new(network.map_err(|e| usage(e.to_string()))?))
    }
}
