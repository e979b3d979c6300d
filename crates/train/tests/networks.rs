//! Networks of plain candle layers train like any other: guards, average, logs, checkpoints, resuming.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder, VarMap, conv2d, linear};
use sdft_adapters::{AdaptedNetwork, AdapterConfig, AdapterKind, Base};
use sdft_adm::{AdmConfig, Unet, trainable_unet};
use sdft_checkpoint::ReadOptions;
use sdft_data::{Digits, DigitsSource, Style};
use sdft_diffusion::{
    ComputeMode, Condition, Continuous, EdmProcess, Precond, Preconditioned, Prediction,
    PredictionType, Trainable, named_vars,
};
use sdft_noise::Purpose;
use sdft_randn::randn;
use sdft_testing::{nonzero_params, tiny_config};
use sdft_train::{
    Ending, Frozen, Method, NoopProgress, Plan, Precision, Progress, Setup, StepReport, TrainError,
    run,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Two convolutions and a dense layer for the time, of candle-nn.
struct Layers {
    vars: VarMap,
    first: Conv2d,
    time: Linear,
    last: Conv2d,
}

impl Layers {
    fn new() -> Self {
        let vars = VarMap::new();
        let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let same = Conv2dConfig {
            padding: 1,
            ..Conv2dConfig::default()
        };
        let net = Self {
            first: conv2d(3, 8, 3, same, builder.pp("first")).unwrap(),
            time: linear(1, 8, builder.pp("time")).unwrap(),
            last: conv2d(8, 3, 3, same, builder.pp("last")).unwrap(),
            vars,
        };
        // candle-nn draws its first values without a seed.
        start(&net);
        net
    }
}

impl Trainable for Layers {
    fn vars(&self) -> Vec<(String, Var)> {
        named_vars(&self.vars)
    }
    fn predict(&self, xt: &Tensor, t: &[f32], _: &Condition<'_>) -> Result<Prediction> {
        let t = (Tensor::new(t, xt.device())?.unsqueeze(1)? / 1000.0)?;
        let time = self.time.forward(&t)?.unsqueeze(2)?.unsqueeze(3)?;
        let h = self.first.forward(xt)?.broadcast_add(&time)?.silu()?;
        let output = self.last.forward(&h)?;
        Ok(Prediction::new(output, PredictionType::Epsilon))
    }
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("model".into(), "two convolutions".into())])
    }
}

