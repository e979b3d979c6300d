//! Operations on every available device, compared with the CPU in f32.

use candle_core::Device;
use sdft_tests::compare_devices;

fn all_hold(device: &Device) {
    let findings = compare_devices(device, |_| true);
    assert!(findings.len() > 300, "{}", findings.len());
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn operations_are_chosen_by_name() {
    let findings = compare_devices(&Device::Cpu, |name| name.starts_with("conv 1x1"));
    let named = |finding: &&sdft_tests::Finding| finding.name.starts_with("conv 1x1");
    assert!(!findings.is_empty() && findings.iter().filter(named).count() == findings.len());
}

/// Half maps on the CPU, with which those on a GPU are compared: f32 arithmetic, rounded once.
#[test]
fn operations_on_the_cpu_agree_in_every_type() {
    all_hold(&Device::Cpu);
}

/// `cargo test --release --features cuda -p sdft-tests --test devices -- --ignored`
#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a GPU"]
fn operations_on_a_gpu_agree_in_every_type() {
    all_hold(&sdft_cuda::open(sdft_cuda::DeviceSpec::Cuda(0)).unwrap());
}
