//! The networks of a translation, and the computation of each variant.

use super::options::{EnergyKind, TranslationMethod, WalkKind};
use super::plan::{TranslatePlan, Variant};
use crate::condition::Conditioned;
use crate::context::{Context, Runtime};
use crate::error::{Result, ResultExt as _, option};
use crate::guide::Guide;
use crate::model::check_form;
use candle_core::{DType, Device, Tensor};
use sdft_autoencoder::Space;
use sdft_diffusion::{Clip, Denoiser, Diffusion, FeatureNet};
use sdft_imaging::ImageSpec;
use sdft_models::{LoadedEncoder, LoadedModel};
use sdft_randn::NumberedNoise;
use sdft_samplers::StepCallback;
use sdft_schedule::Respacing;
use sdft_translators::{
    DomainIndependent, DomainSpecific, Energies, Ilvr, LowPass, SdeditOptions, Walk, ddib, egsde,
    ilvr, levels_of, sdedit, start_of, steps_inside,
};

/// The models that a translation needs.
pub struct TranslationModels<'a> {
    /// The model of the target domain.
    pub model: &'a LoadedModel,
    /// DDIB: the model of the source domain.
    pub source: Option<&'a LoadedModel>,
    /// EGSDE: the classifier.
    pub classifier: Option<&'a LoadedEncoder>,
    /// The model that results are guided away from, called with steps.
    pub guide: Option<Guide>,
    /// SDEdit: `[1, 1, height, width]`, 1 where the input is kept.
    pub mask: Option<Tensor>,
}

/// A method with its networks.
pub struct Translator {
    model: Conditioned,
    source: Option<Conditioned>,
    classifier: Option<Box<dyn FeatureNet>>,
    guide: Option<Guide>,
    mask: Option<Tensor>,
    variants: Vec<Prepared>,
    space: Space,
    runtime: Runtime,
}

/// A variant that is ready to run.
struct Prepared {
    diffusion: Diffusion,
    kind: Kind,
}

enum Kind {
    Sdedit(SdeditOptions),
    Egsde {
        edit: SdeditOptions,
        low_pass: LowPass,
        lambda_s: f64,
        lambda_i: f64,
        specific: DomainSpecific,
        independent: DomainIndependent,
    },
    Ddib(Clip),
    Ilvr(Ilvr),
}

impl Translator {
    /// Puts the networks on the context's device, in the precision of the plan.
    ///
    /// # Errors
    /// Strengths or steps that the process does not allow; a form of images or a class that a model does not have.
    pub fn new(
        plan: &TranslatePlan,
        models: TranslationModels<'_>,
        context: &Context<'_>,
    ) -> Result<Self> {
        let runtime = context.runtime_in(plan.precision);
        let spec = plan
            .image
            .unwrap_or_else(|| models.model.architecture.image());
        for model in std::iter::once(models.model).chain(models.source) {
            check_form(&plan.model, model, &spec)?;
        }
        let space = runtime.space(models.model, spec)?;
        let [_, height, width] = space.shape();
        let variants = plan.variants.iter().map(|variant| {
            prepare(
                plan,
                variant,
                models.model,
                [height, width],
                &runtime.device,
            )
            .with_context(|| {
                format!("{} {}", plan.method, variant.label)
                    .trim_end()
                    .to_owned()
            })
        });
        // Networks of different kinds meet at the same steps.
        let asked = |model: &LoadedModel, name, class, guidance| {
            let net = model.process.in_steps(runtime.network(model)?)?;
            Conditioned::new(net, name, class, guidance, model)
        };
        let classifier = |classifier: &LoadedEncoder| -> Result<Box<dyn FeatureNet>> {
            let net = Box::new(runtime.encoder(classifier)?);
            Ok(classifier.process.features_in_steps(net)?)
        };
        Ok(Self {
            variants: variants.collect::<Result<_>>()?,
            model: asked(models.model, "class", plan.class, plan.guidance)?,
            source: models
                .source
                .map(|source| asked(source, "source_class", plan.source_class, None))
                .transpose()?,
            classifier: models.classifier.map(classifier).transpose()?,
            guide: models.guide,
            mask: models
                .mask
                .map(|mask| shrunk(&mask, [height, width])?.to_device(&runtime.device))
                .transpose()?,
            space,
            runtime,
        })
    }