/// A factor and an offset for each channel, without any layers.
struct Bare([(&'static str, Var); 2]);

impl Bare {
    fn new() -> Self {
        let var = || Var::zeros((1, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let net = Self([("factor", var()), ("offset", var())]);
        start(&net);
        net
    }
}

impl Trainable for Bare {
    fn vars(&self) -> Vec<(String, Var)> {
        let all = self.0.iter();
        all.map(|(name, var)| ((*name).to_owned(), var.clone()))
            .collect()
    }
    fn predict(&self, xt: &Tensor, _: &[f32], _: &Condition<'_>) -> Result<Prediction> {
        let [(_, factor), (_, offset)] = &self.0;
        let output = xt.broadcast_mul(factor)?.broadcast_add(offset)?;
        Ok(Prediction::new(output, PredictionType::Epsilon))
    }
}

/// The same first values every time.
fn start(net: &dyn Trainable) {
    for (i, (_, var)) in net.vars().iter().enumerate() {
        let noise = randn(1, Purpose::Test, i as u64, 0, var.dims(), &Device::Cpu);
        var.set(&(noise.unwrap() * 0.1).unwrap()).unwrap();
    }
}

fn plan() -> Plan {
    let mut plan = Plan::sdft("the same network", "digits");
    plan.steps.steps = 12;
    plan.steps.batch = 4;
    plan.steps.micro_batch = 3;
    plan.steps.precision = Precision::F32;
    plan.optim.lr = 1e-2;
    plan.output.log_every = 2;
    plan.output.checkpoint_every = 4;
    plan.output.sample_every = 6;
    plan.output.samples = 2;
    plan.output.sampler = "ddim4".into();
    plan
}

fn setup<T: Trainable + 'static>(root: &Path, plan: &Plan, new: fn() -> T) -> Setup {
    let digits = Digits::embedded().unwrap();
    let images = DigitsSource::new(digits, Style::Chalk, &[], 2).unwrap();
    let setup = Setup::new(root, plan.clone(), new(), images).unwrap();
    setup.with_source(Frozen(new()))
}

fn train<T: Trainable + 'static>(root: &Path, plan: &Plan, new: fn() -> T) -> Ending {
    let never = AtomicBool::new(false);
    run(setup(root, plan, new), &never, &mut NoopProgress).unwrap()
}

/// Every file of the newest checkpoint, the model, and the log without its times.
fn state(root: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
    let latest = std::fs::read_to_string(root.join("checkpoints/latest")).unwrap();
    let checkpoint = root.join("checkpoints").join(latest.trim());
    let mut files = ["weights", "ema", "optimizer"]
        .map(|name| std::fs::read(checkpoint.join(format!("{name}.safetensors"))).unwrap())
        .to_vec();
    files.push(std::fs::read(root.join("final.safetensors")).unwrap());
    let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("time");
        line.to_string()
    });
    (files, lines.collect())
}

/// Ends the process, as far as the run can see, after some steps.
struct Killed(u64);

impl Progress for Killed {
    fn step(&mut self, report: &StepReport) {
        assert!(report.step < self.0, "killed");
    }
}

/// Stops the run after some steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Progress for StopAt<'_> {
    fn step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

fn survives_everything<T: Trainable + 'static>(plan: Plan, new: fn() -> T) {
    let dir = tempfile::tempdir().unwrap();
    let quiet = dir.path().join("quiet");
    let Ending::Finished { model, shown } = train(&quiet, &plan, new) else {
        panic!("interrupted");
    };
    assert!(model.ends_with("final.safetensors") && shown.is_file());
    assert!(quiet.join("samples/step-000006.png").is_file());
    let expected = state(&quiet);
    assert_eq!(expected.1.len(), 6);
    let first: serde_json::Value = serde_json::from_str(&expected.1[0]).unwrap();
    let last: serde_json::Value = serde_json::from_str(&expected.1[5]).unwrap();
    assert!(last["base"].as_f64() < first["base"].as_f64(), "{last}");
    assert!(last["distill"].is_number() && last["aux"].is_number());

    // Killed between two checkpoints, and resumed.
    let hurt = dir.path().join("hurt");
    let killed = catch_unwind(AssertUnwindSafe(|| {
        let never = AtomicBool::new(false);
        run(setup(&hurt, &plan, new), &never, &mut Killed(6))
    }));
    assert!(killed.is_err());
    assert!(hurt.join("checkpoints/step-000004").is_dir());
    train(&hurt, &plan, new);
    assert!(state(&hurt) == expected);

    // Stopped, which saves, and resumed.
    let paused = dir.path().join("paused");
    let stop = AtomicBool::new(false);
    let ending = run(setup(&paused, &plan, new), &stop, &mut StopAt(7, &stop)).unwrap();
    let Ending::Interrupted { checkpoint } = ending else {
        panic!("{ending:?}");
    };
    assert!(checkpoint.ends_with("step-000007"), "{checkpoint:?}");
    train(&paused, &plan, new);
    assert!(state(&paused) == expected);
}

#[test]
fn a_network_of_candle_nn_layers_trains_and_resumes_bit_for_bit() {
    survives_everything(plan(), Layers::new);
}

#[test]
fn a_network_of_bare_variables_trains_and_resumes_bit_for_bit() {
    survives_everything(plan(), Bare::new);
}

/// A small U-Net of which low-rank changes of convolutions and attention are trained.
fn adapted() -> AdaptedNetwork {
    let config = AdmConfig {
        image_size: 16,
        ..tiny_config()
    };
    let specs = Unet::specs(&config).unwrap();
    let params = nonzero_params(specs.clone(), 1);
    let adapter = AdapterConfig {
        kind: AdapterKind::Lora,
        rank: Some(4),
        targets: vec!["qkv".into(), "*_layers.*".into(), "out.2".into()],
        ..AdapterConfig::default()
    };
    let base = Base {
        params: &params,
        specs: &specs,
        sha256: String::new(),
    };
    AdaptedNetwork::new(&adapter, base, 0, |params| {
        let (kind, mode) = (PredictionType::Epsilon, ComputeMode::default());
        Ok(Box::new(trainable_unet(params, &config, kind, mode)?))
    })
    .unwrap()
}

