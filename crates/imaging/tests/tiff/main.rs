//! TIFF files of all kinds, made by hand, and hostile ones.

mod refused;
mod writer;

use sdft_imaging::{Depth, Reading, Samples};
use writer::{Tag, Writer, bits, error, grey8, page, photometric, read};

#[test]
fn every_header_and_byte_order_is_read() {
    for (is_big_endian, is_big) in [(false, false), (true, false), (false, true), (true, true)] {
        let writer = Writer {
            is_big_endian,
            is_big,
            is_loop: false,
        };
        let data: Vec<u8> = [1_u64, 258, 65_535]
            .iter()
            .flat_map(|&v| writer.number(v, 2))
            .collect();
        let deep = page(3, 1, vec![bits(16, 1), photometric(1)], vec![data]);
        let file = writer.write(&[deep, grey8(&[7, 8])]);
        let out = read(&file, 0);
        assert_eq!(out.image.samples, Samples::U16(vec![1, 258, 65_535]));
        assert_eq!((out.format, out.pages, out.depth), ("TIFF", 2, Depth::U16));
        assert_eq!(read(&file, 1).image.samples, Samples::U8(vec![7, 8]));
        assert_eq!(Reading::default().pages(&file, "x").unwrap(), 2);
    }
}

#[test]
fn numbers_of_all_types_keep_their_values() {
    let cases: [(u64, u64, Vec<u8>, Samples); 8] = [
        (8, 2, vec![255, 3], Samples::F32(vec![-1.0, 3.0])),
        (
            16,
            2,
            [-5_i16, 9].map(i16::to_le_bytes).concat(),
            Samples::F32(vec![-5.0, 9.0]),
        ),
        (
            32,
            2,
            [-5_i32, 9].map(i32::to_le_bytes).concat(),
            Samples::F32(vec![-5.0, 9.0]),
        ),
        (
            32,
            1,
            [5_u32, 1 << 31].map(u32::to_le_bytes).concat(),
            Samples::F32(vec![5.0, 2_147_483_648.0]),
        ),
        (16, 3, vec![0, 0x3c, 0, 0xc0], Samples::F32(vec![1.0, -2.0])),
        (
            32,
            3,
            [0.1_f32, -7.5].map(f32::to_le_bytes).concat(),
            Samples::F32(vec![0.1, -7.5]),
        ),
        (
            64,
            3,
            [0.1_f64, -7.5].map(f64::to_le_bytes).concat(),
            Samples::F32(vec![0.1, -7.5]),
        ),
        (16, 4, vec![1, 2, 3, 4], Samples::U16(vec![513, 1027])),
    ];
    for (n, format, data, expected) in cases {
        let tags = vec![bits(n, 1), photometric(1), (339, 3, vec![format])];
        let file = Writer::default().write(&[page(2, 1, tags, vec![data])]);
        let out = read(&file, 0);
        assert_eq!(out.image.samples, expected, "{n} bits, format {format}");
        assert_eq!(out.narrowed, n > 16 && format != 3 || n == 64);
    }
}

#[test]
fn few_bits_are_unpacked_and_white_may_be_0() {
    for (n, row, expected) in [
        (1, vec![0b1010_0000], vec![255, 0, 255]),
        (2, vec![0b0001_1100], vec![0, 85, 255]),
        (4, vec![0x0F, 0x70], vec![0, 255, 119]),
    ] {
        for (white_is, flip) in [(1, false), (0, true)] {
            let tags = vec![bits(n, 1), photometric(white_is)];
            let parts = vec![[&row[..], &row].concat()];
            let file = Writer::default().write(&[page(3, 2, tags, parts)]);
            let expected: Vec<u8> = expected
                .iter()
                .map(|&v| if flip { !v } else { v })
                .collect();
            assert_eq!(
                read(&file, 0).image.samples,
                Samples::U8(expected.repeat(2)),
                "{n}"
            );
        }
    }
    let deep = page(1, 1, vec![bits(16, 1), photometric(0)], vec![vec![1, 0]]);
    let out = read(&Writer::default().write(&[deep]), 0);
    assert_eq!(out.image.samples, Samples::U16(vec![65_534]));
}

