//! Folders of images made of folders of images, under the same names: what is there stays, what is missing is made.

pub(crate) mod inputs;
pub(crate) mod outputs;

use crate::INTERRUPTED;
use crate::console::{self, Ticker};
use crate::runs::{STOP, listen};
use crate::sample::sheet_beside;
use anyhow::{Context, Result, bail};
use inputs::Input;
use outputs::Outputs;
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png, write_png};
use sdft_train::sheet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Inputs in the contact sheet.
const SHOWN: usize = 32;
/// Pictures in a row of it.
const WIDE: usize = 8;

/// How a command over a folder ended.
pub(crate) enum Ended {
    /// Each variant's folder holds its images.
    Done {
        folders: Vec<PathBuf>,
    },
    Interrupted,
}

impl Ended {
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Done { .. } => ExitCode::SUCCESS,
            Self::Interrupted => ExitCode::from(INTERRUPTED),
        }
    }
}

/// Makes images of images, in one or several variants.
pub(crate) trait Maker {
    /// What it does, in a word.
    fn name(&self) -> String;
    /// Side of the images.
    fn side(&self) -> usize;
    /// What each variant is called: its folder; empty where there is only one.
    fn labels(&self) -> Vec<String>;
    /// What stands over inputs and outputs.
    fn title(&self) -> String;
    /// Makes a batch of one variant's images; `numbers` are the inputs', `progress` hears the share that is done.
    fn make(
        &self,
        variant: usize,
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Rgb8>>;
}

/// Images of a folder on their way into another; `P` is what decides them, and stands in its `plan.toml`.
pub(crate) struct Gallery<'a, P> {
    pub(crate) out: &'a Path,
    pub(crate) plan: &'a P,
    pub(crate) maker: &'a dyn Maker,
    pub(crate) inputs: &'a [Input],
    /// Images at once; what suits their size if none.
    pub(crate) batch: Option<usize>,
    pub(crate) overwrite: bool,
}

