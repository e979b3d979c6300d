//! Images that several processes make together: the same as those of one process, whatever is killed in between.
#![cfg(target_os = "linux")]

mod common;
mod direction;

use common::ranks::{end_of, free_port, processes_of, rank, signal, wait_for};
use common::{Workspace, assert_same, files, place_with_inputs, translate, workspace};
use direction::{APPLY, place_with_direction};
use std::process::Stdio;

/// Draws samples on the CPU.
const SAMPLE: [&str; 7] = [
    "sample",
    "--model=digits-source",
    "--steps=ddim6",
    "--eta=0.5",
    "--batch=2",
    "--device=cpu",
    "--threads=1",
];

/// The arguments of [`SAMPLE`] and `more`.
fn sample<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SAMPLE[..], more].concat()
}

fn assert_same_images(place: &Workspace, one: &str, several: &str) {
    assert_same(&files(&place.path(one)), &files(&place.path(several)));
    let [a, b] =
        [one, several].map(|name| std::fs::read(place.path(&format!("{name}-grid.png"))).unwrap());
    assert!(a == b, "the sheets of {one} and {several} differ");
}

#[test]
fn three_processes_draw_the_samples_of_one() {
    let place = workspace();
    place.run(&sample(&["-n=11", "--out=one", "--npz"])).ok();
    let run = place.run(&sample(&["-n=11", "--out=three", "--npz", "--gpus=3"]));
    let run = run.ok();
    // Rank 0 alone prints.
    assert_eq!(run.err.matches("writes three").count(), 1, "{run:?}");
    assert_eq!(run.out.matches("images   three").count(), 1, "{run:?}");
    assert_same_images(&place, "one", "three");
    // A larger set adds to them.
    place
        .run(&sample(&["-n=14", "--out=three", "--gpus=2"]))
        .ok();
    place.run(&sample(&["-n=14", "--out=one"])).ok();
    assert_same_images(&place, "one", "three");
    // Three processes for one image.
    place.run(&sample(&["-n=1", "--out=few", "--gpus=3"])).ok();
    assert_eq!(files(&place.path("few"))[0], files(&place.path("one"))[0]);
}

#[test]
fn two_processes_translate_and_edit_like_one() {
    let place = place_with_inputs();
    let both = |name: &str, more: &[&str]| {
        for (out, gpus) in [
            (name.to_owned(), "--gpus=1"),
            (format!("{name}-2"), "--gpus=2"),
        ] {
            let out = ["--out", &out, gpus, "--device=cpu"];
            translate(&place, &[more, &out].concat()).ok();
        }
        assert_same_images(&place, name, &format!("{name}-2"));
    };
    both("noisy", &["--eta", "0.5", "--batch", "2"]);
    // Every variant, and the strips of each input.
    both("swept", &["--sweep", "t0=0,0.3,0.6"]);

    let place = place_with_direction();
    // Without the folder of its cache, so that both invert the images.
    let edit = &APPLY[..APPLY.len() - 2];
    for (out, gpus, cache) in [("one", "--gpus=1", "c1"), ("two", "--gpus=2", "c2")] {
        let noise = [
            "--steps",
            "8",
            "--t-boost",
            "200",
            "--seed",
            "3",
            "--device=cpu",
        ];
        let out = ["--out", out, gpus, "--cache", cache];
        place.run(&[edit, &noise, &out].concat()).ok();
    }
    assert_same_images(&place, "one", "two");
}

#[test]
fn only_the_rank_that_leads_needs_the_images() {
    let place = place_with_inputs();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let args = [
        "translate",
        "--model=digits-source",
        "--input=in",
        "--steps=ddim4",
        "--out=apart",
        "--device=cpu",
    ];
    let port = free_port();
    let leader = rank(&place, &args, port, [0, 2]).spawn().unwrap();
    let mut other = rank(&place, &args, port, [1, 2]);
    let other = other.current_dir(place.path("elsewhere")).spawn().unwrap();
    for run in [leader, other].map(end_of) {
        run.ok();
    }
    assert_eq!(
        files(&place.path("apart")).len(),
        files(&place.path("in")).len()
    );
}

