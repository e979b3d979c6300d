//! Processes of diffusers' scheduler configurations, against numbers of the library itself.

use candle_core::{Device, Result, Tensor};
use sdft_diffusion::{Clip, Prediction, PredictionType, Process, Sampling};
use sdft_models::{scheduler_config, scheduler_process};
use sdft_randn::NoiseSource;
use sdft_samplers::{Ancestral, Ddim, Step, sample_ddim, sample_ddpm};
use sdft_schedule::{Respacing, Spacing};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A trajectory of diffusers 0.42.1 from four values, with a network and noise that are simple functions.
#[derive(Deserialize)]
struct Trajectory {
    sampler: String,
    scheduler: Map<String, Value>,
    steps: usize,
    eta: f64,
    learned: bool,
    /// The first and last three where there are more than twelve.
    timesteps: Vec<usize>,
    sample: Vec<f32>,
}

/// The same draw at every step, with alternating signs.
struct Alternating;

impl NoiseSource for Alternating {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        let sign = if draw.is_multiple_of(2) { 1.0 } else { -1.0 };
        row(&[0.5, -1.0, 1.5, -0.25])?
            .affine(sign, 0.0)?
            .reshape(like.shape())
    }
}

fn row(values: &[f32]) -> Result<Tensor> {
    Tensor::new(values, &Device::Cpu)?.reshape((1, 1, 1, values.len()))
}

fn read(fields: Value) -> std::result::Result<Process, String> {
    let Value::Object(fields) = fields else {
        panic!("fields are an object");
    };
    scheduler_process(Path::new("scheduler_config.json"), &fields, false).map_err(|e| e.to_string())
}

