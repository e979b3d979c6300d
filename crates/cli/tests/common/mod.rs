//! Running the program as a user does.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::Device;
use sdft_adm::{AdmConfig, Unet};
use sdft_models::{Process, save_unet};
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own, and the program started in it.
pub(crate) struct Workspace {
    dir: tempfile::TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sdft"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::from(self.command(args).output().unwrap())
    }
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// Fails unless the program was content.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Fails unless the program ended with this code and said all of this, without a panic.
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in {self:?}");
        }
        self
    }
}

/// Arguments of a run of a second or two, with a checkpoint every other step.
pub(crate) const SHORT: [&str; 16] = [
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
    "--name=short",
];

/// Everything of a run that must not depend on how it came to its end: files by name, log lines without their times.
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

/// Fails, naming the part, unless two runs ended alike.
pub(crate) fn assert_same(a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]) {
    let names =
        |x: &[(String, Vec<u8>)]| x.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for ((name, a), (_, b)) in a.iter().zip(b) {
        assert!(a == b, "{name} differs");
    }
}

/// A classifier of a second.
pub(crate) const CLASSIFIER: [&str; 10] = [
    "train-classifier",
    "--steps",
    "8",
    "--batch",
    "8",
    "--set",
    "output.eval_every=4",
    "--set",
    "output.log_every=2",
    "--name=classifier",
];

/// Six images in `in`, one of them in a subfolder.
pub(crate) fn place_with_inputs() -> Workspace {
    let place = Workspace::new();
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

/// The files below a folder that are no records, by path.
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

/// The architecture of a model that is made in no time.
pub(crate) fn small() -> AdmConfig {
    AdmConfig {
        image_size: 16,
        out_channels: 3,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 8,
        norm_groups: 4,
        ..AdmConfig::default()
    }
}

/// A small U-Net that has not learned anything.
pub(crate) fn unet(path: &Path, change: fn(&mut AdmConfig)) {
    let mut config = small();
    change(&mut config);
    let params = Params::init(&Unet::specs(&config).unwrap(), 5, &Device::Cpu).unwrap();
    save_unet(
        path,
        &config,
        &Process::default(),
        &params,
        &BTreeMap::new(),
        None,
    )
    .unwrap();
}
