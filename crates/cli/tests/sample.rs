//! Drawing samples into a folder: foreign files are kept, and an interrupted run continues.

mod common;

use candle_core::Tensor;
use common::{Workspace, assert_same, files, names, place_with_inputs, translate, unet, workspace};
use sdft_imaging::{Limits, Rgb8, decode_bytes};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SAMPLE: [&str; 5] = ["sample", "--model", "digits-source", "--steps", "ddim10"];

fn sample(place: &Workspace, more: &[&str]) -> common::Run {
    place.run(&[&SAMPLE[..], more].concat())
}

/// The embedded model with one of its tensors changed.
fn changed_model(path: &Path, name: &str, change: impl Fn(&Tensor) -> Tensor) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/weights/digits-source.safetensors");
    let state = sdft_checkpoint::read(&source, &Default::default()).unwrap();
    let changed = change(state.get(name).unwrap());
    let tensors = state
        .iter()
        .map(|(n, tensor)| (n, if n == name { &changed } else { tensor }));
    sdft_checkpoint::write_safetensors(path, tensors, state.metadata(), None).unwrap();
}

#[test]
fn foreign_files_are_never_replaced() {
    let place = workspace();
    place.write("mine/00000.png", b"precious");
    place.write("photos-grid.png", b"a photo of a grid");
    let mine = ["-n", "2", "--out", "mine"];
    sample(&place, &mine).fails(
        2,
        &["--out mine", "not made by this command", "--overwrite"],
    );
    sample(&place, &["-n", "2", "--out", "photos"]).fails(2, &["photos-grid.png, which is"]);
    assert!(!place.path("photos").exists());

    sample(&place, &["-n", "3", "--out", "a"]).ok();
    let first = files(&place.path("a"));
    // Another seed, other steps, another model: nothing changes, and the error names the difference.
    sample(&place, &["-n", "3", "--out", "a", "--seed", "1"])
        .fails(1, &["there seed = 0, now seed = 1", "--overwrite"]);
    sample(&place, &["-n", "3", "--out", "a", "--eta", "0.5"]).fails(1, &["eta"]);
    changed_model(&place.path("other.safetensors"), "out.2.bias", |bias| {
        (bias + 0.25).unwrap()
    });
    let other = [
        "sample",
        "--model",
        "other.safetensors",
        "--steps",
        "ddim10",
        "-n",
        "2",
    ];
    place
        .run(&[&other[..], &["--out", "a"]].concat())
        .fails(1, &["model", "other.safetensors"]);
    // A smaller number would leave images of a larger set.
    sample(&place, &["-n", "2", "--out", "a"]).fails(2, &["00002.png", "draw as many with -n 3"]);
    assert_same(&first, &files(&place.path("a")));

    // With --overwrite it replaces the whole earlier set.
    place.write("a/notes.txt", b"mine");
    place
        .run(&[&other[..], &["--out", "a", "--overwrite"]].concat())
        .ok();
    let redone = files(&place.path("a"));
    assert_eq!(names(&redone), ["00000.png", "00001.png"]);
    assert!(redone.iter().zip(&first).all(|(a, b)| a.1 != b.1));
    assert!(place.path("a/notes.txt").is_file());
    assert_eq!(
        std::fs::read(place.path("mine/00000.png")).unwrap(),
        b"precious"
    );
}

#[test]
fn a_foreign_sample_is_refused_before_anything_is_removed() {
    let place = workspace();
    sample(&place, &["-n", "2", "--out", "a"]).ok();
    let first = files(&place.path("a"));
    place.write("a/20240101.png", b"mine");
    let again = ["-n", "2", "--seed", "9", "--out", "a", "--overwrite"];
    sample(&place, &again).fails(2, &["20240101.png", "name another folder"]);
    std::fs::remove_file(place.path("a/20240101.png")).unwrap();
    assert_same(&first, &files(&place.path("a")));
    // A number in another form is not a sample's name.
    place.write("a/7.png", b"mine");
    sample(&place, &again).ok();
    assert!(place.path("a/7.png").is_file());
}

