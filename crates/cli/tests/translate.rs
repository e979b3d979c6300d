//! Translating files and folders.

mod common;

use candle_core::Device;
use common::{
    CLASSIFIER, SHORT, Workspace, assert_same, files, names, place_with_inputs, translate,
    workspace,
};
use sdft_data::{Digits, DigitsSource, ImageSource as _, Style};
use sdft_eval::score_kept;
use sdft_features::DigitsJudge;
use sdft_imaging::ImageSpec;
use sdft_jobs::Context;
use sdft_train::NoopProgress;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[test]
fn a_folder_is_translated_under_its_names_and_later_only_where_something_changed() {
    let place = place_with_inputs();
    let first = translate(&place, &[]).ok();
    assert!(
        first
            .out
            .contains("images   translated\ngrid     translated-grid.png"),
        "{first:?}"
    );
    let made = files(&place.path("translated"));
    let expected = [
        "00000.png",
        "00001.png",
        "00002.png",
        "00003.png",
        "00004.png",
        "sub/five.png",
    ];
    assert_eq!(names(&made), expected);
    let inputs = files(&place.path("in"));
    assert!(made.iter().zip(&inputs).all(|(a, b)| a.1 != b.1));
    let plan = std::fs::read_to_string(place.path("translated/plan.toml")).unwrap();
    for line in [
        "method = \"sdedit\"",
        "t0 = 0.5",
        "steps = \"ddim10\"",
        "seed = 0",
        "network_sha256",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }

    let again = translate(&place, &[]).ok();
    assert!(again.err.contains("6 are complete and stay"), "{again:?}");
    // Only a cut-off output, a missing one, and the output of a changed input are made again.
    let cut = place.path("translated/00001.png");
    let half = std::fs::read(&cut).unwrap().len() / 2;
    std::fs::File::options()
        .write(true)
        .open(&cut)
        .unwrap()
        .set_len(half as u64)
        .unwrap();
    std::fs::remove_file(place.path("translated/00002.png")).unwrap();
    std::fs::copy(place.path("in/00000.png"), place.path("in/00003.png")).unwrap();
    let repaired = translate(&place, &[]).ok();
    assert!(
        repaired.err.contains("3 are complete and stay"),
        "{repaired:?}"
    );
    let after = files(&place.path("translated"));
    let changed: Vec<&str> = made
        .iter()
        .zip(&after)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.0.as_str())
        .collect();
    assert_eq!(changed, ["00003.png"]);
    // The same picture under another name gets other noise.
    assert_ne!(after[0].1, after[3].1);

    // Other settings leave existing images unchanged, unless an option replaces them.
    translate(&place, &["--t0", "0.3"]).fails(
        1,
        &["other settings", "t0 = 0.5, now t0 = 0.3", "--overwrite"],
    );
    assert_same(&after, &files(&place.path("translated")));
    translate(&place, &["--t0", "0.3", "--overwrite"]).ok();
    let redone = files(&place.path("translated"));
    assert!(redone.iter().zip(&after).all(|(a, b)| a.1 != b.1));
}

#[test]
fn an_image_depends_only_on_its_name_and_the_seed() {
    let place = place_with_inputs();
    translate(&place, &["--out", "a", "--eta", "0.5"]).ok();
    let all = files(&place.path("a"));
    for more in [&["--batch", "1"][..], &["--batch", "4", "--threads", "1"]] {
        let args = [&["--out", "b", "--eta", "0.5", "--overwrite"][..], more].concat();
        translate(&place, &args).ok();
        assert_same(&all, &files(&place.path("b")));
    }
    let args = [
        "--input",
        "in/00004.png",
        "--out",
        "one",
        "--eta",
        "0.5",
        "--steps",
        "ddim10",
    ];
    place
        .run(&[&["translate", "--model", "digits-source"][..], &args].concat())
        .ok();
    assert_same(&all[4..5], &files(&place.path("one")));
    translate(&place, &["--out", "c", "--eta", "0.5", "--seed", "1"]).ok();
    assert!(
        files(&place.path("c"))
            .iter()
            .zip(&all)
            .all(|(a, b)| a.1 != b.1)
    );
}

