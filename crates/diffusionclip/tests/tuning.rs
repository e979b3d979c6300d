//! Gradients through a generation, updates at every step, and mixtures of models.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adapters::{AdaptedNetwork, AdapterConfig, AdapterKind, Base};
use sdft_adm::{Unet, trainable_unet};
use sdft_asyrp::{EditPlan, Mix, descent, edit, sequence, step};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition, Denoiser, Prediction, PredictionType, Trainable};
use sdft_diffusionclip::{Mixture, Tuned, chain_gradients, generate, tuning_steps};
use sdft_optim::collect_gradients;
use sdft_randn::GivenNoise;
use sdft_schedule::{Schedule, linear_betas};
use sdft_testing::{max_abs_diff, nonzero_params, normal, tiny_config};

fn schedule() -> Schedule {
    Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap()
}

/// Predicts `tanh(w x + b (t / 1000 + 0.1))`, in f64.
struct Toy {
    w: Var,
    b: Var,
}

impl Toy {
    fn new(w: f64, b: f64) -> Self {
        let var = |value: f64| Var::new(&[value], &Device::Cpu).unwrap();
        Self {
            w: var(w),
            b: var(b),
        }
    }
}

impl Trainable for Toy {
    fn vars(&self) -> Vec<(String, Var)> {
        [("w", &self.w), ("b", &self.b)]
            .map(|(name, var)| (name.to_owned(), var.clone()))
            .into()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], _: &Condition<'_>) -> Result<Prediction> {
        let shift = (self.b.as_tensor() * (f64::from(t[0]) / 1000.0 + 0.1))?;
        let out = xt.broadcast_mul(&self.w)?.broadcast_add(&shift)?.tanh()?;
        Ok(out.into())
    }
}

fn latent() -> Tensor {
    let values: Vec<f64> = (0..12).map(|k| (0.7 * f64::from(k)).sin()).collect();
    Tensor::from_vec(values, (1, 3, 2, 2), &Device::Cpu).unwrap()
}

/// A loss whose gradient differs from pixel to pixel.
fn loss(x: &Tensor) -> Result<Tensor> {
    (x - 0.3)?
        .powf(2.0)?
        .broadcast_mul(&(x * 0.5)?.cos()?)?
        .mean_all()
}

