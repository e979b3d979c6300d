//! Several runs at once.

use crate::methods::interrupted;
use candle_core::Device;
use sdft_cuda::allow_recording;
use sdft_files::plural;
use sdft_jobs::{Context, Error, Result, ResultExt, runs_at_once, train_table};
use sdft_train::{Precision, Progress};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use toml::{Table, Value};

/// How often the stop flag of the caller is checked.
const LISTENING: Duration = Duration::from_millis(200);

/// A run to train.
pub(crate) struct Job {
    /// The folder of the run, whose name is that of the run.
    pub(crate) root: PathBuf,
    /// Its settings.
    pub(crate) settings: Table,
}

/// Trains all runs, as many at once as the machine holds. A small network computes faster as one run on each core
/// than as one run on all; results do not depend on the number of threads.
///
/// # Errors
/// The first error of a run, after the others have saved and stopped; [`interrupted`].
pub(crate) fn train_all(
    jobs: Vec<Job>,
    at_once: Option<usize>,
    context: &mut Context<'_>,
) -> Result<()> {
    let jobs = VecDeque::from(jobs);
    let all = jobs.len();
    let fitting = match at_once {
        Some(n) => n,
        None => {
            // Runs of other seeds need as much.
            let seed = |job: &&Job| job.settings.get("seed").and_then(Value::as_integer) == Some(0);
            let fits = jobs
                .iter()
                .filter(seed)
                .map(|job| runs_at_once(&job.settings, context));
            fits.collect::<Result<Vec<_>>>()?
                .into_iter()
                .min()
                .unwrap_or(1)
        }
    };
    let workers = fitting.clamp(1, all.max(1));
    let threads = (rayon::current_num_threads() / workers).max(1);
    if workers > 1 {
        allow_recording(false);
    }
    (context.on_start)();
    context.progress.note(&format!(
        "{}, {workers} at once on {} each",
        plural(all, "run", "runs"),
        plural(threads, "thread", "threads")
    ));
    let surroundings = Surroundings {
        device: context.device.clone(),
        precision: context.precision,
        stop: &AtomicBool::new(false),
    };
    let queue = Mutex::new(jobs);
    let (sender, events) = channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, queue, surroundings) = (sender.clone(), &queue, &surroundings);
            scope.spawn(move || work(queue, threads, surroundings, &sender));
        }
        drop(sender);
        let (mut done, mut problem) = (0, None);
        loop {
            let event = events.recv_timeout(LISTENING);
            if context.is_stopped() {
                surroundings.stop.store(true, Relaxed);
            }
            match event {
                Ok(Event::Note(text)) => context.progress.note(&text),
                Ok(Event::Done(Ok(name))) => {
                    done += 1;
                    context
                        .progress
                        .note(&format!("run {done} of {all}: {name}"));
                }
                Ok(Event::Done(Err(error))) => {
                    // The others save and stop, and continue when the comparison does.
                    surroundings.stop.store(true, Relaxed);
                    problem.get_or_insert(error);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match problem {
            Some(error) => Err(error),
            None if done < all => Err(interrupted()),
            None => Ok(()),
        }
    })
}

/// What the runs share.
struct Surroundings<'a> {
    device: Device,
    precision: Option<Precision>,
    /// Set by the caller, or after an error.
    stop: &'a AtomicBool,
}

enum Event {
    Note(String),
    Done(Result<String>),
}

/// Takes runs from the queue until it is empty, or the program stops.
fn work(
    queue: &Mutex<VecDeque<Job>>,
    threads: usize,
    surroundings: &Surroundings<'_>,
    sender: &Sender<Event>,
) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    loop {
        let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
        let Some(job) = next else { return };
        if surroundings.stop.load(Relaxed) {
            return;
        }
        let done = match &pool {
            Ok(pool) => pool.install(|| train(&job, surroundings, sender)),
            Err(error) => Err(Error::Failed(format!("no threads for a run: {error}"))),
        };
        // The receiver lives as long as the workers.
        let _ = sender.send(Event::Done(done));
    }
}

fn train(job: &Job, surroundings: &Surroundings<'_>, sender: &Sender<Event>) -> Result<String> {
    let name = job.root.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let mut progress = Warnings {
        name: &name,
        sender,
    };
    let mut context = Context {
        precision: surroundings.precision,
        ..Context::new(
            surroundings.device.clone(),
            surroundings.stop,
            &mut progress,
        )
    };
    let trained = train_table(job.settings.clone(), &job.root, &mut context);
    match trained.with_context(|| format!("the run {name}"))? {
        Some(_) => Ok(name),
        None => Err(interrupted()),
    }
}

/// Passes on the notes of a run that need attention.
struct Warnings<'a> {
    name: &'a str,
    sender: &'a Sender<Event>,
}

impl Progress for Warnings<'_> {
    fn note(&mut self, text: &str) {
        if text.starts_with("warning") || text.contains("not finite") {
            let _ = self
                .sender
                .send(Event::Note(format!("{}: {text}", self.name)));
        }
    }
}
