//! Identities and gradients of whole networks.

#[path = "../../autograd/tests/differences/mod.rs"]
mod differences;

use candle_core::{DType, Device, Tensor, Var};
use differences::{check, wave};
use sdft_autograd::backward;
use sdft_diffusion::{
    BottleneckNet, ComputeMode, Condition, Denoiser, FeatureNet, KIND_KEY, MODEL_KEY, Network,
    PredictionType, Trainable,
};
use sdft_dit::{Dit, DitConfig, trainable_dit};
use sdft_nn::{Init, Params};
use sdft_noise::DropoutKey;

fn tiny() -> DitConfig {
    DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 3,
        out_channels: 3,
        num_layers: 3,
        sample_size: 8,
        num_embeds_ada_norm: 0,
        ..DitConfig::default()
    }
}

fn variants() -> Vec<DitConfig> {
    vec![
        tiny(),
        DitConfig {
            shared_embedder: true,
            freq_shift: 0.0,
            norm_eps: 1e-6,
            out_channels: 6,
            ..tiny()
        },
        DitConfig {
            attention_bias: false,
            num_layers: 1,
            patch_size: 4,
            ..tiny()
        },
    ]
}

/// Weights without zeros, so that every part has an effect.
fn params(config: &DitConfig, seed: u64) -> Params {
    let mut specs = Dit::specs(config).unwrap();
    for spec in &mut specs {
        if let Init::Constant(_) = spec.init {
            spec.init = Init::Normal(0.3);
        }
    }
    Params::init(&specs, seed, &Device::Cpu).unwrap()
}

