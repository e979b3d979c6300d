//! Tiny models, and jobs that run with them.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::Device;
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool};
use sdft_diffusion::Process;
use sdft_gallery::{Filled, Outcome, reading};
use sdft_imaging::{Depth, Image, ImageSpec, Reading};
use sdft_jobs::{Context, SampleOptions, TranslateOptions, sample_to_folder, translate_folder};
use sdft_models::{Architecture, Classes, NetworkFile, encoder_metadata, save_network};
use sdft_testing::{nonzero_params, tiny_config};
use sdft_train::Progress;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps notes, and stops the job once this many images are done.
struct Observed<'a> {
    notes: Vec<String>,
    stop: &'a AtomicBool,
    stop_at: f64,
}

impl Progress for Observed<'_> {
    fn images(&mut self, done: f64, _: usize) {
        if done >= self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// Runs a job that is stopped after `stop_at` images. Returns its result, its notes, and how often it started to write.
pub(crate) fn run<T>(
    stop_at: f64,
    job: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<T>,
) -> (sdft_jobs::Result<T>, Vec<String>, usize) {
    let (stop, started) = (AtomicBool::new(false), Cell::new(0));
    let mut progress = Observed {
        notes: Vec::new(),
        stop: &stop,
        stop_at,
    };
    let on_start = || started.set(started.get() + 1);
    let mut context = Context {
        on_start: &on_start,
        ..Context::new(Device::Cpu, &stop, &mut progress)
    };
    let result = job(&mut context);
    (result, progress.notes, started.get())
}

pub(crate) fn never() -> f64 {
    f64::INFINITY
}

/// A form with the number of its channels, its depth, its size and its range.
pub(crate) fn spec(
    channels: usize,
    depth: Depth,
    [height, width]: [usize; 2],
    range: [f64; 2],
) -> ImageSpec {
    ImageSpec {
        range,
        ..ImageSpec::new(channels, depth, width, height)
    }
}

/// Writes a tiny network for images of this form and these classes.
pub(crate) fn write_model(path: &Path, image: &ImageSpec, classes: Option<&Classes>) {
    write_model_of(path, image, classes, 3, &Process::default());
}

/// As [`write_model`], with the weights of a seed and a process.
pub(crate) fn write_model_of(
    path: &Path,
    image: &ImageSpec,
    classes: Option<&Classes>,
    seed: u64,
    process: &Process,
) {
    let config = AdmConfig {
        out_channels: 3,
        ..tiny_config()
    };
    let architecture = Architecture::from(config)
        .with_channels(image.channels)
        .with_classes(classes);
    let params = nonzero_params(architecture.specs().unwrap(), seed);
    let file = NetworkFile {
        image: Some(image),
        classes,
        ..NetworkFile::new(&architecture, process)
    };
    save_network(path, &file, &params, None).unwrap();
}

/// Writes EGSDE's classifier for images of a model.
pub(crate) fn write_classifier(path: &Path, image: &ImageSpec) {
    let config = EncoderConfig {
        net: AdmConfig {
            in_channels: image.channels,
            out_channels: 2,
            ..tiny_config()
        },
        pool: Pool::Attention,
    };
    let params = nonzero_params(Encoder::specs(&config).unwrap(), 4);
    let metadata = encoder_metadata(&config, &Process::default(), &BTreeMap::new()).unwrap();
    sdft_checkpoint::write_safetensors(path, params.iter(), &metadata, None).unwrap();
}

/// A place for a model and the folders made with it.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new(image: &ImageSpec, classes: Option<&Classes>) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        write_model(&place.path("model.safetensors"), image, classes);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn model(&self) -> String {
        self.path("model.safetensors").display().to_string()
    }

    pub(crate) fn samples(&self, out: &str) -> SampleOptions {
        SampleOptions {
            model: self.model(),
            n: 3,
            batch: 2,
            steps: Some("3".to_owned()),
            out: self.path(out),
            ..SampleOptions::default()
        }
    }

    pub(crate) fn sampled(&self, options: &SampleOptions) -> Vec<Vec<u8>> {
        let report = run(never(), |c| sample_to_folder(options, c)).0.unwrap();
        assert_eq!(report.complete, options.n);
        contents(&options.out)
    }

    pub(crate) fn translation(&self, out: &str, input: &str) -> TranslateOptions {
        TranslateOptions {
            model: self.model(),
            input: self.path(input),
            out: self.path(out),
            steps: Some("4".to_owned()),
            free: 1,
            ..TranslateOptions::default()
        }
    }
}

/// The images of a folder, in the order of their names.
pub(crate) fn contents(folder: &Path) -> Vec<Vec<u8>> {
    let is_image = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        !name.starts_with('.') && !name.ends_with(".toml") && !name.ends_with(".npz")
    };
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(is_image)
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn filled(outcome: sdft_jobs::Result<Outcome>) -> Filled {
    let Outcome::Done(filled) = outcome.unwrap() else {
        panic!("it was not stopped")
    };
    filled.check().unwrap();
    filled
}

pub(crate) fn translated(options: &TranslateOptions) -> (Filled, Vec<String>) {
    let (outcome, notes, _) = run(never(), |c| translate_folder(options, c));
    (filled(outcome), notes)
}

/// Reads a file as it is, and in the form of the model.
pub(crate) fn read(path: &Path, form: &ImageSpec) -> Image {
    let found = Reading::default().decode_file(path, 0).unwrap();
    assert_eq!((found.channels, found.depth), (form.channels, form.depth));
    let image = reading(form).decode_file(path, 0).unwrap().image;
    assert_eq!(image, found.image);
    assert_eq!((image.height, image.width), (form.height, form.width));
    image
}

/// Three classes and a null class.
pub(crate) fn animals() -> Classes {
    let names = ["cat", "dog", "owl"].map(str::to_owned);
    Classes::new(names.into(), true)
}
