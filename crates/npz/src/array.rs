//! An array: a shape and values.

use crate::error::{Error, Result};

/// The most axes, as in NumPy.
pub(crate) const MAX_AXES: usize = 64;

/// The numbers of an array, the last axis running fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// `uint8`.
    U8(Vec<u8>),
    /// `uint16`.
    U16(Vec<u16>),
    /// `int64`; shorter signed integers and `uint32` are read as this.
    I64(Vec<i64>),
    /// `float32`; `float16` is read as this.
    F32(Vec<f32>),
    /// `float64`.
    F64(Vec<f64>),
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values `range`, or none if the range is not inside.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        fn cut<T: Copy>(values: &[T], range: std::ops::Range<usize>) -> Vec<T> {
            values.get(range).unwrap_or_default().to_vec()
        }
        match self {
            Self::U8(values) => Self::U8(cut(&values, range)),
            Self::U16(values) => Self::U16(cut(&values, range)),
            Self::I64(values) => Self::I64(cut(&values, range)),
            Self::F32(values) => Self::F32(cut(&values, range)),
            Self::F64(values) => Self::F64(cut(&values, range)),
        }
    }

    /// NumPy's name of the type: `"uint8"`, `"uint16"`, `"int64"`, `"float32"` or `"float64"`.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::I64(_) => "int64",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
        }
    }
}

/// An array: a shape, and as many values as it has elements.
///
/// The fields are public, so that values can be moved out. Writing an array checks them.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of every axis; empty for a single number.
    pub shape: Vec<usize>,
    /// The numbers in C order.
    pub values: Values,
}

impl Array {
    /// An array of bytes.
    ///
    /// # Errors
    /// The product of `shape` is not the number of values, or there are more than 64 axes.
    pub fn u8(shape: impl Into<Vec<usize>>, values: Vec<u8>) -> Result<Self> {
        Self::checked(shape.into(), Values::U8(values))
    }

    /// An array of 16-bit levels.
    ///
    /// # Errors
    /// Those of [`Array::u8`].
    pub fn u16(shape: impl Into<Vec<usize>>, values: Vec<u16>) -> Result<Self> {
        Self::checked(shape.into(), Values::U16(values))
    }

    /// An array of integers.
    ///
    /// # Errors
    /// Those of [`Array::u8`].
    pub fn i64(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Result<Self> {
        Self::checked(shape.into(), Values::I64(values))
    }

    /// An array of single-precision numbers.
    ///
    /// # Errors
    /// Those of [`Array::u8`].
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Self> {
        Self::checked(shape.into(), Values::F32(values))
    }

    /// An array of double-precision numbers.
    ///
    /// # Errors
    /// Those of [`Array::u8`].
    pub fn f64(shape: impl Into<Vec<usize>>, values: Vec<f64>) -> Result<Self> {
        Self::checked(shape.into(), Values::F64(values))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values as double-precision numbers, in C order; `float32` is converted exactly.
    ///
    /// # Errors
    /// The values are integers: code that expects means or covariances should not get pixels or labels.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        match &self.values {
            Values::F32(values) => Ok(values.iter().map(|&value| f64::from(value)).collect()),
            Values::F64(values) => Ok(values.clone()),
            other => Err(Error::NotFloat {
                found: other.dtype(),
            }),
        }
    }

    fn checked(shape: Vec<usize>, values: Values) -> Result<Self> {
        let array = Self { shape, values };
        array.check()?;
        Ok(array)
    }

    /// Fails unless the shape matches the number of values.
    pub(crate) fn check(&self) -> Result<()> {
        let expected = match count(&self.shape) {
            _ if self.shape.len() > MAX_AXES => format!("at most {MAX_AXES} axes"),
            Some(count) if count == self.len() => return Ok(()),
            Some(count) => format!("{count} values"),
            None => "more values than memory can hold".to_owned(),
        };
        Err(Error::Shape {
            shape: self.shape.clone(),
            expected,
            found: self.len(),
        })
    }
}

/// Number of values of a shape, if it can be counted.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    // With an axis of length 0 there are no values, regardless of the other axes.
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

/// Values whose first axis runs fastest, put in the order in which the last one does. Their number is the product of `shape`.
pub(crate) fn to_c_order<T: Copy>(values: Vec<T>, shape: &[usize]) -> Vec<T> {
    if shape.len() < 2 || values.is_empty() {
        return values;
    }
    // How far apart neighbours along each axis lie in `values`.
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, &axis| {
            let here = *stride;
            *stride *= axis;
            Some(here)
        })
        .collect();
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at]);
        // Counts like an odometer: at its end an axis returns to 0 and advances the axis before it.
        for ((place, &axis), &stride) in index.iter_mut().zip(shape).zip(&strides).rev() {
            *place += 1;
            at += stride;
            if *place < axis {
                break;
            }
            at -= stride * axis;
            *place = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_fit_its_values() {
        assert_eq!(Array::u8([2, 3], vec![0; 6]).unwrap().len(), 6);
        assert_eq!(Array::f64([], vec![1.5]).unwrap().shape, [0; 0]);
        assert!(Array::i64([0, 7], vec![]).unwrap().is_empty());
        let error = Array::f32([2, 3], vec![0.0; 5]).unwrap_err().to_string();
        assert_eq!(
            error,
            "an array of shape [2, 3] needs 6 values, found 5 values"
        );
        let error = Array::u8([usize::MAX, 2], vec![]).unwrap_err().to_string();
        assert!(error.contains("than memory can hold"), "{error}");
        let error = Array::u8(vec![1; 65], vec![0]).unwrap_err().to_string();
        assert!(error.contains("at most 64 axes"), "{error}");
    }

    #[test]
    fn only_fractions_become_f64() {
        let single = Array::f32([2], vec![0.1, -3.0]).unwrap();
        assert_eq!(single.to_f64().unwrap(), [f64::from(0.1f32), -3.0]);
        assert_eq!(Array::f64([1], vec![0.1]).unwrap().to_f64().unwrap(), [0.1]);
        let error = Array::u8([1], vec![1]).unwrap().to_f64().unwrap_err();
        assert!(error.to_string().contains("found uint8"), "{error}");
    }

    #[test]
    fn the_order_of_the_axes_is_turned_round() {
        assert_eq!(
            to_c_order(vec![0, 3, 1, 4, 2, 5], &[2, 3]),
            [0, 1, 2, 3, 4, 5]
        );
        // Value 100 i + 10 j + k at (i, j, k), the first axis running fastest.
        let shape = [2, 3, 4];
        let mut fortran = Vec::new();
        let mut c = Vec::new();
        for k in 0..4 {
            for j in 0..3 {
                fortran.extend((0..2).map(|i| 100 * i + 10 * j + k));
            }
        }
        for i in 0..2 {
            for j in 0..3 {
                c.extend((0..4).map(|k| 100 * i + 10 * j + k));
            }
        }
        assert_eq!(to_c_order(fortran, &shape), c);
        assert_eq!(to_c_order(vec![7, 8], &[2]), [7, 8]);
        assert_eq!(to_c_order(Vec::<u8>::new(), &[0, 4]), [0; 0]);
    }
}
