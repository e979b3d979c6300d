//! Images of a folder, brought into a model's domain.

mod nets;
mod options;
mod plan;

pub use nets::{TranslationModels, Translator};
pub use options::{EnergyKind, TranslateOptions, TranslationMethod, WalkKind};
pub use plan::{TranslatePlan, Variant};

use crate::classifier::load_classifier;
use crate::condition::label_of;
use crate::context::Context;
use crate::data::list_inputs;
use crate::error::{Result, ResultExt, option};
use crate::guide::Guide;
use crate::model::{ModelFile, check_same_noise, form_of, load_model, load_partner, recorded_form};
use crate::shared::{ImagesOfImages, Team, announce, announced, check_same};
use candle_core::{Device, Tensor};
use sdft_diffusion::TimeUnit;
use sdft_gallery::{Gallery, Input, Made, Maker, Outcome, full_path, usual_batch};
use sdft_imaging::{Fit, Fitting, Image, ImageSpec, Limits, Rgb8, decode_file, fit};
use sdft_models::{LoadedEncoder, LoadedModel};
use sdft_randn::NumberedNoise;
use sdft_train::Precision;
use std::path::Path;

/// Translates the images of a file or folder into another folder, under the same names. Complete images of the same settings stay, so that
/// a stopped job continues.
///
/// # Errors
/// An option does not fit the models, the folder holds something else, or a network fails. Inputs that fail are in the result.
pub fn translate_folder(options: &TranslateOptions, context: &mut Context<'_>) -> Result<Outcome> {
    let (translation, inputs) = prepare(options, context)?;
    announce(&translation.plan, context)?;
    context.note_precision(translation.plan.precision);
    let (stop, group) = (context.stop, context.group.clone());
    let gallery = Gallery {
        input: &options.input,
        inputs: &inputs,
        out: &options.out,
        plan: &translation.plan,
        maker: &Shared {
            maker: &translation,
            team: Team {
                group: &group,
                stop,
            },
        },
        batch: Some(batch(options, &translation) * group.size()),
        overwrite: options.overwrite,
    };
    Ok(gallery.fill(stop, &mut |event| context.event(event))?)
}

/// On the other ranks of [`Context::group`]: translates images for rank 0's [`translate_folder`] with the same options until it ends.
///
/// # Errors
/// A model that is not that of rank 0; rank 0 fails or disconnects.
pub fn serve_translations(options: &TranslateOptions, context: &mut Context<'_>) -> Result<()> {
    let announced = announced(context)?;
    let (translation, _) = prepare(options, context)?;
    check_same(&announced, &translation.plan, context)?;
    let team = Team {
        group: &context.group,
        stop: context.stop,
    };
    team.serve(&translation, batch(options, &translation))
}

/// Images of one process at once.
fn batch(options: &TranslateOptions, translation: &Translation) -> usize {
    let usual = || usual_batch(translation.translator.spec());
    options.batch.unwrap_or_else(usual)
}

