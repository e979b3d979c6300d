//! The networks of a translation, and how each variant walks.

use super::plan::{TranslatePlan, Variant};
use crate::args::{EnergyArg, TranslatorArg, WalkArg};
use crate::device::Stage;
use crate::usage;
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use sdft_adm::{Encoder, Unet};
use sdft_diffusion::{Clip, Diffusion};
use sdft_models::{LoadedEncoder, LoadedModel};
use sdft_randn::NumberedNoise;
use sdft_samplers::StepCallback;
use sdft_schedule::Respacing;
use sdft_train::Precision;
use sdft_translators::{
    DomainIndependent, DomainSpecific, Energies, Ilvr, LowPass, SdeditOptions, Walk, ddib, egsde,
    ilvr, levels_of, sdedit, start_of, steps_inside,
};

/// A method with its networks, ready for images.
pub(crate) struct Translator {
    model: Unet,
    source: Option<Unet>,
    classifier: Option<Encoder>,
    mask: Option<Tensor>,
    ways: Vec<Way>,
    stage: Stage,
}

/// How one variant goes from input to output.
struct Way {
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
    /// # Errors
    /// Strengths or steps that the process does not allow.
    pub(crate) fn new(
        plan: &TranslatePlan,
        model: &LoadedModel,
        source: Option<&LoadedModel>,
        classifier: Option<&LoadedEncoder>,
        mask: Option<Tensor>,
    ) -> Result<Self> {
        // Inversions and steering are to be exact unless something else is asked for.
        let stage = Stage::open(Precision::F32)?;
        let ways = plan.variants.iter().map(|variant| {
            way(plan, variant, model, &stage.device)
                .with_context(|| format!("{} {}", name(plan.method), variant.label))
        });
        Ok(Self {
            ways: ways.collect::<Result<_>>()?,
            model: stage.unet(model)?,
            source: source.map(|m| stage.unet(m)).transpose()?,
            classifier: classifier.map(|c| stage.encoder(c)).transpose()?,
            mask: mask.map(|m| m.to_device(&stage.device)).transpose()?,
            stage,
        })
    }

    /// Translates a batch by one of the plan's variants.
    ///
    /// # Errors
    /// Whatever the networks or the observer fail with.
    pub(crate) fn run(
        &self,
        variant: usize,
        x0: &Tensor,
        noise: &mut NumberedNoise,
        observer: &mut StepCallback<'_>,
    ) -> candle_core::Result<Tensor> {
        let Way { diffusion, kind } = &self.ways[variant];
        match kind {
            Kind::Sdedit(edit) => {
                let mask = self.mask.as_ref();
                sdedit(diffusion, &self.model, x0, mask, edit, noise, observer)
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
                    ..Energies::new(classifier, low_pass.clone())
                };
                egsde(diffusion, &self.model, &energies, x0, edit, noise, observer)
            }
            Kind::Ddib(clip) => {
                let Some(source) = &self.source else {
                    candle_core::bail!("DDIB needs a source model");
                };
                Ok(ddib(diffusion, source, &self.model, x0, *clip, observer)?.image)
            }
            Kind::Ilvr(options) => ilvr(diffusion, &self.model, x0, options, noise, observer),
        }
    }

    /// Where images have to be.
    pub(crate) fn device(&self) -> &Device {
        &self.stage.device
    }

    /// Whether a variant leaves images as they are.
    pub(crate) fn is_identity(&self, variant: usize) -> bool {
        match &self.ways[variant].kind {
            Kind::Sdedit(edit) | Kind::Egsde { edit, .. } => edit.start.is_none(),
            Kind::Ddib(_) | Kind::Ilvr(_) => false,
        }
    }
}

/// A method's name as it is typed.
pub(crate) fn name(method: TranslatorArg) -> String {
    format!("{method:?}").to_lowercase()
}

