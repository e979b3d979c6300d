//! Small networks of every architecture, with every place that an image or a class enters or leaves.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{DType, Tensor};
use sdft_adm::AdmConfig;
use sdft_diffusion::{Continuous, FlowConvention, Precond, PredictionType, Process};
use sdft_dit::DitConfig;
use sdft_edm::{
    DecoderType, DhariwalConfig, EdmConfig, EmbeddingType, EncoderType, ModelConfig, SongUnetConfig,
};
use sdft_models::{Architecture, LoadedModel};
use sdft_nn::{Init, Params};
use sdft_testing::{nonzero_params, tiny_config};
use sdft_unet2d::{DownBlock, ResampleType, Unet2dConfig, UpBlock};

/// ADM with and without a learned variance, with EDM's preconditioning and with plain resampling; `UNet2DModel`; `SongUNet` as DDPM++,
/// as NCSN++ and with both branches; `DhariwalUNet`; DiT as diffusers has it and with one embedder, of noise and of a flow. All take images of 8x8 pixels, and halve
/// them once or cut them into patches of two.
pub(crate) fn all() -> Vec<Architecture> {
    let adm = tiny_config();
    let fixed = AdmConfig {
        out_channels: 3,
        ..adm.clone()
    };
    let plain = AdmConfig {
        resblock_updown: false,
        use_scale_shift_norm: false,
        ..adm.clone()
    };
    let unet = Unet2dConfig {
        sample_size: Some(sdft_unet2d::SampleSize::Side(8)),
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..Unet2dConfig::default()
    };
    let learned = Unet2dConfig {
        out_channels: 6,
        downsample_padding: 0,
        downsample_type: Some(ResampleType::Resnet),
        upsample_type: Some(ResampleType::Resnet),
        ..unet.clone()
    };
    let song = SongUnetConfig {
        model_channels: 8,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![4],
        augment_dim: 9,
        ..SongUnetConfig::default()
    };
    let ncsnpp = SongUnetConfig {
        embedding_type: EmbeddingType::Fourier,
        channel_mult_noise: 2,
        encoder_type: EncoderType::Residual,
        resample_filter: vec![1.0, 3.0, 3.0, 1.0],
        augment_dim: 0,
        ..song.clone()
    };
    let branches = SongUnetConfig {
        encoder_type: EncoderType::Skip,
        decoder_type: DecoderType::Skip,
        resample_filter: vec![1.0, 3.0, 3.0, 1.0],
        ..song.clone()
    };
    let dhariwal = DhariwalConfig {
        model_channels: 32,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![4],
        augment_dim: 9,
        ..DhariwalConfig::default()
    };
    let dit = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 3,
        out_channels: 3,
        num_layers: 2,
        sample_size: 8,
        num_embeds_ada_norm: 0,
        ..DitConfig::default()
    };
    let shared = DitConfig {
        out_channels: 6,
        shared_embedder: true,
        freq_shift: 0.0,
        norm_eps: 1e-6,
        ..dit.clone()
    };
    let edm = |model, precond| {
        Architecture::Edm(EdmConfig {
            img_resolution: 8,
            model,
            precond,
            ..EdmConfig::default()
        })
    };
    vec![
        adm.into(),
        fixed.clone().into(),
        plain.into(),
        Architecture::AdmEdm(fixed),
        unet.into(),
        learned.into(),
        edm(ModelConfig::SongUNet(song), Precond::EDM),
        edm(ModelConfig::SongUNet(ncsnpp), Precond::VE),
        edm(ModelConfig::SongUNet(branches), Precond::VP),
        edm(ModelConfig::DhariwalUNet(dhariwal), Precond::EDM),
        dit.clone().into(),
        shared.clone().into(),
        Architecture::DitFlow(dit, FlowConvention::Diffusers),
        Architecture::DitFlow(shared, FlowConvention::Sit),
    ]
}

/// Weights that leave no part without an effect.
pub(crate) fn params(architecture: &Architecture) -> Params {
    let mut specs = architecture.specs().unwrap();
    for spec in &mut specs {
        // The last layers of SongUNet's branches start almost at zero.
        if let Init::Uniform(bound) = spec.init
            && bound < 1e-3
        {
            spec.init = Init::Uniform(1e5 * bound);
        }
    }
    nonzero_params(specs, 7)
}

/// The process of such a network.
pub(crate) fn process(architecture: &Architecture) -> Process {
    match architecture.precond() {
        None => Process::default(),
        Some(precond) => Process {
            prediction_type: PredictionType::Sample,
            continuous: Some(Continuous::of(&precond)),
            ..Process::default()
        },
    }
}

/// A model as a file of it would be loaded.
pub(crate) fn loaded(architecture: Architecture) -> LoadedModel {
    LoadedModel {
        process: process(&architecture),
        image: architecture.image(),
        autoencoder: None,
        classes: architecture.classes(),
        params: params(&architecture),
        origins: Default::default(),
        sha256: String::new(),
        notes: Vec::new(),
        architecture,
    }
}

/// Times of two images, as the network takes them.
pub(crate) fn times(architecture: &Architecture) -> [f32; 2] {
    match architecture.precond() {
        Some(Precond::Flow { .. }) => [0.3, 1.0],
        Some(_) => [0.4, 6.0],
        None => [5.0, 700.0],
    }
}

/// Images of the batch in f32.
pub(crate) fn images(shape: [usize; 4]) -> Tensor {
    sdft_testing::normal(3, &shape)
        .to_dtype(DType::F32)
        .unwrap()
}

/// The largest difference, as a share of the largest value.
pub(crate) fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let zeros = expected.zeros_like().unwrap();
    sdft_testing::max_abs_diff(found, expected) / sdft_testing::max_abs_diff(expected, &zeros)
}
