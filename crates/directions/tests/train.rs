//! Training a direction on the embedded digits: what it reaches, what it leaves alone, and how it stops.

mod common;

use candle_core::Device;
use common::{broken, goal, judge, model, numbers, seen, stopping, threes, weights};
use sdft_asyrp::{
    Direction, EditPlan, Goal, InversionCache, Mix, edit, invert, read_direction, sequence,
    strength_at,
};
use sdft_autoencoder::Space;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_directions::{DirectionPlan, DirectionSetup, train_direction};
use sdft_eval::score_kept;
use sdft_imaging::ImageSpec;
use sdft_models::LoadedModel;
use sdft_randn::NumberedNoise;
use sdft_train::{Ending, NoopProgress, RunFolder, TrainError, to_images, to_tensor};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn plan(model: &LoadedModel, images: usize, steps: usize) -> DirectionPlan {
    let mut plan = DirectionPlan {
        source: "digits-source".into(),
        source_sha256: model.sha256.clone(),
        model: model.architecture.clone(),
        process: model.process.clone(),
        ..DirectionPlan::default()
    };
    plan.data.path = "digits".into();
    plan.data.images = images;
    (plan.goal.from, plan.goal.to) = ("3".into(), "2".into());
    plan.goal.network = "digits".into();
    plan.optim.lr = 1.0;
    plan.pace.epochs = 1;
    (plan.walk.inversion, plan.walk.steps) = (40, steps);
    (plan.walk.t_edit, plan.walk.t_boost) = (300, 0);
    plan.output.checkpoint_every = 1;
    plan.output.samples = 0;
    plan
}

fn train(
    root: &Path,
    plan: &DirectionPlan,
    goal: Goal,
    stop: &AtomicBool,
) -> Result<Ending, TrainError> {
    let folder = match root.join("plan.toml").exists() {
        true => RunFolder::open::<DirectionPlan>(root).unwrap().0,
        false => RunFolder::create(root, plan).unwrap(),
    };
    let digits = Digits::embedded().unwrap();
    let data = DigitsSource::new(digits, Style::Chalk, &[3], plan.data.images).unwrap();
    let model = model();
    let setup = DirectionSetup {
        plan: plan.clone(),
        folder,
        net: model.network().unwrap(),
        goal,
        space: Space::images(*data.spec()),
        data: Arc::new(data),
        latents: InversionCache::in_memory(),
        device: Device::Cpu,
    };
    train_direction(setup, stop, &mut NoopProgress)
}

#[test]
fn one_epoch_on_twenty_digits_raises_the_target_class_and_leaves_the_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let model = model();
    let before: Vec<Vec<f32>> = numbers(&model);
    let started = Instant::now();
    let plan = plan(&model, 20, 20);
    let ending = train(&root, &plan, goal(seen()), &AtomicBool::new(false)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
    let Ending::Finished { model: file, .. } = ending else {
        panic!("{ending:?}")
    };

    let net = model.network().unwrap();
    let groups = model.architecture.norm_groups();
    let read = read_direction(&file, net.bottleneck(), groups, &Device::Cpu).unwrap();
    let info = read.info.unwrap();
    assert_eq!((info.from.as_str(), info.to.as_str()), ("3", "2"));
    assert_eq!((info.steps, info.t_edit, info.t_boost), (20, 300, 0));
    let schedule = model.process.published().unwrap().schedule;
    let spec = ImageSpec::rgb8(16, 16);
    let x0 = to_tensor(&threes(20, 24), &spec).unwrap();
    let steps = sequence(40, 999);
    let latent = invert(&*net, &schedule, &x0, &steps, &mut |_| Ok(())).unwrap();
    let judge = judge();
    let twos = |strength: f64| {
        let mix = Mix::of(vec![Direction {
            block: &read.block,
            strength: strength_at(strength, info.steps, steps.len(), 1),
        }]);
        let plan = EditPlan {
            steps: steps.clone(),
            t_edit: info.t_edit,
            t_boost: 0,
        };
        let mut none = NumberedNoise::new(0, vec![0; 24]);
        let out = edit(
            &*net,
            &schedule,
            &latent,
            &mix,
            &plan,
            &mut none,
            &mut |_| Ok(()),
        );
        let images = to_tensor(&to_images(&out.unwrap(), &spec).unwrap(), &spec).unwrap();
        let error = (&images - &x0).unwrap().abs().unwrap().mean_all().unwrap();
        let class = score_kept(&judge, &images, &[2; 24]).unwrap().class;
        (class, error.to_scalar::<f32>().unwrap())
    };
    let (none, inversion_error) = twos(0.0);
    let (most, moved) = twos(1.0);
    // Without strength an image comes back up to the error of its inversion.
    assert!(
        none < 0.2 && inversion_error < 0.08,
        "{none} {inversion_error}"
    );
    assert!(most > 0.5 && moved > inversion_error, "{most} {moved}");
    assert_eq!(numbers(&model), before);
}

