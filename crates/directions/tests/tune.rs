//! Tuning a model for an edit on the embedded digits: what it reaches, what its file states, and how it stops.

mod common;

use candle_core::Device;
use common::{broken, goal, judge, model, numbers, seen, stopping, threes, weights};
use sdft_adapters::{AdapterConfig, AdapterKind, Base};
use sdft_asyrp::{Goal, InversionCache, invert, sequence};
use sdft_autoencoder::Space;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_diffusion::{ComputeMode, Denoiser, Trainable};
use sdft_diffusionclip::{Mixture, TuningInfo, generate, read_tuning_info};
use sdft_directions::{TuningPlan, TuningSetup, UpdateEach, tune_model};
use sdft_eval::score_kept;
use sdft_imaging::ImageSpec;
use sdft_models::{LoadOptions, LoadedModel, inspect_file, load_network};
use sdft_train::{Ending, NoopProgress, RunFolder, TrainError, to_images, to_tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn plan(model: &LoadedModel, images: usize) -> TuningPlan {
    let mut plan = TuningPlan {
        source: "digits-source".into(),
        source_sha256: model.sha256.clone(),
        network_sha256: "original".into(),
        model: model.architecture.clone(),
        process: model.process.clone(),
        ..TuningPlan::default()
    };
    plan.data.path = "digits".into();
    plan.data.images = images;
    (plan.goal.from, plan.goal.to) = ("3".into(), "2".into());
    plan.goal.network = "digits".into();
    plan.optim.lr = 1e-4;
    plan.pace.epochs = 2;
    (plan.walk.inversion, plan.walk.steps) = (10, 4);
    plan.output.checkpoint_every = 1;
    plan.output.samples = 0;
    plan
}

/// The network of a plan, in training.
fn network(plan: &TuningPlan, model: &LoadedModel) -> Box<dyn Trainable> {
    if plan.adapter.is_full() {
        return model.trainable().unwrap();
    }
    let base = Base {
        params: &model.params,
        specs: &model.architecture.trainable_specs().unwrap(),
        sha256: String::new(),
    };
    let kind = model.process.prediction_type;
    let build = |params: &sdft_nn::Params| {
        let mode = ComputeMode::default();
        model.architecture.trainable(params, kind, mode)
    };
    let net = sdft_adapters::AdaptedNetwork::new(&plan.adapter, base, plan.seed, build);
    Box::new(net.unwrap())
}

fn tune(
    root: &Path,
    plan: &TuningPlan,
    goal: Goal,
    stop: &AtomicBool,
) -> Result<Ending, TrainError> {
    let folder = match root.join("plan.toml").exists() {
        true => RunFolder::open::<TuningPlan>(root).unwrap().0,
        false => RunFolder::create(root, plan).unwrap(),
    };
    let digits = Digits::embedded().unwrap();
    let data = DigitsSource::new(digits, Style::Chalk, &[3], plan.data.images).unwrap();
    let model = model();
    let setup = TuningSetup {
        plan: plan.clone(),
        folder,
        original: model.network().unwrap(),
        network: network(plan, &model),
        class: None,
        metadata: BTreeMap::new(),
        goal,
        space: Space::images(*data.spec()),
        data: Arc::new(data),
        latents: InversionCache::in_memory(),
        device: Device::Cpu,
    };
    tune_model(setup, stop, &mut NoopProgress)
}

#[test]
fn a_tuned_model_turns_threes_into_twos_and_is_a_model_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let original = model();
    let before = numbers(&original);
    let mut plan = plan(&original, 20);
    (plan.walk.inversion, plan.walk.steps) = (40, 6);
    (plan.walk.t_0, plan.pace.epochs) = (600, 3);
    let never = AtomicBool::new(false);
    let ending = tune(&dir.path().join("run"), &plan, goal(seen()), &never).unwrap();
    let Ending::Finished { model: file, .. } = ending else {
        panic!("{ending:?}")
    };
    assert_eq!(numbers(&original), before);

    let tuned = load_network(&file, &LoadOptions::default()).unwrap();
    assert_eq!(tuned.architecture, original.architecture);
    assert_eq!(tuned.process, original.process);
    let metadata = inspect_file(&file, &LoadOptions::default()).unwrap();
    let metadata = metadata.summary.metadata;
    let stated = read_tuning_info(&metadata).unwrap().unwrap();
    let expected = TuningInfo {
        from: "3".into(),
        to: "2".into(),
        network_sha256: "original".into(),
        t_0: 600,
        inversion: 40,
        steps: 6,
    };
    assert_eq!(stated, expected);
    assert_eq!(metadata["sdft.provenance.method"], "diffusionclip");
    assert_eq!(metadata["sdft.provenance.steps"], "60");

    let [net, other] = [&original, &tuned].map(|model| model.network().unwrap());
    let schedule = original.process.published().unwrap().schedule;
    let spec = ImageSpec::rgb8(16, 16);
    let x0 = to_tensor(&threes(20, 24), &spec).unwrap();
    let steps = sequence(40, 600);
    let latent = invert(&*net, &schedule, &x0, &steps, &mut |_| Ok(())).unwrap();
    let judge = judge();
    let twos = |share: f64| {
        let mixture = Mixture::new(&*net, [(&*other as &dyn Denoiser, share)]);
        let out = generate(&mixture, &schedule, &latent, &steps, &mut |_| Ok(())).unwrap();
        let images = to_tensor(&to_images(&out, &spec).unwrap(), &spec).unwrap();
        let error = (&images - &x0).unwrap().abs().unwrap().mean_all().unwrap();
        let class = score_kept(&judge, &images, &[2; 24]).unwrap().class;
        (class, error.to_scalar::<f32>().unwrap())
    };
    let (none, inversion_error) = twos(0.0);
    let (most, moved) = twos(1.0);
    assert!(
        none < 0.2 && inversion_error < 0.08,
        "{none} {inversion_error}"
    );
    assert!(most > 0.5 && moved > inversion_error, "{most} {moved}");
}

