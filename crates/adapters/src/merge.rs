//! Adapters applied to the parameters of their network.

use crate::change::Change;
use crate::error::{Error, Result};
use crate::file::Adapter;
use crate::layers::{GAMMA, factor_names, layer_of_factor};
use candle_core::Tensor;
use sdft_nn::Params;
use std::collections::{BTreeMap, BTreeSet};

/// The parameters `base` with all of these adapters, each with its strength: 0 has no effect, 1 is as trained. Differences from the base
/// add up. Tensors that no adapter changes are shared with `base`.
///
/// # Errors
/// [`Error::File`] if an adapter does not fit: a tensor that belongs to no parameter, or has another shape.
pub fn merge(base: &Params, adapters: &[(Adapter, f64)]) -> Result<Params> {
    let mut changed: BTreeMap<String, Tensor> = BTreeMap::new();
    for (adapter, strength) in adapters {
        for (name, change) in changes(adapter, base)? {
            let Some(before) = base.tensor(&name) else {
                continue;
            };
            let scale = adapter.config.scale();
            let merged = match (changed.get(&name), &change) {
                // As in training, to the bit.
                (None, Change::LowRank { .. }) => change.value(before, scale * strength)?,
                (None, _) if *strength == 1.0 => change.value(before, scale)?,
                (sum, _) => {
                    let difference = (change.difference(before, scale)? * *strength)?;
                    (sum.unwrap_or(before) + difference)?
                }
            };
            changed.insert(name, merged);
        }
    }
    let entries = base.iter().map(|(name, tensor)| {
        let tensor = changed.remove(name).unwrap_or_else(|| tensor.clone());
        (name.to_owned(), tensor)
    });
    Ok(Params::new(entries.collect()))
}

/// The changes of the parameters of a network, by name.
fn changes(adapter: &Adapter, base: &Params) -> Result<BTreeMap<String, Change<Tensor>>> {
    let bad = |problem: String| Error::file(&adapter.path, problem);
    let tensors = &adapter.tensors;
    let tensor = |name: &str| {
        let tensor = tensors.get(name).cloned();
        tensor.ok_or_else(|| bad(format!("{name} is missing")))
    };
    let mut changes = BTreeMap::new();
    let layers = |name: &String| layer_of_factor(name).map(|(layer, _)| layer.to_owned());
    for layer in tensors.keys().filter_map(layers).collect::<BTreeSet<_>>() {
        let [a, b] = factor_names(&layer);
        let (a, b) = (tensor(&a)?, tensor(&b)?);
        let (rank, found) = (adapter.config.rank(), a.dims().first().copied());
        if found != Some(rank) {
            return Err(bad(format!(
                "the change of {layer}: expected rank {rank}, found {}",
                found.unwrap_or(0)
            )));
        }
        let change = Change::LowRank { a, b };
        changes.insert(format!("{layer}.weight"), change);
    }
    for (name, gamma) in tensors {
        let Some(layer) = name.strip_suffix(GAMMA) else {
            continue;
        };
        for leaf in ["weight", "bias"] {
            let parameter = format!("{layer}.{leaf}");
            if leaf == "weight" || base.tensor(&parameter).is_some() {
                let change = Change::Scaled {
                    gamma: gamma.clone(),
                    own: tensors.get(&parameter).cloned(),
                };
                changes.insert(parameter, change);
            }
        }
    }
    for (name, tensor) in tensors {
        let is_part = layer_of_factor(name).is_some() || name.ends_with(GAMMA);
        if !is_part && !changes.contains_key(name) {
            changes.insert(name.clone(), Change::Whole(tensor.clone()));
        }
    }
    for (name, change) in &changes {
        let Some(parameter) = base.tensor(name) else {
            return Err(bad(format!(
                "it changes {name}, which the network does not have"
            )));
        };
        if let Some((expected, found)) = change.misfit(parameter.dims()) {
            return Err(bad(format!(
                "the change of {name}: expected a tensor of shape {expected:?}, found {found:?}"
            )));
        }
    }
    Ok(changes)
}
