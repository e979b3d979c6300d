//! The paper's claim on emoji: what each method keeps of the attributes that its target set lacks.

mod editing;
mod generation;
mod lambda;
mod measure;
mod sets;
mod study;
mod translation;

pub(crate) use generation::form;
pub use lambda::choose_emoji_lambda;
pub(crate) use measure::{Measure as EmojiMeasure, Row as EmojiRow};
pub(crate) use sets::{ToEdit, all_pictures, to_edit, to_translate, training_set};

use crate::methods::{Method, unless_stopped};
use crate::table::Report;
use editing::Edits;
use generation::Generation;
use sdft_jobs::{Context, EMOJI_SOURCE, Result};
use std::path::PathBuf;
use study::{Judges, Study, Trained};
use translation::Translations;

const SCRATCH: Method = Method::of("scratch", "emoji-scratch");
const NAIVE: Method = Method::of("naive", "emoji-naive");
const SDFT: Method = Method::of("SDFT", "emoji-sdft");

const METHODS: [Method; 7] = [
    SCRATCH,
    Method {
        title: "naive",
        translates: true,
        ..NAIVE
    },
    Method {
        label: "naive, stopped early",
        title: "naive, stopped early",
        set: &["loop.steps=60"],
        translates: true,
        ..NAIVE
    },
    Method {
        title: "SDFT",
        translates: true,
        ..SDFT
    },
    Method {
        label: "SDFT without auxiliary input",
        set: &["loss.lambda_aux=0.0"],
        ..SDFT
    },
    Method {
        label: "constant weight, lambda 0.3",
        set: &[
            "loss.lambda=0.3",
            "loss.lambda_aux=0.3",
            "loss.weight=constant",
            "loss.weight_aux=constant",
        ],
        ..SDFT
    },
    Method {
        label: "Min-SNR-5 (v form), lambda 3",
        set: &[
            "loss.lambda=3.0",
            "loss.lambda_aux=3.0",
            "loss.weight=min-snr-5-v",
            "loss.weight_aux=min-snr-5-v",
        ],
        ..SDFT
    },
];

/// Seed of the noise of samples, the same for every model.
const NOISE_SEED: u64 = 1000;
/// Images that a small network passes or judges in a second on two cores.
const PASSES_PER_SECOND: f64 = 300.0;
/// Images that it is trained on in a second without a frozen source model.
const TRAINED_PER_SECOND: f64 = 95.0;

/// Options of the experiments on emoji.
#[derive(Clone, Debug)]
pub struct EmojiOptions {
    /// Runs of each method, one for each seed from 0 on.
    pub seeds: usize,
    /// The folder of runs, images, numbers, tables and pictures.
    pub out: PathBuf,
    /// The source model: a file, a run folder, or the name of an embedded model.
    pub source: String,
    /// How much is computed.
    pub scale: EmojiScale,
}

impl Default for EmojiOptions {
    /// The documented experiment.
    fn default() -> Self {
        Self {
            seeds: 3,
            out: "runs/reproduce-emoji".into(),
            source: EMOJI_SOURCE.to_owned(),
            scale: EmojiScale::default(),
        }
    }
}

/// How much an experiment on emoji computes; the documented tables have the default.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiScale {
    /// Samples of each model.
    pub samples: usize,
    /// Steps of samples, translations and edits.
    pub steps: usize,
    /// The most real pictures of a style that samples are compared with.
    pub compared: usize,
    /// Pictures of each group to translate.
    pub inputs: usize,
    /// Pictures to edit in each direction.
    pub edited: usize,
    /// Settings of every model, on top of the method's.
    pub training: Vec<String>,
    /// Settings of EGSDE's classifier, on top of the preset's.
    pub classifier: Vec<String>,
    /// Settings of every direction, on top of the preset's.
    pub directions: Vec<String>,
}

