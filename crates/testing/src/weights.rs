//! The weights of a case's networks: from a file, or from a formula.

use crate::case::Case;
use crate::stage::params_to_device;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Device, Tensor};
use sdft_checkpoint::{ReadOptions, read};
use sdft_nn::{ParamSpec, Params};
use serde_json::Value;
use std::collections::HashMap;

/// Weights that are a function of a key, a name and a shape (`splitmix64-v1`).
#[derive(Clone, Debug)]
pub struct Formula {
    /// The key.
    pub key: String,
    /// Factor of parameters with two or more axes.
    pub gain: f64,
    /// Prefixes of parameters that take the absolute value.
    pub abs_prefix: Vec<String>,
}

/// The parameter with this official name and shape.
///
/// # Errors
/// The tensor cannot be made.
pub fn formula_tensor(formula: &Formula, name: &str, shape: &[usize]) -> Result<Tensor> {
    let text = format!("{}/{name}", formula.key);
    let h = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    let n: usize = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let absolute = formula
        .abs_prefix
        .iter()
        .any(|prefix| name.starts_with(prefix.as_str()));
    let value = |j: usize| {
        let mut z = h.wrapping_add((j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let u = (z >> 40) as f64 / (1u64 << 24) as f64;
        let s = 2.0 * u - 1.0;
        let value = match (leaf, shape.len()) {
            ("running_var", _) => 1.0 + 0.5 * u,
            ("running_mean", _) => 0.1 * s,
            ("weight", 1) => 1.0 + 0.1 * s,
            (_, 2..) => s * (formula.gain * (3.0 / fan_in as f64).sqrt()),
            _ => 0.1 * s,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the formula rounds once to f32"
        )]
        let value = if absolute { value.abs() } else { value } as f32;
        value
    };
    Ok(Tensor::from_vec(
        (0..n).map(value).collect::<Vec<f32>>(),
        shape,
        &Device::Cpu,
    )?)
}

impl Case {
    /// The parameters of the network `role`, with the names and shapes of `specs`, on [`device`](crate::device).
    ///
    /// # Errors
    /// The source is unknown, or its file cannot be read or does not fit.
    pub fn weights(&self, role: &str, specs: &[ParamSpec]) -> Result<Params> {
        Ok(params_to_device(&self.weights_on_cpu(role, specs)?)?)
    }

    fn weights_on_cpu(&self, role: &str, specs: &[ParamSpec]) -> Result<Params> {
        let spec = self
            .get("weights")?
            .get(role)
            .ok_or_else(|| anyhow!("config.weights.{role} is missing"))?;
        let text = |name: &str| spec.get(name).and_then(Value::as_str);
        let list = |name: &str| -> Result<Vec<String>> {
            match spec.get(name) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(value) => serde_json::from_value(value.clone())
                    .map_err(|_| anyhow!("weights.{role}.{name}: {value} is not a list of names")),
            }
        };
        match text("source") {
            Some("file") => {
                let file = text("file").ok_or_else(|| anyhow!("weights.{role}.file is missing"))?;
                let prefix = text("prefix").unwrap_or("");
                let state = read(&self.dir.join(file), &ReadOptions::default())?;
                // Batch norm counts its batches; nothing uses the count.
                let tensors: HashMap<String, Tensor> = state
                    .iter()
                    .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
                    .filter_map(|(name, tensor)| {
                        Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
                    })
                    .collect();
                Params::fit(specs, tensors).map_err(|mismatch| anyhow!("{file}: {mismatch}"))
            }
            Some("formula") => {
                let formula = Formula {
                    key: text("key")
                        .ok_or_else(|| anyhow!("weights.{role}.key is missing"))?
                        .to_owned(),
                    gain: match spec.get("gain") {
                        None | Some(Value::Null) => 1.0,
                        Some(value) => value.as_f64().ok_or_else(|| {
                            anyhow!("weights.{role}.gain: {value} is not a number")
                        })?,
                    },
                    abs_prefix: list("abs_prefix")?,
                };
                let skipped = list("skip_prefix")?;
                let mut entries = Vec::with_capacity(specs.len());
                for spec in specs {
                    if skipped
                        .iter()
                        .any(|prefix| spec.name.starts_with(prefix.as_str()))
                    {
                        bail!(
                            "weights.{role}: {} is skipped, but the network has it",
                            spec.name
                        );
                    }
                    let tensor = formula_tensor(&formula, &spec.name, &spec.shape)
                        .with_context(|| spec.name.clone())?;
                    entries.push((spec.name.clone(), tensor));
                }
                Ok(Params::new(entries))
            }
            _ => bail!("weights.{role}: unknown source {}", spec["source"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_gives_its_published_check_values() {
        let demo = Formula {
            key: "demo".into(),
            gain: 1.0,
            abs_prefix: Vec::new(),
        };
        let first = |name: &str, shape: &[usize], n: usize| {
            formula_tensor(&demo, name, shape)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()[..n]
                .to_vec()
        };
        assert_eq!(
            first("conv.weight", &[2, 3, 3, 3], 4),
            [-0.207_959_3, 0.004_507_303_2, -0.115_761_84, -0.142_695_43]
        );
        assert_eq!(
            first("norm.weight", &[4], 3),
            [1.038_256_4, 1.036_530_7, 1.026_378]
        );
        assert_eq!(
            first("conv.bias", &[4], 3),
            [0.023_018_504, -0.039_289_556, 0.096_713_64]
        );
        assert_eq!(
            first("bn.running_var", &[4], 3),
            [1.402_372_8, 1.001_551_9, 1.064_399]
        );
        let positive = Formula {
            abs_prefix: vec!["conv".into()],
            ..demo
        };
        let all = formula_tensor(&positive, "conv.weight", &[2, 3, 3, 3])
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!(all.iter().all(|v| *v >= 0.0));
    }
}
