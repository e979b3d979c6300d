//! Pipelines of latents that diffusers wrote itself (`bench/peer/latents.py`): the same images, before rounding.

use candle_core::{Device, Tensor};
use sdft_autoencoder::Space;
use sdft_checkpoint::ReadOptions;
use sdft_diffusion::{Clip, Denoiser, Guided};
use sdft_models::{
    AutoencoderOptions, LoadOptions, LoadedModel, convert_file, convert_to_diffusers, inspect_file,
    load_autoencoder, load_network,
};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, sample_ddim};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    data.join(name)
}

fn load(path: &Path) -> LoadedModel {
    load_network(path, &LoadOptions::default()).unwrap()
}

fn expected(name: &str) -> BTreeMap<String, Tensor> {
    let file = folder(name).join("expected.safetensors");
    let read = sdft_checkpoint::read(&file, &ReadOptions::default());
    read.unwrap().into_map()
}

/// The images of a model from these latents in ten steps of DDIM, in -1..1.
fn images(model: &LoadedModel, latents: &Tensor, classes: Option<(&[u32], f64)>) -> Vec<f32> {
    let diffusion = model.diffusion(&"10".parse().unwrap()).unwrap();
    let net = model.network().unwrap();
    let guided = classes.map(|(labels, guidance)| Guided {
        net: &*net,
        labels,
        null: model.null_class(),
        guidance,
    });
    let denoiser: &dyn Denoiser = match &guided {
        Some(guided) => guided,
        None => &*net,
    };
    let (options, mut noise) = (Ddim::default(), SeededNoise::new(0, 0));
    let sampled = sample_ddim(
        &diffusion,
        denoiser,
        latents,
        &options,
        &mut noise,
        &mut |_| Ok(()),
    );
    let autoencoder = model.autoencoder.as_ref().unwrap();
    let autoencoder = Arc::new(autoencoder.autoencoder().unwrap());
    let space = Space::latents(model.image, autoencoder);
    let decoded = space.decode(&sampled.unwrap()).unwrap().clamp(-1f32, 1f32);
    decoded.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(found: &[f32], expected: &Tensor, what: &str) {
    let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 5e-5, "{what}: {a} instead of {b}");
    }
}

/// Fails unless a model makes the images of diffusers' `LDMPipeline`.
fn assert_is_ldm(model: &LoadedModel) {
    let all = expected("ldm");
    assert_eq!(model.image.shape(), [3, 16, 16]);
    assert_eq!(model.state_shape(&model.image), [3, 8, 8]);
    assert_near(&images(model, &all["latents"], None), &all["images"], "ldm");
}

/// Fails unless a model makes the images of diffusers' `DiTPipeline`.
fn assert_is_dit(model: &LoadedModel) {
    let all = expected("dit");
    for (name, guidance) in [("images", 1.0), ("guided", 1.5)] {
        let found = images(model, &all["latents"], Some((&[3, 7], guidance)));
        assert_near(&found, &all[name], name);
    }
}

#[test]
fn an_ldm_pipeline_makes_the_same_images() {
    let model = load(&folder("ldm"));
    assert_is_ldm(&model);
    let notes = model.notes.join("; ");
    assert!(
        notes.contains("vqvae") && !notes.contains("assumed"),
        "{notes}"
    );
    assert_eq!(load(&folder("ldm").join("unet")).sha256, model.sha256);
    let seen = inspect_file(&folder("ldm"), &LoadOptions::default()).unwrap();
    let resolved = seen.resolved.unwrap();
    assert_eq!(
        (resolved.image, resolved.process),
        (model.image, model.process)
    );
}

#[test]
fn a_dit_pipeline_makes_the_same_images_with_and_without_guidance() {
    let model = load(&folder("dit"));
    assert_eq!(model.null_class(), Some(1000));
    assert_is_dit(&model);
}

#[test]
fn the_classes_of_a_pipeline_have_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    convert_to_diffusers(&folder("dit"), &out, &LoadOptions::default(), None).unwrap();
    let index = out.join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(fields["id2label"]["7"], "7");
    fields["id2label"]["7"] = "crane, bird".into();
    fields["id2label"]["9"] = "crane, bird".into();
    std::fs::write(&index, fields.to_string()).unwrap();
    let classes = load(&out).classes.unwrap();
    assert_eq!(
        (classes.names[7].as_str(), classes.names[9].as_str()),
        ("crane, bird", "crane, bird (9)")
    );
    assert_eq!(classes.null, Some(1000));
}

