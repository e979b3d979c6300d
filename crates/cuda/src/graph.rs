//! Convolutions as cuDNN's operation graphs.

use crate::choice::Order;
use crate::cudnn::{Key, Pass};
use crate::descriptor::Descriptor;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Attr, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnConvolutionMode_t, cudnnDataType_t, cudnnHandle_t,
};
use candle_core::{DType, Result};

/// A single convolution, or one of its gradients.
pub(crate) fn graph(handle: cudnnHandle_t, key: &Key, order: Order) -> Result<Descriptor> {
    let c = &key.conv;
    let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let tensor = |id: i64, dims: [usize; 4]| -> Result<Descriptor> {
        let [n, channels, h, w] = dims.map(size);
        let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
        let kind = match key.dtype {
            DType::BF16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            DType::F16 => cudnnDataType_t::CUDNN_DATA_HALF,
            _ => cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let data_type = Type::CUDNN_TYPE_DATA_TYPE;
        tensor.set(Attr::CUDNN_ATTR_TENSOR_DATA_TYPE, data_type, &[kind])?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, channels, h, w])?;
        let strides = match order {
            Order::ChannelsLast => [h * w * channels, 1, w * channels, channels],
            Order::Planes => [h * w * channels, h * w, w, 1],
        };
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_STRIDES, &strides)?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])?;
        tensor.done()
    };
    let x = tensor(1, [c.batch, c.c_in, c.h, c.w])?;
    let w = tensor(2, [c.c_out, c.c_in, c.k[0], c.k[1]])?;
    let y = tensor(3, [c.batch, c.c_out, c.out_h(), c.out_w()])?;

    let conv = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let data_type = Type::CUDNN_TYPE_DATA_TYPE;
    let float = [cudnnDataType_t::CUDNN_DATA_FLOAT];
    conv.set(Attr::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, data_type, &float)?;
    conv.set(
        Attr::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
        Type::CUDNN_TYPE_CONVOLUTION_MODE,
        &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
    )?;
    let [top, left, bottom, right] = c.pad.map(size);
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?;
    let stride = size(c.stride);
    conv.numbers(
        Attr::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
        &[stride, stride],
    )?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[top, left])?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[bottom, right])?;
    let conv = conv.done()?;

    let (kind, names) = match key.pass {
        Pass::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Pass::InputGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Pass::WeightGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let operation = Descriptor::new(kind)?;
    let [conv_name, x_name, w_name, y_name, alpha, beta] = names;
    operation.link(conv_name, &[&conv])?;
    operation.link(x_name, &[&x])?;
    operation.link(w_name, &[&w])?;
    operation.link(y_name, &[&y])?;
    operation.set(alpha, Type::CUDNN_TYPE_FLOAT, &[1f32])?;
    operation.set(beta, Type::CUDNN_TYPE_FLOAT, &[0f32])?;
    let operation = operation.done()?;

    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
    graph.set(
        Attr::CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
        Type::CUDNN_TYPE_HANDLE,
        &[handle],
    )?;
    graph.link(Attr::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
    graph.done()
}
