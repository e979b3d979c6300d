//! Processes of one run that are killed or stopped: no incomplete run counts as complete, and none hangs.
#![cfg(target_os = "linux")]

mod common;

use common::ranks::{end_of, free_port, is_alive, processes_of, rank, signal, wait_for};
use common::{Run, Workspace, place_with_inputs, workspace};
use sdft_noise::{Draw, Purpose};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Two processes of a run of a second or two, or of hours.
fn arguments<'a>(name: &'a str, steps: &'a str) -> Vec<&'a str> {
    let mut args = vec![
        "train",
        "--batch=2",
        "--device=cpu",
        "--threads=1",
        name,
        steps,
    ];
    for setting in [
        "output.samples=1",
        "output.sampler=ddim2",
        "output.sample_every=0",
        "output.checkpoint_every=20",
    ] {
        args.extend(["--set", setting]);
    }
    args
}

/// Fails if a run without a model counts as complete.
fn assert_honest(run: &Run, root: &Path, trial: u64) {
    let is_complete = root.join("final.safetensors").is_file();
    assert!(run.code != Some(0) || is_complete, "{trial}: {run:?}");
    assert!(!run.err.contains("panicked"), "{trial}: {run:?}");
}

#[test]
fn fifty_kills_of_either_rank_never_end_in_success_without_a_model() {
    let place = workspace();
    let draw = Draw::new(50, Purpose::Test, 0, 0);
    let mut unfinished = 0;
    for trial in 0..40 {
        let (name, port) = (format!("--name=direct-{trial}"), free_port());
        let args = arguments(&name, "--steps=60");
        let root = place.path(&format!("runs/direct-{trial}"));
        let mut ranks = [0, 1].map(|n| Some(rank(&place, &args, port, [n, 2]).spawn().unwrap()));
        // Both have joined by now.
        wait_for("run", || root.join("plan.toml").is_file());
        std::thread::sleep(Duration::from_secs_f64(0.4 * draw.uniform(trial)));
        let victim = usize::try_from(trial % 2).unwrap();
        let mut killed = ranks[victim].take().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        let survivor = end_of(ranks[1 - victim].take().unwrap());
        assert_honest(&survivor, &root, trial);
        unfinished += u64::from(!root.join("final.safetensors").is_file());
        std::fs::remove_dir_all(&root).unwrap();
    }
    assert!(unfinished >= 10, "only {unfinished} of 40 kills hit a run");
    for trial in 40..50 {
        let name = format!("--name=launched-{trial}");
        let args = [arguments(&name, "--steps=60"), vec!["--gpus=2"]].concat();
        let mut command = place.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let launcher = command.spawn().unwrap();
        let mut processes = Vec::new();
        wait_for("processes", || {
            processes = processes_of(launcher.id());
            processes.len() == 2
        });
        std::thread::sleep(Duration::from_secs_f64(0.6 * draw.uniform(trial)));
        let victim = processes[usize::try_from(trial % 2).unwrap()].1;
        if is_alive(victim) {
            signal(victim, "-KILL");
        }
        let root = place.path(&format!("runs/launched-{trial}"));
        assert_honest(&end_of(launcher), &root, trial);
        wait_for("end of the processes", || {
            processes.iter().all(|(_, id)| !is_alive(*id))
        });
    }
}

#[test]
fn a_rank_that_stops_times_out_with_a_message_how_to_continue() {
    let place = workspace();
    let (args, port) = (arguments("--name=stopped", "--steps=100000"), free_port());
    let [leader, other] = [0, 1].map(|n| {
        let mut command = rank(&place, &args, port, [n, 2]);
        command.env("SDFT_PEER_TIMEOUT", "2").spawn().unwrap()
    });
    let root = place.path("runs/stopped");
    wait_for("checkpoint", || root.join("checkpoints/latest").is_file());
    signal(other.id(), "-STOP");
    end_of(leader).fails(
        1,
        &[
            "rank 1",
            "2s",
            "SDFT_PEER_TIMEOUT",
            "cargo xtask train --resume runs/stopped",
        ],
    );
    signal(other.id(), "-KILL");
    end_of(other);
    assert!(!root.join("final.safetensors").exists());
}

