//! Parity cases: inputs and outputs of a reference implementation in a folder.

use crate::stage::to_device;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Tensor};
use sdft_checkpoint::{ReadOptions, StateDict, read};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A case: what is computed, with which configuration, and what a reference implementation returned.
#[derive(Debug)]
pub struct Case {
    /// The folder.
    pub dir: PathBuf,
    /// The kind, such as `diffusion.q_sample`.
    pub kind: String,
    /// The configuration, a JSON object.
    pub config: Value,
    /// Absolute and relative tolerance.
    pub tolerance: (f64, f64),
    /// Names of the outputs.
    pub expected: Vec<String>,
    tensors: StateDict,
}

/// The folder of the cases that are part of the project: in the source tree that this was built from, or `tests/parity` in the current
/// folder.
pub fn parity_folder() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity");
    if built.is_dir() {
        built
    } else {
        PathBuf::from("tests/parity")
    }
}

/// The folders below `root` that hold a case, sorted.
///
/// # Errors
/// A folder cannot be read, or no folder holds a case.
pub fn find_cases(root: &Path) -> Result<Vec<PathBuf>> {
    fn visit(dir: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<()> {
        if dir.join("case.json").is_file() {
            out.push(dir.to_owned());
        }
        if depth == 8 {
            return Ok(());
        }
        for entry in
            std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                visit(&path, depth + 1, out)?;
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    visit(root, 0, &mut out)?;
    if out.is_empty() {
        bail!("{}: no case.json below this folder", root.display());
    }
    out.sort();
    Ok(out)
}

/// `case.json` of a folder.
fn description(dir: &Path) -> Result<Value> {
    let path = dir.join("case.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// The kind of the case in a folder, without reading its tensors.
///
/// # Errors
/// `case.json` is missing, is not JSON, or has no kind.
pub fn kind_of(dir: &Path) -> Result<String> {
    match description(dir)?.get("kind") {
        Some(Value::String(kind)) => Ok(kind.clone()),
        other => bail!(
            "{}: expected kind to be a string, found {}",
            dir.join("case.json").display(),
            other.unwrap_or(&Value::Null)
        ),
    }
}

impl Case {
    /// Reads the case in a folder.
    ///
    /// # Errors
    /// A file is missing or has the wrong format, or a listed tensor is missing.
    pub fn read(dir: &Path) -> Result<Self> {
        let (kind, json) = (kind_of(dir)?, description(dir)?);
        let path = dir.join("case.json");
        let path = path.display();
        let tolerance = |name: &str| match json.get("tolerance").and_then(|t| t.get(name)) {
            Some(Value::Number(value)) => {
                let value = value.as_f64().filter(|v| *v >= 0.0 && v.is_finite());
                value.ok_or_else(|| {
                    anyhow!("{path}: tolerance.{name} must be finite and not negative")
                })
            }
            _ => bail!("{path}: tolerance.{name} is missing or not a number"),
        };
        let names = |list: &str| -> Result<Vec<String>> {
            let Some(Value::Array(items)) = json.get(list) else {
                bail!("{path}: {list} is missing or not a list");
            };
            let name = |item: &Value| item.as_str().map(str::to_owned);
            let all: Option<_> = items.iter().map(name).collect();
            all.ok_or_else(|| anyhow!("{path}: {list} must hold strings only"))
        };
        let (inputs, expected) = (names("inputs")?, names("expected")?);
        if expected.is_empty() {
            bail!("{path}: expected is empty, so there is nothing to compare");
        }
        let config = json
            .get("config")
            .filter(|config| config.is_object())
            .ok_or_else(|| anyhow!("{path}: config is missing or not an object"))?
            .clone();
        let options = ReadOptions {
            keep_dtype: true,
            // Expected outputs may be.
            allow_non_finite: true,
            ..ReadOptions::default()
        };
        let file = dir.join("tensors.safetensors");
        let tensors = read(&file, &options)?;
        for name in inputs.iter().chain(&expected) {
            if tensors.get(name).is_none() {
                bail!(
                    "{}: {name} is listed in case.json, but missing",
                    file.display()
                );
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            kind,
            config,
            tolerance: (tolerance("atol")?, tolerance("rtol")?),
            expected,
            tensors,
        })
    }

    /// A tensor as it is stored.
    ///
    /// # Errors
    /// There is no tensor of this name.
    pub fn stored(&self, name: &str) -> Result<Tensor> {
        self.tensors
            .get(name)
            .cloned()
            .ok_or_else(|| anyhow!("tensor {name} is missing"))
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.get(name).is_some()
    }

    /// A tensor as f32, on [`device`](crate::device).
    ///
    /// # Errors
    /// There is no tensor of this name, or the device fails.
    pub fn input(&self, name: &str) -> Result<Tensor> {
        Ok(to_device(&self.stored(name)?.to_dtype(DType::F32)?)?)
    }

    /// Timesteps as whole numbers.
    ///
    /// # Errors
    /// There is no tensor of this name, or a value is not a whole number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    pub fn steps(&self, name: &str) -> Result<Vec<usize>> {
        let values = self
            .stored(name)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        values
            .into_iter()
            .map(|v| {
                if v >= 0.0 && v.fract() == 0.0 {
                    Ok(v as usize)
                } else {
                    bail!("{name}: {v} is not a timestep")
                }
            })
            .collect()
    }

    /// The timesteps that a network takes, whole or fractional.
    ///
    /// # Errors
    /// There is no tensor of this name.
    pub fn times(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.input(name)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// A value of the configuration.
    ///
    /// # Errors
    /// There is no value of this name.
    pub fn get(&self, name: &str) -> Result<&Value> {
        self.config
            .get(name)
            .ok_or_else(|| anyhow!("config.{name} is missing"))
    }

    /// Whether the configuration has a value of this name that is not null.
    pub fn has_config(&self, name: &str) -> bool {
        self.config.get(name).is_some_and(|value| !value.is_null())
    }

    /// A number of the configuration.
    ///
    /// # Errors
    /// There is no number of this name.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.get(name)?
            .as_f64()
            .ok_or_else(|| anyhow!("config.{name} is not a number"))
    }

    /// A whole number of the configuration.
    ///
    /// # Errors
    /// There is no whole number of this name.
    pub fn count(&self, name: &str) -> Result<usize> {
        let value = self
            .get(name)?
            .as_u64()
            .ok_or_else(|| anyhow!("config.{name} is not a whole number"))?;
        Ok(usize::try_from(value)?)
    }

    /// A boolean of the configuration; `default` if it is missing or null.
    ///
    /// # Errors
    /// The value is not a boolean.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| anyhow!("config.{name} must be true or false")),
        }
    }
}
