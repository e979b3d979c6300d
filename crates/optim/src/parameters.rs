//! Checks of named parameters, their gradients and their saved state.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Shape, Tensor, Var, backprop::GradStore};

use crate::error::{OptimError, Result, StateMismatch};

/// The gradient of every parameter, in the order of `params`; `None` where the loss does not depend on it.
#[must_use]
pub fn collect_gradients(params: &[(String, Var)], store: &GradStore) -> Vec<Option<Tensor>> {
    params
        .iter()
        .map(|(_, var)| store.get(var).cloned())
        .collect()
}

/// Fails if parameters cannot be updated in place or have equal names.
pub(crate) fn check_parameters(params: &[(String, Var)]) -> Result<()> {
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for (name, var) in params {
        let problem = if !names.insert(name) {
            "is listed twice".to_owned()
        } else if !ids.insert(format!("{:?}", var.id())) {
            "is the same tensor as an earlier one".to_owned()
        } else if var.dtype() != DType::F32 {
            format!("is {}, expected f32", var.dtype().as_str())
        } else if !var.is_contiguous() {
            "is not contiguous".to_owned()
        } else {
            continue;
        };
        let name = name.clone();
        return Err(OptimError::BadParameter { name, problem });
    }
    Ok(())
}

/// Fails if gradients do not fit their parameters.
pub(crate) fn check_gradients<'a>(
    params: impl ExactSizeIterator<Item = (&'a str, &'a Var)>,
    grads: &[Option<Tensor>],
) -> Result<()> {
    let (expected, found) = (params.len(), grads.len());
    if expected != found {
        return Err(OptimError::GradientCount { expected, found });
    }
    for ((name, var), grad) in params.zip(grads) {
        if let Some(grad) = grad
            && (grad.shape() != var.shape() || grad.dtype() != var.dtype())
        {
            return Err(OptimError::GradientMismatch {
                name: name.to_owned(),
                expected: describe(var.dtype(), var.shape()),
                found: describe(grad.dtype(), grad.shape()),
            });
        }
    }
    Ok(())
}

/// Sorts `given` into the order of `expected` (name, type, shape), or lists every difference.
pub(crate) fn match_state(
    what: &'static str,
    expected: &[(String, DType, Shape)],
    given: impl IntoIterator<Item = (String, Tensor)>,
) -> Result<Vec<Tensor>> {
    let mut mismatch = StateMismatch {
        what,
        ..StateMismatch::default()
    };
    let wanted: BTreeSet<&String> = expected.iter().map(|(name, ..)| name).collect();
    let mut by_name = BTreeMap::new();
    for (name, tensor) in given {
        if wanted.contains(&name) {
            by_name.insert(name, tensor);
        } else {
            mismatch.unexpected.push(name);
        }
    }
    let mut sorted = Vec::with_capacity(expected.len());
    for (name, dtype, shape) in expected {
        match by_name.remove(name) {
            None => mismatch.missing.push(name.clone()),
            Some(tensor) if tensor.dtype() != *dtype || tensor.shape() != shape => {
                let found = describe(tensor.dtype(), tensor.shape());
                let expected = describe(*dtype, shape);
                mismatch
                    .mis_shaped
                    .push(format!("{name}: found {found}, expected {expected}"));
            }
            Some(tensor) => sorted.push(tensor),
        }
    }
    if mismatch.is_empty() {
        Ok(sorted)
    } else {
        Err(OptimError::State(mismatch))
    }
}

/// `f32 [3, 4]`.
fn describe(dtype: DType, shape: &Shape) -> String {
    format!("{} {:?}", dtype.as_str(), shape.dims())
}
