//! Several runs at once.

use crate::methods::interrupted;
use candle_core::Device;
use sdft_jobs::{Context, Error, Result, ResultExt, runs_at_once, train_table};
use sdft_train::{Precision, Progress};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use toml::Table;

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
/// The first error of a run, after the others have stopped; [`interrupted`].
pub(crate) fn train_all(
    jobs: Vec<Job>,
    at_once: Option<usize>,
    context: &mut Context<'_>,
) -> Result<()> {
    let jobs = VecDeque::from(jobs);
    let Some(first) = jobs.front() else {
        return Ok(());
    };
    let all = jobs.len();
    let fitting = match at_once {
        Some(n) => n,
        None => runs_at_once(&first.settings, context)?,
    };
    let workers = fitting.clamp(1, all);
    let threads = (rayon::current_num_threads() / workers).max(1);
    (context.on_start)();
    context.progress.note(&format!(
        "{all} runs, {workers} at once on {threads} thread{} each",
        if threads == 1 { "" } else { "s" }
    ));
    let surroundings = Surroundings {
        device: context.device.clone(),
        precision: context.precision,
        stop: context.stop,
        failed: &AtomicBool::new(false),
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
        for event in events {
            match event {
                Event::Note(text) => context.progress.note(&text),
                Event::Done(Ok(name)) => {
                    done += 1;
                    context
                        .progress
                        .note(&format!("run {done} of {all}: {name}"));
                }
                Event::Done(Err(error)) => {
                    problem.get_or_insert(error);
                }
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
    stop: &'a AtomicBool,
    /// Set after an error, so that no further run starts.
    failed: &'a AtomicBool,
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
    use std::sync::atomic::Ordering::Relaxed;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    loop {
        let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
        let Some(job) = next else { return };
        if surroundings.stop.load(Relaxed) || surroundings.failed.load(Relaxed) {
            return;
        }
        let done = match &pool {
            Ok(pool) => pool.install(|| train(&job, surroundings, sender)),
            Err(error) => Err(Error::Failed(format!("no threads for a run: {error}"))),
        };
        if done.is_err() {
            surroundings.failed.store(true, Relaxed);
        }
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
