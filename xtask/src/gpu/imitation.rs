//! The programs on an imitation of CUDA's libraries, without a GPU: `tests/cuda-imitation`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use sdft_toolkit::{Driver, Toolkit, problem, toolkit};
use serde_json::Value;

use super::{Build, environment};
use crate::cargo::{cargo, exit_code, root};
use crate::forward;

/// A toolkit for building without a GPU, and the imitation built with it.
pub(crate) struct Imitation {
    pub(crate) toolkit: Toolkit,
    pub(crate) folder: PathBuf,
}

impl Imitation {
    /// Builds the imitation; `None` with a line that says why if there is no complete toolkit.
    pub(crate) fn build() -> Result<std::result::Result<Self, String>> {
        let driver = Driver::default();
        let mut toolkit = match toolkit(&driver) {
            Some(toolkit) => toolkit,
            None => return Ok(Err(problem(None, &driver).unwrap_or_default())),
        };
        toolkit.missing.retain(|name| *name != "cuda");
        toolkit.libraries.retain(|(name, _)| *name != "cuda");
        if let Some(problem) = problem(Some(&toolkit), &driver) {
            return Ok(Err(problem));
        }
        let folder = environment::folder()?.with_file_name("cuda-imitation");
        let mut command = Command::new("bash");
        command
            .arg(root().join("tests/cuda-imitation/build"))
            .arg(&folder)
            .arg(candles_kernels()?)
            .args(headers(&toolkit))
            .arg("--")
            .args(toolkit.libraries.iter().map(|(_, path)| path));
        run(command, "building the imitation")?;
        // Programs are linked with its driver.
        let driver = folder.join("driver/libcuda.so.1");
        toolkit.libraries.push(("cuda", driver));
        Ok(Ok(Self { toolkit, folder }))
    }

    /// How programs are built that find their libraries in `LD_LIBRARY_PATH`.
    pub(crate) fn programs(&self) -> Result<Build> {
        let mut toolkit = self.toolkit.clone();
        toolkit.folders.clear();
        super::for_gpus(toolkit, true, &[])
    }
}

/// Builds everything and runs the parts that `args` names, or all.
pub(crate) fn check(args: &[String]) -> Result<ExitCode> {
    let imitation = match Imitation::build()? {
        Ok(imitation) => imitation,
        Err(problem) => bail!("the imitation needs a CUDA toolkit, but no GPU: {problem}"),
    };
    let programs = forward::all(&imitation.programs()?)?;
    if args == ["--programs"] {
        println!("{}", programs.display());
        return Ok(ExitCode::SUCCESS);
    }
    run_checks(&imitation, &programs, args)
}

/// The stage of the continuous integration: everything about GPUs that needs a toolkit and no GPU; skipped without a toolkit.
pub(crate) fn integrate() -> Result<ExitCode> {
    let imitation = match Imitation::build()? {
        Ok(imitation) => imitation,
        Err(problem) => {
            println!("skipped: the checks of the CUDA code; {problem}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let build = imitation.programs()?;
    let mut clippy = build.check(cargo, "clippy", &CRATES);
    clippy.args(["--all-targets", "--", "-D", "warnings"]);
    run(clippy, "clippy of the CUDA code")?;
    // NVIDIA's compiler, and a driver without devices.
    let folders = imitation.toolkit.folders.iter();
    let driver = imitation.folder.join("driver");
    let folders = folders.cloned().chain([driver]);
    let mut kernels = build.check(cargo, "test", &CRATES[..2]);
    kernels
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders)?)
        .env("IMITATION_DEVICES", "0");
    run(kernels, "the tests of the CUDA code with NVIDIA's compiler")?;
    run_checks(&imitation, &forward::all(&build)?, &PARTS)
}

/// The crates that have code for GPUs, each with its feature.
const CRATES: [(&str, &str); 9] = [
    ("sdft-cuda", "cuda"),
    ("sdft-parallel", "nccl"),
    ("sdft-autograd", "cuda"),
    ("sdft-randn", "cuda"),
    ("sdft-optim", "cuda"),
    ("sdft", "nccl"),
    ("sdft-cli", "nccl"),
    ("sdft-tests", "cuda"),
    ("sdft-bench", "cuda"),
];

/// The checks that take little time.
const PARTS: [&str; 2] = ["faults", "operations"];

fn run_checks(
    imitation: &Imitation,
    programs: &Path,
    parts: &[impl AsRef<OsStr>],
) -> Result<ExitCode> {
    let mut command = Command::new("bash");
    command
        .arg(root().join("tests/cuda-imitation/check"))
        .arg(&imitation.folder)
        .arg(copied(programs, &imitation.folder)?)
        .arg(imitation.folder.join("out"))
        .args(parts);
    let status = command.status().context("starting the checks")?;
    Ok(exit_code(status))
}

/// Copies of the programs that the checks run: a build without GPU code, which a test makes, replaces the programs themselves.
fn copied(programs: &Path, folder: &Path) -> Result<PathBuf> {
    let copies = folder.join("programs");
    fs::create_dir_all(&copies).with_context(|| format!("cannot make {}", copies.display()))?;
    for name in ["sdft", "sdft-parity"] {
        fs::copy(programs.join(name), copies.join(name))
            .with_context(|| format!("cannot copy {name} to {}", copies.display()))?;
    }
    Ok(copies)
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {what}"))?;
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}

/// The folders of the headers of the toolkit and of the packages that complete it.
fn headers(toolkit: &Toolkit) -> Vec<PathBuf> {
    let mut roots = vec![toolkit.root.clone()];
    roots.extend(toolkit.libraries.iter().filter_map(|(_, path)| {
        let root = path.parent()?.parent()?;
        Some(root.to_owned())
    }));
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in roots.iter().flat_map(|root| {
        let own = root.join("include");
        [own.clone(), own.join("cccl")]
    }) {
        let is_systems = folder.starts_with("/usr/include");
        if folder.is_dir() && !is_systems && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The folder of the sources of candle's kernels, which cargo unpacked.
fn candles_kernels() -> Result<PathBuf> {
    let mut command = cargo("metadata");
    command.args(["--format-version=1", "--all-features", "--locked"]);
    let output = command.output().context("starting cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed ({})",
        output.status
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array();
    let kernels = packages.and_then(|all| all.iter().find(|one| one["name"] == "candle-kernels"));
    let manifest = kernels.and_then(|one| one["manifest_path"].as_str());
    let folder = manifest.and_then(|path| Path::new(path).parent());
    Ok(folder
        .context("found no package candle-kernels")?
        .join("src"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_toolkit_and_of_packages_that_complete_it() {
        let site = tempfile::tempdir().unwrap();
        let nvidia = site.path();
        for folder in ["cu13/include/cccl", "cudnn/include", "nccl/lib"] {
            std::fs::create_dir_all(nvidia.join(folder)).unwrap();
        }
        let toolkit = Toolkit {
            root: nvidia.join("cu13"),
            libraries: vec![
                ("cublas", nvidia.join("cu13/lib/libcublas.so.13")),
                ("cudnn", nvidia.join("cudnn/lib/libcudnn.so.9")),
                ("nccl", nvidia.join("nccl/lib/libnccl.so.2")),
            ],
            ..Toolkit::default()
        };
        let all = ["cu13/include", "cu13/include/cccl", "cudnn/include"];
        assert_eq!(headers(&toolkit), all.map(|folder| nvidia.join(folder)));
    }
}