#[test]
fn the_same_command_makes_missing_images_and_a_larger_count_adds_images() {
    let place = workspace();
    sample(&place, &["-n", "7", "--out", "whole"]).ok();
    let whole = files(&place.path("whole"));
    sample(&place, &["-n", "4", "--out", "a", "--npz"]).ok();
    // One is missing, one is damaged, and two are new; a different batch changes no pixel.
    std::fs::remove_file(place.path("a/00001.png")).unwrap();
    place.write("a/00002.png", b"cut");
    let more = ["-n", "7", "--out", "a", "--npz", "--batch", "2"];
    let again = sample(&place, &more).ok();
    assert!(again.err.contains("2 are complete and stay"), "{again:?}");
    assert_same(&whole, &files(&place.path("a")));
    let again = sample(&place, &more).ok();
    assert!(again.err.contains("7 are complete and stay"), "{again:?}");

    // The array has the pixels of the PNGs.
    let arrays = sdft_npz::read_npz(&place.path("a/samples_7x16x16x3.npz")).unwrap();
    let mut pixels = Vec::new();
    for (_, png) in &whole {
        pixels.extend(decode_bytes(png, &Limits::default()).unwrap().pixels);
    }
    assert_eq!(arrays["arr_0"].shape, [7, 16, 16, 3]);
    assert_eq!(arrays["arr_0"].values, sdft_npz::Values::U8(pixels));
}

