//! The random numbers of the host's generator, computed on the device.

use crate::launch::{Arg, File, blocks, launch, long};
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Device, Result, Storage, Tensor, bail};

/// Standard normal numbers of this shape: row `i` of the first dimension holds the numbers that the host draws at the address (`seed`,
/// `purpose`, `step`, `samples[i]`). Both compute in f64, so a number differs by one unit in the last place of an f32 at most, where
/// the logarithm, sine or cosine of the device rounds differently.
///
/// # Errors
/// A shape with another number of rows, a device other than a GPU, or a device error.
pub fn normals(
    address: (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    draw("normals", address, samples, shape, &[], device)
}

/// Dropout factors of this shape: `1 / keep` where the host's uniform number at that address is below `keep`, else 0.
///
/// # Errors
/// Those of [`normals`].
#[expect(clippy::cast_possible_truncation, reason = "a factor near one")]
pub fn keep_factors(
    address: (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    keep: f64,
    device: &Device,
) -> Result<Tensor> {
    let more = [Arg::Double(keep), Arg::Float((1.0 / keep) as f32)];
    draw("keep_factors", address, samples, shape, &more, device)
}

fn draw(
    kernel: &str,
    (seed, purpose, step): (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    more: &[Arg],
    device: &Device,
) -> Result<Tensor> {
    if shape.first() != Some(&samples.len()) {
        bail!(
            "noise: expected a shape with {} rows, found {shape:?}",
            samples.len()
        );
    }
    let device = device.as_cuda_device()?;
    let each: usize = shape[1..].iter().product();
    let numbers = device.clone_htod(samples)?;
    // SAFETY: the kernel writes every element.
    let out = unsafe { device.alloc::<f32>((samples.len() * each).max(1))? };
    let stream = device.cuda_stream();
    let bits = |n: u64| Arg::Long(n.cast_signed());
    let mut args = vec![
        Arg::At(out.device_ptr(&stream).0),
        Arg::At(numbers.device_ptr(&stream).0),
        long(samples.len()),
        long(each),
        bits(seed),
        bits(step),
        Arg::Int(purpose.into()),
    ];
    args.extend_from_slice(more);
    if samples.len() * each > 0 {
        let grid = blocks(each.div_ceil(1024), samples.len());
        launch(device, (File::Noise, kernel), grid, &args)?;
    }
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(out, device.clone()));
    Ok(Tensor::from_storage(
        storage,
        shape,
        BackpropOp::none(),
        false,
    ))
}
