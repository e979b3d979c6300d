//! An edit changes what it should, and nothing else.

use candle_core::{DType, Device, Result, Tensor};
use sdft_adm::Unet;
use sdft_asyrp::{
    DeltaBlock, Direction, EditPlan, Levels, Mix, edit, invert, l1_term, sequence, step,
    training_sequence, training_steps,
};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Denoiser, Edited, Prediction, PredictionType,
};
use sdft_nn::Params;
use sdft_optim::{Optimizer, Rule, Sgd, collect_gradients};
use sdft_randn::GivenNoise;
use sdft_schedule::{Schedule, linear_betas};
use sdft_testing::{initial_params, tiny_config};

/// A network whose output is not zero, as that of a fresh one would be.
fn unet(params: &Params) -> Unet {
    Unet::load(params, &tiny_config()).unwrap()
}

fn lively(seed: u64) -> Params {
    let params = initial_params(&tiny_config(), seed);
    let moved = params.iter().enumerate().map(|(i, (name, tensor))| {
        let n = tensor.elem_count();
        let values: Vec<f32> = (0..n)
            .map(|k| 0.1 * (((k * 37 + i * 101) % 97) as f32 / 48.0 - 1.0))
            .collect();
        let wave = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
        (name.to_owned(), (tensor + wave).unwrap())
    });
    Params::new(moved.collect())
}

fn block(net: &Unet, seed: u64) -> Params {
    let specs = DeltaBlock::specs(net.bottleneck(), 4).unwrap();
    Params::init(&specs, seed, &Device::Cpu).unwrap()
}

fn schedule() -> Schedule {
    Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap()
}

fn image() -> Tensor {
    let values: Vec<f32> = (0..192)
        .map(|k| ((k * 29) % 64) as f32 / 32.0 - 1.0)
        .collect();
    Tensor::from_vec(values, (1, 3, 8, 8), &Device::Cpu).unwrap()
}

fn largest(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference.to_scalar::<f32>().unwrap()
}

fn run(net: &Unet, latent: &Tensor, block: &DeltaBlock, strength: f64, t_edit: usize) -> Tensor {
    let mix = Mix::of(vec![Direction { block, strength }]);
    let plan = EditPlan {
        steps: sequence(10, 500),
        t_edit,
        t_boost: 0,
    };
    let mut none = GivenNoise::new(latent.unsqueeze(0).unwrap());
    edit(
        net,
        &schedule(),
        latent,
        &mix,
        &plan,
        &mut none,
        &mut |_| Ok(()),
    )
    .unwrap()
}

#[test]
fn small_strengths_act_in_proportion_and_strength_zero_changes_nothing() {
    let net = unet(&lively(1));
    let block = DeltaBlock::load(&block(&net, 2), net.bottleneck(), 4).unwrap();
    let latent = image();
    let plain = run(&net, &latent, &block, 0.0, 0);
    assert_eq!(largest(&plain, &run(&net, &latent, &block, 1.0, 501)), 0.0);
    let (one, two) = (0.01, 0.02);
    let first = (run(&net, &latent, &block, one, 0) - &plain).unwrap();
    let second = (run(&net, &latent, &block, two, 0) - &plain).unwrap();
    let size = largest(&first, &first.zeros_like().unwrap());
    assert!(size > 1e-5, "{size}");
    let curve = largest(&second, &(first * 2.0).unwrap());
    assert!(curve < 0.1 * size, "{curve} of {size}");
}

