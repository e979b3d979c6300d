//! Folders of images made of folders of images, under the same names: what is there stays, what is missing is made.

mod failures;
pub(crate) mod inputs;
pub(crate) mod outputs;
pub(crate) mod refusal;
pub(crate) mod sheet;

pub(crate) use failures::Failures;

use crate::console::{self, Ticker};
use crate::runs::{STOP, listen};
use crate::{INTERRUPTED, space};
use anyhow::Result;
use inputs::{Input, Loaded};
use outputs::{Outputs, ends_everything, name_problem};
use sdft_imaging::{ImagingError, Limits, Rgb8, contact_sheet, decode_file, encode_png};
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

/// One image each, or why there is none.
pub(crate) type Made = Vec<Result<Rgb8, ImagingError>>;

/// Makes images of images, in one or several variants.
pub(crate) trait Maker {
    /// What it does, in a word.
    fn name(&self) -> String;
    /// Side of the images.
    fn side(&self) -> usize;
    /// What each variant is called: its folder; empty where there is only one.
    fn labels(&self) -> Vec<String>;
    /// What stands over each variant's images in a sheet.
    fn columns(&self) -> Vec<String>;
    /// What a sheet shows, in few words.
    fn title(&self) -> String;
    /// Makes a batch of one variant's images; `numbers` are the inputs', `progress` is called with the share that is done.
    fn make(
        &self,
        variant: usize,
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Made>;
}

/// Images of a folder on their way into another; `P` is what decides them, and stands in its `plan.toml`.
pub(crate) struct Gallery<'a, P> {
    /// The file or folder that the inputs come from.
    pub(crate) input: &'a Path,
    pub(crate) inputs: &'a [Input],
    pub(crate) out: &'a Path,
    pub(crate) plan: &'a P,
    pub(crate) maker: &'a dyn Maker,
    /// Images at once; what suits their size if none.
    pub(crate) batch: Option<usize>,
    pub(crate) overwrite: bool,
}

/// An input and the variants of it that are to be made.
type Pending<'a> = (&'a Input, Vec<usize>);

