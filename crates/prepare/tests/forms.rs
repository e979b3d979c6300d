//! Sizes that are not square, channels and depths, and how images get them.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{at_16, images, picture, png};
use sdft_files::sha256_bytes;
use sdft_imaging::{
    Depth, Fit, Fitting, Image, ImageSpec, Reading, Rgb8, Samples, encode_png, fit,
};
use sdft_prepare::{Options, PrepareError, Report, prepare};

/// An image of this form, 20 pixels high and 30 wide.
fn image(n: usize, channels: usize, depth: Depth) -> Image {
    let level = |i: usize| (i * 7919 + n * 104_729) % 65_536;
    let all = 0..20 * 30 * channels;
    let samples = match depth {
        Depth::U8 => Samples::U8(all.map(|i| (level(i) / 256) as u8).collect()),
        Depth::U16 => Samples::U16(all.map(|i| level(i) as u16).collect()),
        Depth::F32 => Samples::F32(all.map(|i| level(i) as f32 / 65_536.0).collect()),
    };
    Image::new(30, 20, channels, samples).unwrap()
}

fn file(image: &Image) -> Vec<u8> {
    let spec = ImageSpec::new(image.channels, image.depth(), image.width, image.height);
    spec.encode(image).unwrap()
}

/// A folder with these files.
fn folder(root: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let path = root.join("in");
    fs::create_dir_all(&path).unwrap();
    for (name, bytes) in files {
        fs::write(path.join(name), bytes).unwrap();
    }
    path
}

fn made(input: &Path, out: &Path, options: &Options) -> Report {
    prepare(&[input.to_owned()], out, options, &|_, _| {}).unwrap()
}

/// The image that was made of these bytes, in its own form.
fn result(out: &Path, bytes: &[u8]) -> Image {
    let ending =
        ["png", "tif", "npy"].map(|ending| out.join(format!("{}.{ending}", sha256_bytes(bytes))));
    let path = ending.iter().find(|path| path.exists()).unwrap();
    Reading::default().decode_file(path, 0).unwrap().image
}

/// An array of bytes in NumPy's format.
fn npy(shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:117}\n");
    [
        b"\x93NUMPY\x01\0",
        &(header.len() as u16).to_le_bytes()[..],
        header.as_bytes(),
        bytes,
    ]
    .concat()
}

