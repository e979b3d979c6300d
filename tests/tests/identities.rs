//! What must hold whatever the numbers are.

use candle_core::{Device, Tensor};
use sdft_adm::{AdmConfig, Unet};
use sdft_diffusion::{Clip, Diffusion, GaussianDenoiser, Variance};
use sdft_losses::{Auxiliary, NoisedBatch, Objective};
use sdft_nn::Params;
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, invert_ddim, sample_ddim, sample_ddpm};
use sdft_schedule::{BetaSchedule, Respacing, Schedule};

fn respaced(text: &str) -> Diffusion {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(
        full.respaced(&text.parse::<Respacing>().unwrap()).unwrap(),
        Variance::FixedLarge,
    )
}

fn alpha_bar() -> Vec<f64> {
    Schedule::new(BetaSchedule::Linear, 1000)
        .unwrap()
        .alpha_bar()
        .to_vec()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    f64::from(
        (a - b)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
    )
}

/// A small network whose output is not zero.
fn small() -> (AdmConfig, Params) {
    let config = AdmConfig {
        image_size: 8,
        model_channels: 16,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 16,
        norm_groups: 8,
        ..AdmConfig::default()
    };
    let mut specs = Unet::specs(&config).unwrap();
    for spec in &mut specs {
        if spec.init == sdft_nn::Init::Constant(0.0) {
            spec.init = sdft_nn::Init::Normal(0.05);
        }
    }
    let params = Params::init(&specs, 11, &Device::Cpu).unwrap();
    (config, params)
}

#[test]
fn a_student_that_equals_its_teacher_has_nothing_to_learn_from_it() {
    let (config, start) = small();
    let (params, vars) = start.trainable().unwrap();
    let (student, teacher) = (
        Unet::load(&params, &config).unwrap(),
        Unet::load(&start, &config).unwrap(),
    );
    let diffusion = Diffusion {
        variance: Variance::LearnedRange,
        ..respaced("")
    };
    let [x0, eps, z] = [0, 4, 8].map(|first| {
        SeededNoise::new(1, first)
            .start(&[2, 3, 8, 8], &Device::Cpu)
            .unwrap()
    });
    let objective = Objective::metfaces(true);
    let (t, aux_t) = ([100, 800], [950, 600]);
    let weights = objective.aux_weights(&diffusion.schedule, &aux_t).unwrap();
    let aux = Auxiliary {
        z: &z,
        t: &aux_t,
        weights: &weights,
    };
    let batch = NoisedBatch {
        x0: &x0,
        t: &t,
        noise: &eps,
        importance: None,
        distill: None,
    };
    for of_images in [true, false] {
        // What a network recorded serves one backward pass.
        let terms = objective
            .evaluate(&diffusion, &student, Some(&teacher), &batch, Some(&aux))
            .unwrap();
        let term = if of_images { terms.distill } else { terms.aux }.unwrap();
        assert_eq!(term.to_scalar::<f32>().unwrap(), 0.0);
        let gradients = sdft_nn::backward(&term).unwrap();
        for (name, var) in &vars {
            let size = gradients.get(var).map_or(0.0, |g| {
                g.abs()
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
            });
            assert_eq!(size, 0.0, "{name}");
        }
    }
}

#[test]
fn deterministic_sampling_of_a_point_returns_the_point() {
    let model = GaussianDenoiser::new(&alpha_bar(), -0.3, 0.0);
    for steps in ["ddim10", "ddim40", "250"] {
        let mut noise = SeededNoise::new(3, 0);
        let x = noise.start(&[2, 3, 4, 4], &Device::Cpu).unwrap();
        let out = sample_ddim(
            &respaced(steps),
            &model,
            &x,
            &Ddim::default(),
            &mut noise,
            &mut |_| Ok(()),
        )
        .unwrap();
        assert!(
            worst(
                &out,
                &Tensor::full(-0.3f32, (2, 3, 4, 4), &Device::Cpu).unwrap()
            ) < 1e-4
        );
    }
}

