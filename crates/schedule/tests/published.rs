//! Published values of the linear schedule, and properties of every schedule.

use sdft_schedule::{
    BetaSchedule, Respacing, Schedule, ScheduleError, WeightedTimesteps, Weighting,
};

fn linear() -> Schedule {
    Schedule::new(BetaSchedule::Linear, 1000).unwrap()
}

/// All schedules under test.
fn schedules() -> Vec<Schedule> {
    let cosine = Schedule::new(BetaSchedule::Cosine, 1000).unwrap();
    let respaced = |schedule: &Schedule, text: &str| {
        let respacing: Respacing = text.parse().unwrap();
        schedule.respaced(&respacing).unwrap()
    };
    vec![
        respaced(&linear(), "ddim40"),
        respaced(&linear(), "250"),
        respaced(&cosine, "10,15,20"),
        Schedule::new(BetaSchedule::Linear, 250).unwrap(),
        linear(),
        cosine,
    ]
}

fn close(got: f64, expected: f64, rtol: f64) {
    let tolerance = rtol * expected.abs();
    assert!(
        (got - expected).abs() <= tolerance,
        "{got} instead of {expected}"
    );
}

fn strictly_decreasing(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] > pair[1])
}

#[test]
fn linear_1000_has_the_published_values() {
    let s = linear();
    for (t, alpha_bar, snr, log_variance) in [
        (0, 0.9999, 9999.0000000011, -9.81672513529595),
        (1, 0.9997800920720721, 4546.357657463682, -9.81672513529595),
        (10, 0.997806572507846, 454.9074797671889, -8.260755607350609),
        (
            100,
            0.8951415908975365,
            8.53666957718994,
            -6.187696714993804,
        ),
        (
            250,
            0.5214230306185275,
            1.08952804664301,
            -5.288026530488059,
        ),
        (
            499,
            0.07858724288177824,
            0.08528994446263671,
            -4.602039550085141,
        ),
        (
            500,
            0.07779665836502389,
            0.08435954941032642,
            -4.600049739984903,
        ),
        (
            750,
            0.003300158361569426,
            0.003311085467962327,
            -4.197096514031465,
        ),
        (
            999,
            4.035829765375676e-05,
            4.0359926511746025e-05,
            -3.912023829100454,
        ),
    ] {
        close(s.alpha_bar()[t], alpha_bar, 1e-13);
        close(s.snr()[t], snr, 1e-10);
        close(s.posterior_log_variance_clipped()[t], log_variance, 1e-11);
    }
}

#[test]
fn distillation_weights_have_the_published_values_and_means() {
    let s = linear();
    let check = |gamma: f64, values: &[(usize, f64)], mean: f64| {
        let weights = Weighting::Snr { k: 1.0, gamma }.weights(&s);
        for &(t, expected) in values {
            close(weights[t], expected, 6e-3);
        }
        let got = weights.iter().sum::<f64>() / weights.len() as f64;
        close(got, mean, 1e-6);
        close(WeightedTimesteps::new(&weights).unwrap().mean(), mean, 1e-6);
    };
    let gamma_3 = [
        (0, 1e-12),
        (100, 0.00115295),
        (300, 0.222533),
        (500, 0.784296),
        (999, 0.999879),
    ];
    check(3.0, &gamma_3, 0.596_738_3);
    let gamma_50 = [
        (0, 1e-200),
        (200, 6.4e-24),
        (500, 0.0174315),
        (750, 0.847656),
        (999, 0.997984),
    ];
    check(50.0, &gamma_50, 0.340_738_1);
}

#[test]
fn p2_weights_have_the_published_values() {
    let s = linear();
    for (gamma, values) in [
        (
            0.5,
            [
                0.01, 0.32381848, 0.69179258, 0.96031419, 0.99834856, 0.99997982,
            ],
        ),
        (
            1.0,
            [
                1e-4, 0.10485841, 0.47857697, 0.92220334, 0.99669984, 0.99995964,
            ],
        ),
    ] {
        let weights = Weighting::P2 { k: 1.0, gamma }.weights(&s);
        for (t, expected) in [0, 100, 250, 500, 750, 999].into_iter().zip(values) {
            close(weights[t], expected, 1e-7);
        }
    }
}

