//! Image folders and the embedded digits and emoji as seeded, resumable batches.
//!
//! An [`ImageSource`] is a numbered list of images of one form, with masks and classes if there are any: a [`FolderSource`], which checks a
//! folder (see [`Report`]), a [`DigitsSource`], the handwritten digits that are embedded in the program, or an [`EmojiSource`], the embedded
//! emoji in one of two styles, chosen by their attributes. [`FolderOptions`] state channels, depth, range, size, fit, pages, classes and masks.
//! [`Batches`] visits a source in an [`Order`]:
//!
//! ```text
//! sample g of the run (g = step * batch + i)  ->  image  permutation(seed, g / n)[g mod n],  crop, flip, shift, zoom, ..  of (seed, g)
//! ```
//!
//! A source [`WithLatents`] gives batches of latents instead: an autoencoder computed them once, and they are on disk.
//!
//! A folder of a million images takes about 200 MB, most of it for the names in its report.
//!
//! ```
//! use std::sync::Arc;
//! use sdft_data::{Augment, Batches, Digits, DigitsSource, Prefetcher, Style};
//!
//! let target = DigitsSource::new(Digits::embedded()?, Style::Ember, &[1, 4, 7], 30)?; // 90 images
//! let batches = Batches::new(Arc::new(target), 0, 8, Augment { shift: 1, ..Augment::default() })?;
//! let direct = batches.batch(100)?; // a resumed run requests the batch of step 100
//! let mut prefetcher = Prefetcher::new(batches, 100);
//! assert_eq!(prefetcher.next()?, direct);
//! assert_eq!(direct.shape, [8, 3, 16, 16]);
//! # Ok::<(), sdft_data::DataError>(())
//! ```
//!
//! **Invariant:** knows no tensor library; a batch is a pure function of the images, the seed and the step, so it does not depend on batch
//! splits, threads, prefetching or resuming.

mod augment;
mod batches;
mod check;
mod classes;
mod digits;
mod digits_source;
mod embedded;
mod emoji;
mod entries;
mod error;
mod examination;
mod folder;
mod held_out;
mod inventory;
mod joined;
mod latents;
mod masks;
mod options;
mod order;
mod paths;
mod prefetch;
mod reader;
mod report;
mod scan;
mod source;
mod tally;

pub use batches::{Augment, Batch, Batches};
pub use classes::{Classes, classes};
pub use digits::{Digits, Style};
pub use digits_source::{DigitsOptions, DigitsSource};
pub use embedded::EmbeddedForm;
pub use emoji::{
    COLUMN_NAMES, COLUMNS, DIFFERS, Emoji, EmojiEntry, EmojiOptions, EmojiSource, EmojiStyle, Only,
};
pub use error::{DataError, Result};
pub use folder::{FolderSource, check_folder, check_folder_with};
pub use held_out::held_out;
pub use inventory::{Inventory, InventoryColumn};
pub use joined::Joined;
pub use latents::{Encode, LatentFile, Moments, WithLatents};
pub use options::{ClassesFrom, FolderOptions, Pages};
pub use order::Order;
pub use prefetch::Prefetcher;
pub use report::{Duplicate, Report, Spread, Unreadable};
pub use scan::{Listing, describe_skipped, list_all, list_images, scan_images};
pub use sdft_imaging::Fit;
pub use source::{ImageSource, Item, Place};
