//! A source model fitted to other channels and other classes computes what it computed, wherever both are defined.

mod architectures;

use architectures::{all, images, loaded, relative, times};
use candle_core::{DType, Tensor};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition, Network, Prediction};
use sdft_models::{Adapted, Architecture, Classes, LoadedModel, ModelError, Target, adapt};
use sdft_nn::Params;
use sdft_testing::max_abs_diff;
use sdft_unet2d::{ClassEmbed, Unet2dConfig};

const SIDES: [usize; 2] = [8, 12];

fn target(channels: usize, classes: Option<Classes>) -> Target {
    Target {
        channels,
        classes,
        size: SIDES,
    }
}

fn names(names: &[&str], has_null: bool) -> Option<Classes> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Some(Classes::new(names, has_null))
}

fn network(architecture: &Architecture, params: &Params) -> Box<dyn Network> {
    let kind = architectures::process(architecture).prediction_type;
    architecture.load(params, kind, DType::F32).unwrap()
}

fn predict(net: &dyn Network, x: &Tensor, t: &[f32], labels: Option<&[u32]>) -> Prediction {
    let condition = Condition {
        labels,
        ..Condition::default()
    };
    net.predict_with(x, t, &condition).unwrap()
}

/// The network in training, and the frozen source next to it.
fn both(adapted: &Adapted) -> [Box<dyn Network>; 2] {
    let frozen = &adapted.frozen;
    [
        network(&adapted.architecture, &adapted.params),
        network(&frozen.architecture, &frozen.params),
    ]
}

/// A model with the classes `a`, `b` and `c`, and a null class if asked for.
fn with_classes(architecture: Architecture, has_null: bool) -> LoadedModel {
    let classes = names(&["a", "b", "c"], has_null);
    let mut model = loaded(architecture.with_classes(classes.as_ref()));
    model.classes = classes;
    model
}

/// Prediction and variance.
fn groups(prediction: &Prediction) -> impl Iterator<Item = &Tensor> {
    [Some(&prediction.output), prediction.variance.as_ref()]
        .into_iter()
        .flatten()
}

fn repeated(x: &Tensor, n: usize) -> Tensor {
    Tensor::cat(&vec![x; n], 1).unwrap()
}

#[test]
fn three_channels_to_one_gives_the_mean_of_the_outputs_for_repeated_grey() {
    for architecture in all() {
        let (model, t) = (loaded(architecture.clone()), times(&architecture));
        let adapted = adapt(&model, &target(1, None)).unwrap();
        assert_eq!(adapted.architecture.in_channels(), 1);
        assert_eq!(
            adapted.architecture.learns_variance(),
            architecture.learns_variance()
        );
        let grey = images([2, 1, SIDES[0], SIDES[1]]);
        let source = model.network().unwrap();
        let expected = predict(&*source, &repeated(&grey, 3), &t, None);
        for net in both(&adapted) {
            let found = predict(&*net, &grey, &t, None);
            assert_eq!(found.variance.is_some(), expected.variance.is_some());
            for (found, expected) in groups(&found).zip(groups(&expected)) {
                let error = relative(found, &expected.mean_keepdim(1).unwrap());
                assert!(error < 1e-5, "{architecture:?}: {error}");
            }
        }
        let [note] = &adapted.notes[..] else {
            panic!("{:?}", adapted.notes);
        };
        assert!(
            note.contains("3 channels, the run of 1: input kernels are summed"),
            "{note}"
        );
    }
}

#[test]
fn one_channel_to_three_repeats_the_output_for_repeated_grey() {
    for architecture in all() {
        let (model, t) = (
            loaded(architecture.clone().with_channels(1)),
            times(&architecture),
        );
        let adapted = adapt(&model, &target(3, None)).unwrap();
        assert_eq!(adapted.architecture, architecture);
        let grey = images([2, 1, SIDES[0], SIDES[1]]);
        let expected = predict(&*model.network().unwrap(), &grey, &t, None);
        for net in both(&adapted) {
            let found = predict(&*net, &repeated(&grey, 3), &t, None);
            for (found, expected) in groups(&found).zip(groups(&expected)) {
                let error = relative(found, &repeated(expected, 3));
                assert!(error < 1e-5, "{architecture:?}: {error}");
            }
        }
    }
}

