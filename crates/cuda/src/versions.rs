//! The versions of NVIDIA's driver and libraries, and what to change if they do not fit together.

use std::fmt;

/// A version of CUDA or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: i32,
    /// The second number.
    pub minor: i32,
}

impl Version {
    /// Reads `MAJOR.MINOR`.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// From the form 1000 `major` + 10 `minor` of CUDA's functions; `None` for 0, which stands for a missing driver.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn of_number(number: i32) -> Option<Self> {
        (number > 0).then_some(Self {
            major: number / 1000,
            minor: number % 1000 / 10,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the versions of this machine and of this build are. A part that is missing or unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The newest CUDA that the driver supports.
    pub driver: Option<Version>,
    /// CUDA's runtime library.
    pub runtime: Option<Version>,
    /// NVRTC, which compiles kernels at run time.
    pub nvrtc: Option<Version>,
    /// The oldest CUDA whose driver loads the kernels that were compiled with the program.
    pub kernels: Option<Version>,
}

impl Versions {
    /// One sentence for each part that does not fit, with what to change; empty if all fit.
    pub fn problems(&self) -> Vec<String> {
        let Some(driver) = self.driver else {
            return vec!["found no NVIDIA driver: install one".to_owned()];
        };
        let mut problems = Vec::new();
        // Within a major version, libraries of any minor version work with any driver.
        for (name, library) in [("CUDA's runtime", self.runtime), ("NVRTC", self.nvrtc)] {
            if let Some(library) = library.filter(|library| library.major > driver.major) {
                problems.push(format!(
                    "{name} is of CUDA {library} and the driver supports up to {driver}: install a driver for CUDA {}, or build with a toolkit of CUDA {}.x",
                    library.major, driver.major
                ));
            }
        }
        if let Some(kernels) = self.kernels.filter(|&kernels| kernels > driver) {
            problems.push(format!(
                "this program was built with nvcc of CUDA {kernels} and the driver loads kernels of up to CUDA {driver}: install a newer driver, or build with nvcc of CUDA {driver} or older"
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(driver: &str, runtime: &str, nvrtc: &str, kernels: &str) -> Vec<String> {
        let [driver, runtime, nvrtc, kernels] =
            [driver, runtime, nvrtc, kernels].map(Version::parse);
        Versions {
            driver,
            runtime,
            nvrtc,
            kernels,
        }
        .problems()
    }

    #[test]
    fn versions_are_read_and_written() {
        let thirteen = Version {
            major: 13,
            minor: 4,
        };
        assert_eq!(Version::parse("13.4"), Some(thirteen));
        assert_eq!(thirteen.to_string(), "13.4");
        assert_eq!(Version::of_number(13040), Some(thirteen));
        assert_eq!(Version::of_number(0), None);
        for bad in ["", "13", "13.x", ".1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn libraries_of_the_drivers_major_version_fit() {
        assert!(problems("13.0", "13.4", "13.5", "13.0").is_empty());
        assert!(problems("13.0", "12.4", "12.4", "12.4").is_empty());
        assert!(problems("12.9", "", "", "12.9").is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_change() {
        for ((driver, runtime, nvrtc, kernels), texts) in [
            (("", "13.0", "13.0", "13.0"), &["no NVIDIA driver"][..]),
            (
                ("12.8", "13.0", "13.0", "12.8"),
                &["runtime is of CUDA 13.0", "NVRTC is of CUDA 13.0"],
            ),
            (
                ("13.0", "13.5", "13.5", "13.5"),
                &["nvcc of CUDA 13.5", "nvcc of CUDA 13.0 or older"],
            ),
        ] {
            let found = problems(driver, runtime, nvrtc, kernels).join("\n");
            assert!(texts.iter().all(|text| found.contains(text)), "{found}");
        }
    }
}
