//! The dependencies of each term of the objective, with denoisers of two parameters.

use candle_core::{Device, Result, Tensor, Var};
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, PredictionType, Variance};
use sdft_losses::{Auxiliary, Distillation, NoisedBatch, Objective, Variational, distill_factor};
use sdft_schedule::{BetaSchedule, Schedule, WeightedTimesteps, Weighting};
use std::cell::RefCell;

/// `eps = a x`, `variance = b x`.
struct Toy {
    a: Tensor,
    b: Tensor,
}

impl Denoiser for Toy {
    fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
        Ok(Prediction {
            output: xt.broadcast_mul(&self.a)?,
            prediction_type: PredictionType::Epsilon,
            variance: Some(xt.broadcast_mul(&self.b)?),
        })
    }
}

struct Scene {
    a: Var,
    b: Var,
    student: Toy,
    teacher: Toy,
    diffusion: Diffusion,
    x0: Tensor,
    noise: Tensor,
    z: Tensor,
}

fn wave(phase: f64) -> Tensor {
    let data: Vec<f32> = (0..2 * 3 * 4 * 4)
        .map(|i| (0.37 * f64::from(i) + phase).sin() as f32)
        .collect();
    Tensor::from_vec(data, (2, 3, 4, 4), &Device::Cpu).unwrap()
}

fn scene() -> Scene {
    let scalar = |v: f32| Var::new(&[v], &Device::Cpu).unwrap();
    let (a, b) = (scalar(0.4), scalar(0.2));
    let student = Toy {
        a: a.as_tensor().clone(),
        b: b.as_tensor().clone(),
    };
    let fixed = |v: f32| Tensor::new(&[v], &Device::Cpu).unwrap();
    let teacher = Toy {
        a: fixed(0.9),
        b: fixed(0.1),
    };
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let diffusion = Diffusion::new(schedule, Variance::LearnedRange);
    Scene {
        a,
        b,
        student,
        teacher,
        diffusion,
        x0: wave(0.1),
        noise: wave(1.3),
        z: wave(2.2),
    }
}

const T: [usize; 2] = [40, 700];
const AUX_T: [usize; 2] = [950, 900];

impl Scene {
    fn levels(&self, t: &[usize]) -> Vec<Level> {
        self.diffusion.levels(t).unwrap()
    }

    fn evaluate(
        &self,
        objective: &Objective,
        importance: Option<&[f64]>,
        weights: &[f64],
    ) -> sdft_losses::Terms {
        let levels = self.levels(&T);
        let batch = NoisedBatch {
            importance,
            ..NoisedBatch::new(&self.x0, &levels, &self.noise)
        };
        let aux = Auxiliary {
            z: &self.z,
            levels: &self.levels(&AUX_T),
            weights,
        };
        objective
            .evaluate(
                &self.diffusion,
                &self.student,
                Some(&self.teacher),
                &batch,
                Some(&aux),
            )
            .unwrap()
    }
}

fn number(t: &Tensor) -> f64 {
    f64::from(t.to_scalar::<f32>().unwrap())
}

#[test]
fn the_variational_term_teaches_the_variance_only() {
    let s = scene();
    let terms = s.evaluate(
        &Objective::base_only(Weighting::Constant, Variational::Plain),
        None,
        &[],
    );
    let vb = terms.vb.unwrap().sum_all().unwrap().backward().unwrap();
    assert!(
        vb.get(&s.a)
            .is_none_or(|g| g.sum_all().unwrap().to_scalar::<f32>().unwrap() == 0.0)
    );
    assert_ne!(
        vb.get(&s.b)
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
        0.0
    );
    let mse = terms.mse.sum_all().unwrap().backward().unwrap();
    assert!(mse.get(&s.b).is_none() && mse.get(&s.a).is_some());
}

