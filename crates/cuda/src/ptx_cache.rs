//! A file with compiled kernels, which is read only if it is complete.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Separates the text from its checksum, as a comment of PTX.
const CHECKSUM: &str = "\n// checksum ";

fn checksum(text: &str) -> String {
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

/// Writes a text with a checksum at its end. A reader rejects a file that is incomplete; concurrent writers write the same content.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    std::fs::write(path, format!("{text}{CHECKSUM}{}", checksum(text)))
}

/// The text that [`write`] wrote, if it is complete.
pub(crate) fn verified(content: &str) -> Option<String> {
    let (text, sum) = content.rsplit_once(CHECKSUM)?;
    (sum == checksum(text)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_files_are_rejected() {
        let folder = std::env::temp_dir().join(format!("sdft-ptx-{}", std::process::id()));
        let path = folder.join("deeper/kernels.ptx");
        write(&path, ".version 8\n.entry\n").unwrap();
        let content = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(verified(&content).as_deref(), Some(".version 8\n.entry\n"));
        for cut in 0..content.len() {
            assert_eq!(verified(&content[..cut]), None, "{cut}");
        }
    }
}
