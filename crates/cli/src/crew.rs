//! Several processes for one training run: who starts them, and what those do that do not lead.

use crate::device::{device, world};
use crate::train::{all_fields, fingerprint, unchanged};
use crate::train::{load_source, open_data};
use crate::usage;
use anyhow::{Context, Result};
use sdft_parallel::{Peers, World, free_port};
use sdft_train::{Follower, Plan, follow};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

/// How long the others may take to come: they may still load libraries.
const PATIENCE: Duration = Duration::from_secs(300);

/// The others, where the environment says that there are some.
pub(crate) fn peers() -> Result<Arc<Peers>> {
    let peers = match world()? {
        None => Peers::alone(),
        Some(world) => Peers::join(&world, &device()?, PATIENCE)?,
    };
    Ok(Arc::new(peers))
}

/// Starts `n` copies of this very command, which find each other, and waits for all of them.
pub(crate) fn launch(n: usize) -> Result<ExitCode> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let port = free_port()?;
    // Ctrl-C reaches the copies, too: the one that leads saves, and this one waits for it.
    ctrlc::set_handler(|| {}).context("Ctrl-C cannot be waited out")?;
    let mut crew = Vec::with_capacity(n);
    for rank in 0..n {
        let world = World::here(rank, n, port);
        let child = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .envs(world.variables())
            .spawn()
            .with_context(|| format!("process {rank} does not start"))?;
        crew.push(child);
    }
    let code = wait(&mut crew);
    for child in &mut crew {
        // Those that are still there have nobody to work with.
        let _ = child.kill();
        let _ = child.wait();
    }
    code
}

/// The exit code of the process that leads; earlier if another one fails.
fn wait(crew: &mut [Child]) -> Result<ExitCode> {
    loop {
        for (rank, child) in crew.iter_mut().enumerate() {
            let Some(status) = child.try_wait().context("waiting for the processes")? else {
                continue;
            };
            if rank == 0 {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok(ExitCode::from(code.unwrap_or(1)));
            }
            if !status.success() {
                // Where all fail for one reason, the one that leads says it best.
                std::thread::sleep(Duration::from_secs(1));
                if let Some(status) = crew[0].try_wait().context("waiting for the processes")? {
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    return Ok(ExitCode::from(code.unwrap_or(1)));
                }
                anyhow::bail!(
                    "process {rank} ended ({status}), and the others cannot go on without it"
                );
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A share of every batch of the run that another process leads.
pub(crate) fn help(peers: Arc<Peers>) -> Result<ExitCode> {
    // What Ctrl-C means is for the process that leads to say.
    ctrlc::set_handler(|| {}).context("Ctrl-C cannot be waited out")?;
    let text = peers.share(Vec::new())?;
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
    follow(Follower {
        plan,
        source,
        data,
        device: device()?,
        peers,
    })?;
    Ok(ExitCode::SUCCESS)
}