impl<P: Serialize + DeserializeOwned> Gallery<'_, P> {
    /// Makes what is not there yet.
    pub(crate) fn fill(&self) -> Result<Ended> {
        refusal::check_apart(self.out, self.input)?;
        refusal::check(self.out, self.plan, self.overwrite.into())?;
        sheet::check(self.out)?;
        listen();
        let mut outputs = Outputs::open(self.out, self.plan, self.overwrite)?;
        let (labels, side) = (self.maker.labels(), self.maker.side());
        let n = self.inputs.len();
        console::note(&format!(
            "{n} images of {side}x{side}, {}{}; writes {}",
            self.maker.name(),
            match labels.len() {
                1 => String::new(),
                n => format!(" with {n} strengths"),
            },
            self.out.display(),
        ));
        let mut failures = Failures::new("images");
        let Some(pending) = self.pending(&outputs, &mut failures) else {
            return self.interrupted(None);
        };
        let kept = n - pending.len() - failures.len();
        if kept > 0 {
            console::note(&format!("{kept} are complete and stay"));
        }
        let strays = self.strays(&outputs);
        if strays > 0 {
            console::note(&format!(
                "{strays} images in {} belong to no input any more, and stay",
                self.out.display()
            ));
        }
        let total: usize = pending.iter().map(|(_, needs)| needs.len()).sum();
        space::warn(self.out, (total * 3 * side * side) as u64);
        let before = (n - failures.len()) * labels.len() - total;
        let (ended, done) = self.make_pending(&mut outputs, &pending, total, &mut failures)?;
        if !ended {
            return self.interrupted(Some(before + done));
        }
        if labels.len() > 1 {
            self.mend_strips(&mut outputs, &mut failures)?;
        }
        console::line(format_args!("images   {}", self.out.display()))?;
        if let Some((path, shown)) = self.show()? {
            let share =
                sheet::share(shown, n).map_or(String::new(), |share| format!(" ({share} inputs)"));
            console::line(format_args!("grid     {}{share}", path.display()))?;
        }
        failures.conclude(n)?;
        Ok(Ended::Done {
            folders: labels.iter().map(|label| self.out.join(label)).collect(),
        })
    }

    /// The name of an input's image in a variant.
    fn name(&self, label: &str, input: &Input) -> String {
        match label {
            "" => input.name.clone(),
            label => format!("{label}/{}", input.name),
        }
    }

    /// What is to be made; none if the user asked for an end meanwhile.
    fn pending(&self, outputs: &Outputs, failures: &mut Failures) -> Option<Vec<Pending<'_>>> {
        let mut pending = Vec::new();
        for input in self.inputs {
            if STOP.load(Ordering::Relaxed) {
                return None;
            }
            let problem = input.problem.clone().or_else(|| name_problem(&input.name));
            if let Some(problem) = problem {
                failures.add(&input.id, problem);
                continue;
            }
            let needs = self.missing(outputs, input);
            if !needs.is_empty() {
                pending.push((input, needs));
            }
        }
        Some(pending)
    }

    /// The variants whose image of this input is not there, not whole, or made of another input.
    fn missing(&self, outputs: &Outputs, input: &Input) -> Vec<usize> {
        let labels = self.maker.labels();
        let names: Vec<String> = labels.iter().map(|label| self.name(label, input)).collect();
        let all = 0..names.len();
        if !names.iter().any(|name| outputs.knows(name)) {
            return all.collect();
        }
        // An input that cannot be read is found out when its turn comes.
        let hash = sdft_checkpoint::sha256_file(&input.path).unwrap_or_default();
        all.filter(|&v| !outputs.is_complete(&names[v], &hash))
            .collect()
    }

    /// How many images there are records of that no input stands for.
    fn strays(&self, outputs: &Outputs) -> usize {
        let labels = self.maker.labels();
        let names: HashSet<String> = labels
            .iter()
            .map(String::as_str)
            .chain(["strips"])
            .flat_map(|label| self.inputs.iter().map(move |input| self.name(label, input)))
            .collect();
        outputs
            .names()
            .filter(|name| !names.contains(*name))
            .count()
    }

    /// Makes all that is pending: false if the user asked for an end, and how many images are done.
    fn make_pending(
        &self,
        outputs: &mut Outputs,
        pending: &[Pending<'_>],
        total: usize,
        failures: &mut Failures,
    ) -> Result<(bool, usize)> {
        let (labels, side) = (self.maker.labels(), self.maker.side());
        let mut ticker = Ticker::new(&self.maker.name(), total);
        let mut done = 0;
        let at_once = self.batch.unwrap_or_else(|| usual_batch(side));
        let ended = inputs::load_ahead(pending, side, at_once, |batch| {
            let mut ready: Vec<(&Input, &[usize], Loaded)> = Vec::new();
            for (k, loaded) in batch {
                let (input, needs) = &pending[k];
                match loaded {
                    Ok(loaded) => ready.push((*input, needs, loaded)),
                    Err(problem) => {
                        done += needs.len();
                        ticker.note(&format!("{}: {problem}", input.id));
                        failures.add(&input.id, problem);
                    }
                }
            }
            for (variant, label) in labels.iter().enumerate() {
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
                    // None is left of what was.
                    outputs.forget(&self.name("strips", input))?;
                    let name = self.name(label, input);
                    if let Some(problem) = write(outputs, &name, &loaded.sha256, image)? {
                        ticker.note(&format!("{}: {problem}", input.id));
                        failures.add(&input.id, problem);
                    }
                }
                done += n;
            }
            if labels.len() > 1 {
                for (input, _, loaded) in &ready {
                    self.strip(outputs, input, &loaded.image, failures)?;
                }
            }
            ticker.tick(done as f64);
            Ok(true)
        })?;
        ticker.finish(done);
        Ok((ended, done))
    }

    fn interrupted(&self, there: Option<usize>) -> Result<Ended> {
        let how = if self.overwrite {
            " without --overwrite"
        } else {
            ""
        };
        let all = self.inputs.len() * self.maker.labels().len();
        let there = there.map_or(String::new(), |there| {
            format!("{there} of {all} images are there, ")
        });
        console::line(format_args!(
            "interrupted; {there}the same command{how} goes on from here"
        ))?;
        Ok(Ended::Interrupted)
    }

    /// The outputs of one input in the order of the variants, where all are there.
    fn made(&self, input: &Input) -> Option<Vec<Rgb8>> {
        let labels = self.maker.labels();
        labels
            .iter()
            .map(|label| {
                let path = self.out.join(self.name(label, input));
                decode_file(&path, &Limits::default()).ok()
            })
            .collect()
    }

    /// What stands over the columns of a strip or sheet.
    fn columns(&self) -> Vec<String> {
        let mut columns = vec!["input".to_owned()];
        columns.extend(self.maker.columns());
        columns
    }

    /// Makes the strips that an earlier command did not come to.
    fn mend_strips(&self, outputs: &mut Outputs, failures: &mut Failures) -> Result<()> {
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            let made_of = self.strip_of(outputs, input);
            if !outputs.is_complete(&self.name("strips", input), &made_of)
                && let Ok(loaded) = inputs::load(input, self.maker.side())
            {
                self.strip(outputs, input, &loaded.image, failures)?;
            }
        }
        Ok(())
    }

    /// What a strip is made of.
    fn strip_of(&self, outputs: &Outputs, input: &Input) -> String {
        let labels = self.maker.labels();
        outputs.hash_of(labels.iter().map(|label| self.name(label, input)))
    }

    /// An input next to what each variant made of it.
    fn strip(
        &self,
        outputs: &mut Outputs,
        input: &Input,
        image: &Rgb8,
        failures: &mut Failures,
    ) -> Result<()> {
        let Some(made) = self.made(input) else {
            return Ok(());
        };
        let all: Vec<Rgb8> = std::iter::once(image.clone()).chain(made).collect();
        let strip = contact_sheet(&all, all.len(), &self.columns(), &self.maker.title());
        let (name, made_of) = (self.name("strips", input), self.strip_of(outputs, input));
        if let Some(problem) = write(outputs, &name, &made_of, Ok(strip))? {
            failures.add(&input.id, problem);
        }
        Ok(())
    }

    /// Writes the contact sheet of the first inputs and what became of them; where, and how many inputs it shows.
    fn show(&self) -> Result<Option<(PathBuf, usize)>> {
        let mut pictures = Vec::new();
        let mut shown = 0;
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            if shown == SHOWN {
                break;
            }
            if let Some(made) = self.made(input)
                && let Ok(loaded) = inputs::load(input, self.maker.side())
            {
                pictures.push(loaded.image);
                pictures.extend(made);
                shown += 1;
            }
        }
        if pictures.is_empty() {
            return Ok(None);
        }
        let all = self.inputs.len();
        let share = sheet::share(shown, all).unwrap_or_else(|| all.to_string());
        let title = format!("{}: {share} inputs", self.maker.title());
        let columns = self.columns();
        let in_a_row = columns.len() * (WIDE / columns.len()).max(1);
        let picture = contact_sheet(&pictures, in_a_row, &columns, &title);
        Ok(Some((sheet::write(self.out, &picture)?, shown)))
    }
}

/// Writes an image, or says why there is none of it; what would meet every other image as well is an error.
pub(crate) fn write(
    outputs: &mut Outputs,
    name: &str,
    made_of: &str,
    image: Result<Rgb8, ImagingError>,
) -> Result<Option<String>> {
    let image = match image {
        Ok(image) => image,
        Err(problem) => return Ok(Some(format!("{name}: {problem}"))),
    };
    match outputs.put(name, made_of, &encode_png(&image)?) {
        Ok(()) => Ok(None),
        Err(error) if ends_everything(&error) => Err(error),
        Err(error) => Ok(Some(format!("{error:#}"))),
    }
}

/// So many pixels that a larger batch is not faster, and that EGSDE's backward pass through a classifier of 256x256 needs about 5 GB.
pub(crate) fn usual_batch(side: usize) -> usize {
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
