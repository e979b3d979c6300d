//! Numbers of the original code on networks filled by a rule, down to the full light network.
//!
//! Filling: the i-th tensor in state-dict order has w_j = a sin(0.37 j + 1.3 i), plus 1 for one-axis tensors named `weight`.
//! Inputs: S(shape)_n = sin(0.05 n), C(shape)_n = cos(0.11 n).

use candle_core::{DType, Device, Tensor};
use sdft_adm::{AdmConfig, Unet};
use sdft_nn::{ParamSpec, Params};

mod edit;
mod networks;
mod steps;
mod training;
mod translate;

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

fn assert_near(got: &Tensor, want: &[f64], relative: f64) {
    for (got, want) in values(got).iter().zip(want) {
        assert!((got - want).abs() < relative * want.abs(), "{got} {want}");
    }
}
