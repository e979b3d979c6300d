//! Gradients of whole networks: against differences in f64, with recomputed blocks, and with dropout.

mod networks;

use candle_core::{DType, Device, Tensor, Var};
use networks::{all, ddpmpp, images, params, values, wave};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition, Denoiser, Trainable};
use sdft_edm::{EdmConfig, EdmNet, ModelConfig, trainable_edm};
use sdft_nn::Params;
use sdft_noise::DropoutKey;

const SIGMA: [f32; 2] = [0.4, 6.0];

/// `sum(D R)`.
fn loss(net: &EdmNet, x: &Tensor) -> Tensor {
    let out = net.predict(x, &SIGMA).unwrap().output;
    let r = wave(out.dims(), 0.9).to_dtype(out.dtype()).unwrap();
    (out * r).unwrap().sum_all().unwrap()
}

/// The parameters with one number changed.
fn moved(params: &Params, name: &str, place: usize, by: f64) -> Params {
    let entries = params.iter().map(|(other, tensor)| {
        let tensor = if other == name {
            let mut data = values(tensor);
            data[place] += by;
            Tensor::from_vec(data, tensor.shape(), &Device::Cpu).unwrap()
        } else {
            tensor.clone()
        };
        (other.to_owned(), tensor)
    });
    Params::new(entries.collect())
}

#[test]
fn gradients_agree_with_differences_in_f64() {
    let number = |t: Tensor| t.to_scalar::<f64>().unwrap();
    for config in all() {
        let frozen = params(&config).to(DType::F64, &Device::Cpu).unwrap();
        let constant = frozen.clone().freeze(EdmNet::is_constant);
        let (trainable, vars) = constant.trainable().unwrap();
        let net = EdmNet::load(&trainable, &config).unwrap();
        let x = Var::from_tensor(&wave(&[2, 3, 8, 8], 0.3)).unwrap();
        let gradients = backward(&loss(&net, &x)).unwrap();
        let check = |name: &str, gradient: f64, up: f64, down: f64, h: f64| {
            let numeric = (up - down) / (2.0 * h);
            let error = (gradient - numeric).abs() / (1.0 + numeric.abs());
            assert!(error < 1e-6, "{name}: {gradient} against {numeric}");
        };
        let h = 1e-5;
        // Every fifth parameter keeps the test short; each kind of layer is among them.
        for (name, var) in vars.iter().step_by(5) {
            let gradient = values(gradients.get(var).expect(name));
            let place = gradient.len() / 2;
            let at = |by: f64| {
                let net = EdmNet::load(&moved(&frozen, name, place, by), &config).unwrap();
                number(loss(&net, x.as_tensor()))
            };
            check(name, gradient[place], at(h), at(-h), h);
        }
        let gradient = values(gradients.get(&x).unwrap());
        for place in [5, 130, 300] {
            let at = |by: f64| {
                let mut data = values(&x);
                data[place] += by;
                let x = Tensor::from_vec(data, x.shape(), &Device::Cpu).unwrap();
                number(loss(&net, &x))
            };
            check("x", gradient[place], at(h), at(-h), h);
        }
    }
}

/// Output and gradients of a training step with dropout.
fn step(config: &EdmConfig, recompute: bool, seed: u64) -> (Vec<f64>, Vec<(String, Vec<f64>)>) {
    let mode = ComputeMode {
        dtype: DType::F32,
        recompute,
    };
    let net = trainable_edm(&params(config), config, mode).unwrap();
    let condition = Condition {
        dropout: Some(DropoutKey {
            seed,
            step: 3,
            samples: &[0, 1],
        }),
        ..Condition::default()
    };
    let out = Trainable::predict(&net, &images(), &SIGMA, &condition).unwrap();
    let gradients = backward(&out.output.sqr().unwrap().sum_all().unwrap()).unwrap();
    let vars = net.vars().into_iter();
    let of = |(name, var): (String, Var)| {
        let gradient = gradients.get(&var).map_or_else(Vec::new, values);
        (name, gradient)
    };
    (values(&out.output), vars.map(of).collect())
}

#[test]
fn recomputed_blocks_give_the_same_values_and_gradients() {
    for config in all() {
        let (plain, again) = (step(&config, false, 1), step(&config, true, 1));
        assert_eq!(plain.0, again.0);
        for ((name, a), (_, b)) in plain.1.iter().zip(&again.1) {
            let largest = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.0, "{name}");
            let differs = a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-5 * largest);
            assert!(!differs && a.len() == b.len(), "{name}");
        }
    }
}

#[test]
fn dropout_follows_its_key() {
    let config = ddpmpp();
    assert_eq!(step(&config, false, 1).0, step(&config, false, 1).0);
    assert_ne!(step(&config, false, 1).0, step(&config, false, 2).0);
}

#[test]
fn the_layers_of_labels_are_trained_if_there_are_labels() {
    for mut config in [all().swap_remove(0), all().swap_remove(3)] {
        config.label_dim = 3;
        match &mut config.model {
            ModelConfig::SongUNet(model) => model.augment_dim = 9,
            ModelConfig::DhariwalUNet(model) => model.augment_dim = 9,
        }
        let net = trainable_edm(&params(&config), &config, ComputeMode::default()).unwrap();
        let rows = wave(&[2, 9], 0.4);
        let gradients = |labels: &[u32]| {
            let condition = Condition {
                labels: Some(labels),
                augment: Some(&rows),
                ..Condition::default()
            };
            let out = Trainable::predict(&net, &images(), &SIGMA, &condition).unwrap();
            backward(&out.output.sqr().unwrap().sum_all().unwrap()).unwrap()
        };
        let largest = |labels: &[u32], wanted: &str| {
            let gradients = gradients(labels);
            let (_, var) = net.vars().into_iter().find(|(n, _)| n == wanted).unwrap();
            let gradient = gradients.get(&var).map_or_else(Vec::new, values);
            gradient.into_iter().fold(0.0f64, |m, v| m.max(v.abs()))
        };
        assert!(largest(&[0, 3], "model.map_augment.weight") > 0.0);
        assert!(largest(&[0, 3], "model.map_label.weight") > 0.0);
        // Every image has the null class.
        assert_eq!(largest(&[3, 3], "model.map_label.weight"), 0.0);
        assert!(net.has_zero_gradient("model.map_label.weight"));
    }
}

#[test]
fn without_augmentation_labels_their_layer_has_no_gradient() {
    let mut config = ddpmpp();
    if let ModelConfig::SongUNet(model) = &mut config.model {
        model.augment_dim = 9;
    }
    let net = trainable_edm(&params(&config), &config, ComputeMode::default()).unwrap();
    for (name, gradient) in step(&config, false, 1).1 {
        assert_eq!(gradient.is_empty(), net.has_zero_gradient(&name), "{name}");
    }
}
