//! Whole autoencoders: gradients, tiles, batches, half precision.

#[path = "../../autograd/tests/differences/mod.rs"]
mod differences;

use candle_core::{DType, Device, Result, Tensor, Var};
use differences::{check, wave};
use sdft_autoencoder::{
    ActFn, Autoencoder, AutoencoderConfig, AutoencoderKlConfig, DownBlock, UpBlock, VqModelConfig,
};
use sdft_autograd::backward;
use sdft_nn::{Init, Params};

fn kl() -> AutoencoderKlConfig {
    AutoencoderKlConfig {
        down_block_types: vec![DownBlock::Plain; 2],
        up_block_types: vec![UpBlock::Plain; 2],
        block_out_channels: vec![4, 8],
        norm_num_groups: 2,
        latent_channels: 2,
        ..AutoencoderKlConfig::default()
    }
}

fn vq() -> VqModelConfig {
    VqModelConfig {
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        block_out_channels: vec![4, 8],
        norm_num_groups: 2,
        num_vq_embeddings: 12,
        vq_embed_dim: Some(2),
        ..VqModelConfig::default()
    }
}

fn variants() -> Vec<AutoencoderConfig> {
    vec![
        kl().into(),
        AutoencoderKlConfig {
            act_fn: ActFn::Relu,
            layers_per_block: 2,
            use_quant_conv: false,
            use_post_quant_conv: false,
            mid_block_add_attention: false,
            shift_factor: Some(0.1),
            ..kl()
        }
        .into(),
        vq().into(),
    ]
}

/// Weights without zeros or ones, so that every part has an effect.
fn params(config: &AutoencoderConfig) -> Params {
    let mut specs = Autoencoder::specs(config).unwrap();
    for spec in &mut specs {
        if let Init::Constant(_) = spec.init {
            spec.init = Init::Normal(0.5);
        }
    }
    Params::init(&specs, 3, &Device::Cpu).unwrap()
}

fn load(config: &AutoencoderConfig) -> Autoencoder {
    Autoencoder::load(&params(config), config).unwrap()
}

fn map(shape: &[usize]) -> Tensor {
    wave(shape, 0.3).to_dtype(DType::F32).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, as a share of the largest value of `a`.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let pairs = values(a).into_iter().zip(values(b));
    let largest = values(a).into_iter().fold(0.0, |m: f32, v| v.abs().max(m));
    pairs.fold(0.0, |m: f32, (a, b)| (a - b).abs().max(m)) / largest
}

/// Everything that is computed from an image and latents.
fn outputs(autoencoder: &Autoencoder, x: &Tensor, z: &Tensor) -> Result<Vec<Tensor>> {
    let moments = autoencoder.encode(x)?;
    Ok(vec![moments.mean, moments.std, autoencoder.decode(z)?])
}

#[test]
fn gradients_of_encoder_and_decoder_are_exact() {
    for config in variants() {
        let params = params(&config).to(DType::F64, &Device::Cpu).unwrap();
        let names = [
            "encoder.conv_in.weight",
            "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            "decoder.mid_block.resnets.0.norm1.weight",
            "decoder.up_blocks.0.upsamplers.0.conv.bias",
        ];
        let mut inputs = vec![wave(&[1, 3, 4, 6], 0.1), wave(&[1, 2, 2, 3], 0.2)];
        inputs.extend(names.map(|name| params.tensor(name).unwrap().clone()));
        check(&inputs, |t| {
            let changed = params.iter().map(|(name, tensor)| {
                let index = names.iter().position(|known| *known == name);
                (name.to_owned(), index.map_or(tensor, |i| &t[i + 2]).clone())
            });
            let source = Params::new(changed.collect());
            let autoencoder = Autoencoder::load(&source, &config)?;
            let moments = autoencoder.encode(&t[0])?;
            let z = autoencoder.unscale(&autoencoder.scale(&t[1])?)?;
            // Quantising has steps.
            let decoded = autoencoder.decode_unquantized(&z)?;
            let parts = [moments.mean, moments.std, decoded];
            Tensor::cat(&parts.map(|part| part.flatten_all().unwrap()), 0)
        });
    }
}

