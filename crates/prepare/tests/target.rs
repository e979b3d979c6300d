//! The target folder: kept, continued or refused.

mod common;

use std::{fs, path::Path};

use common::{at_16, files_below, images, png};
use sdft_prepare::{Options, PrepareError, prepare};

/// A folder of images, and a target.
fn inputs(root: &Path, n: usize) -> (std::path::PathBuf, std::path::PathBuf) {
    let input = root.join("in");
    fs::create_dir_all(&input).unwrap();
    for i in 0..n {
        fs::write(input.join(format!("{i}.png")), png(i)).unwrap();
    }
    (input, root.join("out"))
}

#[test]
fn a_second_run_makes_only_damaged_images_again() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 6);
    let input = [input];
    at_16(&input, &out).unwrap();
    let (first, index) = (images(&out), fs::read(out.join("index.jsonl")).unwrap());
    assert_eq!(at_16(&input, &out).unwrap().made, 0);

    fs::write(out.join(&first[0].0), b"damaged").unwrap();
    fs::remove_file(out.join(&first[1].0)).unwrap();
    assert_eq!(at_16(&input, &out).unwrap().made, 2);
    assert_eq!(images(&out), first);

    fs::write(input[0].join("more.png"), png(9)).unwrap();
    fs::remove_file(input[0].join("0.png")).unwrap();
    let report = at_16(&input, &out).unwrap();
    assert_eq!((report.images, report.made, report.removed), (6, 1, 1));
    assert_ne!(fs::read(out.join("index.jsonl")).unwrap(), index);
    assert!(
        files_below(&out)
            .iter()
            .all(|path| !path.to_string_lossy().contains(".partial"))
    );
}

#[test]
fn images_made_before_a_crash_are_not_made_again() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 6);
    let input = [input];
    at_16(&input, &out).unwrap();
    let expected = images(&out);
    // As a killed process leaves it: a journal with a truncated line, and a partial image.
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    fs::remove_file(out.join("index.jsonl")).unwrap();
    let lines: Vec<&str> = index.lines().take(5).collect();
    let cut = &lines.join("\n")[..lines.join("\n").len() - 20];
    fs::write(out.join(".index.partial.jsonl"), cut).unwrap();
    fs::write(out.join(".aside-7"), b"half").unwrap();
    let report = at_16(&input, &out).unwrap();
    assert_eq!((report.images, report.made), (6, 3));
    assert_eq!(images(&out), expected);
    assert!(!out.join(".aside-7").exists());
}

#[test]
fn a_folder_left_by_a_process_killed_early_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    fs::create_dir(&out).unwrap();
    for name in [
        "..index.partial.jsonl.1-0.tmp",
        ".sdft-1f-0-18a.tmp",
        ".lock",
    ] {
        fs::write(out.join(name), b"").unwrap();
    }
    assert_eq!(at_16(&[input], &out).unwrap().images, 2);
    let left = files_below(&out);
    assert!(
        left.iter()
            .all(|path| !path.to_string_lossy().ends_with(".tmp")),
        "{left:?}"
    );
}

#[test]
fn threads_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (input, _) = inputs(root.path(), 12);
    let result = |threads: usize| {
        let out = root.path().join(format!("out-{threads}"));
        let options = Options {
            threads: Some(threads),
            ..Options::new(16)
        };
        prepare(std::slice::from_ref(&input), &out, &options, &|_, _| {}).unwrap();
        (images(&out), fs::read(out.join("index.jsonl")).unwrap())
    };
    assert_eq!(result(1), result(5));
}

#[test]
fn folders_of_other_programs_and_other_sets_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let input = [input];
    fs::create_dir(&out).unwrap();
    fs::write(out.join("holiday.png"), b"mine").unwrap();
    let error = at_16(&input, &out).unwrap_err();
    assert!(error.to_string().contains("holiday.png"), "{error}");
    assert_eq!(files_below(&out).len(), 1);

    let set = root.path().join("set");
    at_16(&input, &set).unwrap();
    let before = files_below(&set);
    let error = prepare(&input, &set, &Options::new(32), &|_, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("16x16") && error.to_string().contains("32x32"),
        "{error}"
    );
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("z.png"), png(8)).unwrap();
    let error = at_16(&[other], &set).unwrap_err();
    assert!(matches!(error, PrepareError::Other { .. }), "{error}");
    assert_eq!(files_below(&set), before);
}

#[test]
fn a_foreign_index_and_a_lock_that_is_a_link_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let input = [input];
    fs::create_dir(&out).unwrap();
    fs::write(out.join("index.jsonl"), "{\"my\":\"labels\"}\n").unwrap();
    fs::write(out.join("own.png"), png(7)).unwrap();
    let error = at_16(&input, &out).unwrap_err();
    assert!(error.to_string().contains("index.jsonl"), "{error}");
    assert_eq!(files_below(&out).len(), 2);
    assert!(
        fs::read_to_string(out.join("index.jsonl"))
            .unwrap()
            .contains("labels")
    );

    let locked = root.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join(".lock"), "").unwrap();
    fs::write(locked.join("own.png"), png(7)).unwrap();
    assert!(
        at_16(&input, &locked)
            .unwrap_err()
            .to_string()
            .contains("own.png")
    );

    #[cfg(unix)]
    {
        let linked = root.path().join("linked");
        fs::create_dir(&linked).unwrap();
        let important = root.path().join("important.txt");
        fs::write(&important, "keep").unwrap();
        std::os::unix::fs::symlink(&important, linked.join(".lock")).unwrap();
        assert!(
            at_16(&input, &linked)
                .unwrap_err()
                .to_string()
                .contains(".lock")
        );
        assert_eq!(fs::read_to_string(&important).unwrap(), "keep");
    }
}

