//! The embedded digits: files, classes and a few pixels computed by hand.

use std::path::Path;

use sdft_data::{DataError, Digits, DigitsOptions, DigitsSource, Fit, ImageSource, Place, Style};
use sdft_imaging::{Depth, Rgb8, Samples, to_unit_range, write_png};
use sdft_noise::{Draw, Purpose};

const N: usize = Digits::SIZE * Digits::SIZE;

/// The colour at (x, y) of a rendered digit.
fn colour(image: &[f32], x: usize, y: usize) -> [f32; 3] {
    [0, 1, 2].map(|c| image[c * N + y * Digits::SIZE + x])
}

#[track_caller]
fn assert_close(got: [f32; 3], expected: [f32; 3]) {
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 2e-6, "{got:?} is not {expected:?}");
    }
}

#[test]
fn chalk_follows_the_recipe_at_pixels_computed_by_hand() {
    let zero = Digits::embedded().unwrap().render(0, Style::Chalk);
    // The margin and the empty corner of the scan have the background colour.
    for (x, y) in [(0, 0), (15, 9), (2, 2)] {
        assert_close(colour(&zero, x, y), [-0.45, -0.40, -0.20]);
    }
    // (6, 3) is between columns 2, 3 and rows 0, 1 of the scan: levels 79, 207, 207, 239 with mean 183.
    // u = (183 / 255 - 0.25) / 0.5 = 0.935294, v = u^2 (3 - 2u) = 0.987980.
    assert_close(colour(&zero, 6, 3), [0.883_773, 0.933_773, 0.985_576]);
}

#[test]
fn ember_adds_hatch_and_grain_to_the_same_shape() {
    let digits = Digits::embedded().unwrap();
    let zero = digits.render(0, Style::Ember);
    let mut g = [0.0; N];
    Draw::new(0, Purpose::Grain, 0, 0).fill_uniform(&mut g);
    let expected = |x: usize, y: usize, base: [f32; 3], v: f32| {
        let grain = 0.36 * (g[16 * y + x] - 0.5) * (1.0 - 0.6 * v);
        [
            base[0] + grain,
            base[1] + 0.7 * grain,
            base[2] + 0.4 * grain,
        ]
        .map(|c| c.clamp(-1.0, 1.0))
    };
    assert_close(
        colour(&zero, 0, 0),
        expected(0, 0, [-0.15, -0.50, -0.70], 0.0),
    );
    // Hatched, because 6 + 3 = 9: s = v = 0.987980.
    let v = 0.987_980;
    let base = [-0.15 + 1.15 * v, -0.50 + 1.15 * v, -0.70 + 0.45 * v];
    assert_close(colour(&zero, 6, 3), expected(6, 3, base, v));
    // Not hatched, because 9 + 6 = 15: levels 0, 175, 0, 127 with mean 75.5, u = 0.092157, v = 0.023913, s = 0.72 v.
    let (v, s) = (0.023_913, 0.72 * 0.023_913);
    let base = [-0.15 + 1.15 * s, -0.50 + 1.15 * s, -0.70 + 0.45 * s];
    assert_close(colour(&zero, 9, 6), expected(9, 6, base, v));

    assert_ne!(zero[..16], digits.render(10, Style::Ember)[..16]);
    assert!(zero.iter().all(|v| (-1.0..=1.0).contains(v)));
}

