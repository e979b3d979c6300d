//! Time-aware adapters in networks of every architecture.

mod architectures;

use architectures::{all, loaded, params, process, times};
use candle_core::{DType, Tensor};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition};
use sdft_models::{Architecture, LoadOptions, load_network, save_network};
use sdft_testing::{max_abs_diff, normal};

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// A DiT has no adapter: all its layers are modulated by time.
fn has_place(net: &Architecture) -> bool {
    net.dit().is_none()
}

#[test]
fn a_new_adapter_leaves_every_prediction_the_same_to_the_bit() {
    for plain in all().into_iter().filter(has_place) {
        let (weights, kind) = (params(&plain), process(&plain).prediction_type);
        let adapted = plain.clone().with_time_adapter(0);
        let completed = weights.completed(&adapted.specs().unwrap(), 5).unwrap();
        assert!(completed.len() > weights.len(), "{}", plain.title());
        let x = normal(1, &[2, 3, 8, 8]);
        for dtype in [DType::F32, DType::BF16] {
            let [expected, found] =
                [(&plain, &weights), (&adapted, &completed)].map(|(net, of)| {
                    let net = net.load(of, kind, dtype).unwrap();
                    bits(&net.predict(&x, &times(&plain)).unwrap().output)
                });
            assert!(found == expected, "{} in {dtype:?}", plain.title());
        }
        // A network that has adapters keeps them.
        let kept = adapted.clone().with_time_adapter(3);
        assert_eq!(kept.time_adapter_rank(), Some(0));
    }
}

/// Whether the gradients of the parameters that `is_trained` chooses are the same with recomputed blocks; the others are frozen.
fn check_recomputed(architecture: &Architecture, is_trained: fn(&str) -> bool) {
    let frozen = params(architecture).freeze(|name| !is_trained(name));
    let gradients = [false, true].map(|recompute| {
        let mode = ComputeMode {
            recompute,
            ..ComputeMode::default()
        };
        let kind = process(architecture).prediction_type;
        let net = architecture.trainable(&frozen, kind, mode).unwrap();
        let (x, t) = (normal(1, &[2, 3, 8, 8]), times(architecture));
        let out = net.predict(&x, &t, &Condition::default()).unwrap().output;
        let store = backward(&out.sqr().unwrap().sum_all().unwrap()).unwrap();
        let vars = net.vars().into_iter();
        let all = vars.map(|(name, var)| store.get(&var).cloned().expect(&name));
        all.collect::<Vec<Tensor>>()
    });
    let [saved, recomputed] = &gradients;
    assert!(!saved.is_empty(), "{}", architecture.title());
    for (a, b) in saved.iter().zip(recomputed) {
        let largest = max_abs_diff(a, &a.zeros_like().unwrap());
        assert!(
            max_abs_diff(a, b) <= 1e-4 * largest,
            "{}",
            architecture.title()
        );
    }
}

#[test]
fn recomputed_blocks_have_the_gradients_of_adapters_in_a_frozen_network() {
    for architecture in all().into_iter().filter(has_place) {
        let architecture = architecture.with_time_adapter(0);
        check_recomputed(&architecture, |name| name.contains(".adapter."));
    }
}

#[test]
fn recomputed_blocks_have_the_gradients_of_queries_alone() {
    let unet = |net: &Architecture| matches!(net, Architecture::Unet2d(_));
    for architecture in all().iter().filter(|net| unet(net)) {
        check_recomputed(architecture, |name| name.contains(".to_q."));
    }
}

#[test]
fn a_file_holds_the_adapters_and_states_their_rank() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for plain in all() {
        let model = loaded(plain.with_time_adapter(3));
        save_network(&path, &model.file(), &model.params, None).unwrap();
        let read = load_network(&path, &LoadOptions::default()).unwrap();
        assert_eq!(read.architecture, model.architecture);
        let x = normal(1, &[2, 3, 8, 8]);
        let [a, b] = [&model, &read].map(|model| {
            let net = model.network().unwrap();
            bits(&net.predict(&x, &times(&model.architecture)).unwrap().output)
        });
        assert!(a == b, "{}", model.architecture.title());
    }
}
