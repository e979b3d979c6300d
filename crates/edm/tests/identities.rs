//! Identities of every network, for any weights.

mod networks;

use candle_core::{DType, Device, Tensor};
use networks::{all, config, ddpmpp, images, params, song, values, wave};
use sdft_diffusion::{
    BottleneckNet, ComputeMode, Condition, Denoiser, FeatureNet, Guided, Network, Precond,
    PredictionType, Trainable,
};
use sdft_edm::{EdmConfig, EdmInputs, EdmNet, ModelConfig, SongUnetConfig, trainable_edm};
use sdft_nn::Params;
use std::collections::HashMap;

const SIGMA: [f32; 2] = [0.4, 6.0];

fn net(config: &EdmConfig) -> EdmNet {
    EdmNet::load(&params(config), config).unwrap()
}

/// The largest difference.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let differences = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d <= most { most } else { d })
}

#[test]
fn both_readings_of_a_network_agree_and_imply_the_same_noise() {
    for config in all() {
        let params = params(&config).to(DType::F64, &Device::Cpu).unwrap();
        let net = EdmNet::load(&params, &config).unwrap();
        let xt = wave(&[2, 3, 8, 8], 0.3);
        let scale: Vec<f64> = SIGMA.iter().map(|&s| f64::from(s).hypot(1.0)).collect();
        let scale = Tensor::from_vec(scale, (2, 1, 1, 1), &Device::Cpu).unwrap();
        let x = xt.broadcast_mul(&scale).unwrap();
        let clean = net.denoise(&x, &SIGMA, &Condition::default()).unwrap();
        let prediction = net.predict(&xt, &SIGMA).unwrap();
        assert_eq!(prediction.prediction_type, PredictionType::Sample);
        assert!(prediction.variance.is_none());
        assert!(distance(&clean, &prediction.output) < 1e-9);
        let (x, xt) = (values(&x), values(&xt));
        let (d, output) = (values(&clean), values(&prediction.output));
        for i in 0..x.len() {
            let sigma = f64::from(SIGMA[i / (x.len() / 2)]);
            let alpha_bar = 1.0 / (1.0 + sigma * sigma);
            let eps = (x[i] - d[i]) / sigma;
            let discrete = (xt[i] - alpha_bar.sqrt() * output[i]) / (1.0 - alpha_bar).sqrt();
            assert!((eps - discrete).abs() < 1e-9, "{eps} and {discrete}");
        }
    }
}

#[test]
fn an_image_does_not_depend_on_the_batch() {
    for config in all() {
        let net = net(&config);
        let both = net.predict(&images(), &SIGMA).unwrap().output;
        let one = images().narrow(0, 1, 1).unwrap();
        let one = net.predict(&one, &SIGMA[1..]).unwrap().output;
        assert_eq!(values(&both.narrow(0, 1, 1).unwrap()), values(&one));
    }
}

#[test]
fn the_deepest_features_can_be_read_and_changed() {
    for config in all() {
        let net = net(&config);
        let x = images();
        let plain = net.predict(&x, &SIGMA).unwrap().output;
        let sizes = net.bottleneck();
        let edited = net
            .predict_edited(&x, &SIGMA, &mut |h, emb| {
                assert_eq!(h.dims(), [2, sizes.channels, 4, 4]);
                assert_eq!(emb.dims(), [2, sizes.embedding]);
                Ok(Some(h.clone()))
            })
            .unwrap();
        assert_eq!(values(&edited.plain.output), values(&plain));
        assert_eq!(values(&edited.changed().output), values(&plain));
        let features = net.features(&x, &SIGMA).unwrap();
        assert_eq!(values(&features), values(&edited.h));
        let doubled = net
            .predict_edited(&x, &SIGMA, &mut |h, _| (h * 2.0).map(Some))
            .unwrap();
        assert!(distance(&doubled.changed().output, &plain) > 1e-3);
        let wrong = net.predict_edited(&x, &SIGMA, &mut |h, _| h.narrow(1, 0, 4).map(Some));
        assert!(wrong.unwrap_err().to_string().contains("expected"));
    }
}

