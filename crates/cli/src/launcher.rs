//! Starts the processes of one command, and stops them together.

use crate::INTERRUPTED;
use crate::console::causes;
use crate::device::{check_gpus, world};
use crate::job::{job, serving_job, share_with};
use crate::runs::{Asks, interrupt};
use anyhow::{Context as _, Result, anyhow, bail};
use candle_core::Device;
use sdft_eval::EvalError;
use sdft_jobs::{Context, Error, join_group, join_training};
use sdft_parallel::{ProcessGroup, World, free_port, new_secret};
use sdft_train::TrainError;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long rank 0 may take to notice that another process has exited: longer than [`ProcessGroup::watch`] needs.
const GRACE: Duration = Duration::from_secs(15);

/// Set for processes whose standard input is a pipe from the launcher. A byte means that the user wants to stop, the end of the pipe that
/// the launcher has ended.
const LAUNCHED: &str = "SDFT_LAUNCHED";

/// Whether this process has joined the group, and so notices when another process exits.
static JOINED: AtomicBool = AtomicBool::new(false);

/// Joins the processes of a run of training.
pub(crate) fn join(world: Option<&World>) -> Result<Arc<ProcessGroup>> {
    follow_own_launcher(world);
    let group = job("train", |context| join_training(world, context))?;
    group.watch(|error| {
        let _ = writeln!(
            std::io::stderr(),
            "error: {error}. This process waited for a sum of gradients, and ends; --resume RUN continues from the last checkpoint"
        );
        std::process::exit(1);
    })?;
    JOINED.store(true, Ordering::Relaxed);
    Ok(group)
}

/// Runs a command that makes or measures images: in this process, or together with those of `--gpus` or of another launcher. Rank 0 runs
/// `lead`, the others `serve`.
pub(crate) fn share_images(
    gpus: Option<usize>,
    lead: impl FnOnce() -> Result<ExitCode>,
    serve: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<()>,
) -> Result<ExitCode> {
    let Some(world) = world()? else {
        return match gpus.filter(|&n| n > 1) {
            Some(n) => {
                check_gpus(n)?;
                launch(n)
            }
            None => lead(),
        };
    };
    follow_own_launcher(Some(&world));
    // Nothing is summed on the devices.
    let group = join_group(Some(&world), &Device::Cpu)?;
    JOINED.store(true, Ordering::Relaxed);
    share_with(group.clone());
    if group.is_leader() {
        let ended = lead();
        match &ended {
            Ok(_) => group.end(),
            Err(error) => group.fail(&causes(error)),
        }
        return ended;
    }
    // Rank 0 decides what Ctrl-C means.
    ctrlc::set_handler(|| {}).context("Ctrl-C cannot be ignored")?;
    match serving_job(serve) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Rank 0 prints its error in the same terminal, and the launcher how it ended.
        Err(error) if is_launched() && is_of_leader(&error) => Ok(ExitCode::FAILURE),
        Err(error) => {
            group.fail(&causes(&error));
            Err(error)
        }
    }
}

/// Whether rank 0 reported an error of its own, or is gone.
fn is_of_leader(error: &anyhow::Error) -> bool {
    use sdft_parallel::Error::{Disconnected, Failed};
    let parallel = match error.downcast_ref() {
        Some(Error::Parallel(error) | Error::Eval(EvalError::Parallel(error))) => error,
        Some(error) => match error.train_error() {
            Some(TrainError::Parallel(error)) => error,
            _ => return false,
        },
        None => return false,
    };
    matches!(
        parallel,
        Failed { rank: 0, .. } | Disconnected { rank: 0, .. }
    )
}

fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// Lets a process of `--gpus` stop when its launcher requests it or has exited.
fn follow_own_launcher(world: Option<&World>) {
    let is_leader = world.is_none_or(|world| world.rank == 0);
    if world.is_some() && is_launched() {
        std::thread::spawn(move || follow_launcher(is_leader));
    }
}

/// Stops this process when the launcher requests it or has exited.
fn follow_launcher(is_leader: bool) {
    let mut byte = [0];
    loop {
        match std::io::stdin().read(&mut byte) {
            Ok(n) if n > 0 && is_leader => interrupt(Asks::Launcher),
            Ok(n) if n > 0 => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    if is_leader {
        interrupt(Asks::Launcher);
    } else if !JOINED.load(Ordering::Relaxed) {
        // Later rank 0 says when to stop, or its connection ends.
        std::process::exit(1);
    }
}

/// Starts `n` copies of this command, which connect to each other, and waits for all of them.
pub(crate) fn launch(n: usize) -> Result<ExitCode> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let (port, secret) = (free_port()?, new_secret()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let handler = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    ctrlc::set_handler(handler).context("Ctrl-C cannot be forwarded")?;
    let mut processes = Processes(Vec::with_capacity(n));
    for rank in 0..n {
        let world = World {
            secret: secret.clone(),
            ..World::local(rank, n, port)
        };
        let child = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .envs(world.variables())
            .env(LAUNCHED, "1")
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("rank {rank} cannot be started"))?;
        processes.0.push(child);
    }
    processes.wait(&asked)
}

/// Whether SIGINT or SIGTERM ended a process.
fn ended_by_request(status: ExitStatus) -> bool {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = {
        let _ = status;
        None
    };
    matches!(signal, Some(2 | 15))
}

/// The processes of a run. Those that still run when it is dropped are killed, because they cannot continue alone.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Processes {
    /// The exit code of rank 0, which receives a byte each time the user `asked` to stop. An error if another process fails and rank 0 does
    /// not notice.
    fn wait(&mut self, asked: &AtomicUsize) -> Result<ExitCode> {
        let mut passed_on = 0;
        let mut failed: Option<(usize, ExitStatus, Instant)> = None;
        loop {
            while passed_on < asked.load(Ordering::Relaxed) {
                passed_on += 1;
                if let Some(pipe) = &mut self.0[0].stdin {
                    // An exited process is noticed below.
                    let _ = pipe.write_all(b"\n");
                }
            }
            for (rank, child) in self.0.iter_mut().enumerate() {
                let Some(status) = child.try_wait().context("waiting for the processes")? else {
                    continue;
                };
                if rank == 0 {
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    return match code {
                        Some(code) => Ok(ExitCode::from(code)),
                        // A request ends a process before its first step. Another signal may have interrupted saving.
                        None if passed_on > 0 && ended_by_request(status) => {
                            Ok(ExitCode::from(INTERRUPTED))
                        }
                        None => Err(anyhow!("rank 0 ended: {status}")),
                    };
                }
                if !status.success() && failed.is_none() {
                    failed = Some((rank, status, Instant::now()));
                }
            }
            // If all ranks fail for the same reason, rank 0 reports it.
            if let Some((rank, status, since)) = failed
                && since.elapsed() > GRACE
            {
                bail!("rank {rank} ended ({status}), and the others cannot continue without it");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Computes this rank's share of every batch until rank 0 ends the run.
pub(crate) fn follow(group: Arc<ProcessGroup>) -> Result<ExitCode> {
    // Rank 0 decides what Ctrl-C means.
    ctrlc::set_handler(|| {}).context("Ctrl-C cannot be ignored")?;
    match job("train", |context| sdft_jobs::follow(group.clone(), context)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // As in `share_images`.
        Err(error) if is_launched() && is_of_leader(&error) => Ok(ExitCode::FAILURE),
        Err(error) => {
            group.fail(&causes(&error));
            Err(error)
        }
    }
}
