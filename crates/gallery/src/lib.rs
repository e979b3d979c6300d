//! Folders of images that a plan decides: locked, journalled, continued, and never mixed with other files.
//!
//! [`Outputs`] is such a folder. Its `plan.toml` holds the settings that decide the files, and a hidden journal says which file was made
//! of what. A repeated run makes only what is missing or out of date. Files without a record are never replaced. [`Gallery`] fills a
//! folder with images made of other images by a [`Maker`], under the same names, with a contact sheet next to it.
//!
//! # Example: a folder that is continued
//! ```
//! use sdft_gallery::Outputs;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Plan { seed: u64 }
//!
//! # let dir = tempfile::tempdir()?;
//! let folder = dir.path().join("samples");
//! let mut outputs = Outputs::open(&folder, &Plan { seed: 1 }, false)?;
//! outputs.put("0.txt", "", b"zero")?;
//! drop(outputs);
//! assert!(Outputs::open(&folder, &Plan { seed: 1 }, false)?.is_complete("0.txt", ""));
//! let refused = Outputs::open(&folder, &Plan { seed: 2 }, false).err().map(|error| error.to_string());
//! assert!(refused.is_some_and(|text| text.contains("there seed = 1, now seed = 2")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** a file that this folder's plan did not make is never replaced or removed, unless the caller overwrites it by name.

mod changes;
mod error;
mod failures;
mod fill;
mod inputs;
mod outputs;
mod refusal;
mod sheet;
mod space;

pub use changes::Changes;
pub use error::{Error, Result};
pub use failures::Failures;
pub use fill::{Event, Filled, Gallery, Made, Maker, Outcome, full_path, usual_batch};
pub use inputs::{Input, Loaded, reading};
pub use outputs::{Outputs, recorded_names};
pub use refusal::{check_apart, check_folder, check_new_file, difference};
pub use sheet::{check_sheet, sheet_path, shown_of, write_sheet};
pub use space::{free_space, space_warning};
