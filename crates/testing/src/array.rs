//! Numbers of any type with a shape.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

/// Numbers of any type, widened to f64, with a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The shape.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f64>,
}

impl Array {
    /// A number without axes.
    pub fn scalar(value: f64) -> Self {
        Self {
            shape: vec![],
            data: vec![value],
        }
    }

    /// One axis.
    pub fn vector(data: Vec<f64>) -> Self {
        Self {
            shape: vec![data.len()],
            data,
        }
    }

    /// Whole numbers along one axis.
    pub fn indices(data: &[usize]) -> Self {
        Self::vector(data.iter().map(|i| *i as f64).collect())
    }

    /// Bytes in the given shape.
    pub fn bytes(data: &[u8], shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            data: data.iter().map(|b| f64::from(*b)).collect(),
        }
    }

    /// The values of a tensor of any type.
    ///
    /// # Errors
    /// The tensor cannot be copied or converted.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let shape = tensor.dims().to_vec();
        Ok(Self {
            shape,
            data: tensor
                .to_device(&Device::Cpu)?
                .to_dtype(DType::F64)?
                .flatten_all()?
                .to_vec1()?,
        })
    }
}
