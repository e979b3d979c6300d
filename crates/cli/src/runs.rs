//! What all commands have in common that make runs.

use crate::args::RunArgs;
use crate::console::{duration, size};
use crate::job::job;
use crate::{INTERRUPTED, assets, console, usage};
use anyhow::{Context, Result};
use sdft_data::ImageSource;
use sdft_gallery::free_space;
use sdft_jobs::{Disk, Run, Training, fingerprint};
use sdft_settings::{Plan, Presets, put, set};
use sdft_train::{Ending, LrSchedule, RunPlan, TrainError, free_run_folder};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toml::Table;

/// Set by Ctrl-C; the loop looks at it between two steps.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// Prints the presets of a command.
pub(crate) fn list(presets: &Presets) -> Result<ExitCode> {
    for name in presets.names() {
        let about = presets.about(name);
        console::line(format_args!("{name:17} {about}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a path whole, so that a run can be continued from another folder than the one it was started in; names of what is embedded stay.
pub(crate) fn make_whole(path: &mut String) {
    let embedded = [assets::DIGITS, assets::DIGITS_SOURCE].contains(&path.as_str());
    if embedded || !Path::new(path.as_str()).exists() {
        return;
    }
    // Links stay: in a cache of downloads, only the link has the file's name.
    if let Ok(full) = std::path::absolute(path.as_str()) {
        *path = full.display().to_string();
    }
}

/// Prints how a run of `verb` ended. `label` stands before the file that shows how good the model is.
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
                Err(error) if !error.is::<console::OutputClosed>() => Err(error),
                _ => Ok(ExitCode::from(INTERRUPTED)),
            }
        }
        Err(error) => {
            let lost = |cause: &(dyn std::error::Error + 'static)| {
                let train = cause.downcast_ref::<TrainError>();
                matches!(train, Some(TrainError::Parallel(_)))
            };
            if !error.chain().any(lost) {
                return Err(error);
            }
            Err(error.context(format!(
                "continue from the last checkpoint with: cargo xtask {verb} --resume {}",
                root.display()
            )))
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
    match estimate.seconds {
        Some(seconds) => console::line(format_args!(
            "# time    about {} on this machine, by a trial pass{}",
            time(seconds),
            trajectory.map_or_else(String::new, |seconds| format!(
                "; {} for a trajectory",
                time(seconds)
            ))
        ))?,
        None => console::line("# time    not tried, because the memory does not suffice")?,
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

/// `, 12.0 GB free there`, or that this is too little.
fn compared(path: &Path, needed: u64) -> String {
    match free_space(path) {
        None => String::new(),
        Some(free) if free < needed => {
            format!(", which is too much: only {} are free there", size(free))
        }
        Some(free) => format!(", {} free there", size(free)),
    }
}

/// [`sdft_jobs::plan`], with notes on the console.
pub(crate) fn plan_of<P: Plan>(table: Table) -> Result<P> {
    job("", |context| sdft_jobs::plan(table, context))
}

/// Puts the new place of something that a run goes on with into its plan; whether it is still the same is for the caller to compare.
pub(crate) fn moved(path: &mut String, to: Option<&str>) {
    if let Some(to) = to {
        to.clone_into(path);
        make_whole(path);
    }
}

/// The images that a run began with, at the path of its plan. `option` says where they are if they have moved.
pub(crate) fn same_images(
    path: &str,
    expected: &str,
    option: &str,
    open: impl FnOnce() -> Result<Arc<dyn ImageSource>>,
) -> Result<Arc<dyn ImageSource>> {
    if path != assets::DIGITS && !Path::new(path).exists() {
        anyhow::bail!(
            "{path}: the images of this run are not there; say where they are now with {option} DIR"
        );
    }
    let images = open()?;
    if fingerprint(&*images)? != expected {
        anyhow::bail!(
            "{path}: these are not the images that the run began with, and it would not go on as it began; \
             put them back, say where they are with {option} DIR, or start a new run"
        );
    }
    Ok(images)
}

/// What everyone should know who changes the number of steps on the way.
pub(crate) fn note_changed_rate(schedule: LrSchedule) {
    if schedule != LrSchedule::Constant {
        console::note(
            "the learning rate follows the number of steps, so another number changes its course from here on",
        );
    }
}

/// Puts what the flags say into the settings; `--set` has the last word.
pub(crate) fn flags<P: Plan>(table: &mut Table, run: &RunArgs) -> Result<()> {
    if let Some(name) = &run.name {
        put(table, "name", name.as_str());
    }
    let numbers = [
        ("loop.steps", run.steps),
        ("loop.batch", run.batch),
        ("seed", run.seed),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            let value =
                i64::try_from(value).map_err(|_| usage(format!("{key}: {value} is too large")))?;
            put(table, key, value);
        }
    }
    if run.strict {
        put(table, "data.strict", true);
    }
    for assignment in &run.set {
        set::<P>(table, assignment)?;
    }
    Ok(())
}

/// The folder of a new run, one that is free unless the run was given a name; `name` becomes the folder's.
pub(crate) fn new_root(run: &RunArgs, name: &mut String) -> PathBuf {
    let root = match &run.name {
        Some(_) => run.out.join(&*name),
        None => free_run_folder(&run.out, name),
    };
    if let Some(part) = root.file_name().and_then(|part| part.to_str()) {
        part.clone_into(name);
    }
    root
}

/// The plan of a run that goes on, with what may still change: `allowed` keys and everything about output.
pub(crate) fn changed<P: Plan + RunPlan>(plan: P, run: &RunArgs, allowed: &[&str]) -> Result<P> {
    if run.set.is_empty() && run.steps.is_none() {
        return Ok(plan);
    }
    let mut table = Table::try_from(&plan).context("the plan cannot be changed")?;
    for assignment in &run.set {
        let key = assignment.split('=').next().unwrap_or_default().trim();
        if !allowed.contains(&key) && !key.starts_with("output.") {
            return Err(usage(format!(
                "--set {assignment}: a run goes on with the plan it was started with; only {} and output.* can change",
                allowed.join(", ")
            )));
        }
        set::<P>(&mut table, assignment)?;
    }
    if let Some(steps) = run.steps {
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        put(&mut table, "loop.steps", steps);
    }
    let plan: P = plan_of(table)?;
    plan.validate().map_err(|e| usage(e.to_string()))?;
    Ok(plan)
}

/// Who asks for an end. One Ctrl-C may come both ways.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asks {
    /// The system, by a signal.
    System,
    /// The process that started this one.
    Launcher,
}

/// Whether a run is under way that can be saved.
static LISTENING: AtomicBool = AtomicBool::new(false);

/// First: finish the step, save, leave. Second: leave at once, as where there is nothing to save.
pub(crate) fn interrupt(by: Asks) {
    static ASKED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    let again = ASKED[by as usize].swap(true, Ordering::Relaxed);
    if again || !LISTENING.load(Ordering::Relaxed) {
        std::process::exit(i32::from(INTERRUPTED));
    }
    if !STOP.swap(true, Ordering::Relaxed) {
        console::note(
            "interrupted: finishing what is under way and saving; once more to leave at once",
        );
    }
}

/// From now on Ctrl-C and the launcher interrupt.
pub(crate) fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        LISTENING.store(true, Ordering::Relaxed);
        let handler = ctrlc::set_handler(|| interrupt(Asks::System));
        if let Err(error) = handler {
            console::note(&format!("Ctrl-C will stop without saving: {error}"));
        }
    });
}
