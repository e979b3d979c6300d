//! Every field of `config.json` is honoured, or refused by name.

use sdft_unet2d::{
    ActFn, ClassEmbed, DownBlock, ResampleType, SampleSize, TimeEmbedding, TimeScaleShift, Unet2d,
    Unet2dConfig, UpBlock,
};
use serde_json::{Map, Value, json};

fn object(json: Value) -> Map<String, Value> {
    json.as_object().cloned().unwrap()
}

/// The tiny configuration with one field changed.
fn with(field: &str, value: Value) -> Map<String, Value> {
    let mut json = object(json!({
        "sample_size": 8,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }));
    json.insert(field.to_owned(), value);
    json
}

#[test]
fn an_empty_file_is_the_default_network_of_diffusers() {
    let config = Unet2dConfig::from_json(&Map::new()).unwrap();
    assert_eq!(config, Unet2dConfig::default());
    assert_eq!(config.sides(), None);
    assert_eq!(config.emb_channels(), 4 * 224);
    // The count that diffusers 0.42 reports for UNet2DModel().
    let specs = Unet2d::specs(&config).unwrap();
    let sizes = specs
        .iter()
        .map(|spec| spec.shape.iter().product::<usize>());
    assert_eq!(sizes.sum::<usize>(), 274_056_163);
}

#[test]
fn every_field_survives_being_written_and_read() {
    let config = Unet2dConfig {
        sample_size: Some(SampleSize::Sides([8, 16])),
        in_channels: 4,
        out_channels: 8,
        center_input_sample: true,
        time_embedding_type: TimeEmbedding::Learned,
        time_embedding_dim: Some(20),
        freq_shift: 1.0,
        flip_sin_to_cos: false,
        down_block_types: vec![DownBlock::Resnet, DownBlock::Attention],
        mid_block_type: None,
        up_block_types: vec![UpBlock::Resnet, UpBlock::Plain],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        mid_block_scale_factor: 1.5,
        downsample_padding: 0,
        downsample_type: Some(ResampleType::Resnet),
        upsample_type: None,
        dropout: 0.25,
        act_fn: ActFn::Relu,
        attention_head_dim: None,
        norm_num_groups: 4,
        attn_norm_num_groups: Some(2),
        norm_eps: 1e-6,
        resnet_time_scale_shift: TimeScaleShift::ScaleShift,
        add_attention: false,
        class_embed_type: Some(ClassEmbed::Timestep),
        num_class_embeds: Some(10),
        num_train_timesteps: Some(50),
        time_adapter_rank: Some(3),
    };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Unet2dConfig>(&text).unwrap(), config);
    let json: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let defaults = serde_json::to_value(Unet2dConfig::default()).unwrap();
    for (field, value) in &json {
        assert_ne!(defaults.get(field), Some(value), "{field} is not tested");
    }
    assert_eq!(json.len(), 29);
    assert!(defaults.get("time_adapter_rank").is_none());
}

#[test]
fn fields_with_an_underscore_are_ignored_and_other_unknown_ones_are_refused() {
    let known = with("_diffusers_version", json!("0.0.4"));
    assert!(Unet2dConfig::from_json(&known).is_ok());
    let error = Unet2dConfig::from_json(&with("attention_legacy_order", json!(true))).unwrap_err();
    assert_eq!(error.field, "attention_legacy_order");
    let error = Unet2dConfig::from_json(&with("_class_name", json!("UNet2DConditionModel")));
    assert_eq!(
        error.unwrap_err().to_string(),
        "_class_name: expected UNet2DModel, found \"UNet2DConditionModel\""
    );
}

#[test]
fn spellings_of_other_versions_mean_the_same() {
    let of = |field, value| Unet2dConfig::from_json(&with(field, value)).unwrap();
    assert_eq!(of("act_fn", json!("swish")), of("act_fn", json!("SiLU")));
    assert_eq!(
        of("block_out_channels", json!([8.0, 16.0])).block_out_channels,
        [8, 16]
    );
    assert_eq!(
        of("mid_block_scale_factor", json!(1)).mid_block_scale_factor,
        1.0
    );
    let old = json!(["UNetResDownBlock2D", "UNetResAttnDownBlock2D"]);
    let blocks = of("down_block_types", old).down_block_types;
    assert_eq!(blocks, [DownBlock::Plain, DownBlock::Attention]);
}

