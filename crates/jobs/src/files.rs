//! Result files, written as a whole.

use crate::error::{Result, ResultExt as _};
use std::path::Path;

/// Replaces a file as a whole.
///
/// # Errors
/// A file system error, with the path; the old file stays.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    sdft_files::write_atomic(path, bytes)
        .with_context(|| format!("cannot write {}", path.display()))
}
