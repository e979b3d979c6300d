//! A run that is killed at any moment and resumed ends like an undisturbed run.
#![cfg(unix)]

mod common;

use common::{SHORT, Workspace, assert_same, essence, workspace};
use sdft_noise::{Draw, Purpose};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn a_run_killed_twenty_times_equals_one_that_was_not() {
    let long = [
        &SHORT[..],
        &["--set", "loop.steps=120", "--set", "loop.batch=2"],
        &["--set", "output.sample_every=40"],
    ]
    .concat();
    let quiet = workspace();
    let started = Instant::now();
    quiet.run(&long).ok();
    let whole = started.elapsed();

    let hurt = workspace();
    let root = hurt.path("runs/short");
    let resume = ["train", "--resume", "runs/short"];
    let next = || -> &[&str] {
        if root.join("plan.toml").exists() {
            &resume
        } else {
            &long
        }
    };
    let draw = Draw::new(20, Purpose::Test, 0, 0);
    let mut unfinished = 0;
    for life in 0..20 {
        let mut child = hurt
            .command(next())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Short lives: in reading, in the audit, in steps, in the checkpoints that every other step writes.
        std::thread::sleep(whole.mul_f64(0.1 * draw.uniform(life)));
        child.kill().unwrap();
        child.wait().unwrap();
        unfinished += u32::from(!root.join("final.safetensors").exists());
    }
    assert!(
        unfinished >= 10,
        "only {unfinished} of 20 kills hit an unfinished run"
    );
    hurt.run(next()).ok();
    assert_same(&essence(&quiet.path("runs/short")), &essence(&root));
    for folder in ["", "samples", "checkpoints"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with('.'), "{folder}/{name} is left over");
        }
    }
}

#[test]
fn an_interrupt_finishes_the_step_saves_and_prints_how_to_continue() {
    let place = workspace();
    let args = [
        &SHORT[..SHORT.len() - 1],
        &["--name=long", "--set", "loop.steps=100000"],
    ]
    .concat();
    let child = place
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !place.path("runs/long/checkpoints/latest").exists() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no checkpoint was written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let run = common::Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(
        run.out.contains("continue with") && run.out.contains("runs/long"),
        "{run:?}"
    );
    let resumed = place
        .run(&["train", "--resume", "runs/long", "--set", "loop.steps=1"])
        .ok();
    assert!(resumed.err.contains("continuing from"), "{resumed:?}");
}

