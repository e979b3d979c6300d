//! Contact sheets next to folders of images, so that a folder has only its images.

use crate::error::{Error, OnPath as _, Result};
use sdft_files::{temporary_path, write_atomic};
use sdft_imaging::{Rgb8, encode_sheet, is_sheet};
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a folder's sheet: `DIR-grid.png` next to it.
pub fn sheet_path(folder: &Path) -> PathBuf {
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

/// Fails if the sheet of a folder would replace another picture, or cannot have its name. Call it before anything is computed.
///
/// # Errors
/// The sheet's path is taken, or its name is too long.
pub fn check_sheet(folder: &Path) -> Result<()> {
    let path = sheet_path(folder);
    let name = path.file_name().map_or(0, std::ffi::OsStr::len);
    if name > 255 {
        return Err(Error::refused(
            folder,
            format!(
                "the contact sheet next to it would have a name of {name} bytes, and file systems allow 255; give a shorter one"
            ),
        ));
    }
    if fs::symlink_metadata(&path).is_ok() && !is_sheet(&path) {
        return Err(Error::refused(
            folder,
            format!(
                "its contact sheet would replace {}, which is not a contact sheet; move that away or name another folder",
                path.display()
            ),
        ));
    }
    Ok(())
}

/// Writes the sheet of a folder and returns its path.
///
/// # Errors
/// A file system error occurs.
pub fn write_sheet(folder: &Path, picture: &Rgb8) -> Result<PathBuf> {
    let path = sheet_path(folder);
    let png = encode_sheet(picture)?;
    // The temporary file is in the folder, which is swept after a kill; the parent folder belongs to the user.
    let temporary = temporary_path(&folder.join("grid.png"));
    let moved = temporary.and_then(|temporary| {
        write_atomic(&temporary, &png)?;
        fs::rename(&temporary, &path).inspect_err(|_| drop(fs::remove_file(&temporary)))
    });
    // The folder may be on another disk than its sheet.
    moved
        .or_else(|_| write_atomic(&path, &png))
        .on("write", &path)?;
    Ok(path)
}

/// `"32 of 100"` where a sheet shows a part of all images; `None` if it shows all.
pub fn shown_of(shown: usize, all: usize) -> Option<String> {
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
        check_sheet(&folder).unwrap();
        assert_eq!(
            write_sheet(&folder, &picture).unwrap(),
            dir.path().join("photos-grid.png")
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        check_sheet(&folder).unwrap();
        sdft_imaging::write_png(&sheet_path(&folder), &picture).unwrap();
        let error = check_sheet(&folder).unwrap_err().to_string();
        assert!(
            error.contains("photos-grid.png, which is not a contact sheet"),
            "{error}"
        );
        let long = check_sheet(&dir.path().join("x".repeat(250)))
            .unwrap_err()
            .to_string();
        assert!(long.contains("259 bytes"), "{long}");
    }

    #[test]
    fn a_sheet_of_the_current_folder_has_its_name() {
        let here = std::env::current_dir().unwrap();
        let name = here.file_name().unwrap().to_string_lossy().into_owned();
        assert!(sheet_path(Path::new(".")).ends_with(format!("{name}-grid.png")));
        assert_eq!(sheet_path(Path::new("a/b")), Path::new("a/b-grid.png"));
    }
}
