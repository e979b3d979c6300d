//! Helpers of the tests that run the program.
#![allow(dead_code, reason = "each test file uses its own part")]

#[cfg(target_os = "linux")]
pub(crate) mod ranks;

use sdft_adm::AdmConfig;
use sdft_diffusion::Process;
use sdft_models::{NetworkFile, save_network};
pub(crate) use sdft_testing::{Run, Workspace};
use sdft_testing::{initial_params, tiny_config};
use std::path::Path;

/// An empty folder for the program.
pub(crate) fn workspace() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_sdft"))
}

/// Arguments of a run of a second or two, with a checkpoint every other step.
pub(crate) const SHORT: [&str; 17] = [
    "train",
    "--steps",
    "8",
    "--batch",
    "4",
    "--set",
    "output.checkpoint_every=2",
    "--set",
    "output.sample_every=4",
    "--set",
    "output.samples=2",
    "--set",
    "output.sampler=ddim5",
    "--set",
    "output.log_every=3",
    "--config=digits-sdft",
    "--name=short",
];

/// Everything in a run folder that interruptions must not change: files by name, log lines without their times.
pub(crate) fn essence(root: &Path) -> Vec<(String, Vec<u8>)> {
    let newest = std::fs::read_to_string(root.join("checkpoints/latest")).unwrap();
    let checkpoint = root.join("checkpoints").join(newest.trim());
    let mut out = Vec::new();
    for file in [
        "weights.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
    ] {
        out.push((
            file.to_owned(),
            std::fs::read(checkpoint.join(file)).unwrap(),
        ));
    }
    out.push((
        "final".to_owned(),
        std::fs::read(root.join("final.safetensors")).unwrap(),
    ));
    let mut pictures: Vec<_> = std::fs::read_dir(root.join("samples"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    pictures.sort();
    for picture in pictures {
        out.push((
            picture.file_name().unwrap().to_string_lossy().into_owned(),
            std::fs::read(&picture).unwrap(),
        ));
    }
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    for line in log.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("time");
        out.push(("log".to_owned(), line.to_string().into_bytes()));
    }
    out
}

/// Fails and names the file unless two runs have the same results.
pub(crate) fn assert_same(a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]) {
    let names =
        |x: &[(String, Vec<u8>)]| x.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for ((name, a), (_, b)) in a.iter().zip(b) {
        assert!(a == b, "{name} differs");
    }
}

/// Arguments that train a classifier in a second.
pub(crate) const CLASSIFIER: [&str; 11] = [
    "train-classifier",
    "--steps",
    "8",
    "--batch",
    "8",
    "--set",
    "output.eval_every=4",
    "--set",
    "output.log_every=2",
    "--config=digits-classifier",
    "--name=classifier",
];

/// Six images in `in`, one of them in a subfolder.
pub(crate) fn place_with_inputs() -> Workspace {
    let place = workspace();
    let sample = ["sample", "--model", "digits-source", "--steps", "ddim10"];
    place
        .run(&[&sample[..], &["-n", "6", "--out", "in"]].concat())
        .ok();
    std::fs::create_dir(place.path("in/sub")).unwrap();
    std::fs::rename(place.path("in/00005.png"), place.path("in/sub/five.png")).unwrap();
    place
}

/// Translates `in` with few steps.
pub(crate) fn translate(place: &Workspace, more: &[&str]) -> Run {
    let args: &[&str] = if more.contains(&"--model") {
        &["translate", "--input", "in"]
    } else {
        &["translate", "--model", "digits-source", "--input", "in"]
    };
    let steps: &[&str] = if more.contains(&"--steps") || more.contains(&"ancestral") {
        &[]
    } else {
        &["--steps", "ddim10"]
    };
    place.run(&[args, steps, more].concat())
}

/// The images below a folder, by path.
pub(crate) fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".png") {
                out.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    out.sort();
    out
}

pub(crate) fn names(files: &[(String, Vec<u8>)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

/// The architecture of a tiny model for 16x16 images without learned variance.
pub(crate) fn small() -> AdmConfig {
    AdmConfig {
        image_size: 16,
        out_channels: 3,
        ..tiny_config()
    }
}

/// Writes a small U-Net with initial weights.
pub(crate) fn unet(path: &Path, change: fn(&mut AdmConfig)) {
    let mut config = small();
    change(&mut config);
    let params = initial_params(&config, 5);
    let (architecture, process) = (config.into(), Process::default());
    save_network(
        path,
        &NetworkFile::new(&architecture, &process),
        &params,
        None,
    )
    .unwrap();
}
