//! The embedded examples: a model of flat emoji that is fine-tuned on a few in another style, sampled, and used to translate and edit.

mod editing;
mod training;
mod translation;

pub use editing::{EditExample, edit_example};
pub use training::{FineTuningExample, fine_tuning_example};
pub use translation::{TranslationExample, translation_example};

use sdft_data::Emoji;
use sdft_imaging::{ImageSpec, Limits, Rgb8, decode_file};
use sdft_jobs::{CacheLocation, Context, Result, ResultExt, train_preset};
use sdft_train::to_tensor;
use std::path::{Path, PathBuf};

/// Options of the embedded examples.
#[derive(Clone, Debug)]
pub struct ExampleOptions {
    /// The folder of runs, samples and pictures.
    pub out: PathBuf,
    /// Settings of the models on top of the presets', as `KEY=VALUE`.
    pub training: Vec<String>,
    /// Settings of EGSDE's classifier on top of the preset's.
    pub classifier: Vec<String>,
    /// Settings of the edit's direction on top of the preset's.
    pub direction: Vec<String>,
    /// Samples of each model.
    pub samples: usize,
    /// Steps of their sampler, DPM-Solver++(2M).
    pub steps: usize,
    /// Emoji of each group to translate; there are eight groups.
    pub translated: usize,
    /// Emoji to edit.
    pub edited: usize,
    /// The cache of the edit's inversions.
    pub cache: CacheLocation,
}

impl Default for ExampleOptions {
    /// In `runs`, each in a minute or two on two cores.
    fn default() -> Self {
        let set = |all: &[&str]| all.iter().map(|&set| set.to_owned()).collect();
        Self {
            out: "runs".into(),
            training: set(&["output.sample_every=0", "output.samples=8"]),
            classifier: Vec::new(),
            direction: Vec::new(),
            samples: 72,
            steps: 15,
            translated: 6,
            edited: 16,
            cache: CacheLocation::User,
        }
    }
}

impl ExampleOptions {
    /// The folder of a part of the examples.
    fn folder(&self, name: &str) -> PathBuf {
        self.out.join(format!("example-{name}"))
    }

    /// Trains the model of a preset, unless it exists. Returns its file, or `None` if that was interrupted.
    fn model(
        &self,
        name: &str,
        preset: &str,
        context: &mut Context<'_>,
    ) -> Result<Option<PathBuf>> {
        let root = self.folder(name);
        if root.join("final.safetensors").is_file() {
            context.progress.note(&format!(
                "{} exists already; remove it to train it again",
                root.display()
            ));
        }
        train_preset(preset, &strs(&self.training), &root, context)
    }

    /// The model that was fine-tuned with SDFT.
    fn sdft_model(&self, context: &mut Context<'_>) -> Result<Option<PathBuf>> {
        self.model("sdft", "emoji-sdft", context)
    }
}

fn strs(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// Makes a folder, and its parents.
fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))
}

/// The pictures of these names in a folder.
fn read_pictures(folder: &Path, names: impl Iterator<Item = String>) -> Result<Vec<Rgb8>> {
    names
        .map(|name| Ok(decode_file(&folder.join(name), &Limits::default())?))
        .collect()
}

/// `[N, 3, 32, 32]` in [-1, 1].
fn tensor(pictures: &[Rgb8]) -> Result<candle_core::Tensor> {
    let form = ImageSpec::rgb8(Emoji::SIZE, Emoji::SIZE);
    Ok(to_tensor(pictures, &form)?)
}
