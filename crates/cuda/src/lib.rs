//! CUDA: the device, its memory, own kernels compiled at run time, cuDNN and cuBLAS.
//!
//! Without the feature `cuda`, [`open`] returns the CPU or an error, and nothing else is compiled.
//!
//! With it, this crate has the operations of `sdft-autograd` and the update of `sdft-optim` for a GPU. Feature maps have their channels
//! last, `[B, H, W, C]` or `[B, N, C]`, in f32, bf16 or f16; parameters and their gradients are f32 in PyTorch's order. cuDNN computes
//! convolutions and cuBLAS matrix products; everything else is a kernel of `kernels/`, compiled by NVRTC at run time.
//!
//! ```
//! use sdft_cuda::{DeviceSpec, open};
//!
//! let device = open("cpu".parse::<DeviceSpec>()?)?;
//! assert!(device.is_cpu());
//! assert!("cuda:x".parse::<DeviceSpec>().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** all work of a device runs on one stream (sums over GPUs are ordered with it by events), and results in f32 are the same bits in every run.

pub use crate::device::{
    Gpu, allow_recording, allow_tf32, gpus, is_out_of_memory, is_tf32_allowed, open, peak_memory,
    reset_peak_memory, synchronize,
};
pub use crate::device_spec::{BadDeviceSpec, DeviceSpec};
pub use crate::libraries::{libraries, versions};
pub use crate::upload::{Download, download, upload};
pub use crate::versions::{Version, Versions};

#[cfg(feature = "cuda")]
pub use crate::{
    attention::{Attention, attention_backward, attention_forward},
    conv::{Conv, Prepared, conv_forward, conv_input_gradient, conv_weight_gradient},
    elementwise::{add_scaled, elementwise, pairwise, scale},
    embedding::{embedding, embedding_gradient},
    linears::{LinearGradients, MOST_LINEARS, WantedGradients, linears, linears_gradients},
    maps::{
        Pool, add_per_channel, channels, column_sum, concat, dense, filter, plane_sums,
        pool_forward, pool_gradient, pool2, pool2_gradient, upsample,
    },
    noise::{keep_factors, normals},
    norm::{
        Norm, NormInput, Statistics, modulate, modulate_gradient, norm_forward, norm_gradient,
        norm_sums,
    },
    optim::{Decision, Rule, Settings, Step, Table, blend},
    recording::{Recording, can_record, rehearse},
    token::{Tokens, add_gated, add_gated_gradient, token_norm, token_norm_gradient},
};

#[cfg(any(feature = "cuda", test))]
mod architecture;
#[cfg(any(feature = "cuda", test))]
mod choice;
mod device;
mod device_spec;
#[cfg(any(feature = "cuda", test))]
mod kernel_cache;
mod libraries;
mod upload;
mod versions;

#[cfg(feature = "cuda")]
mod attention;
#[cfg(feature = "cuda")]
mod conv;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(feature = "cuda")]
mod descriptor;
#[cfg(feature = "cuda")]
mod elementwise;
#[cfg(feature = "cuda")]
mod embedding;
#[cfg(feature = "cuda")]
mod engines;
#[cfg(feature = "cuda")]
mod fused_attention;
#[cfg(feature = "cuda")]
mod gemm;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod linears;
#[cfg(feature = "cuda")]
mod maps;
#[cfg(feature = "cuda")]
mod noise;
#[cfg(feature = "cuda")]
mod norm;
#[cfg(feature = "cuda")]
mod nvrtc;
#[cfg(feature = "cuda")]
mod optim;
#[cfg(feature = "cuda")]
mod part;
#[cfg(feature = "cuda")]
mod planes;
#[cfg(feature = "cuda")]
mod recording;
#[cfg(feature = "cuda")]
mod token;
