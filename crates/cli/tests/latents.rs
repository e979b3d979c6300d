//! Models in latent space: images in, images out.
#![cfg(unix)]

mod common;
mod direction;

use common::{Workspace, assert_same, essence, files, workspace};
use direction::{SHORT, TUNED};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A tiny `LDMPipeline` that diffusers wrote, for images of 16x16.
fn ldm() -> String {
    data("ldm")
}

fn data(name: &str) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data");
    crates.join(name).display().to_string()
}

/// The arguments of a short run on the digits.
fn train<'a>(source: &'a str, name: &'a str) -> Vec<&'a str> {
    let mut args = vec![
        "train", "--source", source, "--data", "digits", "--name", name,
    ];
    args.extend([
        "--method",
        "sdft",
        "--steps",
        "12",
        "--batch",
        "4",
        "--set",
        "data.shift=0",
    ]);
    args.extend(["--set", "data.digits=[1,4]", "--set", "data.per_class=12"]);
    args.extend(["--set", "output.samples=2", "--set", "output.sampler=ddim2"]);
    args.extend([
        "--set",
        "output.checkpoint_every=2",
        "--set",
        "output.sample_every=6",
    ]);
    args
}

/// The files of latents in the user's cache.
fn latents(place: &Workspace) -> Vec<PathBuf> {
    let folder = place.cache().join("sdft/latents");
    let entries = fs::read_dir(folder).map_or(Vec::new(), |entries| entries.collect());
    entries
        .into_iter()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn a_run_on_latents_is_sampled_translated_and_converted_like_any_other() {
    let place = workspace();
    let source = ldm();
    let run = place.run(&train(&source, "a")).ok();
    assert!(
        run.err.contains("computing the latents of 24 images"),
        "{run:?}"
    );
    let sample = |model: &str, out: &str| {
        let args = [
            "sample", "--model", model, "-n", "2", "--steps", "4", "--out", out,
        ];
        place.run(&args).ok();
        files(&place.path(out))
    };
    let images = sample("runs/a", "a");
    let picture = image::open(place.path("a/00000.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (16, 16));

    // The folder of the run is complete.
    fs::rename(place.path("runs/a"), place.path("moved")).unwrap();
    assert!(sample("moved", "b") == images);
    place.run(&["convert", "moved", "c.safetensors"]).ok();
    assert!(sample("c.safetensors", "c") == images);
    place
        .run(&["convert", "moved", "d", "--to", "diffusers"])
        .ok();
    let index = fs::read_to_string(place.path("d/model_index.json")).unwrap();
    assert!(
        index.contains("LDMPipeline") && index.contains("vqvae"),
        "{index}"
    );

    let translate = |more: &[&str]| {
        let usual = ["translate", "--model", "moved", "--input", "a"];
        place.run(&[&usual[..], more].concat()).ok()
    };
    translate(&["--out", "t1", "--t0", "0.5"]);
    translate(&["--out", "t2", "--method", "ddib", "--source-model", &source]);
    let ilvr = [
        "--out", "t3", "--method", "ilvr", "--steps", "8", "--free", "2",
    ];
    translate(&ilvr);
    for folder in ["t1", "t2", "t3"] {
        let made = files(&place.path(folder));
        assert!(made.iter().any(|(name, _)| name == "00001.png"), "{folder}");
    }
    // Another autoencoder has other latents.
    let other = place.run(&[
        "translate",
        "--model",
        "moved",
        "--input",
        "a",
        "--out",
        "t4",
        "--method",
        "ddib",
        "--source-model",
        "digits-source",
    ]);
    other.fails(2, &["--source-model", "same autoencoder", "none"]);
}

#[test]
fn classifiers_of_latents_guide_translations_and_training() {
    let place = workspace();
    let source = ldm();
    let classifier = [
        "train-classifier",
        "--model",
        &source,
        "--source",
        "digits",
        "--target",
        "digits",
        "--set",
        "data.source.style=chalk",
        "--set",
        "data.target.style=ember",
        "--set",
        "data.source.per_class=2",
        "--set",
        "data.target.per_class=2",
        "--set",
        "model.model_channels=8",
        "--set",
        "model.num_head_channels=8",
        "--set",
        "model.norm_groups=4",
        "--set",
        "model.channel_mult=[1,1]",
        "--set",
        "model.attention_resolutions=[]",
        "--set",
        "model.pool=\"adaptive\"",
        "--steps",
        "3",
        "--batch",
        "4",
        "--name",
        "c",
    ];
    place.run(&classifier).ok();
    let plan = fs::read_to_string(place.path("runs/c/plan.toml")).unwrap();
    assert!(
        plan.contains("image_size = 8") && plan.contains("[autoencoder]"),
        "{plan}"
    );
    place
        .run(&[
            "sample", "--model", &source, "-n", "1", "--steps", "2", "--out", "in",
        ])
        .ok();
    let egsde = [
        "translate",
        "--model",
        &source,
        "--input",
        "in",
        "--out",
        "out",
        "--method",
        "egsde",
        "--classifier",
        "runs/c",
        "--steps",
        "ddim4",
    ];
    place.run(&egsde).ok();
    let mut ant = train(&source, "ant");
    ant.extend([
        "--method",
        "naive",
        "--set",
        "loss.ant.guidance=1",
        "--set",
        "loss.ant.classifier=runs/c",
    ]);
    ant.retain(|word| *word != "sdft");
    let at = ant.iter().position(|word| *word == "--method").unwrap();
    ant.remove(at);
    place.run(&ant).ok();
}

#[test]
fn images_are_edited_through_latents_by_directions_and_by_tuned_models() {
    let place = workspace();
    let source = ldm();
    let sample = |model: &str, out: &str| {
        let args = [
            "sample", "--model", model, "-n", "2", "--steps", "2", "--out", out,
        ];
        place.run(&args).ok();
        files(&place.path(out))
    };
    sample(&source, "in");
    let edit = |edit: &str, out: &str| {
        let args = [
            "edit", "apply", "--model", &source, "--edit", edit, "--input", "in",
        ];
        let steps = ["--steps", "4", "--no-cache", "--out", out];
        place.run(&[&args[..], &steps].concat()).ok();
        files(&place.path(out))
    };
    place
        .run(&[&SHORT[..], &["--model", &source]].concat())
        .ok();
    let turned = edit("runs/turn", "turned");
    assert!(
        turned.iter().any(|(name, _)| name == "00001.png"),
        "{turned:?}"
    );

    let tuned = [&TUNED[..], &["--model", &source, "--name", "tuned"]].concat();
    let planned = place.run(&[&tuned[..], &["--dry-run"]].concat()).ok();
    assert!(planned.out.contains("# memory"), "{planned:?}");
    place.run(&tuned).ok();
    // The run is complete, and its model alone is opened with the autoencoder of the edited one.
    sample("runs/tuned", "samples");
    let whole = edit("runs/tuned", "edited");
    fs::copy(
        place.path("runs/tuned/final.safetensors"),
        place.path("alone.safetensors"),
    )
    .unwrap();
    assert_same(&whole, &edit("alone.safetensors", "again"));
}

#[test]
fn latents_are_computed_once_for_each_image_and_autoencoder() {
    let place = workspace();
    let source = ldm();
    place.run(&train(&source, "a")).ok();
    let [file] = latents(&place).try_into().unwrap();
    let size = fs::metadata(&file).unwrap().len();
    let again = place.run(&train(&source, "b")).ok();
    assert!(!again.err.contains("computing the latents"), "{again:?}");
    assert_same(&model_of(&place, "a"), &model_of(&place, "b"));
    // More images: only theirs are added.
    let more = [&train(&source, "c")[..], &["--set", "data.per_class=13"]].concat();
    place.run(&more).ok();
    let record = size / (24 * 2);
    assert_eq!(fs::metadata(&file).unwrap().len(), size + 2 * 2 * record);
    // A file that a killed process left.
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2 + 7]).unwrap();
    place.run(&train(&source, "d")).ok();
    assert_same(&model_of(&place, "a"), &model_of(&place, "d"));
    // Another autoencoder.
    let other = place.path("other");
    copy(Path::new(&source), &other);
    let config = other.join("vqvae/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"scaling_factor\": 0.7", "\"scaling_factor\": 0.6"),
    )
    .unwrap();
    place.run(&train("other", "e")).ok();
    assert_eq!(latents(&place).len(), 2);
}

