//! The loss of networks of every prediction type, the spaces of distillation, and gradients by finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_diffusion::{Denoiser, Diffusion, Prediction, PredictionType, Variance};
use sdft_losses::{Auxiliary, Distillation, NoisedBatch, Objective, Terms, Variational};
use sdft_schedule::{BetaSchedule, Schedule, Weighting};

const T: [usize; 2] = [40, 700];
const AUX_T: [usize; 2] = [950, 900];

fn diffusion() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(schedule, Variance::LearnedRange)
}

/// `eps = a tanh(x)` as a network of any type, in f64.
struct Toy {
    a: Tensor,
    kind: PredictionType,
}

impl Toy {
    fn new(a: f64, kind: PredictionType) -> Self {
        let a = Tensor::new(&[a], &Device::Cpu).unwrap();
        Self { a, kind }
    }
}

impl Denoiser for Toy {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        let t: Vec<usize> = t.iter().map(|&t| t as usize).collect();
        let eps = Prediction::new(xt.tanh()?.broadcast_mul(&self.a)?, PredictionType::Epsilon);
        Ok(Prediction {
            output: diffusion().convert(&eps, self.kind, xt, &t)?,
            prediction_type: self.kind,
            variance: Some(xt.broadcast_mul(&self.a)?),
        })
    }
}

fn wave(phase: f64) -> Tensor {
    let data: Vec<f64> = (0..2 * 3 * 4 * 4)
        .map(|i| (0.37 * f64::from(i) + phase).sin())
        .collect();
    Tensor::from_vec(data, (2, 3, 4, 4), &Device::Cpu).unwrap()
}

fn evaluate(objective: &Objective, student: &Toy, teacher: &Toy) -> Terms {
    let (x0, noise, z) = (wave(0.1), wave(1.3), wave(2.2));
    let levels = diffusion().levels(&T).unwrap();
    let batch = NoisedBatch::new(&x0, &levels, &noise);
    let aux = Auxiliary {
        z: &z,
        levels: &diffusion().levels(&AUX_T).unwrap(),
        weights: &[1.0, 0.5],
    };
    objective
        .evaluate(&diffusion(), student, Some(teacher), &batch, Some(&aux))
        .unwrap()
}

fn objective(space: PredictionType) -> Objective {
    Objective {
        distill: Some(Distillation::snr(0.3, 1.0)),
        aux: Some(Distillation::snr(0.2, 2.0)),
        distill_space: space,
        ..Objective::base_only(Weighting::Constant, Variational::Plain)
    }
}

fn each(x: Option<Tensor>) -> Vec<f64> {
    x.unwrap().to_vec1().unwrap()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    let pairs = a.iter().zip(b);
    a.len() == b.len() && pairs.into_iter().all(|(a, b)| (a / b - 1.0).abs() < 1e-9)
}

/// EQUATIONS.md: `|d eps|^2 = SNR |d x0|^2 = ab |d v|^2`.
#[test]
fn distances_in_two_spaces_differ_by_the_derived_factor() {
    let diffusion = diffusion();
    let (snr, ab) = (diffusion.schedule.snr(), diffusion.schedule.alpha_bar());
    let kind = PredictionType::Epsilon;
    let of = |space| {
        let terms = evaluate(
            &objective(space),
            &Toy::new(0.4, kind),
            &Toy::new(0.9, kind),
        );
        [each(terms.distill_each), each(terms.aux_each)]
    };
    let [eps, x0, v] = PredictionType::ALL.map(of);
    for (i, t) in [T, AUX_T].into_iter().enumerate() {
        let scaled = |values: &[f64], table: &[f64]| -> Vec<f64> {
            values.iter().zip(t).map(|(d, t)| d * table[t]).collect()
        };
        assert!(close(&eps[i], &scaled(&x0[i], snr)), "{eps:?} {x0:?}");
        assert!(close(&eps[i], &scaled(&v[i], ab)), "{eps:?} {v:?}");
    }
}

#[test]
fn in_one_space_it_does_not_matter_what_student_and_teacher_predict() {
    for space in PredictionType::ALL {
        let of = |student, teacher| {
            let (student, teacher) = (Toy::new(0.4, student), Toy::new(0.9, teacher));
            let terms = evaluate(&objective(space), &student, &teacher);
            [each(terms.distill_each), each(terms.aux_each)]
        };
        let expected = of(PredictionType::Epsilon, PredictionType::Epsilon);
        for student in PredictionType::ALL {
            for teacher in PredictionType::ALL {
                let found = of(student, teacher);
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(close(found, expected), "{student} {teacher} in {space}");
                }
            }
        }
    }
}

#[test]
fn min_snr_is_the_same_loss_for_every_prediction_type() {
    let of = |kind: PredictionType| {
        let objective = Objective::base_only(kind.min_snr(5.0), Variational::Off);
        let toy = Toy::new(0.4, kind);
        let mse = evaluate(&objective, &toy, &toy).mse;
        mse.to_vec1::<f64>().unwrap()
    };
    let [eps, x0, v] = PredictionType::ALL.map(of);
    assert!(close(&eps, &x0) && close(&eps, &v), "{eps:?} {x0:?} {v:?}");
}

