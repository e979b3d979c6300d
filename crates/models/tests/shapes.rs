//! Every network runs at any height and width that its halvings allow.

mod architectures;

use architectures::{all, images, params, relative, times};
use candle_core::{DType, Tensor};
use sdft_autograd::backward;
use sdft_diffusion::{ComputeMode, Condition, PredictionType, Trainable};
use sdft_edm::{EdmConfig, ModelConfig, SongUnetConfig};
use sdft_models::{Architecture, ModelError};
use sdft_nn::Params;

/// Height and width exchanged.
fn turned(x: &Tensor) -> Tensor {
    x.transpose(2, 3).unwrap().contiguous().unwrap()
}

fn turned_params(params: &Params) -> Params {
    let entries = params.iter().map(|(name, tensor)| {
        let tensor = match tensor.rank() {
            4 => turned(tensor),
            _ => tensor.clone(),
        };
        (name.to_owned(), tensor)
    });
    Params::new(entries.collect())
}

/// Whether the network tells rows from columns.
fn has_positions(architecture: &Architecture) -> bool {
    architecture.dit().is_some()
}

#[test]
fn networks_run_at_other_sizes_and_treat_height_and_width_alike() {
    for architecture in all() {
        let (t, params) = (times(&architecture), params(&architecture));
        let load = |params: &Params| {
            let kind = PredictionType::Epsilon;
            architecture.load(params, kind, DType::F32).unwrap()
        };
        let (net, other) = (load(&params), load(&turned_params(&params)));
        for [h, w] in [[8, 16], [12, 6], [2, 20]] {
            architecture.check_size([h, w]).unwrap();
            let x = images([2, 3, h, w]);
            let upright = net.predict(&x, &t).unwrap();
            let on_its_side = other.predict(&turned(&x), &t).unwrap();
            assert_eq!(upright.output.dims(), x.dims());
            let error = relative(&turned(&on_its_side.output), &upright.output);
            assert!(
                error < 1e-4 || has_positions(&architecture),
                "{architecture:?} {h}x{w}: {error}"
            );
            if has_positions(&architecture) {
                assert!(error > 1e-4);
            } else if let (Some(a), Some(b)) = (&upright.variance, &on_its_side.variance) {
                assert!(relative(&turned(b), a) < 1e-4, "{architecture:?}");
            }
            let features = net.features(&x, &t).unwrap();
            let width = net.bottleneck().channels;
            assert_eq!(features.dims(), [2, width, h / 2, w / 2]);
            let edited = net
                .predict_edited(&x, &t, &mut |h, _| (h * 2.0).map(Some))
                .unwrap();
            assert_eq!(relative(&edited.plain.output, &upright.output), 0.0);
            let changed = &edited.changed().output;
            assert_eq!(changed.dims(), x.dims());
            assert!(relative(changed, &upright.output) > 0.0);
        }
    }
}

#[test]
fn networks_train_at_other_sizes() {
    let step = |net: &dyn Trainable, x: &Tensor, t: &[f32]| {
        let prediction = net.predict(x, t, &Condition::default()).unwrap();
        let loss = prediction.output.sqr().unwrap().sum_all().unwrap();
        let gradients = backward(&loss).unwrap();
        let vars = net.vars().into_iter();
        vars.map(|(name, var)| (name, gradients.get(&var).cloned()))
            .collect::<Vec<_>>()
    };
    for architecture in all() {
        let (t, params) = (times(&architecture), params(&architecture));
        // Without the same positions, only recomputing is compared.
        let turn = |x: &Tensor| match has_positions(&architecture) {
            true => x.clone(),
            false => turned(x),
        };
        let train = |params: &Params, x: &Tensor, recompute| {
            let mode = ComputeMode {
                recompute,
                ..ComputeMode::default()
            };
            let kind = PredictionType::Epsilon;
            let net = architecture.trainable(params, kind, mode).unwrap();
            step(&*net, x, &t)
        };
        let x = images([2, 3, 6, 12]);
        let upright = train(&params, &x, false);
        let other = match has_positions(&architecture) {
            true => params.clone(),
            false => turned_params(&params),
        };
        let on_its_side = train(&other, &turn(&x), true);
        for ((name, a), (_, b)) in upright.into_iter().zip(on_its_side) {
            let (Some(a), Some(b)) = (a, b) else { continue };
            let b = match b.rank() {
                4 => turn(&b),
                _ => b,
            };
            let most = sdft_testing::max_abs_diff(&a, &a.zeros_like().unwrap());
            // A bias that a norm removes has no gradient but rounding.
            let bound = 1e-3 * most.max(1e-2);
            let error = sdft_testing::max_abs_diff(&a, &b);
            assert!(error < bound, "{architecture:?} {name}: {error} of {most}");
        }
    }
}

