//! A network of which an adapter is trained.

use crate::change::{Change, detached};
use crate::config::AdapterConfig;
use crate::error::{Error, Result};
use crate::file::metadata;
use crate::layers::{Changes, layer_of_factor};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use sdft_diffusion::{ComputeMode, Condition, Prediction, Trainable};
use sdft_nn::{ParamSpec, Params};
use std::collections::{BTreeMap, HashMap};

/// The frozen network that an adapter changes.
#[derive(Clone, Debug)]
pub struct Base<'a> {
    /// Its parameters, and constants.
    pub params: &'a Params,
    /// The parameters that can be trained.
    pub specs: &'a [ParamSpec],
    /// Its hash, which the adapter's file records.
    pub sha256: String,
}

/// A [`Trainable`] whose variables are an adapter's tensors.
///
/// A prediction puts the changed parameters into the network first. So it follows the variables whatever they hold: the weights in
/// training, or their moving average.
pub struct AdaptedNetwork {
    network: Box<dyn Trainable>,
    config: AdapterConfig,
    sha256: String,
    base: Params,
    entries: Vec<(String, Change<String>)>,
    vars: Vec<(String, Var)>,
    derived: Vec<Derived>,
}

/// A parameter of the network that follows from the adapter's tensors.
struct Derived {
    parameter: Var,
    base: Tensor,
    change: Change<Var>,
}

impl AdaptedNetwork {
    /// An adapter that leaves the network as it is. `build` gets the parameters, of which all but the changed ones are frozen, and returns
    /// a network of them, as [`Params::trainable`] makes it. Random values depend on `seed` and on their names only.
    ///
    /// # Errors
    /// Settings that do not fit the network, those of `build`, or a network whose variables are not the parameters that are not frozen.
    pub fn new(
        config: &AdapterConfig,
        base: Base<'_>,
        seed: u64,
        build: impl FnOnce(&Params) -> candle_core::Result<Box<dyn Trainable>>,
    ) -> Result<Self> {
        let Changes { entries, trained } = Changes::of(config, base.specs)?;
        let changed: HashMap<&str, &Change<String>> = entries
            .iter()
            .map(|(name, change)| (name.as_str(), change))
            .collect();
        let params = base.params.clone();
        let params = params.freeze(|name| !changed.contains_key(name));
        let network = build(&params)?;
        let parameters: BTreeMap<String, Var> = network.vars().into_iter().collect();
        if !parameters.keys().map(String::as_str).eq(sorted(&entries)) {
            let problem = "the network does not freeze the parameters that it is given as frozen";
            return Err(Error::config("kind", problem));
        }
        let value = |name: &str| {
            let tensor = base.params.tensor(name);
            tensor.ok_or_else(|| candle_core::Error::Msg(format!("parameter {name} is missing")))
        };
        let (dtype, device) = match parameters.values().next() {
            Some(var) => (var.dtype(), var.device().clone()),
            None => (DType::F32, Device::Cpu),
        };
        let fresh = trained.iter();
        let fresh: Vec<ParamSpec> = fresh
            .filter(|spec| !changed.contains_key(spec.name.as_str()))
            .cloned()
            .collect();
        let start = Params::init(&fresh, seed, &device)?.to(dtype, &device)?;
        let mut vars = Vec::with_capacity(trained.len());
        for ParamSpec { name, .. } in trained {
            let var = match (changed.get(name.as_str()), parameters.get(&name)) {
                (Some(Change::Whole(_)), Some(parameter)) => parameter.clone(),
                _ => match start.tensor(&name) {
                    Some(tensor) => Var::from_tensor(tensor)?,
                    None => Var::from_tensor(&value(&name)?.copy()?)?,
                },
            };
            vars.push((name, var));
        }
        let by_name: HashMap<&str, &Var> = vars
            .iter()
            .map(|(name, var)| (name.as_str(), var))
            .collect();
        let var = |name: &String| {
            let var = by_name.get(name.as_str()).copied().cloned();
            var.ok_or_else(|| candle_core::Error::Msg(format!("variable {name} is missing")))
        };
        let mut derived = Vec::new();
        for (name, change) in &entries {
            if let (Some(parameter), false) =
                (parameters.get(name), matches!(change, Change::Whole(_)))
            {
                derived.push(Derived {
                    parameter: parameter.clone(),
                    base: value(name)?.clone(),
                    change: change.map(var)?,
                });
            }
        }
        Ok(Self {
            network,
            config: config.clone(),
            sha256: base.sha256,
            base: base.params.clone(),
            entries,
            vars,
            derived,
        })
    }

    /// Computes the changed parameters from the variables.
    fn refresh(&self) -> candle_core::Result<()> {
        for Derived {
            parameter,
            base,
            change,
        } in &self.derived
        {
            let change = change.map(|var| Ok::<_, candle_core::Error>(detached(var)))?;
            parameter.set(&change.value(base, self.config.scale())?)?;
        }
        Ok(())
    }
}

fn sorted(entries: &[(String, Change<String>)]) -> impl Iterator<Item = &str> {
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.into_iter()
}

impl Trainable for AdaptedNetwork {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn predict(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> candle_core::Result<Prediction> {
        self.refresh()?;
        self.network.predict(xt, t, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.network.metadata()
    }

    fn compute_mode(&self) -> ComputeMode {
        self.network.compute_mode()
    }

    fn augment_dim(&self) -> usize {
        self.network.augment_dim()
    }

    fn has_zero_gradient(&self, name: &str) -> bool {
        match layer_of_factor(name) {
            Some((layer, _)) => self.network.has_zero_gradient(&format!("{layer}.weight")),
            None => self.network.has_zero_gradient(name),
        }
    }

    fn pull_back(&self, gradients: &mut GradStore) -> candle_core::Result<()> {
        self.network.pull_back(gradients)?;
        for derived in &self.derived {
            if let Some(gradient) = gradients.remove(&derived.parameter) {
                let scale = self.config.scale();
                derived
                    .change
                    .pull_back(&gradient, &derived.base, scale, gradients)?;
            }
        }
        Ok(())
    }

    fn pulls_back(&self) -> bool {
        !self.derived.is_empty() || self.network.pulls_back()
    }

    fn file_tensors(
        &self,
        values: Vec<(String, Tensor)>,
    ) -> candle_core::Result<Vec<(String, Tensor)>> {
        let values: HashMap<String, Tensor> = values.into_iter().collect();
        let value = |name: &String| {
            let value = values.get(name).cloned();
            value.ok_or_else(|| candle_core::Error::Msg(format!("value of {name} is missing")))
        };
        let changes: HashMap<&str, &Change<String>> = self
            .entries
            .iter()
            .map(|(name, change)| (name.as_str(), change))
            .collect();
        let all = self.base.iter().map(|(name, base)| {
            let tensor = match changes.get(name) {
                Some(change) => change.map(value)?.value(base, self.config.scale())?,
                None => base.clone(),
            };
            Ok((name.to_owned(), tensor))
        });
        all.collect()
    }

    fn adapter_metadata(&self) -> Option<BTreeMap<String, String>> {
        Some(metadata(&self.config, &self.sha256))
    }
}
