//! Numbers as bytes of messages, in little-endian order.

use crate::error::{Result, mismatch};
use candle_core::{DType, Device, Tensor};

pub(crate) fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?.to_device(&Device::Cpu)?;
    Ok(match flat.dtype() {
        DType::F32 => bytes_of(&flat.to_vec1::<f32>()?, f32::to_le_bytes),
        DType::F64 => bytes_of(&flat.to_vec1::<f64>()?, f64::to_le_bytes),
        DType::U32 => bytes_of(&flat.to_vec1::<u32>()?, u32::to_le_bytes),
        other => {
            return Err(mismatch(0, "f32, f64 or u32", other.as_str()));
        }
    })
}

pub(crate) fn bytes_of<T: Copy, const N: usize>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Vec<u8> {
    let mut out = vec![0; N * values.len()];
    for (out, &value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *out = bytes(value);
    }
    out
}

pub(crate) fn from_bytes(bytes: &[u8], dtype: DType, n: usize) -> Result<Tensor> {
    if bytes.len() != n * dtype.size_in_bytes() {
        let found = format!("{} bytes", bytes.len());
        return Err(mismatch(
            0,
            format!("{n} numbers of {}", dtype.as_str()),
            found,
        ));
    }
    let (four, eight) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<8>().0);
    let cpu = &Device::Cpu;
    Ok(match dtype {
        DType::F64 => {
            let values: Vec<f64> = eight.iter().map(|b| f64::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
        DType::U32 => {
            let values: Vec<u32> = four.iter().map(|b| u32::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
        _ => {
            let values: Vec<f32> = four.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, n, cpu)?
        }
    })
}

/// Adds numbers elementwise; both slices have the same length.
pub(crate) fn add_bytes(sum: &mut [u8], other: &[u8], dtype: DType) {
    if dtype == DType::F64 {
        let pairs = sum.as_chunks_mut::<8>().0.iter_mut();
        for (a, b) in pairs.zip(other.as_chunks::<8>().0) {
            *a = (f64::from_le_bytes(*a) + f64::from_le_bytes(*b)).to_le_bytes();
        }
    } else {
        let pairs = sum.as_chunks_mut::<4>().0.iter_mut();
        for (a, b) in pairs.zip(other.as_chunks::<4>().0) {
            *a = (f32::from_le_bytes(*a) + f32::from_le_bytes(*b)).to_le_bytes();
        }
    }
}
