//! What a run has cost.

use sdft_checkpoint::ReadOptions;
use sdft_jobs::{Result, ResultExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The cost of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Optimiser steps.
    pub(crate) steps: u64,
    /// Seconds of its steps, from the speeds in its log.
    pub(crate) seconds: f64,
    /// Trained numbers.
    pub(crate) trained: u64,
}

impl Cost {
    /// The cost of the finished run in a folder.
    ///
    /// # Errors
    /// Files that are missing or cannot be read.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let log = root.join("log.jsonl");
        let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let (steps, seconds) = duration(&text);
        let adapter = root.join("adapter.safetensors");
        let model = match adapter.is_file() {
            true => adapter,
            false => root.join("final.safetensors"),
        };
        let state = sdft_checkpoint::read(&model, &ReadOptions::default())?;
        let shapes = state.shapes();
        let sizes = shapes
            .values()
            .map(|shape| shape.iter().product::<usize>() as u64);
        Ok(Self {
            steps,
            seconds,
            trained: sizes.sum(),
        })
    }
}

/// The last step of a log, and the seconds of its lines.
fn duration(log: &str) -> (u64, f64) {
    let (mut last, mut images, mut seconds) = (0, 0.0, 0.0);
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let speed = line["time"]["images_per_second"].as_f64();
        if let (Some(step), Some(now), Some(speed)) =
            (line["step"].as_u64(), line["images"].as_f64(), speed)
        {
            seconds += (now - images) / speed.max(1e-9);
            (last, images) = (step, now);
        }
    }
    (last, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_images_over_speed_and_other_lines_do_not_count() {
        let log = "\
{\"step\":10,\"images\":80,\"time\":{\"images_per_second\":40.0}}
{\"step\":10,\"eval.kid\":1.0}
{\"step\":20,\"images\":160,\"time\":{\"images_per_second\":80.0}}
{\"cut";
        assert_eq!(duration(log), (20, 3.0));
        assert_eq!(duration(""), (0, 0.0));
    }
}
