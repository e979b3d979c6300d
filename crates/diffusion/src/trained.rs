//! A network in training: its variables next to it.

use crate::{ComputeMode, Condition, KIND_KEY, MODEL_KEY, Network, Prediction, Trainable};
use candle_core::{Result, Tensor, Var};
use serde::Serialize;
use std::collections::BTreeMap;

/// A network that [`Trained`] can train.
pub trait TrainableNetwork: Network {
    /// As [`Trainable::metadata`].
    fn metadata(&self) -> BTreeMap<String, String>;

    /// As [`Trainable::augment_dim`].
    fn augment_dim(&self) -> usize {
        0
    }

    /// As [`Trainable::has_zero_gradient`], for one of these variables.
    fn has_zero_gradient(&self, name: &str, vars: &[(String, Var)]) -> bool {
        let _ = (name, vars);
        false
    }
}

/// A network and the variables that it computes with: a [`Trainable`] if `N` is a [`TrainableNetwork`].
#[derive(Clone, Debug)]
pub struct Trained<N> {
    net: N,
    vars: Vec<(String, Var)>,
    frozen: Vec<(String, Tensor)>,
    mode: ComputeMode,
}

impl<N> Trained<N> {
    /// A network in `mode`, the variables that it computes with, and its constants and frozen parameters.
    pub fn new(
        net: N,
        vars: Vec<(String, Var)>,
        frozen: Vec<(String, Tensor)>,
        mode: ComputeMode,
    ) -> Self {
        Self {
            net,
            vars,
            frozen,
            mode,
        }
    }

    /// The network.
    pub fn net(&self) -> &N {
        &self.net
    }
}

impl<N: TrainableNetwork> Trainable for Trained<N> {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.frozen.clone()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.net.predict_with(xt, t, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.net.metadata()
    }

    fn compute_mode(&self) -> ComputeMode {
        self.mode
    }

    fn augment_dim(&self) -> usize {
        self.net.augment_dim()
    }

    fn has_zero_gradient(&self, name: &str) -> bool {
        self.net.has_zero_gradient(name, &self.vars)
    }

    fn pulls_back(&self) -> bool {
        false
    }
}

/// The metadata of a file of a network: its kind, and its configuration as JSON.
pub fn config_metadata<C: Serialize>(kind: &str, config: &C) -> BTreeMap<String, String> {
    // A struct of numbers, texts and lists always has JSON.
    let config = serde_json::to_string(config).unwrap_or_default();
    BTreeMap::from([
        (KIND_KEY.to_owned(), kind.to_owned()),
        (MODEL_KEY.to_owned(), config),
    ])
}