    /// Translates a batch of images `[n, C, H, W]` in [-1, 1] by one of the plan's variants.
    ///
    /// # Errors
    /// A tensor operation or `observer` fails.
    pub fn run(
        &self,
        variant: usize,
        x0: &Tensor,
        noise: &mut NumberedNoise,
        observer: &mut StepCallback<'_>,
    ) -> candle_core::Result<Tensor> {
        let x0 = &self.space.encode(x0)?;
        let states = self.run_states(variant, x0, noise, observer)?;
        self.space.decode(&states)
    }

    fn run_states(
        &self,
        variant: usize,
        x0: &Tensor,
        noise: &mut NumberedNoise,
        observer: &mut StepCallback<'_>,
    ) -> candle_core::Result<Tensor> {
        let Prepared { diffusion, kind } = &self.variants[variant];
        let labels = self.model.labels(x0.dim(0)?);
        let guide = self.guide.as_ref();
        let guided = guide.map(|guide| guide.around(&self.model, labels.as_deref(), diffusion));
        let net: &dyn Denoiser = match &guided {
            Some(guided) => guided,
            None => &self.model,
        };
        match kind {
            Kind::Sdedit(edit) => {
                let mask = self.mask.as_ref();
                sdedit(diffusion, net, x0, mask, edit, noise, observer)
            }
            Kind::Egsde {
                edit,
                low_pass,
                lambda_s,
                lambda_i,
                specific,
                independent,
            } => {
                let Some(classifier) = &self.classifier else {
                    candle_core::bail!("EGSDE needs a classifier");
                };
                let energies = Energies {
                    lambda_s: *lambda_s,
                    lambda_i: *lambda_i,
                    specific: *specific,
                    independent: *independent,
                    ..Energies::new(&**classifier, low_pass.clone())
                };
                egsde(diffusion, net, &energies, x0, edit, noise, observer)
            }
            Kind::Ddib(clip) => {
                let Some(source) = &self.source else {
                    candle_core::bail!("DDIB needs a source model");
                };
                Ok(ddib(diffusion, source, net, x0, *clip, observer)?.image)
            }
            Kind::Ilvr(options) => ilvr(diffusion, net, x0, options, noise, observer),
        }
    }

    /// The form of the images.
    pub fn spec(&self) -> &ImageSpec {
        self.space.image()
    }

    /// The device that images have to be on.
    pub fn device(&self) -> &Device {
        &self.runtime.device
    }

    /// Whether a variant leaves images unchanged.
    pub fn is_identity(&self, variant: usize) -> bool {
        match &self.variants[variant].kind {
            Kind::Sdedit(edit) | Kind::Egsde { edit, .. } => edit.start.is_none(),
            Kind::Ddib(_) | Kind::Ilvr(_) => false,
        }
    }
}

/// A mask of the images, `[1, 1, H, W]` of 0 and 1, for states of this height and width: 1 where most of the pixels are 1.
fn shrunk(mask: &Tensor, [height, width]: [usize; 2]) -> candle_core::Result<Tensor> {
    let (_, _, h, w) = mask.dims4()?;
    if [h, w] == [height, width] {
        return Ok(mask.clone());
    }
    let mean = mask.avg_pool2d((h / height, w / width))?;
    mean.gt(0.5)?.to_dtype(mask.dtype())
}

