//! What the build of a program for GPUs needs in its environment.

use std::env::{join_paths, split_paths};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sdft_toolkit::Toolkit;

use crate::cargo::root;

/// Versions of CUDA that cudarc has bindings for, the newest first.
const KNOWN: [(u32, u32); 14] = [
    (13, 4),
    (13, 3),
    (13, 2),
    (13, 1),
    (13, 0),
    (12, 9),
    (12, 8),
    (12, 6),
    (12, 5),
    (12, 4),
    (12, 3),
    (12, 2),
    (12, 1),
    (12, 0),
];

/// The folder with what belongs to the toolkit of a build.
pub(super) fn folder() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), PathBuf::from);
    // The linker runs in another folder.
    let target = std::path::absolute(target).context("the path of the target folder")?;
    Ok(target.join("cuda-libraries"))
}

/// Calls `clean` if the last build had another toolkit, and records this one. The build of candle's kernels does not notice that the
/// compiler has changed.
pub(super) fn if_changed(
    toolkit: &Toolkit,
    folder: &Path,
    clean: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let record = folder.join("toolkit");
    let current = format!("{} {:?}\n", toolkit.nvcc.display(), toolkit.version);
    if fs::read_to_string(&record).is_ok_and(|last| last == current) {
        return Ok(());
    }
    clean()?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&record, current))
        .with_context(|| format!("writing {}", record.display()))
}

/// The environment variables of a build with this toolkit, for GPUs of these capabilities. A variable that the user set is kept, if it is
/// not a list. Links to libraries are made in `folder`.
pub(super) fn variables(
    toolkit: &Toolkit,
    capabilities: &[(u32, u32)],
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<(&'static str, OsString)>> {
    let before = |name: &'static str, folder: &Path| -> Result<_> {
        let old = variable(name).unwrap_or_default();
        let all = std::iter::once(folder.to_owned()).chain(split_paths(&old));
        let all = join_paths(all.filter(|folder| !folder.as_os_str().is_empty()));
        Ok((name, all.with_context(|| format!("adding to {name}"))?))
    };
    let mut all = Vec::new();
    if let Some(folder) = toolkit.nvcc.parent() {
        all.push(before("PATH", folder)?);
    }
    // The build scripts would otherwise take another toolkit in /usr/local/cuda.
    all.push(("CUDA_HOME", toolkit.root.clone().into()));
    let mut unless_set = |name, value: Option<String>| {
        if let Some(value) = value.filter(|_| variable(name).is_none()) {
            all.push((name, value.into()));
        }
    };
    unless_set("CUDARC_CUDA_VERSION", toolkit.version.and_then(bindings));
    unless_set("CUDA_COMPUTE_CAP", Some(compute_capability(capabilities)));
    if !toolkit.libraries.is_empty() {
        link_all(toolkit, folder)
            .with_context(|| format!("linking CUDA's libraries in {}", folder.display()))?;
        all.push(before("LIBRARY_PATH", folder)?);
    }
    Ok(all)
}

/// The version of the bindings for a toolkit that cudarc does not know: the newest one that is not newer. Libraries of a major version
/// keep the functions of earlier ones.
fn bindings(version: (u32, u32)) -> Option<String> {
    if KNOWN.contains(&version) {
        return None;
    }
    let (major, minor) = KNOWN.into_iter().find(|known| *known < version)?;
    Some(format!("{major}0{minor}0"))
}

/// What candle's kernels are compiled for: all GPUs from 8.0 on, or from the oldest one of this machine on.
fn compute_capability(capabilities: &[(u32, u32)]) -> String {
    let (major, minor) = capabilities
        .iter()
        .copied()
        .min()
        .unwrap_or((8, 0))
        .min((8, 0));
    format!("{major}{minor}")
}

