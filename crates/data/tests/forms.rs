//! Folders of images of any channels, depth and shape.

use std::{fs, path::Path};

use sdft_data::{
    Augment, Batches, DataError, Fit, FolderOptions, FolderSource, ImageSource, Pages, Place,
    Report, check_folder_with,
};
use sdft_imaging::{Depth, Image, ImageSpec, Rgb8, Samples, encode_png};
use tempfile::TempDir;

/// A different image for each `seed`.
fn image(channels: usize, depth: Depth, width: usize, height: usize, seed: usize) -> Image {
    let level = move |i: usize| (i * 37 + seed * 101 + i * i % 13) % 256;
    let levels = (0..channels * width * height).map(level);
    let samples = match depth {
        Depth::U8 => Samples::U8(levels.map(|v| v as u8).collect()),
        Depth::U16 => Samples::U16(levels.map(|v| 13 * v as u16).collect()),
        Depth::F32 => Samples::F32(levels.map(|v| v as f32 / 255.0).collect()),
    };
    Image::new(width, height, channels, samples).unwrap()
}

fn put(folder: &Path, name: &str, image: &Image) {
    let spec = ImageSpec::new(image.channels, image.depth(), image.width, image.height);
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, spec.encode(image).unwrap()).unwrap();
}

fn folder(images: &[(&str, Image)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, image) in images {
        put(folder.path(), name, image);
    }
    folder
}

fn open(folder: &TempDir, options: &FolderOptions) -> sdft_data::Result<(FolderSource, Report)> {
    FolderSource::open_with(folder.path(), options, &|_, _| {})
}

fn options(height: usize, width: usize) -> FolderOptions {
    let mut options = FolderOptions::new(height);
    options.size = [height, width];
    options
}

/// NumPy's file of an array of bytes, 32-bit floats or 16-bit integers.
fn npy(kind: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(127 - (10 + header.len()) % 128));
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

#[test]
fn a_set_has_the_channels_and_depth_that_its_files_share() {
    for (channels, depth) in [
        (1, Depth::U8),
        (3, Depth::U8),
        (1, Depth::U16),
        (3, Depth::U16),
    ] {
        let set = folder(&[
            ("a.png", image(channels, depth, 9, 7, 1)),
            ("b.png", image(channels, depth, 8, 8, 2)),
        ]);
        let (source, report) = open(&set, &options(4, 6)).unwrap();
        assert_eq!(*source.spec(), ImageSpec::new(channels, depth, 6, 4));
        assert_eq!(report.form, *source.spec());
        let first = source.image(0).unwrap();
        assert_eq!((first.channels, first.depth()), (channels, depth));
        assert_eq!((first.width, first.height), (6, 4));
    }
}

#[test]
fn images_are_read_as_they_are_asked_for() {
    let grey = image(1, Depth::U16, 8, 8, 3);
    let set = folder(&[
        ("a.png", grey.clone()),
        ("b.png", image(3, Depth::U8, 8, 8, 4)),
    ]);
    let mut asked = options(8, 8);
    (asked.channels, asked.depth) = (Some(3), Some(Depth::U16));
    let (source, _) = open(&set, &asked).unwrap();
    let Samples::U16(values) = source.image(0).unwrap().samples else {
        panic!("16 bits were asked for")
    };
    let Samples::U16(levels) = grey.samples else {
        panic!("16 bits")
    };
    assert_eq!(values[..3], [levels[0]; 3]);

    // A mixed folder is 8-bit RGB, and the report says how to keep more.
    let (source, report) = open(&set, &options(8, 8)).unwrap();
    assert!(source.spec().is_plain());
    assert_eq!((report.channels[&1], report.channels[&3]), (1, 1));
    assert_eq!((report.depths["8"], report.depths["16"]), (1, 1));
    assert_eq!(report.sixteen_bit, 1);
    let notes = report.notes().join("\n");
    assert!(notes.contains("data.depth = 16"), "{notes}");
    let same = FolderSource::open(set.path(), 8, true).unwrap().0;
    assert_eq!(source.image(0).unwrap(), same.image(0).unwrap());
}

