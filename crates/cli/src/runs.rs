//! Common parts of the training commands: presets, results, costs, and Ctrl-C.

use crate::INTERRUPTED;
use crate::console::{self, duration, size};
use crate::job::job;
use crate::report::write_for;
use anyhow::{Context, Result, anyhow};
use sdft_gallery::free_space;
use sdft_jobs::{Disk, Run, Training};
use sdft_settings::Presets;
use sdft_train::{Ending, TrainError};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set by Ctrl-C. Jobs check it between two steps.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// Prints the presets of a command.
pub(crate) fn list(presets: &Presets) -> Result<ExitCode> {
    let width = presets.names().map(str::len).max().unwrap_or(0);
    for name in presets.names() {
        let about = presets.about(name);
        console::line(format_args!("{name:width$} {about}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the result of a run of `verb`. `label` precedes the picture or report of the model.
pub(crate) fn conclude(
    ending: Result<Ending>,
    root: &Path,
    verb: &str,
    label: &str,
) -> Result<ExitCode> {
    match ending {
        Ok(Ending::Finished { model, shown }) => {
            console::line(format_args!("model    {}", model.display()))?;
            let best = root.join("best.safetensors");
            if best.is_file() {
                console::line(format_args!("best     {}", best.display()))?;
            }
            let log = root.join("log.jsonl");
            if shown != log {
                console::line(format_args!("{label:8} {}", shown.display()))?;
            }
            console::line(format_args!("log      {}", log.display()))?;
            write_for(&[root.to_owned()], None)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ending::Interrupted { checkpoint }) => {
            let text = format!(
                "interrupted; saved {}\ncontinue with: cargo xtask {verb} --resume {}",
                checkpoint.display(),
                root.display()
            );
            match console::line(text) {
                // A closed output does not make the run complete.
                Err(error) if !error.is::<sdft_runtime::OutputClosed>() => Err(error),
                _ => Ok(ExitCode::from(INTERRUPTED)),
            }
        }
        Err(error)
            if matches!(
                error.downcast_ref::<sdft_jobs::Error>(),
                Some(sdft_jobs::Error::Interrupted)
            ) && root.join("plan.toml").is_file() =>
        {
            console::line(format_args!(
                "interrupted before the first step\ncontinue with: cargo xtask {verb} --resume {}",
                root.display()
            ))?;
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => {
            let job = error.downcast_ref::<sdft_jobs::Error>();
            let train = job.and_then(sdft_jobs::Error::train_error);
            if !matches!(train, Some(TrainError::Parallel(_))) {
                return Err(error);
            }
            Err(anyhow!(
                "{}; continue from the last checkpoint with: cargo xtask {verb} --resume {}",
                console::causes(&error),
                root.display()
            ))
        }
    }
}

/// Prints the plan of a run, and its cost.
pub(crate) fn describe<T: Training>(run: &Run<T>) -> Result<ExitCode> {
    console::line(toml::to_string(run.plan()).context("the plan cannot be written")?)?;
    let estimate = job("", |context| run.estimate(context))?;
    console::line(format_args!("# {}", estimate.subject))?;
    let time = |seconds| duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    let trajectory = estimate.trajectory_seconds;
    // A second is the unit of the line.
    let drawing = estimate.drawing_seconds.filter(|&seconds| seconds >= 1.0);
    let part = match (trajectory, drawing) {
        (Some(seconds), _) => format!("; {} for a trajectory", time(seconds)),
        (None, Some(seconds)) => format!("; {} of it to draw samples", time(seconds)),
        (None, None) => String::new(),
    };
    match estimate.seconds {
        Some(seconds) => console::line(format_args!(
            "# time    about {} on this machine, by a trial pass{part}",
            time(seconds),
        ))?,
        None => console::line("# time    not measured, because there is not enough memory")?,
    }
    console::line(format_args!("# memory  about {}", size(estimate.memory)))?;
    let Disk { bytes, of, folder } = &estimate.disk;
    match bytes {
        0 => console::line(format_args!("# disk    {of}"))?,
        bytes => console::line(format_args!(
            "# disk    about {}{}{}",
            size(*bytes),
            match of.as_str() {
                "" => String::new(),
                of => format!(" ({of})"),
            },
            compared(folder.as_deref().unwrap_or(run.root()), *bytes)
        ))?,
    }
    if !run.is_resumed() {
        console::line(format_args!("# writes  {}", run.root().display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `, 12.0 GB free there`, or that there is not enough.
fn compared(path: &Path, needed: u64) -> String {
    match free_space(path) {
        None => String::new(),
        Some(free) if free < needed => {
            format!(", which is too much: only {} are free there", size(free))
        }
        Some(free) => format!(", {} free there", size(free)),
    }
}

/// The source of a stop request. One Ctrl-C can come from both.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asks {
    /// The system, by a signal.
    System,
    /// The process that started this one.
    Launcher,
}

/// Whether Ctrl-C sets [`STOP`].
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Whether the work saves what is done before it ends.
static SAVES: AtomicBool = AtomicBool::new(false);

/// First: finish the step, save and exit. Second, or with nothing to save: exit at once.
pub(crate) fn interrupt(by: Asks) {
    static ASKED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    let again = ASKED[by as usize].swap(true, Ordering::Relaxed);
    if again || !LISTENING.load(Ordering::Relaxed) {
        std::process::exit(i32::from(INTERRUPTED));
    }
    if !STOP.swap(true, Ordering::Relaxed) && SAVES.load(Ordering::Relaxed) {
        console::note(
            "interrupted: stopping after the current step and saving; interrupt again to exit at once",
        );
    }
}

/// Makes Ctrl-C and the launcher stop the run after saving.
pub(crate) fn listen() {
    SAVES.store(true, Ordering::Relaxed);
    listen_for_the_end();
}

/// Makes Ctrl-C set [`STOP`].
pub(crate) fn listen_for_the_end() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        LISTENING.store(true, Ordering::Relaxed);
        let handler = ctrlc::set_handler(|| interrupt(Asks::System));
        if let Err(error) = handler {
            console::note(format!("Ctrl-C will end the program at once: {error}"));
        }
    });
}
