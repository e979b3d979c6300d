//! Our side: reads a job, prepares it and runs it on request, with the same protocol as `peer.py`.

use crate::cases::Case;
use crate::clock::{Spent, peak_bytes};
use crate::work::{self, Run, prepare};
use anyhow::{Context, Result};
use sdft_cuda::DeviceSpec;
use sdft_runtime::print_line;
use sdft_train::Precision;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

/// Minimum duration of a repetition in seconds, so that the resolution of clocks does not matter.
const MIN_SECONDS: f64 = 0.03;

/// The job of a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) case: Case,
    pub(crate) threads: usize,
    /// What runs the work on the other side: PyTorch as `eager`, `channels_last` or `compile`, `openvino` or `onnxruntime`.
    pub(crate) runner: String,
    /// `cpu` or `cuda:N`.
    pub(crate) device: String,
    /// `f32`, `tf32`, `bf16` or `f16`.
    pub(crate) precision: Precision,
    /// Whether to measure the operations of the work, too.
    pub(crate) parts: bool,
    /// File of a network's weights.
    pub(crate) weights: PathBuf,
    /// File of timesteps and noise of the first step.
    pub(crate) inputs: PathBuf,
}

pub(crate) fn run() -> Result<ExitCode> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).context("reading the job")?;
    sdft_runtime::with_threads(Some(job.threads), || {
        let place: DeviceSpec = job.device.parse().context("reading the job")?;
        sdft_cuda::allow_recording(true);
        let device = sdft_cuda::open(place)?;
        let mut work = prepare(&job.case, &device, job.precision)?;
        let (value, mut spent) = work(true)?;
        // If one run is short, a second one completes the warm-up. Recorded networks are recorded in the second run of a GPU, and checked
        // in it and the next one.
        let more = match device.is_cuda() {
            true => 3,
            false => usize::from(spent.cpu < 5.0),
        };
        for _ in 0..more {
            spent = work(false)?.1;
        }
        sdft_cuda::reset_peak_memory(&device);
        let one = if device.is_cuda() {
            spent.wall
        } else {
            spent.cpu
        };
        let times = times(one);
        print_line(json!({ "value": value, "version": env!("CARGO_PKG_VERSION") }))?;
        for line in std::io::stdin().lock().lines() {
            if line?.trim() != "go" {
                break;
            }
            print_line(serde_json::to_string(&repeat(&mut work, times)?)?)?;
        }
        let peak = if device.is_cuda() {
            sdft_cuda::peak_memory(&device)
        } else {
            peak_bytes()
        };
        let parts = if job.parts {
            let (result, parts) = sdft_autograd::profile(|| work(false));
            let steps = work::steps(&job.case, &device);
            let parts: serde_json::Map<_, _> = parts
                .into_iter()
                .map(|(name, part)| {
                    let sdft_autograd::Part {
                        calls,
                        seconds,
                        flops,
                        flops_of_products,
                        bytes,
                    } = part;
                    let n = f64::from(steps);
                    let part = json!({
                        "calls": calls as f64 / n, "seconds": seconds / n, "flops": flops / n,
                        "flops_of_products": flops_of_products / n, "bytes": bytes / n,
                    });
                    (name.to_owned(), part)
                })
                .collect();
            json!({ "seconds": result?.1.wall, "parts": parts })
        } else {
            json!(null)
        };
        print_line(json!({ "peak": peak, "parts": parts }))?;
        Ok(ExitCode::SUCCESS)
    })?
}

/// How many times work of this duration is done in one repetition.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number"
)]
fn times(seconds: f64) -> usize {
    (MIN_SECONDS / seconds.max(1e-6)).max(1.0) as usize
}

fn repeat(work: &mut Run, times: usize) -> Result<Spent> {
    let mut total = Spent::default();
    for _ in 0..times {
        let spent = work(false)?.1;
        total.cpu += spent.cpu;
        total.wall += spent.wall;
    }
    let n = times as f64;
    Ok(Spent {
        cpu: total.cpu / n,
        wall: total.wall / n,
    })
}
