//! The device and the type of feature maps that cases are computed with.

use candle_core::{DType, Device, Result, Tensor};
use sdft_nn::Params;
use std::sync::OnceLock;

static STAGE: OnceLock<(Device, DType)> = OnceLock::new();

/// Computes all cases of this process on a device, with feature maps of this type. Only the first call has an effect, and only before
/// the first case.
pub fn compute_on(device: Device, dtype: DType) {
    let _ = STAGE.set((device, dtype));
}

/// The device of [`compute_on`]; the CPU by default.
pub fn device() -> &'static Device {
    &STAGE.get_or_init(|| (Device::Cpu, DType::F32)).0
}

/// The type of feature maps of [`compute_on`]; f32 by default.
pub fn compute_dtype() -> DType {
    STAGE.get_or_init(|| (Device::Cpu, DType::F32)).1
}

/// The error that rounding to half precision explains, as a share of the largest value; a case's own tolerance is for f32.
pub(crate) fn rounding_slack() -> f64 {
    match compute_dtype() {
        DType::BF16 => 6e-2,
        DType::F16 => 8e-3,
        _ => 0.0,
    }
}

pub(crate) fn to_device(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_device(device())
}

pub(crate) fn params_to_device(params: &Params) -> Result<Params> {
    params.to(DType::F32, device())
}
