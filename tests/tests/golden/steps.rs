//! Single steps of the sampler with 40 of 1000 steps.

use crate::{assert_tensor, s, tiny, tiny_unet, values};
use sdft_diffusion::{Clip, Diffusion, Variance};
use sdft_samplers::{Ddim, ddim_reverse_step, ddim_step};
use sdft_schedule::{BetaSchedule, Schedule};

#[test]
fn single_steps_of_the_respaced_sampler_agree() {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000)
        .unwrap()
        .respaced(&"ddim40".parse().unwrap())
        .unwrap();
    let diffusion = Diffusion::new(schedule, Variance::LearnedRange);
    let (unet, x, t) = (tiny_unet(&tiny()), s(&[2, 3, 16, 16]), 20);
    let prediction = diffusion.predict(&unet, &x, &[t, t]).unwrap();
    let step = |clip| {
        ddim_step(
            &diffusion,
            &prediction,
            &x,
            t,
            &Ddim {
                clip,
                ..Ddim::default()
            },
            None,
        )
        .unwrap()
        .next
    };
    assert_tensor(
        &step(Clip::Yes),
        24.102_002,
        1_011.876_343,
        &[-0.020_031_7, 0.030_928_5, 0.105_160_5, 0.158_373],
        &[],
        2e-5,
    );
    assert_tensor(&step(Clip::No), 37.067_006, 1_088.453_793, &[], &[], 0.0);
    let next = ddim_reverse_step(&diffusion, &prediction, &x, t, Clip::No)
        .unwrap()
        .next;
    assert_tensor(
        &next,
        -3.057_567,
        874.377_946,
        &[0.018_355, 0.067_370_8, 0.094_823_2, 0.141_058_1],
        &[],
        2e-5,
    );
    let last = diffusion.predict(&unet, &x, &[39, 39]).unwrap();
    let latent = ddim_reverse_step(&diffusion, &last, &x, 39, Clip::No)
        .unwrap()
        .next;
    assert_tensor(&latent, -136.650_316, 348.690_928, &[], &[], 0.0);
    assert_eq!(values(&latent), values(&last.output));
    let reverse = diffusion
        .reverse(&prediction, &x, &[t, t], Clip::Yes)
        .unwrap();
    assert_tensor(&reverse.mean, 29.206_003, 931.777_37, &[], &[], 0.0);
    assert_tensor(
        &reverse.log_variance,
        -2_355.248_653,
        2_355.248_653,
        &[-1.531_478_9, -1.531_545_9, -1.532_298_1],
        &[],
        2e-5,
    );
}
