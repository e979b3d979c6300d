//! The architectures that a file can hold, behind one interface.

use candle_core::{DType, Result};
use sdft_adm::{AdmConfig, Unet, trainable_unet};
use sdft_diffusion::{
    ComputeMode, FlowConvention, Network, PRECOND_KEY, Precond, Preconditioned, PredictionType,
    Trainable,
};
use sdft_dit::{Dit, DitConfig, trainable_dit};
use sdft_edm::{DhariwalConfig, EdmConfig, EdmNet, ModelConfig, SongUnetConfig, trainable_edm};
use sdft_nn::{Cost, ParamSource, ParamSpec, Params};
use sdft_unet2d::{Unet2d, Unet2dConfig, trainable_unet2d};
use std::collections::BTreeMap;

/// The architecture of a diffusion network, with its configuration.
///
/// As a section of a file it is the configuration's fields, and [`Architecture::TAG`] if it is not ADM.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// guided-diffusion's U-Net.
    Adm(AdmConfig),
    /// guided-diffusion's U-Net with EDM's preconditioning, as openai/consistency_models publishes it. Among ADM's fields it is
    /// `precond = "edm"`.
    AdmEdm(AdmConfig),
    /// diffusers' `UNet2DModel`.
    Unet2d(Unet2dConfig),
    /// NVlabs/edm's networks.
    Edm(EdmConfig),
    /// DiT, the diffusion transformer of facebookresearch/DiT and diffusers.
    Dit(DitConfig),
    /// A DiT that predicts the velocity of a flow, as willisma/SiT publishes it. Among DiT's fields it is `precond = "sit"` or `"flow"`.
    DitFlow(DitConfig, FlowConvention),
}

impl Default for Architecture {
    /// ADM's default, the light FFHQ-256 network.
    fn default() -> Self {
        Self::Adm(AdmConfig::default())
    }
}

impl From<AdmConfig> for Architecture {
    fn from(config: AdmConfig) -> Self {
        Self::Adm(config)
    }
}

impl From<Unet2dConfig> for Architecture {
    fn from(config: Unet2dConfig) -> Self {
        Self::Unet2d(config)
    }
}

impl From<EdmConfig> for Architecture {
    fn from(config: EdmConfig) -> Self {
        Self::Edm(config)
    }
}

impl From<DitConfig> for Architecture {
    fn from(config: DitConfig) -> Self {
        Self::Dit(config)
    }
}

/// A field that keeps a network from being built or trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.{field}: {problem}")]
pub struct ArchitectureError {
    /// The field of the configuration.
    pub field: String,
    /// What was expected and what was found.
    pub problem: String,
}

impl From<sdft_adm::ConfigError> for ArchitectureError {
    fn from(error: sdft_adm::ConfigError) -> Self {
        Self {
            field: error.field.to_owned(),
            problem: error.problem,
        }
    }
}

/// Of a U-Net or transformer of diffusers.
impl From<sdft_unet2d::ConfigError> for ArchitectureError {
    fn from(error: sdft_unet2d::ConfigError) -> Self {
        Self {
            problem: format!("expected {}, found {}", error.expected, error.found),
            field: error.field,
        }
    }
}

impl From<sdft_edm::ConfigError> for ArchitectureError {
    fn from(error: sdft_edm::ConfigError) -> Self {
        Self {
            field: error.field,
            problem: error.problem,
        }
    }
}