#[test]
fn half_precision_maps_change_little_and_keep_the_type_of_the_output() {
    for config in all() {
        let exact = net(&config).predict(&images(), &SIGMA).unwrap().output;
        let largest = values(&exact)
            .into_iter()
            .fold(0.0, |m: f64, v| m.max(v.abs()));
        for (dtype, bound) in [(DType::BF16, 4e-2), (DType::F16, 5e-3)] {
            let half = net(&config).with_compute_dtype(dtype);
            let half = half.predict(&images(), &SIGMA).unwrap().output;
            assert_eq!(half.dtype(), DType::F32);
            let error = distance(&exact, &half) / largest;
            assert!(error > 0.0 && error < bound, "{dtype:?}: {error}");
        }
    }
}

#[test]
fn labels_select_a_row_and_missing_ones_are_an_error() {
    for model in [all()[0].model.clone(), all()[3].model.clone()] {
        let config = EdmConfig {
            label_dim: 3,
            ..config(model, Precond::EDM)
        };
        let net = net(&config);
        assert_eq!(net.n_classes(), 3);
        let with = |labels: &[u32]| {
            let condition = Condition {
                labels: Some(labels),
                ..Condition::default()
            };
            net.denoise(&images(), &SIGMA, &condition)
        };
        let rows = Tensor::new(&[[0f32, 1., 0.], [0., 0., 1.]], &Device::Cpu).unwrap();
        let inputs = EdmInputs {
            class_labels: Some(&rows),
            ..EdmInputs::default()
        };
        let one_hot = net.denoise_with(&images(), &SIGMA, &inputs).unwrap();
        assert_eq!(values(&with(&[1, 2]).unwrap()), values(&one_hot));
        assert!(distance(&with(&[0, 2]).unwrap(), &one_hot) > 1e-4);
        // The null class is the label after the others, a vector of zeros.
        let rows = Tensor::new(&[[0f32, 1., 0.], [0., 0., 0.]], &Device::Cpu).unwrap();
        let inputs = EdmInputs {
            class_labels: Some(&rows),
            ..EdmInputs::default()
        };
        let zeros = net.denoise_with(&images(), &SIGMA, &inputs).unwrap();
        assert_eq!(values(&with(&[1, 3]).unwrap()), values(&zeros));
        let error = net.predict(&images(), &SIGMA).unwrap_err().to_string();
        assert!(error.contains("3 classes"), "{error}");
        let error = with(&[1, 4]).unwrap_err().to_string();
        assert!(
            error.contains("below 3, or 3 for the null class"),
            "{error}"
        );
    }
    let labels = [0u32, 1];
    let condition = Condition {
        labels: Some(&labels),
        ..Condition::default()
    };
    let unconditional = net(&ddpmpp());
    let error = unconditional.denoise(&images(), &SIGMA, &condition);
    assert!(error.unwrap_err().to_string().contains("unconditional"));
}

#[test]
fn guidance_is_the_same_for_both_readings_of_a_network() {
    let labels = [0u32, 2];
    for model in [all()[0].model.clone(), all()[3].model.clone()] {
        let config = EdmConfig {
            label_dim: 3,
            ..config(model, Precond::EDM)
        };
        let net = net(&config);
        let guided = |null, guidance| Guided {
            net: &net,
            labels: &labels,
            null,
            guidance,
        };
        let xt = images();
        let scale: Vec<f32> = SIGMA.iter().map(|s| s.hypot(1.0)).collect();
        let scale = Tensor::from_vec(scale, (2, 1, 1, 1), &Device::Cpu).unwrap();
        let x = xt.broadcast_mul(&scale).unwrap();
        let raw = |labels: &[u32]| {
            let condition = Condition {
                labels: Some(labels),
                ..Condition::default()
            };
            net.denoise(&x, &SIGMA, &condition).unwrap()
        };
        let (conditional, null) = (raw(&labels), raw(&[3, 3]));
        let expected = (&null + ((conditional - &null).unwrap() * 2.5).unwrap()).unwrap();
        let found = guided(Some(3), 2.5).predict(&xt, &SIGMA).unwrap();
        assert_eq!(found.prediction_type, PredictionType::Sample);
        assert!(distance(&found.output, &expected) < 1e-5);
        assert!(distance(&found.output, &null) > 1e-4);
    }
}

