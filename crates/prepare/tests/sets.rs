//! The program `sdft-prepare`: folders, and data sets by name from the cache.

mod common;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{picture, table as write_table};
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png, write_png};

const COMMIT: &str = "c9754a23fa61e3b8a5492aa04f0279d54f78e6fe";

fn run(home: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sdft-prepare"))
        .args(args)
        .current_dir(home)
        .env_clear()
        .env("SDFT_XTASK", "1")
        .env("HF_HOME", home)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Puts files of a data set into the cache, as if they were fetched.
fn fetched(home: &Path, repository: &str, revision: Option<&str>, files: &[(&str, Vec<u8>)]) {
    let folder = home.join("hub").join(format!("datasets--{repository}"));
    let put = |path: PathBuf, bytes: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    if let Some(revision) = revision {
        put(folder.join("refs").join(revision), COMMIT.as_bytes());
    }
    for (path, bytes) in files {
        put(folder.join("snapshots").join(COMMIT).join(path), bytes);
    }
}

/// The revision of data sets that the Hub converted.
const CONVERTED: Option<&str> = Some("refs/convert/parquet");

/// A parquet table of these pictures.
fn table(pictures: &[Rgb8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let rows: Vec<_> = pictures
        .iter()
        .map(|p| (Some(encode_png(p).unwrap()), None))
        .collect();
    write_table(&path, &rows, rows.len());
    fs::read(path).unwrap()
}

/// The images of a folder by their source in its index.
fn by_source(folder: &Path) -> HashMap<String, Rgb8> {
    let index = fs::read_to_string(folder.join("index.jsonl")).unwrap();
    let records = index
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records
        .filter_map(|record| {
            let file = record["file"].as_str()?;
            let image = decode_file(&folder.join(file), &Limits::default()).unwrap();
            Some((record["source"].as_str()?.to_owned(), image))
        })
        .collect()
}

#[test]
fn a_named_data_set_gets_its_own_folder() {
    let tables: Vec<Vec<u8>> = (0..4)
        .map(|n| table(&[picture(n, 50, 40), picture(10 + n, 40, 50)]))
        .collect();
    let names: Vec<String> = (0..4)
        .map(|n| format!("data/train-0000{n}-of-00004.parquet"))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(String::as_str).zip(tables).collect();
    let home = tempfile::tempdir().unwrap();
    fetched(home.path(), "huggan--metfaces", None, &files);
    let (code, out, err) = run(home.path(), &["metfaces", "--size", "32"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("data/metfaces-32: 8 images of 32x32"), "{out}");
    let images = by_source(&home.path().join("data/metfaces-32"));
    assert!(
        images.contains_key("train-00002-of-00004.parquet#1"),
        "{:?}",
        images.keys()
    );
}

#[test]
fn folders_become_sets_and_mistakes_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let photos = home.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for i in 0..5 {
        let picture = Rgb8::filled(30 + i, 20, [i as u8 * 40, 9, 9]);
        write_png(&photos.join(format!("{i}.png")), &picture).unwrap();
    }
    let (code, out, err) = run(home.path(), &["photos", "--size", "16"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("data/photos-16: 5 images of 16x16"), "{out}");
    assert!(home.path().join("data/photos-16/index.jsonl").is_file());
    assert!(home.path().join("data/photos-16-grid.png").is_file());
    for (args, texts) in [
        (&["fotos"][..], &["fotos: expected a file"][..]),
        (&["metfacs"], &["did you mean metfaces?"]),
        (&["photos", "--exclude", "nolist"], &["nolist"]),
        (&["photos", "--size", "0"], &["--size", "from 1 to 65536"]),
        (&["photos", "--size", "-4"], &["'-4'", "from 1 to 65536"]),
        (&["photos", "--threads", "x"], &["from 1 to 4096"]),
        (&["photos", "photos", "--size", "16"], &["--out"]),
        (&["metfaces", "photos"], &["cannot be combined"]),
        (&["mnist", "--size", "64"], &["32x32"]),
        (&["aahq"], &["is not on the Hub"]),
    ] {
        let (code, _, err) = run(home.path(), args);
        assert!(code.is_some_and(|code| code != 0), "{args:?}");
        for text in texts {
            assert!(err.contains(text), "{args:?}: {err}");
        }
    }
}

#[test]
fn a_missing_data_set_requests_its_files_and_a_folder_nothing() {
    let home = tempfile::tempdir().unwrap();
    let needs = |args: &[&str]| {
        let (code, out, err) = run(home.path(), args);
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    let all = needs(&["mnist", "--missing"]);
    assert_eq!(all["offline"], false);
    assert_eq!(
        all["needs"][0]["command"],
        serde_json::json!(["fetch", "--pair", "mnist", "--out", "data/mnist-32"])
    );
    assert_eq!(needs(&["mnist", "--missing", "--offline"])["offline"], true);
    for others in [
        &["photos", "--missing"][..],
        &["mnist", "photos", "--missing"],
    ] {
        assert_eq!(needs(others)["needs"], serde_json::json!([]), "{others:?}");
    }
    let (code, _, err) = run(home.path(), &["mnist"]);
    assert_eq!(code, Some(1));
    for text in [
        "mnist is not in the cache and not prepared",
        "cargo xtask fetch mnist",
        "hf download",
    ] {
        assert!(err.contains(text), "{text}: {err}");
    }
    let files = [
        ("mnist/train/0000.parquet", Vec::new()),
        ("mnist/test/0000.parquet", Vec::new()),
    ];
    fetched(home.path(), "ylecun--mnist", CONVERTED, &files);
    // The loaders need no network for files in the cache.
    let needs = needs(&["mnist", "--missing", "--offline", "--strict"]);
    assert_eq!(needs["offline"], false);
    let command = needs["needs"][0]["command"].to_string();
    assert!(
        command.ends_with("\"--strict\",\"--offline\"]"),
        "{command}"
    );
}

#[test]
fn an_installed_program_names_itself_in_its_help_and_errors() {
    for (word, code) in [("--help", 0), ("--nowhere", 2)] {
        let output = Command::new(env!("CARGO_BIN_EXE_sdft-prepare"))
            .arg(word)
            .env_remove("SDFT_XTASK")
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(text.contains("Usage: sdft-prepare "), "{text}");
        assert!(!text.contains("cargo xtask data prepare"), "{text}");
        assert_eq!(output.status.code(), Some(code));
    }
    let home = tempfile::tempdir().unwrap();
    let (code, help, _) = run(home.path(), &["--help"]);
    assert!(help.contains("Usage: cargo xtask data prepare "), "{help}");
    assert_eq!(code, Some(0));
}
