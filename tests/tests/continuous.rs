//! One EDM network read in two ways: as a network of the variance-preserving process, and as the denoiser D(x; sigma).

use candle_core::{DType, Device, Tensor};
use sdft_diffusion::{
    Condition, Continuous, Diffusion, Level, Precond, PredictionType, Process, predict_at, q_sample,
};
use sdft_edm::{EdmConfig, EdmNet, ModelConfig, SongUnetConfig};
use sdft_losses::{Auxiliary, NoisedBatch, Objective, Terms};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, DpmSolver, Heun, sample_ddim, sample_dpm, sample_heun};
use sdft_schedule::{Respacing, Weighting};
use sdft_testing::{max_abs_diff, nonzero_params};

const PRECONDS: [Precond; 3] = [Precond::EDM, Precond::VP, Precond::VE];

fn net(precond: Precond, seed: u64) -> EdmNet {
    let config = EdmConfig {
        precond,
        img_resolution: 8,
        model: ModelConfig::SongUNet(SongUnetConfig {
            model_channels: 8,
            channel_mult: vec![1, 2],
            num_blocks: 1,
            attn_resolutions: vec![4],
            ..SongUnetConfig::default()
        }),
        ..EdmConfig::default()
    };
    let params = nonzero_params(EdmNet::specs(&config).unwrap(), seed);
    EdmNet::load(&params, &config).unwrap()
}

fn process(precond: &Precond) -> Diffusion {
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(Continuous::of(precond)),
        ..Process::default()
    };
    process.diffusion(false, &Respacing::All).unwrap()
}

fn normal(first: u64) -> Tensor {
    let noise = SeededNoise::new(1, first);
    noise.start(&[4, 3, 8, 8], &Device::Cpu).unwrap()
}

#[test]
fn weight_and_noise_agree_between_both_readings() {
    const T: [usize; 4] = [3, 200, 600, 900];
    for precond in PRECONDS {
        let (net, diffusion) = (net(precond, 5), process(&precond));
        let (x0, n) = ((normal(0) * 0.5).unwrap(), normal(4));
        let levels = diffusion.levels(&T).unwrap();
        // The variance-preserving reading, at alpha_bar.
        let xt = q_sample(&x0, &levels, &n).unwrap();
        let eps = predict_at(&net, &xt, &levels).unwrap().eps(&xt, &levels);
        // EDM's reading, at sigma.
        let ab = diffusion.schedule.alpha_bar();
        let sigmas: Vec<f64> = T.iter().map(|&t| ((1.0 - ab[t]) / ab[t]).sqrt()).collect();
        let sigma = Tensor::new(sigmas.as_slice(), &Device::Cpu).unwrap();
        let sigma = sigma.reshape((4, 1, 1, 1)).unwrap();
        let sigma = sigma.to_dtype(DType::F32).unwrap();
        let x = (&x0 + n.broadcast_mul(&sigma).unwrap()).unwrap();
        let times: Vec<f32> = sigma.flatten_all().unwrap().to_vec1().unwrap();
        let clean = net.denoise(&x, &times, &Condition::default()).unwrap();
        let noise = (x - clean).unwrap().broadcast_div(&sigma).unwrap();
        // Rounding of D is divided by the smallest sigma, 0.02.
        let difference = max_abs_diff(&eps.unwrap(), &noise);
        assert!(difference < 1e-4, "{}: {difference}", precond.name());
        for gamma in [1.0, 3.0, 50.0] {
            let weighting = Weighting::Snr { k: 1.0, gamma };
            for (level, sigma) in levels.iter().zip(&sigmas) {
                let of_sigma = (sigma * sigma / (1.0 + sigma * sigma)).powf(gamma);
                let of_level = weighting.at(level.snr());
                assert!(
                    (of_level / of_sigma - 1.0).abs() < 1e-9,
                    "{of_level} {of_sigma}"
                );
            }
        }
    }
}

#[test]
fn the_objective_is_the_same_at_steps_and_at_their_sigma() {
    let (student, teacher) = (net(Precond::EDM, 5), net(Precond::EDM, 6));
    let diffusion = process(&Precond::EDM);
    let steps = diffusion.levels(&[3, 200, 600, 900]).unwrap();
    let sigmas: Vec<Level> = steps.iter().map(|l| Level::of_sigma(l.sigma())).collect();
    let (x0, noise, z) = ((normal(0) * 0.5).unwrap(), normal(4), normal(8));
    let objective = Objective {
        base: Weighting::Edm { sigma_data: 0.5 },
        ..Objective::metfaces(false)
    };
    let evaluate = |levels: &[Level]| -> Terms {
        let weights = objective.aux_weights(levels);
        let aux = Auxiliary {
            z: &z,
            levels,
            weights: &weights,
        };
        let batch = NoisedBatch::new(&x0, levels, &noise);
        objective
            .evaluate(&diffusion, &student, Some(&teacher), &batch, Some(&aux))
            .unwrap()
    };
    let (a, b) = (
        evaluate(&steps).report().unwrap(),
        evaluate(&sigmas).report().unwrap(),
    );
    let close = |a: f64, b: f64| a > 0.0 && (a / b - 1.0).abs() < 1e-5;
    assert!(close(a.base, b.base), "{a:?} {b:?}");
    assert!(close(a.distill.unwrap(), b.distill.unwrap()), "{a:?} {b:?}");
    assert!(close(a.aux.unwrap(), b.aux.unwrap()), "{a:?} {b:?}");
}

#[test]
fn ddim_heun_and_dpm_solver_follow_the_same_flow() {
    let (net, diffusion) = (net(Precond::EDM, 5), process(&Precond::EDM));
    let mut noise = SeededNoise::new(3, 0);
    let x = noise.start(&[2, 3, 8, 8], &Device::Cpu).unwrap();
    let quiet = &mut |_: &sdft_samplers::Step<'_>| Ok(());
    let unclipped = Ddim {
        clip: sdft_diffusion::Clip::No,
        ..Ddim::default()
    };
    let ddim = sample_ddim(&diffusion, &net, &x, &unclipped, &mut noise, quiet).unwrap();
    let heun = Heun {
        steps: 60,
        ..Heun::default()
    };
    let heun = sample_heun(&diffusion, &net, &x, &heun, &mut noise, quiet).unwrap();
    let dpm = DpmSolver {
        steps: 60,
        clip: sdft_diffusion::Clip::No,
    };
    let dpm = sample_dpm(&diffusion, &net, &x, &dpm, quiet).unwrap();
    let size = max_abs_diff(&dpm, &dpm.zeros_like().unwrap());
    for (name, other) in [("ddim", ddim), ("heun", heun)] {
        let difference = max_abs_diff(&dpm, &other) / size;
        assert!(difference < 0.03, "{name}: {difference}");
    }
}