/// Makes a folder in which the linker finds each library under the name that it expects.
fn link_all(toolkit: &Toolkit, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, library) in &toolkit.libraries {
        let link = folder.join(format!("lib{name}.so"));
        let library = std::path::absolute(library)?;
        if fs::read_link(&link).is_ok_and(|old| old == library) {
            continue;
        }
        // Another process may be doing the same.
        let new = folder.join(format!("lib{name}.{}", std::process::id()));
        #[cfg(unix)]
        std::os::unix::fs::symlink(library, &new)?;
        fs::rename(new, link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_that_cudarc_does_not_know_gets_the_newest_bindings_before_it() {
        assert_eq!(bindings((13, 5)).as_deref(), Some("13040"));
        assert_eq!(bindings((14, 0)).as_deref(), Some("13040"));
        assert_eq!(bindings((12, 7)).as_deref(), Some("12060"));
        assert_eq!(bindings((13, 4)), None);
        assert_eq!(bindings((12, 0)), None);
        // After an update of cudarc, compare its list of versions with this one.
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains("name = \"cudarc\"\nversion = \"0.19.10\""));
    }

    #[test]
    fn candles_kernels_run_on_every_gpu_of_the_machine() {
        assert_eq!(compute_capability(&[]), "80");
        assert_eq!(compute_capability(&[(9, 0), (12, 0)]), "80");
        assert_eq!(compute_capability(&[(9, 0), (7, 5)]), "75");
    }

    #[test]
    fn kernels_are_compiled_again_with_another_toolkit() {
        let target = tempfile::tempdir().unwrap();
        let folder = target.path().join("deeper");
        let mut toolkit = Toolkit {
            version: Some((13, 5)),
            ..Toolkit::default()
        };
        let cleans = |toolkit: &Toolkit| {
            let mut cleaned = false;
            let clean = || {
                cleaned = true;
                Ok(())
            };
            if_changed(toolkit, &folder, clean).unwrap();
            cleaned
        };
        assert!(cleans(&toolkit) && !cleans(&toolkit));
        toolkit.version = Some((13, 0));
        assert!(cleans(&toolkit) && !cleans(&toolkit));
        // A failure is not recorded.
        toolkit.nvcc = "other/nvcc".into();
        assert!(if_changed(&toolkit, &folder, || anyhow::bail!("stopped")).is_err());
        assert!(cleans(&toolkit));
    }

    #[cfg(unix)]
    #[test]
    fn the_build_gets_the_compiler_its_toolkit_and_links_to_the_libraries() {
        let target = tempfile::tempdir().unwrap();
        let mut toolkit = Toolkit {
            nvcc: "/c/cu13/bin/nvcc".into(),
            root: "/c/cu13".into(),
            version: Some((13, 5)),
            libraries: vec![("cudnn", "/c/cudnn/lib/libcudnn.so.9".into())],
            ..Toolkit::default()
        };
        let folder = target.path().join("links");
        let found = |toolkit: &Toolkit, own: &[(&str, &str)]| {
            let variable = |name: &str| {
                let (_, value) = own.iter().find(|(known, _)| *known == name)?;
                Some(OsString::from(value))
            };
            let all = variables(toolkit, &[(9, 0)], &folder, &variable).unwrap();
            move |name: &str| {
                let value = all.iter().find(|(known, _)| *known == name);
                value.map(|(_, value)| value.to_str().unwrap().to_owned())
            }
        };
        let link = folder.join("libcudnn.so");
        let value = found(&toolkit, &[("PATH", "/bin")]);
        assert_eq!(value("PATH").unwrap(), "/c/cu13/bin:/bin");
        assert_eq!(value("CUDA_HOME").unwrap(), "/c/cu13");
        assert_eq!(value("CUDARC_CUDA_VERSION").unwrap(), "13040");
        assert_eq!(value("CUDA_COMPUTE_CAP").unwrap(), "80");
        assert_eq!(value("LIBRARY_PATH").unwrap(), folder.to_str().unwrap());
        let library = fs::read_link(&link).unwrap();
        assert_eq!(library, Path::new("/c/cudnn/lib/libcudnn.so.9"));
        // Another toolkit, and variables of the user.
        toolkit.libraries[0].1 = "/d/libcudnn.so".into();
        let own = [("CUDARC_CUDA_VERSION", "13000"), ("CUDA_COMPUTE_CAP", "90")];
        let value = found(&toolkit, &own);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/d/libcudnn.so"));
        assert_eq!(value("CUDARC_CUDA_VERSION"), None);
        assert_eq!(value("CUDA_COMPUTE_CAP"), None);
    }
}