fn prepare(
    plan: &TranslatePlan,
    variant: &Variant,
    model: &LoadedModel,
    [height, width]: [usize; 2],
    device: &Device,
) -> Result<Prepared> {
    let process = &plan.process;
    let learned = model.architecture.learns_variance();
    let clip = if plan.clip == Some(false) {
        Clip::No
    } else {
        Clip::Yes
    };
    let steps = plan.steps.as_deref().unwrap_or_default();
    let respacing: Respacing = steps
        .parse()
        .map_err(|e| option("steps", format!("{steps}: {e}")))?;
    let respaced = || {
        let diffusion = process.diffusion(learned, &respacing);
        diffusion
            .map(Diffusion::in_steps)
            .map_err(|e| option("steps", format!("{steps}: {e}")))
    };
    let low_pass = || {
        let factor = variant.factor.unwrap_or(1);
        LowPass::new(height, width, factor, DType::F32, device)
    };
    Ok(match plan.method {
        TranslationMethod::Sdedit => {
            let (diffusion, edit) = walk(plan, variant, &respacing, respaced()?, clip)?;
            let kind = Kind::Sdedit(edit);
            Prepared { diffusion, kind }
        }
        TranslationMethod::Egsde => {
            let (diffusion, edit) = walk(plan, variant, &respacing, respaced()?, clip)?;
            let kind = Kind::Egsde {
                edit,
                low_pass: low_pass()?,
                lambda_s: variant.lambda_s.unwrap_or_default(),
                lambda_i: variant.lambda_i.unwrap_or_default(),
                specific: match plan.specific {
                    Some(EnergyKind::NegL2) => DomainSpecific::NegL2,
                    _ => DomainSpecific::Cosine,
                },
                independent: match plan.independent {
                    Some(EnergyKind::Cosine) => DomainIndependent::Cosine,
                    _ => DomainIndependent::NegL2,
                },
            };
            Prepared { diffusion, kind }
        }
        TranslationMethod::Ddib => Prepared {
            diffusion: respaced()?,
            kind: Kind::Ddib(clip),
        },
        TranslationMethod::Ilvr => {
            let (diffusion, free) = (respaced()?, plan.free.unwrap_or_default());
            if free + 1 >= diffusion.n_steps() {
                return Err(option(
                    "free",
                    format!(
                        "{free}: the input is followed in none of the {} steps; expected a smaller value, or more `steps`",
                        diffusion.n_steps()
                    ),
                ));
            }
            let kind = Kind::Ilvr(Ilvr {
                low_pass: low_pass()?,
                free,
                clip,
            });
            Prepared { diffusion, kind }
        }
    })
}

