//! Reads and writes NumPy's archives of arrays.
//!
//! A `.npz` is a zip archive of `.npy` files, each a line of text that says what follows and then the numbers. [`read_npz`] takes what
//! `numpy.savez` and `numpy.savez_compressed` write, in either byte order and either order of the axes; [`encode_npz`] makes bytes
//! that `numpy.load` reads. An [`Array`] is always in C order: the last axis runs fastest.
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
//! **Invariant:** nothing in a file is executed (pickled objects are refused), and no memory is set aside before the bytes that
//! are to fill it were found to be there.

mod array;
mod dtype;
mod error;
mod header;
mod read;
mod write;

pub use array::{Array, Values};
pub use error::{Error, Result};
pub use read::{read_npz, read_npz_bytes, read_npz_where};
pub use write::encode_npz;
