//! `translate`: files or folders of images -> a folder of images under the same names.

mod example;
mod inputs;
mod nets;
mod outputs;
mod plan;

pub(crate) use example::sources;
pub(crate) use nets::Translator;
pub(crate) use plan::{TranslatePlan, Variant};

use crate::args::{TranslateArgs, TranslatorArg, WalkArg};
use crate::console::{self, Ticker};
use crate::runs::{STOP, listen};
use crate::sample::{model_file, sheet_beside};
use crate::train::load_model;
use crate::{INTERRUPTED, usage};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use inputs::Input;
use outputs::Outputs;
use sdft_adm::Origin;
use sdft_imaging::{Limits, Rgb8, center_crop, decode_file, encode_png, write_png};
use sdft_models::{LoadOptions, LoadedEncoder, LoadedModel, load_encoder};
use sdft_samplers::NumberedNoise;
use sdft_train::{sheet, to_images, to_tensor};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Inputs in the contact sheet.
const SHOWN: usize = 32;
/// Pictures in a row of it.
const WIDE: usize = 8;

pub(crate) fn translate(args: &TranslateArgs) -> Result<ExitCode> {
    match (&args.model, &args.input) {
        (Some(model), Some(input)) => {
            let method = args.method.unwrap_or(TranslatorArg::Sdedit);
            let request = Request {
                method,
                model: model.clone(),
                input: input.clone(),
                classifier: args.classifier.clone(),
                source_model: args.source_model.clone(),
            };
            Ok(run(args, &request)?.code())
        }
        _ => example::example(args),
    }
}

/// What is translated, by what.
struct Request {
    method: TranslatorArg,
    model: String,
    input: PathBuf,
    classifier: Option<String>,
    source_model: Option<String>,
}

/// How a translation ended.
enum Ended {
    /// Each variant's folder holds its images.
    Done {
        folders: Vec<PathBuf>,
    },
    Interrupted,
}

impl Ended {
    fn code(&self) -> ExitCode {
        match self {
            Self::Done { .. } => ExitCode::SUCCESS,
            Self::Interrupted => ExitCode::from(INTERRUPTED),
        }
    }
}

fn run(args: &TranslateArgs, request: &Request) -> Result<Ended> {
    let method = request.method;
    plan::refuse_unused(args, method)?;
    let model_name = model_file(&request.model)?;
    let options = args.file.options()?;
    let model = load_model(&model_name, &options)?;
    for note in &model.notes {
        console::note(note);
    }
    unconditional(&model_name, &model)?;
    let inputs = inputs::list(&request.input)?;
    let source = source_model(request, &model)?;
    let classifier = classifier(request, &model_name, &model)?;
    let mask = match &args.mask {
        None => None,
        Some(path) => Some(read_mask(path, model.config.image_size)?),
    };
    let hash = |path: Option<&PathBuf>| path.map(|p| sdft_checkpoint::sha256_file(p)).transpose();
    let walks = matches!(method, TranslatorArg::Sdedit | TranslatorArg::Egsde);
    let ancestral = walks && args.walk == WalkArg::Ancestral;
    let led = method == TranslatorArg::Egsde;
    let default_steps = match method {
        TranslatorArg::Ilvr => "100",
        _ => "ddim40",
    };
    let full = |name: &str| match Path::new(name).canonicalize() {
        Ok(path) => path.display().to_string(),
        Err(_) => name.to_owned(),
    };
    let plan = TranslatePlan {
        method,
        input: full(&request.input.display().to_string()),
        image_size: model.config.image_size,
        seed: args.seed,
        model: full(&model_name),
        model_sha256: model.sha256.clone(),
        source_model: source.as_ref().map(|(name, _)| full(name)),
        source_model_sha256: source.as_ref().map(|(_, m)| m.sha256.clone()),
        classifier: classifier.as_ref().map(|(name, _)| full(name)),
        classifier_sha256: classifier.as_ref().map(|(_, c)| c.sha256.clone()),
        mask: args.mask.as_ref().map(|p| full(&p.display().to_string())),
        mask_sha256: hash(args.mask.as_ref())?,
        steps: (!ancestral).then(|| {
            args.steps
                .clone()
                .unwrap_or_else(|| default_steps.to_owned())
        }),
        walk: walks.then_some(args.walk),
        eta: (walks && !ancestral).then_some(args.eta),
        clip: (!ancestral).then_some(!args.no_clip),
        specific: led.then_some(args.specific),
        independent: led.then_some(args.independent),
        free: (method == TranslatorArg::Ilvr).then_some(args.free),
        variants: plan::variants(args, method, model.config.image_size)?,
        process: model.process.clone(),
    };
    let translator = Translator::new(
        &plan,
        &model,
        source.as_ref().map(|(_, m)| m),
        classifier.as_ref().map(|(_, c)| c),
        mask,
    )?;
    drop((model, source, classifier));
    outputs::check(&args.out, &request.input, &plan, args.overwrite)?;
    let job = Job {
        args,
        plan: &plan,
        translator: &translator,
        inputs: &inputs,
    };
    job.start()
}

