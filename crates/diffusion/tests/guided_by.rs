//! Guidance between two models follows its formula for every pair of prediction types, and only where the guide takes part.

use candle_core::{Device, Result, Tensor};
use sdft_diffusion::{
    Denoiser, Diffusion, EdmProcess, GuidedBy, Prediction, PredictionType, Process, SigmaInterval,
    Variance,
};
use sdft_schedule::{BetaSchedule, Respacing, Schedule};
use std::cell::RefCell;

/// Predicts `scale xt + t / 1000`, with a variance.
struct Net {
    kind: PredictionType,
    scale: f64,
    /// Images of each call.
    calls: RefCell<Vec<usize>>,
}

impl Net {
    fn new(kind: PredictionType, scale: f64) -> Self {
        Self {
            kind,
            scale,
            calls: RefCell::default(),
        }
    }
}

impl Denoiser for Net {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.calls.borrow_mut().push(t.len());
        let times: Vec<f64> = t.iter().map(|&t| f64::from(t) / 1000.0).collect();
        let times = Tensor::from_vec(times, (t.len(), 1, 1, 1), &Device::Cpu)?;
        let output = (xt * self.scale)?.broadcast_add(&times)?;
        Ok(Prediction {
            variance: Some((xt * (10.0 * self.scale))?),
            ..Prediction::new(output, self.kind)
        })
    }
}

const STEPS: [usize; 3] = [10, 300, 700];

fn diffusion() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

/// Three images of two channels and one pixel.
fn xt() -> Tensor {
    Tensor::new(&[0.3f64, -0.8, 1.7, 0.1, -1.1, 0.6], &Device::Cpu)
        .unwrap()
        .reshape((3, 2, 1, 1))
        .unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn guided<'a>(model: &'a Net, guide: &'a Net, diffusion: &'a Diffusion) -> GuidedBy<'a> {
    GuidedBy {
        model,
        guide,
        weight: 1.5,
        interval: None,
        channels: None,
        diffusion,
    }
}

#[test]
fn the_prediction_is_that_of_the_formula_for_every_pair_of_prediction_types() {
    let diffusion = diffusion();
    let times = diffusion.model_t(&STEPS).unwrap();
    for kind in PredictionType::ALL {
        for of_guide in PredictionType::ALL {
            let (model, guide) = (Net::new(kind, 0.4), Net::new(of_guide, -0.3));
            let predicted = |net: &Net| net.predict(&xt(), &times).unwrap();
            let (own, other) = (predicted(&model), predicted(&guide));
            for weight in [0.0, 0.5, 1.5, 3.0] {
                let guided = GuidedBy {
                    weight,
                    ..guided(&model, &guide, &diffusion)
                };
                let found = guided.predict(&xt(), &times).unwrap();
                assert_eq!(found.prediction_type, kind);
                for space in PredictionType::ALL {
                    let [m, g, f] = [&own, &other, &found]
                        .map(|p| diffusion.convert(p, space, &xt(), &STEPS).unwrap());
                    let expected = (&g + ((m - &g).unwrap() * weight).unwrap()).unwrap();
                    let error = worst(&f, &expected);
                    assert!(error < 1e-9, "{kind} {of_guide} {space} {weight}: {error}");
                }
                // A learned variance is the model's.
                let variance = found.variance.unwrap();
                assert_eq!(values(&variance), values(own.variance.as_ref().unwrap()));
            }
        }
    }
}

#[test]
fn a_weight_of_one_is_the_model_and_does_not_evaluate_the_guide() {
    let (model, guide) = (
        Net::new(PredictionType::V, 0.4),
        Net::new(PredictionType::Epsilon, -0.3),
    );
    let diffusion = diffusion();
    let guided = GuidedBy {
        weight: 1.0,
        ..guided(&model, &guide, &diffusion)
    };
    // Not even the times have to be known.
    let times = [0.5, 2000.0, 700.0];
    let expected = model.predict(&xt(), &times).unwrap();
    let found = guided.predict(&xt(), &times).unwrap();
    assert_eq!(values(&found.output), values(&expected.output));
    assert!(guide.calls.borrow().is_empty());
}

#[test]
fn a_weight_of_zero_is_the_guide_and_a_model_is_not_guided_by_itself() {
    let (model, guide) = (
        Net::new(PredictionType::Epsilon, 0.4),
        Net::new(PredictionType::Epsilon, -0.3),
    );
    let diffusion = diffusion();
    let times = diffusion.model_t(&STEPS).unwrap();
    let found = |guided: GuidedBy<'_>| values(&guided.predict(&xt(), &times).unwrap().output);
    let alone = |net: &Net| values(&net.predict(&xt(), &times).unwrap().output);
    let zero = GuidedBy {
        weight: 0.0,
        ..guided(&model, &guide, &diffusion)
    };
    assert_eq!(found(zero), alone(&guide));
    assert_eq!(found(guided(&model, &model, &diffusion)), alone(&model));
}

