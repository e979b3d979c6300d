//! A run that is killed and resumed, and the same run without that: equal to the bit in f32.

use super::part::{Ended, run};
use super::{Place, Verdict};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const STEPS: u64 = 300;
/// Seconds for each of the three runs.
const LIMIT: u64 = 40;

/// Runs SDFT on the digits three times: whole, killed after its first checkpoint, and resumed.
pub(super) fn check(place: &Place<'_>, log: &Path) -> Result<(Ended, Vec<Verdict>)> {
    let started = Instant::now();
    let runs = place.folder.join("runs");
    if runs.exists() {
        fs::remove_dir_all(&runs).with_context(|| format!("removing {}", runs.display()))?;
    }
    for name in ["whole", "killed"] {
        let folder = runs.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    // The name of a run is in its files, so both have the same one, in two folders.
    let sdft = |name: &str| place.program("sdft").current_dir(&runs.join(name));
    let begin = |name: &str| {
        sdft(name)
            .args(["train", &place.device, "--config=digits-sdft"])
            .args([
                "--name=run",
                "--precision=f32",
                &format!("--steps={STEPS}"),
                "--set=output.checkpoint_every=100",
                &format!("--set=output.sample_every={STEPS}"),
                "--set=eval.every=0",
            ])
    };
    let mut ended = run([begin("whole")], LIMIT, log)?;
    let killed = ended.succeeded() && {
        let mut child = begin("killed").start(LIMIT, log)?;
        let first = runs.join("killed/runs/run/checkpoints/step-000100");
        while !first.exists() && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(&mut child)?
    };
    if killed {
        let resume = sdft("killed").args(["train", &place.device, "--resume=runs/run"]);
        let rest = log.with_file_name("8-resume-rest.txt");
        ended = run([resume], LIMIT, &rest)?;
        let mut log = fs::File::options().append(true).open(log)?;
        log.write_all(&fs::read(rest)?)?;
    }
    ended.took = started.elapsed();
    let mut verdicts = vec![Verdict {
        demand: format!(
            "an SDFT run of {STEPS} steps in f32, killed and resumed, equals one that was not"
        ),
        found: String::new(),
        holds: false,
    }];
    verdicts[0].found = match compare(&runs) {
        _ if !killed => "the run was not killed".to_owned(),
        _ if !ended.succeeded() => ended.to_string(),
        Ok(true) => {
            verdicts[0].holds = true;
            "the weights are the same to the bit".to_owned()
        }
        Ok(false) => "the weights differ".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let losses = losses(&runs.join("whole/runs/run"));
    verdicts.push(Verdict {
        demand: "its loss falls".to_owned(),
        holds: losses.as_ref().is_ok_and(|(early, late)| late < early),
        found: losses.map_or_else(
            |error| format!("{error:#}"),
            |(early, late)| format!("{early:.4} in the first tenth, {late:.4} in the last"),
        ),
    });
    Ok((ended, verdicts))
}

/// Kills the run itself: `timeout` ends its program only on a signal that can be caught. Returns whether it was still running.
fn kill(child: &mut std::process::Child) -> Result<bool> {
    if child.try_wait()?.is_some() {
        return Ok(false);
    }
    let status = std::process::Command::new("pkill")
        .args(["-KILL", "-P", &child.id().to_string()])
        .status()
        .context("starting pkill")?;
    child.wait()?;
    Ok(status.success())
}

/// Whether the last checkpoints have the same files of tensors.
fn compare(runs: &Path) -> Result<bool> {
    let tensors = |name: &str| -> Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
        let folder = runs.join(format!("{name}/runs/run/checkpoints/step-{STEPS:06}"));
        let entries =
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|ending| ending == "safetensors")
            {
                all.push((
                    path.file_name().unwrap_or_default().to_owned(),
                    fs::read(&path)?,
                ));
            }
        }
        all.sort();
        Ok(all)
    };
    let (whole, killed) = (tensors("whole")?, tensors("killed")?);
    if whole.is_empty() {
        bail!("a checkpoint without tensors");
    }
    Ok(whole == killed)
}

/// The mean loss of the first and of the last tenth of a run.
fn losses(root: &Path) -> Result<(f64, f64)> {
    let log = fs::read_to_string(root.join("log.jsonl")).context("reading the log")?;
    let values: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["loss"].as_f64())
        .collect();
    let tenth = values.len() / 10;
    if tenth == 0 {
        bail!("a log of {} lines", values.len());
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    Ok((
        mean(&values[..tenth]),
        mean(&values[values.len() - tenth..]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_equal_if_all_their_tensors_are() {
        let runs = tempfile::tempdir().unwrap();
        let write = |name: &str, file: &str, content: &str| {
            let folder = runs
                .path()
                .join(format!("{name}/runs/run/checkpoints/step-000300"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), content).unwrap();
        };
        assert!(compare(runs.path()).is_err());
        write("whole", "state.json", "seconds: 5");
        write("killed", "state.json", "seconds: 6");
        assert!(compare(runs.path()).is_err());
        for name in ["whole", "killed"] {
            write(name, "model.safetensors", "weights");
        }
        assert!(compare(runs.path()).unwrap());
        write("killed", "model.safetensors", "Weights");
        assert!(!compare(runs.path()).unwrap());
    }
}
