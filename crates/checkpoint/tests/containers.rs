//! Old and split containers, unusual types, missing checksums, and values that are not finite.

mod common;
mod network;

use common::{Py, dict, legacy, t, zip};
use network::{assert_network, found, wanted, weights};
use sdft_checkpoint::{Dtype, Error, Prefer, ReadOptions, read, read_bytes};
use std::collections::BTreeMap;

#[test]
fn old_containers_of_every_protocol_are_read() {
    for protocol in 2..=5 {
        let file = legacy(&dict(weights("", 1.0)), protocol);
        let state = read_bytes("old.pt", &file, &wanted(Prefer::Ema)).unwrap();
        assert_network(&state, 1.0);
    }
}

#[test]
fn odd_types_next_to_the_weights_do_not_hide_them() {
    let odd = [
        ("u", Py::Untyped("uint16", 2, vec![1, 0, 2, 0])),
        ("f8", Py::Untyped("float8_e4m3fn", 1, vec![0x38, 0x40])),
        ("c", Py::Typed("ComplexFloatStorage", 8, vec![0; 16])),
        ("q", Py::Untyped("bits1x8", 1, vec![0; 3])),
    ];
    let file = dict([
        ("model", dict(weights("", 1.0))),
        ("extra", dict(odd.clone())),
    ]);
    assert_network(&found(&file, Prefer::Ema).0, 1.0);
    for protocol in [2, 4] {
        let old = legacy(&file, protocol);
        assert_network(&read_bytes("f", &old, &wanted(Prefer::Ema)).unwrap(), 1.0);
    }
    let key = |key: &str| ReadOptions {
        key: Some(key.into()),
        ..ReadOptions::default()
    };
    let read_odd = dict([("m", dict(odd[..2].to_vec()))]);
    let state = read_bytes("f", &zip(&read_odd), &key("m")).unwrap();
    let u: Vec<i64> = state.get("u").unwrap().to_vec1().unwrap();
    let f8: Vec<f32> = state.get("f8").unwrap().to_vec1().unwrap();
    assert_eq!((u, f8), (vec![1, 2], vec![1.0, 2.0]));
    assert_eq!(state.summary.dtypes[&Dtype::F8E4M3], 1);
    let error = read_bytes("f", &zip(&file), &key("extra")).unwrap_err();
    assert!(
        error.to_string().contains("c: numbers of type complex64"),
        "{error}"
    );
}

