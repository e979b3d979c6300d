//! Layouts and types: what operations read, and what other code expects.

use super::op::{Op, apply, compute};
use crate::tape::{self, GradMode};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, DType, Layout, Result, Shape, Tensor, backend::BackendStorage, bail,
};

/// `x` in the layout of the operations: contiguous on the CPU, feature maps with channels last on a GPU.
pub(crate) fn dense(x: &Tensor) -> Result<Tensor> {
    if is_dense(x)? {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype: x.dtype(),
            planes: false,
        };
        apply(op, [x])
    }
}

/// Converts `x` to another type; its gradient has the type of `x`.
///
/// # Errors
/// An allocation that fails.
pub fn to_dtype(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype,
            planes: false,
        };
        apply(op, [x])
    }
}

/// Converts `x` `[B, C, ..]` to another type, contiguous on every device, as candle's own operations expect it.
///
/// # Errors
/// An allocation that fails.
pub fn to_nchw(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype && x.is_contiguous() {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype,
            planes: true,
        };
        apply(op, [x])
    }
}

fn is_dense(x: &Tensor) -> Result<bool> {
    Ok(match x.rank() {
        4 if x.device().is_cuda() => x.permute((0, 2, 3, 1))?.is_contiguous(),
        3 if x.device().is_cuda() => x.permute((0, 2, 1))?.is_contiguous(),
        _ => x.is_contiguous(),
    })
}

/// A conversion of layout and type.
struct Dense {
    dtype: DType,
    /// Contiguous on a GPU too, instead of channels last.
    planes: bool,
}

impl Op<1> for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu(&self, [(x, layout)]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        Ok((x.to_dtype(layout, self.dtype)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [(x, layout)]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::dense(x, layout, self.dtype, self.planes)
    }

    fn gradients(
        &self,
        [x]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(if dy.dtype() == x.dtype() {
            dy.clone()
        } else {
            let op = Dense {
                dtype: x.dtype(),
                planes: false,
            };
            compute(&op, [dy])?
        })])
    }

    fn saved(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn is_feature_map(&self) -> bool {
        !self.planes
    }

    fn output_is_f32(&self) -> bool {
        // This operation sets the type itself.
        true
    }
}

/// A view with other dimensions, recorded on the tape if there is one.
fn view(
    x: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
    backward: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
) -> Result<Tensor> {
    let y = forward(x)?;
    if GradMode::current() == GradMode::Tape && tape::is_tracked(x)? {
        let y = y.detach();
        let id = x.id();
        tape::record(&y, move |dy, gradients| gradients.add(id, backward(dy)?));
        return Ok(y);
    }
    Ok(y)
}

/// Reshapes `[B, C, H, W]` to `[B, C, H W]`.
///
/// # Errors
/// Another number of dimensions.
pub fn flatten_space(x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    view(&dense(x)?, flat, move |dy| unflat(&dense(dy)?, h, w))
}

/// Reshapes `[B, C, H W]` to `[B, C, H, W]`.
///
/// # Errors
/// Another number of dimensions, or positions that are not `h w`.
pub fn unflatten_space(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    view(&dense(x)?, move |x| unflat(x, h, w), |dy| flat(&dense(dy)?))
}

/// The image of tokens that are patches: the channels of a token are the rows and columns of its patch, then the image's channels.
/// Contiguous on every device, as candle's own operations expect it.
///
/// Source: DiT `unpatchify`.
///
/// # Shapes
/// - `x`: `[B, patch patch C, h w]` · returns: `[B, C, h patch, w patch]`
///
/// # Errors
/// Channels or tokens that do not fit.
pub fn unpatchify(x: &Tensor, patch: usize, [h, w]: [usize; 2]) -> Result<Tensor> {
    let (batch, rows, n) = x.dims3()?;
    let area = patch * patch;
    if area == 0 || !rows.is_multiple_of(area) || n != h * w {
        bail!(
            "unpatchify: {:?} does not hold {h}x{w} patches of {patch}x{patch} pixels",
            x.shape()
        );
    }
    let c = rows / area;
    view(
        &dense(x)?,
        move |x| {
            let patches = x.contiguous()?.reshape((batch, patch, patch, c, h, w))?;
            let pixels = patches.permute((0, 3, 4, 1, 5, 2))?.contiguous()?;
            pixels.reshape((batch, c, h * patch, w * patch))
        },
        move |dy| {
            let pixels = dy.contiguous()?.reshape((batch, c, h, patch, w, patch))?;
            let patches = pixels.permute((0, 3, 5, 1, 2, 4))?.contiguous()?;
            dense(&patches.reshape((batch, rows, n))?)
        },
    )
}

/// Parameters joined along their first dimension, in PyTorch's order on every device; each gets its rows of the gradient.
///
/// # Errors
/// No parameters, or other dimensions that differ.
pub fn join_rows(parts: &[&Tensor]) -> Result<Tensor> {
    let joined = Tensor::cat(parts, 0)?;
    match GradMode::current() {
        GradMode::Graph => Ok(joined),
        GradMode::NoGrad => {
            parts.iter().for_each(|part| tape::note_parameter(part));
            Ok(joined.detach())
        }
        GradMode::Tape => {
            let mut tracked = Vec::new();
            let mut first = 0;
            for part in parts {
                let rows = part.dim(0)?;
                if tape::is_tracked(part)? {
                    tracked.push((part.id(), first, rows));
                }
                first += rows;
            }
            let joined = joined.detach();
            if !tracked.is_empty() {
                tape::record(&joined, move |dy, gradients| {
                    tracked.into_iter().try_for_each(|(id, first, n)| {
                        gradients.add(id, dy.narrow(0, first, n)?.copy()?)
                    })
                });
            }
            Ok(joined)
        }
    }
}

/// Filters `[O, I, ..]` for the first `n` inputs, and for the others, in PyTorch's order on every device; outside of candle's graph.
pub(crate) fn split_inputs(w: &Tensor, n: usize) -> Result<[Tensor; 2]> {
    let others = w.dim(1)? - n;
    let part = |first, n| w.detach().narrow(1, first, n)?.contiguous();
    let parts = [part(0, n)?, part(n, others)?];
    match GradMode::current() {
        GradMode::Graph => {}
        GradMode::NoGrad => tape::note_parameter(w),
        GradMode::Tape => {
            if tape::is_tracked(w)? {
                let (id, shapes) = (w.id(), parts.each_ref().map(|part| part.shape().clone()));
                let (dtype, device) = (w.dtype(), w.device().clone());
                tape::record_all(&parts, move |dys, gradients| {
                    let dys = dys.into_iter().zip(shapes).map(|(dy, shape)| match dy {
                        Some(dy) => dy.contiguous(),
                        None => Tensor::zeros(shape, dtype, &device),
                    });
                    let dys = dys.collect::<Result<Vec<_>>>()?;
                    gradients.add(id, Tensor::cat(&dys, 1)?)
                });
            }
        }
    }
    Ok(parts)
}

/// On a GPU the channels are the last dimension in memory, on the CPU the second.
fn flat(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cuda() {
        x.permute((0, 2, 3, 1))?.flatten(1, 2)?.permute((0, 2, 1))
    } else {
        x.flatten_from(2)
    }
}

fn unflat(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let (b, c, _) = x.dims3()?;
    if x.device().is_cuda() {
        x.permute((0, 2, 1))?
            .reshape((b, h, w, c))?
            .permute((0, 3, 1, 2))
    } else {
        x.reshape((b, c, h, w))
    }
}
