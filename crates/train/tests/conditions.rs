//! Labels, masks and augmentation labels reach the student, the source model and the loss.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adm::Unet;
use sdft_diffusion::{Condition, Denoiser, Network, Prediction, PredictionType, Trainable};
use sdft_noise::Purpose;
use sdft_randn::randn;
use sdft_testing::{nonzero_params, tiny_config};
use sdft_train::{AuxSampling, Learner, Method, Outcome, Plan, Source, StepImages};
use std::sync::{Arc, Mutex};

/// The labels and augmentation labels of one call.
type Seen = (Option<Vec<u32>>, Option<Vec<Vec<f32>>>);

/// `eps = a x`; remembers what it is called with.
struct Recorder {
    a: Var,
    calls: Arc<Mutex<Vec<Seen>>>,
}

impl Trainable for Recorder {
    fn vars(&self) -> Vec<(String, Var)> {
        vec![("a".into(), self.a.clone())]
    }

    fn predict(&self, xt: &Tensor, _: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        let augment = condition.augment.map(Tensor::to_vec2::<f32>).transpose()?;
        let labels = condition.labels.map(<[u32]>::to_vec);
        self.calls.lock().unwrap().push((labels, augment));
        let eps = xt.broadcast_mul(&self.a)?;
        Ok(Prediction::new(eps, PredictionType::Epsilon))
    }

    fn augment_dim(&self) -> usize {
        2
    }
}

fn plan() -> Plan {
    let mut plan = Plan {
        method: Method::Sdft,
        ..<Plan>::default()
    };
    plan.steps.batch = 8;
    plan.steps.micro_batch = 3;
    plan.loss.aux_sampling = AuxSampling::Uniform;
    plan.loss.label_dropout = 0.5;
    plan
}

fn source() -> Option<Source> {
    let half = |x: &Tensor, _: &[f32]| x * 0.5;
    Some(Source::Plain(Box::new(half)))
}

/// A learner on images of three classes, and the calls of its network.
fn learner(plan: &Plan, classes: usize) -> (Learner, Arc<Mutex<Vec<Seen>>>) {
    let calls = Arc::<Mutex<Vec<Seen>>>::default();
    let network = Recorder {
        a: Var::from_vec(vec![0.3f32], (1, 1, 1, 1), &Device::Cpu).unwrap(),
        calls: calls.clone(),
    };
    let learner = Learner::new(plan, Box::new(network), source(), [3, 4, 4], classes).unwrap();
    calls.lock().unwrap().clear();
    (learner, calls)
}

fn images() -> StepImages {
    let x0 = randn(5, Purpose::Test, 0, 0, &[8, 3, 4, 4], &Device::Cpu).unwrap();
    x0.clamp(-1.0, 1.0).unwrap().into()
}

fn labelled() -> StepImages {
    StepImages {
        labels: Some((0..8).map(|i| i % 3).collect()),
        augment: Some(Tensor::ones((8, 2), DType::F32, &Device::Cpu).unwrap()),
        ..images()
    }
}

