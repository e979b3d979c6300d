//! Fine-tunes diffusion models on little data, without forgetting.
//!
//! A model that was pretrained on a large image set learns a new domain from a few hundred images, while it distills what the frozen
//! source model knows: *self-distillation based fine-tuning* (SDFT, [arXiv 2311.01018](https://arxiv.org/abs/2311.01018)). Sampling,
//! translating and editing images, and measuring the results, are part of the library. Tensors are those of candle.
//!
//! # The shortest fine-tuning
//! A checkpoint of ADM's family and a folder of images, with the paper's settings:
//! ```no_run
//! use sdft::candle::Device;
//! use sdft::jobs::{Context, TrainJob, TrainOptions};
//! use sdft::train::NoopProgress;
//! use std::sync::atomic::AtomicBool;
//!
//! let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
//! let mut context = Context::new(Device::Cpu, &stop, &mut progress);
//! let options = TrainOptions {
//!     source: Some("ffhq_p2.pt".into()),
//!     data: Some("photos".into()),
//!     ..TrainOptions::default()
//! };
//! TrainJob::new(&options, &mut context)?.run(&mut context)?;
//! # Ok::<(), sdft::jobs::Error>(())
//! ```
//! A network of your own needs an `impl` of [`Trainable`](diffusion::Trainable): its variables and its prediction. [`train::run`] does the
//! rest: moving average, logs, sample grids, and checkpoints from which a stopped run continues to the same bits.
//!
//! # Sampling
//! ```no_run
//! use sdft::{candle::Device, models::*, randn::SeededNoise, samplers::*, train::to_images};
//! use sdft::imaging::ImageSpec;
//! use std::path::Path;
//!
//! let model = load_network(Path::new("ffhq_p2.pt"), &LoadOptions::default())?;
//! let (network, diffusion) = (model.network()?, model.diffusion(&"ddim40".parse()?)?);
//! let mut noise = SeededNoise::new(7, 0);
//! let x = noise.start(&[4, 3, 256, 256], &Device::Cpu)?;
//! let faces = sample_ddim(&diffusion, &*network, &x, &Ddim::default(), &mut noise, &mut |_| Ok(()))?;
//! let pictures = to_images(&faces, &ImageSpec::rgb8(256, 256))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Examples
//! Each is a program of less than 60 lines in `crates/sdft/examples`, and runs with `cargo run --release -p sdft --example NAME`.
//!
//! | example | what it shows |
//! |---|---|
//! | `fine_tune` | a network of candle-nn layers is fine-tuned with SDFT; the run is stopped and continues |
//! | `sample` | a checkpoint to images |
//! | `sdedit` | the images of a folder are brought into a model's domain |
//! | `fid` | FID between two folders, with Inception or with features of your own |
//! | `sampler` | a sampler of your own, DPM-Solver++(2M), on any network |
//! | `distillation_weight` | a weight of the distillation that is not in the paper |
//! | `jobs` | what the commands `train`, `sample` and `evaluate` do, done by a program |
//!
//! # Topics
//!
//! | you want | module |
//! |---|---|
//! | what a command of the program `sdft` does, as one call | [`jobs`], with plans from [`settings`] and folders of images by [`gallery`] |
//! | to train a network | [`train`] and [`diffusion::Trainable`]; [`classifier`] and [`directions`] for the networks of EGSDE, Asyrp and DiffusionCLIP |
//! | to train an adapter (LoRA, DiffFit, time-aware), or some weights only | [`adapters`] |
//! | the parts of training | [`losses`] (the paper's equations), [`optim`], [`data`], [`parallel`] |
//! | the diffusion process | [`schedule`] (numbers), [`diffusion`] (tensors and [`Denoiser`](diffusion::Denoiser)) |
//! | images from noise, and noise from images | [`samplers`], with noise from [`randn`] and [`noise`] |
//! | images from images | [`translators`] (SDEdit, EGSDE, DDIB, ILVR), [`asyrp`] and [`diffusionclip`] (editing by a text) |
//! | networks and their files | [`adm`], [`unet2d`], [`dit`], [`autoencoder`], [`models`], [`checkpoint`] |
//! | layers and gradients | [`nn`], [`autograd`], [`kernels`] |
//! | to measure images | [`eval`] (folders), [`features`] (Inception, DINOv2, LPIPS, CLIP), [`metrics`] (numbers) |
//! | pictures | [`imaging`] |
//! | a GPU, threads, memory | [`cuda`] (needs the feature `cuda`; [`parallel`] uses NCCL with the feature `nccl`), [`runtime`] |
//!
//! Each module is a crate, `sdft-NAME`, that can be used alone.
//!
//! **Invariant:** adds no behavior of its own; every item comes from a crate of one topic.

pub use candle_core as candle;
pub use candle_nn;

#[doc(inline)]
pub use {
    sdft_adapters as adapters, sdft_adm as adm, sdft_asyrp as asyrp,
    sdft_autoencoder as autoencoder, sdft_autograd as autograd, sdft_checkpoint as checkpoint,
    sdft_classifier as classifier, sdft_cuda as cuda, sdft_data as data,
    sdft_diffusion as diffusion, sdft_diffusionclip as diffusionclip,
    sdft_directions as directions, sdft_dit as dit, sdft_eval as eval, sdft_features as features,
    sdft_gallery as gallery, sdft_imaging as imaging, sdft_jobs as jobs, sdft_kernels as kernels,
    sdft_losses as losses, sdft_metrics as metrics, sdft_models as models, sdft_nn as nn,
    sdft_noise as noise, sdft_optim as optim, sdft_parallel as parallel, sdft_randn as randn,
    sdft_runtime as runtime, sdft_samplers as samplers, sdft_schedule as schedule,
    sdft_settings as settings, sdft_train as train, sdft_translators as translators,
    sdft_unet2d as unet2d,
};
