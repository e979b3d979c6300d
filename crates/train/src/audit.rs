//! The gradient audit: one backward pass before anything is trained.

use crate::error::{Result, TrainError};
use crate::values::with_values;
use candle_core::backprop::GradStore;
use candle_core::{D, Var};
use sdft_noise::Purpose;
use sdft_randn::randn;
use std::collections::BTreeSet;

/// Standard deviation of the noise that replaces zeros: behind a zero-initialised layer nothing would get a gradient.
const FILL: f64 = 0.02;

/// Factors of the loss. Gradients of half-precision maps are too small with one and too large with another; f32 needs the first only.
const FACTORS: [f64; 5] = [1.0, 65_536.0, 4096.0, 256.0, 16.0];

/// Fails, naming them, if the loss leaves variables without a finite gradient that is not zero.
///
/// `gradients` returns those of the loss times a factor. It is called while the variables that are all zeros hold noise instead. They are
/// restored afterwards. `is_exempt` tells of a name whether its gradient may be zero.
///
/// # Errors
/// [`TrainError::Audit`], or an error of `gradients`.
pub fn audit_gradients(
    vars: &[(String, Var)],
    seed: u64,
    is_exempt: &dyn Fn(&str) -> bool,
    gradients: &dyn Fn(f64) -> Result<GradStore>,
) -> Result<()> {
    let mut filled = Vec::new();
    for (i, (name, var)) in vars.iter().enumerate() {
        if var.abs()?.max_all()?.to_scalar::<f32>()? == 0.0 {
            // A scalar has no dimension that could count samples.
            let dims = match var.dims() {
                [] => &[1],
                dims => dims,
            };
            let noise = randn(seed, Purpose::Audit, 1, i as u64, dims, var.device())?;
            let noise = noise.reshape(var.shape())?;
            filled.push((name.clone(), (noise * FILL)?));
        }
    }
    let left = with_values(vars, filled, || unusable(vars, is_exempt, gradients))?;
    let names: Vec<String> = vars
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| left.contains(name.as_str()))
        .collect();
    if names.is_empty() {
        Ok(())
    } else {
        Err(TrainError::Audit {
            names,
            total: vars.len(),
        })
    }
}

/// The names of variables that get no usable gradient with any factor.
fn unusable<'a>(
    vars: &'a [(String, Var)],
    is_exempt: &dyn Fn(&str) -> bool,
    gradients: &dyn Fn(f64) -> Result<GradStore>,
) -> Result<BTreeSet<&'a str>> {
    let names = vars.iter().map(|(name, _)| name.as_str());
    let mut left: BTreeSet<&str> = names.filter(|name| !is_exempt(name)).collect();
    for factor in FACTORS {
        let gradients = gradients(factor)?;
        let mut reached = false;
        for (name, var) in vars {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            reached = reached || left.contains(name.as_str());
            let sum = gradient.abs()?.flatten_all()?.sum(D::Minus1)?;
            let sum = sum.to_scalar::<f32>()?;
            if sum.is_finite() && sum > 0.0 {
                left.remove(name.as_str());
            }
        }
        // Another factor helps only where there is a gradient at all.
        if left.is_empty() || !reached {
            break;
        }
    }
    Ok(left)
}
