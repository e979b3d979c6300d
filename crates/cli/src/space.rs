//! Room on the disk.

use crate::console::{self, size};
use std::path::Path;

/// Bytes that this user can still write in the file system of `path`, which need not exist yet; none where the system does not tell.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let full = std::path::absolute(path).ok()?;
    full.ancestors().find_map(free_at)
}

#[cfg(unix)]
fn free_at(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid value of a plain C struct.
    let mut out: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `out` is writable.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut out) };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    (result == 0).then(|| (out.f_bavail as u64).saturating_mul(out.f_frsize as u64))
}

#[cfg(not(unix))]
fn free_at(_: &Path) -> Option<u64> {
    None
}

/// What to add to a line that says how much is needed in `path`: `, 12.0 GB free there`, or that this is too little.
pub(crate) fn compared(path: &Path, needed: u64) -> String {
    match free(path) {
        None => String::new(),
        Some(free) if free < needed => {
            format!(", which is too much: only {} are free there", size(free))
        }
        Some(free) => format!(", {} free there", size(free)),
    }
}

/// Says so if what will be written to `path` does not fit.
pub(crate) fn warn(path: &Path, needed: u64) {
    if let Some(free) = free(path).filter(|free| *free < needed) {
        console::note(&format!(
            "warning: up to {} will be written to {}, where {} are free",
            size(needed),
            path.display(),
            size(free)
        ));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_yet_has_the_room_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("runs/new/checkpoints");
        assert!(free(&below).unwrap() > 0);
        assert!(compared(&below, 1).ends_with("free there"));
        let short = compared(&below, u64::MAX);
        assert!(short.starts_with(", which is too much: only "), "{short}");
    }
}
