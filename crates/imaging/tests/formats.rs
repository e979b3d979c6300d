//! NumPy's arrays, and colour profiles.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder as _, Rgb, RgbImage, codecs::png::PngEncoder};
use moxcms::ColorProfile;
use sdft_imaging::{Depth, Profile, Reading, Samples};
use sdft_npz::{Array, encode_npy, encode_npz};

fn decode(bytes: &[u8], page: usize) -> sdft_imaging::Result<sdft_imaging::Decoded> {
    Reading::default().decode(bytes, "x.npy", page)
}

#[test]
fn arrays_of_two_to_four_axes_are_pictures() {
    let grey = encode_npy(&Array::u8([2, 3], (0..6).collect()).unwrap()).unwrap();
    let out = decode(&grey, 0).unwrap();
    let image = out.image;
    assert_eq!((image.width, image.height, image.channels), (3, 2, 1));
    assert_eq!(image.samples, Samples::U8((0..6).collect()));
    let asked = Reading {
        channels: Some(3),
        depth: Some(Depth::U8),
        ..Reading::default()
    };
    let rgb = asked.decode(&grey, "x", 0).unwrap().image;
    assert_eq!((rgb.channels, rgb.samples.len()), (3, 18));

    let five = Array::u16([1, 1, 5], vec![1, 2, 3, 4, 65_535]).unwrap();
    let text = decode(&encode_npy(&five).unwrap(), 0)
        .unwrap_err()
        .to_string();
    assert!(text.contains("moveaxis"), "{text}");
    let five = Array::u16([5, 1, 5], (0..25).collect()).unwrap();
    let five = encode_npy(&five).unwrap();
    let image = decode(&five, 0).unwrap().image;
    assert_eq!(image.samples, Samples::U16((0..25).collect()));
    let text = asked.decode(&five, "x", 0).unwrap_err().to_string();
    assert_eq!(text, "x: expected 3 channels, found 5");

    let many = Array::f64([3, 1, 2, 1], (0..6).map(f64::from).collect()).unwrap();
    let archive = encode_npz(
        &[
            ("arr_0", &many),
            ("labels", &Array::i64([1], vec![7]).unwrap()),
        ],
        true,
    );
    for file in [encode_npy(&many).unwrap(), archive.unwrap()] {
        assert_eq!(Reading::default().pages(&file, "x").unwrap(), 3);
        let out = decode(&file, 2).unwrap();
        assert_eq!(out.image.samples, Samples::F32(vec![4.0, 5.0]));
        assert!(out.narrowed && out.pages == 3);
        assert!(decode(&file, 3).is_err());
    }
    let two = encode_npz(&[("a", &many), ("b", &many)], false).unwrap();
    let text = decode(&two, 0).unwrap_err().to_string();
    assert!(
        text.contains("arr_0") && text.contains("\"a\", \"b\""),
        "{text}"
    );
}

#[test]
fn an_array_that_is_not_a_picture_is_refused_with_what_to_do() {
    for (shape, expected) in [
        (vec![3, 60, 70], "numpy.moveaxis(a, 0, -1)"),
        (vec![3, 8, 8], "numpy.moveaxis(a, 0, -1)"),
        (vec![2, 3, 90, 80], "numpy.moveaxis(a, 1, -1)"),
        (vec![7], "[height, width]"),
        (vec![0, 4], "no pixels"),
    ] {
        let n = shape.iter().product();
        let array = Array::u8(shape.clone(), vec![0; n]).unwrap();
        let text = decode(&encode_npy(&array).unwrap(), 0)
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{shape:?}: {text}");
    }
    // 2^60 values.
    let mut hostile = encode_npy(&Array::u8([4, 4], vec![0; 16]).unwrap()).unwrap();
    let at = hostile.windows(6).position(|w| w == b"(4, 4)").unwrap();
    let shape = b"(1073741824, 1073741824)";
    let blanks = hostile.len() - 17 - shape.len();
    hostile.drain(blanks..blanks + shape.len() - 6);
    hostile.splice(at..at + 6, *shape);
    for text in [
        decode(&hostile, 0).unwrap_err().to_string(),
        Reading::default()
            .pages(&hostile, "x")
            .unwrap_err()
            .to_string(),
    ] {
        assert!(text.contains("need 1152921504606846976 bytes"), "{text}");
    }
}

