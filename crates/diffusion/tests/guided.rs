//! Classifier-free guidance follows its formula for every prediction type.

use candle_core::{Device, Result, Tensor, bail};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Diffusion, Edited, FeatureNet, Guided,
    Network, Prediction, PredictionType, Variance,
};
use sdft_schedule::{BetaSchedule, Schedule};
use std::sync::Mutex;

/// Predicts `x (label + 1) / 10 + t / 1000`, and a variance of `x (label + 1)`.
struct Net {
    kind: PredictionType,
    /// Images of each call.
    calls: Mutex<Vec<usize>>,
}

impl Net {
    fn new(kind: PredictionType) -> Self {
        Self {
            kind,
            calls: Mutex::default(),
        }
    }
}

impl Network for Net {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        self.calls.lock().unwrap().push(xt.dim(0)?);
        let Some(labels) = condition.labels.filter(|labels| labels.len() == t.len()) else {
            bail!("expected {} labels", t.len());
        };
        let each = |values: Vec<f64>| Tensor::from_vec(values, (t.len(), 1, 1, 1), &Device::Cpu);
        let factor = each(labels.iter().map(|&y| f64::from(y + 1)).collect())?;
        let times = each(t.iter().map(|&t| f64::from(t) / 1000.0).collect())?;
        let scaled = xt.broadcast_mul(&factor)?;
        let output = (&scaled / 10.0)?.broadcast_add(&times)?;
        Ok(Prediction {
            variance: Some(scaled),
            ..Prediction::new(output, self.kind)
        })
    }

    fn predict_edited_with(
        &self,
        _: &Tensor,
        _: &[f32],
        _: &Condition<'_>,
        _: &mut Change<'_>,
    ) -> Result<Edited> {
        bail!("not edited")
    }

    fn n_classes(&self) -> usize {
        4
    }
}

impl Denoiser for Net {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.predict_with(xt, t, &Condition::default())
    }
}

impl FeatureNet for Net {
    fn features(&self, xt: &Tensor, _: &[f32]) -> Result<Tensor> {
        Ok(xt.clone())
    }
}

impl BottleneckNet for Net {
    fn predict_edited(&self, _: &Tensor, _: &[f32], _: &mut Change<'_>) -> Result<Edited> {
        bail!("not edited")
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: 1,
            embedding: 1,
        }
    }
}

const LABELS: [u32; 2] = [0, 2];
const STEPS: [usize; 2] = [10, 700];

fn xt() -> Tensor {
    Tensor::new(&[0.3f64, -0.8, 1.7, 0.1], &Device::Cpu)
        .unwrap()
        .reshape((2, 1, 1, 2))
        .unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn guided(net: &Net, null: Option<u32>, guidance: f64) -> Guided<'_> {
    Guided {
        net,
        labels: &LABELS,
        null,
        guidance,
    }
}

#[test]
fn the_output_is_that_of_the_formula_for_every_prediction_type() {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let diffusion = Diffusion::new(schedule, Variance::FixedSmall);
    for kind in PredictionType::ALL {
        let (net, times) = (Net::new(kind), STEPS.map(|t| t as f32));
        let given = |labels: &[u32]| {
            let condition = Condition {
                labels: Some(labels),
                ..Condition::default()
            };
            net.predict_with(&xt(), &times, &condition).unwrap()
        };
        let (conditional, null) = (given(&LABELS), given(&[3, 3]));
        net.calls.lock().unwrap().clear();
        for guidance in [0.0, 0.5, 2.0, -1.0] {
            let found = guided(&net, Some(3), guidance).predict(&xt(), &times);
            let found = found.unwrap();
            // Also of the noise, the image and the velocity that are implied.
            for space in PredictionType::ALL {
                let [c, n, f] = [&conditional, &null, &found].map(|prediction| {
                    values(&diffusion.convert(prediction, space, &xt(), &STEPS).unwrap())
                });
                for ((c, n), f) in c.iter().zip(n).zip(f) {
                    let expected = n + guidance * (c - n);
                    assert!((f - expected).abs() < 1e-9, "{kind} {space} {guidance}");
                }
            }
            let variance = found.variance.unwrap();
            assert_eq!(
                values(&variance),
                values(conditional.variance.as_ref().unwrap())
            );
        }
        assert_eq!(
            *net.calls.lock().unwrap(),
            [4; 4],
            "one batch of twice the size"
        );
    }
}

#[test]
fn a_guidance_of_one_is_the_conditional_prediction_alone() {
    let net = Net::new(PredictionType::Epsilon);
    let condition = Condition {
        labels: Some(&LABELS),
        ..Condition::default()
    };
    let expected = net.predict_with(&xt(), &[5.0, 6.0], &condition).unwrap();
    for null in [None, Some(3)] {
        let found = guided(&net, null, 1.0).predict(&xt(), &[5.0, 6.0]).unwrap();
        assert_eq!(values(&found.output), values(&expected.output));
    }
    assert_eq!(*net.calls.lock().unwrap(), [2; 3]);
}

#[test]
fn guidance_needs_a_null_class_a_number_and_a_label_for_each_image() {
    let net = Net::new(PredictionType::Epsilon);
    let error =
        |guided: Guided<'_>, x: &Tensor, t: &[f32]| guided.predict(x, t).unwrap_err().to_string();
    let text = error(guided(&net, None, 2.0), &xt(), &[1.0; 2]);
    assert!(
        text.contains("expected a network with a null class"),
        "{text}"
    );
    let text = error(guided(&net, Some(3), f64::NAN), &xt(), &[1.0; 2]);
    assert!(text.contains("expected a finite number"), "{text}");
    let one = xt().narrow(0, 0, 1).unwrap();
    let text = error(guided(&net, Some(3), 2.0), &one, &[1.0]);
    assert!(text.contains("expected 1 class labels, found 2"), "{text}");
}
