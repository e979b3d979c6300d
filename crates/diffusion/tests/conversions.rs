//! Noise, clean image and velocity determine one another, and every prediction type means the same process.

use candle_core::{DType, Device, Tensor};
use sdft_diffusion::{
    Clip, Diffusion, GaussianDenoiser, Prediction, PredictionType, Variance,
    discretized_gaussian_log_likelihood, normal_kl,
};
use sdft_noise::Purpose;
use sdft_randn::randn;
use sdft_schedule::{BetaSchedule, Schedule};

const T: [usize; 4] = [0, 3, 400, 900];

fn diffusion() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

/// Normal numbers in f64, so that tolerances measure the formulas.
fn normal(step: u64) -> Tensor {
    let x = randn(6, Purpose::Test, step, 0, &[4, 3, 4, 4], &Device::Cpu).unwrap();
    x.to_dtype(DType::F64).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference.to_scalar().unwrap()
}

#[test]
fn noise_and_image_determine_each_other() {
    let (diffusion, x0, eps) = (diffusion(), normal(0), normal(1));
    let xt = diffusion.q_sample(&x0, &T, &eps).unwrap();
    assert!(worst(&diffusion.eps_from_x0(&xt, &T, &x0).unwrap(), &eps) < 1e-10);
    assert!(worst(&diffusion.x0_from_eps(&xt, &T, &eps).unwrap(), &x0) < 1e-10);
}

#[test]
fn a_perfect_prediction_of_any_type_gives_back_image_noise_and_velocity() {
    let (diffusion, x0, eps) = (diffusion(), normal(0), normal(1));
    let xt = diffusion.q_sample(&x0, &T, &eps).unwrap();
    let v = diffusion.velocity(&x0, &T, &eps).unwrap();
    for kind in PredictionType::ALL {
        let target = diffusion.target(kind, &x0, &T, &eps).unwrap();
        let prediction = Prediction::new(target, kind);
        for (space, expected) in [
            (PredictionType::Epsilon, &eps),
            (PredictionType::Sample, &x0),
            (PredictionType::V, &v),
        ] {
            let found = diffusion.convert(&prediction, space, &xt, &T).unwrap();
            assert!(worst(&found, expected) < 1e-10, "{kind} as {space}");
        }
    }
}

#[test]
fn one_noise_level_for_the_batch_is_the_same_conversion() {
    let (diffusion, output, xt) = (diffusion(), normal(2), normal(3));
    let (t, ab) = ([400; 4], diffusion.schedule.alpha_bar()[400]);
    for kind in PredictionType::ALL {
        let prediction = Prediction::new(output.clone(), kind);
        let eps = diffusion.eps(&prediction, &xt, &t).unwrap();
        let x0 = diffusion.x0(&prediction, &xt, &t).unwrap();
        assert!(
            worst(&prediction.eps_at(&xt, ab).unwrap(), &eps) < 1e-12,
            "{kind}"
        );
        assert!(
            worst(&prediction.x0_at(&xt, ab).unwrap(), &x0) < 1e-12,
            "{kind}"
        );
    }
}

#[test]
fn an_output_that_is_the_noise_is_passed_on_unchanged() {
    let (diffusion, eps) = (diffusion(), normal(1));
    let prediction = Prediction::new(eps.clone(), PredictionType::Epsilon);
    let found = diffusion.eps(&prediction, &normal(3), &T).unwrap();
    assert_eq!(found.id(), eps.id());
}

#[test]
fn reverse_steps_and_bounds_do_not_depend_on_the_prediction_type() {
    let (diffusion, x0) = (diffusion(), normal(0));
    let alpha_bar = diffusion.schedule.alpha_bar();
    let xt = diffusion.q_sample(&x0, &T, &normal(1)).unwrap();
    let of = |kind| {
        let model = GaussianDenoiser::new(alpha_bar, 0.2, 0.5).with_prediction_type(kind);
        let prediction = diffusion.predict(&model, &xt, &T).unwrap();
        assert_eq!(prediction.prediction_type, kind);
        let reverse = diffusion.reverse(&prediction, &xt, &T, Clip::Yes).unwrap();
        let bound = diffusion.variational_term(&prediction, &x0, &xt, &T, None);
        (reverse.mean, reverse.x0, bound.unwrap())
    };
    let eps = of(PredictionType::Epsilon);
    for kind in [PredictionType::Sample, PredictionType::V] {
        let other = of(kind);
        assert!(worst(&other.0, &eps.0) < 1e-9, "{kind}");
        assert!(worst(&other.1, &eps.1) < 1e-9, "{kind}");
        let relative = ((&other.2 / &eps.2).unwrap() - 1.0).unwrap().abs().unwrap();
        assert!(
            relative.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-6,
            "{kind}"
        );
    }
}

