//! Where the configuration of a network comes from, and the errors where it does not fit.

mod common;

use candle_core::{DType, Device};
use common::{Files, error, given};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Origin, Pool};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::Process;
use sdft_models::{
    LoadOptions, NetworkFile, convert_file, encoder_metadata, inspect_file, load_encoder,
    load_network,
};
use sdft_nn::Params;
use sdft_testing::tiny_config;
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn metadata_comes_first_and_a_contradiction_is_an_error() {
    let files = Files::new();
    let path = files.ours();
    let model = load_network(
        &path,
        &given(json!({ "norm_groups": 4, "channel_mult": [1, 2] })),
    )
    .unwrap();
    assert_eq!(model.architecture, tiny_config().into());
    assert_eq!(model.process.noise_schedule, "cosine");
    assert!(model.origins.values().all(|origin| *origin == Origin::Read));
    for (name, tensor) in files.params.iter() {
        let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(model.params.tensor(name).unwrap()), values(tensor));
    }
    let text = error(&path, &given(json!({ "image_size": 16 }))).to_string();
    assert!(
        text.contains("model.image_size")
            && text.contains("says 16")
            && text.contains("made with 8"),
        "{text}"
    );
    // Dropout belongs to the training.
    assert_eq!(
        load_network(&path, &given(json!({ "dropout": 0.3 })))
            .unwrap()
            .architecture
            .dropout(),
        0.3
    );
}

#[test]
fn without_metadata_shapes_and_the_user_decide_and_the_rest_is_assumed() {
    let files = Files::new();
    let path = files.bare();
    let options = given(json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 }));
    let model = load_network(&path, &options).unwrap();
    assert_eq!(model.architecture, tiny_config().into());
    for (field, origin) in [
        ("model_channels", Origin::Inferred),
        ("norm_groups", Origin::Given),
        ("image_size", Origin::Given),
        ("use_new_attention_order", Origin::Assumed),
    ] {
        assert_eq!(model.origins[field], origin, "{field}");
    }
    // 32 norm groups are assumed, which these widths do not have.
    let text = error(&path, &given(json!({ "image_size": 8 }))).to_string();
    assert!(text.contains("norm_groups"), "{text}");
}

#[test]
fn a_misfit_names_everything_and_its_likely_cause() {
    let files = Files::new();
    let path = files.bare();
    let options = given(
        json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8, "num_res_blocks": 2 }),
    );
    let text = error(&path, &options).to_string();
    assert!(
        text.contains("missing:")
            && text.contains("the file has model.num_res_blocks = 1, the configuration says 2"),
        "{text}"
    );
}

#[test]
fn other_networks_are_recognised_and_refused() {
    let files = Files::new();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny_config()
        },
        pool: Pool::Attention,
    };
    let params = Params::init(&Encoder::specs(&config).unwrap(), 0, &Device::Cpu).unwrap();
    let path = files.path("classifier.safetensors");
    write_safetensors(&path, params.iter(), &BTreeMap::new(), None).unwrap();
    let options = given(json!({ "norm_groups": 4, "num_head_channels": 8 }));
    let text = error(&path, &options).to_string();
    assert!(text.contains("classifier (Attention pool)"), "{text}");
    let seen = inspect_file(&path, &options).unwrap();
    assert!(seen.misfit.is_none());
    assert_eq!(seen.resolved.unwrap().encoder(), Some(config));
    let odd = files.path("odd.safetensors");
    let w = candle_core::Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    write_safetensors(&odd, [("w", &w)], &BTreeMap::new(), None).unwrap();
    assert!(
        error(&odd, &LoadOptions::default())
            .to_string()
            .contains("not an ADM network")
    );
}

#[test]
fn classifiers_of_any_origin_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny_config()
        },
        pool: Pool::Attention,
    };
    let params = Params::init(&Encoder::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let ours = dir.path().join("ours.safetensors");
    let metadata = encoder_metadata(&config, &Process::default(), &BTreeMap::new()).unwrap();
    write_safetensors(&ours, params.iter(), &metadata, None).unwrap();
    // EGSDE keeps the head under a name of its own, and no metadata.
    let theirs = dir.path().join("egsde.safetensors");
    let renamed: Vec<(String, _)> = params
        .iter()
        .map(|(name, tensor)| match name.strip_prefix("out.") {
            Some(leaf) => (format!("I2Iout.{leaf}"), tensor),
            None => (name.to_owned(), tensor),
        })
        .collect();
    let entries = renamed
        .iter()
        .map(|(name, tensor)| (name.as_str(), *tensor));
    write_safetensors(&theirs, entries, &BTreeMap::new(), None).unwrap();
    let groups = given(json!({ "norm_groups": 4, "num_head_channels": 8 }));
    for (path, options) in [(&ours, LoadOptions::default()), (&theirs, groups)] {
        let found = load_encoder(path, &options).unwrap();
        assert_eq!(found.config, config, "{}", path.display());
        for ((a, x), (b, y)) in found.params.iter().zip(params.iter()) {
            let values =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(a == b && values(x) == values(y), "{a}");
        }
        assert!(inspect_file(path, &options).unwrap().misfit.is_none());
        let refused = load_network(path, &options).unwrap_err().to_string();
        assert!(refused.contains("found a classifier"), "{refused}");
    }
    let files = Files::new();
    let refused = load_encoder(&files.ours(), &LoadOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("found a U-Net"), "{refused}");
}

