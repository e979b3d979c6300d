//! An architecture as a section of a file: its fields, and their values.

use crate::Architecture;
use sdft_diffusion::FlowConvention;
use sdft_dit::DitConfig;
use sdft_unet2d::Unet2dConfig;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The field of a preconditioning among the fields of ADM and DiT.
pub(crate) const PRECOND: &str = "precond";
/// ADM's only value.
pub(crate) const PRECOND_EDM: &str = "edm";
/// DiT's values.
pub(crate) const PRECOND_FLOW: [(&str, FlowConvention); 2] = [
    ("sit", FlowConvention::Sit),
    ("flow", FlowConvention::Diffusers),
];

impl Architecture {
    /// The fields of the configuration, without the name of the architecture.
    pub fn fields(&self) -> Map<String, Value> {
        let value = match self {
            Self::Adm(config) | Self::AdmEdm(config) => serde_json::to_value(config),
            Self::Unet2d(config) => serde_json::to_value(config),
            Self::Edm(config) => serde_json::to_value(config),
            Self::Dit(config) | Self::DitFlow(config, _) => serde_json::to_value(config),
        };
        let mut fields = match value {
            Ok(Value::Object(fields)) => fields,
            // A configuration is a struct of numbers, texts and lists.
            _ => Map::new(),
        };
        if let Self::AdmEdm(_) = self {
            fields.insert(PRECOND.to_owned(), PRECOND_EDM.into());
        }
        if let Self::DitFlow(_, convention) = self {
            let named = PRECOND_FLOW.iter().find(|(_, known)| known == convention);
            fields.extend(named.map(|(name, _)| (PRECOND.to_owned(), (*name).into())));
        }
        fields
    }

    /// The configuration in the fields of a section.
    ///
    /// # Errors
    /// An unknown architecture, an unknown field, or a value of another type.
    pub fn from_fields(mut fields: Map<String, Value>) -> serde_json::Result<Self> {
        let invalid = |field: &str, expected: &str, found: Value| {
            serde_json::Error::custom(format!("{field}: expected {expected}, found {found}"))
        };
        let name = fields.remove(Self::TAG).unwrap_or_else(|| "adm".into());
        match name.as_str() {
            Some("adm") => match fields.remove(PRECOND) {
                None => serde_json::from_value(Value::Object(fields)).map(Self::Adm),
                Some(value) if value == PRECOND_EDM => {
                    serde_json::from_value(Value::Object(fields)).map(Self::AdmEdm)
                }
                Some(value) => Err(invalid(PRECOND, "\"edm\" or no such field", value)),
            },
            Some("unet2d") => Unet2dConfig::from_json(&nulls(fields))
                .map(Self::Unet2d)
                .map_err(serde_json::Error::custom),
            Some("edm") => serde_json::from_value(Value::Object(fields)).map(Self::Edm),
            Some("dit") => {
                let convention = match fields.remove(PRECOND) {
                    None => None,
                    Some(value) => {
                        let known = PRECOND_FLOW.iter().find(|(name, _)| value == *name);
                        let expected = "\"sit\", \"flow\" or no such field";
                        Some(known.ok_or_else(|| invalid(PRECOND, expected, value))?.1)
                    }
                };
                let config = DitConfig::from_json(&fields).map_err(serde_json::Error::custom)?;
                Ok(match convention {
                    None => Self::Dit(config),
                    Some(convention) => Self::DitFlow(config, convention),
                })
            }
            _ => Err(invalid(Self::TAG, &Self::NAMES.join(", "), name)),
        }
    }
}

/// How a field without a value is written: TOML has no null.
const NULL: &str = "null";

/// The fields of a `UNet2DModel` with the nulls that are not the default under their name, and without the others.
fn named_nulls(fields: Map<String, Value>) -> Map<String, Value> {
    let usual = Architecture::from(Unet2dConfig::default()).fields();
    let written = fields.into_iter().filter_map(|(field, value)| {
        let is_usual = usual.get(&field) == Some(&value);
        match value {
            Value::Null if is_usual => None,
            Value::Null => Some((field, NULL.into())),
            value => Some((field, value)),
        }
    });
    written.collect()
}

/// The fields with nulls in place of their name.
fn nulls(fields: Map<String, Value>) -> Map<String, Value> {
    let read = fields.into_iter().map(|(field, value)| match value {
        value if value == NULL => (field, Value::Null),
        value => (field, value),
    });
    read.collect()
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if let Self::Adm(config) = self {
            // In the order of its fields, which hashes of older versions cover.
            return config.serialize(serializer);
        }
        let mut fields = match self {
            Self::Unet2d(_) => named_nulls(self.fields()),
            _ => self.fields(),
        };
        if self.name() != "adm" {
            fields.insert(Self::TAG.to_owned(), self.name().into());
        }
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(deserializer)?;
        Self::from_fields(fields).map_err(D::Error::custom)
    }
}
