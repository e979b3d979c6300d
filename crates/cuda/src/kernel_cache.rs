//! Compiled kernels in the cache folder of the user, read only if they are complete.

use crate::architecture::Code;
use crate::versions::Version;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Length of the checksum at the end of a file.
const CHECKSUM: usize = 8;

fn hash_of(value: impl Hash) -> u64 {
    let mut hash = DefaultHasher::new();
    value.hash(&mut hash);
    hash.finish()
}

/// The file of a compiled source, named by everything that it depends on: the code's architecture, the version of NVRTC and the source.
pub(crate) fn file_of(folder: &Path, source: &str, code: Code, nvrtc: Version) -> PathBuf {
    let kind = match code {
        Code::Cubin(_) => "cubin",
        Code::Ptx(_) => "ptx",
    };
    let source = hash_of(source);
    folder.join(format!(
        "kernels-{}-{nvrtc}-{source:016x}.{kind}",
        code.name()
    ))
}

/// The cache folder of this program; `None` if the user has no home folder.
#[cfg(feature = "cuda")]
pub(crate) fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| {
        let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
        Some(PathBuf::from(home).join(".cache"))
    })?;
    Some(cache.join("sdft"))
}

/// Writes bytes with a checksum at their end. A reader rejects a file that is incomplete; concurrent writers write the same content.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    std::fs::write(path, [bytes, &hash_of(bytes).to_le_bytes()].concat())
}

/// The bytes that [`write`] wrote, if they are complete.
pub(crate) fn verified(mut content: Vec<u8>) -> Option<Vec<u8>> {
    let checksum = content.split_off(content.len().checked_sub(CHECKSUM)?);
    (checksum == hash_of(&content[..]).to_le_bytes()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_files_are_rejected() {
        let folder = std::env::temp_dir().join(format!("sdft-kernels-{}", std::process::id()));
        let path = folder.join("deeper/kernels.cubin");
        write(&path, b"\x7fELF\0\xffcode").unwrap();
        let content = std::fs::read(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            verified(content.clone()).as_deref(),
            Some(&b"\x7fELF\0\xffcode"[..])
        );
        for cut in 0..content.len() {
            assert_eq!(verified(content[..cut].to_vec()), None, "{cut}");
        }
    }

    #[test]
    fn files_are_named_by_architecture_compiler_and_source() {
        let file = |source, code, (major, minor)| {
            file_of(Path::new("c"), source, code, Version { major, minor })
        };
        let one = file("a", Code::Cubin(90), (13, 0));
        let name = one.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("kernels-sm_90-13.0-") && name.ends_with(".cubin"),
            "{name}"
        );
        for other in [
            file("b", Code::Cubin(90), (13, 0)),
            file("a", Code::Cubin(80), (13, 0)),
            file("a", Code::Ptx(90), (13, 0)),
            file("a", Code::Cubin(90), (13, 1)),
        ] {
            assert_ne!(one, other);
        }
    }
}