#[test]
fn the_embedded_example_replaces_no_picture_of_the_users_and_can_be_interrupted() {
    let place = workspace();
    place.write("mine/example.png", b"precious");
    let refused = place.run(&["train", "--out", "mine"]);
    refused.fails(2, &["mine/example.png", "another picture"]);
    assert_eq!(std::fs::read_dir(place.path("mine")).unwrap().count(), 1);
    let mut command = place.command(&["train"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let started = Instant::now();
    while !place.path("runs/example-samples/source/00000.png").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no sample");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    let told = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(told.unwrap().success());
    let run = common::Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(run.out.contains("the same command continues"), "{run:?}");
    assert!(!place.path("runs/example.png").exists());
}

#[test]
fn an_interrupted_run_with_a_closed_output_still_exits_with_130() {
    let place = workspace();
    let args = [
        &SHORT[..SHORT.len() - 1],
        &["--name=long", "--set", "loop.steps=100000"],
    ]
    .concat();
    let mut command = place.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let started = Instant::now();
    while !place.path("runs/long/checkpoints/latest").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    let told = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(told.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_damaged_checkpoint_is_skipped_for_the_last_good_one() {
    let place = workspace();
    place.run(&SHORT).ok();
    let undisturbed = essence(&place.path("runs/short"));
    let newest = place.path("runs/short/checkpoints/step-000008/ema.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    std::fs::write(
        place.path("runs/short/checkpoints/step-000006/state.json"),
        b"{",
    )
    .unwrap();
    let run = place.run(&["train", "--resume", "runs/short"]).ok();
    for word in [
        "skipped a damaged checkpoint",
        "ema.safetensors is damaged",
        "state.json",
        "step-000004",
    ] {
        assert!(run.err.contains(word), "{word}: {}", run.err);
    }
    assert_same(&undisturbed, &essence(&place.path("runs/short")));
}

#[test]
fn a_changed_position_is_damage_and_checkpoints_of_earlier_versions_stay_readable() {
    let place = workspace();
    place.run(&SHORT).ok();
    let root = place.path("runs/short");
    let undisturbed = essence(&root);
    let newest = root.join("checkpoints/step-000008");
    let state = newest.join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    for (field, other) in [("ema_updates", 9), ("step", 7)] {
        let changed = text.replace(&format!("\"{field}\": 8"), &format!("\"{field}\": {other}"));
        assert_ne!(changed, text, "{field}");
        std::fs::write(&state, changed).unwrap();
        let run = place.run(&["train", "--resume", "runs/short"]).ok();
        assert!(run.err.contains("state.json is damaged"), "{run:?}");
        assert!(run.err.contains("step-000006"), "{run:?}");
        assert_same(&undisturbed, &essence(&root));
    }

    // As in earlier versions: state.json has the hashes of the tensors, and no hash of its own.
    let sums = std::fs::read_to_string(newest.join("SHA256SUMS")).unwrap();
    std::fs::remove_file(newest.join("SHA256SUMS")).unwrap();
    let files = sums.lines().filter_map(|line| {
        let (hash, name) = line.split_once("  ")?;
        Some((name.strip_suffix(".safetensors")?.to_owned(), hash.into()))
    });
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    old["files"] = serde_json::Value::Object(files.collect());
    std::fs::write(&state, old.to_string()).unwrap();
    let on = ["train", "--resume", "runs/short", "--steps", "9"];
    let run = place.run(&on).ok();
    assert!(
        run.err.contains("without a checksum of state.json") && run.err.contains("continuing from"),
        "{run:?}"
    );
}

#[test]
fn damaged_checkpoints_are_not_used_and_never_restart_a_run() {
    let place = workspace();
    let args = [&SHORT[..], &["--set", "output.keep=1"]].concat();
    place.run(&args).ok();
    let root = place.path("runs/short");
    let newest = root.join("checkpoints/step-000008");
    // An older intact checkpoint next to the damaged newest one, copied under a lower number.
    let copy = root.join("checkpoints/step-000002");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&newest).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    std::fs::write(newest.join("state.json"), b"{").unwrap();
    place
        .run(&["train", "--resume", "runs/short", "--steps", "10"])
        .ok();
    let latest = std::fs::read_to_string(root.join("checkpoints/latest")).unwrap();
    assert!(
        root.join("checkpoints").join(latest.trim()).is_dir(),
        "{latest}"
    );
    assert!(root.join("checkpoints/damaged-step-000008").is_dir());

    // No intact checkpoint is left: an error, and nothing changes.
    let log = std::fs::read(root.join("log.jsonl")).unwrap();
    for entry in std::fs::read_dir(root.join("checkpoints")).unwrap() {
        let state = entry.unwrap().path().join("state.json");
        if state.is_file() {
            std::fs::write(state, b"{").unwrap();
        }
    }
    place
        .run(&["train", "--resume", "runs/short"])
        .fails(1, &["checkpoints are damaged", "nothing was changed"]);
    assert_eq!(std::fs::read(root.join("log.jsonl")).unwrap(), log);
}

#[test]
fn a_removed_log_is_started_again() {
    let place = workspace();
    place.run(&SHORT).ok();
    let log = place.path("runs/short/log.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::remove_file(place.path("runs/short/events.out.tfevents.sdft")).unwrap();
    place
        .run(&["train", "--resume", "runs/short", "--steps", "9"])
        .ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["step"], 9);
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let place = workspace();
    let args = [
        &SHORT[..SHORT.len() - 1],
        &["--name=shared", "--set", "loop.steps=100000"],
    ]
    .concat();
    let mut child = place
        .command(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !place.path("runs/shared/checkpoints/latest").exists() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no checkpoint was written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    place
        .run(&["train", "--resume", "runs/shared"])
        .fails(1, &["another process is training"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_kind_of_state_survives_an_interruption() {
    // A sampler with a memory, dropout, micro-batches, flips, SGD with momentum: everything a step depends on.
    let settings = [
        "--set",
        "loss.timesteps=loss-second-moment",
        "--set",
        "model.dropout=0.2",
        "--set",
        "loop.micro_batch=3",
        "--set",
        "data.flip=true",
        "--set",
        "optim.kind=sgd",
        "--set",
        "optim.momentum=0.9",
        "--set",
        "loss.aux_sampling=uniform",
        "--set",
        "loss.base=p2-1",
        "--set",
        "optim.lr=1e-3",
    ];
    let whole = workspace();
    whole.run(&[&SHORT[..], &settings].concat()).ok();
    let halves = workspace();
    let four: Vec<&str> = SHORT
        .iter()
        .map(|a| if *a == "8" { "4" } else { *a })
        .collect();
    halves.run(&[&four[..], &settings].concat()).ok();
    // The end of the shorter run wrote a log line and a picture of its own; both belong to its checkpoint.
    halves
        .run(&["train", "--resume", "runs/short", "--steps", "8"])
        .ok();
    let tensors = |place: &Workspace| {
        let mut parts = essence(&place.path("runs/short"));
        parts.retain(|(name, _)| name.ends_with("safetensors"));
        parts
    };
    assert_same(&tensors(&whole), &tensors(&halves));
}

#[test]
fn a_full_disk_stops_the_run_and_keeps_the_last_checkpoint() {
    let place = workspace();
    place.run(&SHORT).ok();
    // No file may grow beyond 1 MiB: the next checkpoint does not fit, as on a full disk.
    let script = format!(
        "trap '' XFSZ; ulimit -f 1024; exec {} train --resume runs/short --steps 12",
        env!("CARGO_BIN_EXE_sdft")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    common::Run::from(output).fails(1, &["weights.safetensors", "cannot be written"]);
    let left: Vec<String> = std::fs::read_dir(place.path("runs/short/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.contains(&"step-000008".to_owned()), "{left:?}");
    assert!(!left.iter().any(|name| name.contains("tmp")), "{left:?}");
    place
        .run(&["train", "--resume", "runs/short", "--steps", "12"])
        .ok();
}
