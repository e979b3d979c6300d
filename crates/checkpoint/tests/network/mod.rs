//! A network of three parameters in a file, and its reader.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::{Py, dict, t, zip};
use sdft_checkpoint::{Prefer, ReadOptions, StateDict, Wanted, read_bytes};

/// A network of three parameters, known by its embedding.
pub(crate) const WANTED: Wanted = Wanted {
    marks: &["embed.0.weight"],
    fits: |shapes| {
        shapes.get("embed.0.weight").map(Vec::as_slice) == Some(&[2, 3])
            && shapes.contains_key("blocks.1.0.weight")
            && shapes.contains_key("out.bias")
    },
};

pub(crate) const NAMES: [(&str, &[usize]); 3] = [
    ("embed.0.weight", &[2, 3]),
    ("blocks.1.0.weight", &[3]),
    ("out.bias", &[2]),
];

/// The network's weights, each name behind `prefix`, each value from `first` on.
pub(crate) fn weights(prefix: &str, first: f32) -> Vec<(String, Py)> {
    let named = NAMES.iter();
    named
        .map(|(name, shape)| (format!("{prefix}{name}"), t(shape, first)))
        .collect()
}

pub(crate) fn optimiser() -> Py {
    let state = dict([("step", t(&[], 1.0)), ("exp_avg", t(&[2, 3], 0.5))]);
    dict([
        ("state", Py::Dict(vec![(Py::Int(0), state)])),
        (
            "param_groups",
            Py::List(vec![dict([("lr", Py::Float(1e-4))])]),
        ),
    ])
}

pub(crate) fn wanted(prefer: Prefer) -> ReadOptions {
    ReadOptions {
        wanted: Some(WANTED),
        prefer,
        ..ReadOptions::default()
    }
}

/// Fails unless the state is the network whose values begin with `first`.
pub(crate) fn assert_network(state: &StateDict, first: f32) {
    let names: Vec<&str> = state.iter().map(|(name, _)| name).collect();
    assert_eq!(names, NAMES.map(|(name, _)| name));
    for (name, tensor) in state.iter() {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values[0], first, "{name}");
    }
}

/// The network in a file, with its notes in one text.
pub(crate) fn found(value: &Py, prefer: Prefer) -> (StateDict, String) {
    let state = read_bytes("file.pt", &zip(value), &wanted(prefer)).unwrap();
    let notes = state.notes().join("; ");
    (state, notes)
}

pub(crate) fn refused(value: &Py) -> String {
    let error = read_bytes("file.pt", &zip(value), &wanted(Prefer::Ema)).unwrap_err();
    error.to_string()
}
