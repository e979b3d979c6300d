//! The embedded examples: a model of flat emoji that is fine-tuned on a few in another style, sampled, and used to translate and edit.

mod editing;
mod training;
mod translation;

pub use editing::{EditExample, edit_example};
pub use training::{FineTuningExample, fine_tuning_example};
pub use translation::{TranslationExample, translation_example};

use sdft_data::Emoji;
use sdft_imaging::{ImageSpec, Limits, Rgb8, decode_file};
use sdft_jobs::{CacheLocation, Context, Error, Result, ResultExt, train_preset};
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
    /// Steps of deterministic DDIM for each sample.
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
            training: set(&[
                "loop.steps=250",
                "output.sample_every=0",
                "output.samples=4",
                "output.sampler=ddim10",
                // The same on every device, so that a model is found again.
                "loop.precision=f32",
            ]),
            classifier: Vec::new(),
            direction: Vec::new(),
            samples: 48,
            steps: 40,
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

/// Fills a folder of the example's own. Files that an earlier model or version made there are replaced.
fn refill<T>(
    context: &mut Context<'_>,
    fill: impl Fn(bool, &mut Context<'_>) -> Result<T>,
) -> Result<T> {
    match fill(false, context) {
        Err(Error::Output {
            source: sdft_gallery::Error::OtherPlan { path, .. },
            ..
        }) => {
            context.progress.note(&format!(
                "{} is of another model or version, and is made again",
                path.display()
            ));
            fill(true, context)
        }
        done => done,
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_data::EmojiStyle;
    use sdft_gallery::Outcome;
    use sdft_imaging::enlarge;
    use sdft_jobs::{TranslateOptions, TranslationMethod};
    use sdft_train::NoopProgress;
    use std::sync::atomic::AtomicBool;
    use std::time::SystemTime;

    /// Examples of a few seconds in a folder.
    fn quick(out: &Path) -> ExampleOptions {
        let set = |all: &[&str]| all.iter().map(|&set| set.to_owned()).collect();
        ExampleOptions {
            out: out.to_owned(),
            training: set(&[
                "loop.steps=2",
                "loop.batch=2",
                "optim.lr=1e-2",
                "optim.warmup=0",
                "output.samples=1",
                "output.sampler=ddim2",
            ]),
            classifier: set(&["loop.steps=1", "loop.batch=2"]),
            direction: set(&[
                "data.images=1",
                "walk.inversion=2",
                "walk.steps=2",
                "loop.epochs=1",
                "output.samples=1",
                "output.sampler=2",
            ]),
            samples: 3,
            steps: 2,
            translated: 1,
            edited: 2,
            cache: CacheLocation::Nowhere,
        }
    }

    fn with_context<T>(run: impl FnOnce(&mut Context<'_>) -> Result<T>) -> Result<T> {
        let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
        run(&mut Context::new(Device::Cpu, &stop, &mut progress))
    }

    /// When the pictures and weights below a folder were written. Contact sheets, which are composed again, are left out.
    fn times(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
        let mut all = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let ending = path.extension().and_then(|ending| ending.to_str());
                if path.is_dir() {
                    folders.push(path);
                } else if let Some("png" | "safetensors") = ending
                    && !path.to_string_lossy().ends_with("-grid.png")
                {
                    let time = path.metadata().unwrap().modified().unwrap();
                    all.push((path, time));
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn training_ends_with_one_picture_of_the_source_model_and_both_ways_to_fine_tune_it() {
        let dir = tempfile::tempdir().unwrap();
        let options = quick(dir.path());
        let run = || with_context(|context| fine_tuning_example(&options, context));
        let made = run().unwrap().unwrap();
        assert_eq!((made.kept.len(), made.samples), (2, 3));
        let path = dir.path().join("example.png");
        let picture = decode_file(&path, &Limits::default()).unwrap();
        // Four rows of pictures of 64 pixels in frames of 3 under titles, and a line about the frames.
        assert_eq!(
            (picture.width, picture.height),
            (840, 4 * (22 + 70 + 6) + 22)
        );
        let row = |i: usize| picture.crop(0, i * 98 + 22, 3 * 70, 70).unwrap();
        assert!(row(0) != row(2) && row(2) != row(3));
        // The same again makes nothing but the picture.
        std::fs::remove_file(&path).unwrap();
        let folders = ["naive", "sdft", "samples"].map(|name| options.folder(name));
        let before = folders.each_ref().map(|folder| times(folder));
        run().unwrap();
        let after = folders.each_ref().map(|folder| times(folder));
        assert_eq!(before, after);
        assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture);
        // Models of other settings are refused by name; once they are gone, their samples are made again.
        let mut other = options.clone();
        other.training.push("seed=5".to_owned());
        let run_other = || with_context(|context| fine_tuning_example(&other, context));
        let error = run_other().unwrap_err().to_string();
        assert!(error.contains("example-naive"), "{error}");
        for name in ["naive", "sdft"] {
            std::fs::remove_dir_all(options.folder(name)).unwrap();
        }
        run_other().unwrap().unwrap();
        assert!(decode_file(&path, &Limits::default()).unwrap() != picture);
        // A picture of the user's is not replaced.
        std::fs::write(&path, b"precious").unwrap();
        let error = run().unwrap_err().to_string();
        assert!(error.contains("another picture"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn options_that_the_example_cannot_follow_are_refused_before_training() {
        let dir = tempfile::tempdir().unwrap();
        let options = quick(dir.path());
        let unfit = TranslateOptions {
            guidance: Some(2.0),
            out: dir.path().join("translated"),
            ..TranslateOptions::default()
        };
        let error = with_context(|context| translation_example(&unfit, &options, context));
        let error = error.err().unwrap().to_string();
        assert!(error.starts_with("--guidance:"), "{error}");
        assert!(!options.folder("sdft").exists());
    }

    #[test]
    fn translation_and_editing_use_the_model_of_training_and_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let options = quick(dir.path());
        let translate = TranslateOptions {
            method: TranslationMethod::Egsde,
            out: dir.path().join("translated"),
            steps: Some("ddim4".to_owned()),
            ..TranslateOptions::default()
        };
        let made = with_context(|context| translation_example(&translate, &options, context));
        let made = made.unwrap().unwrap();
        let Outcome::Done(filled) = made.outcome else {
            panic!("{:?}", made.outcome);
        };
        assert_eq!((made.folders.len(), made.folders[0].1.n), (1, 8));
        // The sheet has the true picture of an emoji as its third one.
        let sheet = decode_file(&filled.sheet.unwrap().0, &Limits::default()).unwrap();
        let emoji = Emoji::embedded().unwrap();
        let first = crate::emoji::to_translate(&emoji, 1).unwrap()[0];
        let truth = enlarge(&emoji.picture(first, EmojiStyle::Fluent).unwrap(), 2);
        let x = 2 + 2 * 66;
        let found = (0..sheet.height - 64).any(|y| sheet.crop(x, y, 64, 64).unwrap() == truth);
        assert!(found);

        let model = times(&options.folder("sdft"));
        let edit = || with_context(|context| edit_example(&options, context));
        let edited = edit().unwrap().unwrap();
        let sizes: Vec<usize> = edited.folders.iter().map(|(_, score)| score.n).collect();
        assert_eq!(sizes, [2; 4]);
        assert!(edited.filled.sheet.is_some());
        let before = times(&edited.out);
        edit().unwrap();
        assert_eq!(times(&edited.out), before);
        assert_eq!(times(&options.folder("sdft")), model);
    }
}
