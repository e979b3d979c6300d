//! A process whose last step is pure noise, and processes of one step.

use candle_core::{Device, Tensor};
use sdft_diffusion::{Clip, Prediction, PredictionType, Process, Sampling};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ancestral, Ddim, invert_ddim, sample_ddim, sample_ddpm};
use sdft_schedule::{Respacing, Spacing, Weighting};

fn is_finite(x: &Tensor) -> bool {
    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.iter().all(|value| value.is_finite())
}

#[test]
fn without_signal_everything_stays_finite() {
    let trailing = Sampling {
        timestep_spacing: Spacing::Trailing,
        ..Sampling::default()
    };
    for kind in [PredictionType::Sample, PredictionType::V] {
        for sampling in [None, Some(trailing)] {
            let process = Process {
                rescale_betas_zero_snr: true,
                prediction_type: kind,
                sampling,
                ..Process::default()
            };
            let full = process.diffusion(false, &Respacing::All).unwrap();
            let schedule = &full.schedule;
            assert_eq!((schedule.alpha_bar()[999], schedule.snr()[999]), (0.0, 0.0));
            for text in ["p2", "snr-3", "min-snr-5", "min-snr-5-eps", "min-snr-5-v"] {
                let weights = text.parse::<Weighting>().unwrap().weights(schedule);
                assert!(weights.iter().all(|weight| weight.is_finite()), "{text}");
            }
            let diffusion = process.diffusion(false, &"10".parse().unwrap()).unwrap();
            assert_eq!(diffusion.schedule.alpha_bar()[9], 0.0);
            let network = |x: &Tensor, _: &[f32]| Ok(Prediction::new(x.affine(0.25, 0.1)?, kind));
            let mut noise = SeededNoise::new(3, 0);
            let x = noise.start(&[2, 3, 4, 4], &Device::Cpu).unwrap();
            for clip in [Clip::Yes, Clip::No] {
                for eta in [0.0, 1.0] {
                    let start = None;
                    let options = Ddim { eta, clip, start };
                    let images =
                        sample_ddim(&diffusion, &network, &x, &options, &mut noise, &mut |_| {
                            Ok(())
                        });
                    assert!(is_finite(&images.unwrap()), "{kind} {clip:?} {eta}");
                }
                let options = Ancestral { clip, start: None };
                let images =
                    sample_ddpm(&diffusion, &network, &x, &options, &mut noise, &mut |_| {
                        Ok(())
                    });
                assert!(is_finite(&images.unwrap()), "{kind} {clip:?}");
                let latent = invert_ddim(&diffusion, &network, &x, clip, &mut |_| Ok(()));
                assert!(is_finite(&latent.unwrap()), "{kind} {clip:?}");
            }
        }
    }
    let epsilon = Process {
        rescale_betas_zero_snr: true,
        ..Process::default()
    };
    let error = epsilon.diffusion(false, &Respacing::All).unwrap_err();
    assert!(error.to_string().contains("v_prediction"), "{error}");
}

#[test]
fn one_step_leads_to_the_predicted_image() {
    let kind = PredictionType::V;
    let network = |x: &Tensor, _: &[f32]| Ok(Prediction::new(x.affine(0.25, 0.1)?, kind));
    for timestep_spacing in Spacing::ALL {
        for (sigma_small, rescale_betas_zero_snr) in [(true, false), (false, false), (true, true)] {
            let process = Process {
                prediction_type: kind,
                sigma_small,
                rescale_betas_zero_snr,
                sampling: Some(Sampling {
                    timestep_spacing,
                    ..Sampling::default()
                }),
                ..Process::default()
            };
            let diffusion = process.diffusion(false, &"1".parse().unwrap()).unwrap();
            let mut noise = SeededNoise::new(3, 0);
            let x = noise.start(&[2, 3, 4, 4], &Device::Cpu).unwrap();
            let prediction = diffusion.predict(&network, &x, &[0, 0]).unwrap();
            let image = diffusion.x0(&prediction, &x, &[0, 0]).unwrap();
            let image = diffusion.clamped(image, Clip::Yes).unwrap();
            let ddim = sample_ddim(
                &diffusion,
                &network,
                &x,
                &Ddim::default(),
                &mut noise,
                &mut |_| Ok(()),
            );
            let mut found = vec![ddim.unwrap()];
            // With the larger variance noise enters at every step above 0.
            if sigma_small || timestep_spacing != Spacing::Trailing {
                let options = Ancestral::default();
                let ddpm = sample_ddpm(&diffusion, &network, &x, &options, &mut noise, &mut |_| {
                    Ok(())
                });
                found.push(ddpm.unwrap());
            }
            for found in found {
                let error = (&found - &image).unwrap().abs().unwrap().max_all().unwrap();
                let error = error.to_scalar::<f32>().unwrap();
                assert!(error < 1e-6, "{timestep_spacing} {error}");
            }
        }
    }
    let one = Process {
        unbounded: false,
        sampling: None,
        ..Process::default()
    };
    let error = one.diffusion(false, &"1".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("at least 2 steps"), "{error}");
}
