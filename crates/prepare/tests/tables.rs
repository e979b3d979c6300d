//! Tables as different writers encode them.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Row, at_16, images, packed, png, table, table_with};
use parquet::{
    basic::{Compression, Encoding},
    file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion},
};
use sdft_files::sha256_bytes;
use sdft_prepare::PrepareError;

/// 60 rows: some without an image, some twice, some without a name.
fn rows() -> Vec<(Option<Vec<u8>>, Option<String>)> {
    (0..60)
        .map(|n| {
            let image = (n % 7 != 3).then(|| png(n % 25));
            (image, (n % 5 != 1).then(|| format!("faces/of-{n}.png")))
        })
        .collect()
}

/// Source and hash of each row, from the index of a set made of the table.
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
fn every_encoding_gives_the_same_rows() {
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
    type Way = fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder;
    let ways: [(&str, Way); 6] = [
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
    // Changes the pixels of an image, whose own checksum detects it.
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

#[test]
fn a_wrong_row_count_is_reported() {
    const ROWS: usize = 37;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");
    let rows: Vec<_> = (0..ROWS).map(|n| (Some(png(n)), None)).collect();
    table(&path, &rows, ROWS);
    let whole = fs::read(&path).unwrap();
    let footer = whole.len()
        - 8
        - u32::from_le_bytes(whole[whole.len() - 8..][..4].try_into().unwrap()) as usize;
    // The row count in the footer: twice, one byte each.
    let places: Vec<usize> = (footer..whole.len() - 8)
        .filter(|&at| whole[at] == 2 * ROWS as u8)
        .collect();
    assert!(places.len() >= 3, "{places:?}");
    let mut told = 0;
    for (i, at) in places.into_iter().enumerate() {
        let mut lying = whole.clone();
        lying[at] -= 4;
        fs::write(&path, lying).unwrap();
        match at_16(
            std::slice::from_ref(&path),
            &root.path().join(format!("out-{i}")),
        ) {
            Err(_) => told += 1,
            Ok(report) if report.skipped.is_empty() => assert_eq!(report.images, ROWS, "{report}"),
            Ok(_) => told += 1,
        }
    }
    assert!(told > 0);
}

#[test]
fn tables_give_their_rows_with_names_and_without() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");
    let rows: Vec<(Option<Vec<u8>>, Option<&str>)> = vec![
        (Some(png(0)), Some("one.png")),
        (Some(png(1)), None),
        (None, Some("gone.png")),
        (Some(b"junk".to_vec()), Some("../../up.png")),
        (Some(png(0)), Some("twice.png")),
        (Some(png(2)), Some("/abs.png")),
        (Some(png(3)), Some("one.png")),
    ];
    table(&path, &rows, 3);
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!(report.images, 4);
    let skipped: Vec<_> = report.skipped.iter().map(|s| s.source.as_str()).collect();
    assert_eq!(
        skipped,
        ["train.parquet#2 gone.png", "train.parquet#3 ../../up.png"]
    );
    assert_eq!(report.duplicates[0].source, "train.parquet#4 twice.png");
    assert_eq!(images(&root.path().join("out")).len(), 4);
}

#[test]
fn a_damaged_table_loses_only_the_damaged_rows_and_names_them() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");
    let rows: Vec<_> = (0..8).map(|n| (Some(png(n)), None)).collect();
    table(&path, &rows, 4);
    // The first page header of the first row group.
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[4..20] {
        *byte = 0xff;
    }
    fs::write(&path, bytes).unwrap();
    let report = at_16(&[path], &root.path().join("out")).unwrap();
    assert_eq!(report.images, 4, "{report}");
    assert!(
        report.skipped[0]
            .reason
            .contains("rows 0 to 3 cannot be read"),
        "{report}"
    );
}

#[test]
fn a_table_of_something_else_names_its_columns() {
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("text.parquet");
    let schema = "message rows { required binary text (UTF8); required int64 label; }";
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let file = fs::File::create(&path).unwrap();
    let properties = WriterProperties::builder().build();
    SerializedFileWriter::new(file, schema.into(), properties.into())
        .unwrap()
        .close()
        .unwrap();
    let error = at_16(&[path], &root.path().join("out")).unwrap_err();
    assert!(matches!(error, PrepareError::Column { .. }), "{error}");
    assert!(
        error.to_string().contains("the columns text, label"),
        "{error}"
    );
}

#[test]
fn tables_of_the_same_name_keep_separate_rows() {
    let root = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = ["train", "test"]
        .iter()
        .enumerate()
        .map(|(n, part)| {
            fs::create_dir(root.path().join(part)).unwrap();
            let path = root.path().join(part).join("0000.parquet");
            table(&path, &[(Some(png(n)), None)], 1);
            path
        })
        .collect();
    let out = root.path().join("out");
    assert_eq!(at_16(&paths, &out).unwrap().images, 2);
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert!(
        index.contains("train/0000.parquet#0") && index.contains("test/0000.parquet#0"),
        "{index}"
    );
}
