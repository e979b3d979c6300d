//! Compares every operation on a device with the same operation on the CPU.

mod graphs;
mod networks;
mod operations;
mod optimisers;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use graphs::{repeated_calls, repeated_pairs, repeated_steps};
use networks::{blocks, network};
use operations::operations;
use optimisers::optimisers;
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The compared operation or value.
    pub name: String,
    /// The largest difference, as a share of the largest value.
    pub error: f64,
    /// The largest share that rounding explains.
    pub bound: f64,
}

impl Finding {
    /// Whether the two agree.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

fn wave(shape: &[usize], salt: u64, device: &Device) -> Result<Tensor> {
    let mut values = vec![0.0; shape.iter().product()];
    Draw::new(11, Purpose::Test, salt, 0).fill_normal(&mut values);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
}

/// The error that rounding to this type explains, as a share of the largest value.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.6e-2,
        DType::F16 => 2e-3,
        _ => 3e-5,
    }
}

/// Compares several operations in one type.
type Group = fn(DType, &Device, &mut Vec<Finding>) -> Result<()>;

const GROUPS: [(&str, Group); 5] = [
    ("blocks", blocks),
    ("network", network),
    ("repeated calls", repeated_calls),
    ("repeated steps", repeated_steps),
    ("repeated pairs", repeated_pairs),
];

/// Values and gradients of every operation in f32, bf16 and f16, of blocks and a whole network, of repeated calls, steps and pairs of
/// calls, of noise and of optimiser steps: those whose names are `wanted`.
pub fn compare_devices(device: &Device, wanted: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for operation in operations().into_iter().filter(|one| wanted(&one.name)) {
            let name = format!("{} {}", operation.name, dtype.as_str());
            let done = operation.compare(dtype, device, &name, &mut findings);
            note(done, &name, &mut findings);
        }
        for (name, compare) in GROUPS.into_iter().filter(|(name, _)| wanted(name)) {
            note(compare(dtype, device, &mut findings), name, &mut findings);
        }
    }
    if wanted("noise") {
        let done = noise(device, &mut findings);
        note(done, "noise", &mut findings);
    }
    if wanted("optimisers") {
        let done = optimisers(device, &mut findings);
        note(done, "optimisers", &mut findings);
    }
    findings
}

/// Records a failed operation as a difference, so that the others are still compared.
fn note(done: Result<()>, name: &str, findings: &mut Vec<Finding>) {
    if let Err(error) = done {
        findings.push(Finding {
            name: format!("{name}: {error:#}"),
            error: f64::INFINITY,
            bound: 0.0,
        });
    }
}

fn finding(name: String, a: &Tensor, b: &Tensor, bound: f64) -> Result<Finding> {
    anyhow::ensure!(
        a.dims() == b.dims(),
        "{name}: {:?} and {:?}",
        a.dims(),
        b.dims()
    );
    let numbers = |t: &Tensor| -> Result<Vec<f64>> {
        let t = t
            .contiguous()?
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?;
        Ok(t.flatten_all()?.to_vec1()?)
    };
    let (a, b) = (numbers(a)?, numbers(b)?);
    let size = b.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-30);
    let mut error = 0.0f64;
    for (a, b) in a.iter().zip(&b) {
        let e = (a - b).abs() / size;
        // A NaN stays.
        error = if e <= error { error } else { e };
    }
    Ok(Finding { name, error, bound })
}

fn noise(device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    for (step, first, shape) in [(5, 3, vec![3, 7]), (1 << 60, 1 << 33, vec![2, 3, 16, 16])] {
        let of = |device: &Device| randn(7, Purpose::Noise, step, first, &shape, device);
        let (there, here) = (of(device)?, of(&Device::Cpu)?);
        // One unit in the last place of numbers up to 6.8.
        findings.push(finding(format!("noise {shape:?}"), &there, &here, 1e-7)?);
    }
    Ok(())
}