#[test]
fn a_folder_whose_process_was_killed_is_continued_by_another_number_of_processes() {
    let place = workspace();
    let slow = ["-n=20", "--batch=1", "--steps=ddim200"];
    let slow = [&sample(&[])[..2], &slow, &SAMPLE[5..]].concat();
    let made = || match place.path("out").exists() {
        true => files(&place.path("out")).len(),
        false => 0,
    };
    let args = [&slow[..], &["--out=out", "--gpus=2"]].concat();
    for victim in [1, 0] {
        let before = made();
        let mut command = place.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let launcher = command.spawn().unwrap();
        wait_for("image", || made() > before);
        let processes = processes_of(launcher.id());
        signal(processes[victim].1, "-KILL");
        let named: &[&str] = match victim {
            1 => &["rank 1 is disconnected"],
            _ => &["rank 0 ended"],
        };
        end_of(launcher).fails(1, named);
        assert!(made() < 20, "{victim}");
    }
    let mut command = place.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = made();
    let launcher = command.spawn().unwrap();
    wait_for("image", || made() > before);
    signal(launcher.id(), "-INT");
    let run = end_of(launcher);
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(run.out.contains("the same command continues"), "{run:?}");
    let again = place.run(&[&slow[..], &["--out=out", "--gpus=3"]].concat());
    assert!(again.ok().err.contains("complete and stay"));
    place.run(&[&slow[..], &["--out=whole"]].concat()).ok();
    assert_same_images(&place, "whole", "out");
}

#[test]
fn processes_of_two_machines_meet_at_the_address_of_rank_0() {
    let place = workspace();
    let (args, port) = (sample(&["-n=5", "--out=two"]), free_port());
    // Each is the only process of its machine.
    let ranks = [0, 1].map(|n| {
        let mut command = rank(&place, &args, port, [n, 2]);
        let command = command
            .env("MASTER_ADDR", "127.0.0.2")
            .env("LOCAL_RANK", "0");
        command.spawn().unwrap()
    });
    for run in ranks.map(end_of) {
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    place.run(&sample(&["-n=5", "--out=one"])).ok();
    assert_same_images(&place, "one", "two");
}

#[test]
fn a_process_that_stops_is_named_by_all_others() {
    let place = workspace();
    let args = sample(&["-n=1000000", "--out=out"]);
    let port = free_port();
    let [leader, other, stopped] = [0, 1, 2].map(|n| {
        let mut command = rank(&place, &args, port, [n, 3]);
        command.env("SDFT_PEER_TIMEOUT", "2").spawn().unwrap()
    });
    wait_for("image", || place.path("out/00000.png").exists());
    signal(stopped.id(), "-STOP");
    for run in [leader, other].map(end_of) {
        run.fails(
            1,
            &["rank 2 is disconnected: timed out", "SDFT_PEER_TIMEOUT"],
        );
    }
    signal(stopped.id(), "-KILL");
    end_of(stopped);
}

#[test]
fn a_process_with_other_settings_or_without_the_secret_is_refused() {
    let place = workspace();
    let port = free_port();
    let ranks = [0, 1].map(|n| {
        let args = sample(&["-n=4", "--out=out", ["--seed=1", "--seed=2"][n]]);
        rank(&place, &args, port, [n, 2]).spawn().unwrap()
    });
    for run in ranks.map(end_of) {
        run.fails(
            1,
            &["rank 1 has other settings", "there seed = 1, now seed = 2"],
        );
    }
    let args = sample(&["-n=4", "--out=other"]);
    for secret in ["", "too short"] {
        let mut command = rank(&place, &args, port, [0, 2]);
        let alone = command.env("SDFT_SECRET", secret).spawn().unwrap();
        end_of(alone).fails(2, &["SDFT_SECRET", "at least 16 characters"]);
    }
    assert!(!place.path("other").exists());
    // The launcher prints the error of rank 0 once.
    let run = place.run(&sample(&["-n=4", "--gpus=2", "--class=3"]));
    assert_eq!(run.err.matches("unconditional").count(), 1, "{run:?}");
    run.fails(2, &["--class"]);
}
