//! Files that are written whole or not at all, opened only where they are files, and their hashes.
//!
//! A file is written under a temporary name in the folder it belongs to, flushed, and renamed. A reader, a crash or a full disk never
//! finds half of it. Temporary names are short whatever the final name is, so a legal name of 255 bytes works, and [`sweep`] recognises
//! them.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("table.csv");
//! sdft_files::write_atomic(&path, b"a,b\n")?;
//! assert_eq!(std::fs::read(&path)?, b"a,b\n");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Invariant:** what was at a path before stays until the new file is complete, and links are replaced, never written through.

mod digest;
mod read;
mod temporary;
mod write;

pub use digest::{sha256_bytes, sha256_file};
pub use read::{guarded, kind_of, open_regular, read_regular, read_text};
pub use temporary::{is_temporary, sweep, sweep_older, temporary_path};
pub use write::{Flush, open_append, parent_of, sync_dir, write_atomic, write_atomic_with};