/// Plans of both kinds of updates, and of an adapter.
fn plans() -> [(&'static str, TuningPlan); 3] {
    let model = model();
    let of = |update| {
        let mut plan = plan(&model, 3);
        plan.pace.update = update;
        plan
    };
    let mut lora = of(UpdateEach::Generation);
    let specs = model.architecture.trainable_specs().unwrap();
    lora.adapter = AdapterConfig {
        kind: AdapterKind::Lora,
        ..AdapterConfig::default()
    }
    .resolved(&specs);
    [
        ("generation", of(UpdateEach::Generation)),
        ("step", of(UpdateEach::Step)),
        ("lora", lora),
    ]
}

/// The evaluations of the judge in a generation: the image, then what each update is for.
fn evaluations(plan: &TuningPlan) -> usize {
    match plan.pace.update {
        UpdateEach::Generation => 2,
        UpdateEach::Step => 1 + plan.walk.steps,
    }
}

#[test]
fn a_stop_within_a_generation_loses_that_generation_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (name, plan) in plans() {
        let quiet = dir.path().join(name).join("quiet");
        tune(&quiet, &plan, goal(seen()), &AtomicBool::new(false)).unwrap();
        let log = std::fs::read_to_string(quiet.join("log.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        // The rate rises after an epoch.
        assert!(
            (last["lr"].as_f64().unwrap() - 1.3e-4).abs() < 1e-12,
            "{log}"
        );
        for term in ["loss", "direction", "l1", "grad_norm"] {
            assert!(log.contains(term), "{term}: {log}");
        }

        let mut seldom = plan.clone();
        seldom.output.checkpoint_every = 0;
        let hurt = dir.path().join(name).join("hurt");
        let stop = Arc::new(AtomicBool::new(false));
        // Two evaluations for the audit, two generations, and the first update of the third.
        let third = 2 + 2 * evaluations(&plan) + 2;
        let ending = tune(&hurt, &seldom, goal(stopping(&stop, third)), &stop).unwrap();
        let Ending::Interrupted { checkpoint } = ending else {
            panic!("{name}: {ending:?}")
        };
        assert!(
            checkpoint.ends_with("step-000002"),
            "{name}: {checkpoint:?}"
        );
        stop.store(false, Ordering::Relaxed);
        tune(&hurt, &seldom, goal(seen()), &stop).unwrap();
        assert!(weights(&hurt) == weights(&quiet), "{name}");
        let finished = |root: &Path| std::fs::read(root.join("final.safetensors")).unwrap();
        assert!(finished(&hurt) == finished(&quiet), "{name}");
        assert_eq!(hurt.join("adapter.safetensors").exists(), name == "lora");
        // The checkpoint is a model, or an adapter of one.
        let checkpoint = hurt.join("checkpoints/step-000006/ema.safetensors");
        let loaded = load_network(&checkpoint, &LoadOptions::default());
        assert_eq!(loaded.is_ok(), name != "lora");
    }
}

#[test]
fn a_generation_with_a_nan_changes_no_weight() {
    let dir = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let [_, (_, mut plan), _] = plans();
    // Two evaluations for the audit and five for the first generation. The second one is NaN at its first or at its last step; either way
    // it has no effect.
    let [early, late] = [("early", 2 + 5 + 2), ("late", 2 + 5 + 5)].map(|(name, at)| {
        let root = dir.path().join(name);
        tune(&root, &plan, goal(broken(at, at + 1)), &never).unwrap();
        weights(&root)
    });
    assert!(early == late);
    let whole = dir.path().join("whole");
    tune(&whole, &plan, goal(seen()), &never).unwrap();
    assert!(weights(&whole) != early);

    plan.pace.max_skips = 2;
    plan.pace.update = UpdateEach::Generation;
    let root = dir.path().join("never");
    let error = tune(&root, &plan, goal(broken(2 + 2 + 2, usize::MAX)), &never).unwrap_err();
    assert!(
        error.to_string().contains("loss was not finite in 2 steps"),
        "{error}"
    );
}
