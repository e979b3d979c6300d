//! The terms of methods other than SDFT, with denoisers of one parameter.

use candle_core::{Device, Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, PredictionType, Variance, q_sample};
use sdft_losses::{
    Distillation, Kept, NoisedBatch, Objective, Pairwise, Variational, high_frequencies,
    pairwise_divergence,
};
use sdft_schedule::{BetaSchedule, Schedule, Weighting};

/// `eps = a x`, `variance = a x / 2`.
struct Toy(f64);

impl Denoiser for Toy {
    fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
        Ok(Prediction {
            output: (xt * self.0)?,
            prediction_type: PredictionType::Epsilon,
            variance: Some((xt * (self.0 / 2.0))?),
        })
    }
}

struct Scene {
    student: Toy,
    teacher: Toy,
    diffusion: Diffusion,
    x0: Tensor,
    noise: Tensor,
}

fn wave(phase: f64) -> Tensor {
    let data: Vec<f32> = (0..2 * 3 * 4 * 4)
        .map(|i| (0.37 * f64::from(i) + phase).sin() as f32)
        .collect();
    Tensor::from_vec(data, (2, 3, 4, 4), &Device::Cpu).unwrap()
}

fn scene() -> Scene {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Scene {
        student: Toy(0.4),
        teacher: Toy(0.9),
        diffusion: Diffusion::new(schedule, Variance::LearnedRange),
        x0: wave(0.1),
        noise: wave(1.3),
    }
}

const T: [usize; 2] = [40, 700];

impl Scene {
    fn levels(&self, t: &[usize]) -> Vec<Level> {
        self.diffusion.levels(t).unwrap()
    }
}

#[test]
fn kept_samples_add_their_own_base_loss() {
    let s = scene();
    let (of_kept, noise_of_kept) = (wave(0.7), wave(3.1));
    let objective = Objective {
        keep: Some(0.5),
        ..Objective::base_only(Weighting::Constant, Variational::Rescaled)
    };
    let (levels, kept_levels) = (s.levels(&T), s.levels(&[10, 500]));
    let plain = NoisedBatch::new(&s.x0, &levels, &s.noise);
    let batch = NoisedBatch {
        kept: Some(Kept {
            x0: &of_kept,
            levels: &kept_levels,
            noise: &noise_of_kept,
            factor: 3.0,
        }),
        ..plain
    };
    let loss = |objective: &Objective, batch: &NoisedBatch<'_>| {
        let terms = objective.evaluate(&s.diffusion, &s.student, None, batch, None);
        terms.unwrap().report().unwrap()
    };
    let found = loss(&objective, &batch);
    let alone = Objective {
        keep: None,
        ..objective
    };
    let base = loss(&alone, &plain);
    let own = loss(
        &alone,
        &NoisedBatch::new(&of_kept, &kept_levels, &noise_of_kept),
    );
    assert_eq!(
        (found.base, found.mse, found.vb),
        (base.base, base.mse, base.vb)
    );
    assert!((found.kept.unwrap() - 3.0 * own.base).abs() < 1e-6);
    assert!((found.total - base.base - 1.5 * own.base).abs() < 1e-6);
    let error = objective
        .evaluate(&s.diffusion, &s.student, None, &plain, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("keeps samples"), "{error}");
}

#[test]
fn a_shift_moves_the_target_and_not_the_noised_image() {
    let s = scene();
    let shift = wave(0.9);
    let levels = s.levels(&T);
    let objective = Objective::base_only(Weighting::Constant, Variational::Off);
    let batch = NoisedBatch {
        shift: Some(&shift),
        ..NoisedBatch::new(&s.x0, &levels, &s.noise)
    };
    let terms = objective
        .evaluate(&s.diffusion, &s.student, None, &batch, None)
        .unwrap();
    let numbers = |x: &Tensor| -> Vec<f64> {
        let x = x.to_dtype(candle_core::DType::F64).unwrap();
        x.flatten_all().unwrap().to_vec1().unwrap()
    };
    let (x0, noise, shift) = (numbers(&s.x0), numbers(&s.noise), numbers(&shift));
    let mut sum = 0.0;
    for i in 0..96 {
        let alpha_bar = levels[i / 48].alpha_bar;
        let xt = alpha_bar.sqrt() * x0[i] + (1.0 - alpha_bar).sqrt() * noise[i];
        sum += (noise[i] + shift[i] - 0.4 * xt).powi(2) / 96.0;
    }
    let found = terms.report().unwrap().total;
    assert!((found - sum).abs() < 1e-5 * sum, "{found} {sum}");
}

#[test]
fn pairs_are_compared_with_the_source_model_even_if_it_distills_none_of_the_images() {
    let s = scene();
    let levels = s.levels(&T);
    let objective = Objective {
        pairwise: Some(Pairwise {
            weight: 2.0,
            hf_weight: 3.0,
            hf_mse_weight: 0.5,
        }),
        distill: Some(Distillation::snr(1.0, 3.0)),
        ..Objective::base_only(Weighting::Constant, Variational::Off)
    };
    let batch = NoisedBatch {
        distill: Some(&[0.0, 0.0]),
        ..NoisedBatch::new(&s.x0, &levels, &s.noise)
    };
    let terms = objective
        .evaluate(&s.diffusion, &s.student, Some(&s.teacher), &batch, None)
        .unwrap();
    let xt = q_sample(&s.x0, &levels, &s.noise).unwrap();
    let x0 = |of: &Toy| of.predict(&xt, &[]).unwrap().x0(&xt, &levels).unwrap();
    let (student, teacher) = (x0(&s.student), x0(&s.teacher));
    let [fine, fine_teacher, fine_x0] =
        [&student, &teacher, &s.x0].map(|x| high_frequencies(x).unwrap());
    let number = |x: Result<Tensor>| f64::from(x.unwrap().to_scalar::<f32>().unwrap());
    let expected = 2.0 * number(pairwise_divergence(&student, &teacher))
        + 3.0 * number(pairwise_divergence(&fine, &fine_teacher))
        + 0.5 * number((fine - fine_x0).unwrap().sqr().unwrap().mean_all());
    let report = terms.report().unwrap();
    assert!((report.pairwise.unwrap() - expected).abs() < 1e-6 * expected);
    assert_eq!(report.distill, Some(0.0));
    assert!((report.total - report.base - expected).abs() < 1e-5 * expected);
    // One image has no pair, and no source model is needed for the squared error alone.
    let fine_only = Objective {
        pairwise: Some(Pairwise {
            weight: 0.0,
            hf_weight: 0.0,
            hf_mse_weight: 0.5,
        }),
        distill: None,
        ..objective
    };
    assert!(
        fine_only
            .evaluate(&s.diffusion, &s.student, None, &batch, None)
            .is_ok()
    );
}
