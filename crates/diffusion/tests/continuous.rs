//! Processes with any noise level: EDM's and a flow.

use sdft_diffusion::{EdmProcess, FlowProcess, PredictionType, Process, TimeUnit};
use sdft_schedule::{Respacing, Weighting};

#[test]
fn a_flow_is_called_with_its_own_time_and_steps_are_its_discrete_view() {
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(FlowProcess::default().into()),
        ..Process::default()
    };
    assert_eq!(process.check(), Ok(()));
    assert_eq!(process.usual_base(), Weighting::Flow);
    let text = serde_json::to_string(&process).unwrap();
    assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), process);
    let diffusion = process.diffusion(false, &Respacing::All).unwrap();
    let level = diffusion.levels(&[700]).unwrap()[0];
    let sigma = level.sigma();
    assert!((f64::from(level.t) - sigma / (1.0 + sigma)).abs() < 1e-6);
    let near = diffusion.level_near(sigma);
    assert!((near.alpha_bar - level.alpha_bar).abs() < 1e-12);
    // Pure noise is a level.
    let noise = diffusion.level_at_tau(1.0);
    assert_eq!((noise.alpha_bar, noise.t, noise.tau()), (0.0, 1.0, 1.0));
    assert_eq!(diffusion.levels_at(&[1.0]).unwrap(), [noise]);
    // A discrete process has its last step instead.
    let last = Process::default()
        .diffusion(false, &Respacing::All)
        .unwrap();
    assert_eq!(last.level_at_tau(1.0).step, Some(999));
    let wrong = Process {
        continuous: Some(
            FlowProcess {
                logit_std: 0.0,
                ..FlowProcess::default()
            }
            .into(),
        ),
        ..process
    };
    assert_eq!(wrong.check().unwrap_err().field, "continuous.logit_std");
}

#[test]
fn a_continuous_process_goes_with_networks_that_predict_the_image() {
    let edm = |change: fn(&mut Process, &mut EdmProcess)| {
        let mut process = Process {
            prediction_type: PredictionType::Sample,
            ..Process::default()
        };
        let mut continuous = EdmProcess::default();
        change(&mut process, &mut continuous);
        process.continuous = Some(continuous.into());
        process
    };
    let plain = edm(|_, _| {});
    assert_eq!(plain.check(), Ok(()));
    let text = serde_json::to_string(&plain).unwrap();
    assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), plain);
    assert!(plain.same_noise(&Process::default()));
    assert!(plain.same_noise(&edm(|_, c| c.sigma_max = 100.0)));
    let diffusion = plain.diffusion(false, &Respacing::All).unwrap();
    assert_eq!(diffusion.time, TimeUnit::Sigma);
    let level = diffusion.levels(&[700]).unwrap()[0];
    assert!((f64::from(level.t) - level.sigma()).abs() < 1e-5 * level.sigma());
    for (process, named) in [
        (
            edm(|p, _| p.rescale_timesteps = true),
            "process.rescale_timesteps",
        ),
        (
            edm(|p, _| p.prediction_type = PredictionType::Epsilon),
            "process.prediction_type",
        ),
        (
            edm(|_, c| c.sigma_min = 0.0),
            "process.continuous.sigma_min",
        ),
        (
            edm(|_, c| c.sigma_max = 0.001),
            "process.continuous.sigma_max",
        ),
        (edm(|_, c| c.p_std = f64::NAN), "process.continuous.p_std"),
    ] {
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
