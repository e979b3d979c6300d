//! Whether programs are built for GPUs.

mod environment;
pub(crate) mod imitation;

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sdft_toolkit::{Toolkit, caution, driver, has_gpu, problem, toolkit, without_nccl};

use crate::cargo::cargo;

/// How programs are built: for the CPU, or with a feature for GPUs and what its build needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Build {
    /// The feature of the program's package.
    feature: Option<&'static str>,
    /// Environment variables of the build.
    variables: Vec<(&'static str, std::ffi::OsString)>,
    /// Folders in which the program finds its libraries.
    folders: Vec<PathBuf>,
}

impl Build {
    pub(crate) fn is_for_gpus(&self) -> bool {
        self.feature.is_some()
    }

    /// The command `cargo build` for a program in release mode, or `cargo rustc` if the linker needs options.
    pub(crate) fn command(&self, cargo: impl Fn(&str) -> Command, program: &[&str]) -> Command {
        // Only `rustc` passes options to the linker of a program without compiling everything else again.
        let verb = if self.folders.is_empty() {
            "build"
        } else {
            "rustc"
        };
        let mut command = cargo(verb);
        command.args(QUIETLY).args(program);
        if let Some(feature) = self.feature {
            command.args(["--features", feature]);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if !self.folders.is_empty() {
            command.arg("--");
            // Libraries that are loaded by libraries are searched there, too.
            command.args(["-C", "link-arg=-Wl,--disable-new-dtags"]);
            for folder in &self.folders {
                command.arg("-C");
                command.arg(format!("link-arg=-Wl,-rpath,{}", folder.display()));
            }
        }
        command
    }

    /// The command that builds several programs, each a package and the name of its program. They find libraries in `LD_LIBRARY_PATH`.
    pub(crate) fn command_for(
        &self,
        cargo: impl Fn(&str) -> Command,
        programs: &[(&str, &str)],
    ) -> Command {
        let mut command = cargo("build");
        command.args(QUIETLY);
        for (package, program) in programs {
            command.args(["--package", package, "--bin", program]);
            if self.feature.is_some() {
                command.arg(format!("--features={package}/cuda"));
            }
        }
        if self.feature == Some("nccl") {
            command.arg("--features=sdft-cli/nccl");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Build {
    /// A command of cargo on these crates, each with a feature.
    pub(crate) fn check(
        &self,
        cargo: impl Fn(&str) -> Command,
        verb: &str,
        crates: &[(&str, &str)],
    ) -> Command {
        let mut command = cargo(verb);
        command.args(["--quiet", "--release"]);
        for (name, feature) in crates {
            command.args(["--package", name]);
            command.arg(format!("--features={name}/{feature}"));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Options of every build: the output is for this program to read.
const QUIETLY: [&str; 3] = [
    "--quiet",
    "--release",
    "--message-format=json-render-diagnostics",
];

/// The build for these arguments: for GPUs if this machine has a GPU and a complete CUDA toolkit, or if `--device cuda` is given, but not
/// with `--device cpu`. Several processes also need NCCL. If a toolkit is incomplete, prints what to install.
pub(crate) fn build_for(args: &[String]) -> Result<Build> {
    let device = value(args, "--device");
    if !is_wanted(device, has_gpu) {
        return Ok(Build::default());
    }
    let driver = driver();
    let Some(toolkit) = toolkit(&driver) else {
        // `doctor`, and the program if a GPU was asked for, say what to install.
        return Ok(Build::default());
    };
    if let Some(problem) = problem(Some(&toolkit), &driver) {
        eprintln!("note: building for the CPU: {problem}");
        return Ok(Build::default());
    }
    if let Some(caution) = caution(&toolkit, &driver) {
        eprintln!("warning: {caution}");
    }
    let several = value(args, "--gpus").is_some_and(|n| n != "1")
        || env::var("WORLD_SIZE").is_ok_and(|n| n.trim() != "1");
    if let Some(note) = without_nccl(&toolkit).filter(|_| several) {
        eprintln!("note: {note}");
    }
    for_gpus(toolkit, several, &driver.capabilities)
}

/// The same, but only if the arguments ask for a GPU.
pub(crate) fn build_if_asked(args: &[String]) -> Result<Build> {
    match value(args, "--device") {
        Some(place) if place.starts_with("cuda") => build_for(args),
        _ => Ok(Build::default()),
    }
}

fn is_wanted(device: Option<&str>, has_gpu: impl FnOnce() -> bool) -> bool {
    match device {
        Some("cpu") => false,
        Some(place) if place.starts_with("cuda") => true,
        _ => has_gpu(),
    }
}

/// Removes candle's kernels from the target folder, so that the next build compiles them.
fn forget_kernels() -> Result<()> {
    let mut command = cargo("clean");
    let status = command
        .args(["--quiet", "--release", "--package", "candle-kernels"])
        .status()
        .context("starting cargo clean")?;
    if !status.success() {
        bail!("cargo clean failed ({status}), see cargo's messages above");
    }
    Ok(())
}

fn for_gpus(toolkit: Toolkit, several: bool, capabilities: &[(u32, u32)]) -> Result<Build> {
    let nccl = several && toolkit.has_nccl();
    let folder = environment::folder()?;
    environment::if_changed(&toolkit, &folder, forget_kernels)?;
    let own = |name: &str| env::var_os(name);
    Ok(Build {
        feature: Some(if nccl { "nccl" } else { "cuda" }),
        variables: environment::variables(&toolkit, capabilities, &folder, &own)?,
        folders: toolkit.folders,
    })
}

/// The value of an option, as the next argument or after `=`.
fn value<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(i, arg)| {
        if arg == flag {
            args.get(i + 1).map(String::as_str)
        } else {
            arg.strip_prefix(flag)?.strip_prefix('=')
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_used_if_there_is_one_or_if_requested() {
        for (device, gpu, wanted) in [
            (None, true, true),
            (Some("auto"), true, true),
            (Some("cuda:1"), false, true),
            (None, false, false),
            (Some("cpu"), true, false),
        ] {
            assert_eq!(is_wanted(device, || gpu), wanted, "{device:?}, {gpu}");
        }
    }

    fn words(command: &Command) -> Vec<&str> {
        command.get_args().filter_map(|arg| arg.to_str()).collect()
    }

    #[test]
    fn programs_for_gpus_are_linked_with_the_folders_of_their_libraries() {
        let build = Build {
            feature: Some("nccl"),
            variables: vec![("CUDA_HOME", "c".into())],
            folders: vec!["c/lib".into(), "d/lib".into()],
        };
        let cargo = |verb: &str| {
            let mut command = Command::new("cargo");
            command.arg(verb);
            command
        };
        let command = build.command(cargo, &["--bin", "sdft"]);
        let text = words(&command).join(" ");
        let quietly = QUIETLY.join(" ");
        assert_eq!(
            text,
            format!(
                "rustc {quietly} --bin sdft --features nccl -- -C link-arg=-Wl,--disable-new-dtags \
                 -C link-arg=-Wl,-rpath,c/lib -C link-arg=-Wl,-rpath,d/lib"
            )
        );
        assert!(command.get_envs().any(|(name, _)| name == "CUDA_HOME"));
        let programs = [("sdft-cli", "sdft"), ("sdft-bench", "sdft-bench")];
        let text = words(&build.command_for(cargo, &programs)).join(" ");
        assert_eq!(
            text,
            format!(
                "build {quietly} --package sdft-cli --bin sdft --features=sdft-cli/cuda --package sdft-bench --bin sdft-bench \
                 --features=sdft-bench/cuda --features=sdft-cli/nccl"
            )
        );
        let crates = [("sdft-cuda", "cuda"), ("sdft-parallel", "nccl")];
        let text = words(&build.check(cargo, "clippy", &crates)).join(" ");
        assert_eq!(
            text,
            "clippy --quiet --release --package sdft-cuda --features=sdft-cuda/cuda --package sdft-parallel \
             --features=sdft-parallel/nccl"
        );
        let command = Build::default().command(cargo, &["--bin", "sdft"]);
        assert_eq!(
            words(&command).join(" "),
            format!("build {quietly} --bin sdft")
        );
    }

    #[test]
    fn option_values_follow_as_argument_or_after_an_equals_sign() {
        let args: Vec<String> = ["--gpus", "2", "--device=cuda:1"].map(str::to_owned).into();
        assert_eq!(value(&args, "--gpus"), Some("2"));
        assert_eq!(value(&args, "--device"), Some("cuda:1"));
        assert_eq!(value(&args, "--dev"), None);
        assert!(!build_if_asked(&args[..2]).unwrap().is_for_gpus());
    }
}
