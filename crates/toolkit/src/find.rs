//! The toolkit: its compiler, its version, and the libraries that programs are linked with.

use crate::advice::OLDEST;
use crate::library::{NCCL, NEEDED, Search, find};
use crate::system::{System, executable, version_in};
use crate::{Driver, Version};
use std::path::{Path, PathBuf};

/// NVIDIA's compiler and the libraries that fit it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toolkit {
    /// The compiler.
    pub nvcc: PathBuf,
    /// The folder of the toolkit.
    pub root: PathBuf,
    /// The version that the compiler reports; `None` if it does not start.
    pub version: Option<Version>,
    /// The libraries that were found, by name without `lib`.
    pub libraries: Vec<(&'static str, PathBuf)>,
    /// The names of needed libraries that were not found. NCCL is not needed.
    pub missing: Vec<&'static str>,
    /// Folders of libraries that the system's loader does not search by itself.
    pub folders: Vec<PathBuf>,
}

impl Toolkit {
    /// Whether NCCL was found, which adds gradients over several GPUs.
    pub fn has_nccl(&self) -> bool {
        self.libraries.iter().any(|(name, _)| *name == NCCL)
    }
}

/// The toolkit of this machine; `None` if there is no compiler. A compiler that starts and that the driver supports is preferred over others.
/// On Windows libraries are not searched.
pub fn toolkit(driver: &Driver) -> Option<Toolkit> {
    toolkit_of(&System::this(), driver.cuda, !cfg!(windows))
}

fn toolkit_of(
    system: &System<'_>,
    newest: Option<Version>,
    with_libraries: bool,
) -> Option<Toolkit> {
    let usable =
        |version: Version| version >= OLDEST && newest.is_none_or(|newest| version <= newest);
    let mut others = Vec::new();
    let mut choose = |(nvcc, root): (PathBuf, PathBuf)| {
        let answer = (system.ask)(&nvcc, &["--version"]).unwrap_or_default();
        let release = answer.split_once("release ");
        let version = release.and_then(|(_, rest)| version_in(rest));
        let toolkit = Toolkit {
            nvcc,
            root,
            version,
            ..Toolkit::default()
        };
        if version.is_some_and(usable) {
            return Some(toolkit);
        }
        others.push(toolkit);
        None
    };
    // Python is started only if something is missing elsewhere.
    let mut packages: Option<Vec<PathBuf>> = None;
    let chosen = installed(system)
        .into_iter()
        .find_map(&mut choose)
        .or_else(|| {
            let packages = packages.get_or_insert_with(|| python_packages(system));
            let mut compilers = packages.iter().filter_map(|folder| compiler_in(folder));
            compilers.find_map(&mut choose)
        });
    let mut toolkit = chosen.or_else(|| others.into_iter().next())?;
    let Some((major, _)) = toolkit.version.filter(|_| with_libraries) else {
        return Some(toolkit);
    };
    let mut search = Search::new(system, Some(&toolkit.root));
    let mut with_packages = false;
    for name in NEEDED.into_iter().chain([NCCL]) {
        let mut library = find(name, &search, Some(major));
        if library.is_none() && !with_packages {
            with_packages = true;
            let all = packages.take().unwrap_or_else(|| python_packages(system));
            let fitting = all.iter().filter(|folder| fits(folder, major));
            search.add(fitting.map(|folder| folder.join("lib")));
            library = find(name, &search, Some(major));
        }
        match library {
            Some(path) => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                // The driver's library is found by every program that uses a GPU.
                let is_system = name == "cuda" || search.is_system(&folder);
                if !is_system && !toolkit.folders.contains(&folder) {
                    toolkit.folders.push(folder);
                }
                toolkit.libraries.push((name, path));
            }
            None if name == NCCL => {}
            None => toolkit.missing.push(name),
        }
    }
    Some(toolkit)
}