#[test]
fn a_set_of_one_form_keeps_it() {
    for (channels, depth, ending) in [
        (1, Depth::U8, "png"),
        (1, Depth::U16, "png"),
        (3, Depth::U16, "png"),
        (1, Depth::F32, "tif"),
        (5, Depth::U8, "npy"),
        (2, Depth::F32, "npy"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let sources = [0, 1].map(|n| image(n, channels, depth));
        let files = [("a.png", file(&sources[0])), ("b.png", file(&sources[1]))];
        let (input, out) = (folder(root.path(), &files), root.path().join("out"));
        let report = made(&input, &out, &Options::new(16));
        assert_eq!((report.images, report.made), (2, 2), "{report}");
        assert_eq!(report.form, Some((channels, depth)));
        let fitting = Fitting::new(ImageSpec::new(channels, depth, 16, 16), Fit::Crop);
        for (source, (_, bytes)) in sources.iter().zip(&files) {
            let mut expected = fit(source, &fitting).image;
            if let Samples::F32(values) = &mut expected.samples {
                // A bicubic filter overshoots, and the images stay in the range of their file.
                values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
            }
            assert_eq!(result(&out, bytes), expected);
            assert!(
                out.join(format!("{}.{ending}", sha256_bytes(bytes)))
                    .exists()
            );
        }
        let again = made(&input, &out, &Options::new(16));
        assert_eq!((again.images, again.made), (2, 0), "{again}");
        assert_eq!(again.form, report.form);
    }
}

#[test]
fn a_set_of_8_bit_rgb_has_the_index_that_it_always_had() {
    let root = tempfile::tempdir().unwrap();
    let (input, out) = (
        folder(root.path(), &[("a.png", png(0))]),
        root.path().join("out"),
    );
    let report = at_16(std::slice::from_ref(&input), &out).unwrap();
    let sha256 = sha256_bytes(&png(0));
    let written = fs::read(out.join(format!("{sha256}.png"))).unwrap();
    let square = sdft_imaging::center_crop(&picture(0, 40, 30), 16);
    assert_eq!(written, encode_png(&square).unwrap());
    let expected = format!(
        "{{\"size\":16,\"inputs\":[{:?}],\"reading\":1}}\n{{\"source\":\"a.png\",\"sha256\":\"{sha256}\",\"file\":\"{sha256}.png\",\
         \"file_sha256\":\"{}\",\"width\":40,\"height\":30}}\n",
        input.display().to_string(),
        sha256_bytes(&written)
    );
    assert_eq!(
        fs::read_to_string(out.join("index.jsonl")).unwrap(),
        expected
    );
    assert!(
        report.to_string().contains("1 image of 16x16 ("),
        "{report}"
    );
}

#[test]
fn a_set_of_grey_and_colour_becomes_rgb_in_any_order() {
    let grey = file(&image(0, 1, Depth::U8));
    let deep = file(&image(1, 1, Depth::U16));
    let rgb = file(&image(2, 3, Depth::U8));
    let orders: [[(&str, &Vec<u8>); 3]; 3] = [
        [("a.png", &grey), ("b.png", &deep), ("c.png", &rgb)],
        [("a.png", &rgb), ("b.png", &grey), ("c.png", &deep)],
        [("a.png", &deep), ("b.png", &rgb), ("c.png", &grey)],
    ];
    let mut sets = Vec::new();
    for files in orders {
        let root = tempfile::tempdir().unwrap();
        let files = files.map(|(name, bytes)| (name, bytes.clone()));
        let (input, out) = (folder(root.path(), &files), root.path().join("out"));
        let mut options = Options::new(16);
        options.threads = Some(1);
        let report = made(&input, &out, &options);
        assert_eq!((report.images, report.made), (3, 3), "{report}");
        assert_eq!(report.form, Some((3, Depth::U8)));
        assert_eq!(report.conversions.sixteen_bit, 1, "{report}");
        let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
        assert!(
            !index.contains("channels") && !index.contains("depth"),
            "{index}"
        );
        let again = made(&input, &out, &options);
        assert_eq!((again.made, again.removed), (0, 0), "{again}");
        sets.push(images(&out));
    }
    assert!(sets.iter().all(|set| *set == sets[0]));
}

#[test]
fn channels_and_depth_are_those_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let (rgb, grey) = (image(0, 3, Depth::U8), image(1, 1, Depth::U16));
    let files = [("a.png", file(&rgb)), ("b.png", file(&grey))];
    let input = folder(root.path(), &files);
    for (channels, depth) in [
        (1, Depth::U8),
        (1, Depth::U16),
        (4, Depth::U16),
        (3, Depth::U8),
    ] {
        let out = root.path().join(format!("{channels}-{depth}"));
        let options = Options {
            channels: Some(channels),
            depth: Some(depth),
            ..Options::new(16)
        };
        let report = made(&input, &out, &options);
        assert_eq!(
            (report.images, report.form),
            (2, Some((channels, depth))),
            "{report}"
        );
        for (_, bytes) in &files {
            let reading = Reading {
                channels: Some(channels),
                depth: Some(depth),
                ..Reading::default()
            };
            let decoded = reading.decode(bytes, "x", 0).unwrap().image;
            let fitting = Fitting::new(ImageSpec::new(channels, depth, 16, 16), Fit::Crop);
            assert_eq!(result(&out, bytes), fit(&decoded, &fitting).image);
        }
        // The same folder cannot get another form.
        let error = prepare(
            std::slice::from_ref(&input),
            &out,
            &Options::new(16),
            &|_, _| {},
        )
        .unwrap_err();
        assert!(matches!(error, PrepareError::Other { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("{channels} channels")),
            "{error}"
        );
    }
}

#[test]
fn transparent_images_are_composed_on_the_background_or_keep_their_alpha() {
    let root = tempfile::tempdir().unwrap();
    let clear = Image::new(2, 2, 4, Samples::U8([9, 9, 9, 0].repeat(4))).unwrap();
    let half = Image::new(2, 2, 4, Samples::U8([255, 0, 255, 128].repeat(4))).unwrap();
    let input = folder(root.path(), &[("a.png", file(&clear))]);
    let options = Options {
        background: [10, 20, 30],
        ..Options::new(8)
    };
    let out = root.path().join("out");
    let report = made(&input, &out, &options);
    assert_eq!(report.form, Some((3, Depth::U8)));
    assert_eq!(images(&out)[0].1, Rgb8::filled(8, 8, [10, 20, 30]));
    let options = Options {
        channels: Some(4),
        ..Options::new(8)
    };
    let (input, out) = (
        folder(root.path(), &[("a.png", file(&half))]),
        root.path().join("four"),
    );
    assert_eq!(made(&input, &out, &options).form, Some((4, Depth::U8)));
    let Samples::U8(values) = result(&out, &file(&half)).samples else {
        panic!("8 bits")
    };
    assert_eq!(values, [255, 0, 255, 128].repeat(64));
}

#[test]
fn images_get_any_size_by_every_fit() {
    let root = tempfile::tempdir().unwrap();
    let red = Rgb8::filled(40, 20, [255, 0, 0]);
    let bytes = encode_png(&red).unwrap();
    let input = folder(root.path(), &[("a.png", bytes.clone())]);
    for (name, fit, corner, enlarged) in [
        ("crop", Fit::Crop, [255, 0, 0], 1),
        ("pad", Fit::Pad, [0, 0, 255], 0),
        ("resize", Fit::Resize, [255, 0, 0], 1),
    ] {
        let out = root.path().join(name);
        let options = Options {
            size: [32, 24],
            fit,
            background: [0, 0, 255],
            ..Options::new(16)
        };
        let report = made(&input, &out, &options);
        assert!(report.to_string().contains("1 image of 32x24"), "{report}");
        assert_eq!(report.enlarged, enlarged, "{name}");
        let image = &images(&out)[0].1;
        assert_eq!((image.width, image.height), (24, 32));
        assert_eq!(
            (image.get(0, 0), image.get(12, 16)),
            (Some(corner), Some([255, 0, 0]))
        );
    }
    let options = Options {
        fit: Fit::RandomCrop,
        ..Options::new(16)
    };
    let error = prepare(&[input], &root.path().join("x"), &options, &|_, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("expected crop, pad or resize"),
        "{error}"
    );
}

#[test]
fn pages_are_images_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let level = |i: usize| (i * 31 % 251) as u8;
    let bytes: Vec<u8> = (0..3 * 20 * 30 * 3).map(level).collect();
    let stack = npy("(3, 20, 30, 3)", &bytes);
    let input = folder(root.path(), &[("stack.npy", stack.clone())]);
    let out = root.path().join("out");
    let report = made(&input, &out, &Options::new(16));
    assert_eq!((report.images, report.made), (3, 3), "{report}");
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    for page in 1..=3 {
        assert!(
            index.contains(&format!("\"source\":\"stack.npy#{page}\"")),
            "{index}"
        );
        let file = format!("{}-{page}.png", sha256_bytes(&stack));
        let decoded = Reading::default()
            .decode(&stack, "x", page - 1)
            .unwrap()
            .image;
        let fitting = Fitting::new(ImageSpec::rgb8(16, 16), Fit::Crop);
        let found = Reading::default()
            .decode_file(&out.join(file), 0)
            .unwrap()
            .image;
        assert_eq!(found, fit(&decoded, &fitting).image);
    }
    let again = made(&input, &out, &Options::new(16));
    assert_eq!((again.images, again.made), (3, 0), "{again}");
    fs::remove_file(out.join(format!("{}-2.png", sha256_bytes(&stack)))).unwrap();
    let again = made(&input, &out, &Options::new(16));
    assert_eq!((again.images, again.removed), (3, 0), "{again}");
}

#[test]
fn forms_without_a_common_one_are_an_error() {
    let root = tempfile::tempdir().unwrap();
    for other in [image(1, 5, Depth::U8), image(1, 3, Depth::F32)] {
        let files = [
            ("a.png", file(&image(0, 3, Depth::U8))),
            ("b", file(&other)),
        ];
        let input = folder(root.path(), &files);
        let error = at_16(&[input], &root.path().join("out")).unwrap_err();
        assert!(matches!(error, PrepareError::Forms { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("a.png (3 channels of 8 bits)") && text.contains("--channels"),
            "{text}"
        );
    }
}
