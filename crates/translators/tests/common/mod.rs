//! Tiny networks, processes and images.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{DType, Device, Tensor};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Pool, Unet};
use sdft_diffusion::{Clip, Diffusion, GaussianDenoiser, Variance};
use sdft_noise::Purpose;
use sdft_randn::{NumberedNoise, randn};
use sdft_schedule::{BetaSchedule, Schedule};
use sdft_testing::{nonzero_params as filled, tiny_config};
use sdft_translators::{Energies, LowPass, SdeditOptions, Walk, egsde, sdedit};

pub(crate) fn full() -> Schedule {
    Schedule::new(BetaSchedule::Linear, 1000).unwrap()
}

pub(crate) fn diffusion(steps: &str) -> Diffusion {
    let schedule = full().respaced(&steps.parse().unwrap()).unwrap();
    Diffusion::new(schedule, Variance::FixedSmall)
}

pub(crate) fn gaussian(mean: f64, sd: f64) -> GaussianDenoiser {
    GaussianDenoiser::new(full().alpha_bar(), mean, sd)
}

pub(crate) fn net() -> AdmConfig {
    AdmConfig {
        out_channels: 3,
        ..tiny_config()
    }
}

pub(crate) fn unet(seed: u64) -> Unet {
    let params = filled(Unet::specs(&net()).unwrap(), seed);
    Unet::load(&params, &net()).unwrap()
}

pub(crate) fn encoder_config() -> EncoderConfig {
    EncoderConfig {
        net: AdmConfig {
            out_channels: 2,
            ..net()
        },
        pool: Pool::Attention,
    }
}

pub(crate) fn classifier() -> Encoder {
    let params = filled(Encoder::specs(&encoder_config()).unwrap(), 3);
    Encoder::load(&params, &encoder_config()).unwrap()
}

pub(crate) fn image(sample: u64, n: usize) -> Tensor {
    let x = randn(5, Purpose::Test, 0, sample, &[n, 3, 8, 8], &Device::Cpu).unwrap();
    (x * 0.4).unwrap().tanh().unwrap()
}

pub(crate) fn walks() -> [Walk; 3] {
    let clip = Clip::No;
    [Walk::Ancestral, Walk::PAPER, Walk::Ddim { eta: 0.7, clip }]
}

pub(crate) fn noise() -> NumberedNoise {
    NumberedNoise::new(9, vec![4, 8])
}

pub(crate) fn low_pass(factor: usize) -> LowPass {
    LowPass::new(8, 8, factor, DType::F32, &Device::Cpu).unwrap()
}

/// SDEdit with the tests' noise.
pub(crate) fn plain(
    process: &Diffusion,
    net: &Unet,
    x0: &Tensor,
    mask: Option<&Tensor>,
    edit: &SdeditOptions,
) -> Tensor {
    sdedit(process, net, x0, mask, edit, &mut noise(), &mut |_| Ok(())).unwrap()
}

/// EGSDE with the tests' noise.
pub(crate) fn led(
    process: &Diffusion,
    net: &Unet,
    energies: &Energies<'_>,
    x0: &Tensor,
    edit: &SdeditOptions,
) -> Tensor {
    egsde(process, net, energies, x0, edit, &mut noise(), &mut |_| {
        Ok(())
    })
    .unwrap()
}