#[test]
fn a_lora_trains_and_resumes_bit_for_bit() {
    survives_everything(plan(), adapted);
}

#[test]
fn a_network_of_a_continuous_process_trains_and_resumes_bit_for_bit() {
    let mut plan = plan();
    plan.process.prediction_type = PredictionType::Sample;
    let process = EdmProcess {
        p_std: 0.2,
        ..EdmProcess::of(&Precond::EDM)
    };
    plan.process.continuous = Some(process.into());
    plan.loss.base = plan.process.usual_base();
    survives_everything(plan, || Preconditioned::new(Layers::new(), Precond::EDM));
}

#[test]
fn a_network_of_a_flow_trains_and_resumes_bit_for_bit() {
    let mut plan = plan();
    plan.process.prediction_type = PredictionType::Sample;
    plan.process.continuous = Some(Continuous::of(&Precond::SIT));
    plan.loss.base = plan.process.usual_base();
    survives_everything(plan, || Preconditioned::new(Layers::new(), Precond::SIT));
}

#[test]
fn the_model_is_the_average_with_its_provenance() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    train(&root, &plan(), Layers::new);
    let read = |path: &Path| sdft_checkpoint::read(path, &ReadOptions::default()).unwrap();
    let model = read(&root.join("final.safetensors"));
    let metadata = model.metadata();
    assert_eq!(metadata["model"], "two convolutions");
    assert_eq!(metadata["sdft.provenance.steps"], "12");
    assert!(metadata["sdft.process"].contains("linear"));
    let numbers = |path: &str| {
        let values = read(&root.join("checkpoints/step-000012").join(path)).into_map();
        values["first.weight"]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    let finished = model.into_map()["first.weight"].flatten_all().unwrap();
    assert_eq!(
        finished.to_vec1::<f32>().unwrap(),
        numbers("ema.safetensors")
    );
    // Sampling the average left the weights in training alone.
    assert_ne!(numbers("weights.safetensors"), numbers("ema.safetensors"));
}

#[test]
fn a_plan_that_the_network_cannot_follow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, change: fn(&mut Plan)| {
        let mut plan = plan();
        change(&mut plan);
        let setup = setup(&dir.path().join(name), &plan, Layers::new);
        let never = AtomicBool::new(false);
        run(setup, &never, &mut NoopProgress)
            .unwrap_err()
            .to_string()
    };
    let half = error("half", |plan| plan.steps.precision = Precision::F16);
    assert!(
        half.starts_with("loop.precision: the plan asks for feature maps in f16"),
        "{half}"
    );
    let again = error("again", |plan| plan.steps.recompute = true);
    assert!(again.starts_with("loop.recompute"), "{again}");
    let v = error("v", |plan| plan.process.prediction_type = PredictionType::V);
    assert!(
        v.contains("process.prediction_type") && v.contains("epsilon"),
        "{v}"
    );
    let scratch = error("scratch", |plan| {
        plan.method = Method::Scratch;
        plan.source.clear();
    });
    assert!(scratch.contains("source model"), "{scratch}");
}

/// A network with a variable that it does not use.
struct Orphan(Layers, Var);

impl Trainable for Orphan {
    fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.0.vars();
        vars.push(("orphan".into(), self.1.clone()));
        vars
    }
    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.0.predict(xt, t, condition)
    }
}

#[test]
fn variables_without_a_gradient_stop_the_run_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let new = || {
        let var = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
        Orphan(Layers::new(), var)
    };
    let setup = setup(&dir.path().join("run"), &plan(), new);
    let vars = setup.network.vars();
    let values = || -> Vec<Vec<f32>> {
        let vars = vars.iter();
        vars.map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    };
    let before = values();
    let never = AtomicBool::new(false);
    let error = run(setup, &never, &mut NoopProgress).unwrap_err();
    match &error {
        TrainError::Audit { names, total } => {
            assert_eq!((names.as_slice(), *total), (&["orphan".to_owned()][..], 7));
        }
        other => panic!("{other}"),
    }
    // The audit filled the zeros of the orphan for a while.
    assert_eq!(values(), before);
}
