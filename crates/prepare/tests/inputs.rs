//! Folders, zip files and tables of all kinds, hostile ones included.

mod common;

use std::{fs, io::Write as _, path::PathBuf};

use common::{at_16, files_below, images, picture, png, table, zip_file};
use sdft_files::sha256_bytes;
use sdft_imaging::{center_crop, encode_png};
use sdft_prepare::{Exclusions, Options, prepare};

#[test]
fn images_are_cropped_resized_and_named_by_their_sources_hash() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir_all(input.join("deep/er")).unwrap();
    fs::write(input.join("deep/er/a.PNG"), png(1)).unwrap();
    fs::write(input.join("b.png"), png(2)).unwrap();
    fs::write(input.join("notes.txt"), "x").unwrap();
    let report = at_16(std::slice::from_ref(&input), &out).unwrap();
    assert_eq!(
        (report.images, report.made, report.skipped.len()),
        (2, 2, 0)
    );
    let mut expected: Vec<_> = [1, 2]
        .map(|n| {
            (
                format!("{}.png", sha256_bytes(&png(n))),
                center_crop(&picture(n, 40, 30), 16),
            )
        })
        .to_vec();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(images(&out), expected);
    assert!(report.sheet.unwrap().is_file());
}

#[test]
fn a_png_of_the_right_size_keeps_its_file() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir_all(&input).unwrap();
    let bytes = encode_png(&picture(3, 16, 16)).unwrap();
    fs::write(input.join("a.png"), &bytes).unwrap();
    at_16(&[input], &out).unwrap();
    assert_eq!(
        fs::read(out.join(format!("{}.png", sha256_bytes(&bytes)))).unwrap(),
        bytes
    );
}

#[test]
fn a_hostile_zip_writes_nothing_outside_and_hides_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    zip_file(
        &path,
        &[
            ("/etc/absolute.png", png(0)),
            ("../../up.png", png(1)),
            ("a/b/../c.png", png(2)),
            ("C:\\windows.png", png(3)),
            ("a/same.png", png(4)),
            ("b/same.png", png(5)),
            ("again.png", png(4)),
            ("broken.png", b"\x89PNG\r\n\x1a\nno more".to_vec()),
            ("text.jpg", b"not an image".to_vec()),
            ("empty.png", Vec::new()),
            ("__MACOSX/._a.png", b"junk".to_vec()),
            (".hidden/a.png", png(6)),
            ("read.me", b"x".to_vec()),
        ],
    );
    let out = root.path().join("set/out");
    let report = at_16(std::slice::from_ref(&path), &out).unwrap();
    assert_eq!(report.images, 6);
    assert_eq!(report.duplicates.len(), 1);
    assert!(report.duplicates[0].reason.contains("a/same.png"));
    assert_eq!(report.others, 3);
    let skipped: Vec<&str> = report.skipped.iter().map(|s| s.source.as_str()).collect();
    assert_eq!(skipped, ["broken.png", "text.jpg", "empty.png"]);
    let grid = root.path().join("set/out-grid.png");
    for file in files_below(root.path()) {
        assert!(
            file == path || file == grid || file.starts_with(&out),
            "{}",
            file.display()
        );
    }
    // The index lists every entry.
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert_eq!(index.lines().count(), 1 + 13, "{index}");
    assert!(
        index.contains("{\"source\":\"read.me\",\"skipped\":\"no image\"}"),
        "{index}"
    );
    assert!(
        index.contains("{\"source\":\".hidden/a.png\",\"skipped\":\"hidden\"}"),
        "{index}"
    );
}

#[test]
fn two_entries_of_one_name_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    zip_file(&path, &[("a.png", png(0)), ("b.png", png(1))]);
    // Rename the second entry to the first one's name, in its own header and in the directory.
    let mut bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"b.png" {
            bytes[at] = b'a';
        }
    }
    fs::write(&path, bytes).unwrap();
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!(report.images, 1);
    assert_eq!(report.skipped.len(), 1);
    assert!(
        report.skipped[0].reason.contains("same name"),
        "{:?}",
        report.skipped
    );
}

#[test]
fn a_bomb_is_refused_and_other_entries_are_used() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    let mut lying = png(1);
    lying.resize(3 << 20, 0);
    // A PNG that claims 30000x30000 pixels.
    let mut wide = png(2);
    wide[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    zip_file(
        &path,
        &[
            ("bomb.png", lying),
            ("wide.png", wide),
            ("good.png", png(0)),
        ],
    );
    let mut options = Options::new(16);
    options.limits.max_bytes = 1 << 20;
    let report = prepare(&[path], &root.path().join("out"), &options, &|_, _| {}).unwrap();
    assert_eq!(report.images, 1);
    assert_eq!(report.skipped.len(), 2, "{report}");
    assert!(
        report.skipped[0]
            .reason
            .contains("3145728 bytes exceed the limit"),
        "{report}"
    );
}

