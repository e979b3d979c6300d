//! Images of a folder, brought into a model's domain.

mod nets;
mod options;
mod plan;

pub use nets::{TranslationModels, Translator};
pub use options::{EnergyKind, TranslateOptions, TranslationMethod, WalkKind};
pub use plan::{TranslatePlan, Variant};

use crate::context::{Context, check_stop};
use crate::data::list_inputs;
use crate::error::{Result, ResultExt, option};
use crate::model::{ModelFile, check_unconditional, load_model};
use candle_core::{Device, Tensor};
use sdft_adm::Origin;
use sdft_gallery::{Gallery, Made, Maker, Outcome, full_path};
use sdft_imaging::{ImageSpec, Limits, Rgb8, center_crop, decode_file};
use sdft_models::{LoadOptions, LoadedEncoder, LoadedModel, load_encoder};
use sdft_randn::NumberedNoise;
use sdft_train::{Precision, to_pictures, to_tensor};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Translates the images of a file or folder into another folder, under the same names. Complete images of the same settings stay, so that
/// a stopped job continues.
///
/// # Errors
/// An option does not fit the models, the folder holds something else, or a network fails. Inputs that fail are in the result.
pub fn translate_folder(options: &TranslateOptions, context: &mut Context<'_>) -> Result<Outcome> {
    let method = options.method;
    options.check()?;
    let model_name = ModelFile::find(&options.model)?.noted(context);
    let model = load_model(&model_name, &options.load)?;
    context.notes(&model.notes);
    check_unconditional(&model_name, &model)?;
    let inputs = list_inputs(&options.input, context)?;
    let source = source_model(options, &model, context)?;
    let classifier = classifier(options, &model_name, &model, context)?;
    let mask = match options.mask.as_ref() {
        Some(path) if method == TranslationMethod::Sdedit => {
            let mask = read_mask(path, model.architecture.image_size())?;
            let hash = sdft_files::sha256_file(path).context(path.display())?;
            Some((path, mask, hash))
        }
        _ => None,
    };
    let walks = method.is_walk();
    let ancestral = walks && options.walk == WalkKind::Ancestral;
    let guided = method == TranslationMethod::Egsde;
    let default_steps = match method {
        TranslationMethod::Ilvr => "100",
        _ => "ddim40",
    };
    let steps = options.steps.as_deref().unwrap_or(default_steps);
    let plan = TranslatePlan {
        method,
        input: full_path(&options.input.display().to_string()),
        image_size: model.architecture.image_size(),
        seed: (method != TranslationMethod::Ddib).then_some(options.seed),
        model: full_path(&model_name),
        network_sha256: model.network_sha256()?,
        source_model: source.as_ref().map(|(name, _)| full_path(name)),
        source_model_sha256: source.as_ref().map(|(_, m)| m.sha256.clone()),
        classifier: classifier.as_ref().map(|(name, _)| full_path(name)),
        classifier_sha256: classifier.as_ref().map(|(_, c)| c.sha256.clone()),
        mask: mask
            .as_ref()
            .map(|(path, ..)| full_path(&path.display().to_string())),
        mask_sha256: mask.as_ref().map(|(.., hash)| hash.clone()),
        steps: (!ancestral).then(|| steps.to_owned()),
        walk: walks.then_some(options.walk),
        eta: (walks && !ancestral).then_some(options.eta),
        clip: (!ancestral).then_some(options.clip),
        specific: guided.then_some(options.specific),
        independent: guided.then_some(options.independent),
        free: (method == TranslationMethod::Ilvr).then_some(options.free),
        variants: options.variants(model.architecture.image_size())?,
        precision: context.precision_or(Precision::F32),
        process: model.process.clone(),
    };
    let models = TranslationModels {
        model: &model,
        source: source.as_ref().map(|(_, m)| m),
        classifier: classifier.as_ref().map(|(_, c)| c),
        mask: mask.map(|(_, mask, _)| mask),
    };
    let translator = Translator::new(&plan, models, context)?;
    drop((model, source, classifier));
    let stop = context.stop;
    let gallery = Gallery {
        input: &options.input,
        inputs: &inputs,
        out: &options.out,
        plan: &plan,
        maker: &Translation {
            plan: &plan,
            translator: &translator,
            stop,
        },
        batch: options.batch,
        overwrite: options.overwrite,
    };
    Ok(gallery.fill(stop, &mut |event| context.event(event))?)
}

/// Options for a network that is used with `model`, and whose file may not state its process.
fn options_of_partner(model: &LoadedModel) -> LoadOptions {
    // Files without a process are official ones, which predict the noise whatever `model` predicts.
    LoadOptions {
        process_otherwise: Some(model.process.discrete()),
        ..LoadOptions::default()
    }
}