impl Default for EmojiScale {
    fn default() -> Self {
        Self {
            samples: 160,
            steps: 40,
            compared: usize::MAX,
            inputs: 8,
            edited: 24,
            // One small grid, at the end.
            training: [
                "output.sample_every=0",
                "output.samples=8",
                "output.log_every=50",
            ]
            .map(str::to_owned)
            .into(),
            classifier: Vec::new(),
            directions: vec!["output.samples=1".to_owned()],
        }
    }
}

/// The paper's claim on the embedded emoji: each method is trained on a biased target set, and its models are measured as in Tables 1 to 4.
/// Returns three tables (samples, translation, editing), or `None` if the job was interrupted. Models, images and numbers that the folder
/// has are not made again.
///
/// # Errors
/// A folder with other files, or an error of training, sampling or measuring.
pub fn reproduce_emoji(
    options: &EmojiOptions,
    context: &mut Context<'_>,
) -> Result<Option<[Report; 3]>> {
    let done = run(options, &METHODS, context);
    unless_stopped(done, context)
}

fn run(
    options: &EmojiOptions,
    methods: &[Method],
    context: &mut Context<'_>,
) -> Result<[Report; 3]> {
    let mut study = Study::open(options, "emoji", methods, context)?;
    let mut generation = Generation::new(&mut study, context)?;
    let mut translations = Translations::new(&mut study, context)?;
    let mut edits = Edits::new(&study, context)?;
    for method in methods {
        for seed in 0..options.seeds {
            let model = study.train(method, seed, context)?;
            generation.add(method, &model, &mut study, context)?;
            if method.translates {
                translations.add(method, &model, &mut study, context)?;
                edits.add(method, &model, &mut study, context)?;
            }
        }
    }
    let out = &options.out;
    Ok([
        generation.finish(out)?,
        translations.finish(out)?,
        edits.finish(out)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_jobs::{TRAINING, TrainPlan, train_preset};
    use sdft_settings::{layers, plan, set_all};
    use sdft_train::DataPlan;
    use sdft_train::Progress;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_early_stop_is_a_fifth_of_the_steps() {
        let steps = |set: &[&str]| -> u64 {
            let mut table = layers::<TrainPlan>(&TRAINING, &[NAIVE.preset]).unwrap();
            set_all::<TrainPlan>(&mut table, set).unwrap();
            let plan: TrainPlan = plan(table).unwrap();
            plan.steps.steps
        };
        let early = METHODS
            .iter()
            .find(|method| method.label.contains("stopped early"));
        assert_eq!(5 * steps(early.unwrap().set), steps(&[]));
    }

    #[test]
    fn all_methods_and_the_classifier_have_the_same_target_set() {
        let (stop, mut progress) = (AtomicBool::new(false), sdft_train::NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let of = |preset| -> DataPlan {
            let plan: TrainPlan = plan(layers::<TrainPlan>(&TRAINING, &[preset]).unwrap()).unwrap();
            plan.data
        };
        let sdft = of(SDFT.preset);
        for preset in [SCRATCH.preset, NAIVE.preset] {
            let data = of(preset);
            assert_eq!(
                (data.only, data.style),
                (sdft.only.clone(), sdft.style.clone())
            );
        }
        assert_eq!(training_set(SDFT.preset, &mut context).unwrap().len(), 90);
        for (preset, _) in editing::DIRECTIONS_USED {
            let ToEdit { inputs, .. } = to_edit(preset, 24, &mut context).unwrap();
            assert!(inputs.len() >= 20, "{preset}: {}", inputs.len());
        }
    }

    /// Keeps the names of the parts that are computed, and stops the job after some of them.
    struct Parts<'a> {
        made: Vec<String>,
        stop: &'a AtomicBool,
        stop_after: usize,
    }

    impl Progress for Parts<'_> {
        fn note(&mut self, text: &str) {
            let part = text.strip_prefix("part ").and_then(|text| {
                let (_, name) = text.split_once(": ")?;
                name.split_once(" · ")
            });
            if let Some((name, left)) = part {
                assert!(left.ends_with(" left"), "{text}");
                self.made.push(name.to_owned());
                if self.made.len() == self.stop_after {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Runs a small experiment that stops after so many parts. Its tables, and the parts that were computed.
    fn small(options: &EmojiOptions, stop_after: usize) -> (Option<[Report; 3]>, Vec<String>) {
        let methods = [
            Method {
                translates: false,
                ..NAIVE
            },
            Method {
                translates: true,
                title: "SDFT",
                ..SDFT
            },
        ];
        let stop = AtomicBool::new(false);
        let mut parts = Parts {
            made: Vec::new(),
            stop: &stop,
            stop_after,
        };
        let mut context = Context::new(Device::Cpu, &stop, &mut parts);
        let done = run(options, &methods, &mut context);
        let done = unless_stopped(done, &context).unwrap();
        (done, parts.made)
    }

    /// The file of a small source model.
    fn source(folder: &Path) -> String {
        let (stop, mut progress) = (AtomicBool::new(false), sdft_train::NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let set = [
            "model.model_channels=8",
            "model.channel_mult=[1.0, 1.0, 1.0]",
            "model.num_head_channels=8",
            "loop.steps=1",
            "loop.batch=2",
            "output.samples=1",
            "output.sampler=ddim2",
        ];
        let root = folder.join("source");
        let model = train_preset("emoji-scratch", &set, &root, &mut context).unwrap();
        model.unwrap().display().to_string()
    }

    #[test]
    fn an_experiment_continues_where_it_was_stopped_and_writes_three_tables() {
        let dir = tempfile::tempdir().unwrap();
        let set = |all: &[&str]| all.iter().map(|&set| set.to_owned()).collect();
        let options = EmojiOptions {
            seeds: 1,
            out: dir.path().join("emoji"),
            source: source(dir.path()),
            scale: EmojiScale {
                samples: 3,
                steps: 2,
                compared: 40,
                inputs: 1,
                edited: 2,
                training: set(&[
                    "loop.steps=1",
                    "loop.batch=2",
                    "output.samples=1",
                    "output.sampler=ddim2",
                ]),
                classifier: set(&[
                    "model.model_channels=8",
                    "model.channel_mult=[1.0, 1.0, 1.0]",
                    "model.num_head_channels=8",
                    "loop.steps=1",
                    "loop.batch=2",
                ]),
                directions: set(&[
                    "data.images=1",
                    "walk.inversion=2",
                    "walk.steps=2",
                    "loop.epochs=1",
                    "output.samples=1",
                    "output.sampler=2",
                ]),
            },
        };
        // Samples of the source, the classifier, a model and its samples; a model, its samples, four translations, three directions and edits.
        let all = 2 + 2 + 2 + 4 + 3 * 2;
        let (tables, mut made) = small(&options, 7);
        assert!(tables.is_none());
        assert_eq!(made.len(), 7);
        let (tables, rest) = small(&options, usize::MAX);
        made.extend(rest);
        assert_eq!(made.len(), all, "{made:?}");
        let mut names = made.clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a part was computed twice: {made:?}");

        let tables = tables.unwrap();
        let texts: Vec<&String> = tables.iter().map(|table| &table.text).collect();
        for (row, table) in [
            ("| all Fluent pictures |", 0),
            ("| SDFT |", 0),
            ("| the inputs |", 1),
            ("| DDIB, SDFT |", 1),
            ("| man to woman, SDFT |", 2),
        ] {
            assert!(texts[table].contains(row), "{row}\n{}", texts[table]);
        }
        for table in &tables {
            assert!(table.table.is_file() && table.picture.as_ref().unwrap().is_file());
        }
        assert!(options.out.join("nearest.png").is_file());
        // Nothing is computed again, and the tables stay.
        let (again, made) = small(&options, usize::MAX);
        assert_eq!(made, [""; 0]);
        for (before, now) in tables.iter().zip(&again.unwrap()) {
            assert_eq!(before.text, now.text);
        }
    }
}