#[test]
fn a_stop_within_a_trajectory_loses_that_trajectory_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(&model(), 4, 8);
    // Momentum is state that must come back, too; the rate falls by epochs.
    plan.optim.momentum = 0.5;
    (plan.optim.lr_every, plan.optim.lr_factor) = (1, 0.5);
    plan.pace.epochs = 2;
    plan.output.log_every = 1;
    let quiet = dir.path().join("quiet");
    train(&quiet, &plan, goal(seen()), &AtomicBool::new(false)).unwrap();

    // What stops it must save it.
    let mut seldom = plan.clone();
    seldom.output.checkpoint_every = 0;

    let log = std::fs::read_to_string(quiet.join("log.jsonl")).unwrap();
    let rates = log.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["lr"].as_f64().unwrap()
    });
    assert!(rates.eq([1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]), "{log}");

    let hurt = dir.path().join("hurt");
    let stop = Arc::new(AtomicBool::new(false));
    // Two evaluations for the audit, then five for each trajectory: the image, and the four steps from 500 up.
    let third = 2 + 2 * 5 + 3;
    let ending = train(&hurt, &seldom, goal(stopping(&stop, third)), &stop).unwrap();
    let Ending::Interrupted { checkpoint } = ending else {
        panic!("{ending:?}")
    };
    assert!(checkpoint.ends_with("step-000002"), "{checkpoint:?}");
    stop.store(false, Ordering::Relaxed);
    train(&hurt, &seldom, goal(seen()), &stop).unwrap();
    assert!(weights(&hurt) == weights(&quiet));
}

#[test]
fn the_rate_falls_by_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(&model(), 4, 8);
    let never = AtomicBool::new(false);
    let one = dir.path().join("one");
    train(&one, &plan, goal(seen()), &never).unwrap();
    // From the second epoch on nothing moves.
    (plan.optim.lr_every, plan.optim.lr_factor, plan.pace.epochs) = (1, 0.0, 2);
    let two = dir.path().join("two");
    train(&two, &plan, goal(seen()), &never).unwrap();
    let numbers = |root: &Path| {
        let bytes = weights(root);
        bytes[bytes.len() - 4096..].to_vec()
    };
    assert!(numbers(&one) == numbers(&two));
}

#[test]
fn a_trajectory_with_a_nan_changes_no_weight() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(&model(), 4, 8);
    plan.optim.momentum = 0.5;
    let never = AtomicBool::new(false);
    // Two evaluations for the audit and five for the first trajectory. The second trajectory is NaN at its first or at its last step (its four
    // steps take four evaluations); either way it has no effect.
    let [early, late] = [("early", 2 + 5 + 2), ("late", 2 + 5 + 5)].map(|(name, at)| {
        let root = dir.path().join(name);
        train(&root, &plan, goal(broken(at, at + 1)), &never).unwrap();
        weights(&root)
    });
    // An early end saves three evaluations; the later trajectories have the same images.
    assert!(early == late);
    let whole = dir.path().join("whole");
    train(&whole, &plan, goal(seen()), &never).unwrap();
    assert!(weights(&whole) != early);

    plan.pace.max_skips = 2;
    let root = dir.path().join("never");
    let error = train(&root, &plan, goal(broken(2 + 5 + 2, usize::MAX)), &never).unwrap_err();
    assert!(
        error.to_string().contains("loss was not finite in 2 steps"),
        "{error}"
    );
}
