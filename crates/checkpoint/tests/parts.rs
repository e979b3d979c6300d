//! Weights are found wherever other tools put them, and what was taken is said.

mod common;

use common::{Py, dict, legacy, t, zip};
use sdft_checkpoint::{Dtype, Error, Prefer, ReadOptions, StateDict, Wanted, read, read_bytes};
use std::collections::BTreeMap;

/// A network of three parameters, known by its embedding.
const WANTED: Wanted = Wanted {
    marks: &["embed.0.weight"],
    fits: |shapes| {
        shapes.get("embed.0.weight").map(Vec::as_slice) == Some(&[2, 3])
            && shapes.contains_key("blocks.1.0.weight")
            && shapes.contains_key("out.bias")
    },
};

const NAMES: [(&str, &[usize]); 3] = [
    ("embed.0.weight", &[2, 3]),
    ("blocks.1.0.weight", &[3]),
    ("out.bias", &[2]),
];

/// The network's weights, each name behind `prefix`, each value from `first` on.
fn weights(prefix: &str, first: f32) -> Vec<(String, Py)> {
    let named = NAMES.iter();
    named
        .map(|(name, shape)| (format!("{prefix}{name}"), t(shape, first)))
        .collect()
}

fn optimiser() -> Py {
    let state = dict([("step", t(&[], 1.0)), ("exp_avg", t(&[2, 3], 0.5))]);
    dict([
        ("state", Py::Dict(vec![(Py::Int(0), state)])),
        (
            "param_groups",
            Py::List(vec![dict([("lr", Py::Float(1e-4))])]),
        ),
    ])
}

fn wanted(prefer: Prefer) -> ReadOptions {
    ReadOptions {
        wanted: Some(WANTED),
        prefer,
        ..ReadOptions::default()
    }
}

/// Fails unless the state is the network whose values begin with `first`.
fn assert_network(state: &StateDict, first: f32) {
    let names: Vec<&str> = state.iter().map(|(name, _)| name).collect();
    assert_eq!(names, NAMES.map(|(name, _)| name));
    for (name, tensor) in state.iter() {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values[0], first, "{name}");
    }
}

/// The network in a file, with its notes in one text.
fn found(value: &Py, prefer: Prefer) -> (StateDict, String) {
    let state = read_bytes("file.pt", &zip(value), &wanted(prefer)).unwrap();
    let notes = state.notes().join("; ");
    (state, notes)
}

fn refused(value: &Py) -> String {
    let error = read_bytes("file.pt", &zip(value), &wanted(Prefer::Ema)).unwrap_err();
    error.to_string()
}

#[test]
fn prefixes_of_wrappers_are_removed_and_reported() {
    for prefix in [
        "_orig_mod.",
        "module.",
        "model.",
        "module._orig_mod.",
        "net.unet.",
    ] {
        let file = dict(weights(prefix, 1.0));
        let (state, notes) = found(&file, Prefer::Ema);
        assert_network(&state, 1.0);
        assert!(
            notes.contains(&format!("removed the prefix {prefix:?}")),
            "{notes}"
        );
        let nested = dict([("state_dict", file), ("epoch", Py::Int(3))]);
        assert_network(&found(&nested, Prefer::Ema).0, 1.0);
    }
    // Averages of PyTorch keep a count next to the module.
    let mut averaged = weights("module.", 1.0);
    averaged.insert(0, ("n_averaged".into(), t(&[], 7.0)));
    let (state, notes) = found(&dict(averaged.clone()), Prefer::Ema);
    assert_network(&state, 1.0);
    assert!(
        notes.contains("left out other tensors next to the weights: n_averaged"),
        "{notes}"
    );
    // Without knowing the network, the wrappers that every name has are taken off.
    let state = read_bytes("a.pt", &zip(&dict(averaged)), &ReadOptions::default()).unwrap();
    assert_network(&state, 1.0);
    assert_eq!(state.summary.prefix, "module.");
}

