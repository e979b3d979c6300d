//! Several processes (here threads) compute what one computes alone.

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adm::{AdmConfig, Unet, trainable_unet};
use sdft_diffusion::{ComputeMode, Condition, Prediction, PredictionType, Trainable, Trained};
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_parallel::{ProcessGroup, World, free_port};
use sdft_randn::randn;
use sdft_testing::tiny_config;
use sdft_train::{AuxSampling, Learner, Method, Outcome, Precision, Source, StepImages};
use std::sync::Arc;
use std::time::Duration;

type Plan = sdft_train::Plan<AdmConfig>;

fn plan(method: Method, timesteps: &str) -> Plan {
    let mut plan = Plan {
        seed: 3,
        method,
        model: tiny_config(),
        ..Plan::default()
    };
    plan.steps.batch = 7;
    plan.steps.micro_batch = 2;
    plan.loss.lambda_aux = 0.3;
    plan.loss.aux_sampling = AuxSampling::Weighted;
    plan.loss.timesteps = timesteps.to_owned();
    plan.optim.lr = 1e-3;
    plan
}

/// Weights without zeros, so that everything gets a gradient.
fn start(plan: &Plan) -> Params {
    let params = Params::init(&Unet::specs(&plan.model).unwrap(), 1, &Device::Cpu).unwrap();
    let filled = params.iter().enumerate().map(|(i, (name, tensor))| {
        let noise = randn(9, Purpose::Test, i as u64, 0, tensor.dims(), &Device::Cpu);
        (
            name.to_owned(),
            (tensor + (noise.unwrap() * 0.02).unwrap()).unwrap(),
        )
    });
    Params::new(filled.collect())
}

/// A learner of the plan's U-Net that starts from these weights.
fn learner(plan: &Plan, start: &Params, source: Option<Source>) -> Learner {
    learner_of(plan, Box::new(network(plan, start)), source)
}

fn network(plan: &Plan, start: &Params) -> Trained<Unet> {
    let mode = ComputeMode {
        dtype: plan.steps.precision.compute_dtype(),
        recompute: plan.steps.recompute,
    };
    trainable_unet(start, &plan.model, PredictionType::Epsilon, mode).unwrap()
}

fn learner_of(plan: &Plan, network: Box<dyn Trainable>, source: Option<Source>) -> Learner {
    Learner::new(
        plan,
        network,
        source,
        [3, 8, 8],
        plan.model.num_classes.saturating_sub(1),
    )
    .unwrap()
}

/// A network whose gradients are summed over processes when the backward pass has ended.
struct AtTheEnd(Trained<Unet>);

impl Trainable for AtTheEnd {
    fn vars(&self) -> Vec<(String, Var)> {
        self.0.vars()
    }

    fn compute_mode(&self) -> ComputeMode {
        self.0.compute_mode()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.0.predict(xt, t, condition)
    }
}

/// Gradients that are summed while they are computed are those that are summed at the end, to the bit.
#[test]
fn the_time_of_a_sum_changes_nothing() {
    for recompute in [false, true] {
        let mut plan = plan(Method::Naive, "uniform");
        plan.steps.recompute = recompute;
        let port = free_port().unwrap();
        let ranks = [0, 1].map(|rank| {
            let plan = plan.clone();
            std::thread::spawn(move || {
                let world = World::local(rank, 2, port);
                let patience = Duration::from_secs(30);
                let group = ProcessGroup::join(&world, &Device::Cpu, patience).unwrap();
                let (group, start) = (Arc::new(group), start(&plan));
                let weights = |network: Box<dyn Trainable>| {
                    let vars = network.vars();
                    let learner = learner_of(&plan, network, None);
                    let mut learner = learner.in_group(Arc::clone(&group)).unwrap();
                    for step in 0..2 {
                        let x0 = randn(5, Purpose::Test, step, 0, &[7, 3, 8, 8], &Device::Cpu);
                        learner
                            .step(step, x0.unwrap().clamp(-1.0, 1.0).unwrap())
                            .unwrap();
                    }
                    let values = vars.iter().map(|(_, var)| var.flatten_all().unwrap());
                    let values = values.flat_map(|value| value.to_vec1::<f32>().unwrap());
                    values.collect::<Vec<_>>()
                };
                let meanwhile = weights(Box::new(network(&plan, &start)));
                (
                    meanwhile,
                    weights(Box::new(AtTheEnd(network(&plan, &start)))),
                )
            })
        });
        let [first, second] = ranks.map(|rank| rank.join().unwrap());
        assert!(first.0 == first.1, "recompute {recompute}");
        assert!(first == second);
    }
}

