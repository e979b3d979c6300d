//! Hostile files of models: an answer or a short error, in little time and memory, never a panic.

use candle_core::Device;
use sdft_checkpoint::write_safetensors;
use sdft_counting_alloc::{CountingAllocator, Measurement};
use sdft_diffusion::Process;
use sdft_models::{
    LoadOptions, NetworkFile, inspect_file, load_network, load_network_bytes, network_metadata,
};
use sdft_testing::{initial_params, tiny_config};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// Fails if `read` takes more than 16 times the file and 64 MB, or 5 s, or ends in a long message.
fn assert_bounded(
    memory: &Measurement<'_>,
    what: &str,
    len: u64,
    read: impl FnOnce() -> Result<(), String>,
) {
    let started = Instant::now();
    let (result, peak) = memory.peak_of(read);
    let peak = peak as u64;
    assert!(
        peak < 16 * len + (64 << 20),
        "{what}: {len} bytes took {peak}"
    );
    assert!(
        started.elapsed().as_secs_f64() < 5.0,
        "{what}: {:?}",
        started.elapsed()
    );
    if let Err(text) = result {
        assert!(
            text.len() < 8000,
            "{what}: a message of {} bytes",
            text.len()
        );
    }
}

/// A small network with these fields of metadata in place of its own.
fn write(path: &Path, fields: &[(&str, String)]) {
    let params = initial_params(&tiny_config(), 5);
    let mut metadata = network_metadata(&NetworkFile::new(
        &tiny_config().into(),
        &Process::default(),
    ))
    .unwrap();
    for (key, value) in fields {
        metadata.insert((*key).to_owned(), value.clone());
    }
    write_safetensors(path, params.iter(), &metadata, None).unwrap();
}

#[test]
fn metadata_never_takes_much_time_or_memory() {
    let memory = MEMORY.exclusive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.safetensors");
    let mut bombs: Vec<(String, String)> = Vec::new();
    let base = serde_json::to_value(tiny_config()).unwrap();
    for field in base.as_object().unwrap().keys() {
        for value in [
            json!(0),
            json!(-1),
            json!(1e18),
            json!(u64::MAX),
            json!(256),
            json!(65_536),
            json!(1_000_000_000),
            json!(null),
            json!("x".repeat(100_000)),
            json!(vec![1; 100_000]),
            json!(vec![1e300; 3]),
        ] {
            let mut config = base.clone();
            config[field] = value;
            bombs.push(("sdft.model".into(), config.to_string()));
        }
    }
    for steps in [
        "300000000",
        "18446744073709551615",
        "-1",
        "1e18",
        "[[[[1]]]]",
        "0",
    ] {
        let text = format!("{{\"noise_schedule\":\"linear\",\"diffusion_steps\":{steps}}}");
        bombs.push(("sdft.process".into(), text));
    }
    for key in ["width", "height", "channels", "depth", "range"] {
        for value in [
            json!(0),
            json!(u64::MAX),
            json!(1e300),
            json!(vec![1e300; 2]),
        ] {
            let mut image =
                json!({"width": 8, "height": 8, "channels": 3, "depth": 8, "range": [0, 255]});
            image[key] = value;
            bombs.push(("sdft.image".into(), image.to_string()));
        }
    }
    for names in [json!(vec!["a"; 100_000]), json!(["x".repeat(100_000)])] {
        let classes = json!({"names": names, "null": u32::MAX});
        bombs.push(("sdft.classes".into(), classes.to_string()));
    }
    for key in ["sdft.model", "sdft.process", "sdft.image", "sdft.classes"] {
        bombs.push((key.into(), "[".repeat(100_000)));
        bombs.push((key.into(), "{\"a\":".repeat(100_000)));
        bombs.push((key.into(), format!("{{\"{}\":1}}", "k".repeat(100_000))));
        bombs.push((key.into(), String::new()));
    }
    bombs.push(("sdft.assumed".into(), "model.image_size,".repeat(50_000)));
    for (key, text) in bombs {
        write(&path, &[(&key, text.clone())]);
        let len = path.metadata().unwrap().len();
        let what = format!("{key} = {text:.80}");
        let options = LoadOptions::default();
        assert_bounded(&memory, &what, len, || {
            load_network(&path, &options)
                .map(drop)
                .map_err(|e| e.to_string())
        });
        assert_bounded(&memory, &what, len, || {
            let seen = inspect_file(&path, &options).map_err(|e| e.to_string())?;
            seen.resolved.map(drop).map_err(|e| e.to_string())
        });
    }
}

#[test]
fn flipped_bytes_of_a_model_never_panic() {
    let memory = MEMORY.exclusive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write(&path, &[]);
    let sound = std::fs::read(&path).unwrap();
    let mut z = 7u64;
    let mut random = || {
        z = z
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(z >> 33).unwrap()
    };
    // Most of the file is numbers; its header is where damage does more.
    let header = 8 + usize::try_from(u64::from_le_bytes(sound[..8].try_into().unwrap())).unwrap();
    for _ in 0..1500 {
        let mut bytes = sound.clone();
        for _ in 0..=random() % 3 {
            let at = random() % header;
            bytes[at] = u8::try_from(random() % 256).unwrap();
        }
        assert_bounded(&memory, "flipped", bytes.len() as u64, || {
            let loaded = load_network_bytes("flipped", &bytes, &LoadOptions::default());
            loaded.map(drop).map_err(|e| e.to_string())
        });
    }
}

#[test]
fn settings_next_to_a_file_never_take_much_time_or_memory() {
    let memory = MEMORY.exclusive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let w = candle_core::Tensor::ones((4, 3, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let t = candle_core::Tensor::ones((16, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let entries = [
        ("conv_in.weight", &w),
        ("time_embedding.linear_1.weight", &t),
    ];
    write_safetensors(&path, entries, &BTreeMap::new(), None).unwrap();
    for text in [
        "[".repeat(500_000),
        "{\"a\":".repeat(200_000),
        format!("{{\"sample_size\": {}}}", "9".repeat(500_000)),
        format!("{{\"block_out_channels\": [{}1]}}", "1,".repeat(400_000)),
        format!("{{\"{}\": 1}}", "k".repeat(900_000)),
        " ".repeat(3_000_000),
    ] {
        for name in ["config.json", "scheduler_config.json"] {
            std::fs::write(dir.path().join(name), &text).unwrap();
            assert_bounded(
                &memory,
                &format!("{name}: {text:.40}"),
                text.len() as u64,
                || {
                    let loaded = load_network(&path, &LoadOptions::default());
                    loaded.map(drop).map_err(|e| e.to_string())
                },
            );
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