#[test]
fn distances_to_the_teacher_are_means_over_pixels_times_their_weights() {
    let s = scene();
    let objective = Objective {
        distill: Some(Distillation {
            lambda: 2.0,
            weighting: Weighting::Snr { k: 1.0, gamma: 3.0 },
        }),
        aux: Some(Distillation {
            lambda: 3.0,
            weighting: Weighting::Constant,
        }),
        ..Objective::base_only(Weighting::Constant, Variational::Off)
    };
    let terms = s.evaluate(&objective, None, &[1.0, 0.5]);
    // eps differs by (0.9 - 0.4) x, so the distance is 0.25 mean(x^2).
    let mean_square =
        |x: &Tensor, i: usize| number(&x.get(i).unwrap().sqr().unwrap().mean_all().unwrap());
    let xt = s.diffusion.q_sample(&s.x0, &T, &s.noise).unwrap();
    let ab = s.diffusion.schedule.alpha_bar();
    let distill: f64 = (0..2)
        .map(|i| 0.25 * mean_square(&xt, i) * (1.0 - ab[T[i]]).powi(3))
        .sum::<f64>()
        / 2.0;
    let aux = 0.25 * (mean_square(&s.z, 0) + 0.5 * mean_square(&s.z, 1)) / 2.0;
    let report = terms.report().unwrap();
    assert!(
        (report.distill.unwrap() - distill).abs() < 1e-6,
        "{report:?} {distill}"
    );
    assert!((report.aux.unwrap() - aux).abs() < 1e-6, "{report:?} {aux}");
    assert!(
        (report.total - (report.base + 2.0 * distill + 3.0 * aux)).abs() < 1e-5,
        "{report:?}"
    );
}

#[test]
fn importance_weights_multiply_what_depends_on_the_image() {
    let s = scene();
    let objective = Objective::metfaces(true);
    let plain = s
        .evaluate(&objective, Some(&[1.0, 1.0]), &[1.0, 1.0])
        .report()
        .unwrap();
    assert_eq!(
        plain,
        s.evaluate(&objective, None, &[1.0, 1.0]).report().unwrap()
    );
    let double = s
        .evaluate(&objective, Some(&[2.0, 2.0]), &[1.0, 1.0])
        .report()
        .unwrap();
    assert!(
        (double.base - 2.0 * plain.base).abs() < 1e-5
            && (double.distill.unwrap() - 2.0 * plain.distill.unwrap()).abs() < 1e-6
    );
    assert_eq!(double.aux, plain.aux);
}

#[test]
fn missing_inputs_are_named_in_the_error() {
    let s = scene();
    let levels = s.levels(&T);
    let batch = NoisedBatch::new(&s.x0, &levels, &s.noise);
    let objective = Objective::metfaces(true);
    let no_aux = objective
        .evaluate(&s.diffusion, &s.student, Some(&s.teacher), &batch, None)
        .unwrap_err()
        .to_string();
    assert!(no_aux.contains("no auxiliary inputs"), "{no_aux}");
    let objective = Objective {
        aux: None,
        ..objective
    };
    let no_source = objective
        .evaluate(&s.diffusion, &s.student, None, &batch, None)
        .unwrap_err()
        .to_string();
    assert!(no_source.contains("no source model"), "{no_source}");
    let few = NoisedBatch {
        levels: &s.levels(&[5]),
        ..batch
    };
    let error = objective
        .evaluate(&s.diffusion, &s.student, Some(&s.teacher), &few, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("1 timesteps for a batch of 2"), "{error}");
    let between = NoisedBatch {
        levels: &[Level::of_sigma(1.0), Level::of_sigma(2.0)],
        ..batch
    };
    let error = objective
        .evaluate(&s.diffusion, &s.student, Some(&s.teacher), &between, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("levels between steps"), "{error}");
}

#[test]
fn distillation_reaches_the_student_and_not_the_teacher() {
    let s = scene();
    let teacher_var = Var::new(&[0.9f32], &Device::Cpu).unwrap();
    let teacher = Toy {
        a: teacher_var.as_tensor().clone(),
        b: teacher_var.as_tensor().clone(),
    };
    let objective = Objective {
        aux: None,
        ..Objective::metfaces(true)
    };
    let levels = s.levels(&T);
    let batch = NoisedBatch::new(&s.x0, &levels, &s.noise);
    let terms = objective
        .evaluate(&s.diffusion, &s.student, Some(&teacher), &batch, None)
        .unwrap();
    let gradients = terms.distill.unwrap().backward().unwrap();
    assert!(gradients.get(&teacher_var).is_none());
    assert!(gradients.get(&s.a).is_some());
}