/// Loss and gradient norm of each of three steps. With classes, the images have labels and masks, and the source has a class for each.
fn learn(plan: &Plan, group: ProcessGroup) -> Vec<[f64; 4]> {
    let classes = plan.model.num_classes.saturating_sub(1);
    let start = start(plan);
    let source = match plan.method {
        Method::Sdft => {
            let network = Box::new(Unet::load(&start, &plan.model).unwrap());
            Some(match classes {
                0 => Source::Plain(network),
                n => Source::Conditional {
                    network,
                    labels: Some(vec![n as u32; n + 1]),
                    takes_augment: false,
                    channels: None,
                },
            })
        }
        _ => None,
    };
    let learner = learner(plan, &start, source);
    let mut learner = learner.in_group(Arc::new(group)).unwrap();
    let shape = [plan.steps.batch, 3, 8, 8];
    (0..3)
        .map(|step| {
            let x0 = randn(5, Purpose::Test, step, 0, &shape, &Device::Cpu).unwrap();
            let images = StepImages::from(x0.clamp(-1.0, 1.0).unwrap());
            let images = match classes {
                0 => images,
                n => StepImages {
                    labels: Some((0..7).map(|i| i % n as u32).collect()),
                    mask: Some(images.x0.narrow(1, 0, 1).unwrap().abs().unwrap()),
                    ..images
                },
            };
            match learner.step(step, images).unwrap() {
                Outcome::Updated { report, grad_norm } => {
                    let aux = report.aux.unwrap_or_default();
                    [report.total, report.base, aux, grad_norm]
                }
                Outcome::Skipped { what } => panic!("{what}"),
            }
        })
        .collect()
}

#[test]
fn processes_take_the_steps_of_one() {
    for (method, timesteps, size, labels) in [
        (Method::Sdft, "uniform", 2, 0),
        (Method::Sdft, "loss-second-moment", 3, 0),
        (Method::Naive, "uniform", 7, 0),
        (Method::Sdft, "uniform", 3, 4),
    ] {
        let mut plan = plan(method, timesteps);
        plan.model.num_classes = labels;
        let alone = learn(&plan, ProcessGroup::single());
        let port = free_port().unwrap();
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let plan = plan.clone();
                std::thread::spawn(move || {
                    let world = World::local(rank, size, port);
                    let patience = Duration::from_secs(30);
                    learn(
                        &plan,
                        ProcessGroup::join(&world, &Device::Cpu, patience).unwrap(),
                    )
                })
            })
            .collect();
        let together: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        assert!(together.iter().all(|of_rank| *of_rank == together[0]));
        for (step, (a, b)) in alone.iter().zip(&together[0]).enumerate() {
            for (a, b) in a.iter().zip(b) {
                assert!(
                    (a - b).abs() <= 2e-5 * a.abs(),
                    "{method:?} step {step}: {a} {b}"
                );
            }
        }
        // The steps moved something, or the later ones would show nothing.
        assert!(alone[0] != alone[1]);
    }
}

#[test]
fn a_batch_needs_an_image_for_every_process() {
    let plan = plan(Method::Naive, "uniform");
    let port = free_port().unwrap();
    let ranks: Vec<_> = (0..8)
        .map(|rank| {
            let plan = plan.clone();
            std::thread::spawn(move || {
                let world = World::local(rank, 8, port);
                let group =
                    ProcessGroup::join(&world, &Device::Cpu, Duration::from_secs(30)).unwrap();
                let learner = learner(&plan, &start(&plan), None);
                learner.in_group(Arc::new(group)).err().unwrap().to_string()
            })
        })
        .collect();
    for rank in ranks {
        let error = rank.join().unwrap();
        assert!(
            error.contains("loop.batch") && error.contains("8 processes"),
            "{error}"
        );
    }
}

