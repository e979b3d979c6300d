//! Whether a network of a configuration can be built, run and trained.

use crate::config::TimeEmbedding;
use crate::{ClassEmbed, ConfigError, SampleSize, Unet2dConfig};
use sdft_fields::require;

/// The widest layer; public networks have up to 2048 channels.
const MOST_WIDTH: usize = 1 << 16;
/// The largest network; public ones have up to 3e9 parameters.
const MOST_PARAMETERS: usize = 20_000_000_000;
/// The most rows of a table of classes or timesteps.
const MOST_ROWS: usize = 1 << 20;

impl Unet2dConfig {
    /// Checks that the network can be built, and run at its sample size.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_levels()?;
        self.check_attention()?;
        self.check_embeddings()?;
        self.check_size()?;
        let parameters = self.cost([self.factor(); 2]).parameters;
        require(
            parameters <= MOST_PARAMETERS,
            "block_out_channels",
            || format!("a network of at most {MOST_PARAMETERS} parameters"),
            format!("{:?}, which has {parameters}", self.block_out_channels),
        )
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let or_one = |value: Option<usize>| value.unwrap_or(1);
        for (field, value, low, high) in [
            ("in_channels", self.in_channels, 1, MOST_WIDTH),
            ("out_channels", self.out_channels, 1, MOST_WIDTH),
            (
                "time_embedding_dim",
                or_one(self.time_embedding_dim),
                0,
                MOST_WIDTH,
            ),
            ("layers_per_block", self.layers_per_block, 1, 256),
            ("downsample_padding", self.downsample_padding, 0, 1),
            (
                "attention_head_dim",
                or_one(self.attention_head_dim),
                1,
                MOST_WIDTH,
            ),
            ("norm_num_groups", self.norm_num_groups, 1, MOST_WIDTH),
            (
                "attn_norm_num_groups",
                or_one(self.attn_norm_num_groups),
                1,
                MOST_WIDTH,
            ),
            (
                "time_adapter_rank",
                or_one(self.time_adapter_rank),
                0,
                MOST_WIDTH,
            ),
            (
                "num_class_embeds",
                or_one(self.num_class_embeds),
                1,
                MOST_ROWS,
            ),
            (
                "num_train_timesteps",
                or_one(self.num_train_timesteps),
                1,
                MOST_ROWS,
            ),
        ] {
            let range = || format!("{low} to {high}");
            require((low..=high).contains(&value), field, range, value)?;
        }
        let scale = self.mid_block_scale_factor;
        require(
            scale.is_finite() && scale != 0.0,
            "mid_block_scale_factor",
            || "a number other than 0".to_owned(),
            scale,
        )?;
        require(
            self.norm_eps.is_finite() && self.norm_eps >= 0.0,
            "norm_eps",
            || "0 or more".to_owned(),
            self.norm_eps,
        )?;
        require(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            || "0 or more and less than 1".to_owned(),
            self.dropout,
        )
    }

    fn check_levels(&self) -> Result<(), ConfigError> {
        let levels = self.levels();
        require(
            (1..=12).contains(&levels),
            "block_out_channels",
            || "1 to 12 levels".to_owned(),
            levels,
        )?;
        for (field, found) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            let expected = || format!("{levels} blocks, as many as block_out_channels");
            require(found == levels, field, expected, found)?;
        }
        for &width in &self.block_out_channels {
            require(
                (1..=MOST_WIDTH).contains(&width),
                "block_out_channels",
                || format!("widths from 1 to {MOST_WIDTH}"),
                width,
            )?;
            require(
                width.is_multiple_of(self.norm_num_groups),
                "norm_num_groups",
                || format!("a number that divides {width} of block_out_channels"),
                self.norm_num_groups,
            )?;
        }
        Ok(())
    }

    fn check_attention(&self) -> Result<(), ConfigError> {
        let levels = 0..self.levels();
        let widths = levels.filter(|&level| self.has_attention(level));
        for width in widths.map(|level| self.block_out_channels[level]) {
            require(
                self.heads(width)[0] > 0,
                "attention_head_dim",
                || format!("at most {width}, the channels of a level with attention"),
                self.attention_head_dim.unwrap_or(0),
            )?;
        }
        let groups = self.attn_norm_num_groups.unwrap_or(1);
        require(
            self.deepest_width().is_multiple_of(groups),
            "attn_norm_num_groups",
            || {
                format!(
                    "a number that divides {} of block_out_channels",
                    self.deepest_width()
                )
            },
            groups,
        )
    }

    fn check_embeddings(&self) -> Result<(), ConfigError> {
        match self.time_embedding_type {
            TimeEmbedding::Positional => {
                let half = self.block_out_channels[0] / 2;
                require(
                    self.freq_shift.is_finite() && self.freq_shift < half as f64,
                    "freq_shift",
                    || format!("less than {half}, half of the first of block_out_channels"),
                    self.freq_shift,
                )?;
            }
            TimeEmbedding::Learned => require(
                self.num_train_timesteps.is_some(),
                "num_train_timesteps",
                || "a whole number, the rows of the learned time embedding".to_owned(),
                "null",
            )?,
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), ConfigError> {
        let Some(sides) = self.sides() else {
            return Ok(());
        };
        let factor = self.factor();
        let fits = |side: &usize| (1..=4096).contains(side) && side.is_multiple_of(factor);
        let found = match self.sample_size {
            Some(SampleSize::Side(side)) => side.to_string(),
            _ => format!("{sides:?}"),
        };
        let expected = || {
            format!("multiples of {factor} up to 4096, because the sides are halved at each level")
        };
        require(sides.iter().all(fits), "sample_size", expected, found)
    }

    /// Fails unless the network can be built and trained.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> Result<(), ConfigError> {
        self.validate()?;
        require(
            self.class_embed_type != Some(ClassEmbed::Identity),
            "class_embed_type",
            || "null or timestep, as training has labels and no embeddings of classes".to_owned(),
            "identity",
        )?;
        require(
            self.learns_variance() || self.out_channels == self.in_channels,
            "out_channels",
            || format!("{} or {}", self.in_channels, 2 * self.in_channels),
            self.out_channels,
        )
    }
}
