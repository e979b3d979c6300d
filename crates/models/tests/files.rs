//! Where a configuration comes from, and what is said when it does not fit.

use candle_core::{DType, Device};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Origin, Pool, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_models::{
    LoadOptions, ModelError, Process, convert_file, encoder_metadata, inspect_file, load_encoder,
    load_unet, save_unet,
};
use sdft_nn::Params;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn tiny() -> AdmConfig {
    AdmConfig {
        image_size: 8,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 8,
        norm_groups: 4,
        ..AdmConfig::default()
    }
}

struct Files {
    dir: tempfile::TempDir,
    params: Params,
}

impl Files {
    fn new() -> Self {
        let params = Params::init(&Unet::specs(&tiny()).unwrap(), 5, &Device::Cpu).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            params,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With metadata, as this project writes it.
    fn ours(&self) -> PathBuf {
        let path = self.path("ours.safetensors");
        let cosine = Process {
            noise_schedule: "cosine".into(),
            ..Process::default()
        };
        let provenance = BTreeMap::from([("run".to_owned(), "r".to_owned())]);
        save_unet(&path, &tiny(), &cosine, &self.params, &provenance, None).unwrap();
        path
    }

    /// Without, as others do.
    fn bare(&self) -> PathBuf {
        let path = self.path("bare.safetensors");
        write_safetensors(&path, self.params.iter(), &BTreeMap::new(), None).unwrap();
        path
    }
}

fn given(fields: serde_json::Value) -> LoadOptions {
    let serde_json::Value::Object(given) = fields else {
        panic!("an object is needed")
    };
    LoadOptions {
        given,
        ..LoadOptions::default()
    }
}

fn error(path: &Path, options: &LoadOptions) -> ModelError {
    load_unet(path, options).unwrap_err()
}

#[test]
fn metadata_comes_first_and_a_contradiction_is_an_error() {
    let files = Files::new();
    let path = files.ours();
    let model = load_unet(
        &path,
        &given(json!({ "norm_groups": 4, "channel_mult": [1, 2] })),
    )
    .unwrap();
    assert_eq!(model.config, tiny());
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
        load_unet(&path, &given(json!({ "dropout": 0.3 })))
            .unwrap()
            .config
            .dropout,
        0.3
    );
}

#[test]
fn without_metadata_shapes_and_the_user_decide_and_the_rest_is_assumed() {
    let files = Files::new();
    let path = files.bare();
    let options = given(json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 }));
    let model = load_unet(&path, &options).unwrap();
    assert_eq!(model.config, tiny());
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
fn other_networks_are_told_apart() {
    let files = Files::new();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny()
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
fn a_classifier_is_read_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny()
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
        let refused = load_unet(path, &options).unwrap_err().to_string();
        assert!(refused.contains("this is a classifier"), "{refused}");
    }
    let files = Files::new();
    let refused = load_encoder(&files.ours(), &LoadOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("this is a U-Net"), "{refused}");
}

#[test]
fn conversion_keeps_the_configuration_and_says_where_it_came_from() {
    let files = Files::new();
    let (from, to) = (files.ours(), files.path("half.safetensors"));
    convert_file(&from, &to, &LoadOptions::default(), Some(DType::F16)).unwrap();
    let seen = inspect_file(&to, &LoadOptions::default()).unwrap();
    assert_eq!(seen.summary.metadata["sdft.provenance.run"], "r");
    assert_eq!(
        seen.summary.metadata["sdft.provenance.converted_from"],
        "ours.safetensors"
    );
    let model = load_unet(&to, &LoadOptions::default()).unwrap();
    assert_eq!(
        (model.config, model.process.noise_schedule.as_str()),
        (tiny(), "cosine")
    );
}