#[test]
fn strips_tiles_and_planes_give_the_same_picture() {
    // 5 x 3 pixels of 2 channels.
    let sample = |x: usize, y: usize, c: usize| (100 * c + 10 * y + x) as u8;
    let rows = |from: usize, to: usize, channels: &[usize]| {
        let mut out = Vec::new();
        for y in from..to {
            for x in 0..5 {
                out.extend(channels.iter().map(|&c| sample(x, y, c)));
            }
        }
        out
    };
    let tile = |left: usize, top: usize, channels: &[usize]| {
        let mut out = Vec::new();
        for y in top..top + 16 {
            for x in left..left + 16 {
                let inside = x < 5 && y < 3;
                out.extend(
                    channels
                        .iter()
                        .map(|&c| if inside { sample(x, y, c) } else { 0 }),
                );
            }
        }
        out
    };
    let tags = |more: Vec<Tag>| {
        let tags = vec![
            bits(8, 2),
            photometric(1),
            (277, 3, vec![2]),
            (338, 3, vec![0]),
        ];
        [tags, more].concat()
    };
    let both = &[0, 1][..];
    for (name, more, parts) in [
        (
            "strips",
            vec![(278, 3, vec![2])],
            vec![rows(0, 2, both), rows(2, 3, both)],
        ),
        (
            "planes",
            vec![(278, 3, vec![2]), (284, 3, vec![2])],
            vec![
                rows(0, 2, &[0]),
                rows(2, 3, &[0]),
                rows(0, 2, &[1]),
                rows(2, 3, &[1]),
            ],
        ),
        (
            "tiles",
            vec![(322, 3, vec![16]), (323, 3, vec![16])],
            vec![tile(0, 0, both)],
        ),
        (
            "tiles of planes",
            vec![(322, 3, vec![16]), (323, 3, vec![16]), (284, 3, vec![2])],
            vec![tile(0, 0, &[0]), tile(0, 0, &[1])],
        ),
    ] {
        let file = Writer::default().write(&[page(5, 3, tags(more), parts)]);
        let out = read(&file, 0);
        assert_eq!(out.image.samples, Samples::U8(rows(0, 3, both)), "{name}");
        assert!(!out.has_alpha && out.channels == 2, "{name}");
    }
}

#[test]
fn lzw_is_read_in_strips_and_in_tiles_with_padding() {
    let lzw = |part: Vec<u8>| {
        let mut encoder = weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
        encoder.encode(&part).unwrap()
    };
    let sample =
        |x: usize, y: usize, c: usize| (((x * 31 + y * 57 + c * 91) * 2_654_435) >> 7) as u8;
    for (width, height) in [(16, 16), (17, 16), (33, 5), (17, 40), (5, 64), (1, 1)] {
        let rows = |xs: std::ops::Range<usize>, ys: std::ops::Range<usize>, channels: &[usize]| {
            let mut out = Vec::new();
            for y in ys {
                for x in xs.clone() {
                    let inside = x < width && y < height;
                    out.extend(
                        channels
                            .iter()
                            .map(|&c| if inside { sample(x, y, c) } else { 0 }),
                    );
                }
            }
            out
        };
        let expected = Samples::U8(rows(0..width, 0..height, &[0, 1]));
        for (is_tiled, is_planar) in [(false, false), (false, true), (true, false), (true, true)] {
            let planes: &[&[usize]] = if is_planar { &[&[0], &[1]] } else { &[&[0, 1]] };
            let mut parts = Vec::new();
            for channels in planes {
                for top in (0..height).step_by(if is_tiled { 16 } else { 7 }) {
                    match is_tiled {
                        true => parts.extend(
                            (0..width)
                                .step_by(16)
                                .map(|left| lzw(rows(left..left + 16, top..top + 16, channels))),
                        ),
                        false => {
                            parts.push(lzw(rows(0..width, top..height.min(top + 7), channels)))
                        }
                    }
                }
            }
            let mut tags = vec![
                bits(8, 2),
                (259, 3, vec![5]),
                photometric(1),
                (277, 3, vec![2]),
                (284, 3, vec![1 + u64::from(is_planar)]),
                (338, 3, vec![0]),
            ];
            match is_tiled {
                true => tags.extend([(322, 3, vec![16]), (323, 3, vec![16])]),
                false => tags.push((278, 3, vec![7])),
            }
            for is_big in [false, true] {
                let writer = Writer {
                    is_big,
                    is_big_endian: is_planar,
                    is_loop: false,
                };
                let page = page(width as u64, height as u64, tags.clone(), parts.clone());
                let found = read(&writer.write(&[grey8(&[1]), page]), 1);
                assert_eq!(
                    found.image.samples, expected,
                    "{width}x{height} {is_tiled} {is_planar}"
                );
            }
        }
    }
}

#[test]
fn a_channel_beyond_the_colours_is_alpha_if_the_file_says_so() {
    let rgba = |kind: Option<u64>| {
        let mut tags = vec![bits(8, 4), photometric(2), (277, 3, vec![4])];
        tags.extend(kind.map(|kind| (338, 3, vec![kind])));
        Writer::default().write(&[page(1, 1, tags, vec![vec![100, 50, 20, 128]])])
    };
    let plain = Samples::U8(vec![100, 50, 20, 128]);
    let divided = Samples::U8(vec![199, 99, 39, 128]);
    for (kind, has_alpha, expected) in [
        (Some(0), false, &plain),
        (Some(1), true, &divided),
        (Some(2), true, &plain),
        (None, true, &plain),
    ] {
        let out = read(&rgba(kind), 0);
        assert_eq!(
            (&out.image.samples, out.has_alpha),
            (expected, has_alpha),
            "{kind:?}"
        );
    }
    let rgb = Reading {
        channels: Some(3),
        ..Reading::default()
    };
    let out = rgb.decode(&rgba(Some(0)), "x", 0).unwrap();
    assert_eq!(out.image.samples, Samples::U8(vec![100, 50, 20]));
    assert!(!out.transparent);
    assert!(rgb.decode(&rgba(Some(2)), "x", 0).unwrap().transparent);
}

