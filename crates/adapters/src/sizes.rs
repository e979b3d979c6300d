//! How many numbers an adapter has.

use crate::config::AdapterConfig;
use crate::error::Result;
use crate::layers::Changes;
use sdft_nn::ParamSpec;
use std::collections::BTreeSet;

/// Numbers of an adapter and of what it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Numbers that are trained.
    pub trained: usize,
    /// Numbers of the network that follow from them.
    pub changed: usize,
}

/// The sizes of an adapter of a network with these parameters.
///
/// # Errors
/// Settings that do not fit the network.
pub fn sizes(config: &AdapterConfig, specs: &[ParamSpec]) -> Result<Sizes> {
    let changes = Changes::of(config, specs)?;
    let count = |spec: &ParamSpec| spec.shape.iter().product::<usize>();
    let changed: BTreeSet<&str> = changes.entries.iter().map(|(name, _)| &**name).collect();
    Ok(Sizes {
        trained: changes.trained.iter().map(count).sum(),
        changed: specs
            .iter()
            .filter(|spec| changed.contains(spec.name.as_str()))
            .map(count)
            .sum(),
    })
}
