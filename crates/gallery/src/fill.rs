//! Folders of images made of other images, under the same names: complete ones stay, missing ones are made.

use crate::error::{Error, Result};
use crate::failures::Failures;
use crate::inputs::{Input, Loaded, load_ahead, reading};
use crate::outputs::{Outputs, check_name};
use crate::refusal::{check_apart, check_folder};
use crate::sheet::{check_sheet, shown_of, write_sheet};
use crate::space::space_warning;
use sdft_files::{plural, sha256_file};
use sdft_imaging::{Image, ImageSpec, ImagingError, Rgb8, contact_sheet};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Inputs in the contact sheet.
const SHOWN: usize = 32;
/// Pictures in a row of it.
const WIDE: usize = 8;

/// The name of the folder of strips.
const STRIPS: &str = "strips";

/// Progress while a folder is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// Everything was checked; writing begins.
    Started,
    /// A line for the user.
    Note(&'a str),
    /// Progress; partly made images count as fractions.
    Images {
        /// Images that are done.
        done: f64,
        /// Images to make.
        total: usize,
    },
}

/// How filling a folder ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every image was made, apart from those that failed.
    Done(Filled),
    /// Stopped; the same call continues from here.
    Interrupted {
        /// Number of complete images, if known.
        complete: Option<usize>,
        /// Number of all images.
        all: usize,
    },
}

/// A folder that is filled.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The folder of each variant's images.
    pub folders: Vec<PathBuf>,
    /// The contact sheet and how many inputs it shows, if any image could be made.
    pub sheet: Option<(PathBuf, usize)>,
    /// Number of inputs.
    pub inputs: usize,
    /// The inputs that failed.
    pub failures: Failures,
}

impl Filled {
    /// Fails if an input failed.
    ///
    /// # Errors
    /// The list of inputs that failed.
    pub fn check(&self) -> Result<()> {
        self.failures.check(self.inputs)
    }
}

/// One image for each input of a batch, or the reason why there is none.
pub type Made = Vec<std::result::Result<Image, ImagingError>>;

/// Makes images of images, in one or several variants.
pub trait Maker {
    /// The method, as in `sdedit`.
    fn name(&self) -> String;
    /// The form of the images, made and given.
    fn spec(&self) -> ImageSpec;
    /// The folder of each variant; empty where there is only one.
    fn labels(&self) -> Vec<String>;
    /// The heading of each variant's column in a sheet.
    fn columns(&self) -> Vec<String>;
    /// The title of a sheet.
    fn title(&self) -> String;
    /// Makes a batch of one variant's images. `numbers` are those of the inputs; `progress` is called with the share that is done.
    ///
    /// # Errors
    /// Any error ends the run. An error after a stop request is ignored.
    fn make(
        &self,
        variant: usize,
        images: &[Image],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> std::result::Result<Made, Box<dyn std::error::Error + Send + Sync>>;
}

/// A folder of images to be made of a folder of images. `P` holds the settings that decide them, and is written to `plan.toml`.
pub struct Gallery<'a, P> {
    /// The file or folder of the inputs.
    pub input: &'a Path,
    /// The inputs.
    pub inputs: &'a [Input],
    /// The folder of the outputs.
    pub out: &'a Path,
    /// The settings that decide the outputs.
    pub plan: &'a P,
    /// Makes the images.
    pub maker: &'a dyn Maker,
    /// Images per batch; [`usual_batch`] if `None`.
    pub batch: Option<usize>,
    /// Whether files of other plans are replaced.
    pub overwrite: bool,
}

/// An input and the variants of it that are to be made.
type Pending<'a> = (&'a Input, Vec<usize>);

/// The caller of [`Gallery::fill`].
struct Caller<'a> {
    stop: &'a AtomicBool,
    events: &'a mut dyn FnMut(Event<'_>),
}

