//! The first training on a user's own images.

mod common;

use common::{SHORT, Workspace, workspace};

/// A folder `photos` of images.
fn place_with_photos() -> Workspace {
    let place = workspace();
    let sample = ["sample", "--model", "digits-source", "--steps", "ddim2"];
    place
        .run(&[&sample[..], &["-n", "6", "--out", "photos"]].concat())
        .ok();
    place
}

#[test]
fn a_folder_of_images_is_enough_and_the_assumptions_are_printed() {
    let place = place_with_photos();
    let plan = place.run(&["train", "--data", "photos", "--dry-run"]).ok();
    for words in ["own-64", "--source", "random weights"] {
        assert!(plan.err.contains(words), "{words}: {}", plan.err);
    }
    for words in [
        "name = \"photos-scratch\"",
        "image_size = 64",
        "channel_mult = [1.0, 2.0, 3.0, 4.0]",
        "ema_ramp = true",
        "# time    about",
        "of it to draw samples",
        "# memory  about",
        "writes  runs/photos-scratch",
    ] {
        assert!(plan.out.contains(words), "{words}: {}", plan.out);
    }
    for key in ["style", "classes", "per_class"] {
        assert!(!plan.out.contains(&format!("\n{key} = ")), "{}", plan.out);
    }
    place
        .run(&["train", "--data", "photos", "--method", "sdft"])
        .fails(2, &["source", "--method scratch"]);
}

#[test]
fn the_example_has_no_plan_and_says_what_has_one() {
    let place = workspace();
    place
        .run(&["train", "--dry-run"])
        .fails(2, &["example", "--config emoji-sdft"]);
    assert!(!place.path("runs").exists());
}

#[test]
fn a_small_image_size_makes_a_small_network() {
    let place = place_with_photos();
    let parameters = |more: &[&str]| -> u64 {
        let args = [
            "train",
            "--data",
            "photos",
            "--method",
            "scratch",
            "--dry-run",
        ];
        let plan = place.run(&[&args[..], more].concat()).ok();
        let (_, rest) = plan.out.split_once("images, ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let small = parameters(&["--set", "model.image_size=32"]);
    assert!(small < 10_000_000, "{small}");
    assert_eq!(small, parameters(&["--config", "own-32"]));
    assert!(parameters(&["--set", "model.image_size=16"]) < small);
}

#[test]
fn a_preset_of_the_digits_reports_dropped_settings_for_a_folder() {
    let place = place_with_photos();
    let config = ["train", "--config", "digits-sdft", "--data", "photos"];
    let plan = place.run(&[&config[..], &["--dry-run"]].concat()).ok();
    for words in [
        "ignored, because",
        "data.style, data.classes, data.per_class",
    ] {
        assert!(plan.err.contains(words), "{words}: {}", plan.err);
    }
    assert_eq!(
        plan.err.matches("ignored, because").count(),
        1,
        "{}",
        plan.err
    );
    assert!(!plan.out.contains("classes = [1"), "{}", plan.out);
    assert!(plan.out.contains("name = \"photos-sdft\""), "{}", plan.out);
    // The run continues like any other.
    let short = [&SHORT[..], &["--data", "photos"]].concat();
    place.run(&short).ok();
    let resume = ["train", "--resume", "runs/short", "--steps", "9"];
    place.run(&resume).ok();
}

#[test]
fn an_average_that_cannot_follow_is_warned_about() {
    let place = workspace();
    let slow = ["--set", "optim.ema=0.9999", "--set", "optim.ema_ramp=false"];
    for dry in [&["--dry-run"][..], &[]] {
        let run = place.run(&[&SHORT[..], &slow, dry].concat()).ok();
        let words = ["warning: optim.ema = 0.9999", "10000 steps behind", "has 8"];
        for words in words {
            assert!(run.err.contains(words), "{words}: {}", run.err);
        }
    }
    let run = place.run(&[&SHORT[..], &["--dry-run"]].concat()).ok();
    assert!(!run.err.contains("warning"), "{}", run.err);
}

#[test]
fn a_plan_that_does_not_fit_the_memory_is_refused_before_anything_is_written() {
    let place = place_with_photos();
    let huge = ["--set", "model.image_size=2048", "--batch", "100000"];
    let args = [&["train", "--data", "photos"][..], &huge].concat();
    place
        .run(&args)
        .fails(2, &["of memory and this machine has", "loop.micro_batch"]);
    assert!(!place.path("runs").exists());
    let plan = place.run(&[&args[..], &["--dry-run"]].concat()).ok();
    assert!(plan.out.contains("# time    not measured"), "{}", plan.out);
}

#[test]
fn a_folder_with_the_name_of_embedded_images_is_pointed_out() {
    let place = workspace();
    std::fs::create_dir(place.path("emoji")).unwrap();
    let words = "write ./emoji for the path";
    let train = ["train", "--source", "emoji-source", "--data", "emoji"];
    let plan = place.run(&[&train[..], &["--dry-run"]].concat()).ok();
    assert!(plan.err.contains(words), "{}", plan.err);
    let other = place.run(&["evaluate", "--real", "emoji", "--fake", "emoji"]);
    assert!(other.err.contains(words), "{}", other.err);
}

#[test]
fn the_memory_of_a_dry_run_is_what_the_run_takes() {
    let place = workspace();
    for more in [
        &["train", "--config", "digits-scratch", "--batch", "8"][..],
        &["train", "--config", "digits-sdft", "--batch", "64"],
        &[
            "train-classifier",
            "--config",
            "digits-classifier",
            "--batch",
            "64",
        ],
    ] {
        let short = ["--steps", "3", "--set", "output.log_every=1"];
        let args = [more, &short].concat();
        let plan = place.run(&[&args[..], &["--dry-run"]].concat()).ok();
        let (_, said) = plan.out.split_once("# memory  about ").unwrap();
        let said = megabytes(said);
        let run = place.run(&args).ok();
        let Some((before, _)) = run.err.rsplit_once(" memory") else {
            // The system does not report it.
            return;
        };
        let (_, taken) = before.rsplit_once(" · ").unwrap();
        let taken = megabytes(taken);
        assert!(
            (said / taken - 1.0).abs() < 0.25,
            "{more:?}: said {said} MB, taken {taken} MB"
        );
    }
}

/// `171.6 MB ..`
fn megabytes(text: &str) -> f64 {
    let mut words = text.split_whitespace();
    let value: f64 = words.next().unwrap().parse().unwrap();
    match words.next().unwrap().trim_end_matches(';') {
        "MB" => value,
        "GB" => 1e3 * value,
        unit => panic!("{unit}"),
    }
}

#[test]
fn thousands_of_threads_are_limited_to_a_useful_number() {
    let place = workspace();
    let started = std::time::Instant::now();
    let run = place.run(&["--threads", "4096", "doctor"]).ok();
    assert!(
        run.err.contains("--threads 4096: computing with"),
        "{}",
        run.err
    );
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn the_judge_replaces_a_file_only_with_an_option() {
    let place = workspace();
    place.write("mine.safetensors", b"precious");
    for set in ["digits", "emoji"] {
        place
            .run(&["judge", set, "--out", "mine.safetensors"])
            .fails(2, &["mine.safetensors", "--overwrite"]);
    }
    assert_eq!(
        std::fs::read(place.path("mine.safetensors")).unwrap(),
        b"precious"
    );
}
