//! Damaged and hostile bytes for every reader of the workspace.
//!
//! A [`Reader`] is a kind of file: a name, and a function that reads bytes as the program does. It must return for any bytes. The tests
//! give each reader seeded mutations of the files in `fuzz/corpus/NAME` and measure time and memory; `cargo fuzz run NAME --features
//! fuzzing` runs until you stop it.
//!
//! ```
//! let png = sdft_fuzz::READERS.iter().find(|reader| reader.name == "png").unwrap();
//! assert!(!(png.read)(b"not a picture"));
//! ```
//!
//! **Invariant:** every reader calls the same public functions as the program.

mod mutate;
mod readers;

pub use mutate::{Rng, fix_png_checksums, fix_tar_checksums, fix_zip_checksums, mutate};
pub use readers::{READERS, Reader, corpus, read};