#[test]
fn a_picture_next_to_the_target_is_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let mine = root.path().join("out-grid.png");
    fs::write(&mine, "mine").unwrap();
    let input = [input];
    let check = |what: &str| {
        let report = at_16(&input, &out).unwrap();
        assert_eq!((&report.sheet, &report.kept), (&None, &Some(mine.clone())));
        let text = report.to_string();
        assert!(text.contains("contact sheet not written"), "{text}");
        assert_eq!(fs::read_to_string(&mine).unwrap(), what);
    };
    check("mine");
    // A later run, which adds an image, also leaves it.
    fs::write(input[0].join("added.png"), png(8)).unwrap();
    check("mine");
    // A file that replaced the contact sheet is kept, too.
    fs::remove_file(&mine).unwrap();
    assert_eq!(at_16(&input, &out).unwrap().sheet, Some(mine.clone()));
    fs::write(&mine, "edited").unwrap();
    fs::write(input[0].join("more.png"), png(9)).unwrap();
    check("edited");
}

#[test]
fn a_sheet_of_an_earlier_set_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let input = [input];
    let sheet = at_16(&input, &out).unwrap().sheet.unwrap();
    let before = fs::read(&sheet).unwrap();
    fs::write(input[0].join("added.png"), png(8)).unwrap();
    assert_eq!(at_16(&input, &out).unwrap().sheet.as_ref(), Some(&sheet));
    assert_ne!(fs::read(&sheet).unwrap(), before);
    // Also if the folder was deleted and is made again.
    fs::remove_dir_all(&out).unwrap();
    fs::remove_file(input[0].join("added.png")).unwrap();
    assert_eq!(at_16(&input, &out).unwrap().sheet.as_ref(), Some(&sheet));
    assert_eq!(fs::read(&sheet).unwrap(), before);
}

#[test]
fn thousands_of_threads_are_as_many_as_there_are_cores() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let options = Options {
        threads: Some(4096),
        ..Options::new(16)
    };
    let report = prepare(&[input], &out, &options, &|_, _| {}).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(report.threads, cores.min(4096));
    if cores < 4096 {
        let said = format!("--threads 4096: used {cores},");
        assert!(report.to_string().contains(&said), "{report}");
    }
}

#[test]
fn an_image_without_a_record_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 3);
    let input = [input];
    at_16(&input, &out).unwrap();
    let orphan = out.join(format!("{}.png", "ab".repeat(32)));
    fs::write(&orphan, png(9)).unwrap();
    assert_eq!(at_16(&input, &out).unwrap().removed, 1);
    assert!(!orphan.exists());
}

#[cfg(unix)]
#[test]
fn a_target_in_an_input_is_detected_through_links() {
    let root = tempfile::tempdir().unwrap();
    let (input, _) = inputs(root.path(), 2);
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&input, &link).unwrap();
    for out in [link.join("new"), root.path().join("no/../in/new")] {
        let error = at_16(std::slice::from_ref(&input), &out).unwrap_err();
        assert!(matches!(error, PrepareError::Nested { .. }), "{error}");
    }
}

#[test]
fn a_target_in_an_input_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (input, _) = inputs(root.path(), 2);
    for out in [input.clone(), input.join("out"), root.path().to_owned()] {
        let error = at_16(std::slice::from_ref(&input), &out).unwrap_err();
        assert!(matches!(error, PrepareError::Nested { .. }), "{error}");
    }
    assert_eq!(files_below(root.path()).len(), 2);
}

#[test]
fn a_folder_is_prepared_by_one_process_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    fs::create_dir(&out).unwrap();
    let lock = fs::File::create(out.join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = at_16(std::slice::from_ref(&input), &out).unwrap_err();
    assert!(matches!(error, PrepareError::Busy { .. }), "{error}");
    drop(lock);
    assert_eq!(at_16(&[input], &out).unwrap().images, 2);
}

#[test]
fn broken_images_are_listed_or_an_error() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    fs::write(input.join("broken.jpg"), b"x").unwrap();
    let input = [input];
    let strict = Options {
        strict: true,
        ..Options::new(16)
    };
    let error = prepare(&input, &out, &strict, &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("broken.jpg"), "{error}");
    assert!(!out.join("index.jsonl").exists());
    assert_eq!(at_16(&input, &out).unwrap().skipped.len(), 1);

    let only = root.path().join("only");
    fs::create_dir(&only).unwrap();
    fs::write(only.join("broken.jpg"), b"x").unwrap();
    let error = at_16(&[only], &root.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("no usable image"), "{error}");
}

#[test]
fn an_index_with_a_wrong_file_name_is_not_trusted() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let input = [input];
    at_16(&input, &out).unwrap();
    let path = out.join("index.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = good
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut first = lines[1].clone();
    first["file"] = lines[2]["file"].clone();
    first["file_sha256"] = lines[2]["file_sha256"].clone();
    let swapped = format!("{}\n{first}\n{}\n", lines[0], lines[2]);
    fs::write(&path, swapped).unwrap();
    let report = at_16(&input, &out).unwrap();
    assert_eq!((report.images, report.made), (2, 1), "{report}");
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
}

#[cfg(target_os = "linux")]
#[test]
fn an_index_cannot_cause_deletions_outside_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = inputs(root.path(), 2);
    let input = [input];
    at_16(&input, &out).unwrap();
    let victim = root.path().join("victim.png");
    fs::write(&victim, b"keep").unwrap();
    let path = out.join("index.jsonl");
    let mut index = fs::read_to_string(&path).unwrap();
    index.push_str("{\"source\":\"x\",\"sha256\":\"y\",\"file\":\"../victim.png\"}\n");
    fs::write(&path, index).unwrap();
    at_16(&input, &out).unwrap();
    assert!(victim.exists());
}
