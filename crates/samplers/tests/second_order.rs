//! Heun's sampler and DPM-Solver++ on a denoiser whose flow is known.

use candle_core::{DType, Device, Result, Tensor};
use sdft_diffusion::{
    Clip, Denoiser, Diffusion, EdmProcess, GaussianDenoiser, Level, Prediction, PredictionType,
    Process, TimeUnit, Variance, predict_at,
};
use sdft_randn::{NoiseSource, SeededNoise};
use sdft_samplers::{DpmSolver, Heun, Step, sample_dpm, sample_heun};
use sdft_schedule::{BetaSchedule, Respacing, Schedule};
use std::cell::RefCell;

/// The continuous process of EDM.
fn edm() -> Diffusion {
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(EdmProcess::default().into()),
        ..Process::default()
    };
    process.diffusion(false, &Respacing::All).unwrap()
}

fn linear() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

fn latents() -> Tensor {
    let noise = SeededNoise::new(5, 0).start(&[2, 3, 4, 4], &Device::Cpu);
    noise.unwrap().to_dtype(DType::F64).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference
        .to_dtype(DType::F64)
        .unwrap()
        .to_scalar()
        .unwrap()
}

fn quiet(_: &Step<'_>) -> Result<()> {
    Ok(())
}

/// A source that fails if it is used.
struct NoNoise;

impl NoiseSource for NoNoise {
    fn normal(&mut self, draw: usize, _: &Tensor) -> Result<Tensor> {
        candle_core::bail!("draw {draw} of a deterministic sampler")
    }
}

/// What an exact solver would return: the flow from the first level to the last, then the predicted image. `start` is the first state of
/// the variance-preserving process.
fn exact(model: &GaussianDenoiser, levels: &[Level], start: &Tensor) -> Tensor {
    let (first, last) = (levels[0], levels[levels.len() - 1]);
    let x = model.flow(start, first.alpha_bar, last.alpha_bar).unwrap();
    let last = vec![last; x.dim(0).unwrap()];
    let predicted = predict_at(model, &x, &last).unwrap();
    predicted.x0(&x, &last).unwrap()
}

