//! Identities of SDEdit, EGSDE and DDIB that hold for any network.

mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use common::{
    classifier, diffusion, encoder_config, full, gaussian, image, led, low_pass, net, noise, plain,
    unet, walks,
};
use sdft_adm::{Encoder, Unet};
use sdft_diffusion::{Clip, Denoiser, FeatureNet, Prediction};
use sdft_nn::Params;
use sdft_randn::NumberedNoise;
use sdft_testing::{max_abs_diff as worst, nonzero_params as filled, values};
use sdft_translators::{
    DomainIndependent, DomainSpecific, Energies, LowPass, SdeditOptions, Walk, ddib, egsde,
    levels_of, start_of,
};
use std::cell::Cell;

#[test]
fn without_strength_the_input_comes_back() {
    let (unet, classifier, x0) = (unet(1), classifier(), image(0, 2));
    let energies = Energies::new(&classifier, low_pass(4));
    for walk in walks() {
        let diffusion = diffusion("");
        assert_eq!(start_of(&diffusion, 0.0).unwrap(), None);
        assert_eq!(levels_of(&diffusion, 0.0).unwrap(), None);
        let edit = SdeditOptions {
            walk,
            start: None,
            repeats: 2,
        };
        let unled = plain(&diffusion, &unet, &x0, None, &edit);
        let guided = led(&diffusion, &unet, &energies, &x0, &edit);
        assert_eq!(values(&unled), values(&x0));
        assert_eq!(values(&guided), values(&x0));
    }
}

#[test]
fn egsde_without_energies_is_sdedit_bit_for_bit() {
    let (unet, classifier, x0) = (unet(1), classifier(), image(0, 2));
    let mut energies = Energies {
        lambda_s: 0.0,
        lambda_i: 0.0,
        ..Energies::new(&classifier, low_pass(4))
    };
    let diffusion = diffusion("25");
    for walk in walks() {
        let edit = SdeditOptions {
            walk,
            start: Some(6),
            repeats: 2,
        };
        let unled = plain(&diffusion, &unet, &x0, None, &edit);
        let guided = led(&diffusion, &unet, &energies, &x0, &edit);
        assert_eq!(values(&unled), values(&guided), "{walk:?}");
        // With energies it is not.
        (energies.lambda_s, energies.lambda_i) = (500.0, 2.0);
        let guided = led(&diffusion, &unet, &energies, &x0, &edit);
        assert!(worst(&unled, &guided) > 1e-4, "{walk:?}");
        (energies.lambda_s, energies.lambda_i) = (0.0, 0.0);
    }
}

#[test]
fn an_image_is_the_same_regardless_of_batch() {
    let (unet, classifier, both) = (unet(1), classifier(), image(0, 2));
    let energies = Energies::new(&classifier, low_pass(4));
    let diffusion = diffusion("25");
    let edit = SdeditOptions {
        walk: Walk::Ancestral,
        start: Some(6),
        repeats: 1,
    };
    let run = |x0: &Tensor, numbers: &[u64]| {
        let mut noise = NumberedNoise::new(9, numbers.to_vec());
        egsde(
            &diffusion,
            &unet,
            &energies,
            x0,
            &edit,
            &mut noise,
            &mut |_| Ok(()),
        )
        .unwrap()
    };
    let together = run(&both, &[4, 8]);
    let alone = run(&both.narrow(0, 1, 1).unwrap(), &[8]);
    assert!(worst(&together.narrow(0, 1, 1).unwrap(), &alone) < 1e-5);
    let other = run(&both.narrow(0, 1, 1).unwrap(), &[9]);
    assert!(worst(&alone, &other) > 1e-2);
}

#[test]
fn gradients_of_energies_agree_with_finite_differences() {
    let f64s = |specs: Vec<sdft_nn::ParamSpec>| {
        let params = filled(specs, 3);
        let wide = params
            .iter()
            .map(|(n, t)| (n.to_owned(), t.to_dtype(DType::F64).unwrap()));
        Params::new(wide.collect())
    };
    let config = encoder_config();
    let classifier = Encoder::load(&f64s(Encoder::specs(&config).unwrap()), &config).unwrap();
    let low_pass = LowPass::new(8, 8, 4, DType::F64, &Device::Cpu).unwrap();
    let mut energies = Energies::new(&classifier, low_pass);
    let wide = |sample| image(sample, 2).to_dtype(DType::F64).unwrap();
    let (y, xt, t) = (wide(0), wide(2), [120.0, 120.0]);
    for (specific, independent) in [
        (DomainSpecific::Cosine, DomainIndependent::NegL2),
        (DomainSpecific::NegL2, DomainIndependent::Cosine),
    ] {
        (energies.specific, energies.independent) = (specific, independent);
        let gradients = energies.gradients(&y, &xt, &t).unwrap();
        let direction = wide(6);
        let along = |gradient: Option<Tensor>| {
            let product = (gradient.unwrap() * &direction).unwrap();
            product.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let numeric = |energy: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let at = |h: f64| {
                let moved = (&y + (&direction * h).unwrap()).unwrap();
                energy(&moved)
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .to_scalar::<f64>()
                    .unwrap()
            };
            (at(1e-4) - at(-1e-4)) / 2e-4
        };
        let pairs = [
            (
                along(gradients.specific),
                numeric(&|y| energies.specific(y, &xt, &t)),
            ),
            (
                along(gradients.independent),
                numeric(&|y| energies.independent(y, &xt)),
            ),
        ];
        for (exact, numeric) in pairs {
            assert!(
                numeric.abs() > 1e-4,
                "the direction has no slope: {numeric}"
            );
            assert!(
                (exact / numeric - 1.0).abs() < 1e-5,
                "{specific:?} {independent:?}: {exact} {numeric}"
            );
        }
    }
}

