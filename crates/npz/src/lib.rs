//! Reads and writes NumPy's arrays and archives of arrays.
//!
//! A `.npz` is a zip archive of `.npy` files, each with a header and the numbers. [`read_npz`] reads the files of `numpy.savez` and
//! `numpy.savez_compressed`, in either byte order and either order of the axes; [`encode_npz`] returns bytes that `numpy.load` reads. An
//! [`Array`] is always in C order: the last axis is contiguous.
//!
//! ```
//! use sdft_npz::{Array, Values, encode_npz, read_npz_bytes};
//!
//! let mu = Array::f64(vec![3], vec![0.5, 1.0, -2.0])?;
//! let bytes = encode_npz(&[("mu", &mu)], true)?;
//! let read = read_npz_bytes(&bytes, "statistics.npz")?;
//! assert_eq!(read["mu"].shape, [3]);
//! assert_eq!(read["mu"].values, Values::F64(vec![0.5, 1.0, -2.0]));
//! # Ok::<(), sdft_npz::Error>(())
//! ```
//!
//! **Invariant:** nothing in a file is executed (pickled objects are an error), and memory is allocated only for bytes that the file has.

mod array;
mod dtype;
mod error;
mod header;
mod read;
mod write;

pub use array::{Array, Values};
pub use error::{Error, Result};
pub use read::{
    npy_shape, npz_shapes, read_npy_bytes, read_npz, read_npz_array, read_npz_bytes, read_npz_where,
};
pub use write::{encode_npy, encode_npz};
