//! A preparation that is killed at any moment can be continued.
#![cfg(unix)]

mod common;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use common::{at_16, files_below, images, png};

const FOLDER: &str = "SDFT_TEST_PREPARE_IN";

/// The process to kill: this test program, started again by the other test.
#[test]
fn a_preparation_in_its_own_process() {
    let Some(root) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    at_16(&[root.join("in")], &root.join("out")).unwrap();
}

#[test]
fn killed_at_any_moment_it_continues_to_the_same_set() {
    let root = tempfile::tempdir().unwrap();
    let input = root.path().join("in");
    fs::create_dir(&input).unwrap();
    for n in 0..60 {
        fs::write(input.join(format!("{n:02}.png")), png(n)).unwrap();
    }
    let whole = root.path().join("whole");
    at_16(std::slice::from_ref(&input), &whole).unwrap();
    let expected = (images(&whole), fs::read(whole.join("index.jsonl")).unwrap());

    let out = root.path().join("out");
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_preparation_in_its_own_process"])
            .env(FOLDER, root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut killed = 0;
    for round in 0..24 {
        let mut child = start();
        // The first rounds kill as soon as there is any output, later rounds a little later.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !out.exists() && Instant::now() < deadline {
            sleep(Duration::from_micros(50));
        }
        sleep(Duration::from_micros(200 * round));
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 6 == 5 {
            at_16(std::slice::from_ref(&input), &out).unwrap();
            let found = (images(&out), fs::read(out.join("index.jsonl")).unwrap());
            assert_eq!(found, expected, "round {round}");
            let left = files_below(root.path());
            let left: Vec<_> = left
                .iter()
                .filter(|path| path.to_string_lossy().ends_with(".tmp"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
            fs::remove_dir_all(&out).unwrap();
        }
    }
    assert!(killed >= 6, "only {killed} were killed before the end");
}