#[test]
fn ddim_converges_to_the_exact_flow_with_first_order() {
    let (mean, std) = (0.2, 0.5);
    let model = GaussianDenoiser::new(&alpha_bar(), mean, std);
    let points: Vec<(f64, f64)> = [25, 50, 100, 200]
        .into_iter()
        .map(|n| {
            let diffusion = respaced(&n.to_string());
            let mut noise = SeededNoise::new(5, 0);
            let x = noise.start(&[1, 3, 4, 4], &Device::Cpu).unwrap();
            let options = Ddim {
                clip: Clip::No,
                ..Ddim::default()
            };
            let out = sample_ddim(
                &diffusion,
                &model,
                &x,
                &options,
                &mut noise,
                &mut |_| Ok(()),
            )
            .unwrap();
            let top = diffusion.schedule.alpha_bar()[diffusion.n_steps() - 1];
            let exact = model.flow(&x, top, 1.0).unwrap();
            ((n as f64).ln(), worst(&out, &exact).ln())
        })
        .collect();
    let n = points.len() as f64;
    let (mx, my) = (
        points.iter().map(|p| p.0).sum::<f64>() / n,
        points.iter().map(|p| p.1).sum::<f64>() / n,
    );
    let slope = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>()
        / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>();
    assert!(
        (-1.3..-0.8).contains(&slope),
        "order {}: {points:?}",
        -slope
    );
}

#[test]
fn encoding_and_decoding_returns_the_image_the_better_the_more_steps() {
    let model = GaussianDenoiser::new(&alpha_bar(), 0.1, 0.4);
    let mut noise = SeededNoise::new(9, 0);
    let x0 = (noise.start(&[1, 3, 4, 4], &Device::Cpu).unwrap() * 0.3).unwrap();
    let mut errors = Vec::new();
    for steps in ["ddim10", "ddim40", "250"] {
        let diffusion = respaced(steps);
        let latent = invert_ddim(&diffusion, &model, &x0, Clip::No, &mut |_| Ok(())).unwrap();
        let options = Ddim {
            clip: Clip::No,
            ..Ddim::default()
        };
        let back = sample_ddim(
            &diffusion,
            &model,
            &latent,
            &options,
            &mut noise,
            &mut |_| Ok(()),
        )
        .unwrap();
        errors.push(worst(&back, &x0));
    }
    assert!(
        errors[2] < errors[1] && errors[1] < errors[0] && errors[2] < 0.03,
        "{errors:?}"
    );
}

#[test]
fn ancestral_samples_have_the_distribution_of_the_data() {
    let (mean, std) = (0.1, 0.2);
    let model = GaussianDenoiser::new(&alpha_bar(), mean, std);
    let mut noise = SeededNoise::new(2, 0);
    let x = noise.start(&[64, 3, 8, 8], &Device::Cpu).unwrap();
    let diffusion = Diffusion {
        variance: Variance::FixedSmall,
        ..respaced("")
    };
    let out = sample_ddpm(
        &diffusion,
        &model,
        &x,
        &Default::default(),
        &mut noise,
        &mut |_| Ok(()),
    )
    .unwrap();
    let values: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
    let n = values.len() as f64;
    let m = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let s = (values
        .iter()
        .map(|v| (f64::from(*v) - m).powi(2))
        .sum::<f64>()
        / n)
        .sqrt();
    assert!(
        (m - mean).abs() < 0.01 && (s - std).abs() < 0.01,
        "mean {m}, std {s}"
    );
}

#[test]
fn a_sample_does_not_depend_on_the_batch_it_is_in() {
    let (config, params) = small();
    let unet = Unet::load(&params, &config).unwrap();
    let diffusion = Diffusion {
        variance: Variance::LearnedRange,
        ..respaced("ddim5")
    };
    let draw = |first: u64, n: usize| {
        let mut noise = SeededNoise::new(4, first);
        let x = noise.start(&[n, 3, 8, 8], &Device::Cpu).unwrap();
        let options = Ddim {
            eta: 0.7,
            ..Ddim::default()
        };
        let out =
            sample_ddim(&diffusion, &unet, &x, &options, &mut noise, &mut |_| Ok(())).unwrap();
        out.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let whole = draw(0, 4);
    assert_eq!(whole, [draw(0, 2), draw(2, 2)].concat());
}

#[test]
fn noise_and_image_determine_each_other() {
    let diffusion = respaced("");
    let [x0, eps] = [0, 4].map(|first| {
        SeededNoise::new(6, first)
            .start(&[3, 3, 4, 4], &Device::Cpu)
            .unwrap()
    });
    let t = [3, 400, 900];
    let xt = diffusion.q_sample(&x0, &t, &eps).unwrap();
    assert!(worst(&diffusion.eps_from_x0(&xt, &t, &x0).unwrap(), &eps) < 1e-3);
    assert!(worst(&diffusion.x0_from_eps(&xt, &t, &eps).unwrap(), &x0) < 1e-3);
}
