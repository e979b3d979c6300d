//! Identities of whole networks, which hold for every kernel.

use candle_core::Device;
use sdft_adm::{AdmConfig, Unet};
use sdft_diffusion::{Diffusion, Variance};
use sdft_losses::{Auxiliary, NoisedBatch, Objective};
use sdft_nn::Params;
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, sample_ddim};
use sdft_schedule::{BetaSchedule, Respacing, Schedule};
use sdft_testing::{nonzero_params, tiny_config};

fn respaced(text: &str) -> Diffusion {
    let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
    Diffusion::new(
        full.respaced(&text.parse::<Respacing>().unwrap()).unwrap(),
        Variance::FixedLarge,
    )
}

/// A small network whose output is not zero.
fn small() -> (AdmConfig, Params) {
    let config = AdmConfig {
        model_channels: 16,
        num_head_channels: 16,
        norm_groups: 8,
        ..tiny_config()
    };
    let params = nonzero_params(Unet::specs(&config).unwrap(), 11);
    (config, params)
}

#[test]
fn a_student_that_equals_its_teacher_has_no_distillation_gradient() {
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
    let aux_levels = diffusion.levels(&aux_t).unwrap();
    let weights = objective.aux_weights(&aux_levels);
    let aux = Auxiliary {
        z: &z,
        levels: &aux_levels,
        weights: &weights,
    };
    let levels = diffusion.levels(&t).unwrap();
    let batch = NoisedBatch::new(&x0, &levels, &eps);
    for of_images in [true, false] {
        // A record serves one backward pass.
        let terms = objective
            .evaluate(&diffusion, &student, Some(&teacher), &batch, Some(&aux))
            .unwrap();
        let term = if of_images { terms.distill } else { terms.aux }.unwrap();
        assert_eq!(term.to_scalar::<f32>().unwrap(), 0.0);
        let gradients = sdft_autograd::backward(&term).unwrap();
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