#[test]
fn other_numbers_keep_the_first_channels() {
    for architecture in all() {
        let (model, t) = (loaded(architecture.clone()), times(&architecture));
        let x = images([2, 5, SIDES[0], SIDES[1]]);
        let first = |x: &Tensor, n| x.narrow(1, 0, n).unwrap();
        let expected = predict(&*model.network().unwrap(), &first(&x, 3), &t, None);
        let more = adapt(&model, &target(5, None)).unwrap();
        assert_eq!(more.frozen.channels, Some(3));
        let found = predict(&*both(&more)[0], &x, &t, None);
        for (found, expected) in groups(&found).zip(groups(&expected)) {
            let error = relative(&first(found, 3), expected);
            assert!(error < 1e-5, "{architecture:?}: {error}");
            // A preconditioning also adds a share of the image, in which the channels differ.
            if architecture.precond().is_none() {
                let mean = repeated(&expected.mean_keepdim(1).unwrap(), 2);
                let error = relative(&found.narrow(1, 3, 2).unwrap(), &mean);
                assert!(error < 1e-5, "{architecture:?}: {error}");
            }
        }
        // Fewer again are the source itself.
        let again = LoadedModel {
            architecture: more.architecture,
            params: more.params,
            ..model.clone()
        };
        let back = adapt(&again, &target(3, None)).unwrap();
        assert_eq!(back.frozen.channels, None);
        assert_eq!(back.architecture, architecture);
        for ((name, a), (_, b)) in back.params.iter().zip(model.params.iter()) {
            assert_eq!(max_abs_diff(a, b), 0.0, "{name}");
        }
    }
}

#[test]
fn without_a_difference_nothing_changes() {
    for architecture in all() {
        let model = loaded(architecture.clone());
        let adapted = adapt(&model, &target(3, None)).unwrap();
        assert_eq!(adapted.architecture, architecture);
        assert!(adapted.notes.is_empty() && adapted.frozen.labels.is_none());
        assert_eq!(adapted.frozen.channels, None);
        for ((name, a), (_, b)) in adapted.params.iter().zip(model.params.iter()) {
            assert_eq!(max_abs_diff(a, b), 0.0, "{name}");
        }
        let model = with_classes(architecture, true);
        let adapted = adapt(&model, &target(3, model.classes.clone())).unwrap();
        assert_eq!(adapted.architecture, model.architecture);
        assert!(adapted.notes.is_empty());
        // The source sees its null class.
        assert_eq!(adapted.frozen.labels, Some(vec![3; 4]));
    }
}

#[test]
fn a_new_head_computes_as_the_source_for_every_label() {
    for architecture in all() {
        let (model, t) = (loaded(architecture.clone()), times(&architecture));
        let x = images([2, 3, SIDES[0], SIDES[1]]);
        let expected = predict(&*model.network().unwrap(), &x, &t, None);
        for has_null in [false, true] {
            let classes = names(&["cat", "dog"], has_null);
            let adapted = adapt(&model, &target(3, classes)).unwrap();
            let [net, frozen] = both(&adapted);
            let last = if has_null { 2 } else { 1 };
            for labels in [[0, 1], [1, last]] {
                let found = predict(&*net, &x, &t, Some(&labels));
                for (found, expected) in groups(&found).zip(groups(&expected)) {
                    assert_eq!(max_abs_diff(found, expected), 0.0, "{architecture:?}");
                }
                assert_eq!(adapted.frozen.labels_for(&labels).unwrap(), None);
            }
            let found = predict(&*frozen, &x, &t, None);
            assert_eq!(max_abs_diff(&found.output, &expected.output), 0.0);
            // A DiT computes with its null class.
            let starts = ["starts at zero", "starts at that of its null class"];
            assert!(
                starts.iter().any(|words| adapted.notes[0].contains(words)),
                "{:?}",
                adapted.notes
            );
        }
    }
}

