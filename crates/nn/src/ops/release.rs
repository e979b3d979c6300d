use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

/// Gives back the memory of a tensor that the graph of gradients still refers to, but whose values no backward pass reads.
///
/// That is so for what goes only into [`crate::upsample_nearest_2x`], [`crate::average_pool_2x`], sums and concatenations. Nothing else
/// may share the memory: afterwards the tensor has its shape but no values. To read it is an error of this crate's operations, and a
/// panic in candle's own.
///
/// # Errors
/// When the tensor is a variable.
pub fn release(tensor: Tensor) -> Result<()> {
    if tensor.is_variable() {
        bail!(
            "release: a variable of shape {:?} is still needed",
            tensor.shape()
        );
    }
    // Outside a graph the memory goes with the last reference.
    if tensor.track_op() && tensor.device().is_cpu() {
        tensor.inplace_op1(&Release)?;
    }
    Ok(())
}

struct Release;

impl InplaceOp1 for Release {
    fn name(&self) -> &'static str {
        "release"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(data) => *data = Vec::new(),
            CpuStorage::F64(data) => *data = Vec::new(),
            _ => bail!("{}: expected f32 or f64", self.name()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backward, upsample_nearest_2x};
    use candle_core::{DType, Device, Var};

    #[test]
    fn gradients_flow_through_a_released_tensor_and_reading_it_is_an_error() {
        let x = Var::ones((1, 2, 3, 3), DType::F32, &Device::Cpu).unwrap();
        let hidden = (x.as_tensor() * 2.0).unwrap();
        let y = upsample_nearest_2x(&hidden).unwrap();
        release(hidden.clone()).unwrap();
        let grads = backward(&y.sum_all().unwrap()).unwrap();
        let gradient = grads.get(&x).unwrap().flatten_all().unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [8.0; 18]);
        assert!(upsample_nearest_2x(&hidden).is_err());
        assert!(release(x.as_tensor().clone()).is_err());
    }
}
