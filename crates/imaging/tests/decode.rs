//! All formats, and hostile files.
//! long: all tests share the files that they make

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, GrayAlphaImage, GrayImage, ImageBuffer, ImageEncoder as _,
    ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::{gif::GifEncoder, jpeg::JpegEncoder, png::PngEncoder},
};
use sdft_imaging::{
    Decoded, Depth, ImagingError, Limits, Reading, Rgb8, decode_as_pillow, decode_bytes,
    decode_file, encode_png,
};

fn decode_described(bytes: &[u8], origin: &str, limits: &Limits) -> Result<Decoded, ImagingError> {
    Reading::rgb8(*limits).decode(bytes, origin, 0)
}

fn shown(decoded: &Decoded) -> Rgb8 {
    Rgb8::from_image(decoded.image.clone())
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn decoded(bytes: &[u8]) -> Rgb8 {
    decode_bytes(bytes, &Limits::default()).unwrap()
}

fn picture() -> RgbImage {
    RgbImage::from_fn(9, 6, |x, y| Rgb([x as u8 * 20, y as u8 * 40, 7]))
}

/// A smooth picture, which JPEG preserves within a few levels.
fn smooth_jpeg(width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 4) as u8, (y * 4) as u8, 100])
    });
    encoded(image, ImageFormat::Jpeg)
}

/// An uncompressed PNG chunk.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    let mut crc = u32::MAX;
    for &byte in &body {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    [
        &(data.len() as u32).to_be_bytes()[..],
        &body,
        &(!crc).to_be_bytes(),
    ]
    .concat()
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes()[..],
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header)].concat()
}

#[test]
fn lossless_formats_keep_every_pixel() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let out = decoded(&encoded(picture(), format));
        assert_eq!((out.width, out.height), (9, 6));
        assert_eq!(out.pixels, picture().into_raw(), "{format:?}");
    }
}

#[test]
fn jpeg_keeps_the_picture_within_a_few_levels() {
    let out = decoded(&smooth_jpeg(32, 16));
    assert_eq!((out.width, out.height), (32, 16));
    let [r, g, b] = out.get(16, 8).unwrap();
    assert!(
        r.abs_diff(64) < 8 && g.abs_diff(32) < 8 && b.abs_diff(100) < 8,
        "{r} {g} {b}"
    );
}

#[test]
fn grey_is_replicated() {
    let grey = GrayImage::from_fn(3, 2, |x, y| Luma([(10 * x + y) as u8]));
    let bytes = encoded(grey, ImageFormat::Png);
    let out = decode_described(&bytes, "grey", &Limits::default()).unwrap();
    assert_eq!(shown(&out).get(2, 1), Some([21; 3]));
    assert!(out.grey && !out.transparent && out.depth == Depth::U8);
}

#[test]
fn transparency_is_composed_on_white_and_reported() {
    let described = |bytes: &[u8]| decode_described(bytes, "x", &Limits::default()).unwrap();
    let pillow = |bytes: &[u8]| decode_as_pillow(bytes, &Limits::default()).unwrap();

    let grey_alpha = GrayAlphaImage::from_fn(3, 1, |x, _| LumaA([90, [0, 51, 255][x as usize]]));
    let bytes = encoded(grey_alpha, ImageFormat::Png);
    let out = described(&bytes);
    // 255 + (90 - 255) / 5
    let expected = [[255; 3], [222; 3], [90; 3]].concat();
    assert_eq!(shown(&out).pixels, expected);
    assert!(out.grey && out.transparent);
    assert_eq!(out.conversions().transparent, 1);
    assert_eq!(pillow(&bytes).pixels, [90; 9]);

    let rgba = RgbaImage::from_fn(2, 1, |x, _| Rgba([200, 10, 60, [0, 255][x as usize]]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let out = described(&encoded(rgba.clone(), format));
        assert_eq!(
            shown(&out).pixels,
            [255, 255, 255, 200, 10, 60],
            "{format:?}"
        );
        assert!(out.transparent, "{format:?}");
    }
    let bytes = encoded(rgba, ImageFormat::Png);
    assert_eq!(pillow(&bytes).pixels, [200, 10, 60, 200, 10, 60]);

    let deep: ImageBuffer<LumaA<u16>, Vec<u16>> =
        ImageBuffer::from_pixel(1, 1, LumaA([0x1234, 0x00FF]));
    let out = described(&encoded(deep, ImageFormat::Png));
    assert!(out.transparent && out.depth == Depth::U16);
    assert_eq!(shown(&out).pixels, [255; 3]);
}

#[test]
fn opaque_pictures_with_a_fourth_channel_keep_every_pixel() {
    let opaque = RgbaImage::from_fn(16, 16, |x, y| Rgba([16 * x as u8, 16 * y as u8, 77, 255]));
    let expected: Vec<u8> = opaque.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        let bytes = encoded(opaque.clone(), format);
        let out = decode_described(&bytes, "opaque", &Limits::default()).unwrap();
        assert!(!out.transparent, "{format:?}");
        assert_eq!(shown(&out).pixels, expected, "{format:?}");
    }
    // A bitmap whose fourth channel is unused.
    let unused = RgbaImage::from_pixel(2, 2, Rgba([9, 8, 7, 0]));
    let out = decode_described(
        &encoded(unused, ImageFormat::Bmp),
        "bmp",
        &Limits::default(),
    )
    .unwrap();
    assert!(!out.transparent);
    assert_eq!(shown(&out), Rgb8::filled(2, 2, [9, 8, 7]));
}