#[test]
fn classes_of_the_same_name_keep_their_embedding_and_others_start_at_the_mean() {
    for architecture in all() {
        let (model, t) = (
            with_classes(architecture.clone(), false),
            times(&architecture),
        );
        let x = images([2, 3, SIDES[0], SIDES[1]]);
        let source = model.network().unwrap();
        for has_null in [false, true] {
            let classes = names(&["c", "new", "a", "d"], has_null);
            let adapted = adapt(&model, &target(3, classes)).unwrap();
            let [net, frozen] = both(&adapted);
            // What the row of each label was made from; 3 is the mean.
            let mut own = vec![2, 3, 0, 3];
            own.extend(has_null.then_some(3));
            assert_eq!(adapted.frozen.labels, Some(own.clone()));
            let kept = predict(&*net, &x, &t, Some(&[0, 2]));
            let expected = predict(&*source, &x, &t, Some(&[2, 0]));
            let error = relative(&kept.output, &expected.output);
            assert!(error < 1e-5, "{architecture:?}: {error}");
            for label in 0..own.len() as u32 {
                let labels = [label; 2];
                let seen = adapted.frozen.labels_for(&labels).unwrap().unwrap();
                assert_eq!(seen, [own[label as usize]; 2]);
                let student = predict(&*net, &x, &t, Some(&labels)).output;
                let teacher = predict(&*frozen, &x, &t, Some(&seen)).output;
                let error = relative(&student, &teacher);
                assert!(error < 1e-5, "{architecture:?} {label}: {error}");
            }
            let new = predict(&*net, &x, &t, Some(&[1, 1])).output;
            assert!(relative(&new, &kept.output) > 1e-5);
            assert!(adapted.frozen.labels_for(&[9]).is_err());
            let note = &adapted.notes[0];
            assert!(
                note.starts_with("2 of 4 classes") && note.contains("mean"),
                "{note}"
            );
        }
    }
}

#[test]
fn the_mean_is_that_of_the_rows() {
    // EDM's tables may be shifted by a bias, and a DiT's have another row.
    let with_rows = all().into_iter();
    for architecture in
        with_rows.filter(|a| !matches!(a, Architecture::Edm(_)) && a.dit().is_none())
    {
        let model = with_classes(architecture, false);
        let adapted = adapt(&model, &target(3, names(&["new", "a"], false))).unwrap();
        let [rows, own] = [&adapted.params, &model.params].map(|params| {
            let is_table = |name| ["label_emb.weight", "class_embedding.weight"].contains(&name);
            params.iter().find(|(name, _)| is_table(name)).unwrap().1
        });
        let row = |table: &Tensor, i| table.narrow(0, i, 1).unwrap();
        assert_eq!(rows.dims()[0], 2);
        assert!(max_abs_diff(&row(rows, 0), &own.mean_keepdim(0).unwrap()) < 1e-6);
        assert_eq!(max_abs_diff(&row(rows, 1), &row(own, 0)), 0.0);
    }
}

#[test]
fn the_source_sees_its_null_class_where_it_has_one() {
    for architecture in all() {
        let (model, t) = (
            with_classes(architecture.clone(), true),
            times(&architecture),
        );
        let adapted = adapt(&model, &target(3, names(&["b", "new"], true))).unwrap();
        assert_eq!(adapted.frozen.labels, Some(vec![3; 3]));
        assert_eq!(adapted.frozen.architecture, model.architecture);
        // The null class stays the null class.
        let x = images([2, 3, SIDES[0], SIDES[1]]);
        let [net, frozen] = both(&adapted);
        let found = predict(&*net, &x, &t, Some(&[2, 2])).output;
        let expected = predict(&*frozen, &x, &t, Some(&[3, 3])).output;
        let error = relative(&found, &expected);
        assert!(error < 1e-5, "{architecture:?}: {error}");
        // Without a null class in the target there is no row for one.
        let without = adapt(&model, &target(3, names(&["b", "new"], false))).unwrap();
        assert_eq!(without.architecture.n_classes(), 2);
        assert_eq!(without.frozen.labels, Some(vec![3; 2]));
    }
}

#[test]
fn a_model_with_classes_becomes_unconditional_with_its_null_class_or_their_mean() {
    for architecture in all() {
        let t = times(&architecture);
        let x = images([2, 3, SIDES[0], SIDES[1]]);
        for has_null in [true, false] {
            let model = with_classes(architecture.clone(), has_null);
            let adapted = adapt(&model, &target(3, None)).unwrap();
            assert_eq!(adapted.architecture, architecture);
            let expected = match has_null {
                true => predict(&*model.network().unwrap(), &x, &t, Some(&[3, 3])),
                false => {
                    let mean = adapt(&model, &target(3, names(&["new"], false))).unwrap();
                    predict(&*both(&mean)[0], &x, &t, Some(&[0, 0]))
                }
            };
            for net in both(&adapted) {
                let found = predict(&*net, &x, &t, None);
                let error = relative(&found.output, &expected.output);
                assert!(error < 1e-5, "{architecture:?}: {error}");
            }
            let what = if has_null { "null class" } else { "mean" };
            assert!(adapted.notes[0].contains(what), "{:?}", adapted.notes);
        }
    }
}

