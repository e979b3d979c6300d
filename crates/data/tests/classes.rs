//! Classes and masks of the images of a folder.

use std::{fs, path::Path};

use sdft_data::{ClassesFrom, Fit, FolderOptions, FolderSource, ImageSource, Place, Report};
use sdft_imaging::{Depth, Image, ImageSpec, Rgb8, Samples, write_png};
use tempfile::TempDir;

fn put(folder: &Path, name: &str, image: &Rgb8) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_png(&path, image).unwrap();
}

/// Images of 8x8 pixels of different colours.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        put(folder.path(), name, &Rgb8::filled(8, 8, [i as u8; 3]));
    }
    folder
}

fn open(folder: &TempDir, options: &FolderOptions) -> sdft_data::Result<(FolderSource, Report)> {
    FolderSource::open_with(folder.path(), options, &|_, _| {})
}

fn with_classes(from: &str) -> FolderOptions {
    let mut options = FolderOptions::rgb8(8);
    options.classes = Some(from.parse::<ClassesFrom>().unwrap());
    options
}

fn with_masks(folder: &Path) -> FolderOptions {
    let mut options = FolderOptions::rgb8(8);
    options.masks = Some(folder.to_owned());
    options
}

#[test]
fn subfolders_are_classes() {
    let set = folder(&["dog/1.png", "cat/9.png", "dog/deep/2.png", "Ape/x.png"]);
    fs::write(set.path().join("notes.txt"), "text").unwrap();
    let (source, report) = open(&set, &with_classes("folders")).unwrap();
    assert_eq!(source.classes(), ["Ape", "cat", "dog"]);
    let labels: Vec<_> = (0..5).map(|i| source.label(i)).collect();
    assert_eq!(labels, [Some(0), Some(1), Some(2), Some(2), None]);
    let counts: Vec<_> = report
        .classes
        .iter()
        .map(|c| (c.name.as_str(), c.images))
        .collect();
    assert_eq!(counts, [("Ape", 1), ("cat", 1), ("dog", 2)]);
    let text = report.to_string();
    assert!(
        text.contains("3 classes") && text.contains("2 of dog"),
        "{text}"
    );

    put(set.path(), "top.png", &Rgb8::filled(8, 8, [9; 3]));
    let error = open(&set, &with_classes("folders"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("top.png") && error.contains("subfolder"),
        "{error}"
    );
    let plain = open(&set, &FolderOptions::rgb8(8)).unwrap().0;
    assert!(plain.classes().is_empty() && plain.label(0).is_none());
}

#[test]
fn a_table_inside_the_folder_or_elsewhere_gives_the_labels() {
    let set = folder(&["a.png", "b/c.png"]);
    let text = "file,label\na.png,2\nb/c.png,0\ngone.png,1\n";
    let elsewhere = tempfile::tempdir().unwrap();
    let table = elsewhere.path().join("t.csv");
    fs::write(&table, text).unwrap();
    fs::write(set.path().join("labels.csv"), text).unwrap();
    for from in ["labels.csv", table.to_str().unwrap()] {
        let (source, report) = open(&set, &with_classes(from)).unwrap();
        assert_eq!(source.classes(), ["0", "1", "2"]);
        assert_eq!([source.label(0), source.label(1)], [Some(2), Some(0)]);
        assert_eq!(report.classes[1].images, 0);
        let notes = report.notes().join("\n");
        assert!(
            notes.contains("1 label is for a file") && notes.contains("gone.png"),
            "{notes}"
        );
    }
    fs::write(
        set.path().join("dataset.json"),
        r#"{"labels": [["a.png", 1]]}"#,
    )
    .unwrap();
    let error = open(&set, &with_classes("dataset.json"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("have none for 1 image (") && error.contains("b/c.png"),
        "{error}"
    );
    let error = open(&set, &with_classes("none.csv"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none.csv")
            && error.contains("cannot be read")
            && error.contains("`folders`"),
        "{error}"
    );
}

/// A mask of 16x16 whose left half counts by `level`.
fn half(level: u8) -> Vec<u8> {
    let row = [[level; 8], [0; 8]].concat();
    let image = Image::new(16, 16, 1, Samples::U8(row.repeat(16))).unwrap();
    ImageSpec::new(1, Depth::U8, 16, 16).encode(&image).unwrap()
}

#[test]
fn masks_are_found_by_name_and_fitted_as_their_images() {
    let set = folder(&["a.png", "b/c.png"]);
    let masks = tempfile::tempdir().unwrap();
    fs::create_dir(masks.path().join("b")).unwrap();
    fs::write(masks.path().join("a.jpg"), half(255)).unwrap();
    fs::write(masks.path().join("b/c.tif"), half(51)).unwrap();
    fs::write(masks.path().join("other.png"), half(51)).unwrap();
    for cache_bytes in [0, 1 << 20] {
        let mut options = with_masks(masks.path());
        options.cache_bytes = cache_bytes;
        let (source, report) = open(&set, &options).unwrap();
        for (i, level) in [255, 51].into_iter().enumerate() {
            let item = source.item(i, Place::CENTRE).unwrap();
            let Samples::U8(mask) = item.mask.unwrap().samples else {
                panic!("8 bits")
            };
            assert_eq!((mask[0], mask[7], mask.len()), (level, 0, 64));
        }
        let count = report.masks.unwrap();
        assert_eq!(count.unused, 1);
        assert!((count.mean - 0.3).abs() < 0.02, "{}", count.mean);
        assert!(
            report
                .to_string()
                .contains("of the pixels count, 1 mask of no image"),
            "{report}"
        );
    }
    // Padding does not count either.
    let mut options = with_masks(masks.path());
    (options.size, options.fit) = ([8, 16], Fit::Pad);
    let item = open(&set, &options)
        .unwrap()
        .0
        .item(0, Place::CENTRE)
        .unwrap();
    let Samples::U8(mask) = item.mask.unwrap().samples else {
        panic!("8 bits")
    };
    assert_eq!((mask[0], mask[4], mask[11], mask[15]), (0, 255, 0, 0));
}

#[test]
fn masks_that_cannot_be_used_are_explained() {
    let set = folder(&["a.png", "b.png"]);
    let masks = tempfile::tempdir().unwrap();
    let error = || {
        open(&set, &with_masks(masks.path()))
            .unwrap_err()
            .to_string()
    };
    let empty = error();
    assert!(
        empty.starts_with("masks ") && empty.ends_with("the folder is empty"),
        "{empty}"
    );
    fs::write(masks.path().join("a.png"), half(255)).unwrap();
    let missing = error();
    assert!(
        missing.contains("have none for 1 image (") && missing.contains("b.png"),
        "{missing}"
    );
    assert!(missing.contains("all white"), "{missing}");
    fs::write(masks.path().join("b.png"), half(0)).unwrap();
    let dark = error();
    assert!(
        dark.starts_with("b.png: its mask is dark everywhere"),
        "{dark}"
    );
    write_png(&masks.path().join("b.png"), &Rgb8::filled(16, 8, [255; 3])).unwrap();
    let shape = error();
    assert!(
        shape.starts_with("b.png: ") && shape.contains("aspect ratio"),
        "{shape}"
    );
    fs::write(masks.path().join("b.jpg"), half(255)).unwrap();
    assert!(
        error().contains("b.jpg and b.png are masks of the same image"),
        "{}",
        error()
    );

    fs::create_dir(set.path().join("masks")).unwrap();
    fs::write(set.path().join("masks/a.png"), half(255)).unwrap();
    let inside = open(&set, &with_masks(&set.path().join("masks")))
        .unwrap_err()
        .to_string();
    assert!(inside.contains("is inside"), "{inside}");
}