#[test]
fn a_sweep_makes_a_folder_per_strength_and_a_strip_per_input() {
    let place = place_with_inputs();
    let swept = translate(&place, &["--sweep", "t0=0,0.3,0.6"]).ok();
    assert!(swept.out.contains("translated-grid.png"), "{swept:?}");
    let inputs = files(&place.path("in"));
    // With strength 0 the output is the input, to the bit.
    assert_same(&inputs, &files(&place.path("translated/t0=0")));
    let strips = files(&place.path("translated/strips"));
    assert_eq!(names(&strips), names(&inputs));
    let strip = sdft_imaging::decode_bytes(&strips[0].1, &sdft_imaging::Limits::default()).unwrap();
    assert!(
        strip.width > 4 * 64 && strip.height < 2 * 64 + 40,
        "{}x{}",
        strip.width,
        strip.height
    );
    // One strength by itself gives the same images.
    translate(&place, &["--t0", "0.6", "--out", "alone"]).ok();
    assert_same(
        &files(&place.path("alone")),
        &files(&place.path("translated/t0=0.6")),
    );
    // Only a missing one is made again.
    std::fs::remove_file(place.path("translated/t0=0.3/00001.png")).unwrap();
    let again = translate(&place, &["--sweep", "t0=0,0.3,0.6"]).ok();
    assert!(again.err.contains("5 are complete and stay"), "{again:?}");
    assert!(place.path("translated/t0=0.3/00001.png").is_file());
}

#[test]
fn a_strip_does_not_outlive_the_images_in_it() {
    let place = place_with_inputs();
    let sweep = ["--sweep", "t0=0,0.5"];
    translate(&place, &sweep).ok();
    let strip = place.path("translated/strips/00000.png");
    assert!(strip.is_file());
    // Another input; its first output can be made, its second cannot, and the command exits in between.
    std::fs::copy(place.path("in/00001.png"), place.path("in/00000.png")).unwrap();
    let second = place.path("translated/t0=0.5/00000.png");
    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir_all(second.join("in the way")).unwrap();
    translate(&place, &sweep).fails(1, &["00000.png"]);
    assert!(!strip.exists());
    std::fs::remove_dir_all(&second).unwrap();
    translate(&place, &sweep).ok();
    assert!(strip.is_file());
}

// Links need a privilege on Windows.
#[cfg(unix)]
#[test]
fn one_bad_image_does_not_stop_the_others() {
    let place = place_with_inputs();
    place.write("in/broken.png", b"no picture");
    let tiny = sdft_imaging::Rgb8::filled(3, 40, [7, 7, 7]);
    sdft_imaging::write_png(&place.path("in/tiny.png"), &tiny).unwrap();
    std::fs::copy(place.path("in/00000.png"), place.path("in/00000.bmp")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("in/dangling.png")).unwrap();
    translate(&place, &[]).fails(
        1,
        &[
            "4 of 10 images failed, the others are done",
            "broken.png: ",
            "dangling.png: ",
            "tiny.png: 40x3 is too small for a model of 16x16, expected 4 pixels",
            "00000.png: its output 00000.png is already that of 00000.bmp",
        ],
    );
    assert_eq!(files(&place.path("translated")).len(), 6);
}

