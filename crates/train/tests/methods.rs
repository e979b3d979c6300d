//! Methods of fine-tuning other than SDFT: what they leave unchanged, and which do not depend on how a batch is split.

use candle_core::{Device, Tensor};
use sdft_adm::{AdmConfig, Unet, trainable_unet};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_diffusion::{ComputeMode, PredictionType};
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_parallel::{ProcessGroup, World, free_port};
use sdft_randn::randn;
use sdft_testing::tiny_config;
use sdft_train::{Learner, Method, Outcome, Source};
use std::sync::Arc;
use std::time::Duration;

type Plan = sdft_train::Plan<AdmConfig>;

/// Naive fine-tuning of a tiny network on images of the digits' size, with a change.
fn plan(change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = Plan {
        seed: 3,
        method: Method::Naive,
        model: AdmConfig {
            image_size: 16,
            ..tiny_config()
        },
        ..Plan::default()
    };
    plan.steps.batch = 4;
    plan.optim.lr = 1e-3;
    change(&mut plan);
    plan
}

/// Weights without zeros, so that everything gets a gradient.
fn start(plan: &Plan) -> Params {
    let params = Params::init(&Unet::specs(&plan.model).unwrap(), 1, &Device::Cpu).unwrap();
    let filled = params.iter().enumerate().map(|(i, (name, tensor))| {
        let noise = randn(9, Purpose::Test, i as u64, 0, tensor.dims(), &Device::Cpu);
        let moved = (tensor + (noise.unwrap() * 0.02).unwrap()).unwrap();
        (name.to_owned(), moved)
    });
    Params::new(filled.collect())
}

fn bank() -> Arc<dyn ImageSource> {
    let digits = Digits::embedded().unwrap();
    Arc::new(DigitsSource::new(digits, Style::Chalk, &[], 2).unwrap())
}

fn learner(plan: &Plan) -> Learner {
    let start = start(plan);
    let mode = ComputeMode::default();
    let network = trainable_unet(&start, &plan.model, PredictionType::Epsilon, mode).unwrap();
    let source = Source::Plain(Box::new(Unet::load(&start, &plan.model).unwrap()));
    let learner = Learner::new(plan, Box::new(network), Some(source), [3, 16, 16], 0).unwrap();
    let learner = match plan.needs_bank() {
        true => learner.with_bank(plan, bank()).unwrap(),
        false => learner,
    };
    // A classifier whose log-probability is half the square of the image.
    learner.with_classifier(Box::new(|xt, _| Ok(xt.clone())))
}

fn images(plan: &Plan, step: u64) -> Tensor {
    let shape = [plan.steps.batch, 3, 16, 16];
    let x0 = randn(5, Purpose::Test, step, 0, &shape, &Device::Cpu).unwrap();
    x0.clamp(-1.0, 1.0).unwrap()
}

/// Takes steps and returns the loss of each, and all weights afterwards.
fn learn(learner: &mut Learner, plan: &Plan, steps: u64) -> (Vec<f64>, Vec<f32>) {
    let losses = (0..steps).map(
        |step| match learner.step(step, images(plan, step)).unwrap() {
            Outcome::Updated { report, .. } => report.total,
            Outcome::Skipped { what } => panic!("{what}"),
        },
    );
    let losses = losses.collect();
    (losses, weights(learner))
}

fn weights(learner: &Learner) -> Vec<f32> {
    let all = learner.updater().raw();
    let values = all
        .iter()
        .map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    values.flatten().collect()
}

