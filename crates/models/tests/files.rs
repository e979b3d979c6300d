//! Where a configuration comes from, and what is said when it does not fit.

use candle_core::{DType, Device, Tensor};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Origin, Pool, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Denoiser, PredictionType};
use sdft_models::{
    LoadOptions, ModelError, Process, convert_file, encoder_metadata, inspect_file, load_encoder,
    load_unet, save_unet,
};
use sdft_nn::Params;
use sdft_testing::{initial_params, tiny_config};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Files {
    dir: tempfile::TempDir,
    params: Params,
}

impl Files {
    fn new() -> Self {
        let params = initial_params(&tiny_config(), 5);
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
        save_unet(
            &path,
            &tiny_config(),
            &cosine,
            &self.params,
            &provenance,
            None,
        )
        .unwrap();
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
    assert_eq!(model.config, tiny_config());
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
    assert_eq!(model.config, tiny_config());
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
fn a_classifier_is_read_whoever_wrote_it() {
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
        (tiny_config(), "cosine")
    );
}

/// A network whose resolution changes by plain convolutions, without metadata.
fn plain(files: &Files) -> (PathBuf, serde_json::Value) {
    let config = AdmConfig {
        resblock_updown: false,
        ..tiny_config()
    };
    let params = Params::init(&Unet::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    let path = files.path("plain.safetensors");
    write_safetensors(&path, params.iter(), &BTreeMap::new(), None).unwrap();
    let shown = json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 });
    (path, shown)
}

fn with_process(fields: serde_json::Value, process: serde_json::Value) -> LoadOptions {
    LoadOptions {
        given_process: process.as_object().unwrap().clone(),
        ..given(fields)
    }
}

#[test]
fn an_assumed_process_is_said_by_whoever_loads_inspects_or_converts() {
    let files = Files::new();
    let path = files.bare();
    let fields = json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 });
    let said = "the linear schedule of 1000 steps is assumed";
    let model = load_unet(&path, &given(fields.clone())).unwrap();
    assert!(model.notes.join("").contains(said), "{:?}", model.notes);
    let inspected = inspect_file(&path, &given(fields.clone())).unwrap();
    let resolved = inspected.resolved.unwrap();
    assert_eq!(resolved.process_origins["noise_schedule"], Origin::Assumed);
    assert_eq!(resolved.ask, None);
    // What is given is not assumed, and what is half given is half assumed.
    let half = with_process(fields.clone(), json!({ "noise_schedule": "cosine" }));
    let notes = load_unet(&path, &half).unwrap().notes.join("");
    assert!(notes.contains("1000 steps are assumed"), "{notes}");
    let whole = json!({ "noise_schedule": "cosine", "diffusion_steps": 4000 });
    let model = load_unet(&path, &with_process(fields.clone(), whole)).unwrap();
    assert!(
        !model.notes.join("").contains("process"),
        "{:?}",
        model.notes
    );
    assert_eq!(model.process.diffusion_steps, 4000);
    // The process of another model that this one is used with.
    let other = LoadOptions {
        process_otherwise: Some(model.process.clone()),
        ..given(fields.clone())
    };
    let other_process = load_unet(&path, &other).unwrap();
    assert_eq!(other_process.process, model.process);
    assert!(
        other_process
            .notes
            .join("")
            .contains("as of the other model"),
        "{:?}",
        other_process.notes
    );

    // A converted file remembers what was assumed, and takes a correction.
    let converted = files.path("converted.safetensors");
    let notes = convert_file(&path, &converted, &given(fields), None).unwrap();
    assert!(notes.join("").contains(said), "{notes:?}");
    let again = load_unet(&converted, &LoadOptions::default()).unwrap();
    assert!(again.notes.join("").contains(said), "{:?}", again.notes);
    assert_eq!(again.origins["norm_groups"], Origin::Read);
    let corrected = with_process(
        json!({}),
        json!({ "noise_schedule": "cosine", "diffusion_steps": 50 }),
    );
    let model = load_unet(&converted, &corrected).unwrap();
    assert_eq!(model.process.diffusion_steps, 50);
    let error = error(&converted, &given(json!({ "norm_groups": 2 })));
    assert!(matches!(error, ModelError::Conflict { .. }), "{error}");
}

