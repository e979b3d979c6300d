//! Numbers of the original code on networks filled by a rule, down to the full light network.
//!
//! Filling: the i-th tensor in state-dict order has w_j = a sin(0.37 j + 1.3 i), plus 1 for one-axis tensors named `weight`.
//! Inputs: S(shape)_n = sin(0.05 n), C(shape)_n = cos(0.11 n).

use candle_core::{DType, Device, Result, Tensor, Var};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool, Unet};
use sdft_diffusion::{
    Clip, Diffusion, FeatureNet, Variance, discretized_gaussian_log_likelihood, normal_kl,
};
use sdft_losses::{Batch, Objective, Variational};
use sdft_nn::{ParamSpec, Params};
use sdft_optim::{AdamW, Optimizer, Rule, collect_gradients, global_norm};
use sdft_samplers::{Ddim, ddim_reverse_step, ddim_step};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};

fn fill(specs: &[ParamSpec], amplitude: f64) -> Params {
    let tensor = |(i, spec): (usize, &ParamSpec)| {
        let n: usize = spec.shape.iter().product();
        let shift = if spec.shape.len() == 1 && spec.name.ends_with("weight") {
            1.0
        } else {
            0.0
        };
        let data: Vec<f32> = (0..n)
            .map(|j| (amplitude * (0.37 * j as f64 + 1.3 * i as f64).sin() + shift) as f32)
            .collect();
        (
            spec.name.clone(),
            Tensor::from_vec(data, spec.shape.as_slice(), &Device::Cpu).unwrap(),
        )
    };
    Params::new(specs.iter().enumerate().map(tensor).collect())
}

fn wave(shape: &[usize], f: impl Fn(f64) -> f64) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec(
        (0..n).map(|i| f(i as f64) as f32).collect::<Vec<_>>(),
        shape,
        &Device::Cpu,
    )
    .unwrap()
}

fn s(shape: &[usize]) -> Tensor {
    wave(shape, |n| (0.05 * n).sin())
}

fn c(shape: &[usize]) -> Tensor {
    wave(shape, |n| (0.11 * n).cos())
}

fn tiny() -> AdmConfig {
    AdmConfig {
        image_size: 16,
        model_channels: 32,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 16,
        ..AdmConfig::default()
    }
}

fn tiny_unet(config: &AdmConfig) -> Unet {
    Unet::load(&fill(&Unet::specs(config).unwrap(), 0.1), config).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// Compares sums within 1e-4 of the sum of absolute values, and single values within `near`.
fn assert_tensor(t: &Tensor, sum: f64, abs: f64, first: &[f64], last: &[f64], near: f64) {
    let v = values(t);
    let (got_sum, got_abs) = (
        v.iter().sum::<f64>(),
        v.iter().map(|x| x.abs()).sum::<f64>(),
    );
    assert!(
        (got_sum - sum).abs() < 1e-4 * abs.abs() && (got_abs - abs).abs() < 1e-4 * abs,
        "sum {got_sum} ({sum}), abs {got_abs} ({abs})"
    );
    for (got, want) in v
        .iter()
        .zip(first)
        .chain(v[v.len() - last.len()..].iter().zip(last))
    {
        assert!((got - want).abs() < near, "{got} {want}");
    }
}

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

fn linear() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000)
        .unwrap()
        .respaced(&Respacing::All)
        .unwrap();
    Diffusion::new(schedule, Variance::LearnedRange)
}

fn losses_of(unet: &Unet, base: Weighting, t: &[usize]) -> sdft_losses::Terms {
    let (x0, noise) = ((s(&[2, 3, 16, 16]) * 0.9).unwrap(), c(&[2, 3, 16, 16]));
    let batch = Batch {
        x0: &x0,
        t,
        noise: &noise,
        importance: None,
    };
    Objective::base_only(base, Variational::Rescaled)
        .evaluate(&linear(), unet, None, &batch, None)
        .unwrap()
}

fn assert_near(got: &Tensor, want: &[f64], relative: f64) {
    for (got, want) in values(got).iter().zip(want) {
        assert!((got - want).abs() < relative * want.abs(), "{got} {want}");
    }
}

#[test]
fn the_losses_agree_weighted_and_not() {
    let unet = tiny_unet(&tiny());
    let p2 = Weighting::P2 { k: 1.0, gamma: 1.0 };
    let plain = losses_of(&unet, Weighting::Constant, &[7, 500]);
    assert_near(&plain.mse, &[0.647_945_702_1, 0.526_442_468_2], 1e-5);
    assert_near(
        plain.vb.as_ref().unwrap(),
        &[0.095_695_823_4, 0.004_186_686_6],
        1e-4,
    );
    let weighted = losses_of(&unet, p2, &[7, 500]);
    assert_near(&weighted.mse, &[0.000_879_236_206, 0.485_487_103_5], 1e-5);
    assert_near(&weighted.base_each, &[0.096_574_999, 0.489_673_793], 1e-4);
    let ends = losses_of(&unet, p2, &[0, 999]);
    assert_near(
        ends.vb.as_ref().unwrap(),
        &[2.096_635_580_1, 0.007_844_231_1],
        1e-4,
    );
    assert_near(&ends.mse, &[6.339_531_7e-5, 0.532_804_667_9], 1e-5);
    let one = |v: f32| Tensor::new(&[v], &Device::Cpu).unwrap();
    assert_near(
        &normal_kl(&one(0.1), &one(-2.0), &one(0.3), &one(-1.0)).unwrap(),
        &[0.238_305_360_1],
        1e-6,
    );
    let x = Tensor::new(&[-1.0f32, 0.0, 1.0, 0.2], &Device::Cpu).unwrap();
    let mean = Tensor::new(&[-0.9f32, 0.01, 0.95, -0.5], &Device::Cpu).unwrap();
    let scale = Tensor::full(-3.0f32, 4, &Device::Cpu).unwrap();
    let likelihood = discretized_gaussian_log_likelihood(&x, &mean, &scale).unwrap();
    assert_near(
        &likelihood,
        &[-3.619_462, -2.788_319_6, -1.728_859_2, -27.631_021_5],
        1e-4,
    );
}

