//! A translation does not depend on what the network predicts.

use candle_core::{DType, Device, Result, Tensor};
use sdft_diffusion::{
    Clip, Diffusion, FeatureNet, GaussianDenoiser, Prediction, PredictionType, Variance,
};
use sdft_noise::Purpose;
use sdft_randn::{NumberedNoise, randn};
use sdft_samplers::Step;
use sdft_schedule::{BetaSchedule, Schedule};
use sdft_translators::{
    Energies, Ilvr, LowPass, SdeditOptions, Walk, ddib, edit_step, egsde, ilvr, sdedit,
};

fn diffusion() -> Diffusion {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let schedule = full.respaced(&"50".parse().unwrap()).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

fn gaussian(mean: f64, kind: PredictionType) -> GaussianDenoiser {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    GaussianDenoiser::new(full.alpha_bar(), mean, 0.3).with_prediction_type(kind)
}

fn noise() -> NumberedNoise {
    NumberedNoise::new(9, vec![4, 8])
}

fn image() -> Tensor {
    let x = randn(5, Purpose::Test, 0, 0, &[2, 3, 8, 8], &Device::Cpu).unwrap();
    (x * 0.3).unwrap()
}

fn quiet(_: &Step<'_>) -> Result<()> {
    Ok(())
}

/// Features that are the image itself.
struct Identity;

impl FeatureNet for Identity {
    fn features(&self, xt: &Tensor, _: &[f32]) -> Result<Tensor> {
        Ok(xt.clone())
    }
}

/// Fails unless `translate` leads to the same images for every prediction type, and to others for another model.
fn same_for_every_type(name: &str, translate: impl Fn(&dyn Fn(f64) -> GaussianDenoiser) -> Tensor) {
    let worst = |a: &Tensor, b: &Tensor| {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_scalar::<f32>().unwrap()
    };
    let of = |kind| translate(&move |mean| gaussian(mean, kind));
    let eps = of(PredictionType::Epsilon);
    for kind in [PredictionType::Sample, PredictionType::V] {
        let difference = worst(&of(kind), &eps);
        assert!(difference < 2e-3, "{name}, {kind}: {difference}");
    }
    let other = translate(&|mean| gaussian(mean + 0.1, PredictionType::V));
    assert!(
        worst(&other, &eps) > 1e-2,
        "{name}: the model does not matter"
    );
}

#[test]
fn sdedit_and_egsde_translate_alike_with_every_walk() {
    let low_pass = LowPass::new(8, 8, 4, DType::F32, &Device::Cpu).unwrap();
    let energies = Energies {
        lambda_s: 5.0,
        lambda_i: 0.05,
        ..Energies::new(&Identity, low_pass)
    };
    let clip = Clip::No;
    for walk in [Walk::Ancestral, Walk::PAPER, Walk::Ddim { eta: 0.7, clip }] {
        let options = SdeditOptions {
            walk,
            start: Some(30),
            repeats: 2,
        };
        same_for_every_type("sdedit", |model| {
            let (process, model) = (diffusion(), model(0.2));
            let (x0, noise) = (image(), &mut noise());
            sdedit(&process, &model, &x0, None, &options, noise, &mut quiet).unwrap()
        });
        same_for_every_type("egsde", |model| {
            let (process, model) = (diffusion(), model(0.2));
            let (x0, noise) = (image(), &mut noise());
            egsde(
                &process, &model, &energies, &x0, &options, noise, &mut quiet,
            )
            .unwrap()
        });
    }
}

#[test]
fn bridges_and_references_lead_to_the_same_images() {
    same_for_every_type("ddib", |model| {
        let (source, target) = (model(-0.1), model(0.2));
        let bridge = ddib(
            &diffusion(),
            &source,
            &target,
            &image(),
            Clip::No,
            &mut quiet,
        );
        bridge.unwrap().image
    });
    same_for_every_type("ilvr", |model| {
        let options = Ilvr {
            low_pass: LowPass::new(8, 8, 4, DType::F32, &Device::Cpu).unwrap(),
            free: 10,
            clip: Clip::No,
        };
        let model = model(0.2);
        ilvr(
            &diffusion(),
            &model,
            &image(),
            &options,
            &mut noise(),
            &mut quiet,
        )
        .unwrap()
    });
}

#[test]
fn models_of_a_bridge_may_predict_different_quantities() {
    let of = |source, target| {
        let (source, target) = (gaussian(-0.1, source), gaussian(0.2, target));
        let bridge = ddib(
            &diffusion(),
            &source,
            &target,
            &image(),
            Clip::No,
            &mut quiet,
        );
        bridge.unwrap().image
    };
    let mixed = of(PredictionType::V, PredictionType::Sample);
    let plain = of(PredictionType::Epsilon, PredictionType::Epsilon);
    let difference = (mixed - plain).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() < 1e-3);
}

#[test]
fn the_published_step_is_the_mean_of_the_posterior() {
    // Without clamping, the step that is written in eps is the mean of q(x_{t-1} | x_t, x0^).
    let (process, x, t) = (diffusion(), image(), 20);
    for kind in PredictionType::ALL {
        let model = gaussian(0.2, kind);
        let zero = x.zeros_like().unwrap();
        let step = edit_step(&process, &model, None, &x, t, Walk::Ancestral, Some(&zero));
        let prediction: Prediction = process.predict(&model, &x, &[t; 2]).unwrap();
        let reverse = process.reverse(&prediction, &x, &[t; 2], Clip::No).unwrap();
        let difference = (step.unwrap().next - reverse.mean).unwrap().abs().unwrap();
        assert!(
            difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5,
            "{kind}"
        );
    }
}