#[test]
fn the_rescaled_variational_term_counts_the_steps_of_the_respaced_process() {
    let mut scene = scene();
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    scene.diffusion = Diffusion::new(
        full.respaced(&"250".parse().unwrap()).unwrap(),
        Variance::LearnedRange,
    );
    let vb = |kind| {
        let levels = scene.levels(&[20, 200]);
        let batch = NoisedBatch::new(&scene.x0, &levels, &scene.noise);
        let objective = Objective::base_only(Weighting::Constant, kind);
        let terms = objective
            .evaluate(&scene.diffusion, &scene.student, None, &batch, None)
            .unwrap();
        terms.report().unwrap().vb.unwrap()
    };
    let (plain, rescaled) = (vb(Variational::Plain), vb(Variational::Rescaled));
    assert!(
        plain > 0.0 && (rescaled / plain - 0.25).abs() < 1e-6,
        "{plain} {rescaled}"
    );
}

/// A teacher whose distance to the student depends on the time, and which records the timesteps it is called with.
struct Recorder {
    called_with: RefCell<Vec<f32>>,
}

impl Denoiser for Recorder {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.called_with.borrow_mut().extend(t);
        let factors: Vec<f32> = t.iter().map(|t| 0.9 - t / 3000.0).collect();
        let factors = Tensor::from_vec(factors, (t.len(), 1, 1, 1), &Device::Cpu)?;
        Ok(Prediction {
            output: xt.broadcast_mul(&factors)?,
            prediction_type: PredictionType::Epsilon,
            variance: Some(xt.zeros_like()?),
        })
    }
}

/// Gradient of the student's parameter from one term.
fn slope(term: &Tensor, a: &Var) -> f64 {
    let gradients = term.backward().unwrap();
    let gradient = gradients.get(a).unwrap().sum_all().unwrap();
    number(&gradient)
}

#[test]
fn images_of_little_weight_can_be_skipped_with_the_same_expected_gradient() {
    let s = scene();
    let recorder = Recorder {
        called_with: RefCell::new(Vec::new()),
    };
    let objective = Objective {
        aux: None,
        ..Objective::metfaces(true)
    };
    let t = [110, 200];
    let weights = objective
        .distill
        .unwrap()
        .weighting
        .weights(&s.diffusion.schedule);
    assert!(t.iter().all(|&t| (0.001..0.1).contains(&weights[t])));
    let evaluate = |distill: Option<&[f64]>| {
        let levels = s.levels(&t);
        let batch = NoisedBatch {
            importance: Some(&[1.5, 0.5]),
            distill,
            ..NoisedBatch::new(&s.x0, &levels, &s.noise)
        };
        objective
            .evaluate(&s.diffusion, &s.student, Some(&recorder), &batch, None)
            .unwrap()
    };
    let whole = slope(&evaluate(None).distill.unwrap(), &s.a);
    recorder.called_with.borrow_mut().clear();
    let n = 2000;
    let mut mean = 0.0;
    for i in 0..n {
        // Two independent-looking but even walks through [0, 1).
        let u = [
            (f64::from(i) + 0.5) / f64::from(n),
            (f64::from(i) * 0.618_034 + 0.3).fract(),
        ];
        let factors = [
            distill_factor(weights[t[0]], u[0]),
            distill_factor(weights[t[1]], u[1]),
        ];
        let terms = evaluate(Some(&factors));
        let seen = factors.iter().filter(|factor| **factor != 0.0).count();
        let distill = terms.distill.unwrap();
        if seen > 0 {
            assert_eq!(terms.distill_each.unwrap().dims(), [seen]);
            mean += slope(&distill, &s.a) / f64::from(n);
        } else {
            assert_eq!(number(&distill), 0.0);
            assert_eq!(number(&terms.total), number(&terms.base));
        }
    }
    assert!((mean / whole - 1.0).abs() < 0.02, "{mean} {whole}");
    let seen = recorder.called_with.borrow().len() as f64 / f64::from(2 * n);
    let odds = 5.0 * (weights[t[0]] + weights[t[1]]);
    assert!((seen - odds).abs() < 0.01, "{seen} {odds}");
}