fn image(shape: &[usize]) -> Tensor {
    wave(shape, 0.3).to_dtype(DType::F32).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f32 {
    let pairs = values(a).into_iter().zip(values(b));
    pairs.fold(0.0, |most, (a, b)| (a - b).abs().max(most))
}

#[test]
fn networks_have_exact_gradients() {
    for config in variants() {
        let params = params(&config, 3).to(DType::F64, &Device::Cpu).unwrap();
        let embedder = match config.shared_embedder {
            true => "emb",
            false => "transformer_blocks.0.norm1.emb",
        };
        let names = [
            "pos_embed.proj.weight".to_owned(),
            format!("{embedder}.timestep_embedder.linear_1.weight"),
            format!("{embedder}.class_embedder.embedding_table.weight"),
            "transformer_blocks.0.norm1.linear.weight".to_owned(),
            "transformer_blocks.0.attn1.to_k.weight".to_owned(),
            "transformer_blocks.0.attn1.to_out.0.bias".to_owned(),
            "transformer_blocks.0.ff.net.0.proj.weight".to_owned(),
            "proj_out_1.bias".to_owned(),
            "proj_out_2.weight".to_owned(),
        ];
        // Another size than the configuration's, and sides that differ.
        let mut inputs = vec![wave(&[2, 3, 4, 12], 0.1)];
        inputs.extend(
            names
                .iter()
                .map(|name| params.tensor(name).unwrap().clone()),
        );
        check(&inputs, |t| {
            let changed = params.iter().map(|(name, tensor)| {
                let index = names.iter().position(|known| known == name);
                (name.to_owned(), index.map_or(tensor, |i| &t[i + 1]).clone())
            });
            let dit = Dit::load(&Params::new(changed.collect()), &config)?;
            dit.forward(&t[0], &[3.0, 700.0], None, None)
        });
    }
}

#[test]
fn an_image_has_the_same_output_in_any_batch() {
    for config in variants() {
        let dit = Dit::load(&params(&config, 1), &config).unwrap();
        let x = image(&[3, 3, 8, 12]);
        let t = [0.0, 10.0, 999.0];
        let together = dit.forward(&x, &t, None, None).unwrap();
        assert_eq!(together.dims(), [3, config.out_channels, 8, 12]);
        for (i, t) in t.into_iter().enumerate() {
            let one = x.narrow(0, i, 1).unwrap();
            let alone = dit.forward(&one, &[t], None, None).unwrap();
            assert_eq!(values(&alone), values(&together.narrow(0, i, 1).unwrap()));
        }
    }
}

#[test]
fn the_deepest_features_are_the_tokens_of_the_middle_and_decide_the_prediction() {
    for config in variants().into_iter().filter(|c| c.num_layers > 1) {
        let dit = Dit::load(&params(&config, 1), &config).unwrap();
        let (x, t) = (image(&[2, 3, 8, 8]), [5.0, 400.0]);
        let bottleneck = dit.bottleneck();
        assert_eq!([bottleneck.channels, bottleneck.embedding], [16, 16]);
        let same = dit
            .predict_edited(&x, &t, &mut |h, emb| {
                assert_eq!((h.dims(), emb.dims()), (&[2, 16, 4, 4][..], &[2, 16][..]));
                Ok(Some(h.clone()))
            })
            .unwrap();
        let plain = dit.predict(&x, &t).unwrap();
        assert_eq!(plain.prediction_type, PredictionType::Epsilon);
        assert_eq!(values(&same.plain.output), values(&plain.output));
        assert_eq!(values(&same.changed().output), values(&plain.output));
        assert_eq!(plain.variance.is_some(), config.learns_variance());
        assert_eq!(values(&dit.features(&x, &t).unwrap()), values(&same.h));
        let other = dit
            .predict_edited(&x, &t, &mut |h, _| Ok(Some(h.zeros_like()?)))
            .unwrap();
        assert!(distance(&other.changed().output, &plain.output) > 1e-3);
    }
}

#[test]
fn recomputed_blocks_have_the_same_output_and_gradients_with_dropout() {
    for config in variants() {
        let config = DitConfig {
            dropout: 0.3,
            ..config
        };
        let key = DropoutKey {
            seed: 1,
            step: 2,
            samples: &[3, 4],
        };
        let (params, vars) = params(&config, 2).trainable().unwrap();
        let dit = Dit::load(&params, &config).unwrap();
        let x = Var::from_tensor(&image(&[2, 3, 8, 8])).unwrap();
        let run = |dit: &Dit, key| {
            let y = dit.forward(&x, &[5.0, 400.0], None, key).unwrap();
            let gradients = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
            (y, gradients)
        };
        let (plain, gradients) = run(&dit, Some(&key));
        let (again, recomputed) = run(&dit.clone().recomputed(), Some(&key));
        assert_eq!(values(&again), values(&plain));
        for (name, var) in &vars {
            let [a, b] = [&gradients, &recomputed].map(|g| g.get(var).unwrap());
            let most = values(a)
                .into_iter()
                .fold(1e-3f32, |most, v| most.max(v.abs()));
            assert!(distance(a, b) <= 1e-4 * most, "{name}");
        }
        assert!(gradients.get(&x).is_some());
        assert!(distance(&run(&dit, None).0, &plain) > 1e-3);
    }
}

#[test]
fn half_precision_stays_close_and_returns_the_type_of_the_parameters() {
    for config in variants() {
        let dit = Dit::load(&params(&config, 1), &config).unwrap();
        let x = image(&[1, 3, 8, 8]);
        let plain = dit.forward(&x, &[30.0], None, None).unwrap();
        let most = values(&plain)
            .into_iter()
            .fold(0f32, |most, v| most.max(v.abs()));
        for (dtype, bound) in [(DType::F16, 0.01), (DType::BF16, 0.08)] {
            let dit = dit.clone().with_compute_dtype(dtype);
            let half = dit.forward(&x, &[30.0], None, None).unwrap();
            assert_eq!(half.dtype(), DType::F32);
            let error = distance(&half, &plain) / most;
            assert!((1e-7..bound).contains(&error), "{dtype:?}: {error}");
        }
    }
}

#[test]
fn labels_are_rows_of_the_table_and_the_last_row_is_the_null_class() {
    let config = DitConfig {
        num_embeds_ada_norm: 4,
        ..tiny()
    };
    let dit = Dit::load(&params(&config, 1), &config).unwrap();
    let (x, t) = (image(&[2, 3, 8, 8]), [5.0, 400.0]);
    let run = |labels: &[u32]| dit.forward(&x, &t, Some(labels), None);
    let [a, b] = [[0, 4], [1, 4]].map(|labels| run(&labels).unwrap());
    let halves = |i: usize| [&a, &b].map(|y| y.narrow(0, i, 1).unwrap());
    let ([a0, b0], [a1, b1]) = (halves(0), halves(1));
    assert!(distance(&a0, &b0) > 1e-3 && distance(&a1, &b1) == 0.0);
    assert_eq!(dit.n_classes(), 4);
    for (labels, expected) in [
        (Some(&[0u32, 5][..]), "up to 4"),
        (Some(&[0]), "expected 2 class labels"),
        (None, "class-conditional"),
    ] {
        let error = dit.forward(&x, &t, labels, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let plain = Dit::load(&params(&tiny(), 1), &tiny()).unwrap();
    assert_eq!(plain.n_classes(), 0);
    let error = plain.forward(&x, &t, Some(&[0, 0]), None).unwrap_err();
    assert!(error.to_string().contains("unconditional"), "{error}");
    let error = plain.forward(&image(&[2, 3, 8, 7]), &t, None, None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("multiples of 2"), "{error}");
}

#[test]
fn a_shared_embedder_equals_the_same_embedder_in_every_block() {
    let shared = DitConfig {
        shared_embedder: true,
        num_embeds_ada_norm: 2,
        ..tiny()
    };
    let own = DitConfig {
        shared_embedder: false,
        ..shared.clone()
    };
    let params = params(&shared, 1);
    let written = Params::new(shared.diffusers_tensors(params.iter()));
    assert_eq!(Dit::specs(&own).unwrap().len(), written.len());
    let x = image(&[2, 3, 8, 8]);
    let run = |params: &Params, config: &DitConfig| {
        let dit = Dit::load(params, config).unwrap();
        dit.forward(&x, &[5.0, 400.0], Some(&[0, 2]), None).unwrap()
    };
    assert_eq!(values(&run(&params, &shared)), values(&run(&written, &own)));
}

#[test]
fn a_new_network_returns_zeros_and_every_variable_has_a_gradient_behind_them() {
    for config in variants() {
        let specs = Dit::specs(&config).unwrap();
        let initial = Params::init(&specs, 5, &Device::Cpu).unwrap();
        let dit = Dit::load(&initial, &config).unwrap();
        let x = image(&[2, 3, 8, 8]);
        let y = dit.forward(&x, &[5.0, 400.0], None, None).unwrap();
        assert!(values(&y).iter().all(|v| *v == 0.0));

        let mode = ComputeMode {
            recompute: true,
            ..ComputeMode::default()
        };
        let net = trainable_dit(&params(&config, 2), &config, PredictionType::V, mode).unwrap();
        let metadata = net.metadata();
        assert_eq!(metadata[KIND_KEY], "dit");
        let again: DitConfig = serde_json::from_str(&metadata[MODEL_KEY]).unwrap();
        assert_eq!(again, config);
        assert_eq!(net.compute_mode(), mode);
        let prediction = net
            .predict(&x, &[5.0, 400.0], &Condition::default())
            .unwrap();
        assert_eq!(prediction.prediction_type, PredictionType::V);
        let loss = prediction.output.sqr().unwrap().sum_all().unwrap();
        let gradients = backward(&loss).unwrap();
        for (name, var) in net.vars() {
            let gradient = gradients.get(&var).unwrap();
            let most = values(gradient)
                .into_iter()
                .fold(0f32, |m, v| m.max(v.abs()));
            assert_eq!(most < 1e-3, net.has_zero_gradient(&name), "{name}: {most}");
        }
    }
}

#[test]
fn a_forward_pass_has_its_golden_value() {
    let config = DitConfig {
        num_embeds_ada_norm: 3,
        out_channels: 6,
        ..tiny()
    };
    let dit = Dit::load(&params(&config, 11), &config).unwrap();
    let y = dit
        .forward(&image(&[1, 3, 8, 8]), &[321.0], Some(&[1]), None)
        .unwrap();
    let sum = values(&y).iter().map(|v| f64::from(v * v)).sum::<f64>();
    assert!((sum / GOLDEN - 1.0).abs() < 1e-4, "{sum}");
}

/// The sum of squares, computed when the network agreed with the parity case.
const GOLDEN: f64 = 657.609_95;

#[test]
fn the_counted_parameters_are_those_of_the_network() {
    for config in variants() {
        let specs = Dit::specs(&config).unwrap();
        let n: usize = specs
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>())
            .sum();
        assert_eq!(config.cost([8, 8]).parameters, n);
    }
}