#[test]
fn the_posterior_is_bayes_rule() {
    let (diffusion, x0, xt) = (diffusion(), normal(0), normal(1));
    let t = [400; 4];
    let posterior = diffusion.q_posterior(&x0, &xt, &t).unwrap();
    // Two normal views of x_{t-1}: forwards from x0, and backwards from x_t through one step.
    let s = &diffusion.schedule;
    let (before, beta) = (s.alpha_bar()[399], s.betas()[400]);
    let (forward, backward) = (1.0 / (1.0 - before), (1.0 - beta) / beta);
    let from_x0 = (&x0 * (before.sqrt() * forward)).unwrap();
    let from_xt = (&xt * (backward / (1.0 - beta).sqrt())).unwrap();
    let mean = ((from_x0 + from_xt).unwrap() / (forward + backward)).unwrap();
    assert!(worst(&posterior.mean, &mean) < 1e-12);
    let variance = posterior.variance.flatten_all().unwrap();
    for found in variance.to_vec1::<f64>().unwrap() {
        assert!((found * (forward + backward) - 1.0).abs() < 1e-9, "{found}");
    }
}

#[test]
fn the_likelihoods_of_all_pixel_values_add_up_to_one() {
    let values: Vec<f64> = (0..256).map(|i| f64::from(i) / 127.5 - 1.0).collect();
    let x = Tensor::from_vec(values, 256, &Device::Cpu).unwrap();
    let means = Tensor::full(0.3, 256, &Device::Cpu).unwrap();
    let scales = Tensor::full(-2.5, 256, &Device::Cpu).unwrap();
    let logs = discretized_gaussian_log_likelihood(&x, &means, &scales).unwrap();
    let sum = logs.exp().unwrap().sum_all().unwrap();
    assert!((sum.to_scalar::<f64>().unwrap() - 1.0).abs() < 1e-6);
}

#[test]
fn the_divergence_of_two_normals_is_the_known_one() {
    let of = |value: f64| Tensor::new(&[value], &Device::Cpu).unwrap();
    let kl = |a: (f64, f64), b: (f64, f64)| {
        let kl = normal_kl(&of(a.0), &of(a.1), &of(b.0), &of(b.1)).unwrap();
        kl.to_vec1::<f64>().unwrap()[0]
    };
    assert_eq!(kl((0.3, -1.0), (0.3, -1.0)), 0.0);
    // N(1, 1) against N(0, 4): ln 2 + (1 + 1) / 8 - 1/2.
    let known = 2f64.ln() + 0.25 - 0.5;
    assert!((kl((1.0, 0.0), (0.0, 4f64.ln())) - known).abs() < 1e-12);
}

#[test]
fn timesteps_that_do_not_fit_are_errors() {
    let (diffusion, x) = (diffusion(), normal(0));
    let error = diffusion.q_sample(&x, &[1, 2], &x).unwrap_err().to_string();
    assert!(error.contains("2 timesteps for a batch of 4"), "{error}");
    let error = diffusion.model_t(&[1000]).unwrap_err().to_string();
    assert!(error.contains("1000 is outside 0..1000"), "{error}");
    let learned = Diffusion {
        variance: Variance::LearnedRange,
        ..diffusion
    };
    let prediction = Prediction::new(x.clone(), PredictionType::V);
    let error = learned.reverse(&prediction, &x, &T, Clip::No).unwrap_err();
    assert!(error.to_string().contains("learned variance"), "{error}");
}