impl Architecture {
    /// The key that names the architecture among the fields of its configuration.
    pub const TAG: &'static str = "architecture";
    /// The names of all architectures.
    pub const NAMES: [&'static str; 4] = ["adm", "unet2d", "edm", "dit"];

    /// The name of the architecture: `adm`, `unet2d`, `edm` or `dit`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adm(_) | Self::AdmEdm(_) => "adm",
            Self::Unet2d(_) => "unet2d",
            Self::Edm(_) => "edm",
            Self::Dit(_) | Self::DitFlow(..) => "dit",
        }
    }

    /// The architecture as its authors call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Adm(_) => "ADM U-Net",
            Self::AdmEdm(_) => "ADM U-Net with EDM's preconditioning",
            Self::Unet2d(_) => "UNet2DModel",
            Self::Edm(config) => match config.model {
                ModelConfig::SongUNet(_) => "SongUNet (EDM)",
                ModelConfig::DhariwalUNet(_) => "DhariwalUNet (EDM)",
            },
            Self::Dit(_) => "DiT",
            Self::DitFlow(_, FlowConvention::Sit) => "SiT",
            Self::DitFlow(_, FlowConvention::Diffusers) => "DiT with flow matching",
        }
    }

    /// The configuration, if it is guided-diffusion's U-Net, with or without preconditioning.
    pub fn adm(&self) -> Option<&AdmConfig> {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => Some(config),
            Self::Unet2d(_) | Self::Edm(_) | Self::Dit(_) | Self::DitFlow(..) => None,
        }
    }

    /// The configuration, if it is a DiT, of noise or of a flow.
    pub fn dit(&self) -> Option<&DitConfig> {
        match self {
            Self::Dit(config) | Self::DitFlow(config, _) => Some(config),
            Self::Adm(_) | Self::AdmEdm(_) | Self::Unet2d(_) | Self::Edm(_) => None,
        }
    }

    /// The preconditioning of a network that is called with noise levels instead of steps: EDM's, or a flow's.
    pub fn precond(&self) -> Option<Precond> {
        match self {
            Self::Adm(_) | Self::Unet2d(_) | Self::Dit(_) => None,
            Self::DitFlow(_, convention) => Some(Precond::Flow {
                convention: *convention,
            }),
            Self::AdmEdm(_) => Some(Precond::CONSISTENCY_ADM),
            Self::Edm(config) => Some(config.precond),
        }
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(&self) -> Result<Vec<ParamSpec>> {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => Unet::specs(config),
            Self::Unet2d(config) => Unet2d::specs(config),
            Self::Edm(config) => EdmNet::specs(config),
            Self::Dit(config) | Self::DitFlow(config, _) => Dit::specs(config),
        }
    }

    /// [`Self::specs`] without the constants, which are never trained.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn trainable_specs(&self) -> Result<Vec<ParamSpec>> {
        let mut specs = self.specs()?;
        if let Self::Edm(_) = self {
            specs.retain(|spec| !EdmNet::is_constant(&spec.name));
        }
        Ok(specs)
    }

    /// The frozen network with feature maps of type `compute_dtype`. EDM networks predict the image, regardless of `prediction_type`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(
        &self,
        source: &dyn ParamSource,
        prediction_type: PredictionType,
        compute_dtype: DType,
    ) -> Result<Box<dyn Network>> {
        let adm = |config| -> Result<Unet> {
            Ok(Unet::load(source, config)?
                .with_prediction_type(prediction_type)
                .with_compute_dtype(compute_dtype))
        };
        Ok(match self {
            Self::Adm(config) => Box::new(adm(config)?),
            Self::AdmEdm(config) => {
                Box::new(Preconditioned::new(adm(config)?, Precond::CONSISTENCY_ADM))
            }
            Self::Unet2d(config) => Box::new(
                Unet2d::load(source, config)?
                    .with_prediction_type(prediction_type)
                    .with_compute_dtype(compute_dtype),
            ),
            Self::Edm(config) => {
                Box::new(EdmNet::load(source, config)?.with_compute_dtype(compute_dtype))
            }
            Self::Dit(config) => Box::new(
                Dit::load(source, config)?
                    .with_prediction_type(prediction_type)
                    .with_compute_dtype(compute_dtype),
            ),
            Self::DitFlow(config, convention) => {
                let net = Dit::load(source, config)?.with_compute_dtype(compute_dtype);
                let convention = *convention;
                Box::new(Preconditioned::new(net, Precond::Flow { convention }))
            }
        })
    }

    /// A copy of the network that can be trained.
    ///
    /// # Errors
    /// A configuration that cannot be trained, or parameters that are missing or of another shape.
    pub fn trainable(
        &self,
        params: &Params,
        prediction_type: PredictionType,
        mode: ComputeMode,
    ) -> Result<Box<dyn Trainable>> {
        Ok(match self {
            Self::Adm(config) => Box::new(trainable_unet(params, config, prediction_type, mode)?),
            Self::AdmEdm(config) => {
                let net = trainable_unet(params, config, prediction_type, mode)?;
                Box::new(Preconditioned::new(net, Precond::CONSISTENCY_ADM))
            }
            Self::Unet2d(config) => {
                Box::new(trainable_unet2d(params, config, prediction_type, mode)?)
            }
            Self::Edm(config) => Box::new(trainable_edm(params, config, mode)?),
            Self::Dit(config) => Box::new(trainable_dit(params, config, prediction_type, mode)?),
            Self::DitFlow(config, convention) => {
                let net = trainable_dit(params, config, prediction_type, mode)?;
                let convention = *convention;
                Box::new(Preconditioned::new(net, Precond::Flow { convention }))
            }
        })
    }

    /// Fails unless the network can be built and run at its image size.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check(&self) -> std::result::Result<(), ArchitectureError> {
        match self {
            Self::Adm(config) => Ok(config.validate()?),
            Self::AdmEdm(config) => {
                config.validate()?;
                // The output has no variance.
                match config.out_channels == config.in_channels {
                    true => Ok(()),
                    false => Err(ArchitectureError {
                        field: "out_channels".to_owned(),
                        problem: format!(
                            "a network with EDM's preconditioning has as many as in_channels, expected {}, found {}",
                            config.in_channels, config.out_channels
                        ),
                    }),
                }
            }
            Self::Unet2d(config) => Ok(config.validate()?),
            Self::Edm(config) => Ok(config.validate()?),
            Self::Dit(config) | Self::DitFlow(config, _) => Ok(config.validate()?),
        }
    }

    /// Fails unless the network can be built and trained.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> std::result::Result<(), ArchitectureError> {
        self.check()?;
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => Ok(config.check_trainable()?),
            Self::Unet2d(config) => Ok(config.check_trainable()?),
            Self::Edm(config) => Ok(config.check_trainable()?),
            Self::Dit(config) | Self::DitFlow(config, _) => Ok(config.check_trainable()?),
        }
    }

    /// The shape of the images that the network was made for, `[channels, height, width]`.
    pub fn image_shape(&self) -> [usize; 3] {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => {
                [config.in_channels, config.image_size, config.image_size]
            }
            Self::Unet2d(config) => {
                let [height, width] = config.sides().unwrap_or_default();
                [config.in_channels, height, width]
            }
            Self::Edm(config) => [
                config.img_channels,
                config.img_resolution,
                config.img_resolution,
            ],
            Self::Dit(config) | Self::DitFlow(config, _) => {
                [config.in_channels, config.sample_size, config.sample_size]
            }
        }
    }

    /// The side of the images in pixels; the longer one if they are not square.
    pub fn image_size(&self) -> usize {
        let [_, height, width] = self.image_shape();
        height.max(width)
    }

    /// Channels of the images.
    pub fn in_channels(&self) -> usize {
        self.image_shape()[0]
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.out_channels,
            Self::Unet2d(config) => config.out_channels,
            Self::Edm(config) => config.img_channels,
            Self::Dit(config) | Self::DitFlow(config, _) => config.out_channels,
        }
    }

    /// Whether the network predicts the variance as well. A flow has none: SiT's networks have the channels, and do not use them.
    pub fn learns_variance(&self) -> bool {
        match self {
            Self::DitFlow(..) => false,
            _ => self.out_channels() == 2 * self.in_channels(),
        }
    }

    /// Number of classes of a class-conditional network, 0 for none. A null class that is a row of the network's table counts, but not
    /// that of a DiT, which always has one.
    pub fn n_classes(&self) -> usize {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.num_classes,
            Self::Unet2d(config) => config.n_classes(),
            Self::Edm(config) => config.label_dim,
            Self::Dit(config) | Self::DitFlow(config, _) => config.num_embeds_ada_norm,
        }
    }

    /// The same network with this probability of dropping a feature in training.
    #[must_use]
    pub fn with_dropout(mut self, probability: f64) -> Self {
        match &mut self {
            Self::Adm(config) | Self::AdmEdm(config) => config.dropout = probability,
            Self::Unet2d(config) => config.dropout = probability,
            Self::Edm(config) => config.model.set_dropout(probability),
            Self::Dit(config) | Self::DitFlow(config, _) => config.dropout = probability,
        }
        self
    }

    /// Number of augmentation labels that the network takes, 0 for none.
    pub fn augment_dim(&self) -> usize {
        match self {
            Self::Adm(_) | Self::AdmEdm(_) | Self::Unet2d(_) | Self::Dit(_) | Self::DitFlow(..) => {
                0
            }
            Self::Edm(config) => config.model.augment_dim(),
        }
    }

    /// The probability of dropping a feature in training.
    pub fn dropout(&self) -> f64 {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.dropout,
            Self::Unet2d(config) => config.dropout,
            Self::Dit(config) | Self::DitFlow(config, _) => config.dropout,
            Self::Edm(EdmConfig {
                model: ModelConfig::SongUNet(SongUnetConfig { dropout, .. }),
                ..
            })
            | Self::Edm(EdmConfig {
                model: ModelConfig::DhariwalUNet(DhariwalConfig { dropout, .. }),
                ..
            }) => *dropout,
        }
    }

    /// Groups of the norms at the deepest features.
    pub fn norm_groups(&self) -> usize {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.norm_groups,
            Self::Unet2d(config) => config.norm_num_groups,
            Self::Edm(config) => {
                let (width, multiples) = match &config.model {
                    ModelConfig::SongUNet(model) => (model.model_channels, &model.channel_mult),
                    ModelConfig::DhariwalUNet(model) => (model.model_channels, &model.channel_mult),
                };
                let channels = width * multiples.last().copied().unwrap_or(1);
                // Source: NVlabs/edm `GroupNorm`.
                (channels / 4).clamp(1, 32)
            }
            // A DiT has no group norm: the largest usual number that divides its width, which is a multiple of 4.
            Self::Dit(config) | Self::DitFlow(config, _) => {
                1 << config.width().trailing_zeros().min(5)
            }
        }
    }

    /// Operations and memory for one image of this height and width.
    pub fn cost(&self, sides: [usize; 2]) -> Cost {
        match self {
            Self::Adm(config) | Self::AdmEdm(config) => config.cost(sides),
            Self::Unet2d(config) => config.cost(sides),
            Self::Edm(config) => config.cost(sides),
            Self::Dit(config) | Self::DitFlow(config, _) => config.cost(sides),
        }
    }

    /// The metadata of a file of the network: its kind and its configuration.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Self::Adm(config) => config.metadata("unet"),
            Self::AdmEdm(config) => {
                let mut metadata = config.metadata("unet");
                // A struct of numbers always has JSON.
                let precond = serde_json::to_string(&Precond::CONSISTENCY_ADM);
                metadata.insert(PRECOND_KEY.to_owned(), precond.unwrap_or_default());
                metadata
            }
            Self::Unet2d(config) => config.metadata(),
            Self::Edm(config) => config.metadata(),
            Self::Dit(config) => config.metadata(),
            Self::DitFlow(config, convention) => {
                let mut metadata = config.metadata();
                let convention = *convention;
                // A struct of numbers always has JSON.
                let precond = serde_json::to_string(&Precond::Flow { convention });
                metadata.insert(PRECOND_KEY.to_owned(), precond.unwrap_or_default());
                metadata
            }
        }
    }
}
