//! Embeddings of labels.

use crate::launch::{Arg, File, launch_with, spread};
use crate::part::{Part, empty};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

/// The most rows of one launch (`kernels/embedding.cu`).
const MOST_LABELS: usize = 512;

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// `Rows` of `kernels/embedding.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rows([i32; MOST_LABELS]);

// SAFETY: plain numbers in the order and of the sizes that the kernels declare.
unsafe impl DeviceRepr for Rows {}

impl Rows {
    /// Parts that one launch takes, at least one, each with the number of its first row and its length.
    fn parts(rows: &[u32]) -> impl Iterator<Item = Result<(Self, usize, usize)>> {
        let parts = rows.len().div_ceil(MOST_LABELS).max(1);
        (0..parts).map(|part| {
            let first = part * MOST_LABELS;
            let rows = &rows[first..rows.len().min(first + MOST_LABELS)];
            let mut all = [0; MOST_LABELS];
            for (to, &row) in all.iter_mut().zip(rows) {
                *to = i32::try_from(row).map_err(candle_core::Error::wrap)?;
            }
            Ok((Self(all), first, rows.len()))
        })
    }
}

fn f32_part<'a>((x, layout): Input<'a>) -> Result<Part<'a>> {
    let part = Part::contiguous("embedding", x, layout)?;
    if part.dtype != DType::F32 {
        bail!("embedding: expected f32, found {}", part.dtype.as_str());
    }
    Ok(part)
}

/// Rows of a table `[N, D]`, f32. The rows are inside of it.
///
/// # Errors
/// Another type, or a device error.
pub fn embedding(table: Input<'_>, rows: &[u32]) -> Result<(CudaStorage, Shape)> {
    let width = table.1.dims()[1];
    let table = f32_part(table)?;
    let y = empty(table.device, DType::F32, rows.len() * width)?;
    let to = Part::of(&y, rows.len() * width)?;
    for part in Rows::parts(rows) {
        let (part, first, n) = part?;
        launch_with(
            table.device,
            (File::Embedding, "embedding_rows"),
            spread(n * width),
            Some(&part),
            &[
                Arg::At(table.at),
                Arg::At(to.from(first * width)),
                n.into(),
                width.into(),
            ],
        )?;
    }
    Ok((y, (rows.len(), width).into()))
}

/// The gradient of a table of `n` rows, given that of the result of [`embedding`].
///
/// # Errors
/// As [`embedding`].
pub fn embedding_gradient(
    (dy, layout): Input<'_>,
    rows: &[u32],
    n: usize,
) -> Result<(CudaStorage, Shape)> {
    let width = layout.dims()[1];
    let dy = f32_part((dy, layout))?;
    let table = empty(dy.device, DType::F32, n * width)?;
    let to = Part::of(&table, n * width)?.at;
    for part in Rows::parts(rows) {
        let (part, first, count) = part?;
        launch_with(
            dy.device,
            (File::Embedding, "embedding_grad"),
            spread(n * width),
            Some(&part),
            &[
                Arg::At(dy.from(first * width)),
                Arg::At(to),
                count.into(),
                n.into(),
                width.into(),
                Arg::Int((first == 0).into()),
            ],
        )?;
    }
    Ok((table, (n, width).into()))
}
