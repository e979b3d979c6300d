//! Adapters applied to the parameters of their network.

use crate::change::Change;
use crate::error::{Error, Result};
use crate::file::Adapter;
use crate::layers::{GAMMA, factor_names, layer_of_factor};
use candle_core::Tensor;
use sdft_nn::{ParamSpec, Params, TimeAdapter};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The parameters of a network with all of these adapters, each with its strength: 0 has no effect, 1 is as trained. Differences from
/// `base` add up. Tensors that no adapter changes are shared with `base`.
///
/// `specs` are those of the network with the adapters; the tensors of a time-aware adapter are among them. If `base` does not have them,
/// the strength multiplies what they add to the network; otherwise it multiplies their differences, as those of any other parameter. A
/// time-aware adapter is a part of the network, so only one of this kind can be applied.
///
/// # Errors
/// [`Error::File`] if an adapter does not fit: a tensor that is missing, belongs to no parameter, or has another shape; a second time-aware
/// adapter.
pub fn merge(base: &Params, specs: &[ParamSpec], adapters: &[(Adapter, f64)]) -> Result<Params> {
    let time_aware = |adapter: &&Adapter| adapter.config.time_adapter_rank().is_some();
    if let Some(second) = adapters.iter().map(|(a, _)| a).filter(time_aware).nth(1) {
        return Err(Error::file(
            &second.path,
            "expected at most one time-aware adapter, which is a part of the network, found a second",
        ));
    }
    let mut changed: BTreeMap<String, Tensor> = BTreeMap::new();
    for (adapter, strength) in adapters {
        for (name, change) in changes(adapter, base, specs)? {
            let scale = adapter.config.scale();
            let Some(before) = base.tensor(&name) else {
                if changed.contains_key(&name) {
                    return Err(unknown(adapter, &name));
                }
                let tensor = added(adapter, &name, &change, *strength)?;
                changed.insert(name, tensor);
                continue;
            };
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
    let mut entries = Vec::with_capacity(specs.len());
    for ParamSpec { name, .. } in specs {
        let tensor = changed.remove(name).or_else(|| base.tensor(name).cloned());
        let Some(tensor) = tensor else {
            let adapter = adapters.iter().map(|(a, _)| a).find(time_aware);
            let path = adapter.map_or(Path::new("the network"), |a| a.path.as_path());
            return Err(Error::file(path, format!("{name} is missing")));
        };
        entries.push((name.clone(), tensor));
    }
    Ok(Params::new(entries))
}

/// A tensor that only the network with the adapter has. What a time-aware adapter adds is linear in its last layer.
fn added(adapter: &Adapter, name: &str, change: &Change<Tensor>, strength: f64) -> Result<Tensor> {
    match change {
        Change::Whole(tensor) if TimeAdapter::is_last(name) => Ok((tensor * strength)?),
        Change::Whole(tensor) => Ok(tensor.clone()),
        _ => Err(unknown(adapter, name)),
    }
}

fn unknown(adapter: &Adapter, name: &str) -> Error {
    Error::file(
        &adapter.path,
        format!("it changes {name}, which the network does not have"),
    )
}

/// The changes of the parameters of a network, by name.
fn changes(
    adapter: &Adapter,
    base: &Params,
    specs: &[ParamSpec],
) -> Result<BTreeMap<String, Change<Tensor>>> {
    let bad = |problem: String| Error::file(&adapter.path, problem);
    let tensors = &adapter.tensors;
    let of_specs = specs.iter().map(|spec| (&*spec.name, &*spec.shape));
    let of_base = base.iter().map(|(name, tensor)| (name, tensor.dims()));
    let shapes: HashMap<&str, &[usize]> = of_specs.chain(of_base).collect();
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
            if leaf == "weight" || shapes.contains_key(parameter.as_str()) {
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
        let Some(shape) = shapes.get(name.as_str()) else {
            return Err(unknown(adapter, name));
        };
        if let Some((expected, found)) = change.misfit(shape) {
            return Err(bad(format!(
                "the change of {name}: expected a tensor of shape {expected:?}, found {found:?}"
            )));
        }
    }
    Ok(changes)
}
