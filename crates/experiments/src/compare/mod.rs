//! Methods of fine-tuning next to each other: the same source model, images, seeds, sampler and measurements.

mod config;
mod cost;
mod judge;
mod needs;
mod samples;
mod workers;

pub use config::COMPARISONS;

use crate::draw;
use crate::kept::{Kept, Part};
use crate::lock_folder_from;
use crate::marked::marked_sheet;
use crate::methods::{interrupted, unless_stopped};
use crate::table::{GAP, Report, csv, markdown_of, write_files};
use config::{Comparison, slug};
use cost::Cost;
use judge::{Judge, OfDigits, OfEmoji, OfFolder};
use needs::Inputs;
use samples::Samples;
use sdft_imaging::Rgb8;
use sdft_jobs::{
    Context, GuideOptions, Result, ResultExt, SampleOptions, SamplerKind, Weights, load_model,
    sample_to_folder, train_classifier_preset, write_file,
};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_settings::put;
use sdft_train::to_screens;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use toml::Table;
use workers::{Job, train_all};

/// Seed of the noise of samples, the same for every model.
const NOISE_SEED: u64 = 1000;
/// Samples of each method in the picture, and its columns.
const SHOWN: usize = 24;
const COLUMNS_SHOWN: usize = 6;
/// Panels side by side.
const PANELS: usize = 6;

/// Options of a comparison.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// A TOML file, or one of [`COMPARISONS`].
    pub comparison: String,
    /// Runs of each method, if not as many as the comparison says.
    pub seeds: Option<usize>,
    /// The source model, if not the comparison's: a file, a run folder or a name.
    pub source: Option<String>,
    /// The target images, if not the comparison's.
    pub data: Option<String>,
    /// Further settings of every method, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Files of the networks that measure.
    pub weights: Weights,
    /// Runs at once, if not as many as the machine holds.
    pub jobs: Option<usize>,
    /// The folder of runs, samples, tables and pictures; `runs/compare-NAME` if not given.
    pub out: Option<PathBuf>,
}

/// Trains every method of a comparison with every seed, draws the same noise with each model, and measures the samples and the cost. Finished
/// parts are not made again. Returns the table, or `None` if the job was interrupted.
///
/// # Errors
/// - [`Error::Usage`](sdft_jobs::Error::Usage) for an invalid comparison, with the list of everything that is missing
/// - an error of training, sampling or measuring
pub fn compare_methods(
    options: &CompareOptions,
    context: &mut Context<'_>,
) -> Result<Option<Report>> {
    let done = run(options, context);
    unless_stopped(done, context)
}

fn run(options: &CompareOptions, context: &mut Context<'_>) -> Result<Report> {
    let mut comparison = Comparison::read(&options.comparison)?;
    comparison.seeds = options.seeds.unwrap_or(comparison.seeds);
    let inputs = Inputs::find(&comparison, options, context)?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => PathBuf::from(format!("runs/compare-{}", comparison.name)),
    };
    let source = load_model(&inputs.source, &inputs.load)?;
    let experiment = format!("compare {}", comparison.name);
    let outputs = lock_folder_from(&out, &experiment, &source.sha256)?;
    let mut kept = Kept::new(outputs, inputs.fingerprint.clone());
    let mut study = Study {
        comparison: &comparison,
        inputs: &inputs,
        out: &out,
        runs: Vec::new(),
    };
    let classifier = study.classifier(context)?;
    train_all(study.jobs(classifier.as_deref())?, options.jobs, context)?;
    let models = study.comparison.method.len() * comparison.seeds;
    let seconds = (comparison.samples * comparison.steps) as f64 / 300.0;
    kept.expect(1 + models, seconds);
    let of_source = Drawn {
        name: "samples/source",
        file: &inputs.source,
        load: &inputs.load,
        model: &source,
        guide: None,
    };
    let from = study.draw(&of_source, &mut kept, context)?;
    if inputs.data.is_digits() {
        let judge = OfDigits::new(from.first(usize::MAX)?)?;
        study.finish(&judge, &from, &mut kept, context)
    } else if inputs.data.is_emoji() {
        let judge = OfEmoji::new(&from.first(usize::MAX)?, inputs.images.as_ref())?;
        study.finish(&judge, &from, &mut kept, context)
    } else {
        let target = Path::new(&inputs.data.path);
        let features = out.join("features");
        let judge = OfFolder::open(&inputs.inception, target, &features, &context.device)?;
        study.finish(&judge, &from, &mut kept, context)
    }
}