#[test]
fn several_directions_add_up_as_their_coefficients_say() {
    let net = unet(&lively(1));
    let blocks: Vec<DeltaBlock> = (2..4)
        .map(|seed| DeltaBlock::load(&block(&net, seed), net.bottleneck(), 4).unwrap())
        .collect();
    let Bottleneck {
        channels,
        embedding,
    } = net.bottleneck();
    let h = Tensor::rand(-1f32, 1f32, (1, channels, 4, 4), &Device::Cpu).unwrap();
    let emb = Tensor::rand(-1f32, 1f32, (1, embedding), &Device::Cpu).unwrap();
    let mut mix = Mix::of(vec![
        Direction {
            block: &blocks[0],
            strength: 0.5,
        },
        Direction {
            block: &blocks[1],
            strength: -2.0,
        },
    ]);
    mix.keep = 0.8;
    let moved = |i: usize| blocks[i].forward(&h, Some(&emb)).unwrap();
    let expected = ((&h * 0.8).unwrap() + (moved(0) * 0.5).unwrap()).unwrap();
    let expected = (expected - (moved(1) * 2.0).unwrap()).unwrap();
    assert!(largest(&mix.apply(&h, &emb).unwrap().unwrap(), &expected) < 1e-6);
    mix.directions[0].strength = f64::NAN;
    assert!(mix.apply(&h, &emb).is_err());
    assert!(Mix::of(vec![]).apply(&h, &emb).unwrap().is_none());
}

#[test]
fn gradients_reach_only_the_block() {
    // No parameter of the network is a variable, as in the trainer.
    let frozen = lively(1);
    let net = unet(&frozen);
    let (params, vars) = block(&net, 2).trainable().unwrap();
    let block = DeltaBlock::load(&params, net.bottleneck(), 4).unwrap();
    let mix = Mix::of(vec![Direction {
        block: &block,
        strength: 1.0,
    }]);
    let x = image();
    let both = net
        .predict_edited(&x, &[400.0], &mut |h, emb| mix.apply(h, emb))
        .unwrap();
    assert!(
        !both.plain.output.track_op(),
        "the usual prediction has a graph"
    );
    let levels = Levels {
        alpha_bar: 0.2,
        alpha_bar_next: 0.3,
        eta: 0.0,
    };
    let x0 = |changed: &Prediction| step(&x, &both.plain, changed, levels, None).unwrap().x0;
    let (origin, x0) = (x0(&both.plain), x0(both.changed()));
    let gradients = sdft_autograd::backward(&l1_term(&x0, &origin, 3.0, 0.9).unwrap()).unwrap();
    for (name, var) in &vars {
        let gradient = gradients
            .get(var)
            .unwrap_or_else(|| panic!("{name} has no gradient"));
        let size = gradient
            .abs()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(size.is_finite() && size > 0.0, "{name}: {size}");
    }
    for (name, tensor) in frozen.iter() {
        assert!(gradients.get(tensor).is_none(), "{name}");
    }
    // What is edited with such a block has no graph, however many steps it took.
    let out = run(&net, &x, &block, 1.0, 0);
    assert!(!out.track_op());
}

#[test]
fn an_inverted_image_comes_back() {
    // The exact flow of one colour: its error is that of ten steps.
    let model = sdft_diffusion::GaussianDenoiser::new(schedule().alpha_bar(), 0.25, 0.1);
    struct Flat<D>(D);
    impl<D: Denoiser> Denoiser for Flat<D> {
        fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
            self.0.predict(xt, t)
        }
    }
    impl<D: Denoiser> BottleneckNet for Flat<D> {
        fn predict_edited(&self, xt: &Tensor, t: &[f32], _: &mut Change<'_>) -> Result<Edited> {
            Ok(Edited {
                plain: self.predict(xt, t)?,
                changed: None,
                h: xt.clone(),
            })
        }
        fn bottleneck(&self) -> Bottleneck {
            Bottleneck {
                channels: 3,
                embedding: 1,
            }
        }
    }
    let net = Flat(model);
    let x0 = (image() * 0.1).unwrap().affine(1.0, 0.25).unwrap();
    let back = |n: usize| {
        let steps = sequence(n, 500);
        let latent = invert(&net, &schedule(), &x0, &steps, &mut |_| Ok(())).unwrap();
        let plan = EditPlan {
            steps,
            t_edit: 0,
            t_boost: 0,
        };
        let mut none = GivenNoise::new(latent.unsqueeze(0).unwrap());
        let out = edit(
            &net,
            &schedule(),
            &latent,
            &Mix::of(vec![]),
            &plan,
            &mut none,
            &mut |_| Ok(()),
        )
        .unwrap();
        largest(&out, &x0)
    };
    let (coarse, fine) = (back(10), back(200));
    assert!(fine < 0.01 && fine < coarse, "{coarse} {fine}");
}

