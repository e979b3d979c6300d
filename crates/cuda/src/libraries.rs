//! The driver, the libraries of this build and the kernels in it: their versions, and for which GPUs they are.

pub use build::{libraries, versions};

#[cfg(not(feature = "cuda"))]
mod build {
    use crate::versions::Versions;

    /// The GPU libraries of this build and their versions: none.
    pub fn libraries() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The versions of CUDA's parts: all unknown.
    pub fn versions() -> Versions {
        Versions::default()
    }
}

#[cfg(feature = "cuda")]
mod build {
    use crate::architecture::{PtxHeader, ptx_header};
    use crate::nvrtc;
    use crate::versions::{Version, Versions};
    use candle_core::cuda_backend::cudarc::{cudnn, driver::sys};
    use candle_core::cuda_backend::kernels;
    use std::ffi::c_int;

    unsafe extern "C" {
        /// A function of CUDA's runtime, which candle's kernels are linked with.
        fn cudaRuntimeGetVersion(version: *mut c_int) -> c_int;
    }

    /// The header of the kernels that candle compiled when this program was built. All of them have the same.
    pub(crate) fn candles_kernels() -> Option<PtxHeader> {
        ptx_header(kernels::FILL.ptx())
    }

    /// The versions of CUDA's parts on this machine, and of the kernels in this program.
    pub fn versions() -> Versions {
        let (mut driver, mut runtime) = (0, 0);
        // SAFETY: a number is written; a failure leaves 0.
        let _ = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
        // SAFETY: as above.
        let _ = unsafe { cudaRuntimeGetVersion(&raw mut runtime) };
        Versions {
            driver: Version::of_number(driver),
            runtime: Version::of_number(runtime),
            nvrtc: nvrtc::version(),
            kernels: candles_kernels().and_then(|header| header.cuda()),
        }
    }

    /// The GPU libraries and their versions at run time, and the GPUs that this program was built for.
    pub fn libraries() -> Vec<(&'static str, String)> {
        let versions = versions();
        let cuda = |version: Option<Version>| {
            version.map_or_else(|| "none".to_owned(), |version| format!("CUDA {version}"))
        };
        let cudnn = cudnn::result::get_version();
        let (major, minor, patch) = (cudnn / 10_000, cudnn % 10_000 / 100, cudnn % 100);
        let mut all = vec![
            ("driver", cuda(versions.driver)),
            ("runtime", cuda(versions.runtime)),
            ("nvrtc", cuda(versions.nvrtc)),
            ("cudnn", format!("{major}.{minor}.{patch}")),
        ];
        if let Some(header) = candles_kernels() {
            let built_with = cuda(versions.kernels);
            let gpus = header.gpus();
            all.push(("built for", format!("GPUs of {gpus}, with {built_with}")));
        }
        all
    }
}

#[cfg(feature = "cuda")]
pub(crate) use build::candles_kernels;