#[test]
fn a_stopped_or_killed_run_continues() {
    let place = workspace();
    let slow = ["-n", "6", "--batch", "1", "--sampler", "ddpm"];
    let args = ["sample", "--model", "digits-source", "--steps", "250"];
    let done = || match place.path("samples").exists() {
        true => files(&place.path("samples")).len(),
        false => 0,
    };
    for (signal, code) in [("-KILL", None), ("-INT", Some(130))] {
        let before = done();
        let child = place
            .command(&[&args[..], &slow].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while done() == before {
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "nothing was written"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        if signal == "-INT" {
            place
                .run(&[&args[..], &slow].concat())
                .fails(1, &["another process is writing into this folder"]);
        }
        let id = child.id().to_string();
        let told = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(told.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), code);
        if signal == "-INT" {
            let said = String::from_utf8(ended.stdout).unwrap();
            assert!(
                said.contains("of 6 images are complete, the same command continues"),
                "{said}"
            );
        }
        assert!((1..6).contains(&done()), "{} of 6", done());
    }
    place.run(&[&args[..], &slow].concat()).ok();
    let undisturbed = [&args[..], &slow, &["--out", "undisturbed"]].concat();
    place.run(&undisturbed).ok();
    assert_same(
        &files(&place.path("undisturbed")),
        &files(&place.path("samples")),
    );
    let left: Vec<_> = std::fs::read_dir(place.path("samples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn models_that_make_no_images_are_refused_before_anything_is_computed() {
    let place = workspace();
    unet(&place.path("six.safetensors"), |config| {
        config.in_channels = 6;
    });
    place.run(&["sample", "--model", "six.safetensors"]).fails(
        2,
        &[
            "expected a model with as many output channels",
            "found 6 and 3",
        ],
    );
    assert!(!place.path("samples").exists());
}

#[test]
fn a_grey_model_makes_grey_pngs_and_a_size_has_to_fit() {
    let place = workspace();
    unet(&place.path("grey.safetensors"), |config| {
        (config.in_channels, config.out_channels) = (1, 1);
    });
    let grey = ["sample", "--model", "grey.safetensors", "--steps", "ddim2"];
    let run = |more: &[&str]| place.run(&[&grey[..], more].concat());
    let made = run(&["-n", "2", "--size", "24x16", "--npz"]).ok();
    assert!(
        made.err.contains("2 images of 24x16, 1 channel of 8 bits"),
        "{made:?}"
    );
    let png = std::fs::read(place.path("samples/00001.png")).unwrap();
    let found = sdft_imaging::Reading::default().decode(&png, "png", 0);
    let image = found.unwrap().image;
    assert_eq!((image.height, image.width, image.channels), (24, 16, 1));
    let arrays = sdft_npz::read_npz(&place.path("samples/samples_2x24x16x1.npz")).unwrap();
    assert_eq!(arrays["arr_0"].shape, [2, 24, 16, 1]);
    run(&["--size", "24x15", "--out", "odd"]).fails(2, &["--size 24x15", "24x16"]);
    run(&["--size", "24xx", "--out", "odd"]).fails(2, &["HEIGHTxWIDTH"]);
    run(&["--guidance", "2", "--out", "odd"]).fails(2, &["--guidance 2", "unconditional"]);
    run(&["--class", "1", "--out", "odd"]).fails(2, &["--class 1", "unconditional"]);
    assert!(!place.path("odd").exists());
    // Five channels have no picture format.
    unet(&place.path("five.safetensors"), |config| {
        (config.in_channels, config.out_channels) = (5, 5);
    });
    let five = ["sample", "--model", "five.safetensors", "--steps", "ddim2"];
    place
        .run(&[&five[..], &["-n", "2", "--out", "five"]].concat())
        .ok();
    let array = std::fs::read(place.path("five/00001.npy")).unwrap();
    assert_eq!(array[..6], *b"\x93NUMPY");
    assert!(place.path("five-grid.png").is_file());
}

#[test]
fn samples_and_translations_are_guided_away_from_another_model() {
    let place = place_with_inputs();
    changed_model(&place.path("tuned.safetensors"), "out.2.bias", |bias| {
        (bias + 0.1).unwrap()
    });
    let tuned = ["--model", "tuned.safetensors", "--guide", "digits-source"];
    let draw = |more: &[&str]| {
        let sample = ["sample", "--steps", "ddim10", "-n", "2"];
        place.run(&[&sample[..], &tuned, more].concat())
    };
    let made = draw(&["--out", "guided"]).ok();
    let note = "guided by digits-source with weight 1.5";
    assert!(made.err.contains(note), "{made:?}");
    draw(&["--out", "one", "--guide-weight", "1"]).ok();
    let plain = ["sample", "--steps", "ddim10", "-n", "2", "--out", "plain"];
    place.run(&[&plain[..], &tuned[..2]].concat()).ok();
    let images = |out: &str| files(&place.path(out));
    assert_eq!(images("one"), images("plain"));
    assert_ne!(images("guided"), images("plain"));
    draw(&["--out", "guided", "--guide-weight", "2"])
        .fails(1, &["there guide_weight = 1.5, now guide_weight = 2.0"]);
    draw(&["--out", "some", "--guide-interval", "0.2,5"]).ok();
    assert_ne!(images("some"), images("guided"));
    for (more, words) in [
        (["--guide-interval", "5"], "LOW,HIGH, as in 0.2,5"),
        (
            ["--guide-interval", "5,0.2"],
            "--guide-interval 5,0.2: expected",
        ),
        (
            ["--guide-weight", "-1"],
            "--guide-weight -1: expected 0 or more",
        ),
    ] {
        draw(&[&["--out", "no"][..], &more].concat()).fails(2, &[words]);
    }
    let alone = ["sample", "--model", "digits-source", "--guide-weight", "2"];
    place.run(&alone).fails(2, &["--guide <FILE|DIR>"]);
    assert!(!place.path("no").exists());

    translate(&place, &[&tuned[..], &["--out", "moved"]].concat()).ok();
    translate(&place, &[&tuned[..2], &["--out", "unguided"]].concat()).ok();
    assert_ne!(images("moved"), images("unguided"));
}

#[test]
fn images_that_are_not_finite_are_errors_and_never_files() {
    let place = place_with_inputs();
    // Finite weights whose products are not.
    changed_model(&place.path("huge.safetensors"), "out.2.weight", |weight| {
        (weight * 0.0).unwrap().affine(0.0, 3e38).unwrap()
    });
    let huge = ["--model", "huge.safetensors", "--no-clip"];
    let args = [&["sample", "--steps", "ddim10", "-n", "3"][..], &huge].concat();
    place.run(&args).fails(
        1,
        &[
            "3 of 3 images failed",
            "00001.png: 768 of 768 values are NaN or infinite",
        ],
    );
    assert!(files(&place.path("samples")).is_empty());
    translate(&place, &huge).fails(
        1,
        &[
            "6 of 6 images failed",
            "sub/five.png",
            "values are NaN or infinite",
        ],
    );
    assert!(files(&place.path("translated")).is_empty());
}

#[test]
fn the_longest_names_are_translated_and_longer_ones_are_single_errors() {
    let place = place_with_inputs();
    let long = format!("{}.png", "n".repeat(251));
    std::fs::rename(
        place.path("in/00001.png"),
        place.path(&format!("in/{long}")),
    )
    .unwrap();
    translate(&place, &["--sweep", "t0=0,0.3"]).ok();
    assert!(place.path(&format!("translated/t0=0.3/{long}")).is_file());
    assert!(place.path(&format!("translated/strips/{long}")).is_file());
    // Without an extension, the output's name is longer than its input's.
    let bare = "b".repeat(253);
    std::fs::copy(place.path("in/00000.png"), place.path(&bare)).unwrap();
    let args = [
        "translate",
        "--model",
        "digits-source",
        "--input",
        &bare,
        "--out",
        "one",
    ];
    place
        .run(&args)
        .fails(1, &["1 of 1 images failed", "257 bytes"]);
    let out = "o".repeat(250);
    translate(&place, &["--out", &out]).fails(2, &["259 bytes"]);
}

#[test]
fn a_sheet_counts_the_images_it_omits() {
    let place = workspace();
    let quick = ["sample", "--model", "digits-source", "--steps", "ddim2"];
    let drawn = place
        .run(&[&quick[..], &["-n", "70", "--out", "many"]].concat())
        .ok();
    assert!(
        drawn.out.contains("many-grid.png (64 of 70 images)"),
        "{drawn:?}"
    );
    let args = ["translate", "--model", "digits-source", "--input", "many"];
    let made = place.run(&[&args[..], &["--steps", "ddim2"]].concat()).ok();
    assert!(
        made.out.contains("translated-grid.png (32 of 70 inputs)"),
        "{made:?}"
    );
    let few = place
        .run(&[&SAMPLE[..], &["-n", "4", "--out", "few"]].concat())
        .ok();
    assert!(few.out.contains("few-grid.png\n"), "{few:?}");
    let read = |name: &str| -> Rgb8 {
        let bytes = std::fs::read(place.path(name)).unwrap();
        decode_bytes(&bytes, &Limits::default()).unwrap()
    };
    // Eight columns of 64 pixels, each pair under its labels.
    assert_eq!(read("translated-grid.png").width, 8 * 66 + 2);
}

#[test]
fn a_report_replaces_neither_foreign_files_nor_other_reports() {
    let place = workspace();
    for seed in ["0", "1"] {
        sample(
            &place,
            &["-n", "12", "--seed", seed, "--out", &format!("s{seed}")],
        )
        .ok();
    }
    place.write("mine/report.csv", b"precious");
    place.write("mine.npz", b"precious");
    let evaluate = |fake: &str, more: &[&str]| {
        let args = ["evaluate", "--real", "digits", "--fake", fake, "--no-cache"];
        place.run(&[&args[..], more].concat())
    };
    evaluate("s0", &["--out", "mine"]).fails(2, &["--out mine", "not made by this command"]);
    evaluate("s0", &["--save-fake", "mine.npz"])
        .fails(2, &["--save-fake mine.npz", "exists already"]);
    evaluate("s0", &["--save-fake", "no/x.npz"]).fails(2, &["its folder does not exist"]);
    evaluate("s0", &["--save-real", "b.npz", "--save-fake", "b.npz"]).fails(2, &["the same file"]);
    // A report inside a folder would be measured with it the next time.
    evaluate("s0", &["--out", "s0/report"]).fails(2, &["--out s0/report", "mixed with inputs"]);
    evaluate("s0", &["--resize", "clean-fid"]).fails(2, &["--resize has no effect"]);
    evaluate("s0", &["--save-fake", "s0.npz"]).ok();
    evaluate("s0.npz", &["--kid-seed", "1"]).fails(2, &["no effect on statistics"]);
    evaluate("s0", &["--out", "report"]).ok();
    // A repeated comparison replaces its report; another comparison does not.
    evaluate("s0", &["--out", "report"]).ok();
    let before = std::fs::read(place.path("report/report.json")).unwrap();
    evaluate("s1", &["--out", "report"]).fails(1, &["other settings", "s1"]);
    assert_eq!(
        std::fs::read(place.path("report/report.json")).unwrap(),
        before
    );
    evaluate("s1", &["--out", "report", "--overwrite"]).ok();
    assert_ne!(
        std::fs::read(place.path("report/report.json")).unwrap(),
        before
    );
    assert_eq!(
        std::fs::read(place.path("mine/report.csv")).unwrap(),
        b"precious"
    );
}