#[test]
fn converted_models_keep_their_images_and_their_autoencoder() {
    let dir = tempfile::tempdir().unwrap();
    let options = LoadOptions::default();
    for (name, check) in [
        ("ldm", assert_is_ldm as fn(&LoadedModel)),
        ("dit", assert_is_dit),
    ] {
        let (file, out) = (
            dir.path().join(name),
            dir.path().join(format!("{name}-folder")),
        );
        let file = file.with_extension("safetensors");
        let notes = convert_file(&folder(name), &file, &options, None).unwrap();
        assert!(
            notes.iter().any(|note| note.contains("autoencoder-")),
            "{notes:?}"
        );
        check(&load(&file));
        convert_to_diffusers(&file, &out, &options, None).unwrap();
        check(&load(&out));
        let index = std::fs::read_to_string(out.join("model_index.json")).unwrap();
        let class = if name == "ldm" {
            "LDMPipeline"
        } else {
            "DiTPipeline"
        };
        assert!(index.contains(class), "{index}");
    }
}

#[test]
fn a_missing_or_another_autoencoder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.safetensors");
    let options = LoadOptions::default();
    convert_file(&folder("dit"), &file, &options, None).unwrap();
    let away = dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let copy = away.join("one.safetensors");
    std::fs::rename(&file, &copy).unwrap();
    // It is found in a folder above, as for the checkpoints of a run.
    assert_is_dit(&load(&copy));
    let moved = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
    let stage = moved
        .map(|entry| entry.path())
        .find(|path| path.is_file())
        .unwrap();
    std::fs::remove_file(stage).unwrap();
    let error = load_network(&copy, &options).unwrap_err().to_string();
    assert!(
        error.contains("--autoencoder") && error.contains("AutoencoderKL"),
        "{error}"
    );
    let given = |name: &str| LoadOptions {
        autoencoder: Some(Arc::new(
            load_autoencoder(&folder(name), &AutoencoderOptions::default()).unwrap(),
        )),
        ..LoadOptions::default()
    };
    assert_is_dit(&load_network(&copy, &given("dit")).unwrap());
    let error = load_network(&copy, &given("ldm")).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
}

#[test]
fn latents_have_no_range_unless_a_scheduler_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let whole = folder("dit");
    let file = dir.path().join("diffusion_pytorch_model.safetensors");
    let part = whole.join("transformer");
    std::fs::copy(part.join("diffusion_pytorch_model.safetensors"), &file).unwrap();
    std::fs::copy(part.join("config.json"), dir.path().join("config.json")).unwrap();
    let load = |process: serde_json::Value| {
        let options = LoadOptions {
            given_process: process.as_object().unwrap().clone(),
            autoencoder: Some(Arc::new(
                load_autoencoder(&whole, &AutoencoderOptions::default()).unwrap(),
            )),
            ..LoadOptions::default()
        };
        load_network(&file, &options).unwrap()
    };
    let is_clamped = |model: &LoadedModel| {
        let diffusion = model.diffusion(&"10".parse().unwrap()).unwrap();
        let large = Tensor::full(7f32, (1, 4, 8, 8), &Device::Cpu).unwrap();
        let clamped = diffusion.clamped(large, Clip::Yes).unwrap();
        clamped.max_all().unwrap().to_scalar::<f32>().unwrap() < 7.0
    };
    let discrete = json!({"noise_schedule": "linear", "diffusion_steps": 1000});
    let model = load(discrete.clone());
    assert_eq!(model.image.shape(), [3, 16, 16]);
    assert!(!is_clamped(&model));
    let with = |sampling: serde_json::Value| {
        let mut process = discrete.clone();
        process["sampling"] = sampling;
        process
    };
    assert!(!is_clamped(&load(with(json!({"steps_offset": 1})))));
    assert!(is_clamped(&load(with(json!({"clip_sample": true})))));
    // A scheduler is followed, as diffusers follows it.
    let config = json!({"_class_name": "DDIMScheduler", "clip_sample": true});
    let scheduler = dir.path().join("scheduler_config.json");
    std::fs::write(&scheduler, config.to_string()).unwrap();
    assert!(is_clamped(&load(json!({}))));
    std::fs::write(
        &scheduler,
        json!({"_class_name": "DDIMScheduler", "clip_sample": false}).to_string(),
    )
    .unwrap();
    assert!(!is_clamped(&load(json!({}))));
}
