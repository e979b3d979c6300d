//! Prepares parquet tables, zip and tar files and folders of images as a set of one size and form for training.
//!
//! [`prepare`] reads inputs, brings every image to one size with the reference resize, and writes lossless files named by the SHA-256 of their
//! source: PNG, or TIFF and NumPy's format for what PNG cannot hold. An index records the source of each image, and why entries were left out:
//!
//! ```text
//! data/metfaces-256/9f3c..e1.png
//! data/metfaces-256/index.jsonl     {"source":"train-00000-of-00004.parquet#17 of-1042.png","sha256":"9f3c..e1","file":"9f3c..e1.png", ..}
//! ```
//!
//! ```
//! use sdft_imaging::{Rgb8, write_png};
//! use sdft_prepare::{Options, prepare};
//!
//! let folder = tempfile::tempdir()?;
//! let (photos, out) = (folder.path().join("photos"), folder.path().join("set"));
//! std::fs::create_dir(&photos)?;
//! write_png(&photos.join("a.png"), &Rgb8::filled(90, 70, [200, 30, 30]))?;
//! std::fs::write(photos.join("broken.jpg"), b"no picture")?;
//!
//! let report = prepare(&[photos.clone()], &out, &Options::new(32), &|_, _| {})?;
//! assert_eq!((report.images, report.made, report.skipped.len()), (1, 1, 1));
//! let again = prepare(&[photos], &out, &Options::new(32), &|_, _| {})?;
//! assert_eq!((again.images, again.made), (1, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** writes nothing outside the target folder and its contact sheet, whatever the names in an archive; every entry of every
//! input is in the index, as an image or with the reason why it was skipped; a file under an image's final name is complete.

mod archive;
mod entry;
mod error;
mod exclude;
mod form;
mod index;
mod input;
mod labels;
mod make;
mod pipeline;
mod report;
mod shard;
mod shared;
mod size;
mod table;
mod target;

pub use error::{PrepareError, Result};
pub use exclude::Exclusions;
pub use index::Record;
pub use pipeline::{Options, prepare, prepare_pictures};
pub use report::{Report, Skipped};
pub use size::{parse_size, size_text};