#[test]
fn an_entry_larger_than_declared_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    let mut long = png(1);
    long.resize(100_000, 7);
    zip_file(&path, &[("a.png", png(0)), ("long.png", long)]);
    // The directory says 50000 bytes instead of 100000; the image is complete in the first half.
    let mut bytes = fs::read(&path).unwrap();
    let from = 100_000_u32.to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&i| bytes[i..i + 4] == from)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&50_000_u32.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.skipped.len()), (1, 1), "{report}");
    assert!(report.skipped[0].reason.contains("unpack"), "{report}");
}

#[test]
fn a_file_that_is_neither_table_nor_archive_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let whole = root.path().join("whole.parquet");
    table(&whole, &[(Some(png(0)), None)], 1);
    let bytes = fs::read(&whole).unwrap();
    for (name, content) in [
        ("empty.parquet", Vec::new()),
        ("junk.parquet", vec![7; 1000]),
        ("cut.parquet", bytes[..bytes.len() / 2].to_vec()),
        ("empty.zip", Vec::new()),
        ("junk.zip", vec![7; 1000]),
        ("page.zip", b"<html>404</html>".to_vec()),
        ("file.tar", vec![0; 10]),
    ] {
        let path = root.path().join(name);
        fs::write(&path, content).unwrap();
        let message = at_16(&[path], &out).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
        assert!(!out.exists(), "{name}");
    }
    let missing = at_16(&[root.path().join("missing")], &out).unwrap_err();
    assert!(
        missing.to_string().contains("found nothing there"),
        "{missing}"
    );
}

#[test]
fn doubled_names_count_where_they_are_images_in_any_alphabet() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    let entries = [
        ("d1/", vec![]),
        ("d2/", vec![]),
        ("t1.txt", vec![1]),
        ("t2.txt", vec![2]),
        ("a1.png", png(0)),
        ("a2.png", png(1)),
    ];
    zip_file(&path, &entries);
    // `d1/` and `d2/`, the texts and the images get one name each; that of the images is not UTF-8.
    let mut bytes = fs::read(&path).unwrap();
    for (from, to) in [
        (b"d2/".as_slice(), b"d1/".as_slice()),
        (b"t2.txt", b"t1.txt"),
        (b"a1.png", b"\x94x.png"),
        (b"a2.png", b"\x94x.png"),
    ] {
        for at in 0..bytes.len() - from.len() {
            if &bytes[at..at + from.len()] == from {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
    }
    fs::write(&path, bytes).unwrap();
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.others), (1, 2), "{report}");
    assert_eq!(report.skipped.len(), 1, "{report}");
    assert!(report.skipped[0].reason.contains("same name"), "{report}");
}

#[test]
fn other_files_of_a_folder_are_counted_and_archives_opened_at_any_depth() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir_all(input.join("more")).unwrap();
    fs::write(input.join("a.png"), png(0)).unwrap();
    fs::write(input.join("scan.tiff"), b"II*\0\x08\0\0\0").unwrap();
    fs::write(input.join("notes.txt"), b"x").unwrap();
    fs::write(input.join("more/broken.zip"), b"x").unwrap();
    zip_file(&input.join("more/b.zip"), &[("b.png", png(1))]);
    let report = at_16(&[input], &out).unwrap();
    assert_eq!(
        (report.images, report.others, report.skipped.len()),
        (2, 1, 2),
        "{report}"
    );
    let skipped: Vec<&str> = report.skipped.iter().map(|s| s.source.as_str()).collect();
    assert_eq!(skipped, ["scan.tiff", "more/broken.zip"]);
    let reason = &report.skipped[1].reason;
    assert!(
        reason.starts_with("damaged zip file"),
        "the name is not repeated: {reason}"
    );
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert!(index.contains("\"more/b.zip/b.png\""), "{index}");
}

/// A GIF of 8x8 whose second colour is transparent.
fn clear_gif() -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = gif::Encoder::new(&mut out, 8, 8, &[200, 30, 30, 1, 2, 3]).unwrap();
    let frame = gif::Frame {
        width: 8,
        height: 8,
        transparent: Some(1),
        buffer: (0..64)
            .map(|i| u8::from(i >= 32))
            .collect::<Vec<u8>>()
            .into(),
        ..gif::Frame::default()
    };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    out
}

#[test]
fn transparent_images_are_composed_on_white_and_always_reported() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir_all(&input).unwrap();
    fs::write(input.join("a.gif"), clear_gif()).unwrap();
    fs::write(input.join("b.png"), png(1)).unwrap();
    for made in [2, 0] {
        let options = Options::new(8);
        let report = prepare(std::slice::from_ref(&input), &out, &options, &|_, _| {}).unwrap();
        assert_eq!((report.made, report.conversions.transparent), (made, 1));
        let text = report.to_string();
        assert!(
            text.contains("1 image is transparent: composed on white"),
            "{text}"
        );
    }
    let name = format!("{}.png", sha256_bytes(&clear_gif()));
    let image = images(&out)
        .into_iter()
        .find(|(n, _)| *n == name)
        .unwrap()
        .1;
    assert_eq!(image.get(0, 0), Some([200, 30, 30]));
    assert_eq!(image.get(7, 7), Some([255; 3]));
    // Images of an earlier version, which dropped transparency, are made again.
    let path = out.join("index.jsonl");
    let index = fs::read_to_string(&path).unwrap();
    fs::write(&path, index.replace(",\"reading\":1", "")).unwrap();
    let again = prepare(&[input], &out, &Options::new(8), &|_, _| {}).unwrap();
    assert_eq!((again.images, again.made), (2, 2));
}

