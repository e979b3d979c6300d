//! How files and plans name an autoencoder.

use crate::AutoencoderConfig;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The autoencoder in whose latents a network works, as the metadata of the network's file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderRecord {
    /// SHA-256 of the autoencoder itself, its weights and what decides how it computes: the same for every file that holds it.
    pub sha256: String,
    /// Its architecture.
    pub config: AutoencoderConfig,
}

impl AutoencoderRecord {
    /// The name of the autoencoder's file next to a file of this project.
    pub fn file_name(&self) -> String {
        let short = self.sha256.get(..12).unwrap_or(&self.sha256);
        format!("autoencoder-{short}.safetensors")
    }
}

/// The autoencoder of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderFile {
    /// Its file or folder, or the name of an embedded one.
    pub path: String,
    /// [`AutoencoderRecord::sha256`], set when it is read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Its architecture, set when it is read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "without_nulls"
    )]
    pub config: Option<AutoencoderConfig>,
}

/// The fields of a configuration without those that are null, which TOML does not have. Their default is null.
fn without_nulls<S: Serializer>(
    config: &Option<AutoencoderConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let fields = config.iter().flat_map(AutoencoderConfig::fields);
    let fields: Map<String, Value> = fields.filter(|(_, value)| !value.is_null()).collect();
    fields.serialize(serializer)
}

impl AutoencoderFile {
    /// An autoencoder that was read from `path`.
    pub fn new(path: String, record: &AutoencoderRecord) -> Self {
        Self {
            path,
            sha256: record.sha256.clone(),
            config: Some(record.config.clone()),
        }
    }

    /// Pixels of a side for one latent; 1 before the autoencoder is read.
    pub fn factor(&self) -> usize {
        self.config.as_ref().map_or(1, AutoencoderConfig::factor)
    }

    /// The record, if the autoencoder was read.
    pub fn record(&self) -> Option<AutoencoderRecord> {
        Some(AutoencoderRecord {
            sha256: self.sha256.clone(),
            config: self.config.clone()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AutoencoderKlConfig, VqModelConfig};

    #[test]
    fn an_autoencoder_of_a_plan_comes_back_from_toml() {
        for config in [
            AutoencoderConfig::from(AutoencoderKlConfig::default()),
            VqModelConfig::default().into(),
        ] {
            let file = AutoencoderFile {
                path: "a".to_owned(),
                sha256: "b".to_owned(),
                config: Some(config),
            };
            let text = toml::to_string(&file).unwrap();
            assert_eq!(toml::from_str::<AutoencoderFile>(&text).unwrap(), file);
        }
        let short: AutoencoderFile = toml::from_str("path = \"a\"").unwrap();
        assert_eq!((short.path.as_str(), short.record()), ("a", None));
    }
}
