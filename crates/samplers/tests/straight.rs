//! Euler's and Heun's methods on a flow that is known, and DDIM on the same levels.

use candle_core::{DType, Device, Result, Tensor};
use sdft_diffusion::{
    Clip, Denoiser, Diffusion, FlowProcess, GaussianDenoiser, Level, PredictionType, Process,
    predict_at,
};
use sdft_randn::SeededNoise;
use sdft_samplers::{Step, Straight, StraightMethod, sample_straight};
use sdft_schedule::Respacing;

fn flow() -> Diffusion {
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(FlowProcess::default().into()),
        ..Process::default()
    };
    process.diffusion(false, &Respacing::All).unwrap()
}

fn latents() -> Tensor {
    let noise = SeededNoise::new(5, 0).start(&[2, 3, 4, 4], &Device::Cpu);
    noise.unwrap().to_dtype(DType::F64).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference.to_scalar().unwrap()
}

fn quiet(_: &Step<'_>) -> Result<()> {
    Ok(())
}

fn run(
    diffusion: &Diffusion,
    model: &dyn Denoiser,
    steps: usize,
    method: StraightMethod,
) -> Tensor {
    let options = Straight { steps, method };
    sample_straight(diffusion, model, &latents(), &options, &mut quiet).unwrap()
}

/// Deterministic DDIM through levels, whose last step leads to the predicted image.
fn ddim(model: &dyn Denoiser, levels: &[Level], start: &Tensor) -> Tensor {
    let mut x = start.clone();
    for (i, &level) in levels.iter().enumerate() {
        let at = vec![level; x.dim(0).unwrap()];
        let prediction = predict_at(model, &x, &at).unwrap();
        let (eps, x0) = (
            prediction.eps(&x, &at).unwrap(),
            prediction.x0(&x, &at).unwrap(),
        );
        let next = levels.get(i + 1).map_or(1.0, |next| next.alpha_bar);
        x = ((x0 * next.sqrt()).unwrap() + (eps * (1.0 - next).sqrt()).unwrap()).unwrap();
    }
    x
}

#[test]
fn steps_are_even_in_tau_and_begin_at_pure_noise() {
    let options = Straight {
        steps: 4,
        method: StraightMethod::Euler,
    };
    let levels = options.levels(&flow()).unwrap();
    let taus: Vec<f32> = levels.iter().map(|level| level.t).collect();
    assert_eq!(taus, [1.0, 0.75, 0.5, 0.25]);
    assert_eq!(levels[0].alpha_bar, 0.0);
    assert!(
        levels
            .iter()
            .all(|l| (l.tau() - f64::from(l.t)).abs() < 1e-12)
    );
    // A discrete process has steps, none of them twice.
    let linear = Process::default()
        .diffusion(false, &Respacing::All)
        .unwrap();
    let many = Straight {
        steps: 5000,
        ..options
    };
    let levels = many.levels(&linear).unwrap();
    assert_eq!(levels[0].step, Some(999));
    assert!(levels.len() <= 1000 && levels.windows(2).all(|w| w[0].step > w[1].step));
    let none = Straight {
        steps: 0,
        ..options
    };
    assert!(none.levels(&linear).is_err());
}

#[test]
fn euler_is_ddim_on_the_same_levels() {
    let (diffusion, model) = (flow(), GaussianDenoiser::of_tau(0.3, 0.4));
    for steps in [1, 7, 30] {
        let options = Straight {
            steps,
            method: StraightMethod::Euler,
        };
        let expected = ddim(&model, &options.levels(&diffusion).unwrap(), &latents());
        let found = run(&diffusion, &model, steps, StraightMethod::Euler);
        assert!(worst(&found, &expected) < 1e-6, "{steps}");
    }
}

#[test]
fn images_of_one_value_are_exact_and_errors_fall_with_the_order_of_the_method() {
    let diffusion = flow();
    let point = GaussianDenoiser::of_tau(0.25, 0.0);
    for method in [StraightMethod::Euler, StraightMethod::Heun] {
        let found = run(&diffusion, &point, 3, method);
        let expected = (found.zeros_like().unwrap() + 0.25).unwrap();
        assert!(worst(&found, &expected) < 1e-6, "{method:?}");
    }
    // x0 ~ N(m, s^2) goes from eps to m + s eps along straight lines of the flow.
    let model = GaussianDenoiser::of_tau(0.3, 0.4);
    let expected = (latents() * 0.4).unwrap().affine(1.0, 0.3).unwrap();
    let order = |method| {
        let errors = [20, 80].map(|n| worst(&run(&diffusion, &model, n, method), &expected));
        (errors[0] / errors[1]).ln() / 4f64.ln()
    };
    let euler = order(StraightMethod::Euler);
    assert!((0.8..1.3).contains(&euler), "{euler}");
    let heun = order(StraightMethod::Heun);
    assert!(heun > 1.6, "{heun}");
}

#[test]
fn the_callback_sees_every_state_and_its_error_stops_the_sampler() {
    let (diffusion, model) = (flow(), GaussianDenoiser::of_tau(0.3, 0.4));
    let options = Straight {
        steps: 5,
        method: StraightMethod::Heun,
    };
    let mut last = None;
    let sample = sample_straight(&diffusion, &model, &latents(), &options, &mut |step| {
        assert_eq!(step.total, 5);
        last = Some((step.done, step.x.clone()));
        Ok(())
    });
    let (done, x) = last.unwrap();
    assert_eq!((done, worst(&sample.unwrap(), &x)), (5, 0.0));
    let stopped = sample_straight(&diffusion, &model, &latents(), &options, &mut |_| {
        candle_core::bail!("stop")
    });
    assert!(stopped.is_err());
    // Samplers that choose their levels by sigma take a flow too.
    let dpm = sdft_samplers::DpmSolver {
        steps: 40,
        clip: Clip::No,
    };
    let found = sdft_samplers::sample_dpm(&diffusion, &model, &latents(), &dpm, &mut quiet);
    let expected = (latents() * 0.4).unwrap().affine(1.0, 0.3).unwrap();
    assert!(worst(&found.unwrap(), &expected) < 0.02);
}
