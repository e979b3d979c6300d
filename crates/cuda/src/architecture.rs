//! Which code is compiled for a GPU, and which GPUs compiled code runs on.

use crate::versions::Version;

/// What NVRTC compiles for, as ten times the compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The machine code of a GPU, which any driver of the same major version of CUDA loads.
    Cubin(i32),
    /// PTX, which the driver compiles for a GPU that is newer than NVRTC.
    Ptx(i32),
}

impl Code {
    /// The value of NVRTC's option `--gpu-architecture`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Cubin(n) => format!("sm_{n}"),
            Self::Ptx(n) => format!("compute_{n}"),
        }
    }
}

/// The code for a GPU, from the architectures that NVRTC supports; `None` if it supports none that the GPU runs.
///
/// Machine code runs on GPUs of its major version and the same or a higher minor version, PTX on all later GPUs.
pub(crate) fn code_for(capability: (i32, i32), supported: &[i32]) -> Option<Code> {
    let (major, minor) = capability;
    let device = major * 10 + minor;
    let newest = supported.iter().copied().filter(|&n| n <= device).max()?;
    if newest / 10 == major {
        Some(Code::Cubin(newest))
    } else {
        Some(Code::Ptx(newest))
    }
}

/// What PTX states in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PtxHeader {
    /// The version of the language.
    pub(crate) version: Version,
    /// The target, such as `sm_80`, `sm_90a` or `sm_100f`.
    pub(crate) target: String,
}

/// The header of a PTX module.
pub(crate) fn ptx_header(ptx: &str) -> Option<PtxHeader> {
    let field = |name: &str| {
        let line = ptx.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim())
    };
    // A target may be followed by options.
    let target = field(".target ")?.split(',').next()?.trim().to_owned();
    Some(PtxHeader {
        version: Version::parse(field(".version ")?)?,
        target,
    })
}

impl PtxHeader {
    /// The oldest CUDA whose driver reads this version of the language; `None` for versions before CUDA 12.
    pub(crate) fn cuda(&self) -> Option<Version> {
        let Version { major, minor } = self.version;
        match (major, minor) {
            (8, 0..=5) => Some(Version { major: 12, minor }),
            (8, _) => Some(Version {
                major: 12,
                minor: minor + 1,
            }),
            (9.., _) => Some(Version {
                major: major + 4,
                minor,
            }),
            _ => None,
        }
    }

    /// The target's compute capability and its suffix.
    fn parts(&self) -> Option<((i32, i32), &str)> {
        let text = self.target.strip_prefix("sm_")?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: i32 = digits.parse().ok()?;
        Some(((number / 10, number % 10), &text[digits.len()..]))
    }

    /// Whether a GPU runs it: `a` code on its own capability only, `f` code on its family, other code on all later GPUs.
    pub(crate) fn runs_on(&self, capability: (i32, i32)) -> bool {
        match self.parts() {
            Some((own, "a")) => capability == own,
            Some((own, "f")) => capability.0 == own.0 && capability >= own,
            Some((own, _)) => capability >= own,
            None => true,
        }
    }

    /// The GPUs that run it, in words.
    pub(crate) fn gpus(&self) -> String {
        match self.parts() {
            Some(((major, minor), "a")) => format!("compute capability {major}.{minor} only"),
            Some(((major, minor), "f")) => {
                format!("compute capability {major}.{minor} and later ones of {major}.x")
            }
            Some(((major, minor), _)) => format!("compute capability {major}.{minor} and later"),
            None => self.target.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_is_compiled_if_nvrtc_knows_the_gpu_or_an_older_one_of_its_kind() {
        let cuda_13 = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];
        for (capability, code) in [
            ((7, 5), Some(Code::Cubin(75))),
            ((9, 0), Some(Code::Cubin(90))),
            ((12, 0), Some(Code::Cubin(120))),
            // Later minor versions run it.
            ((12, 9), Some(Code::Cubin(121))),
            // The driver of a later GPU compiles the PTX.
            ((13, 0), Some(Code::Ptx(121))),
            ((7, 0), None),
        ] {
            assert_eq!(code_for(capability, &cuda_13), code, "{capability:?}");
        }
        assert_eq!(code_for((12, 0), &[80, 90]), Some(Code::Ptx(90)));
        assert_eq!(Code::Cubin(90).name(), "sm_90");
        assert_eq!(Code::Ptx(121).name(), "compute_121");
    }

    fn header(version: &str, target: &str) -> PtxHeader {
        let text = format!(
            "//\n// Based on NVVM 7.0.1\n//\n\n.version {version}\n.target {target}\n.address_size 64\n"
        );
        ptx_header(&text).unwrap()
    }

    #[test]
    fn headers_of_ptx_say_which_gpus_and_drivers_it_needs() {
        for (target, runs, not, text) in [
            (
                "sm_80",
                &[(8, 0), (9, 0), (12, 1)][..],
                (7, 5),
                "8.0 and later",
            ),
            ("sm_90a", &[(9, 0)], (10, 0), "9.0 only"),
            (
                "sm_121f, debug",
                &[(12, 1)],
                (12, 0),
                "12.1 and later ones of 12.x",
            ),
        ] {
            let header = header("9.0", target);
            assert!(runs.iter().all(|&gpu| header.runs_on(gpu)), "{target}");
            assert!(!header.runs_on(not), "{target}");
            assert_eq!(header.gpus(), format!("compute capability {text}"));
        }
        for (ptx, cuda) in [
            ("8.5", "12.5"),
            ("8.7", "12.8"),
            ("9.0", "13.0"),
            ("9.5", "13.5"),
        ] {
            assert_eq!(header(ptx, "sm_80").cuda().unwrap().to_string(), cuda);
        }
        assert_eq!(header("7.8", "sm_80").cuda(), None);
        assert_eq!(ptx_header("no ptx"), None);
    }
}