/// The process of SDEdit and EGSDE, and the step that they start at.
fn walk(
    plan: &TranslatePlan,
    variant: &Variant,
    respacing: &Respacing,
    respaced: Diffusion,
    clip: Clip,
) -> Result<(Diffusion, SdeditOptions)> {
    let (process, t0) = (&plan.process, variant.t0.unwrap_or_default());
    let eta = plan.eta.unwrap_or_default();
    let ddim = Walk::Ddim { eta, clip };
    let (diffusion, start, walk) = match plan.walk.unwrap_or(WalkKind::Part) {
        WalkKind::Part => {
            let start = start_of(&respaced, t0)?;
            (respaced, start, ddim)
        }
        WalkKind::Inside if t0 == 0.0 => (respaced, None, ddim),
        WalkKind::Inside => {
            let full = process.diffusion(false, &Respacing::All)?.in_steps();
            let n = respacing.indices(full.n_steps())?.len();
            let schedule = steps_inside(&full.schedule, t0, n)
                .map_err(|e| option("t0", format!("{t0}: no two steps lie inside: {e}")))?;
            let start = Some(schedule.n_steps() - 1);
            (Diffusion { schedule, ..full }, start, ddim)
        }
        WalkKind::Ancestral => {
            let diffusion = process.published()?.in_steps();
            let start = levels_of(&diffusion, t0)?;
            (diffusion, start, Walk::Ancestral)
        }
    };
    let repeats = variant.repeats.unwrap_or(1);
    Ok((
        diffusion,
        SdeditOptions {
            walk,
            start,
            repeats,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::DIGITS_SOURCE;
    use crate::model::load_model;
    use sdft_diffusion::Variance;
    use sdft_models::LoadOptions;
    use sdft_train::{NoopProgress, Precision};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn networks_compute_in_the_precision_of_the_plan_and_not_of_the_context() {
        let model = load_model(DIGITS_SOURCE, &LoadOptions::default()).unwrap();
        let x0 = Tensor::arange(0f32, 768.0, &Device::Cpu).unwrap();
        let x0 = x0.sin().unwrap().reshape((1, 3, 16, 16)).unwrap();
        let (stop, mut silent) = (AtomicBool::new(false), NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut silent);
        let mut made = |of_context, of_plan| {
            context.precision = Some(of_context);
            let variant = Variant {
                t0: Some(0.5),
                repeats: Some(1),
                ..Variant::default()
            };
            let (method, walk) = (TranslationMethod::Sdedit, WalkKind::Part);
            let plan = TranslatePlan {
                steps: Some("ddim4".into()),
                precision: of_plan,
                ..TranslatePlan::as_in_the_paper(method, walk, variant, &model, &context)
            };
            let models = TranslationModels {
                model: &model,
                source: None,
                classifier: None,
                guide: None,
                mask: None,
            };
            let translator = Translator::new(&plan, models, &context).unwrap();
            let mut noise = NumberedNoise::new(1, vec![0]);
            let y = translator.run(0, &x0, &mut noise, &mut |_| Ok(())).unwrap();
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let [f32_maps, bf16] = [Precision::F32, Precision::Bf16].map(|of| made(of, of));
        assert_ne!(f32_maps, bf16);
        assert_eq!(made(Precision::Bf16, Precision::F32), f32_maps);
        assert_eq!(made(Precision::F32, Precision::Bf16), bf16);
    }

    #[test]
    fn each_walk_starts_where_its_source_does() {
        let model = load_model(DIGITS_SOURCE, &LoadOptions::default()).unwrap();
        let (stop, mut silent) = (AtomicBool::new(false), NoopProgress);
        let context = Context::new(Device::Cpu, &stop, &mut silent);
        let started = |walk, t0| {
            let variant = Variant {
                t0: Some(t0),
                ..Variant::default()
            };
            let method = TranslationMethod::Sdedit;
            let plan = TranslatePlan::as_in_the_paper(method, walk, variant, &model, &context);
            let Prepared { diffusion, kind } =
                prepare(&plan, &plan.variants[0], &model, [16, 16], &Device::Cpu).unwrap();
            let Kind::Sdedit(edit) = kind else {
                panic!("another method")
            };
            let map = diffusion.schedule.timestep_map();
            (edit, edit.start.map(|s| (s, map[s])), diffusion)
        };
        let part = started(WalkKind::Part, 0.5);
        assert_eq!((part.0.walk, part.1), (Walk::PAPER, Some((20, 500))));
        assert_eq!(started(WalkKind::Inside, 0.5).1, Some((39, 500)));
        // 500 levels of noise begin at step 499, in the tables and with the variance of the published sampler.
        let (edit, start, diffusion) = started(WalkKind::Ancestral, 0.5);
        assert_eq!((edit.walk, start), (Walk::Ancestral, Some((499, 499))));
        assert_eq!(diffusion.variance, Variance::FixedSmall);
        let alpha_bar = diffusion.schedule.alpha_bar()[499];
        assert!(
            (alpha_bar / 0.078_587_248_92 - 1.0).abs() < 1e-9,
            "{alpha_bar}"
        );
        for walk in [WalkKind::Part, WalkKind::Inside, WalkKind::Ancestral] {
            assert_eq!(started(walk, 0.0).1, None, "{walk:?}");
        }
    }
}
