//! The configuration of an official file, from names and shapes.

use crate::{ConfigError, DitConfig};
use std::collections::BTreeMap;

/// Widths and heads of the official networks: S, B, L and XL.
const HEADS: [(usize, usize); 4] = [(384, 6), (768, 12), (1024, 16), (1152, 16)];

/// A configuration that was found from names and shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The configuration.
    pub config: DitConfig,
    /// Fields that nothing in the file shows.
    pub assumed: Vec<&'static str>,
}

/// The configuration of a network of the official code, whose parameters have the names of [`crate::OfficialNames`]. `tokens` is the
/// number of its positions, if the file has them.
///
/// # Errors
/// A tensor that is missing or of an unexpected shape.
pub fn infer(
    shapes: &BTreeMap<String, Vec<usize>>,
    tokens: Option<usize>,
) -> Result<Inferred, ConfigError> {
    let dims = |name: &str, rank: usize| match shapes.get(name) {
        Some(shape) if shape.len() == rank && !shape.contains(&0) => Ok(shape.as_slice()),
        Some(shape) => Err(ConfigError::new(
            name,
            format!("a tensor of {rank} dimensions"),
            format!("{shape:?}"),
        )),
        None => Err(ConfigError::new(name, "a tensor", "none")),
    };
    let patches = dims("pos_embed.proj.weight", 4)?;
    let (width, in_channels, patch) = (patches[0], patches[1], patches[3]);
    let outputs = dims("proj_out_2.weight", 2)?[0];
    let classes = dims("emb.class_embedder.embedding_table.weight", 2)?[0] - 1;
    let blocks = shapes.keys().filter_map(|name| {
        let rest = name.strip_prefix("transformer_blocks.")?;
        rest.split_once('.')?.0.parse::<usize>().ok()
    });
    let num_layers = blocks.max().map_or(0, |last| last.saturating_add(1));
    let mut assumed = Vec::new();
    let heads = match HEADS.iter().find(|(known, _)| *known == width) {
        Some((_, heads)) => *heads,
        None => {
            assumed.push("num_attention_heads");
            (width / 64).max(1)
        }
    };
    let sample_size = match tokens {
        Some(n) if n.isqrt().pow(2) == n => n.isqrt() * patch,
        Some(n) => {
            return Err(ConfigError::new(
                crate::POSITIONS,
                "the positions of a square image",
                n,
            ));
        }
        None => {
            assumed.push("sample_size");
            32usize.next_multiple_of(patch)
        }
    };
    let config = DitConfig {
        num_attention_heads: heads,
        attention_head_dim: width / heads,
        in_channels,
        out_channels: outputs / (patch * patch).max(1),
        num_layers,
        attention_bias: shapes.contains_key("transformer_blocks.0.attn1.to_q.bias"),
        sample_size,
        patch_size: patch,
        num_embeds_ada_norm: classes,
        norm_eps: DitConfig::EPS,
        shared_embedder: true,
        freq_shift: 0.0,
        ..DitConfig::default()
    };
    Ok(Inferred { config, assumed })
}
