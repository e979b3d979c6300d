//! A Rust program trains, stops and resumes runs without the command line.

use candle_core::Device;
use sdft_jobs::{Context, RunOptions, TrainJob, TrainOptions};
use sdft_train::{Ending, NoopProgress, Progress, StepReport};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A tiny model of the embedded digits, for a few steps.
fn options(out: &Path) -> TrainOptions {
    let set = [
        "model.model_channels=8",
        "model.norm_groups=4",
        "model.num_head_channels=8",
        "output.samples=1",
        "output.sampler=ddim2",
    ];
    TrainOptions {
        run: RunOptions {
            config: vec!["digits-scratch".to_owned()],
            steps: Some(6),
            batch: Some(4),
            name: Some("tiny".to_owned()),
            out: out.to_owned(),
            set: set.map(str::to_owned).into(),
            ..RunOptions::default()
        },
        ..TrainOptions::default()
    }
}

/// Stops the run after a step.
struct StopAfter<'a> {
    step: u64,
    stop: &'a AtomicBool,
}

impl Progress for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        if report.step == self.step {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn finished(ending: Ending) -> PathBuf {
    match ending {
        Ending::Finished { model, .. } => model,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stopped_and_resumed_run_equals_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);

    let whole = TrainJob::new(&options(&dir.path().join("whole")), &mut context).unwrap();
    assert_eq!(whole.plan().steps.steps, 6);
    let whole = finished(whole.run(&mut context).unwrap());

    let mut stopper = StopAfter {
        step: 3,
        stop: &stop,
    };
    let mut stopped = Context::new(Device::Cpu, &stop, &mut stopper);
    let parts = dir.path().join("parts");
    let run = TrainJob::new(&options(&parts), &mut stopped).unwrap();
    let root = run.root().to_owned();
    assert_eq!(root, parts.join("tiny"));
    let ending = run.run(&mut stopped).unwrap();
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    assert!(!root.join("final.safetensors").exists());

    stop.store(false, Ordering::Relaxed);
    let run = TrainJob::resume(&root, &TrainOptions::default(), &mut context).unwrap();
    assert!(run.is_resumed());
    let parts = finished(run.run(&mut context).unwrap());
    assert_eq!(
        std::fs::read(whole).unwrap(),
        std::fs::read(parts).unwrap(),
        "the models differ"
    );
}

#[test]
fn a_resumed_run_keeps_its_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, mut progress) = (AtomicBool::new(true), NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let run = TrainJob::new(&options(dir.path()), &mut context).unwrap();
    let root = run.root().to_owned();
    run.run(&mut context).unwrap();

    let mut changes = TrainOptions::default();
    changes.run.set = vec!["optim.lr=1".to_owned()];
    let error = TrainJob::resume(&root, &changes, &mut context)
        .err()
        .unwrap();
    assert!(error.is_usage(), "{error}");
    for words in ["optim.lr", "loop.steps", "output.*"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    changes.run.set = vec!["loop.steps=9".to_owned()];
    let run = TrainJob::resume(&root, &changes, &mut context).unwrap();
    assert_eq!(run.plan().steps.steps, 9);
}

#[test]
fn an_estimate_has_time_memory_and_disk_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("runs");
    let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let run = TrainJob::new(&options(&out), &mut context).unwrap();
    let estimate = run.estimate(&mut context).unwrap();
    assert!(estimate.seconds.is_some_and(|seconds| seconds > 0.0));
    assert!(estimate.memory > 1 << 20 && estimate.disk.bytes > 1 << 16);
    assert!(estimate.subject.contains("images"), "{estimate:?}");
    assert!(!out.exists());
}
