//! Tables as the writers of the world pack them.

mod common;

use std::{fs, path::Path};

use common::{Row, at_16, packed, png, table_with};
use parquet::{
    basic::{Compression, Encoding},
    file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion},
};
use sdft_files::sha256_bytes;

/// Sixty rows: some without an image, some twice, some without a name.
fn rows() -> Vec<(Option<Vec<u8>>, Option<String>)> {
    (0..60)
        .map(|n| {
            let image = (n % 7 != 3).then(|| png(n % 25));
            (image, (n % 5 != 1).then(|| format!("faces/of-{n}.png")))
        })
        .collect()
}

/// Source and hash of each row, as the index of a set made of the table has them.
fn read(path: &Path, out: &Path) -> Vec<(String, Option<String>)> {
    at_16(&[path.to_owned()], out).unwrap();
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    index
        .lines()
        .skip(1)
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            (text(&record["source"]).unwrap(), text(&record["sha256"]))
        })
        .collect()
}

#[test]
fn every_way_to_pack_a_table_gives_the_same_rows() {
    let rows = rows();
    let expected: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(n, (image, path))| {
            let name = path
                .as_ref()
                .map_or(String::new(), |path| format!(" {path}"));
            let hash = image.as_ref().map(|bytes| sha256_bytes(bytes));
            (format!("t.parquet#{n}{name}"), hash)
        })
        .collect();
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|(image, path)| (image.clone(), path.as_deref()))
        .collect();
    let ways: [(&str, fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder); 6] = [
        ("dictionary", |p| p),
        ("plain", |p| packed(p, Encoding::PLAIN)),
        ("lengths", |p| packed(p, Encoding::DELTA_LENGTH_BYTE_ARRAY)),
        ("differences", |p| packed(p, Encoding::DELTA_BYTE_ARRAY)),
        ("small pages", |p| {
            p.set_data_page_row_count_limit(7).set_write_batch_size(3)
        }),
        ("small dictionary", |p| {
            p.set_dictionary_page_size_limit(9000)
                .set_data_page_size_limit(4000)
                .set_write_batch_size(2)
        }),
    ];
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ];
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.parquet");
    let mut n = 0;
    for (name, way) in ways {
        for codec in codecs {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                let builder = WriterProperties::builder()
                    .set_compression(codec)
                    .set_writer_version(version);
                table_with(&path, &rows, 25, way(builder).build());
                n += 1;
                let found = read(&path, &root.path().join(format!("out-{n}")));
                assert_eq!(found, expected, "{name}, {codec}, {version:?}");
            }
        }
    }
}

#[test]
fn an_image_that_was_changed_in_its_table_is_left_out_alone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.parquet");
    let rows: Vec<Row<'_>> = (0..4).map(|n| (Some(png(n)), None)).collect();
    let plain = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED);
    table_with(&path, &rows, 4, packed(plain, Encoding::PLAIN).build());
    let mut bytes = fs::read(&path).unwrap();
    // In the pixels of an image, whose own checksum finds it.
    let at = bytes.windows(4).position(|w| w == b"IDAT").unwrap();
    bytes[at + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!((report.images, report.skipped.len()), (3, 1), "{report}");
}

#[test]
fn one_bad_table_does_not_end_the_folder() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let root = tempfile::tempdir().unwrap();
    let input = root.path().join("in");
    fs::create_dir(&input).unwrap();
    for name in ["long-binary-9.parquet", "long-binary-10.parquet"] {
        fs::copy(fixtures.join(name), input.join(name)).unwrap();
    }
    fs::write(input.join("a.png"), png(0)).unwrap();
    let rows: Vec<Row<'_>> = vec![(Some(png(1)), None)];
    table_with(
        &input.join("z.parquet"),
        &rows,
        1,
        WriterProperties::builder().build(),
    );
    let report = at_16(&[input], &root.path().join("out")).unwrap();
    assert!(report.images >= 2, "{report}");
    assert!(!report.skipped.is_empty(), "{report}");
}
