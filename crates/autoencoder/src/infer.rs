//! The configuration that names and shapes show, for files without a `config.json`.

use crate::{
    AutoencoderConfig, AutoencoderKlConfig, ConfigError, DownBlock, SampleSize, UpBlock,
    VqModelConfig,
};
use std::collections::BTreeMap;

/// The scaling factor of Stable Diffusion's autoencoder, and of the others of 8 pixels and 4 channels.
const KL_F8: f64 = 0.18215;

/// A configuration from names and shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The configuration. Norms have 32 groups, as in all public files, and images are 256 pixels wide, which changes no number.
    pub config: AutoencoderConfig,
    /// The scaling factor, which no tensor shows, can be assumed: networks of this kind share it.
    pub scaling_is_usual: bool,
}

/// Infers the configuration of the tensors of a file, which have diffusers' names. It is not checked: [`AutoencoderConfig::check`].
///
/// # Errors
/// A tensor that every autoencoder has and that is missing, or shapes that contradict each other.
pub fn infer(shapes: &BTreeMap<String, Vec<usize>>) -> Result<Inferred, ConfigError> {
    let has = |name: String| shapes.contains_key(&name);
    let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|&i| has(name(i))).count();
    let side = |name: &str, axis: usize| match shapes.get(name).and_then(|shape| shape.get(axis)) {
        Some(&n) => Ok(n),
        None => Err(ConfigError::new(name, "a convolution's weight", "nothing")),
    };
    let first = |level: usize| format!("encoder.down_blocks.{level}.resnets.0.conv2.weight");
    let levels = count(&first);
    let widths: Vec<usize> = (0..levels)
        .map(|level| side(&first(level), 0))
        .collect::<Result<_, _>>()?;
    let layers = count(&|i| format!("encoder.down_blocks.0.resnets.{i}.conv2.weight"));
    let down = (0..levels).map(|level| {
        match has(format!(
            "encoder.down_blocks.{level}.attentions.0.to_q.weight"
        )) {
            true => DownBlock::Attention,
            false => DownBlock::Plain,
        }
    });
    let up = (0..levels).map(|level| {
        match has(format!(
            "decoder.up_blocks.{level}.attentions.0.to_q.weight"
        )) {
            true => UpBlock::Attention,
            false => UpBlock::Plain,
        }
    });
    let (down, up) = (down.collect(), up.collect());
    let in_channels = side("encoder.conv_in.weight", 1)?;
    let out_channels = side("decoder.conv_out.weight", 0)?;
    let latent_channels = side("decoder.conv_in.weight", 1)?;
    let encoded = side("encoder.conv_out.weight", 0)?;
    let mid_block_add_attention = has("encoder.mid_block.attentions.0.to_q.weight".into());
    let sample_size = SampleSize::Side(256);
    let codes = shapes.get("quantize.embedding.weight");
    let config: AutoencoderConfig = match codes.map(Vec::as_slice) {
        None => AutoencoderKlConfig {
            in_channels,
            out_channels,
            down_block_types: down,
            up_block_types: up,
            block_out_channels: widths,
            layers_per_block: layers,
            latent_channels,
            sample_size,
            scaling_factor: KL_F8,
            use_quant_conv: has("quant_conv.weight".into()),
            use_post_quant_conv: has("post_quant_conv.weight".into()),
            mid_block_add_attention,
            ..AutoencoderKlConfig::default()
        }
        .into(),
        Some(&[num_vq_embeddings, channels]) => VqModelConfig {
            in_channels,
            out_channels,
            down_block_types: down,
            up_block_types: up,
            block_out_channels: widths,
            layers_per_block: layers,
            latent_channels,
            sample_size,
            num_vq_embeddings,
            vq_embed_dim: (channels != latent_channels).then_some(channels),
            mid_block_add_attention,
            ..VqModelConfig::default()
        }
        .into(),
        Some(shape) => {
            let expected = "a table [codes, channels]";
            let found = format!("{shape:?}");
            return Err(ConfigError::new(
                "quantize.embedding.weight",
                expected,
                found,
            ));
        }
    };
    let expected = config.net().encoded_channels;
    if encoded != expected {
        return Err(ConfigError::new(
            "encoder.conv_out.weight",
            format!("{expected} output channels, for {latent_channels} latent channels"),
            encoded,
        ));
    }
    let is_kl = matches!(config, AutoencoderConfig::Kl(_));
    Ok(Inferred {
        scaling_is_usual: is_kl && levels == 4 && latent_channels == 4,
        config,
    })
}
