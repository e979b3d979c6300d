//! `translate`: files or folders of images -> a folder of images under the same names.

mod example;
mod nets;
mod plan;

pub(crate) use example::sources;
pub(crate) use nets::Translator;
pub(crate) use plan::{TranslatePlan, Variant};

use crate::args::{TranslateArgs, TranslatorArg, WalkArg};
use crate::device::Stage;
use crate::gallery::{Ended, Gallery, Made, Maker, full_path, go_on, inputs};
use crate::model::model_file;
use crate::sample::{check_seed, unconditional};
use crate::train::load_model;
use crate::{console, usage};
use anyhow::Result;
use candle_core::{Device, Tensor};
use sdft_adm::Origin;
use sdft_imaging::{Limits, Rgb8, center_crop, decode_file};
use sdft_models::{LoadOptions, LoadedEncoder, LoadedModel, load_encoder};
use sdft_randn::NumberedNoise;
use sdft_train::{Precision, to_pictures, to_tensor};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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

fn run(args: &TranslateArgs, request: &Request) -> Result<Ended> {
    let method = request.method;
    plan::refuse_unused(args, method)?;
    check_seed(args.seed)?;
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
    let plan = TranslatePlan {
        method,
        input: full_path(&request.input.display().to_string()),
        image_size: model.config.image_size,
        seed: (method != TranslatorArg::Ddib).then_some(args.seed),
        model: full_path(&model_name),
        network_sha256: model.network_sha256()?,
        source_model: source.as_ref().map(|(name, _)| full_path(name)),
        source_model_sha256: source.as_ref().map(|(_, m)| m.sha256.clone()),
        classifier: classifier.as_ref().map(|(name, _)| full_path(name)),
        classifier_sha256: classifier.as_ref().map(|(_, c)| c.sha256.clone()),
        mask: args
            .mask
            .as_ref()
            .map(|p| full_path(&p.display().to_string())),
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
        precision: Stage::precision(Precision::F32)?,
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
    let gallery = Gallery {
        input: &request.input,
        inputs: &inputs,
        out: &args.out,
        plan: &plan,
        maker: &Translation {
            plan: &plan,
            translator: &translator,
        },
        batch: args.batch,
        overwrite: args.overwrite,
    };
    gallery.fill()
}

/// For a network used together with `model`, whose file may not say its process.
fn beside(model: &LoadedModel) -> LoadOptions {
    LoadOptions {
        process_otherwise: Some(model.process.clone()),
        ..LoadOptions::default()
    }
}

/// As [`beside`], for a file that does not say how large its images are either.
fn beside_of_size(model: &LoadedModel) -> LoadOptions {
    let size = model.config.image_size.into();
    LoadOptions {
        given: serde_json::Map::from_iter([("image_size".to_owned(), size)]),
        ..beside(model)
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
    let mut source = load_model(&name, &beside(model))?;
    if source.origins.get("image_size") == Some(&Origin::Assumed) {
        source = load_model(&name, &beside_of_size(model))?;
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
    if !source.process.same_noise(&model.process) {
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
    let mut classifier = load_encoder(Path::new(&name), &beside(model))?;
    if classifier.origins.get("image_size") == Some(&Origin::Assumed) {
        classifier = load_encoder(Path::new(&name), &beside_of_size(model))?;
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
    if !classifier.process.same_noise(&model.process) {
        return Err(usage(format!(
            "--classifier {name}: it knows noise of {:?}, the model of {:?}",
            classifier.process, model.process
        )));
    }
    Ok(Some((name, classifier)))
}

/// `[1, 1, side, side]`, 1 where the picture is light.
fn read_mask(path: &Path, side: usize) -> Result<Tensor> {
    let picture = center_crop(&decode_file(path, &Limits::from_env()?)?, side);
    let light = |p: &[u8]| p.iter().map(|&v| u32::from(v)).sum::<u32>() > 3 * 127;
    let data: Vec<f32> = picture
        .pixels
        .chunks_exact(3)
        .map(|p| f32::from(u8::from(light(p))))
        .collect();
    Ok(Tensor::from_vec(data, (1, 1, side, side), &Device::Cpu)?)
}

/// A plan and its networks.
struct Translation<'a> {
    plan: &'a TranslatePlan,
    translator: &'a Translator,
}

impl Maker for Translation<'_> {
    fn name(&self) -> String {
        nets::name(self.plan.method)
    }

    fn side(&self) -> usize {
        self.plan.image_size
    }

    fn labels(&self) -> Vec<String> {
        let variants = self.plan.variants.iter();
        variants.map(|variant| variant.label.clone()).collect()
    }

    fn columns(&self) -> Vec<String> {
        match &self.plan.variants[..] {
            [Variant { t0: Some(t0), .. }] => vec![format!("t0={t0}")],
            [_] => vec![nets::name(self.plan.method)],
            _ => self.labels(),
        }
    }

    fn title(&self) -> String {
        nets::name(self.plan.method)
    }

    fn make(
        &self,
        variant: usize,
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Made> {
        if self.translator.is_identity(variant) {
            return Ok(images.iter().cloned().map(Ok).collect());
        }
        let x0 = to_tensor(images)?.to_device(self.translator.device())?;
        let mut noise = NumberedNoise::new(self.plan.seed.unwrap_or_default(), numbers);
        let out = self.translator.run(variant, &x0, &mut noise, &mut |step| {
            go_on()?;
            progress(step.done as f64 / step.total as f64);
            Ok(())
        })?;
        Ok(to_pictures(&out)?)
    }
}