fn number(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

#[test]
fn the_gradient_through_the_chain_agrees_with_finite_differences() {
    let steps = sequence(6, 500);
    let value = |w: f64, b: f64| {
        let toy = Toy::new(w, b);
        let tuned = Tuned {
            net: &toy,
            class: None,
        };
        let x = generate(&tuned, &schedule(), &latent(), &steps, &mut |_| Ok(()));
        number(&loss(&x.unwrap()).unwrap())
    };
    let (w, b, h) = (0.4, -0.2, 1e-5);
    let toy = Toy::new(w, b);
    let tuned = Tuned {
        net: &toy,
        class: None,
    };
    let mut calls = 0;
    let chain = chain_gradients(
        tuned,
        &schedule(),
        &latent(),
        &steps,
        &mut loss,
        &mut || {
            calls += 1;
            Ok(())
        },
    );
    let chain = chain.unwrap();
    assert_eq!(calls, 12);
    assert!((number(&chain.loss) - value(w, b)).abs() < 1e-12);
    let expected = [
        (value(w + h, b) - value(w - h, b)) / (2.0 * h),
        (value(w, b + h) - value(w, b - h)) / (2.0 * h),
    ];
    for (gradient, expected) in chain.gradients.iter().zip(expected) {
        let found = number(&gradient.as_ref().unwrap().sum_all().unwrap());
        assert!(
            (found - expected).abs() < 1e-7 * expected.abs().max(1e-3),
            "{found} {expected}"
        );
    }
    let constant = chain_gradients(
        tuned,
        &schedule(),
        &latent(),
        &steps,
        &mut |_| Tensor::new(1f64, &Device::Cpu),
        &mut || Ok(()),
    );
    let error = constant.unwrap_err().to_string();
    assert!(error.contains("does not depend"), "{error}");
}

/// Tiny networks: all weights, and a LoRA whose second factors are not zero.
fn networks() -> Vec<Box<dyn Trainable>> {
    let config = tiny_config();
    let specs = Unet::specs(&config).unwrap();
    let params = nonzero_params(specs.clone(), 3);
    let build = |params: &sdft_nn::Params| -> Result<Box<dyn Trainable>> {
        let (kind, mode) = (PredictionType::Epsilon, ComputeMode::default());
        Ok(Box::new(trainable_unet(params, &config, kind, mode)?))
    };
    let lora = AdapterConfig {
        kind: AdapterKind::Lora,
        ..AdapterConfig::default()
    }
    .resolved(&specs);
    let base = Base {
        params: &params,
        specs: &specs,
        sha256: String::new(),
    };
    let lora = AdaptedNetwork::new(&lora, base, 1, build).unwrap();
    for (name, var) in lora.vars() {
        let value = (normal(name.len() as u64, var.dims()) * 0.1).unwrap();
        var.set(&value).unwrap();
    }
    vec![build(&params).unwrap(), Box::new(lora)]
}

#[test]
fn steps_that_are_computed_again_give_the_gradients_of_the_whole_graph() {
    let steps = sequence(4, 500);
    let latent = normal(5, &[2, 3, 8, 8]);
    for net in networks() {
        let tuned = Tuned {
            net: &*net,
            class: None,
        };
        let chain = chain_gradients(tuned, &schedule(), &latent, &steps, &mut loss, &mut || {
            Ok(())
        });
        let chain = chain.unwrap();
        let mut x = latent.clone();
        for (t, levels) in descent(&steps, &schedule()).unwrap() {
            let prediction = tuned.predict(&x, &[t as f32; 2]).unwrap();
            x = step(&x, &prediction, &prediction, levels, None)
                .unwrap()
                .next;
        }
        assert_eq!(max_abs_diff(&x, &chain.image), 0.0);
        let mut store = backward(&loss(&x).unwrap()).unwrap();
        net.pull_back(&mut store).unwrap();
        let vars = net.vars();
        let whole = collect_gradients(&vars, &store);
        for (((name, _), one), other) in vars.iter().zip(&whole).zip(&chain.gradients) {
            let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
            let size = max_abs_diff(one, &one.zeros_like().unwrap());
            assert!(max_abs_diff(one, other) <= 1e-4 * size.max(1e-6), "{name}");
        }
    }
}

#[test]
fn an_update_at_each_step_follows_its_definition() {
    let steps = sequence(3, 500);
    let lr = 0.05;
    let update = |toy: &Toy, x0: &Tensor| -> Result<()> {
        let store = backward(&loss(x0)?)?;
        for var in [&toy.w, &toy.b] {
            let gradient = store.get(var).unwrap();
            var.set(&(var.as_tensor() - (gradient * lr)?)?.detach())?;
        }
        Ok(())
    };
    let toy = Toy::new(0.4, -0.2);
    let tuned = Tuned {
        net: &toy,
        class: None,
    };
    tuning_steps(tuned, &schedule(), &latent(), &steps, &mut |x0| {
        update(&toy, x0)
    })
    .unwrap();
    // By hand: x0 from the noise, the next state without a graph, then the update.
    let alpha_bar = schedule().alpha_bar().to_vec();
    let by_hand = Toy::new(0.4, -0.2);
    let mut x = latent();
    for (t, next) in [(500, Some(250)), (250, Some(0)), (0, None)] {
        let eps = by_hand.predict(&x, &[t as f32], &Condition::default());
        let eps = eps.unwrap().output;
        let (ab, ab_next) = (
            alpha_bar[t],
            next.map_or(1.0, |next: usize| alpha_bar[next]),
        );
        let x0 = ((&x - (&eps * (1.0 - ab).sqrt()).unwrap()).unwrap() / ab.sqrt()).unwrap();
        let moved = (&x0 * ab_next.sqrt()).unwrap() + (&eps * (1.0 - ab_next).sqrt()).unwrap();
        x = moved.unwrap().detach();
        update(&by_hand, &x0).unwrap();
    }
    for (a, b) in [(&toy.w, &by_hand.w), (&toy.b, &by_hand.b)] {
        assert!(max_abs_diff(a, b) < 1e-9);
    }
    assert!(max_abs_diff(&toy.w, &Toy::new(0.4, 0.0).w) > 1e-4);
}

#[test]
fn a_mixture_of_one_share_is_that_model_to_the_bit_and_others_are_means() {
    let config = tiny_config();
    let net = |seed| {
        let params = nonzero_params(Unet::specs(&config).unwrap(), seed);
        Unet::load(&params, &config).unwrap()
    };
    let (original, tuned, other) = (net(1), net(2), net(3));
    let (latent, steps) = (normal(5, &[1, 3, 8, 8]), sequence(5, 500));
    let run =
        |net: &dyn Denoiser| generate(net, &schedule(), &latent, &steps, &mut |_| Ok(())).unwrap();
    let mixed = |share: f64| run(&Mixture::new(&original, [(&tuned as &dyn Denoiser, share)]));
    assert_eq!(max_abs_diff(&mixed(0.0), &run(&original)), 0.0);
    assert_eq!(max_abs_diff(&mixed(1.0), &run(&tuned)), 0.0);
    assert!(max_abs_diff(&mixed(0.5), &run(&original)) > 1e-3);
    // Without directions Asyrp generates the same image.
    let plan = EditPlan {
        steps: steps.clone(),
        t_edit: 0,
        t_boost: 0,
    };
    let mut none = GivenNoise::new(latent.unsqueeze(0).unwrap());
    let mix = Mix::of(vec![]);
    let plain = edit(
        &original,
        &schedule(),
        &latent,
        &mix,
        &plan,
        &mut none,
        &mut |_| Ok(()),
    );
    assert_eq!(max_abs_diff(&plain.unwrap(), &run(&original)), 0.0);

    let output = |net: &dyn Denoiser| net.predict(&latent, &[300.0]).unwrap().output;
    let parts: [(&dyn Denoiser, f64); 2] = [(&tuned, 0.75), (&other, 0.5)];
    let expected = ((output(&original) * -0.25).unwrap() + (output(&tuned) * 0.75).unwrap())
        .and_then(|sum| sum + (output(&other) * 0.5)?)
        .unwrap();
    assert!(max_abs_diff(&output(&Mixture::new(&original, parts)), &expected) < 1e-5);
    // Shares that add up to 1 leave the original out.
    let broken = |_: &Tensor, _: &[f32]| -> Result<Tensor> { candle_core::bail!("not needed") };
    let halves: [(&dyn Denoiser, f64); 2] = [(&tuned, 0.3), (&other, 0.7)];
    output(&Mixture::new(&broken, halves));
    let velocity = |x: &Tensor, _: &[f32]| Ok(Prediction::new(x.clone(), PredictionType::V));
    let error = Mixture::new(&original, [(&velocity as &dyn Denoiser, 0.5)])
        .predict(&latent, &[300.0])
        .unwrap_err();
    assert!(
        error.to_string().contains("epsilon and v_prediction"),
        "{error}"
    );
}
