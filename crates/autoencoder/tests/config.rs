//! Configurations as JSON.

use sdft_autoencoder::{AutoencoderConfig, AutoencoderKlConfig, VqModelConfig};
use serde_json::{Map, Value, json};

fn read(json: Value) -> Result<AutoencoderConfig, String> {
    let fields: Map<String, Value> = serde_json::from_value(json).map_err(|e| e.to_string())?;
    AutoencoderConfig::from_fields(&fields).map_err(|e| e.to_string())
}

#[test]
fn absent_fields_have_diffusers_defaults_and_all_fields_are_written() {
    let kl =
        read(json!({ "_class_name": "AutoencoderKL", "_diffusers_version": "0.4.2" })).unwrap();
    assert_eq!(kl, AutoencoderKlConfig::default().into());
    assert_eq!(
        (kl.scaling_factor(), kl.shift_factor(), kl.factor()),
        (0.18215, 0.0, 1)
    );
    let vq = read(json!({ "_class_name": "VQModel", "vq_embed_dim": 5 })).unwrap();
    assert_eq!((vq.latent_channels(), vq.class_name()), (5, "VQModel"));
    for config in [kl, vq, VqModelConfig::default().into()] {
        assert_eq!(read(Value::Object(config.fields())).unwrap(), config);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<AutoencoderConfig>(&text).unwrap(),
            config
        );
        assert_eq!(config.metadata()["sdft.kind"], "autoencoder");
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (class, field, value, problem) in [
        (
            "VQModel",
            "norm_type",
            json!("spatial"),
            "norm_type: expected group",
        ),
        (
            "VQModel",
            "latents_mean",
            json!(null),
            "latents_mean: expected a field that VQModel has",
        ),
        (
            "AutoencoderKL",
            "latents_std",
            json!([1.0]),
            "latents_std: expected null",
        ),
        (
            "AutoencoderKL",
            "act_fn",
            json!("gelu"),
            "act_fn: expected silu, swish or relu",
        ),
        (
            "AutoencoderKL",
            "up_block_types",
            json!([]),
            "up_block_types: expected 1 blocks",
        ),
        (
            "AutoencoderKL",
            "block_out_channels",
            json!([48]),
            "norm_num_groups: expected a number that divides 48",
        ),
        (
            "AutoencoderKL",
            "latent_channels",
            json!(0),
            "latent_channels: expected 1 to",
        ),
        (
            "AutoencoderKL",
            "scaling_factor",
            json!(-1),
            "scaling_factor: expected a number above 0",
        ),
        (
            "AutoencoderTiny",
            "act_fn",
            json!("relu"),
            "_class_name: expected AutoencoderKL or VQModel",
        ),
    ] {
        let error = read(json!({ "_class_name": class, field: value })).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let error = read(json!({})).unwrap_err();
    assert!(
        error.contains("_class_name") && error.contains("nothing"),
        "{error}"
    );
}
