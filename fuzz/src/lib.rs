//! Damaged and hostile bytes for every reader of the workspace.
//!
//! A [`Reader`] is one kind of file: a name, and a function that reads bytes as the program does. Whatever the bytes, it returns. The
//! tests feed each reader seeded mutations of the files in `fuzz/corpus/NAME` and count time and memory; `cargo fuzz run NAME
//! --features fuzzing` continues for as long as you like.
//!
//! ```
//! let png = sdft_fuzz::READERS.iter().find(|reader| reader.name == "png").unwrap();
//! assert!(!(png.read)(b"no picture"));
//! ```
//!
//! **Invariant:** every reader is called through the public functions that the program calls; nothing is read more leniently here.

mod mutate;
mod readers;

pub use mutate::{Rng, fix_png_checksums, fix_zip_checksums, mutate};
pub use readers::{READERS, Reader, corpus, read};
