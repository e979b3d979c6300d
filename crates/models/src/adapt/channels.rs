//! Other channels: the kernels at the images, and those at the outputs.

use crate::Architecture;
use crate::error::ModelError;
use candle_core::{Result, Tensor, bail};
use sdft_nn::Params;

/// The network for images of `to` channels, and a note about the change.
///
/// # Errors
/// Parameters that do not fit the architecture; a number of channels that it cannot have.
pub(super) fn fitted(
    architecture: &Architecture,
    params: &Params,
    to: usize,
) -> std::result::Result<(Architecture, Params, Option<String>), ModelError> {
    let from = architecture.in_channels();
    if from == to {
        return Ok((architecture.clone(), params.clone(), None));
    }
    let new = architecture.clone().with_channels(to);
    new.check().map_err(|error| ModelError::Adapt {
        problem: error.to_string(),
    })?;
    let specs = new.specs()?;
    let fit = |spec: &sdft_nn::ParamSpec| {
        let Some(tensor) = params.tensor(&spec.name) else {
            bail!("parameter {} is missing", spec.name);
        };
        // Only layers at the image have other shapes: inputs are the second dimension of their kernels, outputs the first.
        let tensor = match tensor.dims().get(1) == spec.shape.get(1) {
            true => tensor.clone(),
            false => inputs(tensor, [from, to])?,
        };
        let tensor = match tensor.dims().first() == spec.shape.first() {
            true => tensor,
            false => outputs(&tensor, [from, to])?,
        };
        Ok((spec.name.clone(), tensor))
    };
    let entries = specs.iter().map(fit).collect::<Result<Vec<_>>>()?;
    let how = match (from, to) {
        (_, 1) => "input kernels are summed, output kernels and biases averaged".to_owned(),
        (1, _) => format!("input kernels are repeated and divided by {to}, outputs repeated"),
        (from, to) if to < from => format!("the first {to} are kept"),
        _ => "other input kernels start at zero, other outputs at the mean".to_owned(),
    };
    let note = format!("the source model has images of {from} channels, the run of {to}: {how}");
    Ok((new, Params::new(entries), Some(note)))
}

/// Kernels for other inputs, the second dimension.
fn inputs(kernels: &Tensor, [from, to]: [usize; 2]) -> Result<Tensor> {
    match (from, to) {
        (_, 1) => kernels.sum_keepdim(1),
        (1, _) => Tensor::cat(&vec![kernels; to], 1)? / to as f64,
        (from, to) if to < from => kernels.narrow(1, 0, to)?.contiguous(),
        _ => kernels.pad_with_zeros(1, 0, to - from),
    }
}

/// Kernels or biases for other outputs, the first dimension, of which there may be several groups.
fn outputs(values: &Tensor, [from, to]: [usize; 2]) -> Result<Tensor> {
    let n = values.dim(0)?;
    if n == 0 || !n.is_multiple_of(from) {
        bail!("{n} outputs: expected a multiple of {from}, the channels of the images");
    }
    let group = |start: usize| {
        let group = values.narrow(0, start, from)?;
        Ok(match (from, to) {
            (_, 1) => group.mean_keepdim(0)?,
            (1, _) => Tensor::cat(&vec![&group; to], 0)?,
            (from, to) if to < from => group.narrow(0, 0, to)?,
            _ => {
                let mean = group.mean_keepdim(0)?;
                Tensor::cat(&[vec![&group], vec![&mean; to - from]].concat(), 0)?
            }
        })
    };
    let groups = (0..n)
        .step_by(from)
        .map(group)
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&groups, 0)
}