#[test]
fn a_size_that_does_not_fit_is_an_error_with_the_multiple_and_the_nearest_that_fits() {
    for architecture in all() {
        assert_eq!(architecture.multiple(), 2);
        let error = architecture.check_size([9, 8]).unwrap_err();
        assert!(matches!(
            error,
            ModelError::Size {
                height: 9,
                width: 8,
                ..
            }
        ));
        let text = error.to_string();
        assert!(
            text.contains("9x8 (height x width)") && text.contains("multiples of 2"),
            "{text}"
        );
        assert!(text.ends_with("the nearest that fits is 10x8"), "{text}");
        for size in [[0, 8], [8, 0], [8, 1 << 20], [usize::MAX, 8]] {
            let text = architecture.check_size(size).unwrap_err().to_string();
            assert!(text.contains("expected sides"), "{text}");
        }
        let kind = PredictionType::Epsilon;
        let params = params(&architecture);
        let net = architecture.load(&params, kind, DType::F32).unwrap();
        let text = net.predict(&images([2, 3, 8, 7]), &times(&architecture));
        let text = text.unwrap_err().to_string();
        assert!(text.contains("multiples of 2, found 8x7"), "{text}");
    }
}

#[test]
fn filters_of_an_odd_number_of_taps_need_one_pixel_more() {
    let model = SongUnetConfig {
        resample_filter: vec![1.0, 2.0, 1.0],
        model_channels: 8,
        channel_mult: vec![1, 1, 1],
        num_blocks: 1,
        attn_resolutions: vec![],
        ..SongUnetConfig::default()
    };
    let architecture = Architecture::Edm(EdmConfig {
        img_resolution: 9,
        model: ModelConfig::SongUNet(model),
        ..EdmConfig::default()
    });
    let params = params(&architecture);
    let kind = PredictionType::Sample;
    let net = architecture.load(&params, kind, DType::F32).unwrap();
    for (size, fits) in [([9, 13], true), ([5, 1], true), ([8, 12], false)] {
        let [h, w] = size;
        assert_eq!(architecture.check_size(size).is_ok(), fits, "{size:?}");
        let prediction = net.predict(&images([1, 3, h, w]), &[1.0]);
        assert_eq!(prediction.is_ok(), fits, "{size:?}");
    }
    let text = architecture.check_size([8, 12]).unwrap_err().to_string();
    assert!(text.contains("multiples of 4, plus 1"), "{text}");
    assert!(text.ends_with("9x13"), "{text}");
}

#[test]
fn the_cost_follows_the_size() {
    for architecture in all() {
        let [small, wide, tall] = [[8, 8], [8, 16], [16, 8]].map(|size| architecture.cost(size));
        assert_eq!(wide, tall);
        assert_eq!(small.parameters, wide.parameters);
        // Attention grows with the square.
        let share = wide.forward_flops / small.forward_flops;
        assert!((1.5..2.5).contains(&share), "{share}");
        assert!(wide.activation_bytes >= 1.9 * small.activation_bytes);
    }
}