#[test]
fn a_process_with_another_secret_cannot_join_a_run() {
    let place = workspace();
    let (args, port) = (arguments("--name=secret", "--steps=2"), free_port());
    let leader = rank(&place, &args, port, [0, 2]).spawn().unwrap();
    let mut stranger = rank(&place, &args, port, [1, 2]);
    let stranger = stranger
        .env("SDFT_SECRET", "of another test alone")
        .spawn()
        .unwrap();
    end_of(stranger).fails(1, &["refused", "SDFT_SECRET"]);
    let other = rank(&place, &args, port, [1, 2]).spawn().unwrap();
    for run in [leader, other].map(end_of) {
        assert_eq!(run.code, Some(0), "{run:?}");
    }
}

#[test]
fn only_the_rank_that_leads_needs_the_folder_of_a_run() {
    let place = workspace();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let start = arguments("--name=apart", "--steps=2");
    place
        .run(&[&start[..], &["--config=digits-naive"]].concat())
        .ok();
    let args = ["train", "--resume=runs/apart", "--steps=4", "--device=cpu"];
    let port = free_port();
    let leader = rank(&place, &args, port, [0, 2]).spawn().unwrap();
    let mut other = rank(&place, &args, port, [1, 2]);
    let other = other.current_dir(place.path("elsewhere")).spawn().unwrap();
    for run in [leader, other].map(end_of) {
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let log = std::fs::read_to_string(place.path("runs/apart/log.jsonl")).unwrap();
    assert!(log.contains("\"step\":4"), "{log}");
}

#[test]
fn a_rank_that_fails_before_a_run_names_its_reason_to_the_others() {
    let place = place_with_inputs();
    let args = [
        arguments("--name=reason", "--steps=100000"),
        vec!["--config=digits-naive", "--data=in"],
    ]
    .concat();
    // The images are too large for the other process.
    let port = free_port();
    let leader = rank(&place, &args, port, [0, 2]).spawn().unwrap();
    let mut other = rank(&place, &args, port, [1, 2]);
    let other = other.env("SDFT_IMAGE_MAX_SIDE", "8").spawn().unwrap();
    end_of(other).fails(1, &["none of the", "can be read"]);
    end_of(leader).fails(1, &["rank 1 failed: none of the", "can be read"]);
    // With a launcher, an error of rank 0 is printed once.
    std::fs::create_dir(place.path("empty")).unwrap();
    let empty = ["train", "--config=digits-naive", "--data=empty", "--gpus=2"];
    let run = place.run(&[&empty[..], &["--device=cpu"]].concat());
    assert_eq!(run.err.matches("is empty").count(), 1, "{run:?}");
    assert!(!run.err.contains("disconnected"), "{run:?}");
}

/// Two processes in the middle of a run of hours.
fn launched(place: &Workspace, name: &str) -> (Child, Vec<(usize, u32)>) {
    let name_argument = format!("--name={name}");
    let args = [
        arguments(&name_argument, "--steps=100000"),
        vec!["--gpus=2"],
    ]
    .concat();
    let mut command = place.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let launcher = command.spawn().unwrap();
    let latest = place.path(&format!("runs/{name}/checkpoints/latest"));
    wait_for("checkpoint", || latest.is_file());
    let processes = processes_of(launcher.id());
    assert_eq!(
        processes.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(),
        [0, 1]
    );
    (launcher, processes)
}

#[test]
fn a_launcher_forwards_sigterm_and_the_run_is_saved() {
    let place = workspace();
    for name in ["-TERM", "-INT"] {
        let (launcher, processes) = launched(&place, &format!("asked{name}"));
        signal(launcher.id(), name);
        let run = end_of(launcher);
        assert_eq!(run.code, Some(130), "{run:?}");
        assert!(run.out.contains("interrupted; saved"), "{run:?}");
        wait_for("end of the processes", || {
            processes.iter().all(|(_, id)| !is_alive(*id))
        });
    }
}

#[test]
fn processes_save_and_exit_when_their_launcher_is_killed() {
    let place = workspace();
    let (mut launcher, processes) = launched(&place, "orphans");
    signal(launcher.id(), "-KILL");
    launcher.wait().unwrap();
    wait_for("end of the processes", || {
        processes.iter().all(|(_, id)| !is_alive(*id))
    });
    let run = Run::from(launcher.wait_with_output().unwrap());
    assert!(run.out.contains("interrupted; saved"), "{run:?}");
}