/// Compilers with their toolkits: those that the user named, the one on the `PATH`, those of installers and of the active conda environment.
fn installed(system: &System<'_>) -> Vec<(PathBuf, PathBuf)> {
    let named = [
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_ROOT",
        "CUDA_TOOLKIT_ROOT_DIR",
    ];
    let named = named.iter().filter_map(|name| system.folder(name));
    let on_path = || {
        let nvcc = system.program("nvcc")?;
        // A link such as /usr/bin/nvcc leads to the toolkit.
        let file = nvcc.canonicalize().ok();
        let file = file.filter(|file| file.file_name() == nvcc.file_name());
        let root = file.as_deref().unwrap_or(&nvcc).parent()?.parent()?;
        Some((nvcc.clone(), root.to_owned()))
    };
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda"];
    let usual = usual.iter().map(|place| system.at(place));
    let usual = usual.chain(system.folder("CONDA_PREFIX"));
    let mut all: Vec<(PathBuf, PathBuf)> = named.filter_map(|root| compiler_in(&root)).collect();
    all.extend(on_path());
    all.extend(usual.filter_map(|root| compiler_in(&root)));
    all
}

fn compiler_in(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let nvcc = root.join("bin").join(executable("nvcc"));
    nvcc.is_file().then(|| (nvcc, root.to_owned()))
}

/// The folders `nvidia/*` of the packages of the Python on the `PATH`.
fn python_packages(system: &System<'_>) -> Vec<PathBuf> {
    let question = "import nvidia; print(*nvidia.__path__, sep='\\n')";
    let python = system
        .program("python3")
        .or_else(|| system.program("python"));
    let answer = python.and_then(|python| (system.ask)(&python, &["-c", question]));
    let mut folders = Vec::new();
    for place in answer.unwrap_or_default().lines() {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut inside: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        inside.sort();
        folders.extend(inside);
    }
    folders
}