impl<P: Serialize + DeserializeOwned> Gallery<'_, P> {
    fn folder(&self, label: &str) -> PathBuf {
        match label {
            "" => self.out.to_owned(),
            label => self.out.join(label),
        }
    }

    /// Makes what is not there yet.
    pub(crate) fn fill(&self) -> Result<Ended> {
        listen();
        let _lock = outputs::lock(self.out)?;
        let (labels, overwrite) = (self.maker.labels(), self.overwrite);
        let (name, side) = (self.maker.name(), self.maker.side());
        if !overwrite {
            outputs::write_plan(self.out, self.plan)?;
        }
        let mut outputs = labels
            .iter()
            .map(|label| Outputs::open(&self.folder(label), overwrite))
            .collect::<Result<Vec<_>>>()?;
        if overwrite {
            outputs::write_plan(self.out, self.plan)?;
        }
        console::note(&format!(
            "{} images of {side}x{side}, {name}{}; writes {}",
            self.inputs.len(),
            match labels.len() {
                1 => String::new(),
                n => format!(" with {n} strengths"),
            },
            self.out.display(),
        ));
        let mut failures: Vec<(String, String)> = Vec::new();
        let mut pending: Vec<(&Input, Vec<usize>)> = Vec::new();
        for input in self.inputs {
            if let Some(problem) = &input.problem {
                failures.push((input.id.clone(), problem.clone()));
                continue;
            }
            if STOP.load(Ordering::Relaxed) {
                return self.interrupted();
            }
            let needs = missing(&outputs, input);
            if !needs.is_empty() {
                pending.push((input, needs));
            }
        }
        let kept = self.inputs.len() - pending.len() - failures.len();
        if kept > 0 {
            console::note(&format!("{kept} are complete and stay"));
        }
        let strays = strays(&outputs, self.inputs);
        if strays > 0 {
            console::note(&format!(
                "{strays} images in {} belong to no input any more, and stay",
                self.out.display()
            ));
        }
        let total: usize = pending.iter().map(|(_, needs)| needs.len()).sum();
        let mut ticker = Ticker::new(&name, total);
        let mut done = 0;
        let at_once = self.batch.unwrap_or_else(|| usual_batch(side));
        let ended = inputs::load_ahead(&pending, side, at_once, |batch| {
            let mut ready = Vec::new();
            for (k, loaded) in batch {
                let (input, needs) = &pending[k];
                match loaded {
                    Ok(loaded) => ready.push((*input, needs, loaded)),
                    Err(problem) => {
                        done += needs.len();
                        ticker.note(&format!("{}: {problem}", input.id));
                        failures.push((input.id.clone(), problem));
                    }
                }
            }
            for (variant, outputs) in outputs.iter_mut().enumerate() {
                let these: Vec<_> = ready
                    .iter()
                    .filter(|(_, needs, _)| needs.contains(&variant))
                    .collect();
                if these.is_empty() {
                    continue;
                }
                let images: Vec<Rgb8> = these.iter().map(|(_, _, l)| l.image.clone()).collect();
                let numbers = these.iter().map(|(input, ..)| input.number).collect();
                let n = these.len();
                let made = self.maker.make(variant, &images, numbers, &mut |share| {
                    ticker.tick(done as f64 + n as f64 * share);
                });
                if STOP.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                for ((input, _, loaded), image) in these.iter().zip(made?) {
                    self.forget_strip(input)?;
                    outputs.write(&input.name, &loaded.sha256, &encode_png(&image)?)?;
                }
                done += n;
            }
            if labels.len() > 1 {
                for (input, _, loaded) in &ready {
                    self.strip(&outputs, input, &loaded.image)?;
                }
            }
            ticker.tick(done as f64);
            Ok(true)
        })?;
        ticker.finish(done);
        if !ended {
            return self.interrupted();
        }
        if labels.len() > 1 {
            self.mend_strips(&outputs)?;
        }
        console::line(format_args!("images   {}", self.out.display()))?;
        if let Some(path) = self.show(&outputs)? {
            console::line(format_args!("grid     {}", path.display()))?;
        }
        if failures.is_empty() {
            return Ok(Ended::Done {
                folders: labels.iter().map(|label| self.folder(label)).collect(),
            });
        }
        let list: Vec<String> = failures
            .iter()
            .map(|(id, why)| format!("  {id}: {why}"))
            .collect();
        bail!(
            "{} of {} images failed, the others are done:\n{}",
            failures.len(),
            self.inputs.len(),
            list.join("\n")
        )
    }

    fn interrupted(&self) -> Result<Ended> {
        let how = if self.overwrite {
            " without --overwrite"
        } else {
            ""
        };
        console::line(format_args!(
            "interrupted; the same command{how} goes on from here"
        ))?;
        Ok(Ended::Interrupted)
    }

    fn strip_of(&self, input: &Input) -> PathBuf {
        self.out.join("strips").join(&input.name)
    }

    /// Removes the strip of an input one of whose images becomes another, so that none is left of what was.
    fn forget_strip(&self, input: &Input) -> Result<()> {
        let path = self.strip_of(input);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Makes the strips that an earlier command did not come to.
    fn mend_strips(&self, outputs: &[Outputs]) -> Result<()> {
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            if !self.strip_of(input).is_file()
                && let Ok(loaded) = inputs::load(input, self.maker.side())
            {
                self.strip(outputs, input, &loaded.image)?;
            }
        }
        Ok(())
    }

    /// The outputs of one input in the order of the variants, where all are there.
    fn made(&self, outputs: &[Outputs], input: &Input) -> Option<Vec<Rgb8>> {
        outputs
            .iter()
            .map(|o| decode_file(&o.path(&input.name), &Limits::default()).ok())
            .collect()
    }

    /// An input beside what each variant made of it.
    fn strip(&self, outputs: &[Outputs], input: &Input, image: &Rgb8) -> Result<()> {
        let Some(made) = self.made(outputs, input) else {
            return Ok(());
        };
        let path = self.strip_of(input);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        let all: Vec<Rgb8> = std::iter::once(image.clone()).chain(made).collect();
        write_png(&path, &sheet(&all, all.len(), &self.maker.title()))?;
        Ok(())
    }

    /// Writes the contact sheet of the first inputs and what became of them.
    fn show(&self, outputs: &[Outputs]) -> Result<Option<PathBuf>> {
        let mut pictures = Vec::new();
        let good = self.inputs.iter().filter(|input| input.problem.is_none());
        for input in good.take(SHOWN) {
            let Ok(loaded) = inputs::load(input, self.maker.side()) else {
                continue;
            };
            if let Some(made) = self.made(outputs, input) {
                pictures.push(loaded.image);
                pictures.extend(made);
            }
        }
        if pictures.is_empty() {
            return Ok(None);
        }
        let each = 1 + outputs.len();
        let columns = each * (WIDE / each).max(1);
        let path = sheet_beside(self.out);
        write_png(&path, &sheet(&pictures, columns, &self.maker.title()))?;
        Ok(Some(path))
    }
}

/// So many pixels that a larger batch is not faster, and that EGSDE's backward pass through a classifier of 256x256 needs about 5 GB.
fn usual_batch(side: usize) -> usize {
    (4 * 256 * 256 / (side * side).max(1)).clamp(1, 64)
}

/// A path without links and turns, where there is one; names stay.
pub(crate) fn full_path(name: &str) -> String {
    match Path::new(name).canonicalize() {
        Ok(path) => path.display().to_string(),
        Err(_) => name.to_owned(),
    }
}

/// Fails between two steps once the user has asked for an end.
pub(crate) fn go_on() -> candle_core::Result<()> {
    if STOP.load(Ordering::Relaxed) {
        candle_core::bail!("interrupted");
    }
    Ok(())
}

/// How many images there are records of that no input stands for.
fn strays(outputs: &[Outputs], inputs: &[Input]) -> usize {
    let names: HashSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let all = outputs.iter().flat_map(Outputs::names);
    all.filter(|name| !names.contains(name)).count()
}

/// The variants whose image of this input is not there, not whole, or made of another input.
fn missing(outputs: &[Outputs], input: &Input) -> Vec<usize> {
    let all = 0..outputs.len();
    if !outputs.iter().any(|o| o.knows(&input.name)) {
        return all.collect();
    }
    // An input that cannot be read is found out when its turn comes.
    let hash = sdft_checkpoint::sha256_file(&input.path).unwrap_or_default();
    all.filter(|&v| !outputs[v].is_complete(&input.name, &hash))
        .collect()
}