#[test]
fn a_process_is_asked_for_where_public_families_differ() {
    let files = Files::new();
    let (path, fields) = plain(&files);
    let options = given(fields.clone());
    for text in [
        error(&path, &options).to_string(),
        convert_file(&path, &files.path("out.safetensors"), &options, None)
            .unwrap_err()
            .to_string(),
        inspect_file(&path, &options)
            .unwrap()
            .resolved
            .unwrap()
            .ask
            .unwrap(),
    ] {
        for words in [
            "--set process.noise_schedule=cosine --set process.diffusion_steps=4000",
            "--set process.noise_schedule=linear --set process.diffusion_steps=1000",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
    assert!(!files.path("out.safetensors").exists());
    // Metadata that leaves the schedule out says no more than none.
    let partial = files.path("partial.safetensors");
    let params = load_unet(
        &path,
        &with_process(
            fields.clone(),
            json!({ "noise_schedule": "linear", "diffusion_steps": 1000 }),
        ),
    )
    .unwrap()
    .params;
    let metadata = BTreeMap::from([("sdft.process".to_owned(), "{}".to_owned())]);
    write_safetensors(&partial, params.iter(), &metadata, None).unwrap();
    let text = error(&partial, &options).to_string();
    assert!(
        text.contains("--set process.noise_schedule=cosine"),
        "{text}"
    );
    for process in [
        json!({ "noise_schedule": "cosine", "diffusion_steps": 4000, "rescale_timesteps": true }),
        json!({ "noise_schedule": "linear", "diffusion_steps": 1000 }),
    ] {
        let options = with_process(fields.clone(), process.clone());
        let model = load_unet(&path, &options).unwrap();
        assert_eq!(
            json!(model.process.noise_schedule),
            process["noise_schedule"]
        );
        let out = files.path("known.safetensors");
        convert_file(&path, &out, &options, None).unwrap();
        let again = load_unet(&out, &LoadOptions::default()).unwrap();
        assert_eq!(again.process, model.process);
        assert!(
            !again.notes.join("").contains("process"),
            "{:?}",
            again.notes
        );
    }
}

#[test]
fn what_a_network_predicts_is_stored_and_given_and_reaches_the_network() {
    let files = Files::new();
    for kind in PredictionType::ALL {
        let process = Process {
            prediction_type: kind,
            ..Process::default()
        };
        let path = files.path("predicts.safetensors");
        let none = BTreeMap::new();
        save_unet(&path, &tiny_config(), &process, &files.params, &none, None).unwrap();
        let model = load_unet(&path, &LoadOptions::default()).unwrap();
        assert_eq!(model.process, process);
        let side = tiny_config().image_size;
        let x = Tensor::zeros((1, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let prediction = model.unet().unwrap().predict(&x, &[0.0]).unwrap();
        assert_eq!(prediction.prediction_type, kind);
        // What the file says may not be contradicted, whether it is written or left out.
        for other in PredictionType::ALL {
            let options = with_process(json!({}), json!({ "prediction_type": other.name() }));
            let loaded = load_unet(&path, &options);
            assert_eq!(loaded.is_ok(), other == kind, "{kind} {other}");
        }
    }
    // A file without metadata takes it from the user, and a conversion keeps it.
    let fields = json!({ "norm_groups": 4, "image_size": 8 });
    let options = with_process(fields.clone(), json!({ "prediction_type": "v_prediction" }));
    let out = files.path("converted.safetensors");
    convert_file(&files.bare(), &out, &options, None).unwrap();
    let again = load_unet(&out, &LoadOptions::default()).unwrap();
    assert_eq!(again.process.prediction_type, PredictionType::V);
    let unknown = with_process(fields, json!({ "prediction_type": "v" }));
    let text = error(&files.bare(), &unknown).to_string();
    assert!(text.contains("v_prediction"), "{text}");
}

#[test]
fn what_metadata_leaves_out_is_assumed_or_asked_for() {
    let files = Files::new();
    let path = files.path("partial.safetensors");
    let metadata =
        sdft_models::unet_metadata(&tiny_config(), &Process::default(), &BTreeMap::new()).unwrap();
    let write = |key: &str, text: &str| {
        let mut metadata = metadata.clone();
        metadata.insert(key.to_owned(), text.to_owned());
        write_safetensors(&path, files.params.iter(), &metadata, None).unwrap();
    };
    for (text, read, said) in [
        ("{}", vec![], "linear schedule of 1000 steps is assumed"),
        (
            r#"{"noise_schedule":"cosine"}"#,
            vec!["noise_schedule"],
            "1000 steps are assumed",
        ),
        (
            r#"{"diffusion_steps":4000,"sigma_small":true}"#,
            vec!["diffusion_steps", "sigma_small"],
            "linear schedule is assumed",
        ),
    ] {
        write("sdft.process", text);
        let notes = load_unet(&path, &LoadOptions::default()).unwrap().notes;
        assert!(notes.join("").contains(said), "{text}: {notes:?}");
        let seen = inspect_file(&path, &LoadOptions::default()).unwrap();
        for (field, origin) in seen.resolved.unwrap().process_origins {
            let expected = match read.contains(&field) {
                true => Origin::Read,
                false => Origin::Assumed,
            };
            assert_eq!(origin, expected, "{text}: {field}");
        }
    }
    // What is read may not be contradicted, the rest may be given, or is that of the other model.
    let steps = with_process(json!({}), json!({ "diffusion_steps": 50 }));
    assert!(matches!(error(&path, &steps), ModelError::Conflict { .. }));
    let cosine = with_process(json!({}), json!({ "noise_schedule": "cosine" }));
    let given_process = load_unet(&path, &cosine).unwrap().process;
    let other = LoadOptions {
        process_otherwise: Some(Process {
            noise_schedule: "cosine".into(),
            ..Process::default()
        }),
        ..LoadOptions::default()
    };
    let process = load_unet(&path, &other).unwrap().process;
    assert_eq!(process, given_process);
    assert_eq!(
        (process.noise_schedule.as_str(), process.diffusion_steps),
        ("cosine", 4000)
    );
    for text in [
        "[]",
        r#"["linear",1000,false,false]"#,
        r#"{"noise_schedule":null}"#,
        r#"{"noise_schedule":"linear","noise_schedule":"cosine"}"#,
        r#"{"steps":1000}"#,
    ] {
        write("sdft.process", text);
        let error = error(&path, &LoadOptions::default()).to_string();
        assert!(error.contains("metadata sdft.process: "), "{text}: {error}");
    }

    // The architecture likewise: shapes show some of it, nothing shows the rest.
    write("sdft.model", r#"{"image_size":8,"norm_groups":4}"#);
    let model = load_unet(&path, &given(json!({ "num_head_channels": 8 }))).unwrap();
    assert_eq!(model.config, tiny_config());
    for (field, origin) in [
        ("norm_groups", Origin::Read),
        ("channel_mult", Origin::Inferred),
        ("num_head_channels", Origin::Given),
        ("use_new_attention_order", Origin::Assumed),
    ] {
        assert_eq!(model.origins[field], origin, "{field}");
    }
}

#[test]
fn numbers_in_metadata_have_bounds_before_they_are_used() {
    let files = Files::new();
    let metadata =
        sdft_models::unet_metadata(&tiny_config(), &Process::default(), &BTreeMap::new()).unwrap();
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
    let metadata =
        sdft_models::unet_metadata(&tiny_config(), &Process::default(), &BTreeMap::new()).unwrap();
    let entries = named.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&path, entries, &metadata, None).unwrap();
    let out = files.path("out.safetensors");
    let options = LoadOptions::default();
    for text in [
        load_unet(&path, &options).unwrap_err().to_string(),
        load_encoder(&path, &options).unwrap_err().to_string(),
        convert_file(&path, &out, &options, None)
            .unwrap_err()
            .to_string(),
        sdft_models::load_unet_bytes("nan.safetensors", &std::fs::read(&path).unwrap(), &options)
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