#[test]
fn labels_are_dropped_as_the_step_says_and_auxiliary_inputs_get_the_null_class() {
    let run = || {
        let (mut learner, calls) = learner(&plan(), 3);
        for step in 0..4 {
            learner.step(step, labelled()).unwrap();
        }
        let seen = calls.lock().unwrap();
        seen.clone()
    };
    let calls = run();
    // Parts of 3, 3 and 2 images, each with as many auxiliary inputs.
    assert_eq!(calls.len(), 4 * 3);
    let mut of_images = Vec::new();
    for (i, (labels, augment)) in calls.iter().enumerate() {
        let (labels, augment) = (labels.as_ref().unwrap(), augment.as_ref().unwrap());
        let n = if i % 3 == 2 { 2 } else { 3 };
        assert_eq!((labels.len(), augment.len()), (2 * n, 2 * n));
        assert!(labels[n..].iter().all(|&label| label == 3), "{labels:?}");
        assert!(augment[..n].iter().flatten().all(|&v| v == 1.0));
        assert!(augment[n..].iter().flatten().all(|&v| v == 0.0));
        of_images.extend_from_slice(&labels[..n]);
    }
    let kept = of_images
        .iter()
        .enumerate()
        .filter(|(_, label)| **label != 3);
    let kept: Vec<_> = kept.collect();
    assert!((6..26).contains(&kept.len()), "{of_images:?}");
    assert!(kept.iter().all(|(i, label)| **label == (i % 8 % 3) as u32));
    assert_eq!(run(), calls);
    // Without dropout there is no null class.
    let mut all = plan();
    all.loss.label_dropout = 0.0;
    let (mut learner, calls) = learner(&all, 3);
    learner.step(0, labelled()).unwrap();
    let (labels, _) = calls.lock().unwrap()[0].clone();
    assert_eq!(labels.unwrap(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn images_without_the_labels_that_a_run_has_are_refused() {
    let error = |classes, images: StepImages| {
        let (mut learner, _) = learner(&plan(), classes);
        learner.step(0, images).unwrap_err().to_string()
    };
    assert!(error(3, images()).contains("expected images with labels"));
    assert!(error(0, labelled()).contains("expected images with no labels"));
}

#[test]
fn a_source_with_classes_sees_the_class_of_each_label() {
    let mut config = tiny_config();
    config.num_classes = 5;
    let params = nonzero_params(Unet::specs(&config).unwrap(), 3);
    let network = Unet::load(&params, &config).unwrap();
    let shape = [2, config.in_channels, config.image_size, config.image_size];
    let x = randn(5, Purpose::Test, 1, 0, &shape, &Device::Cpu).unwrap();
    let numbers = |prediction: Prediction| -> Vec<f32> {
        let flat = prediction.output.flatten_all().unwrap();
        flat.to_vec1().unwrap()
    };
    let condition = Condition {
        labels: Some(&[4, 2]),
        ..Condition::default()
    };
    let expected = numbers(network.predict_with(&x, &[9.0, 9.0], &condition).unwrap());
    let source = Source::Conditional {
        network: Box::new(network),
        labels: Some(vec![4, 2, 4]),
        takes_augment: false,
        channels: None,
    };
    let of = |labels: &[u32]| source.predict(&x, &[9.0, 9.0], Some(labels), None);
    assert_eq!(numbers(of(&[0, 1]).unwrap()), expected);
    assert_eq!(numbers(of(&[2, 1]).unwrap()), expected);
    assert_ne!(numbers(of(&[1, 1]).unwrap()), expected);
    assert!(of(&[0, 3]).unwrap_err().to_string().contains("label 3"));
    assert!(source.predict(&x, &[9.0, 9.0], None, None).is_err());
}

#[test]
fn a_mask_of_ones_changes_no_number_and_masked_pixels_no_loss() {
    let report = |mask: Option<Tensor>, x0: Option<Tensor>| {
        let (mut learner, _) = learner(&plan(), 0);
        let images = StepImages {
            x0: x0.unwrap_or(images().x0),
            mask,
            ..images()
        };
        match learner.step(0, images).unwrap() {
            Outcome::Updated { report, grad_norm } => (report, grad_norm),
            Outcome::Skipped { what } => panic!("{what}"),
        }
    };
    let ones = Tensor::ones((8, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(report(Some(ones.clone()), None), report(None, None));
    // Whatever is in the lower half, the loss is that of the upper half.
    let half = ones
        .narrow(2, 0, 2)
        .unwrap()
        .pad_with_zeros(2, 0, 2)
        .unwrap();
    let x0 = images().x0;
    let upper = x0.broadcast_mul(&half).unwrap();
    assert_ne!(report(Some(half.clone()), None), report(None, None));
    assert_eq!(
        report(Some(half.clone()), Some(upper)).0,
        report(Some(half), Some(x0)).0
    );
}

/// A denoiser is a source, too.
#[test]
fn a_denoiser_ignores_labels() {
    let double = |x: &Tensor, _: &[f32]| x * 2.0;
    let source = Source::from(Box::new(double) as Box<dyn Denoiser>);
    let x = images().x0;
    assert!(source.predict(&x, &[1.0; 8], Some(&[7; 8]), None).is_ok());
}
