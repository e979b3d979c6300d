//! Whether a network of a configuration can be built.

use crate::{AutoencoderConfig, ConfigError};
use sdft_fields::require;

/// The widest layer; public networks have up to 512 channels.
const MOST_WIDTH: usize = 1 << 14;
/// The most codes; public networks have up to 16384.
const MOST_CODES: usize = 1 << 20;
/// The largest network; public ones have up to 1e8 parameters.
const MOST_PARAMETERS: usize = 20_000_000_000;

impl AutoencoderConfig {
    /// Checks that the network can be built.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let net = self.net();
        for (field, value, most) in [
            ("in_channels", net.in_channels, MOST_WIDTH),
            ("out_channels", net.out_channels, MOST_WIDTH),
            ("latent_channels", net.z_channels, MOST_WIDTH),
            ("layers_per_block", net.layers, 256),
            ("norm_num_groups", net.groups, MOST_WIDTH),
        ] {
            let range = || format!("1 to {most}");
            require((1..=most).contains(&value), field, range, value)?;
        }
        let levels = net.widths.len();
        require(
            (1..=8).contains(&levels),
            "block_out_channels",
            || "1 to 8 levels".to_owned(),
            levels,
        )?;
        for (field, found) in [
            ("down_block_types", net.down.len()),
            ("up_block_types", net.up.len()),
        ] {
            let expected = || format!("{levels} blocks, as many as block_out_channels");
            require(found == levels, field, expected, found)?;
        }
        for &width in net.widths {
            require(
                (1..=MOST_WIDTH).contains(&width),
                "block_out_channels",
                || format!("widths from 1 to {MOST_WIDTH}"),
                width,
            )?;
            require(
                width.is_multiple_of(net.groups),
                "norm_num_groups",
                || format!("a number that divides {width} of block_out_channels"),
                net.groups,
            )?;
        }
        if let Self::Vq(config) = self {
            require(
                (1..=MOST_CODES).contains(&config.num_vq_embeddings),
                "num_vq_embeddings",
                || format!("1 to {MOST_CODES}"),
                config.num_vq_embeddings,
            )?;
            require(
                (1..=MOST_WIDTH).contains(&config.code_channels()),
                "vq_embed_dim",
                || format!("1 to {MOST_WIDTH}, or null"),
                config.code_channels(),
            )?;
        }
        let factor = self.scaling_factor();
        require(
            factor.is_finite() && factor > 0.0,
            "scaling_factor",
            || "a number above 0".to_owned(),
            factor,
        )?;
        require(
            self.shift_factor().is_finite(),
            "shift_factor",
            || "a finite number or null".to_owned(),
            self.shift_factor(),
        )?;
        let parameters = self.cost([self.factor(); 2]).parameters;
        require(
            parameters <= MOST_PARAMETERS,
            "block_out_channels",
            || format!("a network of at most {MOST_PARAMETERS} parameters"),
            format!("{:?}, which has {parameters}", net.widths),
        )
    }
}