#[test]
fn what_is_not_supported_is_refused_by_field_with_what_was_found() {
    for (field, value) in [
        ("sample_size", json!("large")),
        ("sample_size", json!(9)),
        ("sample_size", json!([8, 9])),
        ("in_channels", json!(0)),
        ("in_channels", json!(null)),
        ("out_channels", json!(-3)),
        ("center_input_sample", json!(1)),
        ("time_embedding_type", json!("fourier")),
        ("time_embedding_type", json!(null)),
        ("time_embedding_dim", json!("wide")),
        ("freq_shift", json!(4)),
        ("flip_sin_to_cos", json!(null)),
        (
            "down_block_types",
            json!(["SkipDownBlock2D", "AttnSkipDownBlock2D"]),
        ),
        ("down_block_types", json!(["DownBlock2D"])),
        ("up_block_types", json!(["SkipUpBlock2D", "UpBlock2D"])),
        (
            "up_block_types",
            json!(["UpBlock2D", "UpBlock2D", "UpBlock2D"]),
        ),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("block_out_channels", json!([])),
        ("block_out_channels", json!([8, 1_000_000])),
        ("layers_per_block", json!(0)),
        ("layers_per_block", json!([1, 2])),
        ("mid_block_scale_factor", json!(0)),
        ("downsample_padding", json!(2)),
        ("downsample_type", json!("fir")),
        ("upsample_type", json!("fir")),
        ("dropout", json!(1.0)),
        ("act_fn", json!("mish")),
        ("act_fn", json!("gelu")),
        ("act_fn", json!(null)),
        ("attention_head_dim", json!(0)),
        ("attention_head_dim", json!(32)),
        ("norm_num_groups", json!(3)),
        ("norm_num_groups", json!(null)),
        ("attn_norm_num_groups", json!(5)),
        ("norm_eps", json!(-1e-5)),
        ("resnet_time_scale_shift", json!("spatial")),
        ("add_attention", json!("yes")),
        ("class_embed_type", json!("projection")),
        ("num_class_embeds", json!(0)),
        ("num_train_timesteps", json!(0)),
    ] {
        let error = Unet2dConfig::from_json(&with(field, value.clone())).unwrap_err();
        assert_eq!(error.field, field, "{value}: {error}");
        assert!(!error.expected.is_empty() && !error.found.is_empty());
    }
    let error = Unet2dConfig::from_json(&with("time_embedding_type", json!("learned")));
    assert_eq!(error.unwrap_err().field, "num_train_timesteps");
    let error = Unet2dConfig::from_json(&with("time_embedding_type", json!("fourier")));
    assert_eq!(
        error.unwrap_err().to_string(),
        "time_embedding_type: expected positional or learned, found \"fourier\""
    );
}

#[test]
fn sizes_have_bounds_before_anything_is_allocated() {
    for (field, value) in [
        ("layers_per_block", json!(u64::MAX)),
        ("in_channels", json!(1u64 << 60)),
        ("num_class_embeds", json!(1u64 << 40)),
        ("time_embedding_dim", json!(1u64 << 40)),
        ("sample_size", json!(1u64 << 60)),
        ("block_out_channels", json!([65536, 65536])),
    ] {
        let error = Unet2dConfig::from_json(&with(field, value)).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn networks_that_cannot_be_trained_name_the_field() {
    let field = |name, value| {
        let config = Unet2dConfig::from_json(&with(name, value)).unwrap();
        config.check_trainable().map_err(|error| error.field)
    };
    assert_eq!(field("out_channels", json!(6)), Ok(()));
    assert_eq!(field("num_class_embeds", json!(10)), Ok(()));
    assert_eq!(field("class_embed_type", json!("timestep")), Ok(()));
    for (name, value) in [
        ("class_embed_type", json!("identity")),
        ("out_channels", json!(5)),
    ] {
        assert_eq!(field(name, value), Err(name.to_owned()));
    }
}

#[test]
fn parameters_are_counted_as_the_network_has_them() {
    for (field, value) in [
        ("out_channels", json!(6)),
        ("mid_block_type", json!(null)),
        ("add_attention", json!(false)),
        ("attention_head_dim", json!(null)),
        ("attention_head_dim", json!(5)),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("downsample_type", json!("resnet")),
        ("upsample_type", json!("resnet")),
        ("layers_per_block", json!(3)),
        ("num_class_embeds", json!(10)),
        ("class_embed_type", json!("timestep")),
        ("class_embed_type", json!("identity")),
        ("time_embedding_dim", json!(20)),
        (
            "up_block_types",
            json!(["ResnetUpsampleBlock2D", "AttnUpBlock2D"]),
        ),
        (
            "down_block_types",
            json!(["ResnetDownsampleBlock2D", "DownBlock2D"]),
        ),
    ] {
        let config = Unet2dConfig::from_json(&with(field, value)).unwrap();
        let specs = Unet2d::specs(&config).unwrap();
        let sizes = specs
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>());
        let cost = config.cost([8; 2]);
        assert_eq!(cost.parameters, sizes.sum::<usize>(), "{field}");
        assert!(cost.recomputed_bytes < cost.activation_bytes);
        let larger = config.cost([16; 2]);
        assert!(larger.forward_flops > 3.0 * cost.forward_flops);
        assert_eq!(larger.activation_bytes, 4.0 * cost.activation_bytes);
    }
}
