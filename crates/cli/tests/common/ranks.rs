//! Helpers of the tests of several processes.

use super::{Run, Workspace};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The process of a rank among `size`.
pub(crate) fn rank(
    place: &Workspace,
    args: &[&str],
    port: u16,
    [rank, size]: [usize; 2],
) -> Command {
    let mut command = place.command(args);
    command
        .env("WORLD_SIZE", size.to_string())
        .env("RANK", rank.to_string())
        .env("MASTER_PORT", port.to_string())
        .env("SDFT_SECRET", "of this test alone")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until a condition holds.
pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !there() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The rest of a process that has to exit.
pub(crate) fn end_of(mut child: Child) -> Run {
    wait_for("end", || child.try_wait().unwrap().is_some());
    Run::from(child.wait_with_output().unwrap())
}

pub(crate) fn signal(id: u32, name: &str) {
    let told = Command::new("kill").args([name, &id.to_string()]).status();
    assert!(told.unwrap().success(), "{name} {id}");
}

/// The processes that a launcher started, by rank.
pub(crate) fn processes_of(launcher: u32) -> Vec<(usize, u32)> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let id = path.file_name().unwrap().to_str().unwrap().parse::<u32>();
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let mut after_name = stat.rsplit(") ").next().unwrap().split(' ').skip(1);
        let parent = after_name.next().and_then(|text| text.parse::<u32>().ok());
        let (Ok(id), true) = (id, parent == Some(launcher)) else {
            continue;
        };
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let rank = environment
            .split(|&b| b == 0)
            .find_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix("RANK="))
            .and_then(|text| text.parse().ok());
        processes.extend(rank.map(|rank| (rank, id)));
    }
    processes.sort_unstable();
    processes
}

pub(crate) fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // A process that was not waited for is a zombie.
    !stat.is_empty() && !stat.contains(") Z ")
}