#[test]
fn steps_and_features_that_do_not_fit_are_explained() {
    let net = unet(&lively(1));
    let x = image();
    for steps in [vec![], vec![5, 5], vec![9, 3], vec![0, 1000]] {
        let error = invert(&net, &schedule(), &x, &steps, &mut |_| Ok(())).unwrap_err();
        assert!(
            error.to_string().contains("ascending, below 1000"),
            "{error}"
        );
    }
    let small = Tensor::zeros((1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let error = net
        .predict_edited(&x, &[3.0], &mut |_, _| Ok(Some(small.clone())))
        .unwrap_err();
    assert!(
        error.to_string().contains("features of the middle"),
        "{error}"
    );
    let odd = Bottleneck {
        channels: 10,
        embedding: 4,
    };
    assert!(DeltaBlock::specs(odd, 32).is_err());
}

#[test]
fn a_block_is_trained_and_the_model_does_not_change() {
    let net = unet(&lively(1));
    let (params, vars) = block(&net, 2).trainable().unwrap();
    let block = DeltaBlock::load(&params, net.bottleneck(), 4).unwrap();
    let latent = image();
    let plain = run(&net, &latent, &block, 0.0, 250);
    let mut optimizer = Optimizer::new(Rule::Sgd(Sgd::default()), &vars).unwrap();
    let steps = training_sequence(10, 500, 250);
    // How bright the image predicted at the highest step is, which starts from the same state every time.
    let mut brightness = Vec::new();
    for _ in 0..12 {
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength: 1.0,
        }]);
        let mut seen = Vec::new();
        training_steps(
            &net,
            &schedule(),
            &latent,
            &mix,
            &steps,
            &mut |training_step| {
                assert!(!training_step.origin.track_op());
                let bright = training_step.x0.mean_all()?;
                if seen.is_empty() {
                    brightness.push(bright.to_scalar::<f32>()?);
                }
                seen.push(training_step.t);
                let near = l1_term(training_step.x0, training_step.origin, 0.1, 0.9)?;
                let gradients = sdft_autograd::backward(&(bright.neg()? + near)?)?;
                let gradients = collect_gradients(&vars, &gradients);
                let stepped = optimizer.step(&gradients, 0.05, 1.0);
                stepped.map_err(candle_core::Error::wrap)
            },
        )
        .unwrap();
        assert_eq!(seen, steps.iter().rev().copied().collect::<Vec<_>>());
    }
    assert!(brightness.is_sorted_by(|a, b| a < b), "{brightness:?}");
    assert_eq!(largest(&plain, &run(&net, &latent, &block, 0.0, 250)), 0.0);
}

