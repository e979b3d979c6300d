//! Identities that hold for any network.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool, Unet};
use sdft_diffusion::{
    Clip, Denoiser, Diffusion, FeatureNet, GaussianDenoiser, Prediction, Variance,
};
use sdft_nn::{Init, Params};
use sdft_noise::Purpose;
use sdft_randn::{NoiseSource, NumberedNoise, randn};
use sdft_schedule::{BetaSchedule, Schedule};
use sdft_translators::{
    DomainIndependent, DomainSpecific, Energies, Guide, Ilvr, LowPass, SdeditOptions, Walk, ddib,
    edit_step, egsde, ilvr, levels_of, sdedit, start_of,
};
use std::cell::Cell;

fn full() -> Schedule {
    Schedule::new(BetaSchedule::Linear, 1000).unwrap()
}

fn diffusion(steps: &str) -> Diffusion {
    let schedule = full().respaced(&steps.parse().unwrap()).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

fn gaussian(mean: f64, sd: f64) -> GaussianDenoiser {
    GaussianDenoiser::new(full().alpha_bar(), mean, sd)
}

fn net() -> AdmConfig {
    AdmConfig {
        image_size: 8,
        model_channels: 16,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 16,
        norm_groups: 8,
        out_channels: 3,
        ..AdmConfig::default()
    }
}

/// Weights without zeros, so that outputs are not zero.
fn filled(mut specs: Vec<sdft_nn::ParamSpec>, seed: u64) -> Params {
    for spec in &mut specs {
        if spec.init == Init::Constant(0.0) {
            spec.init = Init::Normal(0.05);
        }
    }
    Params::init(&specs, seed, &Device::Cpu).unwrap()
}

fn unet(seed: u64) -> Unet {
    let params = filled(Unet::specs(&net()).unwrap(), seed);
    Unet::load(&params, &net()).unwrap()
}

fn encoder_config() -> EncoderConfig {
    EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..net()
        },
        pool: Pool::Attention,
    }
}

fn classifier() -> Encoder {
    let params = filled(Encoder::specs(&encoder_config()).unwrap(), 3);
    Encoder::load(&params, &encoder_config()).unwrap()
}

fn image(sample: u64, n: usize) -> Tensor {
    let x = randn(5, Purpose::Test, 0, sample, &[n, 3, 8, 8], &Device::Cpu).unwrap();
    (x * 0.4).unwrap().tanh().unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    let pairs = values(a).into_iter().zip(values(b));
    pairs
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
}

fn walks() -> [Walk; 3] {
    let clip = Clip::No;
    [Walk::Ancestral, Walk::PAPER, Walk::Ddim { eta: 0.7, clip }]
}

fn noise() -> NumberedNoise {
    NumberedNoise::new(9, vec![4, 8])
}

fn low_pass(factor: usize) -> LowPass {
    LowPass::new(8, 8, factor, DType::F32, &Device::Cpu).unwrap()
}

/// SDEdit with the tests' noise.
fn plain(
    process: &Diffusion,
    net: &Unet,
    x0: &Tensor,
    mask: Option<&Tensor>,
    edit: &SdeditOptions,
) -> Tensor {
    sdedit(process, net, x0, mask, edit, &mut noise(), &mut |_| Ok(())).unwrap()
}

/// EGSDE with the tests' noise.
fn led(
    process: &Diffusion,
    net: &Unet,
    energies: &Energies<'_>,
    x0: &Tensor,
    edit: &SdeditOptions,
) -> Tensor {
    egsde(process, net, energies, x0, edit, &mut noise(), &mut |_| {
        Ok(())
    })
    .unwrap()
}

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
        let gradients = sdft_nn::backward(&features.sqr().unwrap().sum_all().unwrap()).unwrap();
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
fn what_the_mask_keeps_is_the_input() {
    let (unet, x0) = (unet(1), image(0, 2));
    let left: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 8 < 4))).collect();
    let mask = Tensor::from_vec(left, (1, 1, 8, 8), &Device::Cpu).unwrap();
    for walk in walks() {
        let edit = SdeditOptions {
            walk,
            start: Some(12),
            repeats: 2,
        };
        let out = plain(&diffusion("25"), &unet, &x0, Some(&mask), &edit);
        let half = |x: &Tensor, from| x.narrow(3, from, 4).unwrap();
        assert_eq!(values(&half(&out, 0)), values(&half(&x0, 0)), "{walk:?}");
        assert!(worst(&half(&out, 4), &half(&x0, 4)) > 0.05, "{walk:?}");
    }
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