impl Caller<'_> {
    fn note(&mut self, text: &str) {
        (self.events)(Event::Note(text));
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl<P: Serialize + DeserializeOwned> Gallery<'_, P> {
    /// Makes the images that are missing or out of date, until `stop` is set.
    ///
    /// # Errors
    /// The folder is refused, the maker fails, or a file system error occurs. Inputs that fail are in the result.
    pub fn fill(&self, stop: &AtomicBool, events: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        check_apart(self.out, self.input)?;
        check_folder(self.out, self.plan, self.overwrite)?;
        check_sheet(self.out)?;
        let mut caller = Caller { stop, events };
        (caller.events)(Event::Started);
        let mut outputs = Outputs::open(self.out, self.plan, self.overwrite)?;
        let (labels, spec) = (self.maker.labels(), self.maker.spec());
        let n = self.inputs.len();
        caller.note(&format!(
            "{} of {spec}, {}{}; writes {}",
            plural(n, "image", "images"),
            self.maker.name(),
            match labels.len() {
                1 => String::new(),
                n => format!(" with {n} strengths"),
            },
            self.out.display(),
        ));
        let mut failures = Failures::new("images");
        let all = n * labels.len();
        let Some(pending) = self.pending(&outputs, &caller, &mut failures) else {
            return Ok(Outcome::Interrupted {
                complete: None,
                all,
            });
        };
        let kept = n - pending.len() - failures.len();
        if kept > 0 {
            caller.note(&format!("{kept} are complete and stay"));
        }
        let strays = self.strays(&outputs);
        if strays > 0 {
            caller.note(&format!(
                "{}: {} without an input stay",
                self.out.display(),
                plural(strays, "image", "images")
            ));
        }
        let total: usize = pending.iter().map(|(_, needs)| needs.len()).sum();
        if let Some(warning) =
            space_warning(self.out, (total * spec.len() * spec.depth.bytes()) as u64)
        {
            caller.note(&warning);
        }
        let before = (n - failures.len()) * labels.len() - total;
        let (ended, done) =
            self.make_pending(&mut outputs, &pending, total, &mut caller, &mut failures)?;
        if !ended {
            return Ok(Outcome::Interrupted {
                complete: Some(before + done),
                all,
            });
        }
        if labels.len() > 1 {
            self.mend_strips(&mut outputs, &mut failures)?;
        }
        Ok(Outcome::Done(Filled {
            folders: labels.iter().map(|label| self.out.join(label)).collect(),
            sheet: self.write_sheet()?,
            inputs: n,
            failures,
        }))
    }

    /// The name of an input's image in a variant.
    fn name(&self, label: &str, input: &Input) -> String {
        match label {
            "" => input.name.clone(),
            label => format!("{label}/{}", input.name),
        }
    }

    /// The inputs with missing variants; `None` if the caller stops.
    fn pending(
        &self,
        outputs: &Outputs,
        caller: &Caller<'_>,
        failures: &mut Failures,
    ) -> Option<Vec<Pending<'_>>> {
        let mut pending = Vec::new();
        for input in self.inputs {
            if caller.is_stopped() {
                return None;
            }
            let too_long = || check_name(&input.name).err().map(|e| e.to_string());
            if let Some(problem) = input.problem.clone().or_else(too_long) {
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

    /// The variants whose image of this input is missing, damaged, or made of another input.
    fn missing(&self, outputs: &Outputs, input: &Input) -> Vec<usize> {
        let labels = self.maker.labels();
        let names: Vec<String> = labels.iter().map(|label| self.name(label, input)).collect();
        let all = 0..names.len();
        if !names.iter().any(|name| outputs.knows(name)) {
            return all.collect();
        }
        // An input that cannot be read fails when it is loaded.
        let hash = sha256_file(&input.path).unwrap_or_default();
        all.filter(|&v| !outputs.is_complete(&names[v], &hash))
            .collect()
    }

    /// Number of images in the journal that no input corresponds to.
    fn strays(&self, outputs: &Outputs) -> usize {
        let labels = self.maker.labels();
        let names: HashSet<String> = labels
            .iter()
            .flat_map(|label| self.inputs.iter().map(|input| self.name(label, input)))
            .chain(self.inputs.iter().map(strip_name))
            .collect();
        outputs
            .names()
            .filter(|name| !names.contains(*name))
            .count()
    }

    /// Makes everything pending. Returns false if the caller stops, and the number of images that are done.
    fn make_pending(
        &self,
        outputs: &mut Outputs,
        pending: &[Pending<'_>],
        total: usize,
        caller: &mut Caller<'_>,
        failures: &mut Failures,
    ) -> Result<(bool, usize)> {
        let (labels, spec) = (self.maker.labels(), self.maker.spec());
        let mut done = 0;
        (caller.events)(Event::Images { done: 0.0, total });
        let at_once = self.batch.unwrap_or_else(|| usual_batch(&spec));
        let (ended, changes) = load_ahead(pending, &spec, at_once, |batch| {
            let mut ready: Vec<(&Input, &[usize], Loaded)> = Vec::new();
            for (k, loaded) in batch {
                let (input, needs) = &pending[k];
                match loaded {
                    Ok(loaded) => ready.push((*input, needs, loaded)),
                    Err(problem) => {
                        done += needs.len();
                        caller.note(&format!("{}: {problem}", input.id));
                        failures.add(&input.id, problem.to_string());
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
                let images: Vec<Image> = these.iter().map(|(_, _, l)| l.image.clone()).collect();
                let numbers = these.iter().map(|(input, ..)| input.number).collect();
                let n = these.len();
                let made = self.maker.make(variant, &images, numbers, &mut |share| {
                    let done = done as f64 + n as f64 * share;
                    (caller.events)(Event::Images { done, total });
                });
                if caller.is_stopped() {
                    return Ok(false);
                }
                for ((input, _, loaded), image) in these.iter().zip(made.map_err(Error::Maker)?) {
                    // A strip of the old images is out of date.
                    outputs.forget(&strip_name(input))?;
                    let name = self.name(label, input);
                    if let Some(problem) = outputs.put_image(&name, &loaded.sha256, &spec, image)? {
                        caller.note(&format!("{}: {problem}", input.id));
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
            let done = done as f64;
            (caller.events)(Event::Images { done, total });
            Ok(true)
        })?;
        for note in changes.notes() {
            caller.note(&note);
        }
        Ok((ended, done))
    }

    /// The outputs of one input in the order of the variants, if all exist.
    fn made(&self, input: &Input) -> Option<Vec<Rgb8>> {
        let (labels, spec) = (self.maker.labels(), self.maker.spec());
        labels
            .iter()
            .map(|label| {
                let path = self.out.join(self.name(label, input));
                let decoded = reading(&spec).decode_file(&path, 0).ok()?;
                Some(spec.screen(&decoded.image))
            })
            .collect()
    }

    /// The headings of a strip or sheet.
    fn columns(&self) -> Vec<String> {
        let mut columns = vec!["input".to_owned()];
        columns.extend(self.maker.columns());
        columns
    }

    /// Makes the strips that an interrupted run left out.
    fn mend_strips(&self, outputs: &mut Outputs, failures: &mut Failures) -> Result<()> {
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            let made_of = self.strip_of(outputs, input);
            if !outputs.is_complete(&strip_name(input), &made_of)
                && let Ok(loaded) = input.load(&self.maker.spec())
            {
                self.strip(outputs, input, &loaded.image, failures)?;
            }
        }
        Ok(())
    }

    /// The hash of the images in a strip.
    fn strip_of(&self, outputs: &Outputs, input: &Input) -> String {
        let labels = self.maker.labels();
        outputs.hash_of(labels.iter().map(|label| self.name(label, input)))
    }

    /// An input next to what each variant made of it.
    fn strip(
        &self,
        outputs: &mut Outputs,
        input: &Input,
        image: &Image,
        failures: &mut Failures,
    ) -> Result<()> {
        let Some(made) = self.made(input) else {
            return Ok(());
        };
        let all: Vec<Rgb8> = std::iter::once(self.maker.spec().screen(image))
            .chain(made)
            .collect();
        let strip = contact_sheet(&all, all.len(), &self.columns(), &self.maker.title());
        let (name, made_of) = (strip_name(input), self.strip_of(outputs, input));
        let spec = ImageSpec::rgb8(strip.width, strip.height);
        if let Some(problem) = outputs.put_image(&name, &made_of, &spec, Ok(strip.into()))? {
            failures.add(&input.id, problem);
        }
        Ok(())
    }

    /// Writes the contact sheet of the first inputs and their outputs. Returns its path and how many inputs it shows.
    fn write_sheet(&self) -> Result<Option<(PathBuf, usize)>> {
        let mut pictures = Vec::new();
        let mut shown = 0;
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            if shown == SHOWN {
                break;
            }
            if let Some(made) = self.made(input)
                && let Ok(loaded) = input.load(&self.maker.spec())
            {
                pictures.push(self.maker.spec().screen(&loaded.image));
                pictures.extend(made);
                shown += 1;
            }
        }
        if pictures.is_empty() {
            return Ok(None);
        }
        let all = self.inputs.len();
        let share = shown_of(shown, all).unwrap_or_else(|| all.to_string());
        let title = format!("{}: {share} inputs", self.maker.title());
        let columns = self.columns();
        let in_a_row = columns.len() * (WIDE / columns.len()).max(1);
        let picture = contact_sheet(&pictures, in_a_row, &columns, &title);
        Ok(Some((write_sheet(self.out, &picture)?, shown)))
    }
}

/// The name of an input's strip, a PNG whatever the form of the images.
fn strip_name(input: &Input) -> String {
    let stem = input.name.rsplit_once('.').map_or("", |(stem, _)| stem);
    format!("{STRIPS}/{stem}.png")
}

/// Images per batch for this form: more are not faster, and EGSDE's backward pass through a classifier of 256x256 then needs about 5 GB.
pub fn usual_batch(spec: &ImageSpec) -> usize {
    (4 * 256 * 256 / (spec.height * spec.width).max(1)).clamp(1, 64)
}

/// The canonical form of a path, as plans record it; a name that is not a path is returned unchanged.
pub fn full_path(name: &str) -> String {
    match Path::new(name).canonicalize() {
        Ok(path) => path.display().to_string(),
        Err(_) => name.to_owned(),
    }
}
