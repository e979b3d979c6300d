//! Inputs to prepare, and the content of prepared folders.
#![allow(dead_code, reason = "not every test uses every helper")]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    basic::Encoding,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{
        properties::{WriterProperties, WriterPropertiesBuilder},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png};
use sdft_prepare::{Options, Report, Result, prepare};
use zip::{ZipWriter, write::SimpleFileOptions};

/// A different picture for every number.
pub(crate) fn picture(n: usize, width: usize, height: usize) -> Rgb8 {
    let level = |i: usize| ((i * 7 + n * 31 + i * i * (n + 1) / 5) % 256) as u8;
    Rgb8::new(width, height, (0..3 * width * height).map(level).collect()).unwrap()
}

/// The PNG file of [`picture`].
pub(crate) fn png(n: usize) -> Vec<u8> {
    encode_png(&picture(n, 40, 30)).unwrap()
}

/// Prepares images of 16 pixels.
pub(crate) fn at_16(inputs: &[PathBuf], out: &Path) -> Result<Report> {
    prepare(inputs, out, &Options::new(16), &|_, _| {})
}

/// Writes a zip file with these entries.
pub(crate) fn zip_file(path: &Path, entries: &[(&str, Vec<u8>)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// A row of a table: bytes and path.
pub(crate) type Row<'a> = (Option<Vec<u8>>, Option<&'a str>);

/// Writes a table as the Hub stores images: a struct of bytes and path, and a label that cycles from 0 to 9.
pub(crate) fn table(path: &Path, rows: &[Row<'_>], rows_per_group: usize) {
    table_with(
        path,
        rows,
        rows_per_group,
        WriterProperties::builder().build(),
    );
}

/// Like [`table`], with writer properties.
pub(crate) fn table_with(
    path: &Path,
    rows: &[Row<'_>],
    rows_per_group: usize,
    properties: WriterProperties,
) {
    let schema = "message rows { optional group image { optional binary bytes; optional binary path (UTF8); } required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(rows_per_group) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = |values: Vec<Option<Vec<u8>>>| {
            let levels: Vec<i16> = values
                .iter()
                .map(|v| if v.is_some() { 2 } else { 1 })
                .collect();
            let values: Vec<ByteArray> =
                values.into_iter().flatten().map(ByteArray::from).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
        };
        column(rows.iter().map(|(bytes, _)| bytes.clone()).collect());
        column(
            rows.iter()
                .map(|(_, path)| path.map(|p| p.as_bytes().to_vec()))
                .collect(),
        );
        let mut label = group.next_column().unwrap().unwrap();
        label
            .typed::<Int64Type>()
            .write_batch(
                &(0..rows.len() as i64).map(|i| i % 10).collect::<Vec<_>>(),
                None,
                None,
            )
            .unwrap();
        label.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Writes bytes and paths with this encoding, without a dictionary.
pub(crate) fn packed(
    builder: WriterPropertiesBuilder,
    encoding: Encoding,
) -> WriterPropertiesBuilder {
    let column = |name: &str| ColumnPath::from(vec!["image".to_owned(), name.to_owned()]);
    ["bytes", "path"]
        .iter()
        .fold(builder.set_dictionary_enabled(false), |builder, name| {
            builder.set_column_encoding(column(name), encoding)
        })
}

/// The images of a prepared folder, by file name.
pub(crate) fn images(out: &Path) -> Vec<(String, Rgb8)> {
    let mut names: Vec<String> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".png"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let image = decode_file(&out.join(&name), &Limits::default()).unwrap();
            (name, image)
        })
        .collect()
}

/// All files below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The labels and classes in a prepared folder.
pub(crate) fn dataset(out: &Path) -> (Vec<(String, u32)>, Vec<String>) {
    let text = fs::read_to_string(out.join("dataset.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let classes = value.get_mut("classes").map(serde_json::Value::take);
    (
        serde_json::from_value(value["labels"].take()).unwrap(),
        classes.map_or_else(Vec::new, |classes| serde_json::from_value(classes).unwrap()),
    )
}