#[test]
fn conversion_keeps_the_configuration_and_records_its_source() {
    let files = Files::new();
    let (from, to) = (files.ours(), files.path("half.safetensors"));
    convert_file(&from, &to, &LoadOptions::default(), Some(DType::F16)).unwrap();
    let seen = inspect_file(&to, &LoadOptions::default()).unwrap();
    assert_eq!(seen.summary.metadata["sdft.provenance.run"], "r");
    assert_eq!(
        seen.summary.metadata["sdft.provenance.converted_from"],
        "ours.safetensors"
    );
    let model = load_network(&to, &LoadOptions::default()).unwrap();
    assert_eq!(
        (model.architecture, model.process.noise_schedule.as_str()),
        (tiny_config().into(), "cosine")
    );
}

#[test]
fn numbers_in_metadata_have_bounds_before_they_are_used() {
    let files = Files::new();
    let metadata = sdft_models::network_metadata(&NetworkFile::new(
        &tiny_config().into(),
        &Process::default(),
    ))
    .unwrap();
    let process = |steps: &str| {
        format!(
            "{{\"noise_schedule\":\"linear\",\"diffusion_steps\":{steps},\"sigma_small\":false,\"rescale_timesteps\":false}}"
        )
    };
    let model = |field: &str, value: serde_json::Value| {
        let mut config = serde_json::to_value(tiny_config()).unwrap();
        config[field] = value;
        ("sdft.model", config.to_string())
    };
    for (key, text) in [
        ("sdft.process", process("300000000")),
        ("sdft.process", process("18446744073709551615")),
        ("sdft.process", process("0")),
        ("sdft.process", process("-1")),
        model("image_size", json!(u64::MAX)),
        model("num_res_blocks", json!(1_u64 << 40)),
        model("channel_mult", json!(vec![1.0; 100_000])),
        model("channel_mult", json!([1e300, 2.0])),
        model("model_channels", json!(u64::MAX)),
        model("norm_groups", json!(0)),
    ] {
        let mut metadata = metadata.clone();
        metadata.insert(key.to_owned(), text.clone());
        let path = files.path("odd.safetensors");
        write_safetensors(&path, files.params.iter(), &metadata, None).unwrap();
        let started = std::time::Instant::now();
        let shown = error(&path, &LoadOptions::default()).to_string();
        let seen = inspect_file(&path, &LoadOptions::default()).unwrap();
        assert!(seen.resolved.is_err(), "{text:.200}");
        assert!(
            shown.contains("odd.safetensors") && shown.len() < 2000,
            "{shown:.2000}"
        );
        assert!(started.elapsed().as_secs() < 2, "{text:.200}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_everywhere() {
    let files = Files::new();
    let path = files.path("nan.safetensors");
    let named: Vec<(String, candle_core::Tensor)> = files
        .params
        .iter()
        .map(|(name, tensor)| {
            let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            if name == "input_blocks.0.0.weight" {
                values[3] = f32::NAN;
            }
            let tensor = candle_core::Tensor::from_vec(values, tensor.dims(), &Device::Cpu);
            (name.to_owned(), tensor.unwrap())
        })
        .collect();
    let metadata = sdft_models::network_metadata(&NetworkFile::new(
        &tiny_config().into(),
        &Process::default(),
    ))
    .unwrap();
    let entries = named.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&path, entries, &metadata, None).unwrap();
    let out = files.path("out.safetensors");
    let options = LoadOptions::default();
    for text in [
        load_network(&path, &options).unwrap_err().to_string(),
        load_encoder(&path, &options).unwrap_err().to_string(),
        convert_file(&path, &out, &options, None)
            .unwrap_err()
            .to_string(),
        sdft_models::load_network_bytes(
            "nan.safetensors",
            &std::fs::read(&path).unwrap(),
            &options,
        )
        .unwrap_err()
        .to_string(),
    ] {
        assert!(
            text.contains("nan.safetensors")
                && text.contains("input_blocks.0.0.weight: 1 of 216 values is NaN"),
            "{text}"
        );
    }
    assert!(!out.exists());
    let found = sdft_models::scan_file(&path, &options).unwrap();
    assert_eq!((found.len(), found[0].nan, found[0].of), (1, 1, 216));
    assert_eq!(sdft_models::scan_file(&files.ours(), &options).unwrap(), []);
}
