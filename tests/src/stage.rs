use candle_core::{DType, Device, Result, Tensor};
use sdft_nn::Params;
use std::sync::OnceLock;

/// Where cases are computed, and the type of networks' feature maps.
static STAGE: OnceLock<(Device, DType)> = OnceLock::new();

/// Computes all cases of this process on a device, with feature maps of this type. Only the first call counts, and only before the first
/// case.
pub fn perform_on(device: Device, maps: DType) {
    let _ = STAGE.set((device, maps));
}

/// The device; the CPU unless something else was said.
pub(crate) fn device() -> &'static Device {
    &STAGE.get_or_init(|| (Device::Cpu, DType::F32)).0
}

/// The type of feature maps.
pub(crate) fn maps() -> DType {
    STAGE.get_or_init(|| (Device::Cpu, DType::F32)).1
}

/// What the rounding of half maps explains, as a share of the largest value, where a case's own tolerance is for f32.
pub(crate) fn slack() -> f64 {
    match maps() {
        DType::BF16 => 6e-2,
        DType::F16 => 8e-3,
        _ => 0.0,
    }
}

pub(crate) fn there(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_device(device())
}

pub(crate) fn params_there(params: &Params) -> Result<Params> {
    params.to(DType::F32, device())
}
