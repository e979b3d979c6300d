//! What is missing for a GPU, and the command that installs it.

use crate::{Driver, Toolkit, Version};

/// The oldest CUDA that programs are built with.
pub(crate) const OLDEST: Version = (12, 0);

/// Why programs cannot be built for GPUs, with what to install; `None` if they can.
pub fn problem(toolkit: Option<&Toolkit>, driver: &Driver) -> Option<String> {
    let whole = install_toolkit(driver.cuda);
    let Some(toolkit) = toolkit else {
        return Some(format!(
            "found no CUDA toolkit (no nvcc in CUDA_HOME, on the PATH, in /usr/local/cuda or among Python's packages); install one: {whole}"
        ));
    };
    let nvcc = toolkit.nvcc.display();
    let Some(version) = toolkit.version else {
        return Some(format!(
            "{nvcc} does not start; install its toolkit again, or another one: {whole}"
        ));
    };
    let (major, minor) = version;
    if version < OLDEST {
        return Some(format!(
            "{nvcc} is of CUDA {major}.{minor}, expected {}.{} or later; install one: {whole}",
            OLDEST.0, OLDEST.1
        ));
    }
    if toolkit.missing.is_empty() {
        return None;
    }
    let names: Vec<String> = toolkit
        .missing
        .iter()
        .map(|name| format!("lib{name}"))
        .collect();
    let mut packages: Vec<String> = Vec::new();
    for name in &toolkit.missing {
        packages.extend(package(name, major).filter(|package| !packages.contains(package)));
    }
    let driver = toolkit.missing.contains(&"cuda");
    let driver = if driver {
        "install NVIDIA's driver"
    } else {
        ""
    };
    let libraries = match packages.is_empty() {
        true => String::new(),
        false => format!("install: python3 -m pip install {}", packages.join(" ")),
    };
    let both = if driver.is_empty() || libraries.is_empty() {
        ""
    } else {
        ", and "
    };
    Some(format!(
        "{nvcc} of CUDA {major}.{minor} has no {} next to it; {driver}{both}{libraries}",
        names.join(", ")
    ))
}

/// What to change if the compiler is newer than the driver, which then cannot load what it compiled.
pub fn caution(toolkit: &Toolkit, driver: &Driver) -> Option<String> {
    let (found, newest) = (toolkit.version?, driver.cuda?);
    (found > newest).then(|| {
        format!(
            "{} is of CUDA {}.{} and the driver supports up to {}.{}; update the driver, or install an older toolkit: {}",
            toolkit.nvcc.display(),
            found.0,
            found.1,
            newest.0,
            newest.1,
            install_toolkit(driver.cuda)
        )
    })
}

/// What several GPUs lack if NCCL was not found, with what to install.
pub fn without_nccl(toolkit: &Toolkit) -> Option<String> {
    let (major, _) = toolkit.version.filter(|_| !toolkit.has_nccl())?;
    Some(format!(
        "found no NCCL, so gradients are summed through the host, which is slower; install: python3 -m pip install nvidia-nccl-cu{major}"
    ))
}

/// The command that installs a whole toolkit that a driver supports. Python's packages have a compiler since CUDA 13.
fn install_toolkit(driver: Option<Version>) -> String {
    match driver {
        Some((12, minor)) => format!(
            "conda install -c conda-forge cuda-nvcc cuda-cudart-dev cuda-nvrtc-dev libcublas-dev libcurand-dev cudnn nccl cuda-version=12.{minor}"
        ),
        _ => "python3 -m pip install \"cuda-toolkit[nvcc,crt,nvvm,cccl,cudart,nvrtc,cublas,curand]==13.0.*\" nvidia-cudnn-cu13 nvidia-nccl-cu13".to_owned(),
    }
}

/// The Python package of a library; `None` for the driver's.
fn package(name: &str, major: u32) -> Option<String> {
    let package = match name {
        "cudart" => "nvidia-cuda-runtime",
        "nvrtc" => "nvidia-cuda-nvrtc",
        "cublas" | "cublasLt" => "nvidia-cublas",
        "curand" => "nvidia-curand",
        "cudnn" => return Some(format!("nvidia-cudnn-cu{major}")),
        _ => return None,
    };
    Some(match (name, major) {
        (_, 12) => format!("{package}-cu12"),
        // Its version is not CUDA's.
        ("curand", _) => package.to_owned(),
        _ => format!("{package}~={major}.0"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolkit(version: Option<Version>, missing: &[&'static str]) -> Toolkit {
        Toolkit {
            nvcc: "c/bin/nvcc".into(),
            version,
            missing: missing.to_vec(),
            ..Toolkit::default()
        }
    }

    fn driver(cuda: Option<Version>) -> Driver {
        Driver {
            cuda,
            ..Driver::default()
        }
    }

    #[test]
    fn a_complete_toolkit_has_no_problem() {
        let complete = toolkit(Some((12, 8)), &[]);
        assert_eq!(problem(Some(&complete), &driver(None)), None);
    }

    #[test]
    fn each_problem_names_what_to_install() {
        let missing = toolkit(Some((12, 8)), &["cublas", "cublasLt", "cudnn"]);
        let later = toolkit(Some((13, 0)), &["nvrtc", "curand"]);
        for (found, cuda, texts) in [
            (
                None,
                Some((13, 0)),
                &["no CUDA toolkit", "cuda-toolkit[nvcc", "nvidia-cudnn-cu13"][..],
            ),
            (None, Some((12, 4)), &["conda install", "cuda-version=12.4"]),
            (Some(toolkit(None, &[])), None, &["does not start"]),
            (
                Some(toolkit(Some((11, 8)), &[])),
                None,
                &["11.8", "12.0 or later"],
            ),
            (
                Some(missing),
                None,
                &[
                    "libcublas, libcublasLt, libcudnn",
                    "install nvidia-cublas-cu12 nvidia-cudnn-cu12",
                ],
            ),
            (
                Some(later),
                None,
                &["install nvidia-cuda-nvrtc~=13.0 nvidia-curand"],
            ),
            (
                Some(toolkit(Some((13, 0)), &["cuda", "cudnn"])),
                None,
                &[
                    "install NVIDIA's driver, and install: python3",
                    "nvidia-cudnn-cu13",
                ],
            ),
            (
                Some(toolkit(Some((13, 0)), &["cuda"])),
                None,
                &["; install NVIDIA's driver"],
            ),
        ] {
            let text = problem(found.as_ref(), &driver(cuda)).unwrap();
            assert!(texts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn several_gpus_need_nccl() {
        let mut found = toolkit(Some((13, 0)), &[]);
        assert!(
            without_nccl(&found).is_some_and(|text| text.ends_with("install nvidia-nccl-cu13"))
        );
        found.libraries.push(("nccl", "c/libnccl.so.2".into()));
        assert_eq!(without_nccl(&found), None);
    }

    #[test]
    fn a_compiler_newer_than_the_driver_is_reported() {
        let newer = toolkit(Some((13, 5)), &[]);
        let text = caution(&newer, &driver(Some((13, 0)))).unwrap();
        assert!(
            text.contains("13.5") && text.contains("up to 13.0"),
            "{text}"
        );
        assert_eq!(caution(&newer, &driver(Some((13, 5)))), None);
        assert_eq!(caution(&newer, &driver(None)), None);
    }
}