/// The order of convergence, from the errors of these numbers of steps.
fn order(points: &[(usize, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .map(|&(n, error)| ((n as f64).ln(), error.ln()))
        .collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    -logs.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>()
        / logs.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
}

/// The order of Heun's sampler and of DPM-Solver++ on a model, with these numbers of steps.
fn orders(diffusion: &Diffusion, model: &dyn Denoiser, flow: &GaussianDenoiser) -> [f64; 2] {
    let counts = [20, 40, 80];
    let heun = counts.map(|steps| {
        let options = Heun {
            steps,
            ..Heun::default()
        };
        let levels = options.levels(diffusion).unwrap();
        let start = latents().affine(levels[0].sigma() * levels[0].alpha_bar.sqrt(), 0.0);
        let (x, mut noise) = (latents(), NoNoise);
        let out = sample_heun(diffusion, model, &x, &options, &mut noise, &mut quiet).unwrap();
        (steps, worst(&out, &exact(flow, &levels, &start.unwrap())))
    });
    let dpm = counts.map(|steps| {
        let options = DpmSolver {
            steps,
            clip: Clip::No,
        };
        let levels = options.levels(diffusion).unwrap();
        let out = sample_dpm(diffusion, model, &latents(), &options, &mut quiet).unwrap();
        (steps, worst(&out, &exact(flow, &levels, &latents())))
    });
    [order(&heun), order(&dpm)]
}

#[test]
fn both_converge_to_the_exact_flow_with_second_order() {
    let model = GaussianDenoiser::of_sigma(0.2, 0.5);
    let orders = orders(&edm(), &model, &model);
    assert!(
        orders.iter().all(|order| (1.8..2.5).contains(order)),
        "{orders:?}"
    );
}

#[test]
fn networks_of_steps_are_called_at_their_steps_with_the_same_order() {
    let diffusion = linear();
    let called_with = RefCell::new(Vec::new());
    for kind in PredictionType::ALL {
        let model = GaussianDenoiser::new(diffusion.schedule.alpha_bar(), 0.2, 0.5);
        let model = model.with_prediction_type(kind);
        let seen = |xt: &Tensor, t: &[f32]| -> Result<Prediction> {
            called_with.borrow_mut().extend_from_slice(t);
            model.predict(xt, t)
        };
        let orders = orders(&diffusion, &seen, &model);
        assert!(
            orders.iter().all(|order| (1.6..2.6).contains(order)),
            "{kind} {orders:?}"
        );
    }
    let is_step = |t: &f32| t.fract() == 0.0 && (0.0..1000.0).contains(t);
    assert!(called_with.borrow().iter().all(is_step));
}

#[test]
fn levels_that_fall_on_one_step_count_once_and_stay_inside_the_process() {
    let diffusion = linear();
    let (least, most) = diffusion.sigma_range();
    let heun = Heun {
        steps: 500,
        sigma_max: 1e9,
        ..Heun::default()
    };
    let dpm = DpmSolver {
        steps: 500,
        ..DpmSolver::default()
    };
    for levels in [heun.levels(&diffusion), dpm.levels(&diffusion)] {
        let levels = levels.unwrap();
        assert!(levels.len() < 500);
        assert!(levels.windows(2).all(|pair| pair[0].step > pair[1].step));
        assert!((levels[0].sigma() / most - 1.0).abs() < 1e-12);
        assert!((levels[levels.len() - 1].sigma() / least - 1.0).abs() < 1e-12);
    }
    let levels = Heun::default().levels(&edm()).unwrap();
    assert_eq!(levels.len(), 18);
    assert!((levels[0].sigma() - 80.0).abs() < 1e-9 && (levels[17].sigma() - 0.002).abs() < 1e-9);
}

#[test]
fn churn_adds_the_draw_of_its_step_inside_its_range() {
    struct Asked(Vec<usize>);
    impl NoiseSource for Asked {
        fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
            self.0.push(draw);
            SeededNoise::new(1, 0).normal(draw, like)
        }
    }
    let (diffusion, model) = (edm(), GaussianDenoiser::of_sigma(0.1, 0.3));
    let options = Heun {
        steps: 60,
        s_churn: 10.0,
        s_min: 0.05,
        s_max: 50.0,
        ..Heun::default()
    };
    let levels = options.levels(&diffusion).unwrap();
    let inside = |level: &Level| (0.05..=50.0).contains(&level.sigma());
    let expected: Vec<usize> = (0..60).filter(|&i| inside(&levels[i])).collect();
    let (mut asked, x) = (Asked(Vec::new()), SeededNoise::new(3, 0));
    let x = x.start(&[64, 3, 8, 8], &Device::Cpu).unwrap();
    let out = sample_heun(&diffusion, &model, &x, &options, &mut asked, &mut quiet).unwrap();
    assert_eq!(asked.0, expected);
    assert!(expected.len() > 8 && expected[0] > 0);
    // Fresh noise leaves the distribution as it is.
    let values: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
    let std = (square / values.len() as f32).sqrt();
    assert!(
        (mean - 0.1).abs() < 0.01 && (std - 0.3).abs() < 0.02,
        "{mean} {std}"
    );
}

#[test]
fn the_callback_is_called_with_states_of_the_process_and_can_stop() {
    let (diffusion, model) = (edm(), GaussianDenoiser::of_sigma(0.2, 0.5));
    let mut calls = Vec::new();
    let mut last = None;
    let mut collect = |step: &Step<'_>| {
        calls.push((step.done, step.total));
        last = Some(step.x.clone());
        Ok(())
    };
    let (x, options) = (latents(), Heun::default());
    let out = sample_heun(&diffusion, &model, &x, &options, &mut NoNoise, &mut collect).unwrap();
    assert_eq!(worst(&out, &last.take().unwrap()), 0.0);
    assert_eq!(calls, (1..=18).map(|done| (done, 18)).collect::<Vec<_>>());
    let mut stop = |_: &Step<'_>| candle_core::bail!("enough");
    let options = DpmSolver::default();
    let error = sample_dpm(&diffusion, &model, &x, &options, &mut stop).unwrap_err();
    assert!(error.to_string().contains("enough"), "{error}");
}

#[test]
fn options_without_levels_are_errors() {
    let diffusion = Diffusion {
        time: TimeUnit::Sigma,
        ..edm()
    };
    let message = |change: fn(&mut Heun)| {
        let mut options = Heun::default();
        change(&mut options);
        options.levels(&diffusion).unwrap_err().to_string()
    };
    assert!(message(|h| h.steps = 0).contains("at least 1 step"));
    assert!(message(|h| h.sigma_min = 90.0).contains("found 90 and 80"));
    assert!(message(|h| h.rho = Some(0.0)).contains("rho above 0"));
    let none = DpmSolver {
        steps: 0,
        ..DpmSolver::default()
    };
    assert!(none.levels(&diffusion).is_err());
}
