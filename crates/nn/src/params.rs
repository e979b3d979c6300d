//! Named parameters: their specification, initial values, and sources.

use crate::mismatch::Mismatch;
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use sdft_noise::{Draw, Purpose};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;

/// The initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// The same value everywhere.
    Constant(f64),
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// A constant of the network, `[1, 1, n, n]`: the outer product of a filter with itself, with a sum of 1.
    Outer(Taps),
}

/// The filter of a change of resolution along one axis, of up to 16 taps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taps {
    values: [f32; 16],
    len: usize,
}

impl Taps {
    /// These taps, or `None` if there are more than 16.
    pub fn new(taps: &[f64]) -> Option<Self> {
        let mut values = [0.0; 16];
        for (value, &tap) in values.get_mut(..taps.len())?.iter_mut().zip(taps) {
            *value = to_f32(tap);
        }
        Some(Self {
            values,
            len: taps.len(),
        })
    }

    /// The taps, divided by their sum.
    pub fn normalised(&self) -> Vec<f64> {
        let taps = || self.values[..self.len].iter().map(|&tap| f64::from(tap));
        let sum: f64 = taps().sum();
        taps().map(|tap| tap / sum).collect()
    }

    /// The values of [`Init::Outer`], row by row.
    pub fn outer(&self) -> Vec<f32> {
        let taps = &self.values[..self.len];
        let square = taps.iter().sum::<f32>().powi(2);
        let row = |a: &f32| taps.iter().map(|b| a * b / square).collect::<Vec<_>>();
        taps.iter().flat_map(row).collect()
    }
}

impl Init {
    /// Xavier's (Glorot's): uniform within `sqrt(6 / (fan_in + fan_out))`.
    pub fn xavier(fan_in: usize, fan_out: usize) -> Self {
        Self::Uniform((6.0 / (fan_in + fan_out).max(1) as f64).sqrt())
    }

    /// PyTorch's default for convolutions and dense layers: uniform within `1 / sqrt(fan_in)`.
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
    }
}

/// Name, shape and initial values of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// The key in a checkpoint.
    pub name: String,
    /// The shape in a checkpoint.
    pub shape: Vec<usize>,
    /// Its initial values.
    pub init: Init,
}

/// Where layers get their parameters from.
pub trait ParamSource {
    /// The tensor for `spec`, with its shape.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    fn get(&self, spec: ParamSpec) -> Result<Tensor>;
}

/// A prefix of parameter names, and the source of the parameters; like candle's `VarBuilder`.
#[derive(Clone)]
pub struct Scope<'a> {
    source: &'a dyn ParamSource,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The empty prefix.
    pub fn root(source: &'a dyn ParamSource) -> Self {
        Self {
            source,
            prefix: String::new(),
        }
    }

    /// The prefix extended by `name`.
    pub fn pp(&self, name: impl Display) -> Self {
        let prefix = self.full(&name.to_string());
        Self {
            source: self.source,
            prefix,
        }
    }

    /// The parameter `name` under this prefix.
    ///
    /// # Errors
    /// Those of [`ParamSource::get`].
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.source.get(ParamSpec {
            name: self.full(name),
            shape: shape.to_vec(),
            init,
        })
    }

    /// The prefix, as in the keys of a checkpoint.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

