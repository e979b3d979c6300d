//! Compiled kernels kept between processes, in a file that is taken only whole.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// What stands between a kept text and its checksum, in a comment of PTX.
const CHECKSUM: &str = "\n// checksum ";

fn checksum(text: &str) -> String {
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

/// Writes a text in place, with a checksum at the end: a reader of half of it takes none of it, and several writers write the same.
///
/// # Errors
/// Whatever the system refuses.
pub(crate) fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    std::fs::write(path, format!("{text}{CHECKSUM}{}", checksum(text)))
}

/// The text that [`keep`] wrote, if all of it is there.
pub(crate) fn whole(kept: &str) -> Option<String> {
    let (text, sum) = kept.rsplit_once(CHECKSUM)?;
    (sum == checksum(text)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_kernels_count_only_whole() {
        let folder = std::env::temp_dir().join(format!("sdft-kept-{}", std::process::id()));
        let path = folder.join("deeper/kernels.ptx");
        keep(&path, ".version 8\n.entry\n").unwrap();
        let kept = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(whole(&kept).as_deref(), Some(".version 8\n.entry\n"));
        for cut in 0..kept.len() {
            assert_eq!(whole(&kept[..cut]), None, "{cut}");
        }
    }
}
