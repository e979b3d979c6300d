//! The channels, depth and range that are asked for.

use std::io::Cursor;

use image::{
    DynamicImage, GrayAlphaImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba, RgbaImage,
};
use sdft_imaging::{Depth, Reading};

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

#[test]
fn channels_and_depth_of_the_file_are_kept_unless_others_are_asked_for() {
    use sdft_imaging::Samples;
    let native = Reading::default();
    let asked = |channels, depth| Reading {
        channels: Some(channels),
        depth: Some(depth),
        ..native
    };
    let read = |reading: Reading, bytes: &[u8]| {
        let out = reading.decode(bytes, "x.png", 0).unwrap();
        (out.image.channels, out.image.samples)
    };
    let grey: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(1, 1, Luma([0x12FF]));
    let grey = encoded(grey, ImageFormat::Png);
    assert_eq!(read(native, &grey), (1, Samples::U16(vec![0x12FF])));
    assert_eq!(
        read(asked(3, Depth::U16), &grey),
        (3, Samples::U16(vec![0x12FF; 3]))
    );
    assert_eq!(
        read(asked(4, Depth::U16), &grey),
        (4, Samples::U16(vec![0x12FF, 0x12FF, 0x12FF, 0xFFFF]))
    );
    assert_eq!(
        read(asked(1, Depth::U8), &grey),
        (1, Samples::U8(vec![0x12]))
    );
    let half = [f32::from(0x12FF_u16) / 65_535.0];
    assert_eq!(
        read(asked(1, Depth::F32), &grey),
        (1, Samples::F32(half.to_vec()))
    );

    let rgb: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(1, 1, Rgb([60_000, 1, 300]));
    let rgb = encoded(rgb, ImageFormat::Png);
    // (19595 * 60000 + 38470 + 7471 * 300 + 32768) >> 16
    assert_eq!(
        read(asked(1, Depth::U16), &rgb),
        (1, Samples::U16(vec![17_975]))
    );
    let error = asked(5, Depth::U16).decode(&rgb, "x.png", 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.png: expected 5 channels, found 3 (red, green, blue)"
    );

    let rgba = RgbaImage::from_pixel(1, 1, Rgba([200, 10, 60, 51]));
    let rgba = encoded(rgba, ImageFormat::Png);
    assert_eq!(read(native, &rgba), (4, Samples::U8(vec![200, 10, 60, 51])));
    assert_eq!(
        read(asked(4, Depth::U16), &rgba),
        (4, Samples::U16(vec![200 * 257, 2570, 60 * 257, 51 * 257]))
    );
    let black = Reading {
        background: [0; 3],
        ..asked(3, Depth::U8)
    };
    assert_eq!(read(black, &rgba), (3, Samples::U8(vec![40, 2, 12])));
    let grey_alpha = GrayAlphaImage::from_pixel(1, 1, LumaA([90, 51]));
    let grey_alpha = encoded(grey_alpha, ImageFormat::Png);
    assert_eq!(read(native, &grey_alpha), (2, Samples::U8(vec![90, 51])));
    assert_eq!(
        read(asked(1, Depth::U8), &grey_alpha),
        (1, Samples::U8(vec![222]))
    );
    assert_eq!(
        read(asked(4, Depth::U8), &grey_alpha),
        (4, Samples::U8(vec![90, 90, 90, 51]))
    );
    let error = Reading::default().decode(&rgba, "x.png", 1).unwrap_err();
    assert!(
        error.to_string().contains("page 1 does not exist"),
        "{error}"
    );
}

#[test]
fn a_range_clamps_and_counts_what_is_outside() {
    use sdft_imaging::Samples;
    let grey: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_fn(3, 1, |x, _| Luma([[0, 4095, 4096][x as usize]]));
    let bytes = encoded(grey, ImageFormat::Png);
    let reading = Reading {
        depth: Some(Depth::U16),
        range: Some([100.0, 4095.0]),
        ..Reading::default()
    };
    let out = reading.decode(&bytes, "x.png", 0).unwrap();
    assert_eq!(out.image.samples, Samples::U16(vec![100, 4095, 4095]));
    assert_eq!((out.clamped, out.range), (2, [100.0, 4095.0]));
}
