//! Random numbers of the host's generator, made on the device.

use crate::launch::{Arg, File, blocks, launch, long};
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Device, Result, Storage, Tensor, bail};

/// Standard normal numbers `shape`: row `i` of the first dimension holds the numbers that the host draws at the address (`seed`,
/// `purpose`, `step`, `samples[i]`). The arithmetic is that of the host in f64, so a number differs from the host's only where the
/// device's logarithm, sine or cosine is off by enough to round to another f32: by one unit in the last place.
///
/// # Errors
/// A shape of other rows; a device other than a GPU, or one that fails.
pub fn normals(
    place: (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    drawn("normals", place, samples, shape, &[], device)
}

/// Dropout's factors `shape`: `1 / keep` where the host's uniform number at that address is below `keep`, else 0.
///
/// # Errors
/// As [`normals`].
#[expect(clippy::cast_possible_truncation, reason = "a factor near one")]
pub fn keep_factors(
    place: (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    keep: f64,
    device: &Device,
) -> Result<Tensor> {
    let more = [Arg::Double(keep), Arg::Float((1.0 / keep) as f32)];
    drawn("keep_factors", place, samples, shape, &more, device)
}

fn drawn(
    kernel: &str,
    (seed, purpose, step): (u64, u8, u64),
    samples: &[u64],
    shape: &[usize],
    more: &[Arg],
    device: &Device,
) -> Result<Tensor> {
    if shape.first() != Some(&samples.len()) {
        bail!("noise for {} samples, asked for {shape:?}", samples.len());
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
