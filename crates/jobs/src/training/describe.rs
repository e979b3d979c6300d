//! A run in words.

use super::networks::TrainPlan;
use candle_core::Device;
use sdft_files::short_name;
use sdft_train::Method;

/// The weights that training starts from, and the method.
pub(super) fn describe_method(plan: &TrainPlan) -> String {
    let source = short_name(&plan.source);
    let adapter = match plan.adapter.is_full() {
        true => String::new(),
        false => format!(" as {}", plan.adapter),
    };
    let methods = plan.other_methods().join(", ");
    match plan.method {
        Method::Scratch => "random weights".to_owned(),
        Method::Naive if methods.is_empty() => {
            format!("{source}, fine-tuned without distillation{adapter},")
        }
        Method::Naive => format!("{source}, fine-tuned with {methods}{adapter},"),
        Method::Sdft if methods.is_empty() => format!("{source}, fine-tuned with SDFT{adapter},"),
        Method::Sdft => format!("{source}, fine-tuned with SDFT, {methods}{adapter},"),
    }
}

/// The device and processes of a run as text; empty for one process on the CPU.
pub(super) fn describe_device(plan: &TrainPlan, device: &Device, processes: usize) -> String {
    let processes = match processes {
        1 => String::new(),
        n => format!(" by {n} processes"),
    };
    match device {
        Device::Cpu => processes,
        _ => format!("{processes} on the GPU, {}", plan.steps.precision.name()),
    }
}