#[test]
fn a_stopped_or_killed_translation_continues() {
    let place = place_with_inputs();
    let slow = ["--walk", "ancestral", "--t0", "0.4", "--batch", "1"];
    let args = ["translate", "--model", "digits-source", "--input", "in"];
    let done = || match place.path("translated").exists() {
        true => files(&place.path("translated")).len(),
        false => 0,
    };
    for (signal, code) in [("-KILL", None), ("-INT", Some(130))] {
        let before = done();
        let mut child = place
            .command(&[&args[..], &slow].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while done() == before {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "nothing was written"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        // No other process can write there meanwhile.
        if signal == "-INT" {
            translate(&place, &slow).fails(1, &["another process is writing into this folder"]);
        }
        let id = child.id().to_string();
        let told = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(told.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), code);
        assert!((1..6).contains(&done()), "{} of 6", done());
    }
    let again = translate(&place, &slow).ok();
    assert!(again.err.contains("are complete and stay"), "{again:?}");
    translate(&place, &[&slow[..], &["--out", "undisturbed"]].concat()).ok();
    assert_same(
        &files(&place.path("undisturbed")),
        &files(&place.path("translated")),
    );
}

/// Writes digits as images whose names begin with their class, and returns the names and classes in the order of the names.
fn write_digits(
    place: &Workspace,
    folder: &str,
    digits: &DigitsSource,
    from: usize,
) -> (Vec<String>, Vec<u8>) {
    std::fs::create_dir(place.path(folder)).unwrap();
    let mut all: Vec<(String, u8)> = Vec::new();
    for i in from..digits.len() {
        let class = digits.labels()[i];
        let name = format!("{class}-{}.png", digits.id(i).replace(['/', ' '], "-"));
        let path = place.path(folder).join(&name);
        sdft_imaging::write_png(&path, &digits.screen(i).unwrap()).unwrap();
        all.push((name, class));
    }
    all.sort();
    all.into_iter().unzip()
}

/// The share of the images in a folder that the judge sees as these classes.
fn share_of(judge: &DigitsJudge, folder: &Path, expected: &[String], classes: &[u8]) -> f64 {
    let made = files(folder);
    assert_eq!(names(&made), expected);
    let decode =
        |bytes: &[u8]| sdft_imaging::decode_bytes(bytes, &sdft_imaging::Limits::default()).unwrap();
    let images: Vec<_> = made.iter().map(|(_, bytes)| decode(bytes)).collect();
    let x = sdft_train::to_tensor(&images, &ImageSpec::rgb8(16, 16)).unwrap();
    score_kept(judge, &x, classes).unwrap().class
}

#[test]
fn digits_that_the_target_set_lacks_are_translated_and_edited() {
    let place = workspace();
    let model = ["train", "--config", "digits-sdft", "--name=model"];
    place.run(&model).ok();
    let classifier = ["train-classifier", "--config", "digits-classifier"];
    place.run(&classifier).ok();
    let accuracy = place.path("runs/digits-classifier/accuracy.json");
    let accuracy: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(accuracy).unwrap()).unwrap();
    for domain in ["source", "target"] {
        let [little, much] = [0, 9].map(|l| accuracy["levels"][l][domain].as_f64().unwrap());
        assert!(little > 0.9 && (0.0..=1.0).contains(&much), "{accuracy}");
    }
    let absent = [0, 2, 3, 5, 6, 8, 9];
    let digits = || Digits::embedded().unwrap();
    let inputs = DigitsSource::new(digits(), Style::Chalk, &absent, 10).unwrap();
    let (expected, classes) = write_digits(&place, "in", &inputs, 0);
    let judge = sdft_jobs::load_judge().unwrap();
    let both = ["translate", "--model", "runs/model", "--input", "in"];
    let guided = "--method=egsde --classifier=runs/digits-classifier --out=guided";
    let weak = "--t0=0.2 --out=weak";
    for (more, least) in [(guided, 0.3), (weak, 0.8)] {
        let more: Vec<&str> = more.split(' ').collect();
        place.run(&[&both[..], &more].concat()).ok();
        let folder = place.path(more[more.len() - 1].trim_start_matches("--out="));
        let share = share_of(&judge, &folder, &expected, &classes);
        assert!(share > least, "{more:?}: {share}");
    }

    // Threes that the direction has not seen become twos, to a judge that did not guide it.
    let train = [
        "edit",
        "train",
        "--config",
        "digits-3-to-2",
        "--model",
        "runs/model",
        "--set",
        "data.style=ember",
        "--no-cache",
    ];
    place.run(&train).ok();
    let threes = DigitsSource::new(digits(), Style::Ember, &[3], 44).unwrap();
    let (expected, _) = write_digits(&place, "threes", &threes, 20);
    let apply = [
        "edit",
        "apply",
        "--model",
        "runs/model",
        "--edit",
        "runs/digits-3-to-2",
        "--input",
        "threes",
        "--sweep",
        "0,1",
        "--no-cache",
    ];
    place.run(&apply).ok();
    let (stop, mut quiet) = (AtomicBool::new(false), NoopProgress);
    let mut context = Context::new(Device::Cpu, &stop, &mut quiet);
    let judge = place.path("judge.safetensors");
    let (judge, _) = sdft_jobs::second_judge(&judge, &mut context).unwrap();
    let twos = |strength: &str| {
        let folder = place.path("edited").join(format!("strength={strength}"));
        share_of(&judge, &folder, &expected, &[2; 24])
    };
    let (before, after) = (twos("0"), twos("1"));
    assert!(before < 0.1 && after > 0.6, "{before} {after}");
    // The newest model is sampled, although a classifier is newer.
    place.run(&CLASSIFIER).ok();
    place.run(&["sample", "-n", "1", "--steps", "ddim2"]).ok();
}

#[test]
fn sampling_can_start_below_the_end_of_the_process() {
    let place = workspace();
    let sample = |start: &str, out: &str| {
        let args = [
            "sample",
            "--model",
            "digits-source",
            "-n",
            "2",
            "--steps",
            "ddim10",
        ];
        place.run(&[&args[..], &["--start", start, "--out", out]].concat())
    };
    let part = sample("0.5", "part").ok();
    assert!(part.err.contains("6 steps"), "{part:?}");
    let full = sample("1", "full").ok();
    assert!(full.err.contains("10 steps"), "{full:?}");
    assert!(files(&place.path("part")) != files(&place.path("full")));
    for wrong in ["0", "1.5", "-1", "nan"] {
        place
            .run(&[
                "sample",
                "--model",
                "digits-source",
                &format!("--start={wrong}"),
            ])
            .fails(2, &["--start", "expected more than 0, up to 1"]);
    }
}