fn trained(change: impl FnOnce(&mut Plan)) -> (Vec<f64>, Vec<f32>) {
    let plan = plan(change);
    learn(&mut learner(&plan), &plan, 3)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn methods_that_are_switched_off_equal_naive_fine_tuning() {
    let naive = trained(|_| {});
    let same = |change: fn(&mut Plan)| assert_eq!(trained(change), naive);
    same(|plan| plan.loss.dogfit.weight = 1.0);
    same(|plan| plan.loss.timesteps = "power-0".into());
    same(|plan| {
        // Guidance that begins after the last step, or whose cut-off leaves no step.
        plan.loss.dogfit.weight = 2.0;
        plan.loss.dogfit.start = 3;
    });
    same(|plan| (plan.loss.dogfit.weight, plan.loss.dogfit.cutoff) = (2.0, 0.0));
    same(|plan| (plan.loss.ant.omega, plan.loss.ant.guidance) = (0.5, 0.0));
}

#[test]
fn every_method_changes_what_is_learned() {
    let naive = trained(|_| {});
    for change in [
        (|plan| plan.loss.dogfit.weight = 1.5) as fn(&mut Plan),
        |plan| plan.loss.timesteps = "power-1".into(),
        |plan| plan.loss.keep.weight = 1.0,
        |plan| plan.loss.pairwise.weight = 50.0,
        |plan| plan.loss.pairwise.hf_weight = 50.0,
        |plan| plan.loss.pairwise.hf_mse_weight = 0.5,
        |plan| plan.loss.ant.guidance = 5.0,
        |plan| plan.loss.ant.rounds = 2,
        |plan| plan.loss.anchor.l2_sp = 0.5,
        |plan| (plan.loss.anchor.ewc, plan.loss.anchor.gradients) = (0.5, 3),
    ] {
        let (losses, weights) = trained(change);
        let mut plan = plan(|_| {});
        change(&mut plan);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        assert!(
            largest_difference(&weights, &naive.1) > 1e-5,
            "{:?}",
            plan.loss
        );
    }
}

#[test]
fn dogfit_guides_away_from_the_source_model_once_the_average_differs() {
    // In the first step the average equals the source model, so there is nothing to guide away from.
    let guided = |plan: &mut Plan| (plan.loss.dogfit.weight, plan.loss.dogfit.cutoff) = (3.0, 2.0);
    let (naive, dogfit) = (trained(|_| {}), trained(guided));
    assert!((naive.0[0] - dogfit.0[0]).abs() < 1e-9);
    assert!((naive.0[2] - dogfit.0[2]).abs() > 1e-9);
}

#[test]
fn kept_samples_count_the_same_in_every_split_of_a_batch() {
    let losses = |micro_batch, share| {
        trained(|plan| {
            plan.steps.micro_batch = micro_batch;
            (plan.loss.keep.weight, plan.loss.keep.share) = (0.7, share);
        })
    };
    for share in [0.5, 0.75, 1.25] {
        let whole = losses(0, share);
        for micro_batch in [1, 3] {
            let parts = losses(micro_batch, share);
            for (a, b) in whole.0.iter().zip(&parts.0) {
                assert!(
                    (a - b).abs() < 1e-5 * a.abs(),
                    "{share} {micro_batch}: {a} {b}"
                );
            }
        }
    }
}

#[test]
fn kept_samples_and_anchors_are_shared_by_processes() {
    let change = |plan: &mut Plan| {
        (plan.loss.keep.weight, plan.loss.keep.share) = (0.7, 0.5);
        (plan.loss.anchor.l2_sp, plan.loss.anchor.ewc) = (0.3, 0.2);
        plan.loss.anchor.gradients = 3;
        plan.loss.ant.rounds = 1;
        plan.loss.dogfit.weight = 1.5;
    };
    let alone = trained(change);
    let plan = plan(change);
    let port = free_port().unwrap();
    let ranks: Vec<_> = (0..2)
        .map(|rank| {
            let plan = plan.clone();
            std::thread::spawn(move || {
                let world = World::local(rank, 2, port);
                let timeout = Duration::from_secs(60);
                let group = ProcessGroup::join(&world, &Device::Cpu, timeout).unwrap();
                let mut learner = learner(&plan).in_group(Arc::new(group)).unwrap();
                learn(&mut learner, &plan, 3).0
            })
        })
        .collect();
    for rank in ranks {
        let losses = rank.join().unwrap();
        for (a, b) in alone.0.iter().zip(&losses) {
            assert!((a - b).abs() < 1e-5 * a.abs(), "{a} {b}");
        }
    }
}

#[test]
fn an_anchor_keeps_weights_near_the_source_model() {
    let distance = |change: fn(&mut Plan)| {
        let plan = plan(|plan| {
            // Adam's steps have a fixed size, so the pull shows with plain gradient descent.
            plan.optim.kind = sdft_train::OptimizerKind::Sgd;
            plan.optim.lr = 0.02;
            change(plan);
        });
        let mut learner = learner(&plan);
        let before = weights(&learner);
        let (losses, after) = learn(&mut learner, &plan, 6);
        let squares = before
            .iter()
            .zip(&after)
            .map(|(a, b)| f64::from(a - b).powi(2));
        (squares.sum::<f64>().sqrt(), losses[0])
    };
    let (naive, first) = distance(|_| {});
    let (pulled, same) = distance(|plan| plan.loss.anchor.l2_sp = 20.0);
    assert!(pulled < 0.8 * naive, "{pulled} {naive}");
    // At the start the distance is 0, so the loss is that of naive fine-tuning.
    assert_eq!(same, first);
}

#[test]
fn the_gradient_audit_covers_kept_samples_and_pairs() {
    for change in [
        (|plan| plan.loss.keep.weight = 1.0) as fn(&mut Plan),
        |plan| plan.loss.pairwise.weight = 50.0,
    ] {
        let plan = plan(change);
        learner(&plan).audit(&images(&plan, 0)).unwrap();
    }
}