#[test]
fn entries_of_an_archive_are_recognised_by_content() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    zip_file(
        &path,
        &[
            ("photo", png(1)),
            ("more.jfif", png(2)),
            ("phone", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
            ("film.mp4", vec![0; 100_000]),
        ],
    );
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.others), (2, 1), "{report}");
    assert_eq!(report.skipped[0].source, "phone");
    assert!(report.skipped[0].reason.contains("found HEIC"), "{report}");
}

#[test]
fn an_archive_whose_entries_share_bytes_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    zip_file(&path, &[("a.png", png(0)), ("b.png", png(1))]);
    let mut bytes = fs::read(&path).unwrap();
    // Point the second entry of the directory to the first one's data.
    let last = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    bytes[last + 42..last + 46].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = at_16(&[path], &root.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("its entries overlap"), "{error}");
}

#[test]
fn an_entry_of_zeros_without_end_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    let mut bomb = png(1);
    bomb.resize(60 << 20, 0);
    zip_file(&path, &[("bomb.png", bomb), ("good.png", png(0))]);
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!(report.images, 1);
    assert!(
        report.skipped[0].reason.contains("is not an image"),
        "{report}"
    );
}

#[cfg(unix)]
#[test]
fn pipes_are_reported_and_never_opened() {
    let root = tempfile::tempdir().unwrap();
    let input = root.path().join("in");
    fs::create_dir_all(&input).unwrap();
    fs::write(input.join("a.png"), png(0)).unwrap();
    for name in ["pipe", "pipe.zip", "pipe.parquet"] {
        let made = std::process::Command::new("mkfifo")
            .arg(input.join(name))
            .status();
        assert!(made.unwrap().success());
    }
    let report = at_16(std::slice::from_ref(&input), &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.skipped.len()), (1, 3), "{report}");
    let error = at_16(&[input.join("pipe.zip")], &root.path().join("two")).unwrap_err();
    assert!(error.to_string().contains("found a pipe"), "{error}");
    assert!(Exclusions::read(&input.join("pipe")).is_err());
}

#[test]
fn a_folder_includes_its_tables_and_archives() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (root.path().join("in"), root.path().join("out"));
    fs::create_dir_all(&input).unwrap();
    table(&input.join("train-0.parquet"), &[(Some(png(0)), None)], 1);
    zip_file(&input.join("more.zip"), &[("x.png", png(1))]);
    assert_eq!(at_16(std::slice::from_ref(&input), &out).unwrap().images, 2);
    fs::write(input.join("y.png"), png(2)).unwrap();
    assert_eq!(at_16(&[input], &out).unwrap().images, 3);
}

#[test]
fn exclusions_match_by_name_and_hash_and_unmatched_ones_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("in.zip");
    let entries: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("f/{n}.png"), png(n))).collect();
    let entries: Vec<(&str, Vec<u8>)> = entries
        .iter()
        .map(|(n, b)| (n.as_str(), b.clone()))
        .collect();
    zip_file(&path, &entries);
    let list = root.path().join("list.txt");
    let mut file = fs::File::create(&list).unwrap();
    writeln!(
        file,
        "# with glasses\n1.png\nf/2.png\n{}\n9.png",
        sha256_bytes(&png(3))
    )
    .unwrap();
    let out = root.path().join("out");
    let report = at_16(std::slice::from_ref(&path), &out).unwrap();
    assert_eq!(report.images, 6);
    let options = Options {
        exclude: Exclusions::read(&list).unwrap(),
        ..Options::new(16)
    };
    let report = prepare(&[path], &out, &options, &|_, _| {}).unwrap();
    assert_eq!((report.images, report.excluded, report.removed), (3, 3, 3));
    assert_eq!(report.unmatched, ["9.png"]);
    assert_eq!(images(&out).len(), 3);
}

#[test]
fn several_inputs_keep_separate_names() {
    let root = tempfile::tempdir().unwrap();
    let inputs: Vec<PathBuf> = ["a", "b"].map(|name| root.path().join(name)).to_vec();
    for (n, input) in inputs.iter().enumerate() {
        fs::create_dir(input).unwrap();
        fs::write(input.join("x.png"), png(n)).unwrap();
    }
    let out = root.path().join("out");
    assert_eq!(at_16(&inputs, &out).unwrap().images, 2);
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert!(
        index.contains("\"a/x.png\"") && index.contains("\"b/x.png\""),
        "{index}"
    );
}