#[test]
fn every_method_translates_and_egsde_without_energies_is_sdedit() {
    let place = place_with_inputs();
    let trained = place.run(&CLASSIFIER).ok();
    assert!(
        trained
            .out
            .contains("accuracy runs/classifier/accuracy.json"),
        "{trained:?}"
    );
    let classifier = ["--method", "egsde", "--classifier", "runs/classifier"];
    translate(
        &place,
        &["--out", "sdedit", "--walk", "ancestral", "--t0", "0.01"],
    )
    .ok();
    let plain = files(&place.path("sdedit"));
    let off = [
        "--lambda-s",
        "0",
        "--lambda-i",
        "0",
        "--walk",
        "ancestral",
        "--t0",
        "0.01",
        "--out",
        "off",
    ];
    translate(&place, &[&classifier[..], &off].concat()).ok();
    assert_same(&plain, &files(&place.path("off")));
    translate(&place, &[&classifier[..], &["--out", "egsde"]].concat()).ok();
    translate(&place, &["--out", "part"]).ok();
    translate(&place, &["--out", "inside", "--walk", "inside"]).ok();
    translate(
        &place,
        &[
            "--out", "ilvr", "--method", "ilvr", "--steps", "10", "--free", "2",
        ],
    )
    .ok();
    let both = [
        "--method",
        "ddib",
        "--source-model",
        "digits-source",
        "--no-clip",
    ];
    for steps in ["ddim10", "ddim50"] {
        translate(
            &place,
            &[&both[..], &["--out", steps, "--steps", steps]].concat(),
        )
        .ok();
    }
    let of = |name: &str| files(&place.path(name));
    for (a, b) in [("egsde", "part"), ("part", "inside"), ("ilvr", "part")] {
        assert!(of(a).iter().zip(&of(b)).all(|(a, b)| a.1 != b.1), "{a} {b}");
    }
    // From a model to itself and back, in levels of 255: more steps, less error.
    let decode =
        |bytes: &[u8]| sdft_imaging::decode_bytes(bytes, &sdft_imaging::Limits::default()).unwrap();
    let error = |name: &str| {
        let mut differences = Vec::new();
        for (a, b) in of(name).iter().zip(&of("in")) {
            let (a, b) = (decode(&a.1), decode(&b.1));
            differences.extend(
                a.pixels
                    .iter()
                    .zip(&b.pixels)
                    .map(|(a, b)| f64::from(a.abs_diff(*b))),
            );
        }
        differences.iter().sum::<f64>() / differences.len() as f64
    };
    let (few, many) = (error("ddim10"), error("ddim50"));
    assert!(
        many < 0.6 * few && many < 8.0,
        "{few} levels with 10 steps, {many} with 50"
    );
    // A model is not a classifier, and a classifier is not a model.
    place
        .run(&[&SHORT[..], &["--set", "loop.steps=1"]].concat())
        .ok();
    translate(&place, &["--method", "egsde", "--classifier", "runs/short"])
        .fails(1, &["expected a classifier, found a U-Net"]);
    let args = ["translate", "--model", "runs/classifier", "--input", "in"];
    place.run(&args).fails(1, &["found a classifier"]);
    let inspected = place
        .run(&["inspect", "runs/classifier/final.safetensors"])
        .ok();
    assert!(inspected.out.contains("classifier"), "{inspected:?}");
}

#[test]
fn a_mask_keeps_its_light_part() {
    let place = place_with_inputs();
    let mut mask = sdft_imaging::Rgb8::filled(16, 16, [0, 0, 0]);
    for pixel in mask
        .pixels
        .chunks_exact_mut(3)
        .enumerate()
        .filter(|(i, _)| i % 16 < 8)
    {
        pixel.1.fill(255);
    }
    sdft_imaging::write_png(&place.path("mask.png"), &mask).unwrap();
    translate(&place, &["--mask", "mask.png"]).ok();
    let decode = |name: &str| {
        sdft_imaging::decode_file(&place.path(name), &sdft_imaging::Limits::default()).unwrap()
    };
    let (before, after) = (decode("in/00000.png"), decode("translated/00000.png"));
    let half =
        |image: &sdft_imaging::Rgb8, left| image.crop(if left { 0 } else { 8 }, 0, 8, 16).unwrap();
    assert_eq!(half(&before, true), half(&after, true));
    assert_ne!(half(&before, false), half(&after, false));
}
