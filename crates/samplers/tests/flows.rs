//! Samplers on a denoiser whose flow is known, for networks of every prediction type.

use candle_core::{Device, Tensor};
use sdft_diffusion::{Clip, Diffusion, GaussianDenoiser, PredictionType, Variance};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ancestral, Ddim, Step, invert_ddim, sample_ddim, sample_ddpm};
use sdft_schedule::{BetaSchedule, Respacing, Schedule};

fn respaced(text: &str) -> Diffusion {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let schedule = full.respaced(&text.parse::<Respacing>().unwrap()).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

fn gaussian(mean: f64, std: f64, kind: PredictionType) -> GaussianDenoiser {
    let full = respaced("");
    GaussianDenoiser::new(full.schedule.alpha_bar(), mean, std).with_prediction_type(kind)
}

fn start(seed: u64, shape: &[usize]) -> (SeededNoise, Tensor) {
    let noise = SeededNoise::new(seed, 0);
    let x = noise.start(shape, &Device::Cpu).unwrap();
    (noise, x)
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    f64::from(difference.to_scalar::<f32>().unwrap())
}

fn quiet(_: &Step<'_>) -> candle_core::Result<()> {
    Ok(())
}

const UNCLIPPED: Ddim = Ddim {
    eta: 0.0,
    clip: Clip::No,
    start: None,
};

#[test]
fn deterministic_sampling_of_a_point_returns_the_point() {
    for kind in PredictionType::ALL {
        let model = gaussian(-0.3, 0.0, kind);
        for steps in ["ddim10", "ddim40", "250"] {
            let (mut noise, x) = start(3, &[2, 3, 4, 4]);
            let (process, options) = (respaced(steps), Ddim::default());
            let out = sample_ddim(&process, &model, &x, &options, &mut noise, &mut quiet);
            let point = Tensor::full(-0.3f32, (2, 3, 4, 4), &Device::Cpu).unwrap();
            assert!(worst(&out.unwrap(), &point) < 1e-4, "{kind} {steps}");
        }
    }
}

#[test]
fn ddim_converges_to_the_exact_flow_with_first_order() {
    for kind in PredictionType::ALL {
        let model = gaussian(0.2, 0.5, kind);
        let points: Vec<(f64, f64)> = [25, 50, 100, 200]
            .into_iter()
            .map(|n| {
                let diffusion = respaced(&n.to_string());
                let (mut noise, x) = start(5, &[1, 3, 4, 4]);
                let out = sample_ddim(&diffusion, &model, &x, &UNCLIPPED, &mut noise, &mut quiet);
                let top = diffusion.schedule.alpha_bar()[diffusion.n_steps() - 1];
                let exact = model.flow(&x, top, 1.0).unwrap();
                (f64::from(n).ln(), worst(&out.unwrap(), &exact).ln())
            })
            .collect();
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
        let slope = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>()
            / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>();
        assert!(
            (-1.3..-0.8).contains(&slope),
            "{kind}: order {}: {points:?}",
            -slope
        );
    }
}

#[test]
fn encoding_and_decoding_returns_the_image_the_better_the_more_steps() {
    for kind in PredictionType::ALL {
        let model = gaussian(0.1, 0.4, kind);
        let (mut noise, x) = start(9, &[1, 3, 4, 4]);
        let x0 = (x * 0.3).unwrap();
        let mut errors = Vec::new();
        for steps in ["ddim10", "ddim40", "250"] {
            let diffusion = respaced(steps);
            let latent = invert_ddim(&diffusion, &model, &x0, Clip::No, &mut quiet).unwrap();
            let back = sample_ddim(
                &diffusion, &model, &latent, &UNCLIPPED, &mut noise, &mut quiet,
            );
            errors.push(worst(&back.unwrap(), &x0));
        }
        assert!(
            errors[2] < errors[1] && errors[1] < errors[0] && errors[2] < 0.03,
            "{kind}: {errors:?}"
        );
    }
}

#[test]
fn ancestral_samples_have_the_distribution_of_the_data() {
    let (mean, std) = (0.1, 0.2);
    let sampled = PredictionType::ALL.map(|kind| {
        let (mut noise, x) = start(2, &[64, 3, 8, 8]);
        let (model, options) = (gaussian(mean, std, kind), Ancestral::default());
        let out = sample_ddpm(&respaced(""), &model, &x, &options, &mut noise, &mut quiet).unwrap();
        let values = values(&out);
        let n = values.len() as f64;
        let m = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let square = values.iter().map(|v| (f64::from(*v) - m).powi(2));
        let s = (square.sum::<f64>() / n).sqrt();
        assert!(
            (m - mean).abs() < 0.01 && (s - std).abs() < 0.01,
            "{kind}: mean {m}, std {s}"
        );
        out
    });
    // The same noises lead to the same images, whatever the network predicts.
    assert!(worst(&sampled[0], &sampled[1]) < 1e-3);
    assert!(worst(&sampled[0], &sampled[2]) < 1e-3);
}

#[test]
fn ddim_with_all_noise_is_the_ancestral_sampler() {
    // eta = 1 has the variance of the posterior; both take the draws in the same order.
    let (model, process) = (gaussian(0.1, 0.4, PredictionType::Epsilon), respaced("50"));
    let (mut noise, x) = start(4, &[2, 3, 4, 4]);
    let options = Ddim {
        eta: 1.0,
        ..UNCLIPPED
    };
    let ddim = sample_ddim(&process, &model, &x, &options, &mut noise, &mut quiet).unwrap();
    let options = Ancestral {
        clip: Clip::No,
        start: None,
    };
    let ddpm = sample_ddpm(&process, &model, &x, &options, &mut noise, &mut quiet).unwrap();
    assert!(worst(&ddim, &ddpm) < 1e-4, "{}", worst(&ddim, &ddpm));
}

#[test]
fn the_callback_is_called_after_every_step_and_can_stop() {
    let (model, process) = (gaussian(0.0, 0.5, PredictionType::V), respaced("ddim10"));
    let (mut noise, x) = start(1, &[1, 3, 4, 4]);
    let options = Ddim {
        start: Some(6),
        ..Ddim::default()
    };
    let mut calls = Vec::new();
    let mut last = None;
    let out = sample_ddim(&process, &model, &x, &options, &mut noise, &mut |step| {
        calls.push((step.done, step.total, step.t));
        last = Some(step.x.clone());
        Ok(())
    });
    let expected: Vec<_> = (1..=7).map(|done| (done, 7, 7 - done)).collect();
    assert_eq!(calls, expected);
    assert_eq!(values(&out.unwrap()), values(&last.unwrap()));
    let mut calls = 0;
    let stopped = sample_ddim(&process, &model, &x, &options, &mut noise, &mut |_| {
        calls += 1;
        candle_core::bail!("enough")
    });
    assert!(stopped.unwrap_err().to_string().contains("enough"));
    assert_eq!(calls, 1);
}

#[test]
fn steps_and_noise_that_are_missing_are_errors() {
    let (model, process) = (
        gaussian(0.0, 0.5, PredictionType::Epsilon),
        respaced("ddim10"),
    );
    let (mut noise, x) = start(1, &[1, 3, 4, 4]);
    let options = Ddim {
        start: Some(10),
        ..Ddim::default()
    };
    let error = sample_ddim(&process, &model, &x, &options, &mut noise, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("10 is outside 0..10"), "{error}");
    let prediction = process.predict(&model, &x, &[5]).unwrap();
    let random = Ddim {
        eta: 0.5,
        ..Ddim::default()
    };
    let error = sdft_samplers::ddim_step(&process, &prediction, &x, 5, &random, None).unwrap_err();
    assert!(error.to_string().contains("eta 0.5 needs noise"), "{error}");
    let error = sdft_samplers::ddpm_step(&process, &prediction, &x, 5, Clip::No, None).unwrap_err();
    assert!(error.to_string().contains("needs noise"), "{error}");
}
