//! The driver and its GPUs.

use crate::Version;
use crate::library::{Search, find};
use crate::system::{System, version_in};
use std::path::PathBuf;

/// What the driver reports; empty if it cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The compute capability of each GPU.
    pub capabilities: Vec<Version>,
    /// The newest CUDA that it supports.
    pub cuda: Option<Version>,
}

/// The first driver branch of each version of CUDA.
const BRANCHES: [(u32, Version); 11] = [
    (525, (12, 0)),
    (530, (12, 1)),
    (535, (12, 2)),
    (545, (12, 3)),
    (550, (12, 4)),
    (555, (12, 5)),
    (560, (12, 6)),
    (565, (12, 7)),
    (570, (12, 8)),
    (575, (12, 9)),
    (580, (13, 0)),
];

/// Later branches support a later CUDA, which this crate does not know.
const UNKNOWN_FROM: u32 = 590;

/// Whether this machine has an NVIDIA GPU with a driver, also in WSL2.
pub fn has_gpu() -> bool {
    has_gpu_in(&System::this())
}

/// Asks `nvidia-smi` for the GPUs and the driver.
pub fn driver() -> Driver {
    driver_of(&System::this())
}

fn has_gpu_in(system: &System<'_>) -> bool {
    let listed = std::fs::read_dir(system.at("/proc/driver/nvidia/gpus"))
        .is_ok_and(|mut all| all.next().is_some());
    // WSL2 has this device for GPUs of all makers, and the library only for NVIDIA's.
    let in_wsl = || {
        system.at("/dev/dxg").exists() && find("cuda", &Search::of_system(system), None).is_some()
    };
    listed
        || system.at("/dev/nvidia0").exists()
        || in_wsl()
        || (cfg!(windows) && system.program("nvidia-smi").is_some())
}

fn nvidia_smi(system: &System<'_>) -> Option<PathBuf> {
    system.program("nvidia-smi").or_else(|| {
        let in_wsl = system.at("/usr/lib/wsl/lib/nvidia-smi");
        in_wsl.is_file().then_some(in_wsl)
    })
}

fn driver_of(system: &System<'_>) -> Driver {
    let answer = nvidia_smi(system).and_then(|program| {
        let question = "--query-gpu=compute_cap,driver_version";
        (system.ask)(&program, &[question, "--format=csv,noheader"])
    });
    let mut driver = Driver::default();
    for line in answer.unwrap_or_default().lines() {
        let Some((capability, version)) = line.split_once(',') else {
            continue;
        };
        driver.capabilities.extend(version_in(capability));
        driver.cuda = version_in(version).and_then(|(branch, _)| cuda_of(branch));
    }
    driver
}

fn cuda_of(branch: u32) -> Option<Version> {
    let known = BRANCHES.iter().rev();
    let known = known.filter(|_| branch < UNKNOWN_FROM);
    known
        .into_iter()
        .find(|(first, _)| branch >= *first)
        .map(|(_, cuda)| *cuda)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn gpus_are_found_with_and_without_windows_around_linux() {
        let machine = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                create_dir_all(path.parent().unwrap()).unwrap();
                write(path, "").unwrap();
            }
            has_gpu_in(&System {
                variable: &|_| None,
                root: root.path(),
                ask: &|_, _| None,
            })
        };
        assert!(machine(&["proc/driver/nvidia/gpus/0000:01:00.0"]));
        assert!(machine(&["dev/nvidia0"]));
        assert!(machine(&["dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"]));
        // A GPU of another maker in WSL2.
        assert!(!machine(&["dev/dxg"]));
        assert!(!machine(&["usr/lib/wsl/lib/libcuda.so.1"]));
    }

    #[test]
    fn nvidia_smi_reports_capabilities_and_the_driver() {
        let root = tempfile::tempdir().unwrap();
        let in_wsl = root.path().join("usr/lib/wsl/lib");
        create_dir_all(&in_wsl).unwrap();
        write(in_wsl.join("nvidia-smi"), "").unwrap();
        let asked = |answer: &str| {
            let answer = answer.to_owned();
            driver_of(&System {
                variable: &|_| None,
                root: root.path(),
                ask: &|_, _| Some(answer.clone()),
            })
        };
        let driver = asked("9.0, 580.95.05\n12.0, 580.95.05\n");
        assert_eq!(driver.capabilities, [(9, 0), (12, 0)]);
        assert_eq!(driver.cuda, Some((13, 0)));
        assert_eq!(asked("8.6, 552.22").cuda, Some((12, 4)));
        assert_eq!(asked("8.6, 700.10").cuda, None);
        assert_eq!(asked("8.6, 470.10").cuda, None);
        assert_eq!(asked("No devices were found"), Driver::default());
    }
}
