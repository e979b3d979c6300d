//! Folders of images as users have them.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use sdft_data::{
    DataError, FolderOptions, FolderSource, ImageSource, Report, check_folder, check_folder_with,
};
use sdft_imaging::{Rgb8, center_crop, encode_png, write_png};
use tempfile::TempDir;

/// A different picture for each `seed`.
fn picture(width: usize, height: usize, seed: usize) -> Rgb8 {
    let level = |i: usize| (i * 37 + seed * 101 + i * i % 13) as u8;
    Rgb8::new(width, height, (0..3 * width * height).map(level).collect()).unwrap()
}

fn put(folder: &Path, name: &str, image: &Rgb8) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_png(&path, image).unwrap();
}

/// Three valid images in two folders.
fn small_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "b.png", &picture(20, 16, 1));
    put(folder.path(), "a/z.PNG", &picture(16, 16, 2));
    put(folder.path(), "a.png", &picture(32, 40, 3));
    folder
}

fn error(folder: &Path) -> DataError {
    check_folder(folder, 16).unwrap_err()
}

#[test]
fn images_come_in_the_byte_order_of_their_paths_and_at_the_runs_size() {
    let folder = small_folder();
    let (source, report) = FolderSource::open(folder.path(), 16, true).unwrap();
    let ids: Vec<_> = (0..source.len()).map(|i| source.id(i)).collect();
    assert_eq!(ids, ["a.png", "a/z.PNG", "b.png"]);
    assert_eq!((report.found, report.usable), (3, 3));
    let expected = center_crop(&picture(32, 40, 3), 16);
    assert_eq!(source.screen(0).unwrap(), expected);
    assert!(matches!(
        source.screen(3),
        Err(DataError::Index { index: 3, len: 3 })
    ));
}

#[test]
fn a_small_budget_reads_images_when_needed_and_changes_nothing() {
    let folder = small_folder();
    let (kept, _) = FolderSource::open(folder.path(), 16, false).unwrap();
    let options = FolderOptions::rgb8(16);
    let exact = with_budget(options.clone(), 3 * 3 * 16 * 16);
    let less = with_budget(options, 3 * 3 * 16 * 16 - 1);
    let (fits, _) = FolderSource::open_with(folder.path(), &exact, &|_, _| {}).unwrap();
    let (lazy, _) = FolderSource::open_with(folder.path(), &less, &|_, _| {}).unwrap();
    assert!(kept.is_cached() && fits.is_cached() && !lazy.is_cached());
    for i in 0..3 {
        assert_eq!(kept.image(i).unwrap(), lazy.image(i).unwrap());
    }
    fs::remove_file(folder.path().join("b.png")).unwrap();
    assert!(kept.image(2).is_ok());
    let message = lazy.image(2).unwrap_err().to_string();
    assert!(message.contains("b.png"), "{message}");
}

fn with_budget(mut options: FolderOptions, cache_bytes: u64) -> FolderOptions {
    options.cache_bytes = cache_bytes;
    options
}

#[test]
fn every_kind_of_folder_without_images_has_its_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let missing = error(&root.join("nowhere"));
    assert!(matches!(missing, DataError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("nowhere"));

    assert!(matches!(error(root), DataError::Empty { .. }));
    fs::create_dir(root.join("sub")).unwrap();
    assert!(matches!(error(root), DataError::Empty { .. }));

    fs::write(root.join("file.txt"), "x").unwrap();
    let file = error(&root.join("file.txt"));
    assert!(matches!(file, DataError::NotAFolder { .. }), "{file}");

    fs::write(root.join("sub/other.TXT"), "x").unwrap();
    fs::write(root.join("sub/data.parquet"), "x").unwrap();
    put(root, ".hidden/a.png", &picture(8, 8, 0));
    let none = error(root);
    assert!(matches!(none, DataError::NoImages { .. }), "{none}");
    let text = none.to_string();
    assert!(
        text.contains("PNG, JPEG, GIF, WebP, BMP, TIFF and NPY"),
        "{text}"
    );
    assert!(
        text.contains("3 files that are not images (2 x .txt, 1 x .parquet), 1 hidden (.hidden)"),
        "{text}"
    );

    fs::write(root.join("a.png"), "not a picture").unwrap();
    let broken = error(root);
    assert!(
        matches!(broken, DataError::AllUnreadable { .. }),
        "{broken}"
    );
    assert!(broken.to_string().contains("a.png: expected a PNG"));

    let zero = check_folder(root, 0).unwrap_err();
    assert!(matches!(zero, DataError::Option { .. }), "{zero}");
}