/// The plan with its networks, and on rank 0 the inputs.
fn prepare(
    options: &TranslateOptions,
    context: &mut Context<'_>,
) -> Result<(Translation, Vec<Input>)> {
    let method = options.method;
    options.check()?;
    let model_name = ModelFile::find(&options.model)?.noted(context);
    let model = load_model(&model_name, &options.load)?;
    context.notes(&model.notes);
    let form = form_of(&model_name, &model, options.size)?;
    let shape = model.state_shape(&form);
    let label = |name, class: &Option<String>, model: &LoadedModel| {
        let class = class.as_ref().map(|class| label_of(name, class, model));
        class.transpose()
    };
    let class = label("class", &options.class, &model)?;
    let inputs = match context.group.is_leader() {
        true => list_inputs(&options.input, form.ending(), context)?,
        false => Vec::new(),
    };
    let source = source_model(options, &model, &form, context)?;
    let source_class = source
        .as_ref()
        .map(|(_, source)| label("source_class", &options.source_class, source));
    let classifier = classifier(options, &model_name, &model, shape, context)?;
    let precision = context.fast_precision_or(method.precision(context.device.is_cuda()));
    note_rounding(precision, context);
    let runtime = context.runtime_in(precision);
    let of_guide = options.guide.as_ref();
    let guide = Guide::load(of_guide, &model, shape, &runtime, TimeUnit::Steps, context)?;
    let mask = match options.mask.as_ref() {
        Some(path) if method == TranslationMethod::Sdedit => {
            let mask = read_mask(path, &form)?;
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
        image_size: form.height.max(form.width),
        seed: (method != TranslationMethod::Ddib).then_some(options.seed),
        model: full_path(&model_name),
        network_sha256: model.network_sha256()?,
        autoencoder_sha256: model.autoencoder_sha256(),
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
        variants: options.variants([form.height, form.width])?,
        class,
        guidance: options.guidance.filter(|guidance| *guidance != 1.0),
        guide: guide.as_ref().map(|guide| guide.path.clone()),
        guide_sha256: guide.as_ref().map(|guide| guide.sha256.clone()),
        guide_weight: guide.as_ref().map(|guide| guide.weight),
        guide_interval: guide.as_ref().and_then(|guide| guide.interval),
        source_class: source_class.transpose()?.flatten(),
        precision,
        image: recorded_form(&model, &form),
        process: model.process.clone(),
    };
    let models = TranslationModels {
        model: &model,
        source: source.as_ref().map(|(_, m)| m),
        classifier: classifier.as_ref().map(|(_, c)| c),
        guide,
        mask: mask.map(|(_, mask, _)| mask),
    };
    let translator = Translator::new(&plan, models, context)?;
    Ok((Translation { plan, translator }, inputs))
}

/// Tells the caller if a GPU rounds without being asked to.
fn note_rounding(precision: Precision, context: &mut Context<'_>) {
    if context.precision.is_some() || !context.device.is_cuda() {
        return;
    }
    let name = match precision {
        Precision::Tf32 => "TF32",
        Precision::Bf16 => "bf16",
        Precision::F16 => "f16",
        Precision::F32 | Precision::Auto => return,
    };
    context.notes([format!(
        "this GPU computes in {name}, which is several times faster than f32; --precision f32 does not round"
    )]);
}

/// DDIB's first model.
fn source_model(
    options: &TranslateOptions,
    model: &LoadedModel,
    form: &ImageSpec,
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
    let (name, source) = load_partner(name, model, context)?;
    let of_source = form_of(&name, &source, options.size)?;
    if of_source != *form {
        return Err(option(
            "source_model",
            format!("{name}: makes images of {of_source}, the target model of {form}"),
        ));
    }
    check_same_noise("source_model", &name, &source, model)?;
    Ok(Some((name, source)))
}

/// EGSDE's classifier.
fn classifier(
    options: &TranslateOptions,
    model_name: &str,
    model: &LoadedModel,
    shape: [usize; 3],
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
    let wrong = |problem: String| option("classifier", problem);
    load_classifier(name, model, shape, &wrong, context).map(Some)
}

/// `[1, 1, height, width]`, 1 where the picture is light.
fn read_mask(path: &Path, form: &ImageSpec) -> Result<Tensor> {
    let picture = Image::from(decode_file(path, &Limits::from_env()?)?);
    let fitting = Fitting::new(*form, Fit::Crop);
    let picture = Rgb8::from_image(fit(&picture, &fitting).image);
    let light = |p: &[u8]| p.iter().map(|&v| u32::from(v)).sum::<u32>() > 3 * 127;
    let data: Vec<f32> = picture
        .pixels
        .chunks_exact(3)
        .map(|p| f32::from(u8::from(light(p))))
        .collect();
    Ok(Tensor::from_vec(
        data,
        (1, 1, form.height, form.width),
        &Device::Cpu,
    )?)
}

/// A plan and its networks.
struct Translation {
    plan: TranslatePlan,
    translator: Translator,
}

impl ImagesOfImages for Translation {
    fn form(&self) -> &ImageSpec {
        self.translator.spec()
    }

    fn variants(&self) -> usize {
        self.plan.variants.len()
    }

    fn run(
        &self,
        variant: usize,
        x0: &Tensor,
        numbers: Vec<u64>,
        observer: &mut dyn FnMut(f64) -> candle_core::Result<()>,
    ) -> candle_core::Result<Tensor> {
        let x0 = x0.to_device(self.translator.device())?;
        let mut noise = NumberedNoise::new(self.plan.seed.unwrap_or_default(), numbers);
        self.translator.run(variant, &x0, &mut noise, &mut |step| {
            observer(step.done as f64 / step.total as f64)
        })
    }
}

/// A translation whose images several processes share.
struct Shared<'a> {
    maker: &'a Translation,
    team: Team<'a>,
}

impl Maker for Shared<'_> {
    fn name(&self) -> String {
        self.maker.plan.method.to_string()
    }

    fn spec(&self) -> ImageSpec {
        *self.maker.form()
    }

    fn labels(&self) -> Vec<String> {
        let variants = self.maker.plan.variants.iter();
        variants.map(|variant| variant.label.clone()).collect()
    }

    fn columns(&self) -> Vec<String> {
        let plan = &self.maker.plan;
        match &plan.variants[..] {
            [Variant { t0: Some(t0), .. }] => vec![format!("t0={t0}")],
            [_] => vec![plan.method.to_string()],
            _ => self.labels(),
        }
    }

    fn title(&self) -> String {
        self.name()
    }

    fn make(
        &self,
        variant: usize,
        images: &[Image],
        numbers: Vec<u64>,
        progress: &mut dyn FnMut(f64),
    ) -> std::result::Result<Made, Box<dyn std::error::Error + Send + Sync>> {
        if self.maker.translator.is_identity(variant) {
            return Ok(images.iter().cloned().map(Ok).collect());
        }
        let made = self
            .team
            .make(self.maker, variant, images, &numbers, progress);
        Ok(made?)
    }
}
