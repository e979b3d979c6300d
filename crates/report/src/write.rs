//! The file of a page.

use crate::error::{Error, OnPath as _, Result};
use crate::page::{PresetText, page};
use std::path::{Path, PathBuf};

/// The name of a page in its folder.
pub const FILE: &str = "report.html";

/// What every page has in its head.
const MARK: &str = "<meta name=\"generator\" content=\"sdft report\">";

/// Writes the page of these folders to `out` and returns its path: `report.html` in the folder if there is one, otherwise in the current
/// folder, unless `out` is given.
///
/// # Errors
/// Those of [`page`]; the file exists and is not such a page; the file system fails.
pub fn write_page(
    folders: &[PathBuf],
    out: Option<&Path>,
    presets: PresetText<'_>,
) -> Result<PathBuf> {
    let path = match (out, folders) {
        (Some(out), _) => out.to_owned(),
        (None, [folder]) => folder.join(FILE),
        (None, _) => PathBuf::from(FILE),
    };
    check(&path)?;
    let page = page(folders, presets)?;
    sdft_files::write_atomic(&path, page.as_bytes()).on("write", &path)?;
    Ok(path)
}

/// Fails if the file exists and is not a page.
fn check(path: &Path) -> Result<()> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let is_page = path.is_file()
        && std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(MARK));
    if is_page {
        return Ok(());
    }
    Err(Error::Content {
        path: path.to_owned(),
        problem: "expected a report of this program or no file, found something else, which is not replaced; move it away or name another --out"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(root: &Path) {
        std::fs::create_dir(root).unwrap();
        std::fs::write(root.join("plan.toml"), "size = 3").unwrap();
        std::fs::write(
            root.join("report.json"),
            r#"{"measures":[{"name":"<FID>","value":1.5}]}"#,
        )
        .unwrap();
    }

    #[test]
    fn a_page_is_written_again_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("e");
        evaluation(&root);
        let folders = [root.clone()];
        let path = write_page(&folders, None, &|_| None).unwrap();
        assert_eq!(write_page(&folders, None, &|_| None).unwrap(), path);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("&lt;FID&gt;") && !text.contains("<FID>"));
        std::fs::write(&path, "mine").unwrap();
        let error = write_page(&folders, None, &|_| None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not replaced"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_page_loads_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("e");
        evaluation(&root);
        let text = page(&[root], &|_| None).unwrap();
        assert!(text.contains("default-src 'none'"));
        for part in ["http://", "https://", "src=\"/", "@import", "url("] {
            let found = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(part), "{part}");
        }
    }

    #[test]
    fn a_folder_without_results_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = page(&[dir.path().to_owned()], &|_| None).unwrap_err();
        assert!(
            error.to_string().contains("expected the folder of a run"),
            "{error}"
        );
        let gone = dir.path().join("gone");
        let error = page(&[gone], &|_| None).unwrap_err();
        assert!(error.to_string().contains("no such folder"), "{error}");
    }
}
