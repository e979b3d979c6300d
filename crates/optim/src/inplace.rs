//! The loops of `kernels` on variables, in place.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, Tensor, Var, bail};

use crate::kernels;

/// `dst = a dst + b src`, in place.
///
/// # Shapes
/// - `dst`, `src`: equal, `dst` contiguous, both f32
pub(crate) fn blend(dst: &Var, src: &Tensor, a: f64, b: f64) -> Result<()> {
    let (a32, b32) = (a as f32, b as f32);
    if dst.device().is_cpu() {
        return on_cpu(dst, src, |dst, src| kernels::blend(dst, src, a32, b32));
    }
    #[cfg(feature = "cuda")]
    if dst.device().is_cuda() {
        return sdft_cuda::blend(dst, &src.contiguous()?, a32, b32);
    }
    // The product is rounded before the sum, as in the loop.
    dst.set(&(dst.affine(a, 0.0)? + src.affine(b, 0.0)?)?)
}

/// Runs `job` on the elements of a contiguous f32 tensor on the CPU.
pub(crate) fn with_slice<R>(tensor: &Tensor, job: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(all)), Some((start, end))) => Ok(job(&all[start..end])),
        _ => bail!("expected a contiguous f32 tensor on the CPU"),
    }
}

/// Runs `job` on the elements of `dst` and `src`, f32 tensors of one shape on the CPU.
pub(crate) fn on_cpu(
    dst: &Tensor,
    src: &Tensor,
    job: impl FnOnce(&mut [f32], &[f32]),
) -> Result<()> {
    // The loops would stop at the shorter slice.
    if dst.shape() != src.shape() {
        bail!(
            "update of {:?} by {:?}: expected equal shapes",
            dst.shape(),
            src.shape()
        )
    }
    let src = src.contiguous()?;
    dst.inplace_op2(&src, &Pairwise(RefCell::new(Some(job))))
}

/// A job on two slices. It runs once; the cell is needed because candle passes ops by shared reference.
struct Pairwise<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32], &[f32])> InplaceOp2 for Pairwise<F> {
    fn name(&self) -> &'static str {
        "sdft-optim-update"
    }

    fn cpu_fwd(
        &self,
        dst: &mut CpuStorage,
        dst_l: &Layout,
        src: &CpuStorage,
        src_l: &Layout,
    ) -> Result<()> {
        let (Some(to), Some(from)) = (dst_l.contiguous_offsets(), src_l.contiguous_offsets())
        else {
            bail!("{}: expected contiguous tensors", self.name())
        };
        let (CpuStorage::F32(dst), CpuStorage::F32(src)) = (dst, src) else {
            bail!("{}: expected f32 tensors", self.name())
        };
        if let Some(job) = self.0.borrow_mut().take() {
            job(&mut dst[to.0..to.1], &src[from.0..from.1]);
        }
        Ok(())
    }
}