#[test]
fn sixteen_bits_keep_their_upper_byte() {
    let grey: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Luma([0x12FF]));
    let out = decode_described(&encoded(grey, ImageFormat::Png), "x", &Limits::default()).unwrap();
    assert_eq!(shown(&out).get(0, 0), Some([0x12; 3]));
    assert!(out.depth == Depth::U16 && out.grey);

    let rgba: ImageBuffer<Rgba<u16>, Vec<u16>> =
        ImageBuffer::from_pixel(2, 2, Rgba([0xFFFF, 0x80FF, 0x00FF, 0xFF00]));
    let out = decoded(&encoded(rgba, ImageFormat::Png));
    assert_eq!(out.get(0, 0), Some([0xFF, 0x80, 0x00]));
}

/// A PNG of two pixels with the indices 1 and 0.
fn palette_png(more: &[Vec<u8>]) -> Vec<u8> {
    let header = [
        &2_u32.to_be_bytes()[..],
        &1_u32.to_be_bytes(),
        &[4, 3, 0, 0, 0],
    ]
    .concat();
    // A stored zlib stream: filter byte and one byte of two 4-bit indices.
    let data = [0x00, 0x10];
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a += byte;
        b += a;
    }
    let mut zlib = vec![0x78, 0x01, 0x01, 2, 0, 0xFD, 0xFF];
    zlib.extend(data.map(|v| v as u8));
    zlib.extend((b << 16 | a).to_be_bytes());
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"PLTE", &[9, 8, 7, 200, 100, 50]),
        more.concat(),
        chunk(b"IDAT", &zlib),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn palettes_are_expanded() {
    assert_eq!(decoded(&palette_png(&[])).pixels, [200, 100, 50, 9, 8, 7]);
}

#[test]
fn transparent_entries_of_a_palette_are_white() {
    let png = palette_png(&[chunk(b"tRNS", &[0])]);
    assert_eq!(decoded(&png).pixels, [200, 100, 50, 255, 255, 255]);
    let out = decode_as_pillow(&png, &Limits::default()).unwrap();
    assert_eq!(out.pixels, [200, 100, 50, 9, 8, 7]);
}

#[test]
fn a_gif_gives_its_first_frame() {
    let mut bytes = Vec::new();
    {
        let mut encoder = GifEncoder::new(&mut bytes);
        for colour in [[200, 10, 60], [0, 0, 255]] {
            let frame = RgbImage::from_pixel(4, 3, Rgb(colour));
            encoder
                .encode(&frame, 4, 3, ExtendedColorType::Rgb8)
                .unwrap();
        }
    }
    let out = decode_described(&bytes, "gif", &Limits::default()).unwrap();
    assert_eq!(out.format, "GIF");
    assert!(out.animated && out.conversions().animated == 1);
    assert_eq!(shown(&out), Rgb8::filled(4, 3, [200, 10, 60]));
}

/// A GIF of one 2x1 frame in colours 1 and 2 at (1, 1) of a 4x3 screen.
fn small_frame(transparent: Option<u8>) -> Vec<u8> {
    let palette = [0, 200, 0, 255, 0, 0, 0, 0, 255, 9, 9, 9];
    let mut out = Vec::new();
    let mut encoder = gif::Encoder::new(&mut out, 4, 3, &palette).unwrap();
    let frame = gif::Frame {
        left: 1,
        top: 1,
        width: 2,
        height: 1,
        transparent,
        buffer: vec![1, 2].into(),
        ..gif::Frame::default()
    };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    out
}