#[test]
fn ilvr_takes_the_coarse_image_of_its_reference() {
    let model = gaussian(0.0, 0.3);
    let reference = image(0, 2);
    let filter = low_pass(4);
    let run = |free: usize| {
        let options = Ilvr {
            low_pass: filter.clone(),
            free,
            clip: Clip::Yes,
        };
        ilvr(
            &diffusion("100"),
            &model,
            &reference,
            &options,
            &mut noise(),
            &mut |_| Ok(()),
        )
        .unwrap()
    };
    let coarse = |x: &Tensor| filter.apply(x).unwrap();
    let led = worst(&coarse(&run(0)), &coarse(&reference));
    let free = worst(&coarse(&run(usize::MAX)), &coarse(&reference));
    assert!(led < 0.05 && free > 4.0 * led, "{led} {free}");
    // The fine image is the model's own.
    assert!(worst(&run(0), &reference) > 0.2);
}

#[test]
fn repeats_begin_with_the_last_result_and_follow_the_first_source() {
    let (unet, classifier, source) = (unet(1), classifier(), image(0, 2));
    let energies = Energies::new(&classifier, low_pass(4));
    let process = diffusion("25");
    let (walk, start) = (Walk::Ancestral, 3);
    // By hand, as EGSDE's sampler is written.
    let mut image = source.clone();
    for repeat in 0..2 {
        let draw = |k: usize| noise().normal(repeat * (start + 2) + k, &source).unwrap();
        let e = draw(0);
        let mut x = process.q_sample(&image, &[start; 2], &e).unwrap();
        for (k, t) in (0..=start).rev().enumerate() {
            let xt = process.q_sample(&source, &[t; 2], &e).unwrap();
            let z = draw(1 + k);
            let guide = Guide {
                energies: &energies,
                source: xt,
            };
            x = edit_step(&process, &unet, Some(&guide), &x, t, walk, Some(&z))
                .unwrap()
                .next;
        }
        image = x;
    }
    let edit = SdeditOptions {
        walk,
        start: Some(start),
        repeats: 2,
    };
    let out = led(&process, &unet, &energies, &source, &edit);
    assert_eq!(values(&out), values(&image));
}

#[test]
fn a_mask_holds_the_level_of_its_source_on_the_way() {
    let (unet, x0) = (unet(1), image(0, 2));
    let left: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 8 < 4))).collect();
    let mask = Tensor::from_vec(left, (1, 1, 8, 8), &Device::Cpu).unwrap();
    let process = diffusion("25");
    let e = noise().normal(0, &x0).unwrap();
    let kept = |x: &Tensor| values(&x.narrow(3, 0, 4).unwrap());
    for (walk, lag) in [(Walk::Ancestral, 0), (Walk::PAPER, 1)] {
        let edit = SdeditOptions {
            walk,
            start: Some(5),
            repeats: 1,
        };
        let mut seen = 0;
        sdedit(
            &process,
            &unet,
            &x0,
            Some(&mask),
            &edit,
            &mut noise(),
            &mut |step| {
                // SDEdit's ancestral sampler keeps the level that is left, DDIM's steps the one that is reached.
                let expected = match step.t.checked_sub(lag) {
                    Some(level) => process.q_sample(&x0, &[level; 2], &e)?,
                    None => x0.clone(),
                };
                assert_eq!(kept(step.x), kept(&expected), "{walk:?} {}", step.t);
                seen += 1;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, 6);
    }
}

#[test]
fn ilvr_follows_the_reference_above_a_step_and_is_free_below() {
    let (unet, reference) = (unet(1), image(0, 2));
    let process = diffusion("25");
    // A filter of factor 1 keeps everything, so the state is replaced by the reference.
    let options = Ilvr {
        low_pass: low_pass(1),
        free: 7,
        clip: Clip::Yes,
    };
    let mut followed = Vec::new();
    ilvr(
        &process,
        &unet,
        &reference,
        &options,
        &mut noise(),
        &mut |step| {
            if step.t > 0 {
                let e = noise().normal(2 + 2 * (step.done - 1), &reference)?;
                let at = process.q_sample(&reference, &[step.t - 1; 2], &e)?;
                if worst(step.x, &at) < 1e-4 {
                    followed.push(step.t);
                }
            }
            Ok(())
        },
    )
    .unwrap();
    let expected: Vec<usize> = (8..25).rev().collect();
    assert_eq!(followed, expected);
}

/// Counts what a walk draws.
struct Counted(Vec<usize>);

impl NoiseSource for Counted {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        self.0.push(draw);
        NumberedNoise::new(0, vec![0, 1]).normal(draw, like)
    }
}

#[test]
fn every_draw_has_its_number_whether_it_is_used_or_not() {
    let (unet, x0) = (unet(1), image(0, 2));
    let drawn = |walk| {
        let mut counted = Counted(Vec::new());
        let edit = SdeditOptions {
            walk,
            start: Some(2),
            repeats: 2,
        };
        sdedit(
            &diffusion("25"),
            &unet,
            &x0,
            None,
            &edit,
            &mut counted,
            &mut |_| Ok(()),
        )
        .unwrap();
        counted.0
    };
    assert_eq!(drawn(Walk::Ancestral), [0, 1, 2, 4, 5, 6]);
    assert_eq!(drawn(Walk::PAPER), [0, 4]);
}