#[test]
fn the_gradient_passes_the_codebook_unchanged() {
    let config = AutoencoderConfig::from(vq());
    let autoencoder = load(&config);
    let z = Var::from_tensor(&map(&[1, 2, 2, 3])).unwrap();
    let decoded = autoencoder.decode(&z).unwrap();
    let plain = autoencoder.decode(&z.detach()).unwrap();
    assert!(difference(&plain, &decoded) < 1e-5);
    let codes = params(&config)
        .tensor("quantize.embedding.weight")
        .unwrap()
        .clone();
    let indices = autoencoder.code_indices(&z).unwrap().unwrap();
    let chosen = codes
        .index_select(&indices.flatten_all().unwrap(), 0)
        .unwrap();
    let chosen = chosen
        .reshape((1, 2, 3, 2))
        .unwrap()
        .permute((0, 3, 1, 2))
        .unwrap();
    let chosen = Var::from_tensor(&chosen.contiguous().unwrap()).unwrap();
    let by_hand = autoencoder.decode_unquantized(&chosen).unwrap();
    let gradient = |y: &Tensor, x: &Var| {
        backward(&y.sqr().unwrap().sum_all().unwrap())
            .unwrap()
            .get(x)
            .unwrap()
            .clone()
    };
    assert!(difference(&by_hand, &decoded) < 1e-5);
    assert!(difference(&gradient(&by_hand, &chosen), &gradient(&decoded, &z)) < 1e-4);
}

#[test]
fn an_image_has_the_same_result_in_any_batch() {
    for config in variants() {
        let autoencoder = load(&config);
        let (x, z) = (map(&[3, 3, 8, 12]), map(&[3, 2, 4, 6]));
        let together = outputs(&autoencoder, &x, &z).unwrap();
        for i in 0..3 {
            let (x, z) = (x.narrow(0, i, 1).unwrap(), z.narrow(0, i, 1).unwrap());
            let alone = outputs(&autoencoder, &x, &z).unwrap();
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(values(alone), values(&together.narrow(0, i, 1).unwrap()));
            }
        }
    }
}

#[test]
fn one_tile_is_the_whole_and_several_are_close_to_it() {
    let config = AutoencoderConfig::from(AutoencoderKlConfig {
        // Attention over all pixels has no tiles.
        mid_block_add_attention: false,
        ..kl()
    });
    let autoencoder = load(&config);
    // A remainder of one pixel belongs to the last tile.
    let (x, z) = (map(&[2, 3, 96, 81]), map(&[2, 2, 48, 40]));
    let [mean, std, decoded] = outputs(&autoencoder, &x, &z).unwrap().try_into().unwrap();
    let once = autoencoder.encode_tiled(&x, 96).unwrap();
    assert_eq!(values(&once.mean), values(&mean));
    assert_eq!(values(&once.std), values(&std));
    let once = autoencoder.decode_tiled(&z, 96).unwrap();
    assert_eq!(values(&once), values(&decoded));
    // The statistics of the norms are those of a tile.
    let tiled = autoencoder.encode_tiled(&x, 48).unwrap();
    assert_eq!(tiled.mean.dims(), mean.dims());
    assert!(
        difference(&mean, &tiled.mean) < 0.1,
        "{}",
        difference(&mean, &tiled.mean)
    );
    let tiled = autoencoder.decode_tiled(&z, 48).unwrap();
    assert_eq!(tiled.dims(), decoded.dims());
    assert!(
        difference(&decoded, &tiled) < 0.1,
        "{}",
        difference(&decoded, &tiled)
    );
    assert!(difference(&decoded, &tiled) > 0.0);
}

#[test]
fn tiles_have_gradients() {
    let autoencoder = load(&kl().into());
    let z = Var::from_tensor(&map(&[1, 2, 9, 14])).unwrap();
    let loss = autoencoder.decode_tiled(&z, 8).unwrap().sum_all().unwrap();
    let gradient = backward(&loss).unwrap().get(&z).unwrap().clone();
    assert!(values(&gradient).iter().all(|g| *g != 0.0 && g.is_finite()));
}

