//! Opens regular files only, and guards parsers that may panic.

use std::cell::Cell;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read as _};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

/// The longest text, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// Opens a regular file for reading. Pipes, sockets and devices are not opened, because opening one may block forever.
///
/// # Errors
/// `path` is missing or not a regular file (the message has its kind), or the system fails.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(not_regular(found.file_type()));
    }
    File::open(path)
}

/// The content of a regular file that has at most `max` bytes.
///
/// # Errors
/// Those of [`open_regular`], or the file is longer.
pub fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let long =
        |found: u64| io::Error::other(format!("it has {found} bytes, expected at most {max}"));
    let length = file.metadata().as_ref().map_or(0, Metadata::len);
    if length > max {
        return Err(long(length));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        length if length > max => Err(long(length)),
        _ => Ok(bytes),
    }
}

/// The text of a file in UTF-8, without its byte order mark.
///
/// # Errors
/// Those of [`read_regular`], or the text is not UTF-8 (the message says what to do).
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_regular(path, MAX_TEXT)?;
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(invalid(
            "its byte order mark says UTF-16, expected UTF-8; save it as UTF-8".to_owned(),
        ));
    }
    let bytes = match bytes.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|&&b| b == b'\n')
            .count()
            + 1;
        invalid(format!(
            "line {line} is not UTF-8 text; save the file as UTF-8"
        ))
    })
}

/// The kind of a file in words: `a folder`, `a pipe`, `a socket`, `a device`, ..
pub fn kind_of(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if found.is_fifo() {
            return "a pipe";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    match () {
        () if found.is_dir() => "a folder",
        () if found.is_symlink() => "a link",
        () if found.is_file() => "a file",
        () => "something that is not a file",
    }
}

fn not_regular(found: FileType) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("expected a regular file, found {}", kind_of(found)),
    )
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code that may panic on a hostile file. `None` if it panics; then nothing is printed.
///
/// Panics on other threads are not caught.
pub fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(parse));
    GUARDED.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_without_its_mark_and_other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("a\nü".as_bytes()).unwrap(), "a\nü");
        assert_eq!(read(b"\xEF\xBB\xBFa.png\n").unwrap(), "a.png\n");
        for utf16 in [&b"\xFF\xFEa\0"[..], b"\xFE\xFF\0a"] {
            let error = read(utf16).unwrap_err();
            assert!(
                error.contains("UTF-16") && error.contains("save"),
                "{error}"
            );
        }
        let error = read(b"a\nb\n\xE4\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_file_longer_than_asked_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, [0; 9]).unwrap();
        assert_eq!(read_regular(&path, 9).unwrap().len(), 9);
        let error = read_regular(&path, 8).unwrap_err().to_string();
        assert!(
            error.contains("9 bytes") && error.contains("at most 8"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = open_regular(folder.path()).unwrap_err().to_string();
        assert!(error.contains("found a folder"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_sockets_and_devices_are_refused_without_being_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (pipe.as_path(), "a pipe"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
    }

    #[test]
    fn a_caught_panic_returns_none_and_later_panics_are_reported() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("inside") }), None);
        assert!(catch_unwind(|| panic!("outside")).is_err());
        assert!(!GUARDED.get());
    }
}