#[test]
fn ddim40_has_the_published_betas() {
    let s = linear().respaced(&Respacing::Ddim(40)).unwrap();
    close(s.betas()[0], 9.999999999999e-05, 1e-12);
    close(s.betas()[1], 0.008935680485576, 1e-11);
    close(s.betas()[2], 0.02120530489870, 1e-11);
    close(s.betas()[38], 0.377548345869, 1e-11);
    close(s.betas()[39], 0.385398283918, 1e-11);
    close(s.alpha_bar()[39], 6.51734895546013e-05, 1e-12);
    assert_eq!((s.n_steps(), s.n_original_steps()), (40, 1000));
    assert_eq!(s.timestep_map()[39], 975);
}

#[test]
fn the_image_fades_with_every_step() {
    for s in schedules() {
        assert!(strictly_decreasing(s.alpha_bar()) && strictly_decreasing(s.snr()));
        assert!(s.alpha_bar().iter().all(|a| (0.0..1.0).contains(a)));
        assert_eq!(s.alpha_bar_prev()[1..], s.alpha_bar()[..s.n_steps() - 1]);
        assert_eq!(s.alpha_bar_next()[..s.n_steps() - 1], s.alpha_bar()[1..]);
        assert_eq!(s.alpha_bar_prev()[0], 1.0);
        assert_eq!(s.alpha_bar_next()[s.n_steps() - 1], 0.0);
        assert_eq!(s.posterior_variance()[0], 0.0);
    }
}

#[test]
fn weights_fall_with_the_signal_to_noise_ratio() {
    for s in schedules() {
        for text in [
            "p2",
            "snr-3",
            "snr-50",
            "snr-1-k0.3",
            "p2-0.5",
            "min-snr-5-eps",
        ] {
            let weights = text.parse::<Weighting>().unwrap().weights(&s);
            assert!(weights.windows(2).all(|pair| pair[0] <= pair[1]), "{text}");
        }
        let growing = "min-snr-5".parse::<Weighting>().unwrap().weights(&s);
        assert!(growing.windows(2).all(|pair| pair[0] >= pair[1]) && growing[0] == 5.0);
        assert!(Weighting::Constant.weights(&s).iter().all(|&w| w == 1.0));
    }
}

#[test]
fn with_k_1_the_weight_is_a_power_of_the_noise_variance() {
    for s in schedules() {
        for gamma in [0.5, 1.0, 3.0] {
            let weights = Weighting::Snr { k: 1.0, gamma }.weights(&s);
            for (weight, alpha_bar) in weights.iter().zip(s.alpha_bar()) {
                close(*weight, (1.0 - alpha_bar).powf(gamma), 1e-9);
            }
        }
    }
}

#[test]
fn the_posterior_mean_of_a_noiseless_step_is_consistent() {
    // For x_t = sqrt(alpha_bar_t) x0 the posterior mean is sqrt(alpha_bar_{t-1}) x0.
    for s in schedules() {
        for t in 0..s.n_steps() {
            let mean =
                s.posterior_mean_coef1()[t] + s.posterior_mean_coef2()[t] * s.sqrt_alpha_bar()[t];
            close(mean, s.alpha_bar_prev()[t].sqrt(), 1e-9);
        }
    }
}

#[test]
fn respacing_keeps_alpha_bar_and_composes() {
    let full = linear();
    let sections: Respacing = "250".parse().unwrap();
    let once = full.respaced(&sections).unwrap();
    for (j, &t) in once.timestep_map().iter().enumerate() {
        close(once.alpha_bar()[j], full.alpha_bar()[t], 1e-12);
    }
    let twice = once.respaced(&Respacing::Ddim(50)).unwrap();
    assert_eq!(twice.n_original_steps(), 1000);
    assert!((0..50).all(|j| twice.timestep_map()[j] == once.timestep_map()[5 * j]));
    assert_eq!(
        full.respaced(&Respacing::All).unwrap().timestep_map(),
        full.timestep_map()
    );
}

#[test]
fn invalid_processes_are_refused() {
    let one = Schedule::from_betas(vec![0.5]).unwrap_err();
    assert_eq!(
        one.to_string(),
        "a diffusion process needs at least 2 steps, found 1"
    );
    assert!(Schedule::from_betas(Vec::new()).is_err());
    assert!(linear().respaced(&Respacing::Sections(vec![1])).is_err());
    assert!(linear().respaced(&Respacing::Ddim(41)).is_err());
    for bad in [0.0, -0.1, 1.1, f64::NAN] {
        let error = Schedule::from_betas(vec![0.1, bad]).unwrap_err();
        assert!(
            matches!(error, ScheduleError::BetaOutOfRange { index: 1, .. }),
            "{error}"
        );
    }
}