/// As [`options_of_partner`], for a file that does not state its image size either.
fn options_of_partner_with_size(model: &LoadedModel) -> LoadOptions {
    let size = model.architecture.image_size().into();
    LoadOptions {
        given: serde_json::Map::from_iter([("image_size".to_owned(), size)]),
        ..options_of_partner(model)
    }
}

/// DDIB's first model.
fn source_model(
    options: &TranslateOptions,
    model: &LoadedModel,
    context: &mut Context<'_>,
) -> Result<Option<(String, LoadedModel)>> {
    if options.method != TranslationMethod::Ddib {
        return Ok(None);
    }
    let Some(name) = &options.source_model else {
        return Err(option(
            "source_model",
            "is missing: ddib goes through two models; give the model of the inputs' domain",
        ));
    };
    let name = ModelFile::find(name)?.noted(context);
    let mut source = load_model(&name, &options_of_partner(model))?;
    if source.origins.get("image_size") == Some(&Origin::Assumed) {
        source = load_model(&name, &options_of_partner_with_size(model))?;
    }
    context.notes(&source.notes);
    check_unconditional(&name, &source)?;
    let sizes = (
        source.architecture.image_size(),
        model.architecture.image_size(),
    );
    if sizes.0 != sizes.1 {
        return Err(option(
            "source_model",
            format!(
                "{name}: makes images of {0}x{0}, the target model of {1}x{1}",
                sizes.0, sizes.1
            ),
        ));
    }
    if !source.process.same_noise(&model.process) {
        return Err(option(
            "source_model",
            format!(
                "{name}: both models need the same noise schedule, found {:?} and {:?}",
                source.process, model.process
            ),
        ));
    }
    Ok(Some((name, source)))
}

/// EGSDE's classifier.
fn classifier(
    options: &TranslateOptions,
    model_name: &str,
    model: &LoadedModel,
    context: &mut Context<'_>,
) -> Result<Option<(String, LoadedEncoder)>> {
    if options.method != TranslationMethod::Egsde {
        return Ok(None);
    }
    let Some(name) = &options.classifier else {
        return Err(option(
            "classifier",
            format!(
                "is missing: egsde needs a classifier of noised images; train one with\n  cargo xtask train-classifier --model {model_name} --source DIR --target DIR\nand give its run folder as `classifier`"
            ),
        ));
    };
    let name = ModelFile::find(name)?.noted(context);
    let mut classifier = load_encoder(Path::new(&name), &options_of_partner(model))?;
    if classifier.origins.get("image_size") == Some(&Origin::Assumed) {
        classifier = load_encoder(Path::new(&name), &options_of_partner_with_size(model))?;
    }
    context.notes(&classifier.notes);
    let (found, expected) = (
        classifier.config.net.image_size,
        model.architecture.image_size(),
    );
    if found != expected {
        return Err(option(
            "classifier",
            format!(
                "{name}: made for images of {found}x{found}, the model makes {expected}x{expected}"
            ),
        ));
    }
    if classifier.config.net.in_channels != 3 {
        return Err(option(
            "classifier",
            format!(
                "{name}: images have 3 channels, the classifier takes {}",
                classifier.config.net.in_channels
            ),
        ));
    }
    if !classifier.process.same_noise(&model.process.discrete()) {
        return Err(option(
            "classifier",
            format!(
                "{name}: trained on the noise of {:?}, the model on {:?}",
                classifier.process, model.process
            ),
        ));
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
    stop: &'a AtomicBool,
}

impl Maker for Translation<'_> {
    fn name(&self) -> String {
        self.plan.method.to_string()
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
            [_] => vec![self.plan.method.to_string()],
            _ => self.labels(),
        }
    }

    fn title(&self) -> String {
        self.plan.method.to_string()
    }

    fn make(
        &self,
        variant: usize,
        images: &[Rgb8],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> std::result::Result<Made, Box<dyn std::error::Error + Send + Sync>> {
        if self.translator.is_identity(variant) {
            return Ok(images.iter().cloned().map(Ok).collect());
        }
        let (width, height) = images
            .first()
            .map_or((0, 0), |image| (image.width, image.height));
        let spec = ImageSpec::rgb8(width, height);
        let x0 = to_tensor(images, &spec)?.to_device(self.translator.device())?;
        let mut noise = NumberedNoise::new(self.plan.seed.unwrap_or_default(), numbers);
        let out = self.translator.run(variant, &x0, &mut noise, &mut |step| {
            check_stop(self.stop)?;
            progress(step.done as f64 / step.total as f64);
            Ok(())
        })?;
        let made = to_pictures(&out, &spec)?.into_iter();
        Ok(made.map(|made| Ok(spec.screen(&made?))).collect())
    }
}