#[test]
fn alpha_is_kept_only_if_it_is_asked_for() {
    let rgba = image(4, Depth::U8, 8, 8, 5);
    let set = folder(&[("a.png", rgba.clone())]);
    let mut asked = options(8, 8);
    asked.background = [0, 255, 0];
    let (source, report) = open(&set, &asked).unwrap();
    assert_eq!((source.spec().channels, report.transparent), (3, 1));
    asked.channels = Some(4);
    let (source, report) = open(&set, &asked).unwrap();
    assert_eq!(source.image(0).unwrap(), rgba);
    assert_eq!(report.transparent, 0);
}

#[test]
fn a_range_is_used_and_values_outside_are_clamped_and_counted() {
    let values = vec![0, 100, 4095, 4096, 60_000, 2048];
    let samples = Samples::U16(values);
    let set = folder(&[("a.png", Image::new(3, 2, 1, samples).unwrap())]);
    let mut asked = options(2, 3);
    asked.range = Some([0.0, 4095.0]);
    let (source, report) = open(&set, &asked).unwrap();
    assert_eq!(source.spec().range, [0.0, 4095.0]);
    let image = source.image(0).unwrap();
    assert_eq!(
        image.samples,
        Samples::U16(vec![0, 100, 4095, 4095, 4095, 2048])
    );
    assert_eq!(report.clamped, 1);
    let notes = report.notes().join("\n");
    assert!(notes.contains("outside the range"), "{notes}");
    let text = report.to_string();
    assert!(text.contains("0 to 4095 become -1 to 1"), "{text}");

    for (range, depth, part) in [
        ([5.0, 5.0], None, "the lower one first"),
        ([0.0, 4095.0], Some(Depth::U8), "the depth is 8"),
        ([0.0, f64::NAN], None, "two numbers"),
        ([-1.0, 10.0], None, "the depth is 16"),
    ] {
        (asked.range, asked.depth) = (Some(range), depth);
        let error = open(&set, &asked).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn every_fit_gives_the_size_and_padding_does_not_count() {
    let wide = image(1, Depth::U8, 40, 20, 6);
    let set = folder(&[("a.png", wide)]);
    for fit in [Fit::Crop, Fit::RandomCrop, Fit::Pad, Fit::Resize] {
        let mut asked = options(24, 16);
        asked.fit = fit;
        for cache_bytes in [0, 1 << 20] {
            asked.cache_bytes = cache_bytes;
            let (source, report) = open(&set, &asked).unwrap();
            assert_eq!(source.is_cached(), cache_bytes > 0);
            let item = source.item(0, Place { x: 0.9, y: 0.1 }).unwrap();
            assert_eq!((item.image.height, item.image.width), (24, 16));
            assert_eq!(item.mask.is_some(), fit == Fit::Pad);
            assert_eq!(report.elongated, ["a.png"]);
            if let Some(Image {
                samples: Samples::U8(mask),
                ..
            }) = item.mask
            {
                assert_eq!(mask.iter().filter(|v| **v == 255).count(), 16 * 8);
                assert_eq!((mask[0], mask[12 * 16]), (0, 255));
            }
        }
    }
}

#[test]
fn random_crops_are_the_same_from_the_cache_and_from_the_file() {
    let set = folder(&[
        ("a.png", image(3, Depth::U8, 90, 37, 7)),
        ("b.png", image(1, Depth::U16, 31, 70, 8)),
    ]);
    let mut asked = options(12, 16);
    (asked.fit, asked.channels, asked.depth) = (Fit::RandomCrop, Some(1), Some(Depth::U16));
    let cached = open(&set, &asked).unwrap().0;
    asked.cache_bytes = 0;
    let direct = open(&set, &asked).unwrap().0;
    assert!(cached.is_cached() && !direct.is_cached());
    for i in 0..2 {
        let at = |source: &FolderSource, x, y| source.item(i, Place { x, y }).unwrap();
        for (x, y) in [(0.0, 0.0), (0.3, 0.9), (0.5, 0.5), (1.0, 0.2)] {
            assert_eq!(at(&cached, x, y), at(&direct, x, y));
        }
        assert_ne!(at(&direct, 0.0, 0.0), at(&direct, 1.0, 1.0));
    }
    let middle = direct.image(1).unwrap();
    asked.fit = Fit::Crop;
    assert_eq!(middle, open(&set, &asked).unwrap().0.image(1).unwrap());
}

#[test]
fn a_grey_16_bit_batch_of_24_by_16_has_its_shape_and_range() {
    let set = folder(&[("a.png", image(1, Depth::U16, 30, 30, 9))]);
    let mut asked = options(24, 16);
    asked.range = Some([0.0, 3315.0]);
    let source = open(&set, &asked).unwrap().0;
    let batches = Batches::new(std::sync::Arc::new(source), 0, 3, Augment::default()).unwrap();
    let batch = batches.batch(0).unwrap();
    assert_eq!(batch.shape, [3, 1, 24, 16]);
    assert!(batch.data.iter().all(|v| (-1.0..=1.0).contains(v)));
    assert!(batch.mask.is_none() && batch.labels.is_none());
}

#[test]
fn files_of_other_channels_are_left_out_by_name() {
    let set = folder(&[("a.png", image(3, Depth::U8, 8, 8, 1))]);
    let bytes = npy("|u1", &[10, 10, 5], &[7; 500]);
    fs::write(set.path().join("bands.npy"), bytes).unwrap();
    let (source, report) = open(&set, &options(4, 4)).unwrap();
    assert_eq!((source.len(), report.unreadable.len()), (1, 1));
    let left_out = report.unreadable[0].to_string();
    assert!(left_out.starts_with("bands.npy: "), "{left_out}");
    assert!(
        left_out.contains('5') && left_out.contains('3'),
        "{left_out}"
    );
}

#[test]
fn arrays_of_many_channels_are_a_set() {
    let set = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..10 * 12 * 5).map(|i| (i % 251) as u8).collect();
    fs::write(set.path().join("a.npy"), npy("|u1", &[10, 12, 5], &data)).unwrap();
    let (source, report) = open(&set, &options(10, 12)).unwrap();
    assert_eq!(*source.spec(), ImageSpec::new(5, Depth::U8, 12, 10));
    assert_eq!(source.image(0).unwrap().samples, Samples::U8(data));
    assert_eq!(report.channels[&5], 1);
}

#[test]
fn pages_are_images_or_channels_or_only_the_first_counts() {
    let set = folder(&[("z.png", image(1, Depth::U8, 4, 4, 1))]);
    let data: Vec<u8> = (0..3 * 16).collect();
    fs::write(set.path().join("a.npy"), npy("|u1", &[3, 4, 4, 1], &data)).unwrap();
    let mut asked = options(4, 4);
    let (source, report) = open(&set, &asked).unwrap();
    let ids: Vec<_> = (0..source.len()).map(|i| source.id(i)).collect();
    assert_eq!(ids, ["a.npy#1", "a.npy#2", "a.npy#3", "z.png"]);
    assert_eq!(
        source.image(1).unwrap().samples,
        Samples::U8(data[16..32].to_vec())
    );
    assert_eq!((report.usable, report.stacks), (4, 1));
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("each page is an image (data.pages)"),
        "{notes}"
    );
    asked.cache_bytes = 0;
    let direct = open(&set, &asked).unwrap().0;
    assert_eq!(direct.image(1).unwrap(), source.image(1).unwrap());

    asked.pages = Pages::First;
    let (source, _) = open(&set, &asked).unwrap();
    assert_eq!((source.len(), source.id(0).as_str()), (2, "a.npy"));
    assert_eq!(
        source.image(0).unwrap().samples,
        Samples::U8(data[..16].to_vec())
    );

    fs::remove_file(set.path().join("z.png")).unwrap();
    asked.pages = Pages::Channels;
    let (source, _) = open(&set, &asked).unwrap();
    assert_eq!((source.len(), source.spec().channels), (1, 3));
    let Samples::U8(values) = source.image(0).unwrap().samples else {
        panic!("8 bits")
    };
    assert_eq!(values[..6], [0, 16, 32, 1, 17, 33]);
    asked.channels = Some(4);
    let error = open(&set, &asked).unwrap_err().to_string();
    assert!(error.contains("3 channels together, expected 4"), "{error}");
}

