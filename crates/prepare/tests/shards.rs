//! Tar files, as WebDataset shards images and their classes.

mod common;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use common::{at_16, dataset, images, png};
use sdft_prepare::{Options, PrepareError, prepare};
use tar::{Builder, EntryType, Header};

fn header(name: &str, len: usize, kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(len as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.set_cksum();
    header
}

/// The bytes of a tar file with these members.
fn shard(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in members {
        let header = header(name, bytes.len(), EntryType::Regular);
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn samples_have_an_image_and_a_class() {
    let root = tempfile::tempdir().unwrap();
    let path = write(
        root.path(),
        "train-000.tar",
        &shard(&[
            ("a/01.cls", b"7\n".to_vec()),
            ("a/01.png", png(0)),
            ("a/01.txt", b"a photo of seven".to_vec()),
            ("a/01.npy", b"\x93NUMPY\x01\0 features".to_vec()),
            ("a/01.mask.png", png(9)),
            ("02.PNG", png(1)),
            ("02.json", br#"{"caption": "two", "label": 2}"#.to_vec()),
            ("./03.png", png(2)),
            ("03.cls", b"-1".to_vec()),
            ("04.png", png(3)),
            (".hidden.png", png(4)),
            ("readme.md", b"x".to_vec()),
        ]),
    );
    let out = root.path().join("out");
    let report = at_16(&[path], &out).unwrap();
    assert_eq!((report.images, report.unlabelled), (4, 2), "{report}");
    let skipped: Vec<_> = report.skipped.iter().map(|s| s.source.as_str()).collect();
    assert_eq!(skipped, ["a/01.mask.png"], "{report}");
    assert!(report.skipped[0].reason.contains("a/01.png"), "{report}");
    // The text, the features, the hidden file and the one of another kind.
    assert_eq!(report.others, 4, "{report}");
    let text = report.to_string();
    assert!(
        text.contains("classes by number, in dataset.json; 2 images without one"),
        "{text}"
    );
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert_eq!(index.lines().count(), 1 + 12, "{index}");
    assert!(
        index.contains("{\"source\":\"a/01.cls\",\"skipped\":\"labels\"}"),
        "{index}"
    );
    assert!(index.contains("\"source\":\"03.png\""), "{index}");
    let (labels, classes) = dataset(&out);
    let mut numbers: Vec<_> = labels.into_iter().map(|(_, label)| label).collect();
    numbers.sort_unstable();
    assert_eq!((numbers, classes), (vec![2, 7], vec![]));
}

#[test]
fn names_of_any_length_are_read_in_every_format() {
    let long = format!("{}/x.png", "d".repeat(180));
    let other = format!("{}.png", "\u{e9}".repeat(120));
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    // GNU's long names, and prefixes of POSIX.
    for (n, name) in [&long, &other].into_iter().enumerate() {
        header.set_size(png(n).len() as u64);
        tar.append_data(&mut header, name, png(n).as_slice())
            .unwrap();
    }
    let prefixed = format!("{}/{}.png", "p".repeat(90), "q".repeat(90));
    let mut ustar = Header::new_ustar();
    ustar.set_path(&prefixed).unwrap();
    ustar.set_size(png(2).len() as u64);
    ustar.set_cksum();
    tar.append(&ustar, png(2).as_slice()).unwrap();
    // A pax header gives the name and size of the next member.
    let bytes = png(3);
    // A record begins with its own length, here of two digits.
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        format!("{:02}{rest}", rest.len() + 2)
    };
    let name = format!("{}ab.png", "r/".repeat(27));
    let pax = record("path", &name) + &record("mtime", "1.5");
    let header = self::header("PaxHeaders/x", pax.len(), EntryType::XHeader);
    tar.append(&header, pax.as_bytes()).unwrap();
    let header = self::header("short.png", bytes.len(), EntryType::Regular);
    tar.append(&header, bytes.as_slice()).unwrap();
    // Comments for the whole archive, as `git archive` writes them.
    let global = record("comment", "0123456789");
    let header = self::header("pax_global_header", global.len(), EntryType::XGlobalHeader);
    tar.append(&header, global.as_bytes()).unwrap();

    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "a.tar", &tar.into_inner().unwrap());
    let out = root.path().join("out");
    let report = at_16(&[path], &out).unwrap();
    assert_eq!((report.images, report.others), (4, 0), "{report}");
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    for name in [&long, &other, &prefixed] {
        assert!(index.contains(name.as_str()), "{name}: {index}");
    }
    assert!(
        index.contains(&name) && !index.contains("short.png"),
        "{index}"
    );
}

#[test]
fn links_and_sparse_files_are_left_out_with_a_reason() {
    let mut tar = Builder::new(Vec::new());
    tar.append(
        &header("good.png", png(0).len(), EntryType::Regular),
        png(0).as_slice(),
    )
    .unwrap();
    for (name, kind) in [
        ("link.png", EntryType::Symlink),
        ("hard.png", EntryType::Link),
        ("pipe.png", EntryType::Fifo),
    ] {
        let mut header = header(name, 0, kind);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    }
    // A sparse file of one part, whose map goes on in a second block.
    let mut gnu = Header::new_gnu();
    gnu.set_path("sparse.png").unwrap();
    gnu.set_size(512);
    gnu.set_entry_type(EntryType::GNUSparse);
    gnu.as_gnu_mut().unwrap().isextended = [1];
    gnu.set_cksum();
    tar.append(&gnu, [0_u8; 1024].as_slice()).unwrap();
    tar.append(
        &header("last.png", png(1).len(), EntryType::Regular),
        png(1).as_slice(),
    )
    .unwrap();
    tar.append_dir_all("folder", tempfile::tempdir().unwrap().path())
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "a.tar", &tar.into_inner().unwrap());
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.others), (2, 0), "{report}");
    let skipped: Vec<_> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
    assert_eq!(
        skipped,
        [
            "the entry is a link, not an image",
            "the entry is a link, not an image",
            "the entry is a pipe, not an image",
            "the entry is a sparse file, not an image",
        ]
    );
}

