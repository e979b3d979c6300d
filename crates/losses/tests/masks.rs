//! The loss of an image is a mean over the pixels that take part.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_diffusion::{Denoiser, Diffusion, Prediction, PredictionType, Variance};
use sdft_losses::{Auxiliary, NoisedBatch, Objective, Report};
use sdft_schedule::{BetaSchedule, Schedule};

/// A prediction with a gradient of its own at every pixel.
struct Pixels(Tensor);

impl Denoiser for Pixels {
    fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
        Ok(Prediction {
            output: (xt * 0.3)?.broadcast_add(&self.0)?,
            prediction_type: PredictionType::Epsilon,
            variance: Some((xt * 0.2)?.broadcast_add(&self.0)?),
        })
    }
}

fn wave(n: i32, phase: f64) -> Tensor {
    let data: Vec<f32> = (0..n * 3 * 4 * 4)
        .map(|i| (0.37 * f64::from(i) + phase).sin() as f32)
        .collect();
    Tensor::from_vec(data, (n as usize, 3, 4, 4), &Device::Cpu).unwrap()
}

/// The loss of two images, and its gradient at each of the 4x4 pixels.
fn loss(mask: Option<&Tensor>, has_aux: bool) -> (Report, Vec<f32>) {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let diffusion = Diffusion::new(schedule, Variance::LearnedRange);
    let bias = Var::zeros((1, 3, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let student = Pixels(bias.as_tensor().clone());
    let source = Pixels(Tensor::full(0.5f32, (1, 3, 1, 1), &Device::Cpu).unwrap());
    let (x0, noise, z) = (wave(2, 0.1), wave(2, 1.3), wave(1, 2.2));
    // Step 0 has the decoder's likelihood as its variational term.
    let levels = diffusion.levels(&[0, 300]).unwrap();
    let aux_levels = diffusion.levels(&[990]).unwrap();
    let batch = NoisedBatch {
        importance: Some(&[0.5, 2.0]),
        distill: Some(&[0.0, 1.5]),
        mask,
        ..NoisedBatch::new(&x0, &levels, &noise)
    };
    let aux = has_aux.then_some(Auxiliary {
        z: &z,
        levels: &aux_levels,
        weights: &[1.0],
    });
    let paper = Objective::metfaces(true);
    let objective = Objective {
        aux: paper.aux.filter(|_| has_aux),
        ..paper
    };
    let terms = objective
        .evaluate(&diffusion, &student, Some(&source), &batch, aux.as_ref())
        .unwrap();
    let store = terms.total.backward().unwrap();
    let gradient = store.get(&bias).unwrap().mean_keepdim(1).unwrap();
    let gradient = gradient.flatten_all().unwrap().to_vec1().unwrap();
    (terms.report().unwrap(), gradient)
}

#[test]
fn masked_pixels_get_no_gradient_and_a_mask_of_ones_changes_nothing() {
    // The left half of both images takes no part.
    let right = |i: i32| f32::from(u8::from(i % 4 >= 2));
    let mask: Vec<f32> = (0..32).map(right).collect();
    let mask = Tensor::from_vec(mask, (2, 1, 4, 4), &Device::Cpu).unwrap();
    let (report, masked) = loss(Some(&mask), false);
    assert!(report.vb.is_some() && report.distill.is_some());
    for (i, value) in masked.iter().enumerate() {
        assert_eq!(*value != 0.0, i % 4 >= 2, "{i}: {masked:?}");
    }
    // Pure noise has no mask.
    let (_, with_aux) = loss(Some(&mask), true);
    assert!(with_aux.iter().all(|value| *value != 0.0), "{with_aux:?}");
    let ones = mask.ones_like().unwrap();
    assert_eq!(loss(Some(&ones), true), loss(None, true));
}

#[test]
fn images_count_alike_however_much_of_them_takes_part() {
    let one = |rows: usize| {
        let mask = Tensor::ones((1, 1, rows, 4), DType::F32, &Device::Cpu).unwrap();
        mask.pad_with_zeros(2, 0, 4 - rows).unwrap()
    };
    let all = Tensor::cat(&[one(4), one(4)], 0).unwrap();
    let few = Tensor::cat(&[one(1), one(1)], 0).unwrap();
    let sum = |mask: &Tensor| {
        loss(Some(mask), false)
            .1
            .iter()
            .map(|g| g.abs())
            .sum::<f32>()
    };
    let (of_all, of_few) = (sum(&all), sum(&few));
    assert!(
        of_few > of_all / 3.0 && of_few < of_all * 3.0,
        "{of_few} {of_all}"
    );
    // An image without pixels that take part has no loss.
    let none = all.zeros_like().unwrap();
    let (report, gradient) = loss(Some(&none), false);
    assert_eq!((report.total, gradient), (0.0, vec![0.0; 16]));
}
