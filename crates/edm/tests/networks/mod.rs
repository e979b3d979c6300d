//! Small networks of every kind, and numbers for them.

use candle_core::{DType, Device, Tensor};
use sdft_diffusion::Precond;
use sdft_edm::{
    DecoderType, DhariwalConfig, EdmConfig, EdmNet, EmbeddingType, EncoderType, ModelConfig,
    SongUnetConfig,
};
use sdft_nn::{Init, Params};

/// DDPM++ at 8 pixels with attention on the lower level.
pub(crate) fn song() -> SongUnetConfig {
    SongUnetConfig {
        model_channels: 8,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![4],
        ..SongUnetConfig::default()
    }
}

pub(crate) fn config(model: ModelConfig, precond: Precond) -> EdmConfig {
    EdmConfig {
        img_resolution: 8,
        model,
        precond,
        ..EdmConfig::default()
    }
}

/// DDPM++ with EDM's preconditioning.
pub(crate) fn ddpmpp() -> EdmConfig {
    config(ModelConfig::SongUNet(song()), Precond::EDM)
}

/// One network of each kind: DDPM++, NCSN++, both branches, ADM, and two of them with time-aware adapters.
pub(crate) fn all() -> Vec<EdmConfig> {
    let ncsnpp = SongUnetConfig {
        embedding_type: EmbeddingType::Fourier,
        channel_mult_noise: 2,
        encoder_type: EncoderType::Residual,
        resample_filter: vec![1.0, 3.0, 3.0, 1.0],
        ..song()
    };
    let branches = SongUnetConfig {
        encoder_type: EncoderType::Skip,
        decoder_type: DecoderType::Skip,
        resample_filter: vec![1.0, 2.0, 3.0, 1.0],
        ..song()
    };
    let adm = DhariwalConfig {
        model_channels: 32,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![4],
        ..DhariwalConfig::default()
    };
    let adapted = |config, rank| EdmConfig {
        time_adapter_rank: Some(rank),
        ..config
    };
    vec![
        ddpmpp(),
        config(ModelConfig::SongUNet(ncsnpp), Precond::VE),
        config(ModelConfig::SongUNet(branches), Precond::VP),
        config(ModelConfig::DhariwalUNet(adm.clone()), Precond::EDM),
        adapted(ddpmpp(), 0),
        adapted(config(ModelConfig::DhariwalUNet(adm), Precond::EDM), 3),
    ]
}

/// Initial weights without layers that start at zero or almost, so that every part has an effect and a gradient.
pub(crate) fn params(config: &EdmConfig) -> Params {
    let mut specs = EdmNet::specs(config).unwrap();
    for spec in &mut specs {
        spec.init = match spec.init {
            Init::Constant(0.0) => Init::Normal(0.05),
            Init::Uniform(bound) if bound < 1e-3 => Init::Uniform(1e5 * bound),
            init => init,
        };
    }
    Params::init(&specs, 7, &Device::Cpu).unwrap()
}

/// Numbers of about unit variance.
pub(crate) fn wave(shape: &[usize], phase: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n)
        .map(|i| 1.4 * (0.61 * i as f64 + phase + 0.003 * (i * i % 97) as f64).sin())
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Two images in f32.
pub(crate) fn images() -> Tensor {
    wave(&[2, 3, 8, 8], 0.3).to_dtype(DType::F32).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    flat.to_vec1().unwrap()
}