fn way(
    plan: &TranslatePlan,
    variant: &Variant,
    model: &LoadedModel,
    device: &Device,
) -> Result<Way> {
    let process = &plan.process;
    let learned = model.config.learns_variance();
    let clip = if plan.clip == Some(false) {
        Clip::No
    } else {
        Clip::Yes
    };
    let steps = plan.steps.as_deref().unwrap_or_default();
    let respacing: Respacing = steps.parse().map_err(|e| usage(format!("--steps: {e}")))?;
    let respaced = || {
        process
            .diffusion(learned, &respacing)
            .map_err(|e| usage(format!("--steps: {e}")))
    };
    let size = plan.image_size;
    let low_pass = || {
        let factor = variant.factor.unwrap_or(1);
        LowPass::new(size, size, factor, DType::F32, device)
    };
    Ok(match plan.method {
        TranslatorArg::Sdedit => {
            let (diffusion, edit) = walk(plan, variant, &respacing, respaced()?, clip)?;
            let kind = Kind::Sdedit(edit);
            Way { diffusion, kind }
        }
        TranslatorArg::Egsde => {
            let (diffusion, edit) = walk(plan, variant, &respacing, respaced()?, clip)?;
            let kind = Kind::Egsde {
                edit,
                low_pass: low_pass()?,
                lambda_s: variant.lambda_s.unwrap_or_default(),
                lambda_i: variant.lambda_i.unwrap_or_default(),
                specific: match plan.specific {
                    Some(EnergyArg::NegL2) => DomainSpecific::NegL2,
                    _ => DomainSpecific::Cosine,
                },
                independent: match plan.independent {
                    Some(EnergyArg::Cosine) => DomainIndependent::Cosine,
                    _ => DomainIndependent::NegL2,
                },
            };
            Way { diffusion, kind }
        }
        TranslatorArg::Ddib => Way {
            diffusion: respaced()?,
            kind: Kind::Ddib(clip),
        },
        TranslatorArg::Ilvr => {
            let (diffusion, free) = (respaced()?, plan.free.unwrap_or_default());
            if free + 1 >= diffusion.n_steps() {
                return Err(usage(format!(
                    "--free {free}: of {} steps none is left in which the input is followed; expected less, or more --steps",
                    diffusion.n_steps()
                )));
            }
            let kind = Kind::Ilvr(Ilvr {
                low_pass: low_pass()?,
                free,
                clip,
            });
            Way { diffusion, kind }
        }
    })
}

/// The process that SDEdit and EGSDE walk, and from where.
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
    let (diffusion, start, walk) = match plan.walk.unwrap_or(WalkArg::Part) {
        WalkArg::Part => {
            let start = start_of(&respaced, t0)?;
            (respaced, start, ddim)
        }
        WalkArg::Inside if t0 == 0.0 => (respaced, None, ddim),
        WalkArg::Inside => {
            let full = process.diffusion(false, &Respacing::All)?;
            let n = respacing.indices(full.n_steps())?.len();
            let schedule = steps_inside(&full.schedule, t0, n)
                .map_err(|e| usage(format!("--t0 {t0}: no two steps lie inside: {e}")))?;
            let start = Some(schedule.n_steps() - 1);
            (Diffusion { schedule, ..full }, start, ddim)
        }
        WalkArg::Ancestral => {
            let diffusion = process.published()?;
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
    use crate::assets::DIGITS_SOURCE;
    use crate::train::load_model;
    use sdft_diffusion::Variance;
    use sdft_models::LoadOptions;

    #[test]
    fn each_walk_starts_where_its_source_does() {
        let model = load_model(DIGITS_SOURCE, &LoadOptions::default()).unwrap();
        let started = |walk, t0| {
            let variant = Variant {
                t0: Some(t0),
                ..Variant::default()
            };
            let plan = TranslatePlan::of(TranslatorArg::Sdedit, walk, variant, &model);
            let Way { diffusion, kind } =
                way(&plan, &plan.variants[0], &model, &Device::Cpu).unwrap();
            let Kind::Sdedit(edit) = kind else {
                panic!("another method")
            };
            let map = diffusion.schedule.timestep_map();
            (edit, edit.start.map(|s| (s, map[s])), diffusion)
        };
        let part = started(WalkArg::Part, 0.5);
        assert_eq!((part.0.walk, part.1), (Walk::PAPER, Some((20, 500))));
        assert_eq!(started(WalkArg::Inside, 0.5).1, Some((39, 500)));
        // 500 levels of noise begin at step 499, in the tables and with the variance of the published sampler.
        let (edit, start, diffusion) = started(WalkArg::Ancestral, 0.5);
        assert_eq!((edit.walk, start), (Walk::Ancestral, Some((499, 499))));
        assert_eq!(diffusion.variance, Variance::FixedSmall);
        let alpha_bar = diffusion.schedule.alpha_bar()[499];
        assert!(
            (alpha_bar / 0.078_587_248_92 - 1.0).abs() < 1e-9,
            "{alpha_bar}"
        );
        for walk in [WalkArg::Part, WalkArg::Inside, WalkArg::Ancestral] {
            assert_eq!(started(walk, 0.0).1, None, "{walk:?}");
        }
    }
}
