//! Libraries: what a program for GPUs is linked with, their files, and the folders to search.

use crate::system::System;
use std::path::{Path, PathBuf};

/// Every library that a program for GPUs is linked with, and NCCL for several GPUs.
pub(crate) const NEEDED: [&str; 7] = [
    "cuda", "cudart", "nvrtc", "cublas", "cublasLt", "curand", "cudnn",
];
pub(crate) const NCCL: &str = "nccl";

/// Folders in the order of their search, each with whether the system's loader searches it by itself.
pub(crate) struct Search(Vec<(PathBuf, bool)>);

impl Search {
    /// The folders of the system, and those of `LIBRARY_PATH` and `LD_LIBRARY_PATH`.
    pub(crate) fn of_system(system: &System<'_>) -> Self {
        Self::new(system, None)
    }

    /// The folders of a toolkit, of the active conda environment and of the system.
    pub(crate) fn new(system: &System<'_>, toolkit: Option<&Path>) -> Self {
        let mut folders = Vec::new();
        folders.extend(system.folders("LIBRARY_PATH"));
        folders.extend(system.folders("LD_LIBRARY_PATH"));
        let arch = std::env::consts::ARCH;
        let target = if arch == "aarch64" { "sbsa" } else { arch };
        let named = [
            "CUDNN_LIB",
            "CUDNN_HOME",
            "CUDNN_PATH",
            "NCCL_HOME",
            "CONDA_PREFIX",
        ];
        let named = named.iter().filter_map(|name| system.folder(name));
        for root in toolkit.map(Path::to_owned).into_iter().chain(named) {
            folders.push(root.join("lib64"));
            folders.push(root.join("lib"));
            folders.push(root.join(format!("targets/{target}-linux/lib")));
        }
        let mut all: Vec<(PathBuf, bool)> = folders.into_iter().map(|f| (f, false)).collect();
        for folder in ["lib64", "lib"] {
            let place = format!("/usr/{folder}");
            all.push((system.at(&format!("{place}/{arch}-linux-gnu")), true));
            all.push((system.at(&format!("{place}/wsl/lib")), true));
            all.push((system.at(&place), true));
        }
        // A toolkit's library without code, for machines without a driver.
        let stubs = toolkit.map(|root| ["lib64/stubs", "lib/stubs"].map(|stubs| root.join(stubs)));
        all.extend(stubs.into_iter().flatten().map(|folder| (folder, true)));
        Self(all)
    }

    /// Adds the folders of Python packages.
    pub(crate) fn add(&mut self, folders: impl IntoIterator<Item = PathBuf>) {
        self.0
            .extend(folders.into_iter().map(|folder| (folder, false)));
    }

    /// Whether the system's loader finds a library of this folder, or must not.
    pub(crate) fn is_system(&self, folder: &Path) -> bool {
        self.0
            .iter()
            .any(|(known, system)| *system && known == folder)
    }
}

/// The version in the name of a library that fits a toolkit's major version: libraries of CUDA have its number, others their own.
fn suffix(name: &str, major: Option<u32>) -> Option<u32> {
    match name {
        "cuda" => Some(1),
        "curand" => Some(10),
        "cudnn" => Some(9),
        NCCL => Some(2),
        _ => major,
    }
}

/// The file of a library that fits a toolkit of this major version.
pub(crate) fn find(name: &str, search: &Search, major: Option<u32>) -> Option<PathBuf> {
    let expected = suffix(name, major)?;
    search.0.iter().find_map(|(folder, _)| {
        let plain = folder.join(format!("lib{name}.so"));
        let versioned = folder.join(format!("lib{name}.so.{expected}"));
        let fits = |path: &Path| version_of(path).is_none_or(|version| version == expected);
        if versioned.is_file() {
            Some(versioned)
        } else {
            (plain.is_file() && fits(&plain)).then_some(plain)
        }
    })
}

/// The version in the name of the file that a link leads to.
fn version_of(path: &Path) -> Option<u32> {
    let file = path.canonicalize().ok()?;
    let (_, versions) = file.file_name()?.to_str()?.split_once(".so.")?;
    versions.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn libraries_of_the_toolkits_major_version_are_found_under_plain_and_versioned_names() {
        let root = tempfile::tempdir().unwrap();
        let system = System {
            variable: &|_| None,
            root: root.path(),
            ask: &|_, _| None,
        };
        let toolkit = root.path().join("cuda");
        let (own, usr) = (toolkit.join("lib64"), root.path().join("usr/lib"));
        for folder in [&own, &usr] {
            create_dir_all(folder).unwrap();
        }
        for file in [
            own.join("libcublas.so.13"),
            own.join("libcudart.so"),
            usr.join("libcudnn.so.8"),
            usr.join("libnvrtc.so.12.4.1"),
            usr.join("libcudart.so.13"),
        ] {
            write(file, "").unwrap();
        }
        let search = Search::new(&system, Some(&toolkit));
        let found = |name, major| find(name, &search, Some(major));
        assert_eq!(found("cublas", 13), Some(own.join("libcublas.so.13")));
        assert_eq!(found("cublas", 12), None);
        assert_eq!(found("cudart", 13), Some(own.join("libcudart.so")));
        assert_eq!(found("cudnn", 13), None);
        #[cfg(unix)]
        {
            let link = usr.join("libnvrtc.so");
            std::os::unix::fs::symlink("libnvrtc.so.12.4.1", &link).unwrap();
            assert_eq!(found("nvrtc", 12), Some(link));
            // A link to a library of another toolkit.
            assert_eq!(found("nvrtc", 13), None);
        }
        assert!(search.is_system(&usr) && !search.is_system(&own));
    }
}
