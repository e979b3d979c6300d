//! The gradient audit of ADM's U-Net in every way that it computes.

use candle_core::{DType, Device, Tensor, Var};
use sdft_adm::{AdmConfig, Unet, trainable_unet};
use sdft_diffusion::{ComputeMode, PredictionType, Trainable};
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_randn::randn;
use sdft_testing::tiny_config;
use sdft_train::{Learner, Method, Plan, Precision, audit_gradients};

fn audit(out_channels: usize, norm_groups: usize, precision: Precision, recompute: bool) {
    let config = AdmConfig {
        out_channels,
        norm_groups,
        ..tiny_config()
    };
    let params = Params::init(&Unet::specs(&config).unwrap(), 0, &Device::Cpu).unwrap();
    let mode = ComputeMode {
        dtype: precision.compute_dtype(),
        recompute,
    };
    let network = trainable_unet(&params, &config, PredictionType::Epsilon, mode).unwrap();
    let vars = network.vars();
    let mut plan = Plan {
        method: Method::Naive,
        ..<Plan>::default()
    };
    (plan.steps.precision, plan.steps.recompute) = (precision, recompute);
    let learner = Learner::new(&plan, Box::new(network), None, [3, 8, 8], 0).unwrap();
    let x0 = randn(0, Purpose::Test, 0, 0, &[2, 3, 8, 8], &Device::Cpu).unwrap();
    learner.audit(&x0).unwrap();
    // A fresh network has zeros, which the audit fills and restores.
    for ((name, var), (_, start)) in vars.iter().zip(params.iter()) {
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(var), numbers(start), "{name}");
        assert_eq!(var.dtype(), DType::F32);
    }
}

#[test]
fn the_loss_reaches_every_tensor_of_a_fresh_network() {
    audit(3, 4, Precision::F32, false);
    audit(6, 4, Precision::F32, false);
    audit(6, 4, Precision::F32, true);
}

#[test]
fn half_precision_hides_no_gradient() {
    for precision in [Precision::F16, Precision::Bf16] {
        audit(6, 4, precision, false);
    }
}

#[test]
fn offsets_that_a_norm_removes_are_accepted() {
    // As many groups as channels: the bias before the norm has no effect.
    audit(3, 8, Precision::F32, false);
}

#[test]
fn a_scalar_that_starts_at_zero_is_audited_like_any_variable() {
    let gate = Var::zeros((), DType::F32, &Device::Cpu).unwrap();
    let vars = [("gate".to_owned(), gate.clone())];
    let none = |_: &str| false;
    let quadratic = |factor: f64| {
        let loss = (gate.as_tensor().sqr()? + gate.as_tensor())?;
        Ok((loss * factor)?.backward()?)
    };
    audit_gradients(&vars, 0, &none, &quadratic).unwrap();
    assert_eq!(gate.to_scalar::<f32>().unwrap(), 0.0);
    let constant = |_: f64| Ok(Tensor::new(1f32, &Device::Cpu)?.backward()?);
    assert!(audit_gradients(&vars, 0, &none, &constant).is_err());
}