#[test]
fn a_gif_frame_smaller_than_its_screen_is_put_on_the_screen() {
    let out = decode_described(&small_frame(None), "gif", &Limits::default()).unwrap();
    // The uncovered part has the first colour, as in Pillow.
    let mut expected = Rgb8::filled(4, 3, [0, 200, 0]);
    expected.pixels[3 * 5..3 * 7].copy_from_slice(&[255, 0, 0, 0, 0, 255]);
    assert_eq!(shown(&out), expected);
    assert!(!out.transparent && !out.animated);

    let bytes = small_frame(Some(2));
    let out = decode_described(&bytes, "gif", &Limits::default()).unwrap();
    let mut expected = Rgb8::filled(4, 3, [255; 3]);
    expected.pixels[3 * 5..3 * 6].copy_from_slice(&[255, 0, 0]);
    assert_eq!(shown(&out), expected);
    assert!(out.transparent);
    let out = decode_as_pillow(&bytes, &Limits::default()).unwrap();
    assert_eq!(
        (out.get(0, 0), out.get(2, 1)),
        (Some([0, 0, 255]), Some([0, 0, 255]))
    );
}

/// A TIFF block whose only entry is the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"II*\0\x08\0\0\0\x01\0".to_vec();
    tiff.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    tiff.extend([0; 4]);
    tiff
}

#[test]
fn the_exif_orientation_is_applied() {
    let image = picture();
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder
        .write_image(image.as_raw(), 9, 6, ExtendedColorType::Rgb8)
        .unwrap();
    let out = decode_described(&bytes, "png", &Limits::default()).unwrap();
    assert!(out.reoriented);
    assert_eq!((shown(&out).width, shown(&out).height), (6, 9));
    // Rotated by 90 degrees clockwise, the bottom left corner is at the top left.
    assert_eq!(shown(&out).get(0, 0), Some(image.get_pixel(0, 5).0));
    assert_eq!(shown(&out).get(5, 8), Some(image.get_pixel(8, 0).0));

    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(8)).unwrap();
    let wide = RgbImage::from_fn(32, 16, |x, _| Rgb(if x < 16 { [255; 3] } else { [0; 3] }));
    encoder
        .write_image(wide.as_raw(), 32, 16, ExtendedColorType::Rgb8)
        .unwrap();
    let out = decoded(&bytes);
    assert_eq!((out.width, out.height), (16, 32));
    // Rotated by 90 degrees counter-clockwise, the left half is at the bottom.
    assert!(out.get(8, 2).unwrap()[0] < 20 && out.get(8, 29).unwrap()[0] > 235);
}

/// A JPEG with a segment inserted after its start.
fn with_segment(jpeg: &[u8], marker: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, marker], &length, data, &jpeg[2..]].concat()
}

#[test]
fn an_orientation_as_a_long_number_in_xmp_or_behind_the_pixels_is_applied_too() {
    let jpeg = smooth_jpeg(32, 16);
    let long = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0";
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>";
    let png = encoded(picture(), ImageFormat::Png);
    let end = png.len() - 12;
    let text = [
        &b"XML:com.adobe.xmp\0\0\0\0\0"[..],
        b"<tiff:Orientation>6</tiff:Orientation>",
    ]
    .concat();
    let behind = |kind, data: &[u8]| [&png[..end], &chunk(kind, data), &png[end..]].concat();
    for (name, bytes, sides) in [
        ("long", with_segment(&jpeg, 0xE1, long), (16, 32)),
        ("xmp", with_segment(&jpeg, 0xE1, xmp), (16, 32)),
        ("behind", behind(b"eXIf", &exif(6)), (6, 9)),
        ("text", behind(b"iTXt", &text), (6, 9)),
    ] {
        let out = decode_described(&bytes, name, &Limits::default()).unwrap();
        assert_eq!((shown(&out).width, shown(&out).height), sides, "{name}");
        assert!(
            out.reoriented && out.conversions().reoriented == 1,
            "{name}"
        );
        let stored = decode_as_pillow(&bytes, &Limits::default()).unwrap();
        assert_eq!((stored.height, stored.width), sides, "{name}");
    }
    // EXIF takes precedence.
    let both = with_segment(
        &with_segment(&jpeg, 0xE1, xmp),
        0xE1,
        &[b"Exif\0\0", &exif(1)[..]].concat(),
    );
    assert!(
        !decode_described(&both, "both", &Limits::default())
            .unwrap()
            .reoriented
    );
}

