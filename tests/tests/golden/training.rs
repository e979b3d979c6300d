//! Losses with and without weights, their gradients, and a step of AdamW.

use crate::{assert_near, assert_tensor, c, fill, s, tiny, tiny_unet, values};
use candle_core::{Device, Tensor, Var};
use sdft_adm::Unet;
use sdft_diffusion::{Diffusion, Variance, discretized_gaussian_log_likelihood, normal_kl};
use sdft_losses::{NoisedBatch, Objective, Variational};
use sdft_optim::{AdamW, Optimizer, Rule, collect_gradients, global_norm};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};

fn linear() -> Diffusion {
    let schedule = Schedule::new(BetaSchedule::Linear, 1000)
        .unwrap()
        .respaced(&Respacing::All)
        .unwrap();
    Diffusion::new(schedule, Variance::LearnedRange)
}

fn losses_of(unet: &Unet, base: Weighting, t: &[usize]) -> sdft_losses::Terms {
    let (x0, noise) = ((s(&[2, 3, 16, 16]) * 0.9).unwrap(), c(&[2, 3, 16, 16]));
    let levels = linear().levels(t).unwrap();
    let batch = NoisedBatch::new(&x0, &levels, &noise);
    Objective::base_only(base, Variational::Rescaled)
        .evaluate(&linear(), unet, None, &batch, None)
        .unwrap()
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
        let store = sdft_autograd::backward(&total).unwrap();
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