#[test]
fn training_steps_without_updates_follow_the_trajectories_of_edits() {
    let net = unet(&lively(1));
    let block = DeltaBlock::load(&block(&net, 2), net.bottleneck(), 4).unwrap();
    let (latent, steps) = (image(), training_sequence(10, 500, 250));
    let images = |mix: &Mix<'_>| {
        let plan = EditPlan {
            steps: steps.clone(),
            t_edit: 250,
            t_boost: 0,
        };
        let mut none = GivenNoise::new(latent.unsqueeze(0).unwrap());
        let mut images = Vec::new();
        edit(
            &net,
            &schedule(),
            &latent,
            mix,
            &plan,
            &mut none,
            &mut |step| {
                images.push(step.x0.clone());
                Ok(())
            },
        )
        .unwrap();
        images
    };
    let mix = Mix::of(vec![Direction {
        block: &block,
        strength: 1.0,
    }]);
    let (edited, plain) = (images(&mix), images(&Mix::of(vec![])));
    assert!(largest(&edited[3], &plain[3]) > 1e-4);
    let mut at = 0;
    training_steps(
        &net,
        &schedule(),
        &latent,
        &mix,
        &steps,
        &mut |training_step| {
            assert!(largest(training_step.x0, &edited[at]) < 1e-6, "{at}");
            assert!(largest(training_step.origin, &plain[at]) < 1e-6, "{at}");
            at += 1;
            assert_eq!((training_step.done, training_step.total), (at, steps.len()));
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(at, steps.len());
}

/// Two directions in one file with the states of their optimiser, as Asyrp's scripts write them; made with PyTorch.
#[test]
fn a_published_checkpoint_is_read_by_its_first_direction() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/published.pth");
    let sizes = Bottleneck {
        channels: 8,
        embedding: 16,
    };
    let read = sdft_asyrp::read_direction(&path, sizes, 4, &Device::Cpu).unwrap();
    assert_eq!(read.info, None);
    let wave =
        |n: usize, f: fn(f64) -> f64| -> Vec<f32> { (0..n).map(|k| f(k as f64) as f32).collect() };
    let h = wave(32, |k| (0.05 * k).sin());
    let h = Tensor::from_vec(h, (1, 8, 2, 2), &Device::Cpu).unwrap();
    let emb = wave(16, |k| (0.11 * k).cos());
    let emb = Tensor::from_vec(emb, (1, 16), &Device::Cpu).unwrap();
    let moved = read.block.forward(&h, Some(&emb)).unwrap();
    let moved = moved.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = [0.184_393_3, -0.252_453_8, -0.756_764_8, -1.285_032_3];
    for (got, want) in moved.iter().zip(expected) {
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
    let sum: f32 = moved.iter().sum();
    assert!((sum + 6.158_68).abs() < 1e-4, "{sum}");
}

/// A convolution to features and one back: a network without any part of ADM.
struct Other {
    down: Tensor,
    up: Tensor,
    time: Tensor,
}

impl Other {
    fn new() -> Self {
        let wave = |shape: &[usize], k: f64| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n)
                .map(|i| (0.3 * (k * i as f64).sin()) as f32)
                .collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        Self {
            down: wave(&[8, 3, 3, 3], 1.7),
            up: wave(&[3, 8, 3, 3], 0.9),
            time: wave(&[1, 5], 0.4),
        }
    }
}

impl Denoiser for Other {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        Ok(self.predict_edited(xt, t, &mut |_, _| Ok(None))?.plain)
    }
}

impl BottleneckNet for Other {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        let h = xt.conv2d(&self.down, 1, 1, 1, 1)?.tanh()?;
        let times = Tensor::from_slice(t, (t.len(), 1), &Device::Cpu)?;
        let emb = times.affine(1e-3, 0.0)?.matmul(&self.time)?;
        let out = |h: &Tensor| -> Result<Prediction> {
            let eps = h.conv2d(&self.up, 1, 1, 1, 1)?;
            Ok(Prediction::new(eps, PredictionType::Epsilon))
        };
        let changed = change(&h, &emb)?.map(|other| out(&other)).transpose()?;
        Ok(Edited {
            plain: out(&h)?,
            changed,
            h,
        })
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: 8,
            embedding: 5,
        }
    }
}

#[test]
fn any_network_with_a_bottleneck_can_be_edited() {
    let net = Other::new();
    let specs = DeltaBlock::specs(net.bottleneck(), 4).unwrap();
    let params = Params::init(&specs, 3, &Device::Cpu).unwrap();
    let block = DeltaBlock::load(&params, net.bottleneck(), 4).unwrap();
    let latent = invert(&net, &schedule(), &image(), &sequence(10, 500), &mut |_| {
        Ok(())
    })
    .unwrap();
    let edited = |strength: f64| {
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength,
        }]);
        let plan = EditPlan {
            steps: sequence(10, 500),
            t_edit: 200,
            t_boost: 0,
        };
        let mut none = GivenNoise::new(latent.unsqueeze(0).unwrap());
        edit(
            &net,
            &schedule(),
            &latent,
            &mix,
            &plan,
            &mut none,
            &mut |_| Ok(()),
        )
        .unwrap()
    };
    let (none, some) = (edited(0.0), edited(1.0));
    assert!(largest(&none, &some) > 1e-3);
    assert!(largest(&none, &edited(0.0)) == 0.0);
}