/// A feature network that counts its calls.
struct Counting<'a>(&'a Encoder, Cell<usize>);

impl FeatureNet for Counting<'_> {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.1.set(self.1.get() + 1);
        self.0.features(xt, t)
    }
}

/// A denoiser that fails if its input has a graph.
struct NoGraph<'a>(&'a Unet);

impl Denoiser for NoGraph<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        assert!(!xt.track_op(), "the state has a graph");
        self.0.predict(xt, t)
    }
}

#[test]
fn no_graph_outlives_a_step_and_the_classifier_is_called_twice_a_step() {
    let classifier = classifier();
    let counting = Counting(&classifier, Cell::new(0));
    let energies = Energies::new(&counting, low_pass(4));
    let (params, _) = filled(Unet::specs(&net()).unwrap(), 1).trainable().unwrap();
    // Even a network whose parameters are variables leaves no graph.
    let trainable = Unet::load(&params, &net()).unwrap();
    let edit = SdeditOptions {
        walk: Walk::Ancestral,
        start: Some(4),
        repeats: 2,
    };
    let x0 = Var::from_tensor(&image(0, 2)).unwrap();
    let out = egsde(
        &diffusion("25"),
        &NoGraph(&trainable),
        &energies,
        x0.as_tensor(),
        &edit,
        &mut noise(),
        &mut |step| {
            assert!(!step.x.track_op() && !step.x0.track_op());
            Ok(())
        },
    )
    .unwrap();
    assert!(!out.track_op());
    assert_eq!(counting.1.get(), 2 * 5 * 2);
}

#[test]
fn frozen_parameters_collect_no_gradients() {
    let y = Var::from_tensor(&image(0, 2)).unwrap();
    let collected = |net: &Encoder| {
        let features = net.features(y.as_tensor(), &[100.0; 2]).unwrap();
        let gradients =
            sdft_autograd::backward(&features.sqr().unwrap().sum_all().unwrap()).unwrap();
        assert!(gradients.get(&y).is_some());
        gradients
    };
    let (params, vars) = filled(Encoder::specs(&encoder_config()).unwrap(), 3)
        .trainable()
        .unwrap();
    let frozen = collected(&classifier());
    let trainable = collected(&Encoder::load(&params, &encoder_config()).unwrap());
    let trunk: Vec<_> = vars
        .iter()
        .filter(|(name, _)| !name.starts_with("out."))
        .collect();
    for (name, var) in &trunk {
        assert!(trainable.get(var).is_some(), "{name}");
    }
    // Only the image's gradient is left.
    let left: Vec<_> = frozen.get_ids().collect();
    assert_eq!(left, [&y.as_tensor().id()]);
}

#[test]
fn a_bridge_to_the_same_model_returns_the_input_as_steps_allow() {
    // The flow is linear in x, so the error is that of the steps.
    let model = gaussian(0.1, 0.5);
    let x0 = image(0, 2);
    let mut last = f64::MAX;
    for steps in ["10", "40", "250", ""] {
        let diffusion = diffusion(steps);
        let bridge = ddib(&diffusion, &model, &model, &x0, Clip::No, &mut |_| Ok(())).unwrap();
        let error = worst(&bridge.image, &x0);
        assert!(error < 0.7 * last, "{steps}: {error} after {last}");
        last = error;
    }
    // The last step to pure noise forgets sqrt(alpha_bar) x0, and the way to t = 0 begins at alpha_bar_0.
    let floor = full().alpha_bar()[999].sqrt();
    assert!(last < 0.02 + 2.0 * floor, "{last}");
}

#[test]
fn a_bridge_carries_quantiles() {
    let x0 = image(0, 2);
    let bridge = ddib(
        &diffusion(""),
        &gaussian(0.0, 0.5),
        &gaussian(0.2, 0.25),
        &x0,
        Clip::No,
        &mut |_| Ok(()),
    )
    .unwrap();
    let expected = ((&x0 * 0.5).unwrap() + 0.2).unwrap();
    assert!(worst(&bridge.image, &expected) < 0.01);
}
