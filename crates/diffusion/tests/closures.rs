//! A closure is a denoiser.

use candle_core::{DType, Device, Tensor};
use sdft_diffusion::{Denoiser, Diffusion, Prediction, PredictionType, Variance};
use sdft_schedule::{BetaSchedule, Schedule};

#[test]
fn a_closure_predicts_the_noise_or_what_its_prediction_says() {
    let xt = Tensor::full(0.5f32, (2, 3, 4, 4), &Device::Cpu).unwrap();
    let scaled = |xt: &Tensor, t: &[f32]| xt * f64::from(t[0]);
    let predicted = scaled.predict(&xt, &[3.0, 3.0]).unwrap();
    assert_eq!(predicted.prediction_type, PredictionType::Epsilon);
    assert_eq!(
        predicted
            .output
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
        1.5
    );

    // Through the trait object that samplers and losses take, with values that the closure borrows.
    let image = Tensor::zeros((2, 3, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let clean = |_: &Tensor, _: &[f32]| Ok(Prediction::new(image.clone(), PredictionType::Sample));
    let schedule = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    let diffusion = Diffusion::new(schedule, Variance::FixedLarge);
    let predicted = diffusion.predict(&clean, &xt, &[10, 20]).unwrap();
    let x0 = diffusion.x0(&predicted, &xt, &[10, 20]).unwrap();
    assert_eq!(
        x0.abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
        0.0
    );
}