#[test]
fn floats_need_a_range_unless_they_are_from_0_to_1() {
    let floats = |values: [f32; 4]| {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        npy("<f4", &[2, 2], &data)
    };
    let set = tempfile::tempdir().unwrap();
    fs::write(set.path().join("a.npy"), floats([0.0, 0.25, 0.5, 1.0])).unwrap();
    let mut asked = options(2, 2);
    let (source, _) = open(&set, &asked).unwrap();
    assert_eq!(
        (source.spec().depth, source.spec().range),
        (Depth::F32, [0.0, 1.0])
    );

    fs::write(
        set.path().join("b.npy"),
        floats([0.0, -1000.0, 0.5, 3000.0]),
    )
    .unwrap();
    let error = open(&set, &asked).unwrap_err().to_string();
    for part in ["b.npy", "-1000", "3000", "data.range"] {
        assert!(error.contains(part), "{error}");
    }
    asked.range = Some([-1000.0, 2000.0]);
    let (source, report) = open(&set, &asked).unwrap();
    assert_eq!(
        (source.spec().range, report.clamped),
        ([-1000.0, 2000.0], 1)
    );
    let expected = Samples::F32(vec![0.0, -1000.0, 0.5, 2000.0]);
    assert_eq!(source.image(1).unwrap().samples, expected);

    // Integers next to floats have no common scale.
    put(set.path(), "c.png", &image(1, Depth::U8, 2, 2, 1));
    let error = open(&set, &options(2, 2)).unwrap_err();
    assert!(error.to_string().contains("data."), "{error}");
    asked.range = None;
    fs::remove_file(set.path().join("b.npy")).unwrap();
    let error = open(&set, &asked).unwrap_err();
    assert!(matches!(error, DataError::Mixed { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("c.png") && text.contains("a.npy"), "{text}");
    asked.depth = Some(Depth::F32);
    assert_eq!(open(&set, &asked).unwrap().0.len(), 2);
}

#[test]
fn every_file_is_listed_once() {
    let set = folder(&[
        ("b.png", image(3, Depth::U8, 8, 8, 1)),
        ("a.jpeg", image(3, Depth::U8, 8, 8, 2)),
    ]);
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    for name in ["c.HEIC", "d", "e.png"] {
        fs::write(set.path().join(name), heic).unwrap();
    }
    fs::write(
        set.path().join("cut.png"),
        &encode_png(&Rgb8::filled(9, 9, [1; 3])).unwrap()[..50],
    )
    .unwrap();
    fs::write(set.path().join("notes.txt"), "text").unwrap();
    fs::write(set.path().join(".hidden"), "text").unwrap();
    let report = check_folder_with(set.path(), &options(8, 8), &|_, _| {}).unwrap();
    let files: Vec<String> = report.files().collect();
    for (line, start) in files.iter().zip([
        ".hidden: hidden",
        "a.jpeg: used",
        "b.png: used",
        "c.HEIC: left out: ",
        "cut.png: left out: broken PNG",
        "d: left out: ",
        "e.png: left out: ",
        "notes.txt: not an image",
    ]) {
        assert!(line.starts_with(start), "{files:?}");
    }
    assert_eq!(files.len(), 8);
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("4 of 6 images are left out (3 HEIC):"),
        "{notes}"
    );
    assert!(report.to_string().contains("left out (3 HEIC)"), "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["images"], serde_json::json!(["a.jpeg", "b.png"]));
    assert_eq!(
        (&json["size"], &json["unreadable"][0]["kind"]),
        (&8.into(), &"HEIC".into())
    );
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}