fn unconditional(name: &str, model: &LoadedModel) -> Result<()> {
    let config = &model.config;
    if config.num_classes != 0 {
        return Err(usage(format!(
            "{name}: expected an unconditional model, found one of {} classes",
            config.num_classes
        )));
    }
    if config.in_channels != 3 || ![3, 6].contains(&config.out_channels) {
        return Err(usage(format!(
            "{name}: expected a model from 3 channels to 3 or 6, found {} to {}",
            config.in_channels, config.out_channels
        )));
    }
    Ok(())
}

/// For files that do not say how large their images are.
fn of_size(image_size: usize) -> LoadOptions {
    LoadOptions {
        given: serde_json::Map::from_iter([("image_size".to_owned(), image_size.into())]),
        ..LoadOptions::default()
    }
}

/// DDIB's first model.
fn source_model(request: &Request, model: &LoadedModel) -> Result<Option<(String, LoadedModel)>> {
    if request.method != TranslatorArg::Ddib {
        return Ok(None);
    }
    let Some(name) = &request.source_model else {
        return Err(usage(
            "--method ddib goes through two models; give --source-model FILE, the model of the inputs' domain",
        ));
    };
    let name = model_file(name)?;
    let mut source = load_model(&name, &LoadOptions::default())?;
    if source.origins.get("image_size") == Some(&Origin::Assumed) {
        source = load_model(&name, &of_size(model.config.image_size))?;
    }
    for note in &source.notes {
        console::note(note);
    }
    unconditional(&name, &source)?;
    let sizes = (source.config.image_size, model.config.image_size);
    if sizes.0 != sizes.1 {
        return Err(usage(format!(
            "--source-model {name}: makes images of {0}x{0}, the target model of {1}x{1}",
            sizes.0, sizes.1
        )));
    }
    if source.process != model.process {
        return Err(usage(format!(
            "--source-model {name}: both models need the same noise schedule, found {:?} and {:?}",
            source.process, model.process
        )));
    }
    Ok(Some((name, source)))
}

/// EGSDE's classifier.
fn classifier(
    request: &Request,
    model_name: &str,
    model: &LoadedModel,
) -> Result<Option<(String, LoadedEncoder)>> {
    if request.method != TranslatorArg::Egsde {
        return Ok(None);
    }
    let Some(name) = &request.classifier else {
        return Err(usage(format!(
            "--method egsde needs a classifier of noised images; train one with\n  cargo xtask train-classifier --model {model_name} --source DIR --target DIR\nand give --classifier runs/classifier"
        )));
    };
    let name = model_file(name)?;
    let mut classifier = load_encoder(Path::new(&name), &LoadOptions::default())?;
    if classifier.origins.get("image_size") == Some(&Origin::Assumed) {
        classifier = load_encoder(Path::new(&name), &of_size(model.config.image_size))?;
    }
    for note in &classifier.notes {
        console::note(note);
    }
    let (found, expected) = (classifier.config.net.image_size, model.config.image_size);
    if found != expected {
        return Err(usage(format!(
            "--classifier {name}: made for images of {found}x{found}, the model makes {expected}x{expected}"
        )));
    }
    if classifier.config.net.in_channels != 3 {
        return Err(usage(format!(
            "--classifier {name}: images have 3 channels, the classifier takes {}",
            classifier.config.net.in_channels
        )));
    }
    if classifier.process != model.process {
        return Err(usage(format!(
            "--classifier {name}: it knows noise of {:?}, the model of {:?}",
            classifier.process, model.process
        )));
    }
    Ok(Some((name, classifier)))
}

/// `[1, 1, side, side]`, 1 where the picture is light.
fn read_mask(path: &Path, side: usize) -> Result<Tensor> {
    let picture = center_crop(&decode_file(path, &Limits::default())?, side);
    let light = |p: &[u8]| p.iter().map(|&v| u32::from(v)).sum::<u32>() > 3 * 127;
    let data: Vec<f32> = picture
        .pixels
        .chunks_exact(3)
        .map(|p| f32::from(u8::from(light(p))))
        .collect();
    Ok(Tensor::from_vec(data, (1, 1, side, side), &Device::Cpu)?)
}

/// Everything that is needed to go through the images.
struct Job<'a> {
    args: &'a TranslateArgs,
    plan: &'a TranslatePlan,
    translator: &'a Translator,
    inputs: &'a [Input],
}