/// How to read the columns of the cost.
const COSTS: &str = "
seconds are those of the training steps by the log, on the threads of one run while others ran next to it; samples of the source model, the
Fisher information and ANT's classifier are not counted. Trained are the numbers that the optimiser changes.
";

/// A model to sample.
struct Drawn<'a> {
    /// The name of its samples.
    name: &'a str,
    /// Its file, and the settings that the file does not state.
    file: &'a str,
    load: &'a LoadOptions,
    model: &'a LoadedModel,
    guide: Option<&'a GuideOptions>,
}

/// A comparison in its folder.
struct Study<'a> {
    comparison: &'a Comparison,
    inputs: &'a Inputs,
    out: &'a Path,
    /// For each method the folders of its runs, one for each seed. Methods that differ in sampling only share them.
    runs: Vec<Vec<PathBuf>>,
}

impl Study<'_> {
    /// The classifier of embedded images, if a method needs one and names none. It is trained unless it exists.
    fn classifier(&self, context: &mut Context<'_>) -> Result<Option<String>> {
        let Some(preset) = &self.inputs.classifier else {
            return Ok(None);
        };
        context.progress.note(&format!("training {preset}"));
        let root = self.out.join("classifier");
        let trained = train_classifier_preset(preset, &[], &root, context)?;
        let file = trained.ok_or_else(interrupted)?;
        let file = std::path::absolute(&file).context("cannot find the working folder")?;
        Ok(Some(file.display().to_string()))
    }

    /// The runs to train.
    fn jobs(&mut self, classifier: Option<&str>) -> Result<Vec<Job>> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut known: Vec<(Table, Vec<PathBuf>)> = Vec::new();
        for entry in &self.comparison.method {
            let mut settings = self.comparison.settings(entry, &self.inputs.settings)?;
            if let Some(classifier) = classifier.filter(|_| needs::needs_classifier(&settings)) {
                put(&mut settings, "loss.ant.classifier", classifier);
            }
            put(&mut settings, "output.keep", 1);
            if let Some((_, roots)) = known.iter().find(|(known, _)| *known == settings) {
                self.runs.push(roots.clone());
                continue;
            }
            let roots: Vec<PathBuf> = (0..self.comparison.seeds)
                .map(|seed| self.out.join(format!("{}-seed{seed}", slug(&entry.label))))
                .collect();
            for (seed, root) in roots.iter().enumerate() {
                let mut settings = settings.clone();
                put(&mut settings, "seed", seed as i64);
                let root = root.clone();
                jobs.push(Job { root, settings });
            }
            known.push((settings, roots.clone()));
            self.runs.push(roots);
        }
        // All methods have their first run before any has its second, so that an interrupted comparison shows most.
        jobs.sort_by_key(|job| job.settings.get("seed").and_then(toml::Value::as_integer));
        Ok(jobs)
    }

    /// The samples of a model, unless they exist: in one picture if they are embedded images, otherwise in a folder.
    fn draw(
        &self,
        drawn: &Drawn<'_>,
        kept: &mut Kept,
        context: &mut Context<'_>,
    ) -> Result<Samples> {
        let (n, steps) = (self.comparison.samples, self.comparison.steps);
        let (model, part) = (drawn.model, self.part(drawn.name));
        if self.inputs.data.is_digits() || self.inputs.data.is_emoji() {
            let made_of = self.made_of(drawn);
            let images = kept.images(&part, &made_of, context, |context| {
                let drawn = draw::samples(model, [n, steps], NOISE_SEED, drawn.guide, context)?;
                Ok(to_screens(&drawn, &model.image)?)
            })?;
            return Ok(Samples::Images(images));
        }
        let folder = self.out.join(drawn.name);
        let options = SampleOptions {
            model: drawn.file.to_owned(),
            load: drawn.load.clone(),
            n,
            seed: NOISE_SEED,
            sampler: Some(SamplerKind::Ddim),
            steps: Some(format!("ddim{steps}")),
            guide: drawn.guide.cloned(),
            out: folder.clone(),
            ..SampleOptions::default()
        };
        let report = kept.run(&part, false, context, |context| {
            sample_to_folder(&options, context)
        })?;
        match report.complete < report.all {
            true => Err(interrupted()),
            false => Ok(Samples::Folder { folder, n }),
        }
    }

    /// What the samples of a model depend on.
    fn made_of(&self, drawn: &Drawn<'_>) -> String {
        let (n, steps, sha256) = (
            self.comparison.samples,
            self.comparison.steps,
            &drawn.model.sha256,
        );
        let samples = format!("{sha256} {n} samples {steps} steps {NOISE_SEED}");
        match drawn.guide {
            None => samples,
            Some(guide) => format!(
                "{samples} guide {} {}",
                self.inputs.source_sha256, guide.weight
            ),
        }
    }

    fn part<'a>(&self, name: &'a str) -> Part<'a> {
        Part {
            name,
            images: self.comparison.samples,
            seconds: (self.comparison.samples * self.comparison.steps) as f64 / 300.0,
        }
    }

    /// Draws, measures, and writes table and picture.
    fn finish<J: Judge>(
        &self,
        judge: &J,
        from: &Samples,
        kept: &mut Kept,
        context: &mut Context<'_>,
    ) -> Result<Report> {
        let columns: Vec<(&str, usize)> = J::COLUMNS
            .iter()
            .map(|(name, digits, _)| (*name, *digits))
            .chain([("steps", 0), ("seconds", 0), ("trained, M", 3)])
            .collect();
        let values = |row: &J::Row, cost: Option<&Cost>| -> Vec<f64> {
            let cost = match cost {
                None => [f64::NAN; 3],
                Some(cost) => [cost.steps as f64, cost.seconds, cost.trained as f64 / 1e6],
            };
            let measured = J::COLUMNS.iter().map(|(_, _, value)| value(row));
            measured.chain(cost).collect()
        };
        let basis = judge.basis();
        let measure = |name: &str,
                       made_of: &str,
                       samples: &Samples,
                       kept: &mut Kept,
                       context: &mut Context<'_>| {
            let measured_by = match samples {
                // The picture's hash counts already.
                Samples::Images(_) => basis.clone(),
                Samples::Folder { .. } => format!("{basis} {made_of}"),
            };
            kept.numbers(&self.part(name), &measured_by, || {
                judge.measure(samples, context)
            })
        };
        let row = measure(
            "samples/source",
            &self.inputs.source_sha256,
            from,
            kept,
            context,
        )?;
        let mut table = vec![("source".to_owned(), vec![values(&row, None)])];
        let mut numbers = vec![json!({ "method": "source", "seeds": [row] })];
        let mut panels = vec![self.panel(judge, from, "source")?];
        for (entry, roots) in self.comparison.method.iter().zip(&self.runs) {
            let guide = entry.guide_weight.map(|weight| GuideOptions {
                model: self.inputs.source.clone(),
                weight,
                ..GuideOptions::default()
            });
            let (mut rows, mut of_seeds): (Vec<Vec<f64>>, Vec<Value>) = Default::default();
            for (seed, root) in roots.iter().enumerate() {
                let file = root.join("final.safetensors").display().to_string();
                let model = load_model(&file, &LoadOptions::default())
                    .with_context(|| format!("cannot read {file}"))?;
                let name = format!("samples/{}-seed{seed}", slug(&entry.label));
                let drawn = Drawn {
                    name: &name,
                    file: &file,
                    load: &LoadOptions::default(),
                    model: &model,
                    guide: guide.as_ref(),
                };
                let images = self.draw(&drawn, kept, context)?;
                let row = measure(&name, &self.made_of(&drawn), &images, kept, context)?;
                let cost = Cost::of(root)?;
                rows.push(values(&row, Some(&cost)));
                of_seeds.push(json!({ "measured": row, "cost": cost }));
                if seed == 0 {
                    panels.push(self.panel(judge, &images, &entry.label)?);
                }
            }
            table.push((entry.label.clone(), rows));
            numbers.push(json!({ "method": entry.label, "seeds": of_seeds }));
        }
        let rows: Vec<Rgb8> = panels
            .chunks(PANELS)
            .map(|row| sdft_imaging::side_by_side(row, 8, GAP))
            .collect();
        let picture = sdft_imaging::grid(&rows, 1, 8, GAP);
        write_file(
            &self.out.join("table.csv"),
            csv("method", &columns, &table).as_bytes(),
        )?;
        let text = markdown_of("method", &columns, &table);
        let stems = ["table", "samples"];
        write_files(
            self.out,
            stems,
            (text + COSTS, J::READING),
            &numbers,
            Some(&picture),
        )
    }

    fn panel<J: Judge>(&self, judge: &J, samples: &Samples, title: &str) -> Result<Rgb8> {
        let first = samples.first(SHOWN)?;
        let marks = judge.marks(&first)?;
        Ok(marked_sheet(&first, &marks, COLUMNS_SHOWN, title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_train::NoopProgress;
    use std::sync::atomic::AtomicBool;

    /// Two seeds of two methods, one of which is sampled with and without a guide; a run takes a second.
    const SMALL: &str = r#"
name = "small"
config = ["digits-naive"]
set = ["loop.steps=2", "loop.batch=2", "data.per_class=2", "output.samples=2", "output.log_every=1"]
seeds = 2
samples = 6
steps = 2
[[method]]
label = "naive"
[[method]]
label = "naive + DoG"
guide_weight = 1.5
[[method]]
label = "L2-SP"
with = ["l2-sp"]
"#;

    fn compare(file: &Path, out: &Path, set: &[&str]) -> Result<Option<Report>> {
        let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let options = CompareOptions {
            comparison: file.display().to_string(),
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            out: Some(out.to_owned()),
            ..CompareOptions::default()
        };
        compare_methods(&options, &mut context)
    }

    #[test]
    fn methods_become_one_table_and_finished_runs_are_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("small.toml"), dir.path().join("out"));
        std::fs::write(&file, SMALL).unwrap();
        let report = compare(&file, &out, &[]).unwrap().unwrap();
        let lines: Vec<&str> = report
            .text
            .lines()
            .filter(|line| line.starts_with('|'))
            .collect();
        assert_eq!(lines.len(), 6, "{}", report.text);
        assert!(
            lines[0].ends_with("| steps | seconds | trained, M |"),
            "{}",
            lines[0]
        );
        for (line, label) in lines[2..]
            .iter()
            .zip(["source", "naive", "naive + DoG", "L2-SP"])
        {
            assert!(line.starts_with(&format!("| {label} |")), "{line}");
        }
        let csv = std::fs::read_to_string(out.join("table.csv")).unwrap();
        assert_eq!(csv.lines().count(), 1 + 1 + 3 * 2, "{csv}");
        assert!(report.picture.unwrap().is_file());
        // The guided samples come from the same runs, and differ.
        assert!(!out.join("naive-dog-seed0").exists());
        let picture = |name: &str| std::fs::read(out.join("samples").join(name)).unwrap();
        assert_ne!(picture("naive-seed0.png"), picture("naive-dog-seed0.png"));
        assert_ne!(picture("naive-seed0.png"), picture("naive-seed1.png"));
        let changed = || {
            let model = out.join("naive-seed0/final.safetensors");
            std::fs::metadata(model).unwrap().modified().unwrap()
        };
        let before = changed();
        let again = compare(&file, &out, &[]).unwrap().unwrap();
        assert_eq!((again.text, changed()), (report.text, before));
        let error = compare(&file, &out, &["optim.lr=1e-3"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("another plan"), "{error}");
    }

    #[test]
    fn everything_that_is_missing_is_listed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("mine.toml"), dir.path().join("out"));
        let text = "name = \"mine\"\nconfig = [\"own-64\"]\nset = [\"method=naive\"]\nsamples = 4\n[[method]]\nlabel = \"ANT\"\nwith = [\"ant\"]\n";
        std::fs::write(&file, text).unwrap();
        let error = compare(&file, &out, &[]).unwrap_err().to_string();
        for part in ["--source FILE", "--data DIR", "loss.ant.classifier"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!out.exists());
    }
}
