//! The examples run, and the README shows the first of them.

use sdft::train::{Ending, NoopProgress, Progress, StepReport, run};
use std::sync::atomic::{AtomicBool, Ordering};

#[allow(dead_code)]
#[path = "../examples/fine_tune.rs"]
mod fine_tune;

/// Stops a run after some steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_network_of_ones_own_is_fine_tuned_stopped_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let setup = || fine_tune::setup(dir.path()).unwrap();
    let ending = run(setup(), &stop, &mut StopAfter(10, &stop)).unwrap();
    assert!(matches!(ending, Ending::Interrupted { .. }), "{ending:?}");
    stop.store(false, Ordering::Relaxed);
    let ending = run(setup(), &stop, &mut NoopProgress).unwrap();
    let Ending::Finished { model, shown } = ending else {
        panic!("{ending:?}")
    };
    assert!(shown.is_file());
    let log = std::fs::read_to_string(dir.path().join("run/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6, "{log}");
    // The model is the average of what was learned, not the source.
    let source = std::fs::read(dir.path().join("source.safetensors")).unwrap();
    assert_ne!(std::fs::read(model).unwrap(), source);
}
