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
use sdft_nn::{Init, Params};
use sdft_noise::DropoutKey;
use sdft_unet2d::{
    Class, ClassEmbed, DownBlock, ResampleType, TimeEmbedding, TimeScaleShift, Unet2d,
    Unet2dConfig, UpBlock, trainable_unet2d,
};

/// Two levels, one with attention; every kind of block occurs here or in [`variants`].
fn tiny() -> Unet2dConfig {
    Unet2dConfig {
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..Unet2dConfig::default()
    }
}

fn variants() -> Vec<Unet2dConfig> {
    vec![
        tiny(),
        Unet2dConfig {
            attention_head_dim: None,
            downsample_padding: 0,
            flip_sin_to_cos: false,
            freq_shift: 1.0,
            norm_eps: 1e-6,
            mid_block_scale_factor: 1.4,
            center_input_sample: true,
            time_adapter_rank: Some(0),
            ..tiny()
        },
        Unet2dConfig {
            out_channels: 6,
            down_block_types: vec![DownBlock::Attention, DownBlock::Resnet],
            up_block_types: vec![UpBlock::Resnet, UpBlock::Attention],
            downsample_type: Some(ResampleType::Resnet),
            upsample_type: Some(ResampleType::Resnet),
            resnet_time_scale_shift: TimeScaleShift::ScaleShift,
            attn_norm_num_groups: None,
            ..tiny()
        },
        Unet2dConfig {
            mid_block_type: None,
            ..tiny()
        },
    ]
}

/// Weights without zeros or ones, so that every part has an effect.
fn params(config: &Unet2dConfig, seed: u64) -> Params {
    let mut specs = Unet2d::specs(config).unwrap();
    for spec in &mut specs {
        if let Init::Constant(_) = spec.init {
            spec.init = Init::Normal(0.5);
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
        let names = [
            "conv_in.weight",
            "time_embedding.linear_1.weight",
            "down_blocks.0.resnets.0.time_emb_proj.bias",
            "up_blocks.1.resnets.1.conv_shortcut.weight",
            "conv_norm_out.weight",
        ];
        let attention = params
            .iter()
            .filter(|(name, _)| name.ends_with("to_q.weight") || name.ends_with("to_v.bias"));
        let names: Vec<String> = names
            .map(str::to_owned)
            .into_iter()
            .chain(attention.map(|(name, _)| name.to_owned()))
            .collect();
        let mut inputs = vec![wave(&[2, 3, 4, 6], 0.1)];
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
            let unet = Unet2d::load(&Params::new(changed.collect()), &config)?;
            unet.forward(&t[0], &[3.0, 700.0], None, None)
        });
    }
}

#[test]
fn an_image_has_the_same_output_in_any_batch() {
    for config in variants() {
        // Layers of fewer inputs take a path that sums in another order in another batch.
        let config = Unet2dConfig {
            block_out_channels: vec![32, 64],
            ..config
        };
        let unet = Unet2d::load(&params(&config, 1), &config).unwrap();
        let x = image(&[3, 3, 8, 12]);
        let t = [0.0, 10.0, 999.0];
        let together = unet.forward(&x, &t, None, None).unwrap();
        assert_eq!(together.dims(), [3, config.out_channels, 8, 12]);
        for (i, t) in t.into_iter().enumerate() {
            let one = x.narrow(0, i, 1).unwrap();
            let alone = unet.forward(&one, &[t], None, None).unwrap();
            assert_eq!(values(&alone), values(&together.narrow(0, i, 1).unwrap()));
        }
    }
}

#[test]
fn the_deepest_features_are_the_output_of_the_middle_and_decide_the_prediction() {
    for config in variants() {
        let unet = Unet2d::load(&params(&config, 1), &config).unwrap();
        let (x, t) = (image(&[2, 3, 8, 8]), [5.0, 400.0]);
        let bottleneck = unet.bottleneck();
        assert_eq!([bottleneck.channels, bottleneck.embedding], [16, 32]);
        let same = unet
            .predict_edited(&x, &t, &mut |h, emb| {
                assert_eq!((h.dims(), emb.dims()), (&[2, 16, 4, 4][..], &[2, 32][..]));
                Ok(Some(h.clone()))
            })
            .unwrap();
        let plain = unet.predict(&x, &t).unwrap();
        assert_eq!(plain.prediction_type, PredictionType::Epsilon);
        assert_eq!(values(&same.plain.output), values(&plain.output));
        assert_eq!(values(&same.changed().output), values(&plain.output));
        assert_eq!(plain.variance.is_some(), config.learns_variance());
        assert_eq!(values(&unet.features(&x, &t).unwrap()), values(&same.h));
        let other = unet
            .predict_edited(&x, &t, &mut |h, _| Ok(Some((h * 2.0)?)))
            .unwrap();
        assert!(distance(&other.changed().output, &plain.output) > 1e-3);
    }
}

