//! Whether programs are built for GPUs.

use std::env;
use std::path::{Path, PathBuf};

/// The features to build with: those for GPUs if this machine has a GPU and the CUDA toolkit, or if `--device cuda` is given, but not with
/// `--device cpu`. Several processes also need NCCL.
pub(crate) fn features(args: &[String]) -> Vec<&'static str> {
    let several = value(args, "--gpus").is_some_and(|n| n != "1")
        || env::var("WORLD_SIZE").is_ok_and(|n| n.trim() != "1");
    chosen(
        value(args, "--device"),
        toolkit().is_some(),
        has_gpu(),
        several && has_nccl(),
    )
}

/// The same, but only if the arguments ask for a GPU.
pub(crate) fn features_if_asked(args: &[String]) -> Vec<&'static str> {
    match value(args, "--device") {
        Some(place) if place.starts_with("cuda") => features(args),
        _ => Vec::new(),
    }
}

fn chosen(device: Option<&str>, toolkit: bool, gpu: bool, nccl: bool) -> Vec<&'static str> {
    let wanted = match device {
        Some("cpu") => false,
        Some(place) if place.starts_with("cuda") => toolkit,
        _ => toolkit && gpu,
    };
    match (wanted, nccl) {
        (false, _) => Vec::new(),
        (true, false) => vec!["cuda"],
        (true, true) => vec!["nccl"],
    }
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

/// Folders that may contain a CUDA toolkit.
fn roots() -> Vec<PathBuf> {
    let named = [
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_ROOT",
        "CUDA_TOOLKIT_ROOT_DIR",
    ];
    let named = named.into_iter().filter_map(env::var_os).map(PathBuf::from);
    named
        .chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from))
        .collect()
}

fn in_list(variable: &str) -> Vec<PathBuf> {
    env::var_os(variable).map_or_else(Vec::new, |list| env::split_paths(&list).collect())
}

/// The path of NVIDIA's compiler.
fn toolkit() -> Option<PathBuf> {
    let name = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
    let mut folders = in_list("PATH");
    folders.extend(roots().into_iter().map(|root| root.join("bin")));
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn has_gpu() -> bool {
    let listed =
        std::fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|mut all| all.next().is_some());
    listed
        || Path::new("/dev/nvidia0").exists()
        || Path::new("/dev/dxg").exists()
        || (cfg!(windows)
            && in_list("PATH")
                .iter()
                .any(|f| f.join("nvidia-smi.exe").is_file()))
}

fn has_nccl() -> bool {
    let mut folders = in_list("LIBRARY_PATH");
    folders.extend(in_list("LD_LIBRARY_PATH"));
    for root in roots() {
        folders.extend(["lib64", "lib"].map(|part| root.join(part)));
    }
    folders.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"].map(PathBuf::from));
    folders
        .iter()
        .any(|folder| folder.join("libnccl.so").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_used_if_there_is_one_or_if_requested() {
        let (some, none) = (true, false);
        assert_eq!(chosen(None, some, some, none), ["cuda"]);
        assert_eq!(chosen(Some("auto"), some, some, some), ["nccl"]);
        assert_eq!(chosen(Some("cuda:1"), some, none, none), ["cuda"]);
        for (device, toolkit, gpu) in [
            (None, none, some),
            (None, some, none),
            (Some("cpu"), some, some),
            (Some("cuda"), none, some),
        ] {
            assert!(chosen(device, toolkit, gpu, some).is_empty());
        }
    }

    #[test]
    fn option_values_follow_as_argument_or_after_an_equals_sign() {
        let args: Vec<String> = ["--gpus", "2", "--device=cuda:1"].map(str::to_owned).into();
        assert_eq!(value(&args, "--gpus"), Some("2"));
        assert_eq!(value(&args, "--device"), Some("cuda:1"));
        assert_eq!(value(&args, "--dev"), None);
        assert!(features_if_asked(&args[..2]).is_empty());
    }
}
