//! Element by element: activations, sums and scaling.

use crate::launch::{Arg, File, launch_for, long, spread};
use crate::part::{Part, empty, is_map, memory_shape};
use candle_core::{CudaStorage, Layout, Result, Shape, bail};

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// `silu`, `relu` or `gelu`.
///
/// # Errors
/// A device error.
pub fn elementwise(kernel: &str, (x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let x = Part::at_start(kernel, x, layout)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let args = [Arg::At(x.at), Arg::At(Part::of(&y, x.len)?.at), long(x.len)];
    launch_for(
        x.device,
        (File::Elementwise, kernel, x.dtype),
        spread(x.len / 4),
        &args,
    )?;
    Ok((y, memory_shape(layout)))
}

/// `factor x`.
///
/// # Errors
/// A device error.
#[expect(clippy::cast_possible_truncation, reason = "a factor of f32 numbers")]
pub fn scale((x, layout): Input<'_>, factor: f64) -> Result<(CudaStorage, Shape)> {
    let x = Part::at_start("scale", x, layout)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let args = [
        Arg::At(x.at),
        Arg::At(Part::of(&y, x.len)?.at),
        long(x.len),
        Arg::Float(factor as f32),
    ];
    let kernel = (File::Elementwise, "scale", x.dtype);
    launch_for(x.device, kernel, spread(x.len / 4), &args)?;
    Ok((y, memory_shape(layout)))
}

/// `factor (a + b)` of two tensors of one layout.
///
/// # Errors
/// Layouts that differ, or a device error.
pub fn add_scaled(a: Input<'_>, b: Input<'_>, factor: f64) -> Result<(CudaStorage, Shape)> {
    pair("add_scaled", a, b, Some(factor))
}

/// `add`, `mul`, `silu_grad`, `relu_grad` or `gelu_grad` of two tensors of one layout; the result has the type of the first.
///
/// # Errors
/// Layouts that differ, or a device error.
pub fn pairwise(kernel: &str, a: Input<'_>, b: Input<'_>) -> Result<(CudaStorage, Shape)> {
    pair(kernel, a, b, None)
}

#[expect(clippy::cast_possible_truncation, reason = "a factor of f32 numbers")]
fn pair(
    kernel: &str,
    a: Input<'_>,
    b: Input<'_>,
    factor: Option<f64>,
) -> Result<(CudaStorage, Shape)> {
    if a.1.stride() != b.1.stride() && is_map(a.1)? != is_map(b.1)? {
        bail!("{kernel}: expected two tensors of the same layout");
    }
    let (x, y) = (
        Part::at_start(kernel, a.0, a.1)?,
        Part::at_start(kernel, b.0, b.1)?,
    );
    let out = empty(x.device, x.dtype, x.len)?;
    let mut args = vec![
        Arg::At(x.at),
        Arg::At(y.at),
        Arg::At(Part::of(&out, x.len)?.at),
        long(x.len),
    ];
    args.extend(factor.map(|factor| Arg::Float(factor as f32)));
    launch_for(
        x.device,
        (File::Elementwise, kernel, x.dtype),
        spread(x.len / 4),
        &args,
    )?;
    Ok((out, memory_shape(a.1)))
}
