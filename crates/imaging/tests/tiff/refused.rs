//! Files that are damaged, hostile or not supported.

use crate::writer::{Tag, Writer, bits, error, grey8, page, photometric};
use sdft_imaging::Reading;

#[test]
fn truncated_lzw_and_tiles_far_larger_than_the_picture_are_refused() {
    let lzw = |part: &[u8]| {
        let mut encoder = weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
        encoder.encode(part).unwrap()
    };
    let write = |width: u64, height: u64, tags: Vec<Tag>, parts: Vec<Vec<u8>>| {
        let tags = [vec![bits(8, 1), (259, 3, vec![5]), photometric(1)], tags].concat();
        Writer::default().write(&[page(width, height, tags, parts)])
    };
    let text = error(&write(20, 2, vec![], vec![lzw(&[7; 39])]));
    assert!(text.contains("truncated"), "{text}");
    let tiles = vec![(322, 3, vec![4096]), (323, 3, vec![4096])];
    let part = lzw(&vec![7; 4096 * 4096]);
    let text = error(&write(1, 30_000, tiles, vec![part; 8]));
    assert!(text.contains("expected about 30000"), "{text}");
}

#[test]
fn what_is_not_supported_is_named() {
    let with = |tags: Vec<Tag>, channels: usize| {
        error(&Writer::default().write(&[page(1, 1, tags, vec![vec![0; 16 * channels]])]))
    };
    for (tags, channels, expected) in [
        (vec![bits(12, 1), photometric(1)], 1, "12 bits"),
        (
            vec![bits(64, 1), photometric(1), (339, 3, vec![6])],
            1,
            "complex numbers",
        ),
        (
            vec![bits(8, 1), photometric(1), (259, 3, vec![50_000])],
            1,
            "Zstandard",
        ),
        (
            vec![bits(8, 3), photometric(8), (277, 3, vec![3])],
            3,
            "Lab",
        ),
        (vec![bits(16, 1), photometric(32_803)], 1, "camera"),
        (
            vec![bits(8, 3), photometric(6), (277, 3, vec![3])],
            3,
            "subsampled chroma",
        ),
        (
            vec![(258, 3, vec![8, 16, 8]), photometric(2), (277, 3, vec![3])],
            3,
            "differ in bits",
        ),
        (
            vec![bits(1, 1), photometric(1), (266, 3, vec![2])],
            1,
            "FillOrder",
        ),
        (
            vec![bits(8, 1), photometric(2)],
            1,
            "1 channels, expected 3",
        ),
        (vec![bits(8, 1)], 1, "photometric"),
    ] {
        let text = with(tags, channels);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_prefix_is_an_error_and_damage_never_panics() {
    let file = Writer::default().write(&[grey8(&[1, 2, 3, 4, 5, 6]), grey8(&[7])]);
    for n in 0..file.len() {
        assert!(
            Reading::default().decode(&file[..n], "x", 0).is_err(),
            "{n}"
        );
    }
    for at in 0..file.len() {
        for change in [0xFF, 0x01, 0x80] {
            let mut broken = file.clone();
            broken[at] ^= change;
            if let Ok(out) = Reading::default().decode(&broken, "x", 0) {
                let image = out.image;
                assert_eq!(
                    image.samples.len(),
                    image.width * image.height * image.channels
                );
            }
            let _ = Reading::default().pages(&broken, "x");
        }
    }
}

#[test]
fn hostile_files_are_refused_before_they_take_memory() {
    let writer = Writer {
        is_loop: true,
        ..Writer::default()
    };
    let text = error(&writer.write(&[grey8(&[1]), grey8(&[2])]));
    assert!(text.contains("loop"), "{text}");

    let mut wide = grey8(&[1]);
    wide.tags[0] = (256, 4, vec![30_000]);
    wide.tags[1] = (257, 4, vec![30_000]);
    assert!(error(&Writer::default().write(&[wide.clone()])).contains("exceeds"));
    wide.tags[0] = (256, 4, vec![4_000_000_000]);
    assert!(error(&Writer::default().write(&[wide])).contains("exceeds"));

    let mut channels = grey8(&[1]);
    channels.tags.push((277, 3, vec![65_535]));
    channels.tags[0] = (256, 3, vec![20_000]);
    channels.tags[1] = (257, 3, vec![20_000]);
    assert!(error(&Writer::default().write(&[channels])).contains("exceeds"));

    let mut tiles = grey8(&[1]);
    tiles
        .tags
        .extend([(322, 4, vec![1 << 31]), (323, 4, vec![1 << 31])]);
    assert!(error(&Writer::default().write(&[tiles])).contains("tiles"));

    // A table of 2^40 tiles.
    let mut table = grey8(&[1]);
    table.tags.extend([(322, 3, vec![16]), (323, 3, vec![16])]);
    let big = Writer {
        is_big: true,
        ..Writer::default()
    };
    let file = big.write(&[table]);
    let at = file
        .windows(4)
        .position(|w| w == [0x44, 0x01, 16, 0])
        .unwrap();
    let mut hostile = file.clone();
    hostile[at + 4..at + 12].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let text = error(&hostile);
    assert!(text.contains("broken TIFF"), "{text}");
}