#[test]
fn half_precision_is_close_and_f16_is_avoided_where_it_overflows() {
    for config in variants() {
        let (x, z) = (map(&[1, 3, 8, 8]), map(&[1, 2, 4, 4]));
        let exact = outputs(&load(&config), &x, &z).unwrap();
        for maps in [DType::BF16, DType::F16] {
            let half = load(&config).with_compute_dtype(maps);
            for (exact, half) in exact.iter().zip(outputs(&half, &x, &z).unwrap()) {
                assert_eq!(half.dtype(), DType::F32);
                if values(exact).iter().all(|v| *v == 0.0) {
                    continue;
                }
                let off = difference(exact, &half);
                match maps == DType::F16 && config.force_upcast() {
                    true => assert_eq!(off, 0.0),
                    false => assert!((1e-6..0.05).contains(&off), "{off} {maps:?}"),
                }
            }
        }
    }
}

#[test]
fn recomputed_blocks_change_no_number() {
    let config = AutoencoderConfig::from(kl());
    let gradients = |recomputed: bool| {
        let (params, vars) = params(&config).trainable().unwrap();
        let autoencoder = Autoencoder::load(&params, &config).unwrap();
        let autoencoder = if recomputed {
            autoencoder.recomputed()
        } else {
            autoencoder
        };
        let moments = autoencoder.encode(&map(&[2, 3, 4, 4])).unwrap();
        let z = moments.sample(&map(&[2, 2, 2, 2])).unwrap();
        let y = autoencoder
            .decode(&z)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap();
        let loss = (y + moments.kl().unwrap().sum_all().unwrap()).unwrap();
        let gradients = backward(&loss).unwrap();
        let all = vars
            .iter()
            .map(|(name, var)| values(gradients.get(var).expect(name)));
        all.collect::<Vec<_>>()
    };
    assert_eq!(gradients(false), gradients(true));
}

#[test]
fn moments_are_those_of_a_normal_distribution() {
    let config = AutoencoderConfig::from(kl());
    let moments = load(&config).encode(&map(&[2, 3, 4, 4])).unwrap();
    let (mean, std) = (values(&moments.mean), values(&moments.std));
    let kl = values(&moments.kl().unwrap());
    assert_eq!(kl.len(), 2);
    let by_hand: f32 = mean[..8]
        .iter()
        .zip(&std[..8])
        .map(|(m, s)| 0.5 * (m * m + s * s - 1.0 - 2.0 * s.ln()))
        .sum();
    assert!(
        (kl[0] - by_hand).abs() < 1e-4 * by_hand.abs().max(1.0),
        "{} {by_hand}",
        kl[0]
    );
}

#[test]
fn public_networks_have_their_number_of_parameters() {
    let stable_diffusion = AutoencoderKlConfig {
        down_block_types: vec![DownBlock::Plain; 4],
        up_block_types: vec![UpBlock::Plain; 4],
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        ..AutoencoderKlConfig::default()
    };
    let celebahq = VqModelConfig {
        down_block_types: vec![DownBlock::Plain; 3],
        up_block_types: vec![UpBlock::Plain; 3],
        block_out_channels: vec![128, 256, 512],
        layers_per_block: 2,
        num_vq_embeddings: 8192,
        ..VqModelConfig::default()
    };
    for (config, n) in [
        (AutoencoderConfig::from(stable_diffusion), 83_653_863),
        (celebahq.into(), 55_322_782),
    ] {
        let specs = Autoencoder::specs(&config).unwrap();
        let counted: usize = specs
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>())
            .sum();
        assert_eq!([counted, config.cost([256; 2]).parameters], [n; 2]);
    }
}

#[test]
fn images_and_latents_that_do_not_fit_are_errors() {
    let autoencoder = load(&kl().into());
    for (error, expected) in [
        (
            autoencoder.encode(&map(&[1, 1, 8, 8])).unwrap_err(),
            "images of 3 channels, found 1",
        ),
        (
            autoencoder.encode(&map(&[1, 3, 1, 8])).unwrap_err(),
            "at least 2x2 pixels, found 1x8",
        ),
        (
            autoencoder.decode(&map(&[1, 4, 8, 8])).unwrap_err(),
            "latents of 2 channels, found 4",
        ),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
    }
    let lookup = VqModelConfig {
        lookup_from_codebook: true,
        ..vq()
    }
    .into();
    let error = load(&lookup)
        .decode_unquantized(&map(&[1, 2, 2, 2]))
        .unwrap_err();
    assert!(
        error.to_string().contains("lookup_from_codebook"),
        "{error}"
    );
}
