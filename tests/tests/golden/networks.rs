//! Whole networks: the tiny U-Net block by block, the tiny classifier, the full light network.

use crate::{assert_tensor, fill, s, tiny, tiny_unet, values};
use candle_core::{DType, Device, Result, Tensor};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool, Unet};
use sdft_diffusion::FeatureNet;
use sdft_nn::Params;

#[test]
fn the_tiny_unet_agrees_block_by_block() {
    let config = tiny();
    let specs = Unet::specs(&config).unwrap();
    assert_eq!(
        (
            specs.len(),
            specs
                .iter()
                .map(|p| p.shape.iter().product::<usize>())
                .sum::<usize>()
        ),
        (144, 828_358)
    );
    let unet = tiny_unet(&config);
    let (x, t) = (s(&[2, 3, 16, 16]), [7.0, 500.0]);
    let out = unet.forward(&x, &t, None, None).unwrap();
    assert_tensor(
        &out,
        -286.576_849,
        736.346_827,
        &[0.150_523_8, 0.192_226_9, 0.064_826, 0.086_929],
        &[0.212_196_6, 0.015_978_6],
        2e-5,
    );
    let emb = unet.embed(&x, &t, None).unwrap();
    let (h, skips) = unet.encode(&x, &emb, None).unwrap();
    assert_tensor(
        &skips[1],
        4_813.493_359,
        20_681.754_096,
        &[0.418_574_5, 0.843_430_4, 0.903_389_2, 0.929_933_7],
        &[0.101_897_9, -0.106_843_8],
        2e-5,
    );
    assert_tensor(
        &skips[2],
        2_272.357_275,
        9_345.719_035,
        &[0.825_602_5, 0.943_428_3, 0.714_937_8, 0.732_100_5],
        &[1.501_849_7, 0.419_507_7],
        2e-5,
    );
    assert_tensor(
        &h,
        -171.416_888,
        19_732.317_076,
        &[1.151_462_2, 1.182_934_8, 0.845_351, 0.809_210_7],
        &[2.019_603_5, 0.719_86],
        1e-4,
    );
    assert_eq!(values(&unet.features(&x, &t).unwrap()), values(&h));
    let new_order = tiny_unet(&AdmConfig {
        use_new_attention_order: true,
        ..config
    });
    let out = new_order.forward(&x, &t, None, None).unwrap();
    assert_tensor(
        &out,
        -280.813_619,
        718.540_517,
        &[0.115_581_2, 0.152_909_1, 0.000_132_9, 0.009_925_6],
        &[0.201_115_5, 0.023_321_1],
        2e-5,
    );
}

#[test]
fn the_tiny_classifier_agrees() {
    let config = EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..tiny()
        },
        pool: Pool::Attention,
    };
    let encoder = Encoder::load(&fill(&Encoder::specs(&config).unwrap(), 0.1), &config).unwrap();
    let logits = values(&encoder.logits(&s(&[2, 3, 16, 16]), &[7.0, 500.0]).unwrap());
    for (got, want) in logits.iter().zip([
        -0.253_027_766_9,
        -0.392_099_648_7,
        -0.252_657_651_9,
        -0.392_157_405_6,
    ]) {
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
}

#[test]
fn the_full_light_network_agrees_in_f32_and_f64() -> Result<()> {
    let config = AdmConfig::default();
    let params = fill(&Unet::specs(&config)?, 0.02);
    assert_eq!((params.len(), params.n_parameters()), (362, 93_563_910));
    let x = s(&[1, 3, 64, 64]);
    let run = |params: &Params, dtype| -> Result<(Tensor, Tensor)> {
        let unet = Unet::load(params, &config)?;
        let x = x.to_dtype(dtype)?;
        let emb = unet.embed(&x, &[321.0], None)?;
        let (h, skips) = unet.encode(&x, &emb, None)?;
        Ok((unet.decode(&h, &skips, &emb, None)?, h))
    };
    let (out, h) = run(&params, DType::F32)?;
    let (first, last) = (
        [-0.017_02, -0.006_014_8, -0.007_239_6, -0.007_745_7],
        [-0.005_388_3, -0.001_909_3],
    );
    assert_tensor(&out, -337.413_539, 414.038_467, &first, &last, 1e-5);
    assert_tensor(
        &h,
        -1.987_534,
        304.994_24,
        &[0.009_314_2, 0.075_633_2, 0.165_373_1, 0.169_525_9],
        &[],
        1e-5,
    );
    let (exact, _) = run(&params.to(DType::F64, &Device::Cpu)?, DType::F64)?;
    assert_tensor(&exact, -337.413_542, 414.038_728, &first, &last, 1e-5);
    // In f64 the sums agree in every digit.
    let exact = values(&exact);
    let (sum, abs) = exact
        .iter()
        .fold((0.0, 0.0), |(sum, abs), v| (sum + v, abs + v.abs()));
    assert!((sum + 337.413_542f64).abs() < 1e-6 && (abs - 414.038_728f64).abs() < 1e-6);
    let worst = values(&out)
        .iter()
        .zip(&exact)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-5, "f32 is {worst:e} from f64");
    Ok(())
}