/// The parameters that `build` asks for, in that order. No memory is allocated for them.
///
/// # Errors
/// Those of `build`.
pub fn specs_of<T>(build: impl FnOnce(&Scope<'_>) -> Result<T>) -> Result<Vec<ParamSpec>> {
    struct Recorder(RefCell<Vec<ParamSpec>>);
    impl ParamSource for Recorder {
        fn get(&self, spec: ParamSpec) -> Result<Tensor> {
            // A single zero with zero strides has any shape.
            let placeholder =
                Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(spec.shape.as_slice());
            self.0.borrow_mut().push(spec);
            placeholder
        }
    }
    let recorder = Recorder(RefCell::default());
    build(&Scope::root(&recorder))?;
    Ok(recorder.0.into_inner())
}

/// Named tensors in the order of the network's state dict.
#[derive(Clone, Debug, Default)]
pub struct Params {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
    frozen: HashSet<String>,
}

impl Params {
    /// Initial parameters. Each is a pure function of the seed and its name, so the same block has the same values in two networks that
    /// differ elsewhere.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn init(specs: &[ParamSpec], seed: u64, device: &Device) -> Result<Self> {
        let mut entries = Vec::with_capacity(specs.len());
        for spec in specs {
            let n = spec.shape.iter().product();
            let mut data = vec![0.0f32; n];
            let draw = Draw::new(seed, Purpose::Init, 0, name_hash(&spec.name));
            match spec.init {
                Init::Constant(value) => data.fill(to_f32(value)),
                Init::Outer(taps) => data = taps.outer(),
                Init::Uniform(bound) => {
                    draw.fill_uniform(&mut data);
                    for value in &mut data {
                        *value = to_f32((2.0 * f64::from(*value) - 1.0) * bound);
                    }
                }
                Init::Normal(std) => {
                    draw.fill_normal(&mut data);
                    for value in &mut data {
                        *value = to_f32(f64::from(*value) * std);
                    }
                }
            }
            entries.push((
                spec.name.clone(),
                Tensor::from_vec(data, spec.shape.as_slice(), device)?,
            ));
        }
        Ok(Self::new(entries))
    }

    /// Parameters in the order of `specs`, taken from `tensors`.
    ///
    /// # Errors
    /// The complete [`Mismatch`]: tensors that are missing, unexpected or of another shape.
    pub fn fit(
        specs: &[ParamSpec],
        mut tensors: HashMap<String, Tensor>,
    ) -> std::result::Result<Self, Mismatch> {
        let found = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
            .collect();
        let mismatch = Mismatch::between(specs, &found);
        if !mismatch.is_empty() {
            return Err(mismatch);
        }
        let entries = specs
            .iter()
            .filter_map(|spec| {
                tensors
                    .remove(&spec.name)
                    .map(|tensor| (spec.name.clone(), tensor))
            })
            .collect();
        Ok(Self::new(entries))
    }

    /// The parameters of `specs` in their order: those here, and initial values as of [`Self::init`] for the others.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn completed(&self, specs: &[ParamSpec], seed: u64) -> Result<Self> {
        let is_missing = |spec: &&ParamSpec| self.tensor(&spec.name).is_none();
        let missing: Vec<ParamSpec> = specs.iter().filter(is_missing).cloned().collect();
        let first = self.entries.first().map(|(_, tensor)| tensor);
        let (dtype, device) = first.map_or((DType::F32, &Device::Cpu), |first| {
            (first.dtype(), first.device())
        });
        let new = Self::init(&missing, seed, device)?.to(dtype, device)?;
        let entry = |spec: &ParamSpec| {
            let tensor = self.tensor(&spec.name).or_else(|| new.tensor(&spec.name));
            tensor.map(|tensor| (spec.name.clone(), tensor.clone()))
        };
        Ok(Self::new(specs.iter().filter_map(entry).collect()))
    }

    /// Parameters in the given order. A later entry of the same name replaces an earlier one.
    pub fn new(entries: Vec<(String, Tensor)>) -> Self {
        let index = entries
            .iter()
            .enumerate()
            .map(|(i, (name, _))| (name.clone(), i))
            .collect();
        Self {
            entries,
            index,
            frozen: HashSet::new(),
        }
    }

    /// The same parameters, of which these are frozen too: [`Self::trainable`] makes no variables of them. Like `requires_grad = False` in
    /// PyTorch.
    #[must_use]
    pub fn freeze(mut self, is_frozen: impl Fn(&str) -> bool) -> Self {
        let names = self.entries.iter().map(|(name, _)| name);
        let names = names.filter(|name| is_frozen(name)).cloned();
        self.frozen.extend(names);
        self
    }

    /// The frozen parameters, with their names, in order.
    pub fn frozen(&self) -> Vec<(String, Tensor)> {
        let frozen = self.entries.iter();
        frozen
            .filter(|(name, _)| self.frozen.contains(name))
            .cloned()
            .collect()
    }

    /// A trainable copy: the parameters that are not frozen as variables, and the variables themselves in the same order.
    ///
    /// # Errors
    /// An allocation that fails.
    pub fn trainable(&self) -> Result<(Self, Vec<(String, Var)>)> {
        let mut entries = Vec::with_capacity(self.len());
        let mut vars = Vec::with_capacity(self.len());
        for (name, tensor) in self.iter() {
            if self.frozen.contains(name) {
                entries.push((name.to_owned(), tensor.clone()));
                continue;
            }
            // A copy, so that updates in place do not change the original.
            let var = Var::from_tensor(&tensor.copy()?)?;
            entries.push((name.to_owned(), var.as_tensor().clone()));
            vars.push((name.to_owned(), var));
        }
        Ok((self.with_entries(entries), vars))
    }

    /// The same parameters in another type or on another device.
    ///
    /// # Errors
    /// An allocation that fails, or a type that the device does not support.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        let entries = self
            .iter()
            .map(|(name, tensor)| Ok((name.to_owned(), tensor.to_device(device)?.to_dtype(dtype)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(self.with_entries(entries))
    }

    /// Other tensors under the same names.
    fn with_entries(&self, entries: Vec<(String, Tensor)>) -> Self {
        Self {
            entries,
            index: self.index.clone(),
            frozen: self.frozen.clone(),
        }
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.entries[i].1)
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of values in all tensors.
    pub fn n_parameters(&self) -> usize {
        self.entries
            .iter()
            .map(|(_, tensor)| tensor.elem_count())
            .sum()
    }
}

impl ParamSource for Params {
    fn get(&self, spec: ParamSpec) -> Result<Tensor> {
        match self.tensor(&spec.name) {
            None => bail!("parameter {} is missing", spec.name),
            Some(tensor) if tensor.dims() != spec.shape => {
                bail!(
                    "parameter {}: expected shape {:?}, found {:?}",
                    spec.name,
                    spec.shape,
                    tensor.dims()
                )
            }
            Some(tensor) => Ok(tensor.clone()),
        }
    }
}

/// FNV-1a of the name, the same on every platform.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to f32")]
fn to_f32(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ParamSpec> {
        let spec = |name: &str, shape: &[usize], init| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init,
        };
        vec![
            spec("z.weight", &[3, 4], Init::fan_in(4)),
            spec("a.bias", &[3], Init::Constant(0.5)),
            spec("e", &[1000], Init::Normal(2.0)),
        ]
    }

    #[test]
    fn initial_values_follow_their_distributions_and_the_seed() {
        let params = Params::init(&specs(), 7, &Device::Cpu).unwrap();
        let z: Vec<f32> = params
            .tensor("z.weight")
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert!(z.iter().all(|v| v.abs() <= 0.5) && z.iter().any(|v| v.abs() > 0.2));
        assert_eq!(
            params.tensor("a.bias").unwrap().to_vec1::<f32>().unwrap(),
            [0.5; 3]
        );
        let e: Vec<f32> = params.tensor("e").unwrap().to_vec1().unwrap();
        let var = e.iter().map(|v| f64::from(v * v)).sum::<f64>() / 1000.0;
        assert!((3.4..4.6).contains(&var), "{var}");
        let again = Params::init(&specs()[2..], 7, &Device::Cpu).unwrap();
        assert_eq!(again.tensor("e").unwrap().to_vec1::<f32>().unwrap(), e);
        let other = Params::init(&specs(), 8, &Device::Cpu).unwrap();
        assert_ne!(other.tensor("e").unwrap().to_vec1::<f32>().unwrap(), e);
    }

    #[test]
    fn a_trainable_copy_leaves_the_original_alone() {
        let params = Params::init(&specs(), 7, &Device::Cpu).unwrap();
        let before: Vec<f32> = params.tensor("e").unwrap().to_vec1().unwrap();
        let (_, vars) = params.trainable().unwrap();
        assert_eq!(
            vars.iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            ["z.weight", "a.bias", "e"]
        );
        vars[2]
            .1
            .set(&Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap())
            .unwrap();
        assert_eq!(
            params.tensor("e").unwrap().to_vec1::<f32>().unwrap(),
            before
        );
    }

    #[test]
    fn missing_parameters_are_completed_with_their_initial_values() {
        let all = Params::init(&specs(), 7, &Device::Cpu).unwrap();
        let kept = all.iter().filter(|(name, _)| *name != "a.bias");
        let kept = kept.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        let part = Params::new(kept.collect());
        let whole = part.completed(&specs(), 7).unwrap();
        let of = |params: &Params| -> Vec<(String, Vec<f32>)> {
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
            let entries = params.iter();
            entries.map(|(n, t)| (n.to_owned(), values(t))).collect()
        };
        assert_eq!(part.len() + 1, whole.len());
        assert_eq!(of(&whole), of(&all));
    }

    #[test]
    fn frozen_parameters_stay_tensors_on_every_device_and_in_every_type() {
        let params = Params::init(&specs(), 7, &Device::Cpu).unwrap();
        let params = params.freeze(|name| name.ends_with("bias"));
        let params = params.to(DType::F64, &Device::Cpu).unwrap();
        let (params, vars) = params.freeze(|name| name == "e").trainable().unwrap();
        assert_eq!(vars.len(), 1);
        assert!(params.tensor("z.weight").unwrap().is_variable());
        let frozen = params.frozen();
        let names: Vec<_> = frozen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.bias", "e"]);
        assert!(frozen.iter().all(|(_, tensor)| !tensor.is_variable()));
    }
}
