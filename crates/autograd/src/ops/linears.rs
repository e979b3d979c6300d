//! Several dense layers of one input.

use super::linear;
use candle_core::{Result, Tensor};

/// [`linear`] for each of these layers, given as weight and bias. On a GPU they are one kernel, and at most three in the backward pass, for
/// batches of up to 64; more are worth the products of a library.
///
/// # Shapes
/// - `x`: `[B, I]` · each layer: `w` `[O, I]`, `bias` `[O]` · returns: `[B, O]` for each layer
///
/// # Errors
/// As [`linear`].
pub fn linears(x: &Tensor, layers: &[[&Tensor; 2]]) -> Result<Vec<Tensor>> {
    #[cfg(feature = "cuda")]
    if gpu::fits(x, layers) {
        return gpu::linears(x, layers);
    }
    layers.iter().map(|[w, bias]| linear(x, w, bias)).collect()
}

#[cfg(feature = "cuda")]
mod gpu {
    use crate::ops::dense::dense;
    use crate::ops::op::{gpu_part, gpu_tensor};
    use crate::tape::{self, GradMode, Gradients};
    use candle_core::{DType, Result, Tensor};

    /// Each weight is read once for eight images.
    const MOST_IMAGES: usize = 64;

    /// Whether these are f32 layers on a GPU whose shapes fit, outside of candle's graph, which has no operations with many inputs.
    pub(super) fn fits(x: &Tensor, layers: &[[&Tensor; 2]]) -> bool {
        let tensors = || layers.iter().flatten().copied().chain([x]);
        let is_plain = |t: &Tensor| t.device().is_cuda() && t.dtype() == DType::F32;
        let is_layer = |[w, bias]: &[&Tensor; 2]| match (x.dims(), w.dims(), bias.dims()) {
            (&[batch, i], &[o, w_i], &[bias_o]) => {
                (1..=MOST_IMAGES).contains(&batch) && i == w_i && o == bias_o
            }
            _ => false,
        };
        let is_in_graph =
            || GradMode::current() == GradMode::Graph && tensors().any(Tensor::track_op);
        tensors().all(is_plain) && layers.iter().all(is_layer) && !is_in_graph()
    }

    pub(super) fn linears(x: &Tensor, layers: &[[&Tensor; 2]]) -> Result<Vec<Tensor>> {
        let x = dense(x)?;
        let mut all = Vec::with_capacity(layers.len());
        for layers in layers.chunks(sdft_cuda::MOST_LINEARS) {
            let layers: Vec<_> = layers
                .iter()
                .map(|[w, bias]| Ok([w.contiguous()?, bias.contiguous()?]))
                .collect::<Result<_>>()?;
            all.extend(group(&x, layers)?);
        }
        Ok(all)
    }

    fn group(x: &Tensor, layers: Vec<[Tensor; 2]>) -> Result<Vec<Tensor>> {
        let ys = forward(x, &layers)?;
        match GradMode::current() {
            GradMode::Graph => {}
            GradMode::NoGrad => {
                let parameters = layers.iter().flatten();
                parameters.chain([x]).for_each(tape::note_parameter);
            }
            GradMode::Tape => {
                let of_x = tape::is_tracked(x)?;
                let (mut recorded, mut results) = (Vec::new(), Vec::new());
                for (layer, y) in layers.into_iter().zip(&ys) {
                    let wanted = [tape::is_tracked(&layer[0])?, tape::is_tracked(&layer[1])?];
                    // What a frozen layer made of a constant is a constant.
                    if of_x || wanted.contains(&true) {
                        recorded.push((layer, wanted));
                        results.push(y.clone());
                    }
                }
                if !results.is_empty() {
                    let x = x.clone();
                    tape::record_all(&results, move |dys, gradients| {
                        backward((&x, of_x), &recorded, dys, gradients)
                    });
                }
            }
        }
        Ok(ys)
    }

    fn forward(x: &Tensor, layers: &[[Tensor; 2]]) -> Result<Vec<Tensor>> {
        let guards = layers.iter().flatten().chain([x]);
        let guards: Vec<_> = guards.map(Tensor::storage_and_layout).collect();
        let mut inputs = guards.iter().map(gpu_part).collect::<Result<Vec<_>>>()?;
        let Some(x_input) = inputs.pop() else {
            return Ok(Vec::new());
        };
        let pairs: Vec<_> = inputs.as_chunks::<2>().0.to_vec();
        let (storage, n) = sdft_cuda::linears(x_input, &pairs)?;
        let all = gpu_tensor(storage, &[n]);
        let batch = x.dim(0)?;
        let mut first = 0;
        layers
            .iter()
            .map(|[w, _]| {
                let width = w.dim(0)?;
                let y = all.narrow(0, first, batch * width)?;
                first += batch * width;
                y.reshape((batch, width))
            })
            .collect()
    }

    fn backward(
        (x, of_x): (&Tensor, bool),
        layers: &[([Tensor; 2], [bool; 2])],
        dys: Vec<Option<Tensor>>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        // A result that nothing uses has no gradient, and its layer gets none.
        let mut used = Vec::with_capacity(layers.len());
        for ((layer, wanted), dy) in layers.iter().zip(dys) {
            if let Some(dy) = dy {
                used.push((layer, dense(&dy)?, *wanted));
            }
        }
        let tensors = used.iter().flat_map(|(layer, dy, _)| [&layer[0], dy]);
        let guards: Vec<_> = tensors.chain([x]).map(Tensor::storage_and_layout).collect();
        let mut inputs = guards.iter().map(gpu_part).collect::<Result<Vec<_>>>()?;
        let Some(x_input) = inputs.pop() else {
            return Ok(());
        };
        let wanted = sdft_cuda::WantedGradients {
            x: of_x,
            parameters: used.iter().map(|&(_, _, wanted)| wanted).collect(),
        };
        let pairs: Vec<_> = inputs.as_chunks::<2>().0.to_vec();
        let found = sdft_cuda::linears_gradients(x_input, &pairs, &wanted)?;
        for ((layer, ..), found) in used.iter().zip(found.parameters) {
            for (parameter, found) in layer.iter().zip(found) {
                if let Some(found) = found {
                    gradients.add(parameter.id(), gpu_tensor(found, parameter.dims()))?;
                }
            }
        }
        match found.x {
            Some(found) => gradients.add(x.id(), gpu_tensor(found, x.dims())),
            None => Ok(()),
        }
    }
}
