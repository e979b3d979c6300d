//! Free space on the disk.

use sdft_files::human_size;
use std::path::Path;

/// Bytes that this user can still write in the file system of `path`, which does not have to exist yet; `None` if it is unknown.
pub fn free_space(path: &Path) -> Option<u64> {
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

/// A warning if `needed` bytes do not fit into the file system of `path`.
pub fn space_warning(path: &Path, needed: u64) -> Option<String> {
    let free = free_space(path).filter(|free| *free < needed)?;
    Some(format!(
        "warning: up to {} will be written to {}, where {} are free",
        human_size(needed),
        path.display(),
        human_size(free)
    ))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_yet_has_the_space_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("runs/new/checkpoints");
        assert!(free_space(&below).unwrap() > 0);
        assert_eq!(space_warning(&below, 1), None);
        let warning = space_warning(&below, u64::MAX).unwrap();
        assert!(warning.starts_with("warning: up to "), "{warning}");
    }
}