#[test]
fn images_left_out_in_the_middle_do_not_need_a_network_of_contiguous_outputs() {
    /// Both outputs as views of one tensor, as networks that learn their variance give them.
    struct Joint(Tensor);
    impl Denoiser for Joint {
        fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
            let scaled = xt.broadcast_mul(&self.0)?;
            Prediction::split(
                &Tensor::cat(&[&scaled, &(&scaled * 0.5)?], 1)?,
                3,
                PredictionType::Epsilon,
            )
        }
    }
    let s = scene();
    let student = Joint(s.a.as_tensor().clone());
    let objective = Objective {
        aux: None,
        ..Objective::metfaces(true)
    };
    let three = |x: &Tensor| Tensor::cat(&[x, &x.narrow(0, 0, 1).unwrap()], 0).unwrap();
    let (x0, noise) = (three(&s.x0), three(&s.noise));
    let evaluate = |t: &[usize], distill: Option<&[f64]>, x0: &Tensor, noise: &Tensor| {
        let levels = s.levels(t);
        let batch = NoisedBatch {
            distill,
            ..NoisedBatch::new(x0, &levels, noise)
        };
        let teacher = Joint(s.teacher.a.clone());
        objective
            .evaluate(&s.diffusion, &student, Some(&teacher), &batch, None)
            .unwrap()
    };
    let some = evaluate(&[400, 500, 600], Some(&[1.0, 0.0, 1.0]), &x0, &noise);
    let each = some.distill_each.unwrap().to_vec1::<f32>().unwrap();
    let all = evaluate(&[400, 500, 600], None, &x0, &noise);
    let all_each = all.distill_each.unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(each, [all_each[0], all_each[2]]);
    assert!(slope(&some.distill.unwrap(), &s.a).abs() < slope(&all.distill.unwrap(), &s.a).abs());
}

#[test]
fn auxiliary_timesteps_in_proportion_to_their_weight_have_the_same_expected_gradient() {
    let s = scene();
    let recorder = Recorder {
        called_with: RefCell::new(Vec::new()),
    };
    let objective = Objective {
        distill: None,
        ..Objective::metfaces(true)
    };
    let gradient = |t: &[usize], weights: &[f64]| {
        let z =
            s.z.narrow(0, 0, 1)
                .unwrap()
                .repeat((t.len(), 1, 1, 1))
                .unwrap();
        let levels = s.levels(&T);
        let batch = NoisedBatch::new(&s.x0, &levels, &s.noise);
        let aux = Auxiliary {
            z: &z,
            levels: &s.levels(t),
            weights,
        };
        let terms = objective
            .evaluate(
                &s.diffusion,
                &s.student,
                Some(&recorder),
                &batch,
                Some(&aux),
            )
            .unwrap();
        slope(&terms.aux.unwrap(), &s.a)
    };
    let all: Vec<usize> = (0..1000).collect();
    let weights = objective.aux_weights(&s.levels(&all));
    let uniform = gradient(&all, &weights);
    let draws = WeightedTimesteps::new(&weights).unwrap();
    let t: Vec<usize> = (0..1000)
        .map(|i| draws.sample((f64::from(i) + 0.5) / 1000.0))
        .collect();
    let weighted = gradient(&t, &vec![draws.mean(); t.len()]);
    assert!(
        (weighted / uniform - 1.0).abs() < 2e-3,
        "{weighted} {uniform}"
    );
    // The mean over the weights is what makes them equal: as many uniform draws without it are far off.
    let unweighted = gradient(&all, &vec![draws.mean(); 1000]);
    assert!(
        (unweighted / uniform - 1.0).abs() > 0.05,
        "{unweighted} {uniform}"
    );
}
