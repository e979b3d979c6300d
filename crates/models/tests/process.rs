//! Where the diffusion process of a network comes from: metadata, options, or an assumption that is reported.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Files, error, given};
use sdft_adm::{AdmConfig, Origin, Unet};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{PredictionType, Process};
use sdft_models::{
    LoadOptions, ModelError, NetworkFile, convert_file, inspect_file, load_network, save_network,
};
use sdft_nn::Params;
use sdft_testing::tiny_config;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

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
fn an_assumed_process_is_reported_by_load_inspect_and_convert() {
    let files = Files::new();
    let path = files.bare();
    let fields = json!({ "image_size": 8, "norm_groups": 4, "num_head_channels": 8 });
    let said = "the linear schedule of 1000 steps is assumed";
    let model = load_network(&path, &given(fields.clone())).unwrap();
    assert!(model.notes.join("").contains(said), "{:?}", model.notes);
    let inspected = inspect_file(&path, &given(fields.clone())).unwrap();
    let resolved = inspected.resolved.unwrap();
    assert_eq!(resolved.process_origins["noise_schedule"], Origin::Assumed);
    assert_eq!(resolved.ask, None);
    // What is given is not assumed, and what is half given is half assumed.
    let half = with_process(fields.clone(), json!({ "noise_schedule": "cosine" }));
    let notes = load_network(&path, &half).unwrap().notes.join("");
    assert!(notes.contains("1000 steps are assumed"), "{notes}");
    let steps = json!({ "noise_schedule": "cosine", "diffusion_steps": 4000 });
    let model = load_network(&path, &with_process(fields.clone(), steps)).unwrap();
    let notes = model.notes.join("");
    assert!(
        notes.contains("rescale_timesteps=false is assumed"),
        "{notes}"
    );
    let whole = json!({
        "noise_schedule": "cosine", "diffusion_steps": 4000, "rescale_timesteps": false
    });
    let model = load_network(&path, &with_process(fields.clone(), whole)).unwrap();
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
    let other_process = load_network(&path, &other).unwrap();
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
    let again = load_network(&converted, &LoadOptions::default()).unwrap();
    assert!(again.notes.join("").contains(said), "{:?}", again.notes);
    assert_eq!(again.origins["norm_groups"], Origin::Read);
    let corrected = with_process(
        json!({}),
        json!({ "noise_schedule": "cosine", "diffusion_steps": 50 }),
    );
    let model = load_network(&converted, &corrected).unwrap();
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
    // Metadata without a schedule is treated as missing.
    let partial = files.path("partial.safetensors");
    let params = load_network(
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
        let model = load_network(&path, &options).unwrap();
        assert_eq!(
            json!(model.process.noise_schedule),
            process["noise_schedule"]
        );
        let out = files.path("known.safetensors");
        convert_file(&path, &out, &options, None).unwrap();
        let again = load_network(&out, &LoadOptions::default()).unwrap();
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
        let architecture = tiny_config().into();
        save_network(
            &path,
            &NetworkFile::new(&architecture, &process),
            &files.params,
            None,
        )
        .unwrap();
        let model = load_network(&path, &LoadOptions::default()).unwrap();
        assert_eq!(model.process, process);
        let side = tiny_config().image_size;
        let x = Tensor::zeros((1, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let prediction = model.network().unwrap().predict(&x, &[0.0]).unwrap();
        assert_eq!(prediction.prediction_type, kind);
        // Settings may not contradict the file, whether a field is written or has its default.
        for other in PredictionType::ALL {
            let options = with_process(json!({}), json!({ "prediction_type": other.name() }));
            let loaded = load_network(&path, &options);
            assert_eq!(loaded.is_ok(), other == kind, "{kind} {other}");
        }
    }
    // A file without metadata takes it from the user, and a conversion keeps it.
    let fields = json!({ "norm_groups": 4, "image_size": 8 });
    let options = with_process(fields.clone(), json!({ "prediction_type": "v_prediction" }));
    let out = files.path("converted.safetensors");
    convert_file(&files.bare(), &out, &options, None).unwrap();
    let again = load_network(&out, &LoadOptions::default()).unwrap();
    assert_eq!(again.process.prediction_type, PredictionType::V);
    let unknown = with_process(fields, json!({ "prediction_type": "v" }));
    let text = error(&files.bare(), &unknown).to_string();
    assert!(text.contains("v_prediction"), "{text}");
}

#[test]
fn what_metadata_leaves_out_is_assumed_or_asked_for() {
    let files = Files::new();
    let path = files.path("partial.safetensors");
    let metadata = sdft_models::network_metadata(&NetworkFile::new(
        &tiny_config().into(),
        &Process::default(),
    ))
    .unwrap();
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
        let notes = load_network(&path, &LoadOptions::default()).unwrap().notes;
        assert!(notes.join("").contains(said), "{text}: {notes:?}");
        let seen = inspect_file(&path, &LoadOptions::default()).unwrap();
        for (field, origin) in seen.resolved.unwrap().process_origins {
            let expected = match read.contains(&field.as_str()) {
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
    let given_process = load_network(&path, &cosine).unwrap().process;
    let other = LoadOptions {
        process_otherwise: Some(Process {
            noise_schedule: "cosine".into(),
            ..Process::default()
        }),
        ..LoadOptions::default()
    };
    let process = load_network(&path, &other).unwrap().process;
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
    let model = load_network(&path, &given(json!({ "num_head_channels": 8 }))).unwrap();
    assert_eq!(model.architecture, tiny_config().into());
    for (field, origin) in [
        ("norm_groups", Origin::Read),
        ("channel_mult", Origin::Inferred),
        ("num_head_channels", Origin::Given),
        ("use_new_attention_order", Origin::Assumed),
    ] {
        assert_eq!(model.origins[field], origin, "{field}");
    }
}