#[test]
fn the_target_is_what_the_network_predicts() {
    let diffusion = diffusion();
    let (x0, noise) = (wave(0.1), wave(1.3));
    for kind in PredictionType::ALL {
        let toy = Toy::new(0.4, kind);
        let objective = Objective::base_only(Weighting::Constant, Variational::Off);
        let found = evaluate(&objective, &toy, &toy).mse.to_vec1::<f64>();
        let xt = diffusion.q_sample(&x0, &T, &noise).unwrap();
        let target = match kind {
            PredictionType::Epsilon => noise.clone(),
            PredictionType::Sample => x0.clone(),
            PredictionType::V => diffusion.velocity(&x0, &T, &noise).unwrap(),
        };
        let output = diffusion.predict(&toy, &xt, &T).unwrap().output;
        let error = (target - output).unwrap().sqr().unwrap();
        let expected = error.flatten_from(1).unwrap().mean(1).unwrap();
        assert!(
            close(&found.unwrap(), &expected.to_vec1().unwrap()),
            "{kind}"
        );
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for kind in PredictionType::ALL {
        for space in PredictionType::ALL {
            let teacher = Toy::new(0.9, PredictionType::Epsilon);
            let objective = objective(space);
            let total = |a: f64| {
                let terms = evaluate(&objective, &Toy::new(a, kind), &teacher);
                // The variational term holds the prediction constant, which differences do not see.
                let vb = terms.vb.unwrap().mean_all().unwrap();
                let rest = (terms.total - vb).unwrap();
                rest.to_scalar::<f64>().unwrap()
            };
            let a = Var::new(&[0.4f64], &Device::Cpu).unwrap();
            let student = Toy {
                a: a.as_tensor().clone(),
                kind,
            };
            let terms = evaluate(&objective, &student, &teacher);
            let vb = terms.vb.unwrap().mean_all().unwrap();
            let gradients = (terms.total - vb).unwrap().backward().unwrap();
            let exact = gradients.get(&a).unwrap().to_vec1::<f64>().unwrap()[0];
            let numeric = (total(0.4 + 1e-5) - total(0.4 - 1e-5)) / 2e-5;
            assert!(
                (exact / numeric - 1.0).abs() < 1e-6,
                "{kind} in {space}: {exact} {numeric}"
            );
            assert_eq!(terms.base.dtype(), DType::F64);
        }
    }
}

#[test]
fn only_channels_that_the_source_model_has_learned_are_compared() {
    /// A prediction that differs from channel to channel by a factor.
    struct Scaled(Tensor);
    impl Denoiser for Scaled {
        fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
            let output = xt.broadcast_mul(&self.0)?;
            Ok(Prediction::new(output, PredictionType::Sample))
        }
    }
    let factors = |c: [f64; 3]| Tensor::new(&c, &Device::Cpu)?.reshape((1, 3, 1, 1));
    let student = Var::from_tensor(&factors([0.3, 0.5, 0.7]).unwrap()).unwrap();
    let (x0, noise, z) = (wave(0.1), wave(1.3), wave(2.2));
    let levels = diffusion().levels(&T).unwrap();
    let mask = Tensor::ones((2, 1, 4, 4), DType::F64, &Device::Cpu).unwrap();
    let terms = |last: f64, channels, mask| {
        let objective = Objective {
            variational: Variational::Off,
            distill_channels: channels,
            ..objective(PredictionType::Epsilon)
        };
        let batch = NoisedBatch {
            mask,
            ..NoisedBatch::new(&x0, &levels, &noise)
        };
        let aux = Auxiliary {
            z: &z,
            levels: &diffusion().levels(&AUX_T).unwrap(),
            weights: &[1.0, 0.5],
        };
        let network = Scaled(student.as_tensor().clone());
        let source = Scaled(factors([0.4, 0.1, last]).unwrap());
        objective
            .evaluate(&diffusion(), &network, Some(&source), &batch, Some(&aux))
            .unwrap()
    };
    let gradient = |term: &Option<Tensor>| {
        let gradients = term.as_ref().unwrap().backward().unwrap();
        let gradient = gradients.get(&student).unwrap().flatten_all().unwrap();
        gradient.to_vec1::<f64>().unwrap()
    };
    for mask in [None, Some(&mask)] {
        let (two, other) = (terms(0.9, Some(2), mask), terms(-5.0, Some(2), mask));
        let all = terms(0.7, None, mask);
        assert_eq!(
            each(two.distill_each.clone()),
            each(other.distill_each.clone())
        );
        for (two, all) in [(&two.distill, &all.distill), (&two.aux, &all.aux)] {
            let (two, all) = (gradient(two), gradient(all));
            assert!(two[0] != 0.0 && two[1] != 0.0 && two[2] == 0.0, "{two:?}");
            // The third channel of `all` agrees with the source's: the same sum, but a mean over three channels.
            assert!((two[0] - 1.5 * all[0]).abs() < 1e-12 * two[0].abs().max(1.0));
        }
    }
}
