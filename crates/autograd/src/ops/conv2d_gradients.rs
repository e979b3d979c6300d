//! The gradients of a convolution.

use super::conv2d::flops;
#[cfg(feature = "cuda")]
use super::conv2d::on_gpu;
use super::op::Op;
use super::{elements, for_element};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, WithDType};
use sdft_kernels::ConvShape;

/// The gradient of the input, of shape `x`.
pub(crate) struct InputGradient {
    pub(crate) shape: ConvShape,
    pub(crate) x: Shape,
    #[cfg(feature = "cuda")]
    pub(crate) prepared: Option<sdft_cuda::Prepared>,
}

impl Op<2> for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d input gradient"
    }

    fn cpu(&self, [dy, w]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), dy.0, E, R => {
            let dx = sdft_kernels::conv2d_input_gradient::<E>(
                &self.shape,
                elements(self.name(), dy)?,
                elements::<R>(self.name(), w)?,
            );
            Ok((E::to_cpu_storage_owned(dx), self.x.clone()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        flops(&self.shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [dy, w]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        let prepared = self.prepared.as_ref();
        sdft_cuda::conv_input_gradient(&on_gpu(&self.shape), self.x.rank(), dy, w, prepared)
    }
}

/// The gradient of the weight, of this shape.
pub(crate) struct WeightGradient(pub(crate) ConvShape, pub(crate) Shape);

impl Op<2> for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu(&self, [x, dy]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), x.0, E, R => {
            let dw = sdft_kernels::conv2d_weight_gradient::<E>(
                &self.0,
                elements(self.name(), x)?,
                elements(self.name(), dy)?,
            );
            Ok((R::to_cpu_storage_owned(dw), self.1.clone()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        flops(&self.0)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, dy]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        Ok((
            sdft_cuda::conv_weight_gradient(&on_gpu(&self.0), x, dy)?,
            self.1.clone(),
        ))
    }

    fn output_is_f32(&self) -> bool {
        true
    }

    fn is_feature_map(&self) -> bool {
        false
    }
}

/// The gradient of the bias: sums over images and pixels of this many channels.
pub(crate) struct BiasGradient(pub(crate) usize);

impl Op<1> for BiasGradient {
    fn name(&self) -> &'static str {
        "conv2d bias gradient"
    }

    fn cpu(&self, [dy]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let batch = dy.1.dims()[0];
        for_element!(self.name(), dy.0, E, R => {
            let db = sdft_kernels::conv2d_bias_gradient::<E>(elements(self.name(), dy)?, batch, self.0);
            Ok((R::to_cpu_storage_owned(db), self.0.into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [dy]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        Ok((sdft_cuda::column_sum(dy, self.0)?, self.0.into()))
    }

    fn output_is_f32(&self) -> bool {
        true
    }
}
