//! The architectures that a file can hold, behind one interface.

use candle_core::{DType, Result};
use sdft_adm::{AdmConfig, ConfigError, TrainableUnet, Unet};
use sdft_diffusion::{ComputeMode, Network, PredictionType, Trainable};
use sdft_nn::{Cost, ParamSource, ParamSpec, Params};
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The architecture of a diffusion network, with its configuration.
///
/// As a section of a file it is the configuration's fields, and [`Architecture::TAG`] if it is not ADM.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// guided-diffusion's U-Net.
    Adm(AdmConfig),
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

/// A field that keeps a network from being built or trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.{field}: {problem}")]
pub struct ArchitectureError {
    /// The field of the configuration.
    pub field: String,
    /// What was expected and what was found.
    pub problem: String,
}

impl From<ConfigError> for ArchitectureError {
    fn from(error: ConfigError) -> Self {
        Self {
            field: error.field.to_owned(),
            problem: error.problem,
        }
    }
}

impl Architecture {
    /// The key that names the architecture among the fields of its configuration.
    pub const TAG: &'static str = "architecture";

    /// The name of the architecture: `adm`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adm(_) => "adm",
        }
    }

    /// The configuration, if it is guided-diffusion's U-Net.
    pub fn adm(&self) -> Option<&AdmConfig> {
        match self {
            Self::Adm(config) => Some(config),
        }
    }

    /// The fields of the configuration, without the name of the architecture.
    pub fn fields(&self) -> Map<String, Value> {
        let value = match self {
            Self::Adm(config) => serde_json::to_value(config),
        };
        match value {
            Ok(Value::Object(fields)) => fields,
            // A configuration is a struct of numbers, texts and lists.
            _ => Map::new(),
        }
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(&self) -> Result<Vec<ParamSpec>> {
        match self {
            Self::Adm(config) => Unet::specs(config),
        }
    }

    /// The frozen network with feature maps of type `compute_dtype`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(
        &self,
        source: &dyn ParamSource,
        prediction_type: PredictionType,
        compute_dtype: DType,
    ) -> Result<Box<dyn Network>> {
        Ok(match self {
            Self::Adm(config) => Box::new(
                Unet::load(source, config)?
                    .with_prediction_type(prediction_type)
                    .with_compute_dtype(compute_dtype),
            ),
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
            Self::Adm(config) => {
                Box::new(TrainableUnet::new(params, config, prediction_type, mode)?)
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
        }
    }

    /// Fails unless the network can be built and trained on images without labels.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> std::result::Result<(), ArchitectureError> {
        match self {
            Self::Adm(config) => Ok(config.check_trainable()?),
        }
    }

    /// The shape of an image, `[channels, height, width]`.
    pub fn image_shape(&self) -> [usize; 3] {
        match self {
            Self::Adm(config) => [config.in_channels, config.image_size, config.image_size],
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
            Self::Adm(config) => config.out_channels,
        }
    }

    /// Whether the network predicts the variance as well.
    pub fn learns_variance(&self) -> bool {
        self.out_channels() == 2 * self.in_channels()
    }

    /// Number of classes of a class-conditional network, 0 for none.
    pub fn n_classes(&self) -> usize {
        match self {
            Self::Adm(config) => config.num_classes,
        }
    }

    /// Groups of the norms at the deepest features.
    pub fn norm_groups(&self) -> usize {
        match self {
            Self::Adm(config) => config.norm_groups,
        }
    }

    /// The same network with this probability of dropping a feature in training.
    #[must_use]
    pub fn with_dropout(mut self, probability: f64) -> Self {
        match &mut self {
            Self::Adm(config) => config.dropout = probability,
        }
        self
    }

    /// The probability of dropping a feature in training.
    pub fn dropout(&self) -> f64 {
        match self {
            Self::Adm(config) => config.dropout,
        }
    }

    /// Operations and memory for one image.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Adm(config) => config.cost(),
        }
    }

    /// What a file of the network says about it: its kind and its configuration.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Self::Adm(config) => config.metadata("unet"),
        }
    }

    /// The configuration in the fields of a section.
    ///
    /// # Errors
    /// An unknown architecture, an unknown field, or a value of another type.
    pub fn from_fields(mut fields: Map<String, Value>) -> serde_json::Result<Self> {
        let name = fields.remove(Self::TAG);
        let name = name.as_ref().map_or(Some("adm"), Value::as_str);
        match name {
            Some("adm") => serde_json::from_value(Value::Object(fields)).map(Self::Adm),
            _ => Err(<serde_json::Error as serde::de::Error>::custom(
                "architecture: expected adm",
            )),
        }
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Adm(config) => config.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(deserializer)?;
        Self::from_fields(fields).map_err(D::Error::custom)
    }
}
