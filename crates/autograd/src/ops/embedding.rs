//! Embeddings of labels.

use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};

/// Rows of a table of embeddings.
///
/// # Shapes
/// - `table`: `[N, D]` · returns: `[rows.len(), D]`
///
/// # Errors
/// A row outside the table.
pub fn embedding(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    check_dtypes("embedding", table, &[])?;
    let (n, _) = table.dims2()?;
    if let Some(row) = rows.iter().find(|&&row| row as usize >= n) {
        bail!("embedding: expected a row below {n}, found {row}");
    }
    apply(Embedding(rows.to_vec()), [&table.contiguous()?])
}

struct Embedding(Vec<u32>);

impl Op<1> for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu(&self, [table]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let width = table.1.dims()[1];
        for_float!(self.name(), table.0, T => {
            let table = elements::<T>(self.name(), table)?;
            let row = |&row: &u32| &table[row as usize * width..(row as usize + 1) * width];
            let y: Vec<T> = self.0.iter().flat_map(row).copied().collect();
            Ok((T::to_cpu_storage_owned(y), (self.0.len(), width).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [table]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::embedding(table, &self.0)
    }

    fn gradients(
        &self,
        [table]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let (n, width) = table.dims2()?;
        let back = EmbeddingGradient {
            rows: self.0.clone(),
            n,
            width,
        };
        Ok([Some(compute(&back, [&dy.contiguous()?])?)])
    }
}

struct EmbeddingGradient {
    rows: Vec<u32>,
    n: usize,
    width: usize,
}

impl Op<1> for EmbeddingGradient {
    fn name(&self) -> &'static str {
        "embedding gradient"
    }

    fn cpu(&self, [dy]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let width = self.width;
        for_float!(self.name(), dy.0, T => {
            let mut table = vec![T::default(); self.n * width];
            let dy = elements::<T>(self.name(), dy)?.chunks_exact(width.max(1));
            for (&row, dy) in self.rows.iter().zip(dy) {
                let to = &mut table[row as usize * width..(row as usize + 1) * width];
                to.iter_mut().zip(dy).for_each(|(to, &dy)| *to += dy);
            }
            Ok((T::to_cpu_storage_owned(table), (self.n, width).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [dy]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::embedding_gradient(dy, &self.rows, self.n)
    }
}
