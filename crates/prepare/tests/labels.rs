//! The classes of prepared images, from every kind of input.

mod common;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{at_16, dataset, png, zip_file};
use parquet::{
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use sdft_data::ClassesFrom;
use sdft_files::sha256_bytes;
use sdft_prepare::{Options, Report, prepare};

/// The class of each of the images `0..n` of a set.
fn labels(out: &Path, n: usize) -> (Vec<Option<u32>>, Vec<String>) {
    let (labels, classes) = dataset(out);
    let of = |n: usize| {
        let file = format!("{}.png", sha256_bytes(&png(n)));
        labels
            .iter()
            .find(|(f, _)| *f == file)
            .map(|(_, label)| *label)
    };
    ((0..n).map(of).collect(), classes)
}

/// A column of labels.
enum Column<'a> {
    Int64(&'a [i64]),
    Int32(&'a [i32]),
    Text(&'a [&'a str]),
}

/// Writes a table of the images `0..n` with columns of labels, and the description of the library `datasets` if there is one.
fn table(path: &Path, n: usize, columns: &[(&str, Column<'_>)], description: Option<&str>) {
    let described = columns.iter().map(|(name, column)| match column {
        Column::Int64(_) => format!("required int64 {name};"),
        Column::Int32(_) => format!("required int32 {name};"),
        Column::Text(_) => format!("required binary {name} (UTF8);"),
    });
    let described: String = described.collect();
    let schema =
        format!("message rows {{ required group image {{ required binary bytes; }} {described} }}");
    let description =
        description.map(|text| KeyValue::new("huggingface".to_owned(), text.to_owned()));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(description.map(|pair| vec![pair]))
        .build();
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties))
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let images: Vec<ByteArray> = (0..n).map(|n| png(n).into()).collect();
    column
        .typed::<ByteArrayType>()
        .write_batch(&images, None, None)
        .unwrap();
    column.close().unwrap();
    for (_, values) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match values {
            Column::Int64(values) => column
                .typed::<Int64Type>()
                .write_batch(values, None, None)
                .unwrap(),
            Column::Int32(values) => column
                .typed::<Int32Type>()
                .write_batch(values, None, None)
                .unwrap(),
            Column::Text(values) => {
                let values: Vec<ByteArray> = values.iter().map(|&v| v.into()).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, None, None)
                    .unwrap()
            }
        };
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn with_classes(
    inputs: &[PathBuf],
    out: &Path,
    classes: ClassesFrom,
) -> sdft_prepare::Result<Report> {
    let options = Options {
        classes: Some(classes),
        ..Options::new(16)
    };
    prepare(inputs, out, &options, &|_, _| {})
}

#[test]
fn tables_state_the_classes_and_their_names() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.parquet");
    let class = r#"{"names": ["cat", "dog", "ant"], "_type": "ClassLabel"}"#;
    let text = |features: &str| format!(r#"{{"info": {{"features": {{{features}}}}}}}"#);
    let image =
        r#""image": {"_type": "Image"}, "boxes": [{"x": {"dtype": "int64", "_type": "Value"}}]"#;
    let one = text(&format!(r#"{image}, "style": {class}"#));
    let two = text(&format!(r#"{image}, "fine": {class}, "label": {class}"#));
    let numbers = [2, 0, -1, 2];
    let cases = [
        (
            vec![("label", Column::Int64(&numbers))],
            None,
            [Some(2), Some(0), None, Some(2)],
            vec![],
        ),
        (
            vec![("labels", Column::Int32(&[3, 1, 0, 7]))],
            None,
            [Some(3), Some(1), Some(0), Some(7)],
            vec![],
        ),
        (
            vec![
                ("style", Column::Int64(&numbers)),
                ("label", Column::Int64(&[5; 4])),
            ],
            Some(&one),
            [Some(2), Some(0), None, Some(2)],
            vec!["cat", "dog", "ant"],
        ),
        (
            vec![
                ("fine", Column::Int64(&[0; 4])),
                ("label", Column::Int64(&numbers)),
            ],
            Some(&two),
            [Some(2), Some(0), None, Some(2)],
            vec!["cat", "dog", "ant"],
        ),
        (
            vec![("label", Column::Text(&["owl", "", "bee", "owl"]))],
            None,
            [Some(1), None, Some(0), Some(1)],
            vec!["bee", "owl"],
        ),
    ];
    for (i, (columns, description, expected, classes)) in cases.into_iter().enumerate() {
        table(&path, 4, &columns, description.map(String::as_str));
        let out = root.path().join(format!("out-{i}"));
        let report = at_16(std::slice::from_ref(&path), &out).unwrap();
        assert_eq!(report.images, 4, "{report}");
        assert_eq!(
            labels(&out, 4),
            (expected.to_vec(), names(&classes)),
            "{i}: {report}"
        );
    }
    // The names may be in a file next to the table, with a configuration around them.
    let info = root.path().join("dataset_infos.json");
    fs::write(
        &info,
        format!(r#"{{"default": {{"features": {{{image}, "style": {class}}}}}}}"#),
    )
    .unwrap();
    table(&path, 4, &[("style", Column::Int64(&numbers))], None);
    let out = root.path().join("described");
    at_16(std::slice::from_ref(&path), &out).unwrap();
    assert_eq!(labels(&out, 4).1, names(&["cat", "dog", "ant"]));
    fs::remove_file(info).unwrap();
    // Several columns of classes, none of which is called label.
    let both = text(&format!(r#"{image}, "fine": {class}, "coarse": {class}"#));
    table(
        &path,
        4,
        &[
            ("fine", Column::Int64(&[0; 4])),
            ("coarse", Column::Int64(&[0; 4])),
        ],
        Some(&both),
    );
    let out = root.path().join("none");
    let report = at_16(&[path], &out).unwrap();
    assert!(!out.join("dataset.json").exists());
    assert!(
        report
            .to_string()
            .contains("the columns coarse, fine are classes, and none is called label"),
        "{report}"
    );
}

#[test]
fn subfolders_are_classes_if_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let input = root.path().join("in");
    for (n, file) in ["b/x.png", "a/deep/er.png", "b/y.png"]
        .into_iter()
        .enumerate()
    {
        let path = input.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(n)).unwrap();
    }
    let out = root.path().join("out");
    let report = at_16(std::slice::from_ref(&input), &out).unwrap();
    assert!(!report.has_labels && !out.join("dataset.json").exists());
    // The same images get their classes, and lose them again.
    let report = with_classes(std::slice::from_ref(&input), &out, ClassesFrom::Folders).unwrap();
    assert_eq!((report.images, report.made), (3, 0), "{report}");
    assert!(
        report.to_string().contains("2 classes, in dataset.json"),
        "{report}"
    );
    let expected = vec![Some(1), Some(0), Some(1)];
    assert_eq!(labels(&out, 3), (expected, names(&["a", "b"])));
    let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
    assert!(
        index.contains("\"label\":0") && index.contains("\"label\":1"),
        "{index}"
    );
    at_16(&[input], &out).unwrap();
    assert!(!out.join("dataset.json").exists());
}

#[test]
fn a_file_states_the_classes() {
    let root = tempfile::tempdir().unwrap();
    let input = root.path().join("in");
    fs::create_dir(&input).unwrap();
    for n in 0..3 {
        fs::write(input.join(format!("{n}.png")), png(n)).unwrap();
    }
    let table = root.path().join("labels.csv");
    fs::write(&table, "file,label\n0.png,dog\n1.png,cat\n2.png,dog\n").unwrap();
    let out = root.path().join("out");
    let from = ClassesFrom::File(table.clone());
    with_classes(std::slice::from_ref(&input), &out, from.clone()).unwrap();
    let expected = vec![Some(1), Some(0), Some(1)];
    assert_eq!(labels(&out, 3), (expected, names(&["cat", "dog"])));
    fs::write(&table, "file,label\n0.png,dog\n").unwrap();
    let error = with_classes(&[input], &out, from).unwrap_err().to_string();
    assert!(error.contains("1.png"), "{error}");
}

#[test]
fn data_sets_of_stylegan_and_edm_keep_their_classes() {
    let root = tempfile::tempdir().unwrap();
    let set = br#"{"labels": [["0/a.png", 1], ["0/b.png", 0]], "classes": ["x", "y"]}"#;
    let path = root.path().join("set.zip");
    zip_file(
        &path,
        &[
            ("0/a.png", png(0)),
            ("0/b.png", png(1)),
            ("dataset.json", set.to_vec()),
        ],
    );
    let out = root.path().join("out");
    let report = at_16(&[path], &out).unwrap();
    assert_eq!((report.images, report.others), (2, 0), "{report}");
    let expected = (vec![Some(1), Some(0)], names(&["x", "y"]));
    assert_eq!(labels(&out, 2), expected);
    // A prepared set is such a data set.
    let again = root.path().join("again");
    at_16(&[out], &again).unwrap();
    let (mut labels, classes) = dataset(&again);
    labels.sort_by_key(|(_, label)| *label);
    let labels: Vec<u32> = labels.into_iter().map(|(_, label)| label).collect();
    assert_eq!((labels, classes), (vec![0, 1], expected.1));
}

#[test]
fn numbers_and_names_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    let paths = ["a.parquet", "b.parquet"].map(|name| root.path().join(name));
    table(&paths[0], 1, &[("label", Column::Int64(&[4]))], None);
    table(
        &paths[1],
        2,
        &[("label", Column::Text(&["owl", "bee"]))],
        None,
    );
    let error = at_16(&paths, &root.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.parquet#0 has the number 4")
            && error.contains("b.parquet#1 has the name bee"),
        "{error}"
    );
}