/// The finished model of a run, under one name for all.
fn model_of(place: &Workspace, name: &str) -> Vec<(String, Vec<u8>)> {
    let path = place.path(&format!("runs/{name}/checkpoints"));
    let newest = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max();
    let weights = newest.unwrap().join("weights.safetensors");
    let bytes = fs::read(&weights).unwrap();
    // After the header, which has the name of the run.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    vec![(
        "weights".to_owned(),
        bytes[8 + usize::try_from(header).unwrap()..].to_vec(),
    )]
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

#[test]
fn a_killed_run_on_latents_ends_like_an_undisturbed_one() {
    let source = ldm();
    let args = train(&source, "a");
    let quiet = workspace();
    let started = Instant::now();
    quiet.run(&args).ok();
    let whole = started.elapsed();
    let hurt = workspace();
    let root = hurt.path("runs/a");
    for life in 0..6u32 {
        let resume = ["train", "--resume", "runs/a"];
        let next = if root.join("plan.toml").exists() {
            &resume[..]
        } else {
            &args[..]
        };
        let mut child = hurt
            .command(next)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(
            whole
                .mul_f64(0.12 + 0.1 * f64::from(life))
                .max(Duration::from_millis(5)),
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let resume = ["train", "--resume", "runs/a"];
    let next = if root.join("plan.toml").exists() {
        &resume[..]
    } else {
        &args[..]
    };
    hurt.run(next).ok();
    assert_same(&essence(&quiet.path("runs/a")), &essence(&root));
}

#[test]
fn what_latents_cannot_follow_is_refused_by_name() {
    let place = workspace();
    let source = ldm();
    for (set, words) in [
        ("data.shift=1", ["data.shift", "once"]),
        ("data.scale=0.1", ["data.scale", "once"]),
        ("data.fit=random-crop", ["data.fit", "random-crop"]),
        ("data.size=18", ["data.size", "18"]),
    ] {
        let args = [&train(&source, "a")[..], &["--set", set]].concat();
        place.run(&args).fails(2, &words);
    }
    let missing = place.run(&[
        "sample",
        "--model",
        &source,
        "--autoencoder",
        "nowhere.safetensors",
    ]);
    missing.fails(2, &["--autoencoder nowhere.safetensors"]);
    let swapped = place.run(&["sample", "--model", &format!("{source}/vqvae")]);
    swapped.fails(1, &["autoencoder"]);
    let swapped = place.run(&[
        "sample",
        "--model",
        &source,
        "--autoencoder",
        "digits-source",
    ]);
    swapped.fails(1, &["digits-source"]);
}