impl Job<'_> {
    fn folder(&self, variant: &Variant) -> PathBuf {
        match variant.label.as_str() {
            "" => self.args.out.clone(),
            label => self.args.out.join(label),
        }
    }

    fn start(&self) -> Result<Ended> {
        listen();
        let _lock = outputs::lock(&self.args.out)?;
        let (variants, overwrite) = (&self.plan.variants, self.args.overwrite);
        if !overwrite {
            outputs::write_plan(&self.args.out, self.plan)?;
        }
        let mut outputs = variants
            .iter()
            .map(|v| Outputs::open(&self.folder(v), overwrite))
            .collect::<Result<Vec<_>>>()?;
        if overwrite {
            outputs::write_plan(&self.args.out, self.plan)?;
        }
        console::note(&format!(
            "{} images of {}x{}, {}{}; writes {}",
            self.inputs.len(),
            self.plan.image_size,
            self.plan.image_size,
            nets::name(self.plan.method),
            match variants.len() {
                1 => String::new(),
                n => format!(" with {n} strengths"),
            },
            self.args.out.display(),
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
                self.args.out.display()
            ));
        }
        let total: usize = pending.iter().map(|(_, needs)| needs.len()).sum();
        let mut ticker = Ticker::new(&nets::name(self.plan.method), total);
        let mut done = 0;
        let side = self.plan.image_size;
        let at_once = self.args.batch.unwrap_or_else(|| usual_batch(side));
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
                let made = self.make(variant, &images, numbers, &mut |share| {
                    ticker.tick(done as f64 + n as f64 * share);
                });
                if STOP.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                for ((input, _, loaded), image) in these.iter().zip(made?) {
                    outputs.write(&input.name, &loaded.sha256, &encode_png(&image)?)?;
                }
                done += n;
            }
            if variants.len() > 1 {
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
        if variants.len() > 1 {
            self.mend_strips(&outputs)?;
        }
        console::line(format_args!("images   {}", self.args.out.display()))?;
        if let Some(path) = self.show(&outputs)? {
            console::line(format_args!("grid     {}", path.display()))?;
        }
        if failures.is_empty() {
            return Ok(Ended::Done {
                folders: variants.iter().map(|v| self.folder(v)).collect(),
            });
        }
        let list: Vec<String> = failures
            .iter()
            .map(|(id, why)| format!("  {id}: {why}"))
            .collect();
        bail!(
            "{} of {} images could not be translated, the others are done:\n{}",
            failures.len(),
            self.inputs.len(),
            list.join("\n")
        )
    }

    fn interrupted(&self) -> Result<Ended> {
        let how = if self.args.overwrite {
            " without --overwrite"
        } else {
            ""
        };
        console::line(format_args!(
            "interrupted; the same command{how} goes on from here"
        ))?;
        Ok(Ended::Interrupted)
    }

    /// Translates a batch by one variant; `progress` hears the share that is done.
    fn make(
        &self,
        variant: usize,
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Rgb8>> {
        if self.translator.is_identity(variant) {
            return Ok(images.to_vec());
        }
        let x0 = to_tensor(images)?;
        let mut noise = NumberedNoise::new(self.plan.seed, numbers);
        let out = self.translator.run(variant, &x0, &mut noise, &mut |step| {
            go_on()?;
            progress(step.done as f64 / step.total as f64);
            Ok(())
        })?;
        Ok(to_images(&out)?)
    }

    /// Makes the strips that an earlier command did not come to.
    fn mend_strips(&self, outputs: &[Outputs]) -> Result<()> {
        for input in self.inputs.iter().filter(|input| input.problem.is_none()) {
            if !self.args.out.join("strips").join(&input.name).is_file()
                && let Ok(loaded) = inputs::load(input, self.plan.image_size)
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
        let path = self.args.out.join("strips").join(&input.name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        let all: Vec<Rgb8> = std::iter::once(image.clone()).chain(made).collect();
        write_png(&path, &sheet(&all, all.len(), &self.title()))?;
        Ok(())
    }

    fn title(&self) -> String {
        let labels: Vec<String> = match &self.plan.variants[..] {
            [one] => vec![match one.t0 {
                Some(t0) => format!("{} t0={t0}", nets::name(self.plan.method)),
                None => nets::name(self.plan.method),
            }],
            all => all.iter().map(|v| v.label.clone()).collect(),
        };
        format!("input / {}", labels.join(" / "))
    }

    /// Writes the contact sheet of the first inputs and what became of them.
    fn show(&self, outputs: &[Outputs]) -> Result<Option<PathBuf>> {
        let mut pictures = Vec::new();
        let good = self.inputs.iter().filter(|input| input.problem.is_none());
        for input in good.take(SHOWN) {
            let Ok(loaded) = inputs::load(input, self.plan.image_size) else {
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
        let path = sheet_beside(&self.args.out);
        write_png(&path, &sheet(&pictures, columns, &self.title()))?;
        Ok(Some(path))
    }
}

/// So many pixels that a larger batch is not faster, and that EGSDE's backward pass through a classifier of 256x256 needs about 5 GB.
fn usual_batch(side: usize) -> usize {
    (4 * 256 * 256 / (side * side).max(1)).clamp(1, 64)
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
