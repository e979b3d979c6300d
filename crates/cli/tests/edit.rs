//! Training directions and editing with them.

mod common;
mod direction;

use common::{Run, assert_same, essence, files, names, place_with_inputs, workspace};
use direction::{APPLY, SHORT, TUNED, apply, place_with_direction};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Waits until a condition holds.
fn wait_for(what: &str, there: impl Fn() -> bool) {
    let started = Instant::now();
    while !there() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &mut Child, name: &str) -> Option<i32> {
    let id = child.id().to_string();
    let told = std::process::Command::new("kill")
        .args([name, &id])
        .status();
    assert!(told.unwrap().success());
    child.wait().unwrap().code()
}

#[test]
fn a_direction_that_was_killed_and_interrupted_ends_like_an_undisturbed_one() {
    // Long enough to be killed in the middle.
    let long = [&SHORT[..], &["--set", "walk.steps=200"]].concat();
    let quiet = workspace();
    let whole = quiet.run(&long).ok();
    assert!(
        whole.out.contains("final.safetensors") && whole.out.contains("step-000008.png"),
        "{whole:?}"
    );
    let hurt = workspace();
    let root = hurt.path("runs/turn");
    let begun = |args: &[&str]| {
        let mut command = hurt.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut child = begun(&long);
    wait_for("checkpoint", || {
        root.join("checkpoints/step-000002").exists()
    });
    assert_eq!(signal(&mut child, "-KILL"), None);
    let resume = ["edit", "train", "--resume", "runs/turn", "--no-cache"];
    let mut child = begun(&resume);
    // Within the trajectories that follow.
    wait_for("second checkpoint", || {
        root.join("checkpoints/step-000004").exists()
    });
    assert_eq!(signal(&mut child, "-INT"), Some(130));
    assert!(!root.join("final.safetensors").exists());
    hurt.run(&resume).ok();
    assert_same(&essence(&quiet.path("runs/turn")), &essence(&root));
    // A finished run continues for more epochs, from any folder.
    std::fs::create_dir(hurt.path("elsewhere")).unwrap();
    let args = [
        "edit",
        "train",
        "--resume",
        "../runs/turn",
        "--no-cache",
        "--epochs",
        "3",
    ];
    let mut command = hurt.command(&args);
    command.current_dir(hurt.path("elsewhere"));
    let more = Run::from(command.output().unwrap()).ok();
    assert!(more.out.contains("step-000012.png"), "{more:?}");
    // Another number of threads changes no bit, and cached inversions equal new ones.
    let cached = [
        &SHORT[..13],
        &[
            "--set",
            "walk.steps=200",
            "--cache",
            "kept",
            "--threads",
            "1",
        ],
    ]
    .concat();
    let kept = workspace();
    let run = |name: &str| kept.run(&[&cached[..], &[name]].concat()).ok();
    run("--name=turn");
    assert_same(
        &essence(&quiet.path("runs/turn")),
        &essence(&kept.path("runs/turn")),
    );
    let before = latents(&kept.path("kept"));
    assert_eq!(before.len(), 4);
    run("--name=again");
    assert_eq!(latents(&kept.path("kept")), before);
    let [one, other] = ["turn", "again"].map(|run| {
        let folder = format!("runs/{run}/checkpoints/step-000008/weights.safetensors");
        std::fs::read(kept.path(&folder)).unwrap()
    });
    // The metadata of the files has the run.
    let numbers = |bytes: &[u8]| bytes[bytes.len() - 4096..].to_vec();
    assert_eq!(numbers(&one), numbers(&other));
}

/// The files of inversions below a folder, and when they were written.
fn latents(root: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut all = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "safetensors") {
                let written = path.metadata().unwrap().modified().unwrap();
                all.push((path, written));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn images_are_edited_under_their_names_and_later_only_where_something_changed() {
    let place = place_with_direction();
    let first = apply(&place, &[]).ok();
    assert!(
        first
            .out
            .contains("images   edited\ngrid     edited-grid.png"),
        "{first:?}"
    );
    let made = files(&place.path("edited"));
    let inputs = files(&place.path("in"));
    assert_eq!(names(&made), names(&inputs));
    let plan = std::fs::read_to_string(place.path("edited/plan.toml")).unwrap();
    for line in [
        "t_edit = 300",
        "inversion = 6",
        "steps = 8",
        "seed = 0",
        "from = \"3\"",
        "trained = 8",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let inverted = latents(&place.path("cache"));
    assert_eq!(inverted.len(), 6);
    let again = apply(&place, &[]).ok();
    assert!(again.err.contains("6 are complete and stay"), "{again:?}");

    // With strength 0 the model reconstructs the image; twice the strength is another edit; all share the inversions.
    let swept = apply(&place, &["--sweep", "0,1,-1", "--out", "swept"]).ok();
    assert!(swept.out.contains("swept-grid.png"), "{swept:?}");
    assert_eq!(latents(&place.path("cache")), inverted);
    let at = |strength: &str| files(&place.path(&format!("swept/strength={strength}")));
    assert_same(&made, &at("1"));
    assert!(at("0").iter().zip(&made).all(|(a, b)| a.1 != b.1));
    assert!(at("-1").iter().zip(&made).all(|(a, b)| a.1 != b.1));
    assert_eq!(names(&files(&place.path("swept/strips"))), names(&inputs));
    // The same image regardless of the other images and the batch size, with and without the cache.
    let alone = ["--batch", "1", "--threads", "1", "--out", "alone"];
    apply(&place, &alone).ok();
    assert_same(&made, &files(&place.path("alone")));
    let model = ["edit", "apply", "--model", "digits-source"];
    let uncached = [
        "--edit",
        "runs/turn",
        "--input",
        "in",
        "--steps",
        "8",
        "--no-cache",
        "--overwrite",
        "--out",
        "fresh",
    ];
    place.run(&[&model[..], &uncached].concat()).ok();
    assert_same(&made, &files(&place.path("fresh")));
    // Other settings of the inversion have other cache entries.
    let fewer = ["--inversion", "3"];
    apply(&place, &[&fewer[..], &["--out", "few"]].concat()).ok();
    let few = files(&place.path("few"));
    assert!(few.iter().zip(&made).all(|(a, b)| a.1 != b.1));
    let uncached = [&model[..], &uncached[..8], &fewer, &["--out", "few-fresh"]].concat();
    place.run(&uncached).ok();
    assert_same(&few, &files(&place.path("few-fresh")));
    // The same direction twice is half of each, times the root of their number.
    let file = "runs/turn/final.safetensors";
    let twice = ["--edit", file, "--strength", "0.70710678", "--out", "twice"];
    let both = [&twice[..], &["--strength", "0.70710678"]].concat();
    apply(&place, &both).ok();
    let limits = sdft_imaging::Limits::default();
    let pixels = |png: &[u8]| sdft_imaging::decode_bytes(png, &limits).unwrap().pixels;
    let plain = at("0");
    for ((one, two), none) in made.iter().zip(&files(&place.path("twice"))).zip(&plain) {
        let (one, two, none) = (pixels(&one.1), pixels(&two.1), pixels(&none.1));
        let apart = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart(&one, &two) <= Some(1), "{:?}", apart(&one, &two));
        assert!(apart(&one, &none) > Some(1));
    }
    apply(&place, &["--strength", "2", "--out", "edited"])
        .fails(1, &["other settings", "strength = 1.0, now strength = 2.0"]);
}

#[test]
fn settings_are_taken_over_and_frames_share_their_noise() {
    let place = place_with_direction();
    let noisy = ["--t-boost", "400", "--seed", "7"];
    let first = [&noisy[..], &["--frames", "--out", "film"]].concat();
    apply(&place, &first).ok();
    let film = files(&place.path("film"));
    apply(
        &place,
        &["--settings", "film/plan.toml", "--out", "likewise"],
    )
    .ok();
    assert_same(&film, &files(&place.path("likewise")));
    // The same picture under another name: the same frame, but another photograph.
    std::fs::copy(place.path("in/00000.png"), place.path("in/00001.png")).unwrap();
    apply(&place, &[&first[..], &["--overwrite"]].concat()).ok();
    let film = files(&place.path("film"));
    assert_eq!(film[0].1, film[1].1);
    apply(&place, &[&noisy[..], &["--out", "photographs"]].concat()).ok();
    let photographs = files(&place.path("photographs"));
    assert_ne!(photographs[0].1, photographs[1].1);
    // An option overrides the settings.
    let other = [
        "--settings",
        "film/plan.toml",
        "--seed",
        "8",
        "--out",
        "other",
    ];
    apply(&place, &other).ok();
    assert_ne!(film[0].1, files(&place.path("other"))[0].1);
}

#[test]
fn a_tuned_model_edits_as_far_as_its_strength_and_is_a_model_like_any_other() {
    let place = place_with_inputs();
    let tuned = [&TUNED[..], &["--name=tuned"]].concat();
    let trained = place.run(&tuned).ok();
    assert!(
        trained.out.contains("runs/tuned/final.safetensors"),
        "{trained:?}"
    );
    let edit = |edit: &str, more: &[&str]| {
        let args = [
            "edit",
            "apply",
            "--model",
            "digits-source",
            "--edit",
            edit,
            "--input",
            "in",
            "--cache",
            "cache",
            "--steps",
            "8",
        ];
        place.run(&[&args[..], more].concat())
    };
    edit("runs/tuned", &["--sweep", "0,0.5,1"]).ok();
    let at = |out: &str, strength: &str| files(&place.path(&format!("{out}/strength={strength}")));
    let [none, half, whole] = ["0", "0.5", "1"].map(|strength| at("edited", strength));
    for ((none, half), whole) in none.iter().zip(&half).zip(&whole) {
        assert!(none.1 != half.1 && half.1 != whole.1);
    }
    let plan = std::fs::read_to_string(place.path("edited/plan.toml")).unwrap();
    for line in [
        "method = \"diffusionclip\"",
        "t_0 = 600",
        "inversion = 6",
        "to = \"2\"",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    // The reconstruction of the original model is that of a direction without strength, from the same inversions.
    let inverted = latents(&place.path("cache"));
    let likewise = ["--set", "walk.t_0=600", "--name=turn"];
    place
        .run(&[&SHORT[..13], &["--no-cache"], &likewise].concat())
        .ok();
    edit(
        "runs/turn",
        &["--strength", "0", "--t-boost", "0", "--out", "plain"],
    )
    .ok();
    assert_eq!(latents(&place.path("cache")), inverted);
    assert_same(&none, &files(&place.path("plain")));
    // Alone and in another batch the tuned model makes the same images.
    edit("runs/tuned", &["--batch", "1", "--out", "alone"]).ok();
    assert_same(&whole, &files(&place.path("alone")));
    edit("runs/turn", &["--edit", "runs/tuned", "--out", "both"]).fails(
        2,
        &["expected edits of one method", "runs/turn and runs/tuned"],
    );
    edit("runs/tuned", &["--t-edit", "300", "--out", "steps"]).fails(2, &["--t-edit", "Asyrp"]);
    for noise in [&["--seed", "3"][..], &["--frames"]] {
        let args = [noise, &["--out", "noise"]].concat();
        edit("runs/tuned", &args).fails(2, &[noise[0], "adds no noise; omit it"]);
    }

    // Two tuned models share the noise, unless their shares are given.
    let two = ["--edit", "runs/tuned", "--out", "two"];
    let shared = edit("runs/tuned", &two).ok();
    assert!(!shared.err.contains("add up to"), "{shared:?}");
    let plan = std::fs::read_to_string(place.path("two/plan.toml")).unwrap();
    assert_eq!(plan.matches("strength = 0.5").count(), 2, "{plan}");
    let given = [&two[..2], &["--strength", "0.8", "--out", "given"]].concat();
    let given = edit("runs/tuned", &given).ok();
    assert!(given.err.contains("add up to 1.600"), "{given:?}");

    let sample = [
        "sample",
        "--model",
        "runs/tuned",
        "-n",
        "2",
        "--steps",
        "ddim3",
    ];
    place.run(&sample).ok();
    let more = [
        "edit",
        "train",
        "--resume",
        "runs/tuned",
        "--no-cache",
        "--epochs",
        "2",
    ];
    let more = place.run(&more).ok();
    assert!(more.out.contains("step-000008.png"), "{more:?}");
}

#[test]
fn an_adapter_of_a_tuned_model_is_refused_with_advice() {
    let place = place_with_inputs();
    let lora = ["--set", "adapter.kind=lora", "--name=lora"];
    place.run(&[&TUNED[..], &lora].concat()).ok();
    let newest = std::fs::read_to_string(place.path("runs/lora/checkpoints/latest")).unwrap();
    let checkpoint = format!("runs/lora/checkpoints/{}", newest.trim());
    for edit in ["runs/lora/adapter.safetensors", &checkpoint] {
        place
            .run(&[
                "edit",
                "apply",
                "--model",
                "digits-source",
                "--edit",
                edit,
                "--input",
                "in",
            ])
            .fails(2, &["--edit", "found an adapter", "finished run"]);
    }
    assert!(!place.path("edited").exists());
}

#[test]
fn an_interrupted_edit_continues() {
    let place = place_with_direction();
    let slow = ["--steps", "400", "--inversion", "400", "--batch", "1"];
    let done = || match place.path("edited").exists() {
        true => files(&place.path("edited")).len(),
        false => 0,
    };
    let mut child = place
        .command(&[&APPLY[..], &slow].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("image", || done() > 0);
    assert_eq!(signal(&mut child, "-INT"), Some(130));
    assert!((1..6).contains(&done()), "{} of 6", done());
    let again = place.run(&[&APPLY[..], &slow].concat()).ok();
    assert!(again.err.contains("complete and stay"), "{again:?}");
    let alone = [&APPLY[..], &slow, &["--out", "undisturbed"]].concat();
    place.run(&alone).ok();
    assert_same(
        &files(&place.path("undisturbed")),
        &files(&place.path("edited")),
    );
}

#[test]
fn memory_does_not_grow_with_the_steps_of_a_trajectory() {
    let place = workspace();
    let peak = |steps: &str| -> f64 {
        let steps = format!("walk.steps={steps}");
        let args = [
            "edit",
            "train",
            "--images",
            "2",
            "--epochs",
            "1",
            "--no-cache",
            "--set",
            "output.log_every=1",
            "--set",
            "output.samples=0",
            "--set",
            "walk.inversion=4",
            "--set",
            &steps,
        ];
        let run = place.run(&args).ok();
        let line = run
            .err
            .lines()
            .find(|line| line.contains("step 2/2"))
            .unwrap();
        let (_, rest) = line.rsplit_once(" · ").unwrap();
        let (number, unit) = rest.split_once(' ').unwrap();
        assert!(unit.starts_with("MB"), "{line}");
        number.parse().unwrap()
    };
    let (few, many) = (peak("20"), peak("900"));
    assert!(many < few + 20.0, "{few} {many}");
}

#[test]
fn a_run_continues_from_another_folder() {
    let place = place_with_inputs();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/weights");
    let bytes = std::fs::read(weights.join("digits-source.safetensors")).unwrap();
    place.write("models/digits.safetensors", &bytes);
    let args = [
        "edit",
        "train",
        "--model",
        "models/digits.safetensors",
        "--data",
        "in",
        "--from",
        "3",
        "--to",
        "2",
        "--set",
        "goal.network=digits",
        "--images",
        "2",
        "--epochs",
        "1",
        "--set",
        "walk.steps=4",
        "--set",
        "walk.inversion=4",
        "--name",
        "here",
        "--no-cache",
    ];
    place.run(&args).ok();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let on = [
        "edit",
        "train",
        "--resume",
        "../runs/here",
        "--epochs",
        "2",
        "--no-cache",
    ];
    let mut command = place.command(&on);
    command.current_dir(place.path("elsewhere"));
    let run = Run::from(command.output().unwrap()).ok();
    assert!(run.out.contains("step-000004.png"), "{run:?}");
    // A run does not continue with a changed model.
    let mut other = bytes;
    *other.last_mut().unwrap() ^= 1;
    place.write("models/digits.safetensors", &other);
    let run = place.run(&["edit", "train", "--resume", "runs/here", "--epochs", "3"]);
    run.fails(1, &["models/digits.safetensors", "the model changed"]);
}