#[test]
fn the_set_has_its_classes() {
    let digits = Digits::embedded().unwrap();
    assert_eq!(digits.labels().len(), 1797);
    assert_eq!(digits.labels()[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    // The published counts of this set.
    let counts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        .map(|class| digits.subset(&[class], usize::MAX).unwrap().len());
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn a_subset_takes_the_first_of_each_class() {
    let digits = Digits::embedded().unwrap();
    let biased = digits.subset(&[7, 1, 4, 1], 30).unwrap();
    assert_eq!(biased.len(), 90);
    assert_eq!(biased[..4], [1, 4, 7, 11]);
    assert!(biased.is_sorted());
    for class in [1, 4, 7] {
        let of_class = |i: &&usize| digits.labels()[**i] == class;
        assert_eq!(biased.iter().filter(of_class).count(), 30);
    }
    assert_eq!(digits.subset(&[], usize::MAX).unwrap().len(), 1797);
    assert_eq!(digits.subset(&[], 1).unwrap().len(), 10);
    let message = digits.subset(&[3, 12], 1).unwrap_err().to_string();
    assert!(message.contains("12"), "{message}");
}

#[test]
fn as_a_data_set_the_digits_pass_through_8_bits() {
    let digits = Digits::embedded().unwrap();
    let source = DigitsSource::new(digits.clone(), Style::Ember, &[1, 4, 7], 30).unwrap();
    assert_eq!((source.len(), source.spec().width), (90, 16));
    assert_eq!(source.labels()[..4], [1, 4, 7, 1]);
    assert_eq!(source.id(3), "digits/0011");
    let (got, exact) = (
        to_unit_range(&source.screen(3).unwrap()),
        digits.render(11, Style::Ember),
    );
    for (got, exact) in got.iter().zip(&exact) {
        assert!((got - exact).abs() <= 0.5 / 127.5 + 1e-6, "{got} {exact}");
    }
    assert!(matches!(
        source.screen(90),
        Err(DataError::Index { index: 90, len: 90 })
    ));
    assert_eq!(source.id(90), "");
    assert!(matches!(
        DigitsSource::new(digits, Style::Chalk, &[1], 0),
        Err(DataError::Option { .. })
    ));
}

fn source(change: impl FnOnce(&mut DigitsOptions)) -> DigitsSource {
    let mut options = DigitsOptions::new(Style::Ember);
    (options.digits, options.per_class) = (vec![7, 1, 4], 2);
    change(&mut options);
    DigitsSource::with_options(&Digits::embedded().unwrap(), &options).unwrap()
}

#[test]
fn digits_come_in_every_form() {
    let plain = source(|_| {});
    let same = DigitsSource::new(Digits::embedded().unwrap(), Style::Ember, &[1, 4, 7], 2).unwrap();
    assert!(
        (0..6)
            .all(|i| plain.item(i, Place::CENTRE).unwrap() == same.item(i, Place::CENTRE).unwrap())
    );

    let grey = source(|o| o.form.channels = 1);
    let Samples::U8(levels) = grey.image(0).unwrap().samples else {
        panic!("8 bits")
    };
    let rgb = plain.screen(0).unwrap().pixels;
    // Pillow's convert("L").
    let luma = |p: &[u8]| {
        let sum = 19_595 * u32::from(p[0]) + 38_470 * u32::from(p[1]) + 7_471 * u32::from(p[2]);
        ((sum + 0x8000) >> 16) as u8
    };
    let expected: Vec<u8> = rgb.chunks(3).map(luma).collect();
    assert_eq!(levels, expected);

    let deep = source(|o| o.form.depth = Depth::U16);
    let exact = Digits::embedded().unwrap().render(1, Style::Ember);
    let got = deep.spec().to_unit_range(&deep.image(0).unwrap());
    assert!(got.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 2e-5));
    let floats = source(|o| (o.form.depth, o.form.range) = (Depth::F32, Some([-2.0, 2.0])));
    let got = floats.spec().to_unit_range(&floats.image(0).unwrap());
    assert!(got.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-6));

    let rgba = source(|o| o.form.channels = 4).image(0).unwrap();
    let Samples::U8(values) = rgba.samples else {
        panic!("8 bits")
    };
    let alpha: Vec<u8> = values.chunks(4).map(|p| p[3]).collect();
    assert!(alpha[0] == 0 && alpha.contains(&255));
    assert!(values.chunks(4).map(|p| &p[..3]).eq(rgb.chunks(3)));
}

#[test]
fn digits_are_fitted_into_other_shapes() {
    for fit in [Fit::Crop, Fit::RandomCrop, Fit::Pad, Fit::Resize] {
        let source = source(|o| (o.form.size, o.form.fit, o.form.channels) = ([24, 16], fit, 1));
        assert_eq!(source.spec().shape(), [1, 24, 16]);
        let item = source.item(0, Place { x: 0.0, y: 0.0 }).unwrap();
        assert_eq!((item.image.height, item.image.width), (24, 16));
        assert_eq!(item.mask.is_some(), fit == Fit::Pad);
        let right = source.item(0, Place { x: 1.0, y: 0.0 }).unwrap();
        assert_eq!(item != right, fit == Fit::RandomCrop);
    }
}

#[test]
fn a_digit_is_its_class_only_if_asked_for() {
    let with = source(|o| o.labelled = true);
    assert_eq!(with.classes(), ["1", "4", "7"]);
    let labels: Vec<_> = (0..7).map(|i| with.label(i)).collect();
    assert_eq!(labels[..4], [Some(0), Some(1), Some(2), Some(0)]);
    assert_eq!(labels[6], None);
    let without = source(|_| {});
    assert!(without.classes().is_empty() && without.label(0).is_none());
}

#[test]
fn forms_that_digits_cannot_have_are_refused() {
    let refused = |change: fn(&mut DigitsOptions)| {
        let mut options = DigitsOptions::new(Style::Chalk);
        change(&mut options);
        let error = DigitsSource::with_options(&Digits::embedded().unwrap(), &options);
        error.unwrap_err().to_string()
    };
    assert!(refused(|o| o.form.channels = 5).contains("1 (grey), 3, or 4"));
    assert!(refused(|o| o.form.size = [0, 4]).contains("image size"));
    assert!(refused(|o| o.form.range = Some([0.0, 999.0])).contains("because the depth is 8"));
}

#[test]
fn the_folder_and_the_embedded_files_are_the_same() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/digits");
    let loaded = Digits::load(Path::new(folder)).unwrap();
    assert_eq!(loaded, Digits::embedded().unwrap());
}

#[test]
fn broken_digit_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let scans = folder.path().join("digits-8x8.png");
    let labels = folder.path().join("labels.txt");
    let message = || Digits::load(folder.path()).unwrap_err().to_string();
    assert!(message().contains("digits-8x8.png"));
    write_png(&scans, &Rgb8::filled(16, 8, [255; 3])).unwrap();
    assert!(message().contains("labels.txt"));
    std::fs::write(&labels, "1x").unwrap();
    assert!(message().contains("'x' at position 1"), "{}", message());
    std::fs::write(&labels, "123").unwrap();
    assert!(message().contains("found 3"), "{}", message());
    std::fs::write(&labels, "").unwrap();
    assert!(message().contains("found 0"), "{}", message());
    std::fs::write(&labels, "12\n").unwrap();
    assert_eq!(Digits::load(folder.path()).unwrap().labels(), [1, 2]);
    write_png(&scans, &Rgb8::filled(17, 8, [255; 3])).unwrap();
    assert!(message().contains("17x8"), "{}", message());
}

#[test]
fn styles_have_names() {
    for style in Style::ALL {
        assert_eq!(style.to_string().parse::<Style>().unwrap(), style);
        let json = serde_json::to_string(&style).unwrap();
        assert_eq!(json, format!("\"{style}\""));
    }
    let message = "ink".parse::<Style>().unwrap_err().to_string();
    assert!(
        message.contains("chalk or ember") && message.contains("ink"),
        "{message}"
    );
}