#[test]
fn samples_are_those_of_diffusers() {
    let text = include_str!("data/schedulers.json");
    let trajectories: Vec<Trajectory> = serde_json::from_str(text).unwrap();
    assert_eq!(trajectories.len(), 44);
    let mut wrong = Vec::new();
    for case in trajectories {
        let what = format!("{} {:?}", case.sampler, case.scheduler);
        let path = Path::new("scheduler_config.json");
        let process = scheduler_process(path, &case.scheduler, case.learned).unwrap();
        let respacing = Respacing::Sections(vec![case.steps]);
        let diffusion = process.diffusion(case.learned, &respacing).unwrap();
        let mut steps = diffusion.schedule.timestep_map().to_vec();
        steps.reverse();
        if steps.len() > 12 {
            steps.drain(3..steps.len() - 3);
        }
        assert_eq!(steps, case.timesteps, "{what}");

        let kind = process.prediction_type;
        let network = |x: &Tensor, _: &[f32]| {
            let output = match kind {
                PredictionType::Epsilon => x.affine(0.5, 0.1)?,
                PredictionType::Sample => x.affine(0.25, 0.0)?,
                PredictionType::V => x.affine(0.3, -0.2)?,
            };
            let mut prediction = Prediction::new(output, kind);
            prediction.variance = case.learned.then(|| x.affine(0.0, 0.2)).transpose()?;
            Ok(prediction)
        };
        let x = row(&[-2.0, -0.5, 0.25, 1.5]).unwrap();
        let (clip, start, noise) = (Clip::Yes, None, &mut Alternating);
        let quiet = &mut |_: &Step<'_>| Ok(());
        let sample = match case.sampler.as_str() {
            "ddim" => {
                let eta = case.eta;
                let options = Ddim { eta, clip, start };
                sample_ddim(&diffusion, &network, &x, &options, noise, quiet)
            }
            _ => {
                let options = Ancestral { clip, start };
                sample_ddpm(&diffusion, &network, &x, &options, noise, quiet)
            }
        };
        let sample = sample.unwrap().flatten_all().unwrap();
        let sample = sample.to_vec1::<f32>().unwrap();
        let close = |(found, expected): (&f32, &f32)| {
            (found - expected).abs() <= 5e-6 * expected.abs().max(1.0)
        };
        if !sample.iter().zip(&case.sample).all(close) {
            wrong.push(format!("{what}: {sample:?}, expected {:?}", case.sample));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_field_is_honoured() {
    assert_eq!(
        read(json!({})).unwrap(),
        Process {
            sigma_small: true,
            sampling: Some(Sampling::default()),
            ..Process::default()
        }
    );
    let process = read(json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.42.1",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "clip_sample_range": 2.0,
        "dynamic_thresholding_ratio": 0.9,
        "num_train_timesteps": 500,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true,
        "sample_max_value": 3,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "thresholding": true,
        "timestep_spacing": "trailing",
        "trained_betas": null,
    }));
    let expected = Process {
        noise_schedule: "scaled_linear".into(),
        diffusion_steps: 500,
        sigma_small: true,
        prediction_type: PredictionType::V,
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        rescale_betas_zero_snr: true,
        sampling: Some(Sampling {
            clip_sample: false,
            clip_sample_range: 2.0,
            thresholding: true,
            dynamic_thresholding_ratio: 0.9,
            sample_max_value: 3.0,
            timestep_spacing: Spacing::Trailing,
            steps_offset: 1,
            set_alpha_to_one: false,
        }),
        ..Process::default()
    };
    assert_eq!(process.unwrap(), expected);
    let large = read(json!({"variance_type": "fixed_large_log"})).unwrap();
    assert!(!large.sigma_small);
    let trained = read(json!({"num_train_timesteps": 3, "trained_betas": [0.1, 0.2, 0.3]}));
    assert_eq!(trained.unwrap().trained_betas, [0.1, 0.2, 0.3]);
    // The ends of a linear schedule that guided-diffusion would not choose for this number of steps.
    let half = read(json!({"num_train_timesteps": 500})).unwrap();
    assert_eq!((half.beta_start, half.beta_end), (Some(1e-4), Some(0.02)));
}

#[test]
fn classes_have_their_own_defaults() {
    let of = |class: &str| read(json!({"_class_name": class}));
    let pndm = of("PNDMScheduler").unwrap();
    assert_eq!((pndm.beta_start, pndm.beta_end), (None, None));
    for (class, schedule) in [
        ("HeunDiscreteScheduler", "linear"),
        ("LCMScheduler", "scaled_linear"),
    ] {
        let process = of(class).unwrap();
        assert_eq!(process.noise_schedule, schedule, "{class}");
        assert_eq!(process.beta_start, Some(0.00085), "{class}");
    }
    for class in [
        "DDPMWuerstchenScheduler",
        "EDMEulerScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "ScoreSdeVeScheduler",
        "DDPM",
    ] {
        let error = of(class).unwrap_err();
        assert!(
            error.contains("  _class_name: ") && error.contains(class),
            "{error}"
        );
    }
}

#[test]
fn fields_that_are_not_supported_are_named() {
    for (field, value) in [
        ("beta_schedule", json!("exp")),
        ("beta_schedule", json!("cosine")),
        ("beta_start", json!("small")),
        ("clip_sample", json!(1)),
        ("guidance", json!(2.0)),
        ("num_train_timesteps", json!(0)),
        ("num_train_timesteps", json!(-1)),
        ("predict_epsilon", json!(false)),
        ("prediction_type", json!("flow_prediction")),
        ("snr_shift_scale", json!(3.0)),
        ("steps_offset", json!(-1)),
        ("thresholding", json!(null)),
        ("timestep_spacing", json!("karras")),
        ("timestep_type", json!("continuous")),
        ("trained_betas", json!([0.1, 0.2])),
        ("trained_betas", json!([])),
        ("use_flow_sigmas", json!(true)),
        ("variance_type", json!("learned")),
        ("variance_type", json!("learned_range")),
    ] {
        let error = read(json!({field: value})).unwrap_err();
        assert!(
            error.contains(&format!("\n  {field}: ")),
            "{field}: {error}"
        );
        assert!(error.contains("scheduler_config.json"), "{field}: {error}");
    }
    for (fields, named) in [
        (json!({"beta_end": 2.0}), "process.beta_end: "),
        (
            json!({"clip_sample_range": 0}),
            "process.sampling: clip_sample_range: ",
        ),
        (
            json!({"sample_max_value": 0.5}),
            "process.sampling: sample_max_value: ",
        ),
        (
            json!({"num_train_timesteps": 3_000_000}),
            "process.diffusion_steps: ",
        ),
        (
            json!({"num_train_timesteps": 1, "trained_betas": [0.1]}),
            "process.diffusion_steps: ",
        ),
        (
            json!({"num_train_timesteps": 2, "trained_betas": [0.1, 1.5]}),
            "process.trained_betas: ",
        ),
        (
            json!({"rescale_betas_zero_snr": true}),
            "process.prediction_type: ",
        ),
    ] {
        let error = read(fields.clone()).unwrap_err();
        assert!(error.contains(named), "{fields}: {error}");
    }
}

#[test]
fn a_written_configuration_is_read_as_the_same_process() {
    let sampled = |sampling: Sampling, process: Process| Process {
        sigma_small: true,
        sampling: Some(sampling),
        ..process
    };
    let usual = Sampling::default();
    for process in [
        sampled(usual, Process::default()),
        sampled(
            Sampling {
                set_alpha_to_one: false,
                steps_offset: 1,
                ..usual
            },
            Process {
                noise_schedule: "scaled_linear".into(),
                beta_start: Some(0.00085),
                beta_end: Some(0.012),
                ..Process::default()
            },
        ),
        sampled(
            Sampling {
                timestep_spacing: Spacing::Trailing,
                ..usual
            },
            Process {
                noise_schedule: "cosine".into(),
                prediction_type: PredictionType::V,
                rescale_betas_zero_snr: true,
                ..Process::default()
            },
        ),
        sampled(
            usual,
            Process {
                trained_betas: vec![0.1, 0.2],
                diffusion_steps: 2,
                ..Process::default()
            },
        ),
    ] {
        let fields = scheduler_config(&process, false).unwrap();
        assert_eq!(read(Value::Object(fields)).unwrap(), process);
    }
    // guided-diffusion's scaled ends are written, because diffusers does not scale them.
    let short = Process {
        diffusion_steps: 500,
        ..Process::default()
    };
    let fields = scheduler_config(&short, true).unwrap();
    assert_eq!(
        (&fields["beta_start"], &fields["beta_end"]),
        (&json!(2e-4), &json!(0.04))
    );
    assert_eq!(fields["variance_type"], "learned_range");
    let rescaled = Process {
        rescale_timesteps: true,
        ..short
    };
    let error = scheduler_config(&rescaled, false).unwrap_err().to_string();
    assert!(error.contains("rescale_timesteps"), "{error}");
}