/// Half maps give the losses of f32 maps within their rounding, and the first steps move the weights.
#[test]
fn half_maps_learn_like_f32_ones() {
    let of = |precision| {
        let mut plan = plan(Method::Sdft, "uniform");
        plan.steps.precision = precision;
        learn(&plan, ProcessGroup::single())
    };
    let exact = of(Precision::F32);
    assert_eq!(of(Precision::Tf32), exact);
    for (precision, bound) in [(Precision::Bf16, 0.03), (Precision::F16, 0.004)] {
        let half = of(precision);
        assert_ne!(half, exact);
        for (a, b) in exact.iter().flatten().zip(half.iter().flatten()) {
            assert!(
                (a - b).abs() <= bound * a.abs().max(1e-3),
                "{precision:?}: {a} {b}"
            );
        }
    }
}

/// A loss scale that is too large overflows: such steps are skipped, the scale falls, and then the weights move.
#[test]
fn an_overflow_in_f16_is_skipped_and_recovered_from() {
    let mut plan = plan(Method::Naive, "uniform");
    plan.steps.precision = Precision::F16;
    // A prediction far away from any noise: times the first loss scale its gradient leaves f16.
    let near = start(&plan);
    let far = near.iter().map(|(name, tensor)| {
        let add = if name == "out.2.bias" { 3000.0 } else { 0.0 };
        (name.to_owned(), (tensor + add).unwrap())
    });
    let start = Params::new(far.collect());
    let mut learner = learner(&plan, &start, None);
    let x0 = Tensor::zeros((7, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..30 {
        let outcome = learner.step(0, &x0).unwrap();
        outcomes.push(matches!(outcome, Outcome::Updated { .. }));
    }
    let skipped = outcomes.iter().take_while(|updated| !**updated).count();
    assert!((1..30).contains(&skipped), "{outcomes:?}");
}

/// A gate for little noise and one for much noise. A part of a batch uses one of them.
struct Gates {
    gates: [(&'static str, Var); 2],
    pulls_back: bool,
}

impl Trainable for Gates {
    fn vars(&self) -> Vec<(String, Var)> {
        let vars = self.gates.iter();
        vars.map(|(name, var)| ((*name).to_owned(), var.clone()))
            .collect()
    }
    fn pulls_back(&self) -> bool {
        self.pulls_back
    }
    fn predict(&self, xt: &Tensor, t: &[f32], _: &Condition<'_>) -> Result<Prediction> {
        let (_, gate) = &self.gates[usize::from(t[0] >= 500.0)];
        Ok(Prediction::new(
            xt.broadcast_mul(gate)?,
            PredictionType::Epsilon,
        ))
    }
}

/// The gates after some steps on batches of two images.
fn gates(group: &Arc<ProcessGroup>, pulls_back: bool) -> Vec<f32> {
    let mut plan = plan(Method::Naive, "uniform");
    plan.steps.batch = 2;
    plan.steps.micro_batch = 1;
    let zero = || Var::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let network = Gates {
        gates: [("little", zero()), ("much", zero())],
        pulls_back,
    };
    let vars = network.vars();
    let learner = Learner::new(&plan, Box::new(network), None, [3, 8, 8], 0).unwrap();
    let mut learner = learner.in_group(Arc::clone(group)).unwrap();
    for step in 0..8 {
        let x0 = randn(5, Purpose::Test, step, 0, &[2, 3, 8, 8], &Device::Cpu).unwrap();
        learner.step(step, x0.clamp(-1.0, 1.0).unwrap()).unwrap();
    }
    let values = vars.iter().map(|(_, var)| var.flatten_all().unwrap());
    values
        .flat_map(|value| value.to_vec1::<f32>().unwrap())
        .collect()
}

#[test]
fn a_variable_that_one_process_does_not_use_gets_its_gradient_from_the_others() {
    let alone = gates(&Arc::new(ProcessGroup::single()), false);
    let port = free_port().unwrap();
    let ranks = [0, 1].map(|rank| {
        std::thread::spawn(move || {
            let world = World::local(rank, 2, port);
            let group = ProcessGroup::join(&world, &Device::Cpu, Duration::from_secs(30));
            let group = Arc::new(group.unwrap());
            let values = gates(&group, false);
            assert_eq!(values, gates(&group, true));
            values
        })
    });
    let [first, second] = ranks.map(|rank| rank.join().unwrap());
    assert_eq!(first, second);
    assert!(alone.iter().all(|gate| *gate != 0.0), "{alone:?}");
    // A step in which no process uses a gate moves it by its momentum, so only the direction of the first steps must agree.
    for (a, b) in alone.iter().zip(&first) {
        assert!((a - b).abs() < 0.5 * a.abs(), "{alone:?} {first:?}");
    }
}