#[test]
fn broken_images_are_listed_with_reasons_and_left_out() {
    let folder = small_folder();
    let root = folder.path();
    let whole = encode_png(&picture(16, 16, 5)).unwrap();
    fs::write(root.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(root.join("empty.jpg"), "").unwrap();
    fs::write(root.join("page.webp"), "<html>").unwrap();
    let (source, report) = FolderSource::open(root, 16, false).unwrap();
    assert_eq!((source.len(), report.found, report.usable), (3, 6, 3));
    let listed: Vec<_> = report.unreadable.iter().map(ToString::to_string).collect();
    assert!(
        listed[0].starts_with("cut.png: broken PNG file"),
        "{listed:?}"
    );
    assert!(listed[1].contains("empty.jpg: ") && listed[1].contains("no bytes"));
    assert!(listed[2].contains("page.webp: "));
    assert!((0..3).all(|i| source.id(i) != "cut.png" && source.screen(i).is_ok()));

    let strict = FolderSource::open(root, 16, true).unwrap_err();
    assert!(matches!(strict, DataError::SomeUnreadable { .. }));
    let text = strict.to_string();
    assert!(
        text.contains("3 of the images") && text.contains("cut.png"),
        "{text}"
    );
}

#[test]
fn the_report_lists_what_a_user_should_know() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "normal.png", &picture(40, 36, 1));
    put(root, "small.png", &picture(12, 20, 2));
    put(root, "long.png", &picture(100, 40, 3));
    put(root, "grey.png", &Rgb8::filled(40, 40, [7; 3]));
    put(root, "again/copy.png", &picture(40, 36, 1));
    // The same pixels in another file: decoders ignore bytes after the end of a PNG.
    let mut other = encode_png(&picture(100, 40, 3)).unwrap();
    other.extend(b"trailer");
    fs::write(root.join("long2.png"), other).unwrap();
    let report = check_folder(root, 32).unwrap();

    assert_eq!((report.found, report.usable), (6, 6));
    assert_eq!(report.formats["PNG"], 6);
    let short = report.short_side;
    assert_eq!((short.min, short.median, short.max), (12, 40, 40));
    assert_eq!((report.width.min, report.width.max), (12, 100));
    assert_eq!(report.enlarged, ["small.png"]);
    assert_eq!(report.elongated, ["long.png", "long2.png", "small.png"]);
    assert_eq!(report.grey, 1);
    assert!(!report.is_clean());
    let groups: Vec<_> = report.duplicates.iter().map(ToString::to_string).collect();
    assert_eq!(
        groups,
        [
            "again/copy.png = normal.png (same file)",
            "long.png = long2.png (same pixels)"
        ]
    );

    let text = report.to_string();
    for part in [
        "6 of 6 images usable at 32x32 (6 PNG)",
        "short side 12 / 40 / 40",
        "1 smaller than 32 pixels",
        "3 longer than 1.5 short sides",
        "2 more than once in the folder",
        "grey        1",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("unreadable"), "{text}");

    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn a_clean_folder_is_called_clean() {
    let report = check_folder(small_folder().path(), 16).unwrap();
    assert!(report.is_clean(), "{report}");
}

/// The start of a HEIC photograph, which is not supported.
const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";

#[test]
fn every_file_is_used_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let png = |n| encode_png(&picture(16, 16, n)).unwrap();
    // Images with any name.
    for (n, name) in ["a.jfif", "b.jpe", "c.txt", "d", "e.tif"]
        .iter()
        .enumerate()
    {
        fs::write(root.join(name), png(n)).unwrap();
    }
    // Candidates that cannot be read.
    fs::write(root.join("f.tif"), b"II*\0\x08\0\0\0").unwrap();
    fs::write(root.join("photo"), HEIC).unwrap();
    fs::write(root.join("page.jpeg"), "<html>").unwrap();
    fs::write(root.join("nothing.heic"), "").unwrap();
    // Files that are not images.
    fs::write(root.join("labels.jsonl"), "{}").unwrap();
    fs::write(root.join("Thumbs.db"), "x").unwrap();
    fs::write(root.join(".DS_Store"), "x").unwrap();
    fs::write(root.join("._a.jfif"), "x").unwrap();

    let report = check_folder(root, 16).unwrap();
    assert_eq!((report.found, report.usable), (9, 5));
    let left_out: Vec<_> = report.unreadable.iter().map(ToString::to_string).collect();
    assert!(
        left_out[0].starts_with("f.tif: broken TIFF file"),
        "{left_out:?}"
    );
    assert!(left_out[1].starts_with("nothing.heic: ") && left_out[1].contains("no bytes"));
    assert!(left_out[2].starts_with("page.jpeg: ") && left_out[2].contains("<html>"));
    assert!(left_out[3].starts_with("photo: ") && left_out[3].contains("convert it to PNG"));
    assert_eq!(report.others, ["Thumbs.db", "labels.jsonl"]);
    assert_eq!(report.hidden, [".DS_Store", "._a.jfif"]);
    let text = report.to_string();
    let line = "2 files that are not images (1 x .db, 1 x .jsonl), 2 hidden (.DS_Store, ._a.jfif)";
    assert!(text.contains(line), "{text}");
    assert_eq!(report.notes().len(), 2, "{:?}", report.notes());
    assert!(report.notes()[0].contains("4 of 9 images are left out"));

    let strict = FolderSource::open(root, 16, true).unwrap_err().to_string();
    assert!(
        strict.contains("f.tif") && strict.contains("photo"),
        "{strict}"
    );
    let listed = sdft_data::list_images(root).unwrap_err().to_string();
    assert!(
        listed.contains("3 files") && listed.contains("page.jpeg"),
        "{listed}"
    );
}

