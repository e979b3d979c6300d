//! Does what the commands `train`, `sample` and `evaluate` do. The embedded digits are all it needs.

use sdft::candle::Device;
use sdft::eval::Report;
use sdft::jobs::{CacheLocation, Context, DIGITS, Result, RunOptions, SampleOptions, SetsOptions};
use sdft::jobs::{TrainJob, TrainOptions, evaluate_sets, sample_to_folder};
use sdft::train::{Ending, NoopProgress};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Fine-tunes on digits of a new style, draws 64 samples, and compares them with all digits of that style.
///
/// Returns `None` if `stop` was set: the run and the samples are saved.
pub fn digits(folder: &Path, steps: u64, stop: &AtomicBool) -> Result<Option<Report>> {
    let mut progress = NoopProgress;
    let mut context = Context::new(Device::Cpu, stop, &mut progress);
    let run = RunOptions {
        config: vec!["digits-sdft".to_owned()],
        steps: Some(steps),
        out: folder.join("runs"),
        ..RunOptions::default()
    };
    let options = TrainOptions {
        run,
        ..TrainOptions::default()
    };
    let job = TrainJob::new(&options, &mut context)?;
    let Ending::Finished { model, .. } = job.run(&mut context)? else {
        return Ok(None);
    };
    let samples = SampleOptions {
        model: model.display().to_string(),
        n: 64,
        out: folder.join("samples"),
        ..SampleOptions::default()
    };
    if sample_to_folder(&samples, &mut context)?.complete < samples.n {
        return Ok(None);
    }
    let mut sets = SetsOptions {
        real: DIGITS.into(),
        fake: samples.out,
        ..SetsOptions::default()
    };
    sets.common.cache = CacheLocation::Nowhere;
    Ok(Some(evaluate_sets(&sets, &mut context)?.report))
}

fn main() -> Result<()> {
    let stop = AtomicBool::new(false);
    if let Some(report) = digits(Path::new("runs/digits"), 300, &stop)? {
        println!("{}", report.text());
    }
    Ok(())
}