/// Whether a package's folder is for this version of CUDA. Packages of cuDNN, NCCL and others state the version in their name only.
fn fits(folder: &Path, major: u32) -> bool {
    let site = folder.parent().and_then(Path::parent);
    let (Some(site), Some(part)) = (site, folder.file_name().and_then(|name| name.to_str())) else {
        return false;
    };
    // The folder of all libraries of one version.
    if let Some(version) = part
        .strip_prefix("cu")
        .and_then(|text| text.parse::<u32>().ok())
    {
        return version == major;
    }
    let prefix = format!("nvidia_{part}_cu");
    let entries = std::fs::read_dir(site).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    let own = format!("{major}-");
    names.is_empty() || names.iter().any(|name| name.starts_with(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::fs::{create_dir_all, write};

    fn create(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, "").unwrap();
        }
    }

    /// The toolkit of a machine with these files and variables, whose Python has packages in `site/nvidia`.
    fn found(root: &Path, variables: &[(&str, &str)], release: &str) -> Option<Toolkit> {
        let site = root.join("site/nvidia").display().to_string();
        toolkit_of(
            &System {
                variable: &|name| {
                    let value = variables.iter().find(|(known, _)| *known == name)?.1;
                    Some(OsString::from(root.join(value)))
                },
                root,
                ask: &|program, _| {
                    let python = program.file_name()?.to_str()?.starts_with("python");
                    let version = format!(
                        "nvcc: NVIDIA\nCuda compilation tools, release {release}, V{release}.88\n"
                    );
                    Some(if python { site.clone() } else { version })
                },
            },
            None,
            true,
        )
    }

    #[test]
    fn a_compiler_that_the_driver_supports_comes_first() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let nvcc = ["usr/local/cuda/bin/nvcc", "opt/cuda/bin/nvcc"].map(executable);
        create(root, &nvcc.each_ref().map(String::as_str));
        let chosen = |newest| {
            let system = System {
                variable: &|_| None,
                root,
                ask: &|program, _| {
                    let newer = program.starts_with(root.join("usr"));
                    Some(format!(
                        "release {}, V",
                        if newer { "13.5" } else { "13.0" }
                    ))
                },
            };
            let toolkit = toolkit_of(&system, newest, false).unwrap();
            (toolkit.version.unwrap(), toolkit.root)
        };
        let (first, second) = (root.join("usr/local/cuda"), root.join("opt/cuda"));
        assert_eq!(chosen(None), ((13, 5), first.clone()));
        assert_eq!(chosen(Some((13, 0))), ((13, 0), second));
        // If the driver supports none of them, the first one is reported.
        assert_eq!(chosen(Some((12, 8))), ((13, 5), first));
    }

    const ALL: [&str; 7] = [
        "libcuda.so",
        "libcudart.so",
        "libnvrtc.so",
        "libcublas.so",
        "libcublasLt.so",
        "libcurand.so",
        "libcudnn.so",
    ];

    #[test]
    fn a_compiler_off_the_path_is_found_and_a_named_one_comes_first() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        assert_eq!(found(root, &[], "12.8"), None);
        let files = ALL.map(|name| format!("usr/local/cuda/lib64/{name}"));
        create(root, &files.each_ref().map(String::as_str));
        let nvcc = ["usr/local/cuda/bin/nvcc", "other/bin/nvcc", "bin/nvcc"].map(executable);
        create(root, &nvcc.each_ref().map(String::as_str));
        let toolkit = found(root, &[], "12.8").unwrap();
        assert_eq!(toolkit.root, root.join("usr/local/cuda"));
        assert_eq!(toolkit.version, Some((12, 8)));
        assert!(toolkit.missing.is_empty() && !toolkit.has_nccl());
        assert_eq!(toolkit.folders, [root.join("usr/local/cuda/lib64")]);
        for name in ["CUDA_HOME", "CUDA_PATH"] {
            let toolkit = found(root, &[("PATH", "bin"), (name, "other")], "12.8").unwrap();
            assert_eq!(toolkit.root, root.join("other"), "{name}");
        }
        let toolkit = found(root, &[("PATH", "bin")], "12.8").unwrap();
        assert_eq!(toolkit.nvcc, root.join("bin").join(executable("nvcc")));
        assert_eq!(toolkit.missing, NEEDED);
    }

    #[test]
    fn python_packages_are_a_toolkit_or_complete_one() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let python = format!("bin/{}", executable("python3"));
        let nvcc = format!("site/nvidia/cu13/bin/{}", executable("nvcc"));
        create(
            root,
            &[
                &python,
                &nvcc,
                "usr/lib/libcuda.so.1",
                "site/nvidia/cu13/lib/libcudart.so.13",
                "site/nvidia/cu13/lib/libnvrtc.so.13",
                "site/nvidia/cu13/lib/libcublas.so.13",
                "site/nvidia/cu13/lib/libcublasLt.so.13",
                "site/nvidia/cu13/lib/libcurand.so.10",
                "site/nvidia/cudnn/lib/libcudnn.so.9",
                "site/nvidia/nccl/lib/libnccl.so.2",
                "site/nvidia_cudnn_cu13-9.19.dist-info/METADATA",
            ],
        );
        let toolkit = found(root, &[("PATH", "bin")], "13.0").unwrap();
        assert_eq!(toolkit.root, root.join("site/nvidia/cu13"));
        assert!(toolkit.missing.is_empty() && toolkit.has_nccl());
        let folders = ["cu13", "cudnn", "nccl"];
        let folders = folders.map(|part| root.join(format!("site/nvidia/{part}/lib")));
        assert_eq!(toolkit.folders, folders);
        // A toolkit of another version takes none of these, though the name of cuDNN's file is the same.
        create(
            root,
            &[&format!("usr/local/cuda/bin/{}", executable("nvcc"))],
        );
        let toolkit = found(root, &[("PATH", "bin")], "12.8").unwrap();
        assert_eq!(toolkit.missing, NEEDED[1..]);
    }

    #[test]
    fn a_compiler_that_does_not_start_has_no_version() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        create(
            root,
            &[&format!("usr/local/cuda/bin/{}", executable("nvcc"))],
        );
        let toolkit = found(root, &[], "unknown").unwrap();
        assert_eq!((toolkit.version, toolkit.missing.len()), (None, 0));
    }
}
