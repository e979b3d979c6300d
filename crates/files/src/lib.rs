//! Atomic writes, safe opening, hashes, and the words of messages: sizes, numbers, short names and suggestions.
//!
//! A file is written under a temporary name in its folder, flushed, and renamed, so that no reader ever sees half of it, even after a
//! crash or with a full disk. Temporary names are short, so a final name may have 255 bytes. [`sweep`] removes what a killed process
//! left.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("table.csv");
//! sdft_files::write_atomic(&path, b"a,b\n")?;
//! assert_eq!(std::fs::read(&path)?, b"a,b\n");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Invariant:** the old file stays until the new one is complete; links are replaced, never followed for writing.

mod digest;
mod name;
mod read;
mod records;
mod similar;
mod size;
mod temporary;
mod write;

pub use digest::{record_key, sha256_bytes, sha256_file};
pub use name::short_name;
pub use read::{guarded, kind_of, open_regular, read_regular, read_text};
pub use records::{RecordKey, Records};
pub use similar::{did_you_mean, nearest, similar, similar_path, suggest};
pub use size::{human_size, plural};
pub use temporary::{is_temporary, sweep, sweep_older, temporary_path};
pub use write::{
    Flush, open_append, parent_of, rename_synced, replace, sync_dir, write_atomic,
    write_atomic_with,
};