#[test]
fn a_truncated_archive_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let whole = shard(&[("a.png", png(0)), ("b.png", png(1)), ("c.png", png(2))]);
    let ends = |n: usize| n * (512 + png(0).len().next_multiple_of(512));
    assert_eq!(whole.len(), ends(3) + 1024);
    for len in (0..whole.len())
        .step_by(173)
        .chain([ends(1), ends(2), ends(3), ends(3) + 512])
    {
        let path = write(root.path(), "cut.tar", &whole[..len]);
        let out = root.path().join(format!("out-{len}"));
        match at_16(&[path], &out) {
            Err(error @ PrepareError::Broken { .. }) => {
                let text = error.to_string();
                assert!(
                    text.contains("cut.tar") && text.contains("tar file"),
                    "{text}"
                );
                assert!(!out.exists());
            }
            Err(error) => panic!("{len}: {error}"),
            // Between two members only the end marker is missing.
            Ok(report) if len < ends(3) + 1024 => {
                assert!(report.images < 4, "{len}");
                let reason = &report.skipped.last().unwrap().reason;
                assert!(reason.contains("no end marker"), "{len}: {report}");
            }
            Ok(report) => assert!(report.skipped.is_empty(), "{len}: {report}"),
        }
    }
    // In a folder it counts as one entry that cannot be used.
    let folder = root.path().join("in");
    fs::create_dir(&folder).unwrap();
    write(&folder, "good.tar", &whole);
    write(&folder, "cut.tar", &whole[..ends(1) + 700]);
    let report = at_16(&[folder], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.skipped.len()), (3, 1), "{report}");
    let reason = &report.skipped[0].reason;
    assert!(
        reason.starts_with("damaged tar file: it is truncated"),
        "{reason}"
    );
    assert!(reason.ends_with("after a.png"), "{reason}");
}

#[test]
fn archives_that_follow_one_another_are_all_read() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = shard(&[("a.png", png(0))]);
    bytes.extend(shard(&[("b.png", png(1))]));
    let path = write(root.path(), "both.tar", &bytes);
    let out = root.path().join("out");
    assert_eq!(at_16(&[path], &out).unwrap().images, 2);
    assert_eq!(images(&out).len(), 2);
}

#[test]
fn a_damaged_archive_is_an_error_and_never_a_panic() {
    let root = tempfile::tempdir().unwrap();
    let whole = shard(&[("a.png", png(0)), ("a.cls", b"3".to_vec())]);
    let headers = (0..512).chain(whole.len() - 2560..whole.len() - 1024);
    for at in headers.step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let path = write(root.path(), "a.tar", &bytes);
        let out = root.path().join("out");
        let _ = fs::remove_dir_all(&out);
        match at_16(&[path], &out) {
            Ok(report) => assert!(report.images <= 1, "{at}"),
            Err(error) => assert!(error.to_string().contains("a.tar"), "{at}: {error}"),
        }
    }
    // A member that claims more bytes than there are, in base 256.
    let mut header = header("a.png", 0, EntryType::Regular);
    header.set_size(u64::MAX >> 1);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.write_all(&png(0)).unwrap();
    let path = write(root.path(), "a.tar", &bytes);
    let error = at_16(&[path], &root.path().join("out")).unwrap_err();
    assert!(
        error.to_string().contains("truncated in the member"),
        "{error}"
    );
}

#[test]
fn large_members_are_refused_before_they_are_read() {
    let root = tempfile::tempdir().unwrap();
    let mut large = png(0);
    large.resize(2 << 20, 0);
    let path = write(
        root.path(),
        "a.tar",
        &shard(&[("a.png", large), ("b.png", png(1))]),
    );
    let mut options = Options::new(16);
    options.limits.max_bytes = 1 << 20;
    let report = prepare(&[path], &root.path().join("out"), &options, &|_, _| {}).unwrap();
    assert_eq!((report.images, report.skipped.len()), (1, 1), "{report}");
    assert!(
        report.skipped[0].reason.contains("exceed the limit"),
        "{report}"
    );
}
