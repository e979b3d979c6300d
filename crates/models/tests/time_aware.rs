//! Time-aware adapters in networks of every architecture.

mod architectures;

use architectures::{all, loaded, params, process, times};
use candle_core::{DType, Tensor};
use sdft_models::{LoadOptions, load_network, save_network};
use sdft_testing::normal;

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_new_adapter_leaves_every_prediction_the_same_to_the_bit() {
    for plain in all() {
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