#[test]
fn channels_and_classes_change_together() {
    for architecture in all() {
        let t = times(&architecture);
        let model = loaded(architecture.clone());
        let adapted = adapt(&model, &target(1, names(&["cat", "dog"], true))).unwrap();
        let grey = images([2, 1, SIDES[0], SIDES[1]]);
        let expected = predict(&*model.network().unwrap(), &repeated(&grey, 3), &t, None);
        let expected = expected.output.mean_keepdim(1).unwrap();
        let found = predict(&*both(&adapted)[0], &grey, &t, Some(&[0, 2])).output;
        assert!(relative(&found, &expected) < 1e-5, "{architecture:?}");
        assert_eq!(adapted.notes.len(), 2);
    }
}

#[test]
fn what_cannot_be_adapted_is_named() {
    let model = loaded(all().remove(0));
    let wrong = Target {
        size: [9, 8],
        ..target(3, None)
    };
    let error = adapt(&model, &wrong).unwrap_err();
    assert!(matches!(error, ModelError::Size { .. }), "{error}");
    let text = adapt(&model, &target(0, None)).unwrap_err().to_string();
    assert!(
        text.contains("in_channels") && text.contains("found 0"),
        "{text}"
    );
    let twice = names(&["a", "a"], true);
    let text = adapt(&model, &target(3, twice)).unwrap_err().to_string();
    assert!(text.contains("found a twice"), "{text}");
    let none = names(&[], true);
    let text = adapt(&model, &target(3, none)).unwrap_err().to_string();
    assert!(text.contains("at least one class"), "{text}");
    let Architecture::Unet2d(config) = all().remove(4) else {
        panic!("a UNet2DModel");
    };
    let numbers = loaded(Architecture::Unet2d(Unet2dConfig {
        class_embed_type: Some(ClassEmbed::Timestep),
        ..config
    }));
    let classes = names(&["a"], false);
    let text = adapt(&numbers, &target(3, classes)).unwrap_err();
    assert!(text.to_string().contains("class embedding"), "{text}");
}

#[test]
fn labels_train_the_rows_of_their_classes() {
    for architecture in all() {
        let (model, t) = (loaded(architecture.clone()), times(&architecture));
        let adapted = adapt(&model, &target(3, names(&["a", "b", "c"], true))).unwrap();
        let (kind, mode) = (model.process.prediction_type, ComputeMode::default());
        let net = adapted.architecture.trainable(&adapted.params, kind, mode);
        let net = net.unwrap();
        let condition = Condition {
            labels: Some(&[0, 2]),
            ..Condition::default()
        };
        let x = images([2, 3, SIDES[0], SIDES[1]]);
        let prediction = net.predict(&x, &t, &condition).unwrap();
        let loss = prediction.output.sqr().unwrap().sum_all().unwrap();
        let gradients = backward(&loss).unwrap();
        let vars = net.vars();
        let is_table = |name: &str| {
            [
                "label_emb.weight",
                "class_embedding.weight",
                "model.map_label.weight",
                "embedding_table.weight",
            ]
            .iter()
            .any(|end| name.ends_with(end))
        };
        let (_, table) = vars.iter().find(|(name, _)| is_table(name)).unwrap();
        let gradient = gradients.get(table).unwrap();
        let rows = match architecture {
            Architecture::Edm(_) => gradient.t().unwrap(),
            _ => gradient.clone(),
        };
        let rows = rows.abs().unwrap().max(1).unwrap();
        let rows: Vec<bool> = sdft_testing::values(&rows)
            .iter()
            .map(|v| *v > 0.0)
            .collect();
        assert_eq!(rows[..3], [true, false, true], "{architecture:?}");
        let missing = net.predict(&x, &t, &Condition::default()).unwrap_err();
        assert!(
            missing.to_string().contains("a label for each image"),
            "{missing}"
        );
        // Only EDM's networks take augmentation labels, and only some of them.
        let rows = images([2, 9, 1, 1]).reshape((2, 9)).unwrap();
        let with_augment = Condition {
            augment: Some(&rows),
            ..condition
        };
        let takes = adapted.architecture.augment_dim() == 9;
        let prediction = net.predict(&x, &t, &with_augment);
        assert_eq!(prediction.is_ok(), takes, "{architecture:?}");
        if let Err(error) = prediction {
            assert!(
                error.to_string().contains("no augmentation labels"),
                "{error}"
            );
        }
    }
}