#[test]
fn augmentation_labels_reach_networks_that_take_them() {
    let rows = wave(&[2, 9], 0.4);
    let with = |net: &EdmNet, augment: &Tensor| {
        let condition = Condition {
            augment: Some(augment),
            ..Condition::default()
        };
        net.denoise(&images(), &SIGMA, &condition)
    };
    for mut config in [all().swap_remove(0), all().swap_remove(3)] {
        let without = net(&config);
        let error = with(&without, &rows).unwrap_err().to_string();
        assert!(error.contains("augment_dim 0"), "{error}");
        match &mut config.model {
            ModelConfig::SongUNet(model) => model.augment_dim = 9,
            ModelConfig::DhariwalUNet(model) => model.augment_dim = 9,
        }
        let net = net(&config);
        let inputs = EdmInputs {
            augment_labels: Some(&rows),
            ..EdmInputs::default()
        };
        let expected = net.denoise_with(&images(), &SIGMA, &inputs).unwrap();
        let found = with(&net, &rows).unwrap();
        assert_eq!(values(&found), values(&expected));
        // No labels are zeros.
        let plain = net.denoise(&images(), &SIGMA, &Condition::default());
        let zeros = with(&net, &rows.zeros_like().unwrap()).unwrap();
        assert_eq!(values(&zeros), values(&plain.unwrap()));
        assert!(distance(&found, &zeros) > 1e-4);
        let error = with(&net, &rows.narrow(1, 0, 6).unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("[2, 9], found [2, 6]"), "{error}");
    }
}

#[test]
fn images_that_do_not_fit_are_errors() {
    let net = net(&ddpmpp());
    for (shape, text) in [([2, 1, 8, 8], "3 channels"), ([2, 3, 8, 7], "found 8x7")] {
        let error = net.predict(&wave(&shape, 0.1), &SIGMA).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = net.predict(&images(), &SIGMA[1..]).unwrap_err().to_string();
    assert!(error.contains("each of 2 images"), "{error}");
}

/// NCSN++, which has constants of both kinds.
fn with_constants() -> EdmConfig {
    all().swap_remove(1)
}

#[test]
fn constants_belong_to_the_file_and_are_not_trained() {
    let config = with_constants();
    let params = params(&config);
    let net = trainable_edm(&params, &config, ComputeMode::default()).unwrap();
    let buffers = net.buffers();
    assert!(
        buffers
            .iter()
            .any(|(name, _)| name == "model.map_noise.freqs")
    );
    assert!(
        buffers
            .iter()
            .any(|(name, _)| name == "model.enc.4x4_down.skip.resample_filter")
    );
    assert!(
        net.vars()
            .iter()
            .all(|(name, _)| !EdmNet::is_constant(name))
    );
    // Variables and constants together are a file of the network.
    let vars = net.vars().into_iter();
    let tensors = vars.map(|(name, var)| (name, var.as_tensor().clone()));
    let file: HashMap<String, Tensor> = tensors.chain(buffers).collect();
    let again = Params::fit(&EdmNet::specs(&config).unwrap(), file).unwrap();
    let metadata = net.metadata();
    let read: EdmConfig = serde_json::from_str(&metadata["sdft.model"]).unwrap();
    assert_eq!((metadata["sdft.kind"].as_str(), &read), ("edm", &config));
    let again = EdmNet::load(&again, &read).unwrap();
    let (a, b) = (
        net.net().predict(&images(), &SIGMA).unwrap(),
        again.predict(&images(), &SIGMA).unwrap(),
    );
    assert_eq!(values(&a.output), values(&b.output));
}

#[test]
fn a_filter_that_differs_from_the_configuration_is_refused() {
    let config = with_constants();
    let ModelConfig::SongUNet(model) = &config.model else {
        panic!("{config:?}");
    };
    let other = EdmConfig {
        model: ModelConfig::SongUNet(SongUnetConfig {
            resample_filter: vec![1.0, 2.0, 2.0, 1.0],
            ..model.clone()
        }),
        ..config.clone()
    };
    let error = EdmNet::load(&params(&config), &other)
        .unwrap_err()
        .to_string();
    assert!(error.contains("resample_filter"), "{error}");
}

#[test]
fn networks_that_cannot_be_trained_name_the_field() {
    let field = |config: EdmConfig| config.check_trainable().unwrap_err().field;
    let grey_with_classes = EdmConfig {
        label_dim: 10,
        img_channels: 1,
        ..ddpmpp()
    };
    grey_with_classes.check_trainable().unwrap();
    let odd = SongUnetConfig {
        channel_mult: vec![1; 5],
        ..song()
    };
    let odd = config(ModelConfig::SongUNet(odd), Precond::EDM);
    assert_eq!(field(odd), "img_resolution");
    ddpmpp().check_trainable().unwrap();
}
