use super::op::{Op, eval, run};
use crate::tape::{self, Role};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, DType, Layout, Result, Shape, Tensor, backend::BackendStorage};

/// `x` in the layout that the operations read: contiguous on the CPU, feature maps with channels last on a GPU.
pub(crate) fn dense(x: &Tensor) -> Result<Tensor> {
    if is_dense(x)? {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype: x.dtype(),
            planes: false,
        };
        run(op, [x])
    }
}

/// `x` in another type; gradients come back in its own.
///
/// # Errors
/// When the device refuses the memory.
pub fn to_type(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype,
            planes: false,
        };
        run(op, [x])
    }
}

/// `x` `[B, C, ..]` in this type and, on every device, contiguous: how other code wants it.
///
/// # Errors
/// When the device refuses the memory.
pub fn to_nchw(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype && x.is_contiguous() {
        Ok(x.clone())
    } else {
        let op = Dense {
            dtype,
            planes: true,
        };
        run(op, [x])
    }
}

fn is_dense(x: &Tensor) -> Result<bool> {
    Ok(match x.rank() {
        4 if x.device().is_cuda() => x.permute((0, 2, 3, 1))?.is_contiguous(),
        3 if x.device().is_cuda() => x.permute((0, 2, 1))?.is_contiguous(),
        _ => x.is_contiguous(),
    })
}

/// A copy without gaps.
struct Dense {
    dtype: DType,
    /// Contiguous on a GPU, too.
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
            eval(&op, [dy])?
        })])
    }

    fn reads(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn is_map(&self) -> bool {
        !self.planes
    }

    fn widens(&self) -> bool {
        // The type is the operation's own business.
        true
    }
}

/// A view with other dimensions over the same numbers, recorded where a tape runs.
fn view(
    x: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
    back: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
) -> Result<Tensor> {
    let y = forward(x)?;
    if tape::role() == Role::Record && tape::is_tracked(x)? {
        let y = y.detach();
        let id = x.id();
        tape::record(&y, move |dy| Ok(vec![(id, back(dy)?)]));
        return Ok(y);
    }
    Ok(y)
}

/// `[B, C, H, W]` as `[B, C, H W]`.
///
/// # Errors
/// Another number of dimensions.
pub(crate) fn flatten_space(x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    view(&dense(x)?, flat, move |dy| folded(&dense(dy)?, h, w))
}

/// `[B, C, H W]` as `[B, C, H, W]`.
///
/// # Errors
/// Another number of dimensions, places that are not `h w`.
pub(crate) fn unflatten_space(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    view(&dense(x)?, move |x| folded(x, h, w), |dy| flat(&dense(dy)?))
}

/// On a GPU the channels are the last dimension in memory, on the CPU the second.
fn flat(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cuda() {
        x.permute((0, 2, 3, 1))?.flatten(1, 2)?.permute((0, 2, 1))
    } else {
        x.flatten_from(2)
    }
}

fn folded(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let (b, c, _) = x.dims3()?;
    if x.device().is_cuda() {
        x.permute((0, 2, 1))?
            .reshape((b, h, w, c))?
            .permute((0, 3, 1, 2))
    } else {
        x.reshape((b, c, h, w))
    }
}
