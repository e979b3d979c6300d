//! Weights are found wherever other tools put them, and the choice is reported.

mod common;
mod network;

use common::{Py, dict, t, zip};
use network::{NAMES, assert_network, found, optimiser, refused, wanted, weights};
use sdft_checkpoint::{Prefer, ReadOptions, read_bytes};

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
fn a_number_next_to_the_weights_is_read_on_demand() {
    let file = |number: Py| {
        let mut all = weights("model.diffusion_model.", 1.0);
        all.push(("scale_factor".into(), number));
        zip(&dict([("state_dict", dict(all))]))
    };
    let options = ReadOptions {
        number: Some("scale_factor"),
        ..wanted(Prefer::Ema)
    };
    let read = |number: Py| read_bytes("f", &file(number), &options);
    // The decimal that was rounded to an f32.
    assert_eq!(read(t(&[], 0.18215)).unwrap().number, Some(0.18215));
    assert_eq!(read(t(&[1], 2.0)).unwrap().number, Some(2.0));
    let other = ReadOptions {
        number: Some("another"),
        ..options.clone()
    };
    let state = read_bytes("f", &file(t(&[], 0.5)), &other).unwrap();
    assert_eq!(state.number, None);
    for number in [t(&[2], 1.0), t(&[], f32::NAN)] {
        let error = read(number).unwrap_err().to_string();
        assert!(error.contains("scale_factor: expected"), "{error}");
    }
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
        error.contains("\"vea\"") && error.contains("\"vae\" (1 tensor)"),
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