#[test]
fn recomputed_blocks_have_the_same_output_and_gradients_with_dropout() {
    for config in variants() {
        let config = Unet2dConfig {
            dropout: 0.3,
            ..config
        };
        let key = DropoutKey {
            seed: 1,
            step: 2,
            samples: &[3, 4],
        };
        let (params, vars) = params(&config, 2).trainable().unwrap();
        let unet = Unet2d::load(&params, &config).unwrap();
        let x = Var::from_tensor(&image(&[2, 3, 8, 8])).unwrap();
        let run = |unet: &Unet2d, key| {
            let y = unet.forward(&x, &[5.0, 400.0], None, key).unwrap();
            let gradients = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
            (y, gradients)
        };
        let (plain, gradients) = run(&unet, Some(&key));
        let (again, recomputed) = run(&unet.clone().recomputed(), Some(&key));
        assert_eq!(values(&again), values(&plain));
        for (name, var) in &vars {
            let [a, b] = [&gradients, &recomputed].map(|g| g.get(var).unwrap());
            let most = values(a)
                .into_iter()
                .fold(1e-3f32, |most, v| most.max(v.abs()));
            assert!(distance(a, b) <= 1e-4 * most, "{name}");
        }
        assert!(gradients.get(&x).is_some());
        assert!(distance(&run(&unet, None).0, &plain) > 1e-3);
    }
}

#[test]
fn half_precision_stays_close_and_returns_the_type_of_the_parameters() {
    for config in variants() {
        let unet = Unet2d::load(&params(&config, 1), &config).unwrap();
        let x = image(&[1, 3, 8, 8]);
        let plain = unet.forward(&x, &[30.0], None, None).unwrap();
        let most = values(&plain)
            .into_iter()
            .fold(0f32, |most, v| most.max(v.abs()));
        for (dtype, bound) in [(DType::F16, 0.01), (DType::BF16, 0.08)] {
            let unet = unet.clone().with_compute_dtype(dtype);
            let half = unet.forward(&x, &[30.0], None, None).unwrap();
            assert_eq!(half.dtype(), DType::F32);
            let error = distance(&half, &plain) / most;
            assert!((1e-7..bound).contains(&error), "{dtype:?}: {error}");
        }
    }
}

#[test]
fn classes_are_rows_numbers_or_vectors() {
    let x = image(&[2, 3, 8, 8]);
    let t = [5.0, 400.0];
    let build = |class_embed_type, num_class_embeds| {
        let config = Unet2dConfig {
            class_embed_type,
            num_class_embeds,
            ..tiny()
        };
        Unet2d::load(&params(&config, 1), &config).unwrap()
    };
    let problem = |result: candle_core::Result<Tensor>| result.unwrap_err().to_string();
    let table = build(None, Some(4));
    let labels = |unet: &Unet2d, labels: &[u32]| unet.forward(&x, &t, Some(labels), None);
    let [a, b] = [[0, 3], [1, 3]].map(|y| labels(&table, &y).unwrap());
    let halves = |i: usize| [&a, &b].map(|y| y.narrow(0, i, 1).unwrap());
    let ([a0, b0], [a1, b1]) = (halves(0), halves(1));
    assert!(distance(&a0, &b0) > 1e-3 && distance(&a1, &b1) == 0.0);
    let condition = Condition {
        labels: Some(&[0, 3]),
        ..Condition::default()
    };
    let prediction = table.predict_with(&x, &t, &condition).unwrap();
    assert_eq!(
        (values(&prediction.output), table.n_classes()),
        (values(&a), 4)
    );
    assert!(problem(labels(&table, &[0, 4])).contains("below 4"));
    assert!(problem(table.forward(&x, &t, None, None)).contains("a label for each image"));

    let timestep = build(Some(ClassEmbed::Timestep), None);
    assert!(
        distance(
            &labels(&timestep, &[0, 9]).unwrap(),
            &labels(&timestep, &[1, 9]).unwrap()
        ) > 1e-3
    );

    let identity = build(Some(ClassEmbed::Identity), None);
    let zeros = Tensor::zeros((2, 32), DType::F32, &Device::Cpu).unwrap();
    let vectors = |e: &Tensor| identity.forward_class(&x, &t, Class::Embedding(e), None);
    // An identity has no parameters, so a vector of zeros is the network without classes.
    let without = build(None, None).forward(&x, &t, None, None).unwrap();
    assert_eq!(values(&vectors(&zeros).unwrap()), values(&without));
    assert!(distance(&vectors(&zeros.ones_like().unwrap()).unwrap(), &without) > 1e-3);
    assert!(problem(vectors(&zeros.narrow(1, 0, 8).unwrap())).contains("[2, 32]"));
    assert!(problem(labels(&identity, &[0, 1])).contains("Class::Embedding"));
    assert!(problem(labels(&build(None, None), &[0, 1])).contains("unconditional"));
}