/// A PNG of one colour with a profile.
fn with_profile(icc: Vec<u8>, rgb: [u8; 3]) -> Vec<u8> {
    let image = RgbImage::from_pixel(2, 1, Rgb(rgb));
    let mut out = Cursor::new(Vec::new());
    let mut encoder = PngEncoder::new(&mut out);
    encoder.set_icc_profile(icc).unwrap();
    let pixels = image.as_raw();
    encoder
        .write_image(pixels, 2, 1, ExtendedColorType::Rgb8)
        .unwrap();
    out.into_inner()
}

#[test]
fn another_colour_space_is_converted_and_srgb_is_left_alone() {
    let p3 = with_profile(
        ColorProfile::new_display_p3().encode().unwrap(),
        [200, 100, 50],
    );
    let out = decode(&p3, 0).unwrap();
    // The same colour in sRGB is more saturated.
    assert_eq!(out.image.samples, Samples::U8([215, 93, 31].repeat(2)));
    assert!(matches!(&out.profile, Some(Profile::Converted(name)) if name.contains("P3")));
    assert_eq!(
        (out.conversions().profile, out.conversions().ignored_profile),
        (1, 0)
    );
    let pillow = Reading {
        as_pillow: true,
        ..Reading::default()
    };
    let out = pillow.decode(&p3, "x", 0).unwrap();
    assert_eq!(out.image.samples, Samples::U8([200, 100, 50].repeat(2)));
    assert_eq!(out.profile, None);

    let srgb = with_profile(ColorProfile::new_srgb().encode().unwrap(), [200, 100, 50]);
    let out = decode(&srgb, 0).unwrap();
    assert_eq!(out.image.samples, Samples::U8([200, 100, 50].repeat(2)));
    assert_eq!((out.profile, out.image.channels), (Some(Profile::Srgb), 3));
}

#[test]
fn code_points_of_png_state_the_colour_space_too() {
    let plain = {
        let mut out = Cursor::new(Vec::new());
        let encoder = PngEncoder::new(&mut out);
        let pixels = [200, 100, 50].repeat(2);
        encoder
            .write_image(&pixels, 2, 1, ExtendedColorType::Rgb8)
            .unwrap();
        out.into_inner()
    };
    let read = |points: [u8; 4]| {
        let content = [&b"cICP"[..], &points].concat();
        let checksum = crc32fast::hash(&content).to_be_bytes();
        let chunk = [&4_u32.to_be_bytes()[..], &content, &checksum].concat();
        let out = decode(&[&plain[..33], &chunk, &plain[33..]].concat(), 0).unwrap();
        (out.profile.unwrap(), out.image.samples)
    };
    let unchanged = Samples::U8([200, 100, 50].repeat(2));
    assert_eq!(read([1, 13, 0, 1]), (Profile::Srgb, unchanged.clone()));
    let (profile, samples) = read([12, 13, 0, 1]);
    assert!(matches!(profile, Profile::Converted(_)), "{profile:?}");
    assert_eq!(samples, Samples::U8([215, 93, 31].repeat(2)));
    for points in [[9, 16, 0, 1], [9, 18, 0, 1], [250, 13, 0, 1], [2, 2, 0, 1]] {
        let (profile, samples) = read(points);
        assert!(
            matches!(profile, Profile::Ignored { .. }),
            "{points:?} {profile:?}"
        );
        assert_eq!(samples, unchanged);
    }
}

#[test]
fn a_profile_that_cannot_be_applied_is_named_and_changes_nothing() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let mut cmyk = p3.clone();
    cmyk[16..20].copy_from_slice(b"CMYK");
    let gray = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    for (icc, expected) in [
        (b"no profile".to_vec(), "cannot be read"),
        (p3[..200].to_vec(), "cannot be read"),
        (cmyk, "inks"),
        (gray, "grey"),
        (vec![0; 17 << 20], "larger than 16 MiB"),
    ] {
        let out = decode(&with_profile(icc, [200, 100, 50]), 0).unwrap();
        assert_eq!(out.image.samples, Samples::U8([200, 100, 50].repeat(2)));
        let Some(Profile::Ignored { reason, .. }) = &out.profile else {
            panic!("{:?}", out.profile)
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(out.conversions().ignored_profile, 1);
    }
    // A profile of 100 MB takes a few KB in the file.
    let bomb = with_profile(vec![0; 100 << 20], [1, 2, 3]);
    let text = decode(&bomb, 0).map(|out| format!("{:?}", out.profile));
    let text = text.unwrap_or_else(|error| error.to_string());
    assert!(
        text.contains("Ignored") || text.contains("exceeds"),
        "{text}"
    );
}
