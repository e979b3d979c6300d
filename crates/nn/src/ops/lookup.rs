use super::op::{Op, eval, run};
use super::{check_types, elements, for_float};
use crate::kernels::Real;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// Rows of a table.
///
/// # Shapes
/// - `table`: `[N, D]` · returns: `[rows.len(), D]`
///
/// # Errors
/// A row that the table does not have.
pub fn lookup(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    check_types("lookup", table, &[])?;
    let (n, _) = table.dims2()?;
    if let Some(row) = rows.iter().find(|&&row| row as usize >= n) {
        bail!("lookup: row {row} of a table of {n}");
    }
    run(Lookup(rows.to_vec()), [&table.contiguous()?])
}

struct Lookup(Vec<u32>);

impl Op<1> for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn cpu(&self, [table]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let width = table.1.dims()[1];
        for_float!(self.name(), table.0, T => {
            let table = elements::<T>(self.name(), table)?;
            let row = |&row: &u32| &table[row as usize * width..(row as usize + 1) * width];
            let y: Vec<T> = self.0.iter().flat_map(row).copied().collect();
            Ok((T::storage(y), (self.0.len(), width).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [table]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::lookup(table, &self.0)
    }

    fn gradients(
        &self,
        [table]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let (n, width) = table.dims2()?;
        // Tables are small: their gradient is made on the host.
        let back = LookupGradient {
            rows: self.0.clone(),
            n,
            width,
        };
        let host = dy.contiguous()?.to_device(&candle_core::Device::Cpu)?;
        Ok([Some(eval(&back, [&host])?.to_device(table.device())?)])
    }
}

struct LookupGradient {
    rows: Vec<u32>,
    n: usize,
    width: usize,
}

impl Op<1> for LookupGradient {
    fn name(&self) -> &'static str {
        "lookup gradient"
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
            Ok((T::storage(table), (self.n, width).into()))
        })
    }
}
