use crate::stage::there;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Tensor};
use sdft_checkpoint::{ReadOptions, StateDict, read};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A fixture.
#[derive(Debug)]
pub struct Case {
    /// Its folder.
    pub dir: PathBuf,
    /// What is computed.
    pub kind: String,
    /// All parameters.
    pub config: Value,
    /// Absolute and relative tolerance.
    pub tolerance: (f64, f64),
    /// Names of the outputs.
    pub expected: Vec<String>,
    tensors: StateDict,
}

/// The fixtures that come with the project: where it was built, or below the current folder for a program that was carried elsewhere.
pub fn packaged() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    if built.is_dir() {
        built
    } else {
        PathBuf::from("tests/parity")
    }
}

/// All folders below `root` that hold a case, in order.
///
/// # Errors
/// A folder that cannot be read; none that holds a case.
pub fn find(root: &Path) -> Result<Vec<PathBuf>> {
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
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// What a folder's case is about, without reading its tensors.
///
/// # Errors
/// A `case.json` that is missing, is no JSON or names no kind.
pub(crate) fn kind_of(dir: &Path) -> Result<String> {
    match description(dir)?.get("kind") {
        Some(Value::String(kind)) => Ok(kind.clone()),
        other => bail!(
            "{}: kind is no text, found {}",
            dir.join("case.json").display(),
            other.unwrap_or(&Value::Null)
        ),
    }
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// Files that are missing or do not have the format; tensors that are listed but not stored.
    pub fn read(dir: &Path) -> Result<Self> {
        let (kind, json) = (kind_of(dir)?, description(dir)?);
        let path = dir.join("case.json");
        let path = path.display();
        let tolerance = |name: &str| match json.get("tolerance").and_then(|t| t.get(name)) {
            Some(Value::Number(value)) => {
                let value = value.as_f64().filter(|v| *v >= 0.0 && v.is_finite());
                value.ok_or_else(|| anyhow!("{path}: tolerance.{name} is no tolerance"))
            }
            _ => bail!("{path}: tolerance.{name} is missing or no number"),
        };
        let names = |list: &str| -> Result<Vec<String>> {
            let Some(Value::Array(items)) = json.get(list) else {
                bail!("{path}: {list} is missing or no list");
            };
            let name = |item: &Value| item.as_str().map(str::to_owned);
            let all: Option<_> = items.iter().map(name).collect();
            all.ok_or_else(|| anyhow!("{path}: {list} holds something that is no text"))
        };
        let (inputs, expected) = (names("inputs")?, names("expected")?);
        if expected.is_empty() {
            bail!("{path}: nothing is expected, so there is nothing to agree with");
        }
        let config = json
            .get("config")
            .filter(|config| config.is_object())
            .ok_or_else(|| anyhow!("{path}: config is missing or no object"))?
            .clone();
        let options = ReadOptions {
            keep_dtype: true,
            // An expected output may be.
            allow_non_finite: true,
            ..ReadOptions::default()
        };
        let file = dir.join("tensors.safetensors");
        let tensors = read(&file, &options)?;
        for name in inputs.iter().chain(&expected) {
            if tensors.get(name).is_none() {
                bail!("{}: {name} is listed but not there", file.display());
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

    /// A stored tensor as it is.
    ///
    /// # Errors
    /// There is none of that name.
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

    /// An input as f32.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn input(&self, name: &str) -> Result<Tensor> {
        Ok(there(&self.stored(name)?.to_dtype(DType::F32)?)?)
    }

    /// Timesteps as a list of whole numbers.
    ///
    /// # Errors
    /// There is none of that name, or they are not whole.
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
                    bail!("{name}: {v} is no step")
                }
            })
            .collect()
    }

    /// What the network is told about time: whole or fractional numbers.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn times(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.input(name)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// A parameter of the configuration.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<&Value> {
        self.config
            .get(name)
            .ok_or_else(|| anyhow!("config.{name} is missing"))
    }

    /// Whether the configuration mentions a parameter.
    pub fn has_config(&self, name: &str) -> bool {
        self.config.get(name).is_some_and(|value| !value.is_null())
    }

    /// A number of the configuration.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.get(name)?
            .as_f64()
            .ok_or_else(|| anyhow!("config.{name} is no number"))
    }

    /// A whole number of the configuration.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn count(&self, name: &str) -> Result<usize> {
        let value = self
            .get(name)?
            .as_u64()
            .ok_or_else(|| anyhow!("config.{name} is no whole number"))?;
        Ok(usize::try_from(value)?)
    }

    /// A switch of the configuration; `default` where it is not mentioned.
    ///
    /// # Errors
    /// Something that is no switch.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| anyhow!("config.{name} is neither true nor false")),
        }
    }
}
