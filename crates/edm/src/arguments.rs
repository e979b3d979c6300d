//! The constructor arguments of NVlabs/edm's classes, as its snapshots store them.

use crate::{ConfigError, DhariwalConfig, EdmConfig, ModelConfig, SongUnetConfig};
use sdft_diffusion::Precond;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The network of a preconditioning class (`EDMPrecond`, `VPPrecond`, `VEPrecond`) with these keyword arguments; missing ones take the
/// defaults of the class.
///
/// `use_fp16` only sets the precision of the reference, and is accepted.
///
/// # Errors
/// A class or an argument that is unknown, missing without a default, or of the wrong type; a network that cannot be built.
pub fn from_arguments(
    class: &str,
    arguments: &Map<String, Value>,
) -> Result<EdmConfig, ConfigError> {
    let mut rest = arguments.clone();
    take::<bool>(&mut rest, "use_fp16")?;
    let required = |rest: &mut Map<String, Value>, name: &str| {
        take(rest, name)?
            .ok_or_else(|| ConfigError::new(name, format!("{class} needs it, and it is missing")))
    };
    let img_resolution = required(&mut rest, "img_resolution")?;
    let img_channels = required(&mut rest, "img_channels")?;
    let label_dim = take(&mut rest, "label_dim")?.unwrap_or(0);
    let mut number = |name: &str, default: f64| -> Result<f64, ConfigError> {
        Ok(take(&mut rest, name)?.unwrap_or(default))
    };
    let (precond, default_model) = match class {
        "EDMPrecond" => {
            let precond = Precond::Edm {
                sigma_min: number("sigma_min", 0.0)?,
                sigma_max: take_limit(&mut rest)?,
                sigma_data: take(&mut rest, "sigma_data")?.unwrap_or(0.5),
            };
            (precond, "DhariwalUNet")
        }
        "VPPrecond" => {
            let precond = Precond::Vp {
                beta_d: number("beta_d", 19.9)?,
                beta_min: number("beta_min", 0.1)?,
                m: number("M", 1000.0)?,
                epsilon_t: number("epsilon_t", 1e-5)?,
            };
            (precond, "SongUNet")
        }
        "VEPrecond" => {
            let precond = Precond::Ve {
                sigma_min: number("sigma_min", 0.02)?,
                sigma_max: number("sigma_max", 100.0)?,
            };
            (precond, "SongUNet")
        }
        other => {
            return Err(ConfigError::new(
                "precond",
                format!("expected EDMPrecond, VPPrecond or VEPrecond, found {other}"),
            ));
        }
    };
    let model_type = take(&mut rest, "model_type")?.unwrap_or_else(|| default_model.to_owned());
    let model = match model_type.as_str() {
        "SongUNet" => ModelConfig::SongUNet(model::<SongUnetConfig>(rest, &model_type)?),
        "DhariwalUNet" => ModelConfig::DhariwalUNet(model::<DhariwalConfig>(rest, &model_type)?),
        other => {
            return Err(ConfigError::new(
                "model_type",
                format!("expected SongUNet or DhariwalUNet, found {other}"),
            ));
        }
    };
    let config = EdmConfig {
        precond,
        img_resolution,
        img_channels,
        label_dim,
        model,
        ..EdmConfig::default()
    };
    config.validate()?;
    Ok(config)
}

/// Removes an argument.
fn take<T: DeserializeOwned>(
    rest: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = rest.remove(name) else {
        return Ok(None);
    };
    let found = value.to_string();
    serde_json::from_value(value)
        .map(Some)
        .map_err(|error| ConfigError::new(name, format!("{error}, found {found}")))
}

/// `sigma_max` of `EDMPrecond`, which has no limit by default: infinity, which JSON writes as null or as text.
fn take_limit(rest: &mut Map<String, Value>) -> Result<Option<f64>, ConfigError> {
    match rest.get("sigma_max") {
        Some(Value::Null) => {}
        Some(Value::String(text)) if text.parse() == Ok(f64::INFINITY) => {}
        _ => return take(rest, "sigma_max"),
    }
    rest.remove("sigma_max");
    Ok(None)
}

/// The remaining arguments, which are those of the network.
fn model<T: DeserializeOwned>(rest: Map<String, Value>, class: &str) -> Result<T, ConfigError> {
    serde_json::from_value(Value::Object(rest))
        .map_err(|error| ConfigError::new("model_kwargs", format!("{class}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EncoderType;

    fn read(class: &str, json: &str) -> Result<EdmConfig, ConfigError> {
        from_arguments(
            class,
            serde_json::from_str::<Value>(json)
                .unwrap()
                .as_object()
                .unwrap(),
        )
    }

    #[test]
    fn arguments_of_both_parts_are_read_and_missing_ones_have_the_defaults_of_the_class() {
        let config = read(
            "EDMPrecond",
            r#"{"img_resolution": 64, "img_channels": 3, "label_dim": 0, "use_fp16": true, "sigma_data": 0.25,
                "model_type": "SongUNet", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1], "dropout": 0.05}"#,
        )
        .unwrap();
        let ModelConfig::SongUNet(model) = &config.model else {
            panic!("{config:?}");
        };
        assert_eq!(model.encoder_type, EncoderType::Residual);
        assert_eq!(model.resample_filter, [1.0, 3.0, 3.0, 1.0]);
        assert_eq!(model.channel_mult, [1, 2, 2, 2]);
        assert_eq!(config.precond.sigma_data(), Some(0.25));
        // The default network depends on the class.
        let sizes = r#"{"img_resolution": 64, "img_channels": 3}"#;
        assert!(matches!(
            read("EDMPrecond", sizes).unwrap().model,
            ModelConfig::DhariwalUNet(_)
        ));
        let vp = read("VPPrecond", sizes).unwrap();
        assert!(matches!(vp.model, ModelConfig::SongUNet(_)));
        assert_eq!(vp.precond, Precond::VP);
        let limit = r#"{"img_resolution": 64, "img_channels": 3, "sigma_max": "inf"}"#;
        assert_eq!(read("EDMPrecond", limit).unwrap().precond, Precond::EDM);
    }

    #[test]
    fn unknown_arguments_and_classes_are_refused_by_name() {
        let error = |class: &str, json: &str| read(class, json).unwrap_err().to_string();
        let sizes = r#""img_resolution": 64, "img_channels": 3"#;
        let text = error("EDMPrecond", &format!("{{{sizes}, \"depth\": 3}}"));
        assert!(text.contains("depth"), "{text}");
        // A field of the other network.
        let text = error(
            "EDMPrecond",
            &format!("{{{sizes}, \"encoder_type\": \"skip\"}}"),
        );
        assert!(text.contains("encoder_type"), "{text}");
        let text = error("iDDPMPrecond", &format!("{{{sizes}}}"));
        assert!(text.contains("found iDDPMPrecond"), "{text}");
        let text = error("VEPrecond", r#"{"img_channels": 3}"#);
        assert!(text.contains("img_resolution"), "{text}");
        let text = error(
            "VEPrecond",
            &format!("{{{sizes}, \"sigma_max\": \"high\"}}"),
        );
        assert!(
            text.contains("sigma_max") && text.contains("high"),
            "{text}"
        );
    }
}