#[test]
fn one_dictionary_may_hold_the_weights_and_their_average_under_two_prefixes() {
    let mut inside = vec![("initted".to_owned(), t(&[], 1.0))];
    inside.extend(weights("online_model.model.", 1.0));
    inside.extend(weights("ema_model.model.", 2.0));
    let file = dict([
        ("model", dict(weights("model.", 1.0))),
        ("ema", dict(inside)),
        ("opt", optimiser()),
    ]);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 2.0);
    assert_eq!(
        state.summary.nested_under.as_deref(),
        Some("ema.ema_model.model")
    );
    assert!(
        notes.contains("\"ema.online_model.model\"")
            && notes.contains("left out other tensors next to the weights: initted"),
        "{notes}"
    );
    assert_network(&found(&file, Prefer::Raw).0, 1.0);
    let key = ReadOptions {
        key: Some("ema.online_model.model".into()),
        ..wanted(Prefer::Ema)
    };
    assert_network(&read_bytes("f", &zip(&file), &key).unwrap(), 1.0);
}

#[test]
fn an_average_whose_names_lost_their_dots_takes_those_of_the_weights() {
    let mut all = weights("model.diffusion_model.", 1.0);
    for (name, tensor) in weights("", 2.0) {
        all.push((
            format!("model_ema.diffusion_model{}", name.replace('.', "")),
            tensor,
        ));
    }
    all.push(("model_ema.decay".into(), t(&[], 0.9)));
    all.push(("first_stage_model.conv.weight".into(), t(&[4], 0.0)));
    let file = dict([("state_dict", dict(all))]);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 2.0);
    assert!(
        notes.contains("without dots") && notes.contains("first_stage_model.conv.weight"),
        "{notes}"
    );
    let (raw, notes) = found(&file, Prefer::Raw);
    assert_network(&raw, 1.0);
    assert!(
        notes.contains("first_stage_model.conv.weight") && notes.contains("model_ema"),
        "{notes}"
    );
}

#[test]
fn a_list_of_averages_takes_the_names_of_the_weights_by_order_and_shape() {
    let list = |first: f32| Py::List(NAMES.iter().map(|(_, shape)| t(shape, first)).collect());
    let ema = |list: Py| {
        dict([
            ("decay", t(&[], 0.999)),
            ("num_updates", t(&[], 5.0)),
            ("shadow_params", list),
        ])
    };
    let file = dict([("model", dict(weights("", 1.0))), ("ema", ema(list(2.0)))]);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 2.0);
    assert!(
        notes.contains("\"ema.shadow_params\"") && notes.contains("names of \"model\""),
        "{notes}"
    );
    assert_network(&found(&file, Prefer::Raw).0, 1.0);
    // Nothing is known about the network: the two numbers next to the list are no network either.
    let state = read_bytes("f", &zip(&file), &ReadOptions::default()).unwrap();
    assert_network(&state, 2.0);

    // Buffers are in the dictionary and not in the list.
    let mut with_buffers = weights("", 1.0);
    with_buffers.insert(
        1,
        ("steps".into(), Py::Typed("LongStorage", 8, vec![7; 16])),
    );
    let file = dict([("model", dict(with_buffers)), ("ema", ema(list(2.0)))]);
    let state = read_bytes("f", &zip(&file), &ReadOptions::default()).unwrap();
    assert_eq!(state.len(), 4);
    let values: Vec<f32> = state.get("out.bias").unwrap().to_vec1().unwrap();
    assert_eq!(values, [2.0, 3.0]);

    // A list in another order fits nothing: the weights are taken, and the list is named.
    let Py::List(mut items) = list(2.0) else {
        unreachable!()
    };
    items.reverse();
    let file = dict([
        ("model", dict(weights("", 1.0))),
        ("ema", ema(Py::List(items))),
    ]);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 1.0);
    assert!(
        notes.contains("left out tensors without names") && notes.contains("ema.shadow_params"),
        "{notes}"
    );
    // A list alone has no names at all.
    assert!(refused(&dict([("shadow_params", list(1.0))])).contains("no names for them"));
}

