//! Several processes for one training run: who starts them, and what those do that do not lead.

use crate::adm::{self, Networks, Plan};
use crate::console;
use crate::device::{device, world};
use crate::runs::{Asks, interrupt};
use crate::train::{all_fields, fingerprint, unchanged};
use crate::train::{load_source, open_data};
use crate::{INTERRUPTED, usage};
use anyhow::{Context, Result, anyhow, bail};
use sdft_parallel::{ProcessGroup, World, free_port, new_secret};
use sdft_train::{Follower, follow};
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the others may take to come: they may still load libraries.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the process that leads may take to notice that another one has gone.
const GRACE: Duration = Duration::from_secs(5);

/// Set for processes whose standard input is a pipe from the one that started them: a byte says that the user wants an end, and the end of
/// the pipe that the launcher has gone.
const LAUNCHED: &str = "SDFT_LAUNCHED";

/// Whether this process has met the others, and so notices when they go.
static MET: AtomicBool = AtomicBool::new(false);

/// The others, where the environment says that there are some.
pub(crate) fn peers() -> Result<Arc<ProcessGroup>> {
    let Some(world) = world()? else {
        return Ok(Arc::new(ProcessGroup::single()));
    };
    let leads = world.rank == 0;
    if std::env::var_os(LAUNCHED).is_some() {
        std::thread::spawn(move || heed_launcher(leads));
    }
    let is_here = ["127.0.0.1", "::1", "localhost"].contains(&world.address.as_str());
    if leads && world.secret.is_empty() && !is_here {
        console::note(&format!(
            "anyone who reaches {}:{} can join this run; a secret in SDFT_SECRET, the same for all processes, keeps others out",
            world.address, world.port
        ));
    }
    let peers = ProcessGroup::join(&world, &device()?, PATIENCE)?;
    MET.store(true, Ordering::Relaxed);
    Ok(Arc::new(peers))
}

/// Ends this process when the one that started it says so, or has gone itself.
fn heed_launcher(leads: bool) {
    let mut byte = [0];
    loop {
        match std::io::stdin().read(&mut byte) {
            Ok(n) if n > 0 && leads => interrupt(Asks::Launcher),
            Ok(n) if n > 0 => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    if leads {
        interrupt(Asks::Launcher);
    } else if !MET.load(Ordering::Relaxed) {
        // Later the process that leads says when to end, or its connection ends.
        std::process::exit(1);
    }
}

/// Starts `n` copies of this very command, which find each other, and waits for all of them.
pub(crate) fn launch(n: usize) -> Result<ExitCode> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let (port, secret) = (free_port()?, new_secret()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let handler = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    ctrlc::set_handler(handler).context("Ctrl-C cannot be passed on")?;
    let mut crew = Crew(Vec::with_capacity(n));
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
            .with_context(|| format!("process {rank} does not start"))?;
        crew.0.push(child);
    }
    crew.wait(&asked)
}

/// Whether a signal ended the process that asks for an end: SIGINT or SIGTERM.
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

/// The processes of a run. Those that are still there when it is dropped have no others to work with, and are killed.
struct Crew(Vec<Child>);

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Crew {
    /// The exit code of the process that leads, which is told how often the user `asked` for an end. An error if another one fails and the
    /// one that leads does not notice.
    fn wait(&mut self, asked: &AtomicUsize) -> Result<ExitCode> {
        let mut told = 0;
        let mut failed: Option<(usize, ExitStatus, Instant)> = None;
        loop {
            while told < asked.load(Ordering::Relaxed) {
                told += 1;
                if let Some(pipe) = &mut self.0[0].stdin {
                    // One that is gone is noticed below.
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
                        // A request ends a process that had not begun. Anything else may have cost what it was saving.
                        None if told > 0 && ended_by_request(status) => {
                            Ok(ExitCode::from(INTERRUPTED))
                        }
                        None => Err(anyhow!("process 0, which leads, ended: {status}")),
                    };
                }
                if !status.success() && failed.is_none() {
                    failed = Some((rank, status, Instant::now()));
                }
            }
            // Where all fail for one reason, the one that leads says it best.
            if let Some((rank, status, since)) = failed
                && since.elapsed() > GRACE
            {
                bail!("process {rank} ended ({status}), and the others cannot go on without it");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A share of every batch of the run that another process leads.
pub(crate) fn help(peers: Arc<ProcessGroup>) -> Result<ExitCode> {
    // What Ctrl-C means is for the process that leads to say.
    ctrlc::set_handler(|| {}).context("Ctrl-C cannot be waited out")?;
    let text = peers.broadcast(Vec::new())?;
    let text = String::from_utf8(text).context("the plan of the process that leads")?;
    let plan: Plan = toml::from_str(&text).context("the plan of the process that leads")?;
    let source = match plan.source.as_str() {
        "" => None,
        name => {
            let (model, process) = (all_fields(&plan.model), all_fields(&plan.process));
            let model = load_source(name, &plan.source_key, model, process)?;
            unchanged(name, &plan.source_sha256, &model)?;
            Some(model.params)
        }
    };
    let data = open_data(&plan.data, plan.model.image_size)?;
    if fingerprint(data.as_ref())? != plan.data.fingerprint {
        return Err(usage(format!(
            "{}: process {} sees other images there than the process that leads",
            plan.data.path,
            peers.rank()
        )));
    }
    adm::validate(&plan)?;
    let device = device()?;
    let Networks { network, source } = adm::networks(&plan, source, &device)?;
    follow(Follower {
        plan,
        network,
        source,
        data,
        device,
        peers,
    })?;
    Ok(ExitCode::SUCCESS)
}
