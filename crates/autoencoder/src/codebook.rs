//! The codes of a `VQModel`.

use candle_core::{DType, Device, Result, Tensor};
use sdft_nn::{Init, Scope};

/// A table of codes.
#[derive(Clone, Debug)]
pub(crate) struct Codebook {
    /// `[codes, channels]`.
    table: Tensor,
}

impl Codebook {
    /// `weight` `[codes, channels]`.
    pub(crate) fn load(scope: &Scope<'_>, codes: usize, channels: usize) -> Result<Self> {
        let init = Init::Uniform(1.0 / codes as f64);
        let table = scope.get("weight", &[codes, channels], init)?;
        Ok(Self { table })
    }

    /// The index of the nearest code by squared distance for each vector of `z` `[B, C, h, w]`: `[B, h, w]`, u32. Of two equally near
    /// codes it is the first. Computed on the CPU.
    pub(crate) fn nearest(&self, z: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = z.dims4()?;
        let on_cpu = |x: Tensor| {
            x.to_device(&Device::Cpu)?
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1::<f32>()
        };
        let vectors = on_cpu(z.detach().permute((0, 2, 3, 1))?.contiguous()?)?;
        // Channel by channel, so that the distances to all codes are computed side by side.
        let table = on_cpu(self.table.detach().t()?.contiguous()?)?;
        let codes = self.table.dim(0)?;
        let mut distances = vec![0f32; codes];
        let nearest: Vec<u32> = vectors
            .chunks_exact(c)
            .map(|vector| {
                distances.fill(0.0);
                for (value, row) in vector.iter().zip(table.chunks_exact(codes)) {
                    for (distance, code) in distances.iter_mut().zip(row) {
                        *distance += (value - code) * (value - code);
                    }
                }
                first_smallest(&distances)
            })
            .collect();
        Tensor::from_vec(nearest, (b, h, w), z.device())
    }

    /// `z` `[B, C, h, w]` with every vector replaced by the nearest code. The gradient passes through unchanged.
    pub(crate) fn quantized(&self, z: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = z.dims4()?;
        let indices = self.nearest(z)?.flatten_all()?;
        let codes = self.table.detach().index_select(&indices, 0)?;
        let codes = codes.reshape((b, h, w, c))?.permute((0, 3, 1, 2))?;
        let codes = codes.contiguous()?.to_dtype(z.dtype())?;
        match z.track_op() {
            false => Ok(codes),
            // Straight-through.
            true => z + (codes - z)?.detach(),
        }
    }
}

fn first_smallest(values: &[f32]) -> u32 {
    let mut best = (0u32, f32::INFINITY);
    for (i, &value) in (0u32..).zip(values) {
        if value < best.1 {
            best = (i, value);
        }
    }
    best.0
}