#[test]
fn outside_the_interval_the_prediction_is_the_models() {
    let (model, guide) = (
        Net::new(PredictionType::Epsilon, 0.4),
        Net::new(PredictionType::Sample, -0.3),
    );
    let diffusion = diffusion();
    let times = diffusion.model_t(&STEPS).unwrap();
    let sigma = |i: usize| diffusion.levels(&STEPS).unwrap()[i].sigma();
    let found = |interval: Option<[f64; 2]>| {
        let guided = GuidedBy {
            interval: interval.map(SigmaInterval::from),
            ..guided(&model, &guide, &diffusion)
        };
        guided.predict(&xt(), &times).unwrap().output
    };
    let (all, none) = (found(None), model.predict(&xt(), &times).unwrap().output);
    assert_eq!(values(&found(Some([0.0, f64::INFINITY]))), values(&all));
    // The lower end is outside, the upper end inside.
    let middle = found(Some([sigma(0), sigma(1)]));
    for (i, expected) in [&none, &all, &none].into_iter().enumerate() {
        let [middle, expected] = [&middle, expected].map(|x| values(&x.narrow(0, i, 1).unwrap()));
        assert_eq!(middle, expected, "{i}");
    }
    guide.calls.borrow_mut().clear();
    let above = found(Some([sigma(2), f64::INFINITY]));
    assert_eq!(values(&above), values(&none));
    assert!(guide.calls.borrow().is_empty());
}

#[test]
fn channels_that_the_guide_has_not_learned_are_the_models() {
    let (model, guide) = (
        Net::new(PredictionType::V, 0.4),
        Net::new(PredictionType::Epsilon, -0.3),
    );
    let diffusion = diffusion();
    let times = diffusion.model_t(&STEPS).unwrap();
    let all = guided(&model, &guide, &diffusion);
    let first = GuidedBy {
        channels: Some(1),
        ..all
    };
    let [all, first] = [all, first].map(|guided| guided.predict(&xt(), &times).unwrap().output);
    let own = model.predict(&xt(), &times).unwrap().output;
    assert_eq!(first.dims(), own.dims());
    for (channel, expected) in [&all, &own].into_iter().enumerate() {
        let [found, expected] =
            [&first, expected].map(|x| values(&x.narrow(1, channel, 1).unwrap()));
        assert_eq!(found, expected, "{channel}");
    }
    assert!(worst(&all, &own) > 0.1);
}

#[test]
fn times_have_the_noise_levels_of_their_steps() {
    let thousandths = Process {
        rescale_timesteps: true,
        diffusion_steps: 4000,
        ..Process::default()
    };
    let edm = Process {
        continuous: Some(EdmProcess::default().into()),
        prediction_type: PredictionType::Sample,
        ..Process::default()
    };
    for process in [Process::default(), thousandths, edm] {
        for steps in ["", "ddim10"] {
            let respacing: Respacing = steps.parse().unwrap();
            let diffusion = process.diffusion(false, &respacing).unwrap();
            let t: Vec<usize> = (0..diffusion.n_steps()).collect();
            let times = diffusion.model_t(&t).unwrap();
            let found = diffusion.levels_at(&times).unwrap();
            for (found, expected) in found.iter().zip(diffusion.all_levels()) {
                assert_eq!(found.t, expected.t);
                let error = (found.alpha_bar / expected.alpha_bar - 1.0).abs();
                assert!(error < 1e-6, "{process:?} {expected:?}: {error}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_no_number_and_times_of_no_step_are_errors() {
    let net = Net::new(PredictionType::Epsilon, 0.4);
    let diffusion = diffusion();
    let guided = guided(&net, &net, &diffusion);
    let error = |guided: GuidedBy<'_>, t: f32| {
        let predicted = guided.predict(&xt(), &[t; 3]);
        predicted.unwrap_err().to_string()
    };
    let infinite = GuidedBy {
        weight: f64::INFINITY,
        ..guided
    };
    let text = error(infinite, 10.0);
    assert!(
        text.contains("expected a finite number, found inf"),
        "{text}"
    );
    let text = error(guided, 10.5);
    assert!(
        text.contains("time 10.5: expected the time of one of the 1000 steps"),
        "{text}"
    );
}