#[test]
fn a_list_that_fits_in_two_ways_is_not_guessed() {
    let raw = dict([
        ("a", t(&[3], 1.0)),
        ("b", t(&[3], 1.0)),
        ("c", t(&[3], 1.0)),
    ]);
    let two = Py::List(vec![t(&[3], 2.0), t(&[3], 2.0)]);
    let file = dict([("model", raw), ("ema", dict([("shadow_params", two)]))]);
    let state = read_bytes("f", &zip(&file), &ReadOptions::default()).unwrap();
    assert_eq!(state.summary.nested_under.as_deref(), Some("model"));
    assert!(
        state.notes().join("").contains("left out tensors"),
        "{:?}",
        state.notes()
    );
}

#[test]
fn single_numbers_are_never_the_network() {
    let ema = dict([("decay", t(&[], 0.9)), ("num_updates", t(&[1], 5.0))]);
    for prefer in [Prefer::Ema, Prefer::Raw] {
        let file = dict([("model", dict(weights("", 1.0))), ("ema", ema.clone())]);
        assert_network(&found(&file, prefer).0, 1.0);
        let options = ReadOptions {
            prefer,
            ..ReadOptions::default()
        };
        assert_network(&read_bytes("f", &zip(&file), &options).unwrap(), 1.0);
    }
    let error = refused(&dict([("ema", ema)]));
    assert!(
        error.contains("single numbers only: decay, num_updates"),
        "{error}"
    );
}

#[test]
fn an_average_that_is_not_a_whole_network_is_not_taken() {
    let part = dict(weights("", 2.0).into_iter().take(2));
    let file = dict([("model", dict(weights("", 1.0))), ("ema", part)]);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 1.0);
    assert!(
        notes.contains("left out incomplete networks: \"ema\""),
        "{notes}"
    );
}

#[test]
fn a_key_reaches_every_dictionary_of_the_file() {
    let other = dict([("decoder.weight", t(&[4], 3.0))]);
    let file = dict([("model", dict(weights("", 1.0))), ("vae", other)]);
    let under = |key: &str| {
        let options = ReadOptions {
            key: Some(key.into()),
            ..wanted(Prefer::Ema)
        };
        read_bytes("f", &zip(&file), &options)
    };
    assert_network(&under("model").unwrap(), 1.0);
    assert!(under("vae").unwrap().get("decoder.weight").is_some());
    let error = under("vea").unwrap_err().to_string();
    assert!(
        error.contains("\"vea\"") && error.contains("\"vae\" (1 tensors)"),
        "{error}"
    );
}

#[test]
fn lists_of_weights_optimiser_and_average_are_read() {
    let mut items = vec![
        dict(weights("module.", 1.0)),
        optimiser(),
        Py::Int(3),
        Py::Int(1000),
    ];
    let (state, _) = found(&Py::List(items.clone()), Prefer::Ema);
    assert_network(&state, 1.0);
    assert_eq!(state.summary.nested_under.as_deref(), Some("0"));
    items.push(dict(weights("", 2.0)));
    let file = Py::List(items);
    let (state, notes) = found(&file, Prefer::Ema);
    assert_network(&state, 2.0);
    assert!(
        notes.contains("\"4\"") && notes.contains("\"0.module\""),
        "{notes}"
    );
    assert_network(&found(&file, Prefer::Raw).0, 1.0);
}

#[test]
fn an_optimiser_is_called_one() {
    let error = refused(&optimiser());
    assert!(
        error.contains("this is the state of an optimiser"),
        "{error}"
    );
    let error = refused(&dict([("optimizer", optimiser()), ("step", Py::Int(1))]));
    assert!(error.contains("optimiser under \"optimizer\""), "{error}");
    // Its moments have the names of the weights behind their own.
    let mut moments = weights("exp_avg.", 0.0);
    moments.extend(weights("exp_avg_sq.", 0.0));
    let error = refused(&dict(moments));
    assert!(
        error.contains("this is the state of an optimiser"),
        "{error}"
    );
}

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
fn an_archive_without_checksums_is_read_and_said() {
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
        error.contains("1 tensors are not in the files") && error.contains("out.bias"),
        "{error}"
    );
    for outside in ["../m.bin", "/etc/passwd", "sub/m.bin", ""] {
        std::fs::write(&file, index(outside)).unwrap();
        let error = read(&file, &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("in its own folder"), "{error}");
    }
    std::fs::write(&file, index("gone.bin")).unwrap();
    let error = read(&file, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("gone.bin: no such file"), "{error}");
}