#[test]
fn values_that_are_not_finite_are_named_by_tensor_and_count() {
    let mut values = vec![1.0; 6];
    values[1] = f32::NAN;
    values[2] = f32::INFINITY;
    values[3] = f32::NEG_INFINITY;
    let mut bad = weights("", 1.0);
    bad[0].1 = Py::Tensor(vec![2, 3], values);
    bad[2].1 = Py::Tensor(vec![2], vec![f32::NAN, 0.0]);
    let file = dict(bad);
    for bytes in [zip(&file), legacy(&file, 2)] {
        let error = read_bytes("w.pt", &bytes, &wanted(Prefer::Ema)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("w.pt: 2 tensors"), "{text}");
        assert!(
            text.contains("embed.0.weight: 1 of 6 values is NaN, 2 are infinite"),
            "{text}"
        );
        assert!(text.contains("out.bias: 1 of 2 values is NaN"), "{text}");
        assert!(matches!(error, Error::NotFinite { tensors, .. } if tensors.len() == 2));
        let allowed = ReadOptions {
            allow_non_finite: true,
            ..wanted(Prefer::Ema)
        };
        assert_eq!(read_bytes("w.pt", &bytes, &allowed).unwrap().len(), 3);
    }
    // What is too large for f32, and the short types.
    let f64s: Vec<u8> = [1.0f64, 1e300]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let file = dict([
        ("big", Py::Typed("DoubleStorage", 8, f64s)),
        ("half", Py::Typed("HalfStorage", 2, vec![0, 0x7c, 0, 0])),
        (
            "brain",
            Py::Typed("BFloat16Storage", 2, vec![0xc0, 0x7f, 0, 0]),
        ),
    ]);
    let text = read_bytes("f", &zip(&file), &ReadOptions::default())
        .unwrap_err()
        .to_string();
    for part in [
        "big: 1 of 2 values is infinite",
        "half: 1 of 2 values is infinite",
        "brain: 1 of 2 values is NaN",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let keep = ReadOptions {
        keep_dtype: true,
        ..ReadOptions::default()
    };
    let text = read_bytes("f", &zip(&file), &keep).unwrap_err().to_string();
    assert!(text.contains("half:") && !text.contains("big:"), "{text}");
    // A long list is cut.
    let many = dict((0..50).map(|i| (format!("t{i}"), Py::Tensor(vec![2], vec![f32::NAN; 2]))));
    let text = read_bytes("f", &zip(&many), &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("50 tensors") && text.contains("and 40 more") && text.lines().count() < 15,
        "{text}"
    );
}

#[test]
fn an_archive_without_checksums_is_read_with_a_note() {
    let mut bytes = zip(&dict(weights("", 1.0)));
    for at in 0..bytes.len() - 4 {
        match &bytes[at..at + 4] {
            b"PK\x01\x02" => bytes[at + 16..at + 20].fill(0),
            b"PK\x03\x04" => bytes[at + 14..at + 18].fill(0),
            _ => {}
        }
    }
    let state = read_bytes("f", &bytes, &wanted(Prefer::Ema)).unwrap();
    assert_network(&state, 1.0);
    assert!(
        state.notes().join("").contains("no checksums for 3 of 3"),
        "{:?}",
        state.notes()
    );
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let sound = zip(&dict(weights("", 1.0)));
    let mut bytes = sound.clone();
    let places: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&at| &bytes[at..at + 4] == b"PK\x01\x02")
        .collect();
    // The third entry of the directory points to the second one's bytes.
    let (from, to) = (places[1] + 42, places[2] + 42);
    let offset = bytes[from..from + 4].to_vec();
    bytes[to..to + 4].copy_from_slice(&offset);
    let error = read_bytes("f", &bytes, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn weights_in_several_files_are_read_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let w = |first: f32, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| first + i as f32).collect();
        candle_core::Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap()
    };
    let (a, b) = (w(1.0, &[2, 3]), w(1.0, &[3]));
    let none = BTreeMap::new();
    let first = [("embed.0.weight", &a), ("blocks.1.0.weight", &b)];
    sdft_checkpoint::write_safetensors(&path("m-00001-of-00002.safetensors"), first, &none, None)
        .unwrap();
    std::fs::write(
        path("m-00002-of-00002.bin"),
        zip(&dict([("out.bias", t(&[2], 1.0))])),
    )
    .unwrap();
    let index = |last: &str| {
        format!(
            "{{\"metadata\": {{\"total_size\": 44}}, \"weight_map\": {{\"embed.0.weight\": \"m-00001-of-00002.safetensors\", \
             \"blocks.1.0.weight\": \"m-00001-of-00002.safetensors\", \"out.bias\": \"{last}\"}}}}"
        )
    };
    let file = path("m.safetensors.index.json");
    std::fs::write(&file, index("m-00002-of-00002.bin")).unwrap();
    let state = read(&file, &wanted(Prefer::Ema)).unwrap();
    assert_network(&state, 1.0);
    // Its hash covers the files.
    let before = sdft_checkpoint::sha256_weights(&file).unwrap();
    std::fs::write(
        path("m-00002-of-00002.bin"),
        zip(&dict([("out.bias", t(&[2], 9.0))])),
    )
    .unwrap();
    assert_ne!(sdft_checkpoint::sha256_weights(&file).unwrap(), before);

    std::fs::write(&file, index("m-00001-of-00002.safetensors")).unwrap();
    let error = read(&file, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("1 of 3 tensors are not in the files") && error.contains("out.bias"),
        "{error}"
    );
    for outside in ["../m.bin", "/etc/passwd", "sub/m.bin", ""] {
        std::fs::write(&file, index(outside)).unwrap();
        let error = read(&file, &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("in its own folder"), "{error}");
    }
    let twice = index("m-00002-of-00002.bin").replacen("blocks.1.0.weight", "embed.0.weight", 1);
    std::fs::write(&file, twice).unwrap();
    let error = read(&file, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("embed.0.weight occurs twice"), "{error}");
    std::fs::write(&file, index("m.safetensors.index.json")).unwrap();
    let error = read(&file, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("found another index"), "{error}");
    std::fs::write(&file, index("gone.bin")).unwrap();
    let error = read(&file, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("gone.bin: no such file"), "{error}");
}
