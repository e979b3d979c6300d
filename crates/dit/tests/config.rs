//! Fields of `config.json`: read as diffusers computes them, or refused by name.

use sdft_dit::{DitConfig, infer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// The fields of the Hub's DiT-XL-2-256.
fn published() -> Value {
    json!({
        "_class_name": "Transformer2DModel",
        "_diffusers_version": "0.12.0.dev0",
        "activation_fn": "gelu-approximate",
        "attention_bias": true,
        "attention_head_dim": 72,
        "cross_attention_dim": null,
        "dropout": 0.0,
        "in_channels": 4,
        "norm_elementwise_affine": false,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": 16,
        "num_embeds_ada_norm": 1000,
        "num_layers": 28,
        "num_vector_embeds": null,
        "only_cross_attention": false,
        "out_channels": 8,
        "patch_size": 2,
        "sample_size": 32,
        "upcast_attention": false,
        "use_linear_projection": false
    })
}

#[test]
fn both_classes_of_diffusers_are_read_with_their_own_defaults() {
    let older = DitConfig::from_json(&object(published())).unwrap();
    let current = json!({"_class_name": "DiTTransformer2DModel", "out_channels": 8});
    assert_eq!(older, DitConfig::from_json(&object(current)).unwrap());
    assert_eq!([older.width(), older.out_channels], [1152, 8]);
    assert!(older.learns_variance());
    let written = older.to_diffusers().unwrap();
    assert_eq!(DitConfig::from_json(&written).unwrap(), older);
    assert_eq!(written["activation_fn"], "gelu-approximate");
    let plain = DitConfig::from_json(&Map::new()).unwrap();
    assert_eq!((plain.out_channels, plain.norm_eps), (4, 1e-5));
    // The older class has another default where a field is absent.
    for (field, expected) in [
        ("activation_fn", "gelu-approximate"),
        ("norm_type", "ada_norm_zero"),
        ("norm_elementwise_affine", "false"),
        ("patch_size", "whole number"),
        ("num_embeds_ada_norm", "whole number"),
    ] {
        let mut fields = object(published());
        fields.remove(field);
        let error = DitConfig::from_json(&fields).unwrap_err();
        assert_eq!(error.field, field);
        assert!(error.expected.contains(expected), "{error}");
    }
}

#[test]
fn what_is_not_supported_or_invalid_is_refused_by_name() {
    for (field, value) in [
        ("_class_name", json!("PixArtTransformer2DModel")),
        ("activation_fn", json!("gelu")),
        ("norm_type", json!("ada_norm_single")),
        ("norm_elementwise_affine", json!(true)),
        ("upcast_attention", json!(true)),
        ("cross_attention_dim", json!(768)),
        ("caption_channels", json!(4096)),
        ("interpolation_scale", json!(2.0)),
        ("attention_type", json!("gated")),
        ("sample_size", json!(33)),
        ("sample_size", json!(null)),
        ("num_layers", json!(0)),
        ("attention_head_dim", json!(-1)),
        ("in_channels", json!("4")),
        ("freq_shift", json!(0.5)),
        ("dropout", json!(1.0)),
        ("norm_eps", json!(-1e-5)),
        ("num_attention_heads", json!(1_000_000)),
        ("something", json!(1)),
    ] {
        let mut fields = object(published());
        fields.insert(field.to_owned(), value);
        let error = DitConfig::from_json(&fields).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn the_official_network_is_found_from_names_and_shapes() {
    let config = DitConfig {
        num_attention_heads: 6,
        attention_head_dim: 64,
        out_channels: 8,
        num_layers: 2,
        num_embeds_ada_norm: 10,
        sample_size: 16,
        norm_eps: 1e-6,
        shared_embedder: true,
        freq_shift: 0.0,
        ..DitConfig::default()
    };
    let specs = sdft_dit::Dit::specs(&config).unwrap();
    let shapes: BTreeMap<_, _> = specs.into_iter().map(|s| (s.name, s.shape)).collect();
    let found = infer(&shapes, Some(64)).unwrap();
    assert_eq!((found.config, found.assumed), (config, vec![]));
    let error = infer(&shapes, Some(63)).unwrap_err();
    assert_eq!(error.field, "pos_embed");
    assert_eq!(infer(&shapes, None).unwrap().assumed, ["sample_size"]);
    let mut shapes = shapes;
    shapes.remove("proj_out_2.weight");
    assert_eq!(infer(&shapes, None).unwrap_err().field, "proj_out_2.weight");
    // No weights make up for other frequencies.
    let error = DitConfig {
        freq_shift: 0.0,
        ..DitConfig::default()
    };
    assert_eq!(error.to_diffusers().unwrap_err().field, "freq_shift");
}
