//! Tiny networks, built in a few milliseconds.

use candle_core::Device;
use sdft_adm::{AdmConfig, Unet};
use sdft_nn::{Init, ParamSpec, Params};

/// The smallest architecture with every part of ADM's: 8x8 images, 8 channels, two levels, attention on the lower one, learned variance.
/// Change fields with `AdmConfig { out_channels: 3, ..tiny_config() }`.
pub fn tiny_config() -> AdmConfig {
    AdmConfig {
        image_size: 8,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 8,
        norm_groups: 4,
        ..AdmConfig::default()
    }
}

/// The initial weights of a U-Net. Its output is zero, as ADM starts.
pub fn initial_params(config: &AdmConfig, seed: u64) -> Params {
    let specs = Unet::specs(config).expect("a valid architecture");
    Params::init(&specs, seed, &Device::Cpu).expect("memory for the weights")
}

/// Initial weights of which those that start at zero are normal with standard deviation 0.05, so that every part has an effect and a
/// gradient.
pub fn nonzero_params(specs: Vec<ParamSpec>, seed: u64) -> Params {
    let mut specs = specs;
    for spec in &mut specs {
        if spec.init == Init::Constant(0.0) {
            spec.init = Init::Normal(0.05);
        }
    }
    Params::init(&specs, seed, &Device::Cpu).expect("memory for the weights")
}

/// A U-Net with [`nonzero_params`].
pub fn nonzero_unet(config: &AdmConfig, seed: u64) -> Unet {
    let specs = Unet::specs(config).expect("a valid architecture");
    Unet::load(&nonzero_params(specs, seed), config).expect("weights that fit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{max_abs_diff, normal};

    #[test]
    fn an_initial_network_returns_zeros_and_a_nonzero_one_does_not() {
        let (config, x) = (tiny_config(), normal(1, &[2, 3, 8, 8]));
        let output = |unet: Unet| unet.forward(&x, &[3.0, 700.0], None, None).unwrap();
        let initial = output(Unet::load(&initial_params(&config, 5), &config).unwrap());
        assert_eq!(initial.dims(), [2, 6, 8, 8]);
        assert_eq!(max_abs_diff(&initial, &initial.zeros_like().unwrap()), 0.0);
        let (a, b) = [5, 6]
            .map(|seed| output(nonzero_unet(&config, seed)))
            .into();
        assert!(max_abs_diff(&a, &b) > 1e-3);
    }
}