#[test]
fn a_learned_time_embedding_takes_whole_timesteps_below_its_rows() {
    let config = Unet2dConfig {
        time_embedding_type: TimeEmbedding::Learned,
        num_train_timesteps: Some(10),
        ..tiny()
    };
    let unet = Unet2d::load(&params(&config, 1), &config).unwrap();
    let run = |t: f32| unet.forward(&image(&[1, 3, 8, 8]), &[t], None, None);
    assert!(distance(&run(0.0).unwrap(), &run(9.0).unwrap()) > 1e-3);
    for t in [0.5, 10.0, -1.0, f32::NAN] {
        assert!(run(t).unwrap_err().to_string().contains("below 10"));
    }
}

#[test]
fn images_that_do_not_fit_are_errors_with_what_was_expected() {
    let unet = Unet2d::load(&params(&tiny(), 1), &tiny()).unwrap();
    let problem = |shape: &[usize], t: &[f32]| {
        let result = unet.forward(&image(shape), t, None, None);
        result.unwrap_err().to_string()
    };
    assert!(problem(&[1, 3, 8, 7], &[1.0]).contains("multiples of 2, found 8x7"));
    assert!(problem(&[1, 4, 8, 8], &[1.0]).contains("3 channels, found 4"));
    assert!(problem(&[2, 3, 8, 8], &[1.0]).contains("each of 2 images, found 1"));
}

#[test]
fn a_trainable_network_writes_what_makes_it_again_and_knows_its_zero_gradients() {
    for (scale_shift, last) in [
        (TimeScaleShift::Default, UpBlock::Plain),
        (TimeScaleShift::ScaleShift, UpBlock::Attention),
    ] {
        // As many groups as channels on the first level.
        let config = Unet2dConfig {
            norm_num_groups: 8,
            resnet_time_scale_shift: scale_shift,
            up_block_types: vec![UpBlock::Plain, last],
            ..tiny()
        };
        let params = params(&config, 1).to(DType::F64, &Device::Cpu).unwrap();
        let mode = ComputeMode {
            dtype: DType::F64,
            recompute: true,
        };
        let network = trainable_unet2d(&params, &config, PredictionType::V, mode).unwrap();
        assert_eq!(network.compute_mode(), mode);
        let metadata = network.metadata();
        assert_eq!(metadata[KIND_KEY], "unet2d");
        let read: Unet2dConfig = serde_json::from_str(&metadata[MODEL_KEY]).unwrap();
        assert_eq!(read, config);
        let x = wave(&[2, 3, 8, 8], 0.3);
        let prediction = network
            .predict(&x, &[5.0, 400.0], &Condition::default())
            .unwrap();
        assert_eq!(prediction.prediction_type, PredictionType::V);
        let loss = prediction.output.sqr().unwrap().sum_all().unwrap();
        let gradients = backward(&loss).unwrap();
        for (name, var) in network.vars() {
            let gradient = gradients.get(&var).unwrap().abs().unwrap();
            let most: f64 = gradient
                .flatten_all()
                .unwrap()
                .max(0)
                .unwrap()
                .to_scalar()
                .unwrap();
            assert_eq!(
                most < 1e-10,
                network.has_zero_gradient(&name),
                "{name}: {most}"
            );
        }
    }
}
