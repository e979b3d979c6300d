//! Contact sheets next to folders of images, so that a folder holds its images and nothing else.

use crate::usage;
use anyhow::{Context, Result};
use sdft_files::{replace, write_atomic};
use sdft_imaging::{Rgb8, encode_sheet, is_sheet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the sheet of a folder is: `DIR-grid.png`.
pub(crate) fn place(folder: &Path) -> PathBuf {
    let full = folder.canonicalize();
    let full = full.as_deref().unwrap_or(folder);
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let sheet = format!("{}-grid.png", name.to_string_lossy());
            match folder.parent() {
                // The path as the user wrote it, where that has a last part.
                Some(written) if folder.file_name().is_some() => written.join(sheet),
                _ => parent.join(sheet),
            }
        }
        _ => folder.join("grid.png"),
    }
}

/// Fails if the sheet of a folder would replace another picture, or cannot have its name. Asked before anything is computed.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let path = place(folder);
    let name = path.file_name().map_or(0, std::ffi::OsStr::len);
    if name > 255 {
        return Err(usage(format!(
            "--out {}: the contact sheet next to it would have a name of {name} bytes, and file systems take 255; give a shorter one",
            folder.display()
        )));
    }
    if fs::symlink_metadata(&path).is_ok() && !is_sheet(&path) {
        return Err(usage(format!(
            "--out {}: its contact sheet would replace {}, which is something else; move that away or name another folder",
            folder.display(),
            path.display()
        )));
    }
    Ok(())
}

/// Writes the sheet of a folder, and returns where.
pub(crate) fn write(folder: &Path, picture: &Rgb8) -> Result<PathBuf> {
    let path = place(folder);
    let png = encode_sheet(picture)?;
    // The temporary file is in the folder, which is swept; the folder above is not this program's.
    replace(&path, folder, |temporary| write_atomic(temporary, &png))
        // The folder may be on another file system.
        .or_else(|_| write_atomic(&path, &png))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// How many of all images a sheet shows, in words; none if it shows all.
pub(crate) fn share(shown: usize, all: usize) -> Option<String> {
    (shown < all).then(|| format!("{shown} of {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_replaced_and_another_picture_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("photos");
        fs::create_dir(&folder).unwrap();
        let picture = Rgb8::filled(4, 4, [9; 3]);
        check(&folder).unwrap();
        assert_eq!(
            write(&folder, &picture).unwrap(),
            dir.path().join("photos-grid.png")
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        check(&folder).unwrap();
        sdft_imaging::write_png(&place(&folder), &picture).unwrap();
        let error = check(&folder).unwrap_err().to_string();
        assert!(
            error.contains("photos-grid.png, which is something else"),
            "{error}"
        );
        let long = check(&dir.path().join("x".repeat(250)))
            .unwrap_err()
            .to_string();
        assert!(long.contains("259 bytes"), "{long}");
    }

    #[test]
    fn a_sheet_of_the_current_folder_has_its_name() {
        let here = std::env::current_dir().unwrap();
        let name = here.file_name().unwrap().to_string_lossy().into_owned();
        assert!(place(Path::new(".")).ends_with(format!("{name}-grid.png")));
        assert_eq!(place(Path::new("a/b")), Path::new("a/b-grid.png"));
    }
}