#[test]
fn two_steps_of_adamw_agree() {
    let config = tiny();
    let (params, vars) = fill(&Unet::specs(&config).unwrap(), 0.1)
        .trainable()
        .unwrap();
    let unet = Unet::load(&params, &config).unwrap();
    let mut optimizer = Optimizer::new(
        Rule::AdamW(AdamW {
            weight_decay: 0.0,
            ..AdamW::default()
        }),
        &vars,
    )
    .unwrap();
    let bias = |vars: &[(String, Var)]| values(vars.last().unwrap().1.as_tensor());
    let wanted = [
        (
            0.293_124_437_3,
            3.356_524_796_8,
            [
                -0.050_930_15,
                -0.078_319_23,
                -0.094_972_83,
                -0.098_636_96,
                -0.088_815_76,
                -0.066_838_29,
            ],
        ),
        (
            0.259_253_740_3,
            2.806_624_271_8,
            [
                -0.049_932_98,
                -0.077_321_29,
                -0.093_988_81,
                -0.097_655_65,
                -0.087_930_52,
                -0.065_927_33,
            ],
        ),
    ];
    for (step, (loss, norm, after)) in wanted.into_iter().enumerate() {
        let total = losses_of(&unet, Weighting::P2 { k: 1.0, gamma: 1.0 }, &[7, 500]).total;
        assert_near(&total, &[loss], 1e-4);
        let store = total.backward().unwrap();
        if step == 0 {
            let gradient = |name: &str| {
                let var = &vars.iter().find(|(known, _)| known == name).unwrap().1;
                store.get(var).unwrap().clone()
            };
            for (name, sum, abs) in [
                ("input_blocks.0.0.weight", 0.149_281_71, 8.495_974),
                ("time_embed.0.weight", 0.004_538_89, 0.061_644_3),
                ("middle_block.1.qkv.weight", -0.001_481_2, 0.870_300_9),
                (
                    "output_blocks.3.0.skip_connection.weight",
                    0.037_324_74,
                    13.753_664_4,
                ),
                ("out.2.weight", -4.144_920_09, 35.264_855_4),
            ] {
                assert_tensor(&gradient(name), sum, abs, &[], &[], 0.0);
            }
            assert_tensor(
                &gradient("out.2.bias").narrow(0, 0, 4).unwrap(),
                -0.075_506_26,
                0.075_506_26,
                &[-0.008_945_15, -0.041_785_77, -0.024_106_78, -0.000_670_19],
                &[],
                1e-6,
            );
        }
        let gradients = collect_gradients(&vars, &store);
        assert!((global_norm(&gradients).unwrap() - norm).abs() < 1e-3 * norm);
        optimizer.step(&gradients, 1e-3, 1.0).unwrap();
        for (got, want) in bias(&vars).iter().zip(after) {
            assert!((got - want).abs() < 2e-6, "{got} {want}");
        }
    }
}

#[test]
fn single_steps_of_the_respaced_sampler_agree() {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000)
        .unwrap()
        .respaced(&"ddim40".parse().unwrap())
        .unwrap();
    let diffusion = Diffusion::new(schedule, Variance::LearnedRange);
    let (unet, x, t) = (tiny_unet(&tiny()), s(&[2, 3, 16, 16]), 20);
    let prediction = diffusion.predict(&unet, &x, &[t, t]).unwrap();
    let step = |clip| {
        ddim_step(
            &diffusion,
            &prediction,
            &x,
            t,
            &Ddim {
                clip,
                ..Ddim::default()
            },
            None,
        )
        .unwrap()
        .0
    };
    assert_tensor(
        &step(Clip::Yes),
        24.102_002,
        1_011.876_343,
        &[-0.020_031_7, 0.030_928_5, 0.105_160_5, 0.158_373],
        &[],
        2e-5,
    );
    assert_tensor(&step(Clip::No), 37.067_006, 1_088.453_793, &[], &[], 0.0);
    let next = ddim_reverse_step(&diffusion, &prediction, &x, t, Clip::No)
        .unwrap()
        .0;
    assert_tensor(
        &next,
        -3.057_567,
        874.377_946,
        &[0.018_355, 0.067_370_8, 0.094_823_2, 0.141_058_1],
        &[],
        2e-5,
    );
    let last = diffusion.predict(&unet, &x, &[39, 39]).unwrap();
    let latent = ddim_reverse_step(&diffusion, &last, &x, 39, Clip::No)
        .unwrap()
        .0;
    assert_tensor(&latent, -136.650_316, 348.690_928, &[], &[], 0.0);
    assert_eq!(values(&latent), values(&last.eps));
    let reverse = diffusion
        .reverse(&prediction, &x, &[t, t], Clip::Yes)
        .unwrap();
    assert_tensor(&reverse.mean, 29.206_003, 931.777_37, &[], &[], 0.0);
    assert_tensor(
        &reverse.log_variance,
        -2_355.248_653,
        2_355.248_653,
        &[-1.531_478_9, -1.531_545_9, -1.532_298_1],
        &[],
        2e-5,
    );
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
    // The filling is exact in f64 in the reference and rounded to f32 here, which shows in the last digits only.
    assert_tensor(&exact, -337.413_542, 414.038_728, &first, &last, 1e-5);
    let worst = values(&out)
        .iter()
        .zip(values(&exact))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-5, "f32 is {worst:e} from f64");
    Ok(())
}
