//! Files made with PyTorch (fixtures/make.py) read as PyTorch has them.

use candle_core::{DType, Tensor};
use sdft_checkpoint::{
    Container, Dtype, Prefer, ReadOptions, StateDict, describe, read, write_safetensors,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// Fails unless names, order, shapes and values are those of `which`.
fn assert_holds(state: &StateDict, which: &str) {
    let want = &expected()[which];
    assert_eq!(state.len(), want.as_object().unwrap().len());
    for (name, tensor) in state.iter() {
        let want = &want[name];
        let shape: Vec<usize> = want["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| usize::try_from(n.as_u64().unwrap()).unwrap())
            .collect();
        assert_eq!(tensor.dims(), shape, "{name}");
        let values: Vec<f64> = want["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        let got: Vec<f64> = tensor
            .to_dtype(DType::F64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        for (got, want) in got.iter().zip(&values) {
            // f64 values are rounded to f32, everything else is exact.
            assert!(
                (got - want).abs() <= 1e-7 * want.abs(),
                "{name}: {got} {want}"
            );
        }
    }
}

#[test]
fn both_containers_hold_the_same_tensors_views_and_types_included() {
    for (name, container) in [
        ("zip.pt", Container::TorchZip),
        ("legacy.pt", Container::TorchLegacy),
    ] {
        let state = read(&fixture(name), &ReadOptions::default()).unwrap();
        assert_eq!(state.summary.container, container);
        assert_eq!(state.summary.nested_under, None);
        assert_eq!(state.iter().next().unwrap().0, "conv.weight");
        assert_holds(&state, "raw");
        assert!(
            state
                .iter()
                .filter(|(n, _)| !["bn.num_batches_tracked", "mask"].contains(n))
                .all(|(_, t)| t.dtype() == DType::F32)
        );
        let kept = read(
            &fixture(name),
            &ReadOptions {
                keep_dtype: true,
                ..ReadOptions::default()
            },
        )
        .unwrap();
        let dtype = |name: &str| kept.get(name).unwrap().dtype();
        assert_eq!(
            [dtype("half"), dtype("bfloat"), dtype("double")],
            [DType::F16, DType::BF16, DType::F64]
        );
        assert_eq!(
            [dtype("bn.num_batches_tracked"), dtype("mask")],
            [DType::I64, DType::U8]
        );
    }
}

#[test]
fn nested_weights_are_found_and_the_moving_average_comes_first() {
    for name in ["zip_nested.pt", "legacy_nested.pt"] {
        let state = read(&fixture(name), &ReadOptions::default()).unwrap();
        assert_eq!(state.summary.nested_under.as_deref(), Some("ema"));
        assert!(
            state.summary.alternatives.contains(&"model".to_owned()),
            "{:?}",
            state.summary.alternatives
        );
        assert!(
            state.notes()[0].contains("took the weights under \"ema\""),
            "{:?}",
            state.notes()
        );
        assert!(
            state
                .summary
                .opaque
                .contains(&"argparse.Namespace".to_owned()),
            "{:?}",
            state.summary.opaque
        );
        assert_holds(&state, "ema");
        let raw = read(
            &fixture(name),
            &ReadOptions {
                prefer: Prefer::Raw,
                ..ReadOptions::default()
            },
        )
        .unwrap();
        assert_holds(&raw, "raw");
        let named = read(
            &fixture(name),
            &ReadOptions {
                key: Some("model".into()),
                ..ReadOptions::default()
            },
        )
        .unwrap();
        assert_holds(&named, "raw");
        let error = read(
            &fixture(name),
            &ReadOptions {
                key: Some("modle".into()),
                ..ReadOptions::default()
            },
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("\"modle\"") && error.contains("\"model\" (13 tensors)"),
            "{error}"
        );
    }
    let state = read(&fixture("zip_state_dict.pt"), &ReadOptions::default()).unwrap();
    assert_eq!(state.summary.nested_under.as_deref(), Some("state_dict"));
    assert!(state.notes().is_empty());
    assert_holds(&state, "raw");
}

#[test]
fn a_tensor_next_to_the_weights_and_a_name_like_ema_do_not_hide_them() {
    for prefer in [Prefer::Ema, Prefer::Raw] {
        let options = ReadOptions {
            prefer,
            ..ReadOptions::default()
        };
        let state = read(&fixture("extra.pt"), &options).unwrap();
        assert_eq!(state.summary.nested_under.as_deref(), Some("model"));
        let a: Vec<f32> = state.get("a").unwrap().to_vec1().unwrap();
        assert_eq!((state.len(), a), (2, vec![1.0, 1.0]));
    }
}

#[test]
fn a_legacy_view_begins_at_its_offset() {
    let state = read(&fixture("legacy_view.pt"), &ReadOptions::default()).unwrap();
    let view: Vec<f32> = state.get("view").unwrap().to_vec1().unwrap();
    assert_eq!(view, [3.0, 4.0, 5.0]);
}

#[test]
fn big_endian_legacy_numbers_are_refused() {
    let error = read(&fixture("legacy_big_endian.pt"), &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("big-endian"), "{error}");
}

#[test]
fn the_prefix_of_a_parallel_wrapper_is_taken_off() {
    let state = read(&fixture("module.pt"), &ReadOptions::default()).unwrap();
    assert_eq!(state.summary.prefix, "module.");
    assert_holds(&state, "raw");
}

#[test]
fn a_summary_needs_no_numbers() {
    let summary = describe(&fixture("zip.pt"), &ReadOptions::default()).unwrap();
    assert_eq!(summary.tensors.len(), 13);
    assert_eq!(summary.dtypes[&Dtype::F32], 8);
    assert_eq!(
        summary.n_parameters,
        54 + 2 + 24 + 6 + 6 + 6 + 1 + 5 + 5 + 3
    );
}

#[test]
fn written_files_read_back_and_repeat_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.safetensors");
    let options = ReadOptions {
        keep_dtype: true,
        ..ReadOptions::default()
    };
    let state = read(&fixture("zip.pt"), &options).unwrap();
    let metadata = BTreeMap::from([("who".to_owned(), "a \"quoted\" name".to_owned())]);
    write_safetensors(&path, state.iter(), &metadata, None).unwrap();
    let again = read(&path, &options).unwrap();
    assert_eq!(again.metadata(), &metadata);
    assert_holds(&again, "raw");
    for (name, tensor) in state.iter() {
        assert_eq!(again.get(name).unwrap().dtype(), tensor.dtype(), "{name}");
    }
    let first = std::fs::read(&path).unwrap();
    write_safetensors(&path, state.iter(), &metadata, None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(u64::from_le_bytes(first[..8].try_into().unwrap()) % 8, 0);
    write_safetensors(&path, state.iter(), &metadata, Some(DType::BF16)).unwrap();
    assert_eq!(
        read(&path, &options)
            .unwrap()
            .get("double")
            .unwrap()
            .dtype(),
        DType::BF16
    );
}

#[test]
fn the_reference_implementation_reads_and_writes_the_same_files() {
    // The safetensors crate as an independent reader and writer.
    let w = Tensor::new(&[[1.5f32, -2.0], [0.25, 8.0]], &candle_core::Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("ours.safetensors");
    write_safetensors(&ours, [("w", &w)], &BTreeMap::new(), None).unwrap();
    let loaded = candle_core::safetensors::load(&ours, &candle_core::Device::Cpu).unwrap();
    assert_eq!(
        loaded["w"].to_vec2::<f32>().unwrap(),
        w.to_vec2::<f32>().unwrap()
    );
    let theirs = dir.path().join("theirs.safetensors");
    candle_core::safetensors::save(&loaded, &theirs).unwrap();
    let state = read(&theirs, &ReadOptions::default()).unwrap();
    assert_eq!(
        state.get("w").unwrap().to_vec2::<f32>().unwrap(),
        w.to_vec2::<f32>().unwrap()
    );
}

#[test]
fn state_dicts_of_whole_networks_are_the_same_in_both_formats() {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity");
    let mut pairs = 0;
    for group in std::fs::read_dir(parity).unwrap() {
        for case in std::fs::read_dir(group.unwrap().path())
            .into_iter()
            .flatten()
        {
            let case = case.unwrap().path();
            let (pt, st) = (case.join("weights.pt"), case.join("weights.safetensors"));
            if !(pt.is_file() && st.is_file()) {
                continue;
            }
            pairs += 1;
            let (a, b) = (
                read(&pt, &ReadOptions::default()).unwrap().into_map(),
                read(&st, &ReadOptions::default()).unwrap().into_map(),
            );
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
            for (name, tensor) in &a {
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(tensor), values(&b[name]), "{name}");
            }
        }
    }
    assert!(pairs > 0);
}
