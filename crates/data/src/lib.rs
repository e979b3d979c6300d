//! Image folders and the embedded digits as seeded, resumable batches.
//!
//! An [`ImageSource`] is a list of images of one size: [`FolderSource`] for a user's own, [`DigitsSource`] for the embedded example.
//! [`Batches`] turns it into the batches of a run, [`Prefetcher`] prepares them on a second thread, and [`check_folder`] reports
//! what is broken, doubled or odd in a folder before anything is trained.
//!
//! # Example: batch 100 of a run
//! ```
//! use sdft_data::{Augment, Batches, Digits, DigitsSource, Style};
//! use std::sync::Arc;
//!
//! let source = DigitsSource::new(Digits::embedded()?, Style::Ember, &[1, 4, 7], 30)?;
//! let batches = Batches::new(Arc::new(source), 7, 8, Augment { flip: false, shift: 1 })?;
//! let batch = batches.batch(100)?;
//! assert_eq!(batch.shape, [8, 3, 16, 16]);
//! assert_eq!(batch, batches.batch(100)?);
//! # Ok::<(), sdft_data::DataError>(())
//! ```
//!
//! **Invariant:** a batch is a pure function of (seed, step); a sample of (seed, its number in the run), whatever the batch size.

pub use crate::{
    batches::{Augment, Batch, Batches},
    check::{Range, Report, Unreadable, check_folder},
    digits::{Digits, DigitsSource, Style},
    error::{DataError, Result},
    folder::FolderSource,
    order::Order,
    prefetch::Prefetcher,
    source::ImageSource,
};

mod batches;
mod check;
mod digits;
mod error;
mod folder;
mod order;
mod prefetch;
mod source;
