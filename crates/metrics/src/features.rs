//! Feature vectors of a set of images.

use crate::{MetricsError, Result};

/// Feature vectors of a set of images: f32, finite, one row for each image.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    data: Vec<f32>,
    dim: usize,
}

impl Features {
    /// Makes features from rows of `dim` numbers each. There may be no rows.
    ///
    /// # Errors
    /// Fails if `dim` is 0 or does not divide the number of values, or if a value is not finite.
    pub fn new(data: Vec<f32>, dim: usize) -> Result<Self> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            return Err(MetricsError::Rows {
                dim,
                found: data.len(),
            });
        }
        finite("a feature", data.iter().map(|&v| f64::from(v)), dim)?;
        Ok(Self { data, dim })
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Row `i`, or `None` if it is out of range.
    pub fn row(&self, i: usize) -> Option<&[f32]> {
        self.data.chunks_exact(self.dim).nth(i)
    }

    /// An iterator over the rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim)
    }

    /// All values, row by row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// The rows with these indices, in this order.
    ///
    /// # Errors
    /// Fails if an index is out of range.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let mut data = Vec::with_capacity(indices.len() * self.dim);
        for &index in indices {
            let row = self
                .row(index)
                .ok_or(MetricsError::Index { index, n: self.n() })?;
            data.extend_from_slice(row);
        }
        Ok(Self {
            data,
            dim: self.dim,
        })
    }
}

/// Fails if a value is not finite.
pub(crate) fn finite(
    what: &'static str,
    values: impl Iterator<Item = f64>,
    dim: usize,
) -> Result<()> {
    match values.enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((i, value)) => Err(MetricsError::NotFinite {
            what,
            row: i / dim.max(1),
            column: i % dim.max(1),
            value,
        }),
    }
}

/// Fails unless both lengths are equal.
pub(crate) fn same_dim(what: &'static str, a: usize, b: usize) -> Result<()> {
    if a == b {
        Ok(())
    } else {
        Err(MetricsError::Dimensions { what, a, b })
    }
}

/// Fails if there are fewer than `needed` samples.
pub(crate) fn enough(what: &'static str, found: usize, needed: usize) -> Result<()> {
    if found >= needed {
        Ok(())
    } else {
        Err(MetricsError::TooFew {
            what,
            needed,
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_must_be_whole_and_finite() {
        let features = Features::new(vec![1.0, 2.0, 3.0, 4.0], 2).unwrap();
        assert_eq!((features.n(), features.row(1)), (2, Some(&[3.0, 4.0][..])));
        assert_eq!(features.select(&[1, 0, 1]).unwrap().n(), 3);
        assert!(features.select(&[2]).is_err());
        assert!(Features::new(vec![1.0; 3], 2).is_err());
        assert!(Features::new(vec![], 0).is_err());
        let error = Features::new(vec![0.0, 1.0, 2.0, f32::NAN], 2).unwrap_err();
        assert!(error.to_string().contains("row 1, column 1"), "{error}");
    }
}
