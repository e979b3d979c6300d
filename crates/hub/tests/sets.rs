//! Sets of ten classes, from a server to the two folders that training reads.

mod common;
#[path = "../../prepare/tests/common/mod.rs"]
mod tables;

use std::{collections::HashMap, fs, path::Path, process::Command};

use common::Server;
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png};

fn run(server: &Server, home: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sdft-fetch"))
        .args(args)
        .current_dir(home)
        .env_clear()
        .env("SDFT_XTASK", "1")
        .env("HF_ENDPOINT", &server.address)
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

/// A parquet table of these pictures.
fn table(pictures: &[Rgb8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let rows: Vec<_> = pictures
        .iter()
        .map(|p| (Some(encode_png(p).unwrap()), None))
        .collect();
    tables::table(&path, &rows, rows.len());
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
fn colour_pairs_keep_rows_and_columns_apart() {
    let train: Vec<Rgb8> = (0..20).map(|n| tables::picture(n, 32, 32)).collect();
    let test: Vec<Rgb8> = (0..30).map(|n| tables::picture(100 + n, 32, 32)).collect();
    let server = Server::start(&[
        ("plain_text/train/0000.parquet", table(&train)),
        ("plain_text/test/0000.parquet", table(&test)),
    ]);
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&server, home.path(), &["--pair", "cifar10"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("data/cifar10-32/source: 20 images of 32x32"),
        "{out}"
    );
    let source = by_source(&home.path().join("data/cifar10-32/source"));
    for (n, picture) in train.iter().enumerate() {
        assert_eq!(
            &source[&format!("train#{n} class {}", n % 10)],
            picture,
            "{n}"
        );
    }
    let target = by_source(&home.path().join("data/cifar10-32/target"));
    let mut names: Vec<&String> = target.keys().collect();
    names.sort();
    assert_eq!(names.len(), 9);
    assert!(names.iter().all(|name| {
        ["class 1", "class 4", "class 7"]
            .iter()
            .any(|class| name.ends_with(class))
    }));
    // The repository's old name, which candle requests.
    assert!(
        server.log()[0]
            .path
            .starts_with("/datasets/cifar10/resolve/refs%2Fconvert%2Fparquet/")
    );

    // A second time, without the network.
    let requests = server.log().len();
    let (code, out, err) = run(&server, home.path(), &["--pair", "cifar10", "--offline"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("all up to date"), "{out}");
    assert_eq!(server.log().len(), requests);
}

#[test]
fn grey_pairs_get_a_margin_and_the_target_its_colours() {
    let grey = |n: usize| {
        let mut picture = tables::picture(n, 28, 28);
        for pixel in picture.pixels.chunks_exact_mut(3) {
            pixel.fill(pixel[0]);
        }
        picture
    };
    let train: Vec<Rgb8> = (0..10).map(grey).collect();
    let test: Vec<Rgb8> = (0..10).map(|n| grey(50 + n)).collect();
    let server = Server::start(&[
        ("mnist/train/0000.parquet", table(&train)),
        ("mnist/test/0000.parquet", table(&test)),
    ]);
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&server, home.path(), &["--pair", "mnist"]);
    assert_eq!(code, Some(0), "{err}");
    let source = by_source(&home.path().join("data/mnist-32/source"));
    let image = &source["train#3 class 3"];
    assert_eq!(image.crop(2, 2, 28, 28).unwrap(), train[3]);
    assert_eq!(image.get(1, 5), Some([0; 3]));
    let target = by_source(&home.path().join("data/mnist-32/target"));
    assert_eq!(target.len(), 3);
    let [r, _, b] = target["test#4 class 4"].get(0, 0).unwrap();
    assert!(r > b, "the background is brown");
}

#[test]
fn a_damaged_table_is_an_error_and_not_a_panic() {
    let mut rows = vec![(Some(b"no picture".to_vec()), None)];
    rows.push((Some(encode_png(&tables::picture(0, 28, 28)).unwrap()), None));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    tables::table(&path, &rows, 2);
    let broken = fs::read(&path).unwrap();
    for bytes in [broken, b"not a table".to_vec()] {
        let server = Server::start(&[
            ("mnist/train/0000.parquet", bytes.clone()),
            ("mnist/test/0000.parquet", bytes),
        ]);
        let home = tempfile::tempdir().unwrap();
        let (code, _, err) = run(&server, home.path(), &["--pair", "mnist"]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("error: mnist: cannot be read"), "{err}");
        assert!(
            !home
                .path()
                .join("data/mnist-32/source/index.jsonl")
                .exists()
        );
    }
}