#[test]
fn transparent_images_are_composed_on_white_and_counted() {
    let folder = small_folder();
    let rgba = image_with_clear_half();
    fs::write(folder.path().join("clear.png"), rgba).unwrap();
    let (source, report) = FolderSource::open(folder.path(), 16, true).unwrap();
    assert_eq!(report.transparent, 1);
    let note = "1 image is transparent: composed on white";
    assert!(
        report.notes().contains(&note.to_owned()),
        "{:?}",
        report.notes()
    );
    let at = (0..source.len())
        .find(|&i| source.id(i) == "clear.png")
        .unwrap();
    let image = source.screen(at).unwrap();
    assert_eq!(image.get(0, 0), Some([200, 30, 30]));
    assert_eq!(image.get(15, 15), Some([255; 3]));
}

/// A PNG of 16x16 with noise in its lower half, which is transparent.
fn image_with_clear_half() -> Vec<u8> {
    use image::{ImageFormat, Rgba, RgbaImage};
    let picture = RgbaImage::from_fn(16, 16, |x, y| match y < 8 {
        true => Rgba([200, 30, 30, 255]),
        false => Rgba([(x * 97 % 256) as u8, (y * 31 % 256) as u8, 5, 0]),
    });
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_link_loops_are_reported_and_never_opened() {
    use std::os::unix::fs::symlink;
    let folder = small_folder();
    let root = folder.path();
    let made = std::process::Command::new("mkfifo")
        .arg(root.join("pipe.png"))
        .status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    symlink("there", root.join("here")).unwrap();
    symlink("here", root.join("there")).unwrap();
    symlink("/dev/zero", root.join("zero.jpg")).unwrap();
    let report = check_folder(root, 16).unwrap();
    assert_eq!(report.usable, 3);
    let listed: Vec<_> = report.unreadable.iter().map(ToString::to_string).collect();
    for (line, part) in listed.iter().zip([
        "here: broken link",
        "pipe.png: expected a regular file, found a pipe",
        "socket: expected a regular file, found a socket",
        "there: broken link",
        "zero.jpg: expected a regular file, found a device",
    ]) {
        assert!(line.starts_with(part), "{listed:?}");
    }
    assert_eq!(listed.len(), 5);
    let pipe = check_folder(&root.join("pipe.png"), 16).unwrap_err();
    assert!(pipe.to_string().contains("found a pipe"), "{pipe}");
}

#[test]
fn progress_counts_every_image() {
    let folder = small_folder();
    let mut bad = encode_png(&picture(8, 8, 1)).unwrap();
    bad.truncate(40);
    fs::write(folder.path().join("bad.png"), bad).unwrap();
    let (calls, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    check_folder_with(folder.path(), &FolderOptions::new(16), &|done, total| {
        assert_eq!(total, 4);
        calls.fetch_add(1, Ordering::Relaxed);
        last.fetch_max(done, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!((calls.into_inner(), last.into_inner()), (4, 4));
}

#[cfg(unix)]
#[test]
fn links_are_followed_once_and_broken_ones_are_listed() {
    use std::os::unix::fs::symlink;
    let folder = small_folder();
    let root = folder.path();
    let outside = tempfile::tempdir().unwrap();
    put(outside.path(), "far.png", &picture(16, 16, 9));
    symlink(root, root.join("a/loop")).unwrap();
    symlink(outside.path(), root.join("linked")).unwrap();
    symlink(root.join("gone.png"), root.join("dead.png")).unwrap();
    let (source, report) = FolderSource::open(root, 16, false).unwrap();
    let ids: Vec<_> = (0..source.len()).map(|i| source.id(i)).collect();
    assert_eq!(ids, ["a.png", "a/z.PNG", "b.png", "linked/far.png"]);
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(report.unreadable[0].file, "dead.png");
}

#[test]
fn archives_of_statistics_and_of_samples_that_are_there_anyway_are_no_images() {
    let folder = small_folder();
    let write = |name: &str, names: &[&str]| {
        let array = sdft_npz::Array::u8(vec![1, 16, 16, 3], vec![7; 768]).unwrap();
        let entries: Vec<_> = names.iter().map(|name| (*name, &array)).collect();
        let bytes = sdft_npz::encode_npz(&entries, false).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    write("samples_1x16x16x3.npz", &["arr_0"]);
    write("stats.npz", &["mu", "sigma"]);
    write("stack.npz", &["arr_0", "arr_1"]);
    write("one.npz", &["images"]);
    let listing = sdft_data::list_all(folder.path()).unwrap();
    let names = |files: &[(String, std::path::PathBuf)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    let images = ["a.png", "a/z.PNG", "b.png", "one.npz", "stack.npz"];
    assert_eq!(names(&listing.images), images);
    assert_eq!(
        names(&listing.others),
        ["samples_1x16x16x3.npz", "stats.npz"]
    );
    assert!(listing.unreadable.is_empty());
}