#[test]
fn palettes_inks_and_orientation_are_applied() {
    let map: Vec<u64> = [[0, 255], [128, 3], [7, 9]]
        .concat()
        .iter()
        .map(|v| v * 257)
        .collect();
    for map in [map.clone(), map.iter().map(|v| v >> 8).collect()] {
        let tags = vec![bits(1, 1), photometric(3), (320, 3, map)];
        let file = Writer::default().write(&[page(2, 1, tags, vec![vec![0b0100_0000]])]);
        assert_eq!(
            read(&file, 0).image.samples,
            Samples::U8(vec![0, 128, 7, 255, 3, 9])
        );
    }
    let tags = vec![bits(8, 4), photometric(5), (277, 3, vec![4])];
    let file = Writer::default().write(&[page(1, 1, tags, vec![vec![255, 0, 128, 0]])]);
    assert_eq!(read(&file, 0).image.samples, Samples::U8(vec![0, 255, 127]));
    let mut turned = grey8(&[1, 2, 3]);
    turned.tags.push((274, 3, vec![6]));
    let out = read(&Writer::default().write(&[turned]), 0);
    assert_eq!(
        (out.image.width, out.image.height, out.reoriented),
        (1, 3, true)
    );
}

#[test]
fn the_range_of_floats_is_the_files_own() {
    let data = [10.0_f32, 15.0, 20.0].map(f32::to_le_bytes).concat();
    let limit = |tag: u16, v: f64| (tag, 12, vec![v.to_bits()]);
    let tags = vec![bits(32, 1), photometric(1), (339, 3, vec![3])];
    let ranged = [tags.clone(), vec![limit(340, 10.0), limit(341, 20.0)]].concat();
    let file = Writer::default().write(&[page(3, 1, ranged, vec![data.clone()])]);
    assert_eq!(read(&file, 0).range, [10.0, 20.0]);
    let eight = Reading {
        depth: Some(Depth::U8),
        ..Reading::default()
    };
    let out = eight.decode(&file, "x", 0).unwrap();
    assert_eq!(out.image.samples, Samples::U8(vec![0, 128, 255]));
    assert_eq!(out.conversions().narrowed, 1);

    let file = Writer::default().write(&[page(3, 1, tags, vec![data])]);
    let text = eight.decode(&file, "x.tif", 0).unwrap_err().to_string();
    assert!(text.starts_with("x.tif: values from 10 to 20"), "{text}");
    let given = Reading {
        depth: Some(Depth::F32),
        range: Some([12.0, 20.0]),
        ..Reading::default()
    };
    let out = given.decode(&file, "x", 0).unwrap();
    assert_eq!(out.image.samples, Samples::F32(vec![12.0, 15.0, 20.0]));
    assert_eq!((out.clamped, out.conversions().clamped), (1, 1));
}

#[test]
fn thumbnails_are_not_pages_and_a_file_of_them_is_refused() {
    let mut small = grey8(&[1]);
    small.tags.push((254, 4, vec![1]));
    let file = Writer::default().write(&[grey8(&[7, 8]), small.clone(), grey8(&[9])]);
    assert_eq!(read(&file, 1).image.samples, Samples::U8(vec![9]));
    assert_eq!(Reading::default().pages(&file, "x").unwrap(), 2);
    let text = error(&Writer::default().write(&[small]));
    assert!(text.contains("camera raw"), "{text}");
}

#[test]
fn a_stack_of_imagej_has_pages_without_directories() {
    let stack = |images: usize| {
        let mut first = grey8(&[1, 2]);
        let text = format!("ImageJ=1.53\nimages={images}\nslices={images}\n");
        first
            .tags
            .push((270, 1, text.bytes().map(u64::from).collect()));
        // The pictures follow each other; the directory knows the first.
        first.parts = vec![vec![1, 2]];
        let mut file = Writer::default().write(&[first.clone()]);
        file.splice(10..10, [3, 4, 5, 6]);
        first.parts = vec![vec![1, 2, 3, 4, 5, 6]];
        let whole = Writer::default().write(&[first]);
        // The length of the strip is that of one picture.
        let at = whole.windows(4).rposition(|w| w == [6, 0, 0, 0]).unwrap();
        [&whole[..at], &[2], &whole[at + 1..]].concat()
    };
    let file = stack(3);
    for (k, expected) in [[1, 2], [3, 4], [5, 6]].into_iter().enumerate() {
        let out = read(&file, k);
        assert_eq!(
            (out.image.samples, out.pages),
            (Samples::U8(expected.to_vec()), 3)
        );
    }
    let text = error(&stack(1_000_000_000));
    assert!(text.contains("longer than the file"), "{text}");
}
