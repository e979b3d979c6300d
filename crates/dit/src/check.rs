//! Whether a network of a configuration can be built, run and trained.

use crate::{ConfigError, DitConfig};
use sdft_fields::require;

/// The widest layer; public networks have up to 1152 channels.
const MOST_WIDTH: usize = 1 << 14;
/// The largest network; public ones have up to 7e8 parameters.
const MOST_PARAMETERS: usize = 20_000_000_000;
/// The most classes.
const MOST_CLASSES: usize = 1 << 20;
/// The longest side of an image.
const MOST_SIDE: usize = 4096;

impl DitConfig {
    /// Checks that the network can be built, and run at its sample size.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value, low, high) in [
            ("num_attention_heads", self.num_attention_heads, 1, 1 << 10),
            ("attention_head_dim", self.attention_head_dim, 1, MOST_WIDTH),
            ("in_channels", self.in_channels, 1, MOST_WIDTH),
            ("out_channels", self.out_channels, 1, MOST_WIDTH),
            ("num_layers", self.num_layers, 1, 1 << 10),
            ("patch_size", self.patch_size, 1, MOST_SIDE),
            (
                "num_embeds_ada_norm",
                self.num_embeds_ada_norm,
                0,
                MOST_CLASSES,
            ),
        ] {
            let range = || format!("{low} to {high}");
            require((low..=high).contains(&value), field, range, value)?;
        }
        // Rows and columns have half of the channels each, as sines and cosines.
        let width = self.width();
        require(
            width <= MOST_WIDTH && width.is_multiple_of(4),
            "attention_head_dim",
            || {
                format!(
                    "a number that makes {} heads a multiple of 4 channels, up to {MOST_WIDTH}",
                    self.num_attention_heads
                )
            },
            self.attention_head_dim,
        )?;
        let side = self.sample_size;
        require(
            (1..=MOST_SIDE).contains(&side) && side.is_multiple_of(self.patch_size),
            "sample_size",
            || {
                format!(
                    "a multiple of {}, the side of a patch, up to {MOST_SIDE}",
                    self.patch_size
                )
            },
            side,
        )?;
        require(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            || "0 or more and less than 1".to_owned(),
            self.dropout,
        )?;
        require(
            self.norm_eps.is_finite() && self.norm_eps >= 0.0,
            "norm_eps",
            || "0 or more".to_owned(),
            self.norm_eps,
        )?;
        require(
            self.freq_shift == 0.0 || self.freq_shift == 1.0,
            "freq_shift",
            || "1, as in diffusers, or 0, as in the official code".to_owned(),
            self.freq_shift,
        )?;
        let parameters = self.cost([side; 2]).parameters;
        require(
            parameters <= MOST_PARAMETERS,
            "num_layers",
            || format!("a network of at most {MOST_PARAMETERS} parameters"),
            format!("{}, which has {parameters}", self.num_layers),
        )
    }

    /// Fails unless the network can be built and trained.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> Result<(), ConfigError> {
        self.validate()?;
        require(
            self.learns_variance() || self.out_channels == self.in_channels,
            "out_channels",
            || format!("{} or {}", self.in_channels, 2 * self.in_channels),
            self.out_channels,
        )
    }
}