#[test]
fn a_small_file_that_claims_many_pixels_is_refused_and_the_setting_named() {
    let mut bytes = smooth_jpeg(16, 16);
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x32, 0xC8, 0x32, 0xC8]);
    let error = decode_bytes(&bytes, &Limits::default()).unwrap_err();
    assert!(matches!(error, ImagingError::TooLarge { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("13000x13000") && text.contains("SDFT_IMAGE_MAX_PIXELS_PER_BYTE"),
        "{text}"
    );
}

#[test]
fn a_picture_of_very_many_scans_is_refused() {
    let jpeg = smooth_jpeg(16, 16);
    let scan = jpeg.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
    let end = jpeg.len() - 2;
    let many = [&jpeg[..scan], &jpeg[scan..end].repeat(101), &jpeg[end..]].concat();
    let error = decode_bytes(&many, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("101 scans"), "{error}");
}

#[test]
fn the_content_decides_and_not_the_extension() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really-a.png.jpg");
    std::fs::write(&path, encoded(picture(), ImageFormat::Png)).unwrap();
    let out = decode_file(&path, &Limits::default()).unwrap();
    assert_eq!(out.pixels, picture().into_raw());
}

#[test]
fn a_prefix_is_an_error_or_the_whole_picture() {
    let mut gif = Vec::new();
    GifEncoder::new(&mut gif)
        .encode(&picture(), 9, 6, ExtendedColorType::Rgb8)
        .unwrap();
    let files = [
        ("png", encoded(picture(), ImageFormat::Png)),
        ("bmp", encoded(picture(), ImageFormat::Bmp)),
        ("webp", encoded(picture(), ImageFormat::WebP)),
        ("jpeg", smooth_jpeg(24, 17)),
        ("gif", gif),
    ];
    for (name, bytes) in files {
        let whole = decoded(&bytes);
        for n in 0..bytes.len() {
            if let Ok(out) = decode_bytes(&bytes[..n], &Limits::default()) {
                assert_eq!(out, whole, "{name}: {n} of {} bytes", bytes.len());
            }
        }
        assert!(
            decode_bytes(&bytes[..bytes.len() / 2], &Limits::default()).is_err(),
            "{name}"
        );
    }
}

#[test]
fn damaged_bytes_never_panic() {
    for bytes in [encoded(picture(), ImageFormat::Png), smooth_jpeg(24, 17)] {
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xA5;
            // Other pixels are fine; a panic, or a picture of another size than claimed, is not.
            if let Ok(out) = decode_bytes(&broken, &Limits::default()) {
                assert_eq!(out.pixels.len(), 3 * out.width * out.height);
            }
        }
    }
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let bomb = png_header(100_000, 100_000);
    let error = decode_bytes(&bomb, &Limits::default()).unwrap_err();
    assert!(matches!(error, ImagingError::TooLarge { .. }), "{error}");

    // Each side is allowed but the area is not. There are no bytes after the header, so the check was before decoding.
    let wide = [png_header(30_000, 30_000), chunk(b"IDAT", &[])].concat();
    let error = decode_bytes(&wide, &Limits::default()).unwrap_err();
    assert!(matches!(error, ImagingError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("30000x30000"), "{error}");

    let small = Limits {
        max_side: 8,
        ..Limits::default()
    };
    for format in [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Jpeg,
    ] {
        let error = decode_bytes(&encoded(picture(), format), &small).unwrap_err();
        assert!(
            matches!(error, ImagingError::TooLarge { .. }),
            "{format:?}: {error}"
        );
    }
    let few = Limits {
        max_bytes: 9 * 6 * 3 - 1,
        ..Limits::default()
    };
    let error = decode_bytes(&encoded(picture(), ImageFormat::Bmp), &few).unwrap_err();
    assert!(matches!(error, ImagingError::TooLarge { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_a_picture_is_described() {
    let error = decode_bytes(b"", &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("no bytes"), "{error}");
    let error = decode_bytes(b"<!DOCTYPE html>", &Limits::default()).unwrap_err();
    assert!(
        matches!(error, ImagingError::UnknownFormat { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("\"<!DOCTYPE html>\""), "{error}");
    assert!(error.reason().starts_with("expected a PNG"), "{error}");
    let heic = decode_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", &Limits::default());
    let text = heic.unwrap_err().to_string();
    assert!(
        text.contains("found HEIC, which is not read") && text.contains("convert it to PNG"),
        "{text}"
    );

    let folder = tempfile::tempdir().unwrap();
    let error = decode_file(folder.path(), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("a folder"), "{error}");
    let missing = folder.path().join("missing.png");
    let error = decode_file(&missing, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("missing.png"), "{error}");

    let large = folder.path().join("large.png");
    std::fs::write(&large, encode_png(&Rgb8::filled(9, 9, [1; 3])).unwrap()).unwrap();
    let tiny = Limits {
        max_bytes: 10,
        ..Limits::default()
    };
    let error = decode_file(&large, &tiny).unwrap_err();
    assert!(
        error.to_string().contains("large.png") && error.to_string().contains("10 bytes"),
        "{error}"
    );
}
