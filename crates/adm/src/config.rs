//! The configuration of an ADM network.

use crate::ConfigError;
use sdft_kernels::AttentionOrder;
use serde::{Deserialize, Serialize};

/// The architecture of an ADM network.
///
/// Field names follow guided-diffusion; `attention_resolutions` are downsampling **factors** (16 = a sixteenth of the image), not pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmConfig {
    /// Side of the images, in pixels.
    pub image_size: usize,
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the output: `in_channels`, or twice as many if the variance is learned.
    pub out_channels: usize,
    /// Width of the first level.
    pub model_channels: usize,
    /// Width of each level as a multiple of `model_channels`.
    pub channel_mult: Vec<f64>,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub num_res_blocks: usize,
    /// Downsampling factors at which attention follows each residual block.
    pub attention_resolutions: Vec<usize>,
    /// Attention heads where `num_head_channels` is 0.
    pub num_heads: usize,
    /// Channels per attention head; 0 uses `num_heads`.
    pub num_head_channels: usize,
    /// Attention heads of the decoder where `num_head_channels` is 0; 0 means `num_heads`.
    pub num_heads_upsample: usize,
    /// The time embedding scales and shifts instead of being added.
    pub use_scale_shift_norm: bool,
    /// Resolution changes inside residual blocks.
    pub resblock_updown: bool,
    /// Resolution changes by learned convolutions where `resblock_updown` is off.
    pub conv_resample: bool,
    /// Channels ordered as all queries, all keys, all values, instead of head by head.
    pub use_new_attention_order: bool,
    /// Number of classes of a class-conditional network, 0 for none.
    pub num_classes: usize,
    /// Probability of dropping a feature in residual blocks, in training only.
    pub dropout: f64,
    /// Groups of every normalisation. It cannot be inferred from shapes; 32 in all public checkpoints.
    pub norm_groups: usize,
    /// Rank of the time-aware adapter in every attention block, 0 for an eighth of its channels; `None` has no adapters, and is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_adapter_rank: Option<usize>,
}

impl Default for AdmConfig {
    /// The light FFHQ-256 configuration of P2-weighting (93,563,910 parameters).
    fn default() -> Self {
        Self {
            image_size: 256,
            in_channels: 3,
            out_channels: 6,
            model_channels: 128,
            channel_mult: vec![1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
            num_res_blocks: 1,
            attention_resolutions: vec![16],
            num_heads: 4,
            num_head_channels: 64,
            num_heads_upsample: 0,
            use_scale_shift_norm: true,
            resblock_updown: true,
            conv_resample: true,
            use_new_attention_order: false,
            num_classes: 0,
            dropout: 0.0,
            norm_groups: 32,
            time_adapter_rank: None,
        }
    }
}

/// The widest layer; public networks have up to 2048 channels.
const MOST_WIDTH: usize = 1 << 16;
/// The largest network; public ones have up to 3e9 parameters.
const MOST_PARAMETERS: usize = 20_000_000_000;

fn invalid<T>(field: &'static str, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError { field, problem })
}

impl AdmConfig {
    /// ADM-256, unconditional (552,814,086 parameters).
    pub fn adm_256() -> Self {
        Self {
            model_channels: 256,
            num_res_blocks: 2,
            attention_resolutions: vec![32, 16, 8],
            ..Self::default()
        }
    }

    /// The trunk of the ImageNet classifier for 256x256 images; `out_channels` is the number of classes.
    pub fn classifier_256(classes: usize) -> Self {
        Self {
            num_res_blocks: 2,
            attention_resolutions: vec![32, 16, 8],
            out_channels: classes,
            ..Self::default()
        }
    }

    /// The multiples for an image size: guided-diffusion's for 64, 128, 256 and 512 pixels, improved-diffusion's for 32, fewer levels
    /// below. A size in between takes those of the next larger one, without the last levels where it cannot be halved that often and
    /// the last one kept has 8 pixels or fewer.
    pub fn channel_mult_for(image_size: usize) -> Vec<f64> {
        let usual: &[f64] = match image_size {
            0..=4 => &[1.0],
            5..=8 => &[1.0, 2.0],
            9..=16 => &[1.0, 2.0, 2.0],
            17..=32 => &[1.0, 2.0, 2.0, 2.0],
            33..=64 => &[1.0, 2.0, 3.0, 4.0],
            65..=128 => &[1.0, 1.0, 2.0, 3.0, 4.0],
            129..=256 => &[1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
            _ => &[0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
        };
        let fits = |levels: &usize| {
            let factor = 1 << (levels - 1);
            image_size.is_multiple_of(factor) && image_size / factor <= 8
        };
        // Where nothing fits, `validate` names the sizes next to it that do.
        let levels = (1..=usual.len()).rev().find(fits);
        usual[..levels.unwrap_or(usual.len())].to_vec()
    }

    /// The downsampling factors with attention, for an image size and a number of levels: that of the first level with 16
    /// pixels or fewer, as in P2-weighting's network for 256 (the middle has attention in any case).
    pub fn attention_for(image_size: usize, levels: usize) -> Vec<usize> {
        let mut factors = (0..levels).map(|level| 1 << level);
        let first = factors.find(|factor| image_size / factor <= 16);
        first.into_iter().collect()
    }

    /// Width of level `level`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked by `validate`"
    )]
    pub fn width(&self, level: usize) -> usize {
        (self.channel_mult.get(level).copied().unwrap_or(0.0) * self.model_channels as f64) as usize
    }

    /// Number of levels.
    pub fn levels(&self) -> usize {
        self.channel_mult.len()
    }

    /// What the sides of an image must be divisible by.
    pub fn factor(&self) -> usize {
        1 << self.levels().saturating_sub(1)
    }

    /// Whether the network predicts the variance as well.
    pub fn learns_variance(&self) -> bool {
        self.out_channels == 2 * self.in_channels
    }

    /// Width of the time embedding.
    pub(crate) fn emb_channels(&self) -> usize {
        4 * self.model_channels
    }

    pub(crate) fn attention_order(&self) -> AttentionOrder {
        if self.use_new_attention_order {
            AttentionOrder::Chunked
        } else {
            AttentionOrder::Legacy
        }
    }

    /// Heads of an encoder block with this many channels.
    pub fn heads(&self, channels: usize) -> usize {
        channels
            .checked_div(self.num_head_channels)
            .unwrap_or(self.num_heads)
    }

    /// Heads of a decoder block with this many channels.
    pub fn decoder_heads(&self, channels: usize) -> usize {
        let count = if self.num_heads_upsample == 0 {
            self.num_heads
        } else {
            self.num_heads_upsample
        };
        channels
            .checked_div(self.num_head_channels)
            .unwrap_or(count)
    }

    /// Checks that the network can be built and run at its image size.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value, low, high) in [
            ("image_size", self.image_size, 1, 4096),
            ("in_channels", self.in_channels, 1, MOST_WIDTH),
            ("out_channels", self.out_channels, 1, MOST_WIDTH),
            ("model_channels", self.model_channels, 1, MOST_WIDTH),
            ("num_res_blocks", self.num_res_blocks, 1, 256),
            ("norm_groups", self.norm_groups, 1, MOST_WIDTH),
            ("num_heads", self.num_heads, 0, MOST_WIDTH),
            ("num_head_channels", self.num_head_channels, 0, MOST_WIDTH),
            ("num_heads_upsample", self.num_heads_upsample, 0, MOST_WIDTH),
            ("num_classes", self.num_classes, 0, 1 << 20),
            (
                "time_adapter_rank",
                self.time_adapter_rank.unwrap_or(0),
                0,
                MOST_WIDTH,
            ),
        ] {
            if !(low..=high).contains(&value) {
                return invalid(field, format!("expected {low} to {high}, found {value}"));
            }
        }
        if !(1..=12).contains(&self.levels()) {
            return invalid(
                "channel_mult",
                format!("expected 1 to 12 levels, found {}", self.levels()),
            );
        }
        if !self.model_channels.is_multiple_of(2) {
            return invalid(
                "model_channels",
                format!("expected an even number, found {}", self.model_channels),
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return invalid(
                "dropout",
                format!("expected 0 or more and less than 1, found {}", self.dropout),
            );
        }
        let factor = self.factor();
        if !self.image_size.is_multiple_of(factor) {
            let (below, above) = (
                self.image_size / factor * factor,
                self.image_size.div_ceil(factor) * factor,
            );
            let nearest = if below == 0 {
                above.to_string()
            } else {
                format!("{below} or {above}")
            };
            return invalid(
                "image_size",
                format!(
                    "{} cannot be halved {} times (channel_mult has {} levels); the nearest that can: {nearest}",
                    self.image_size,
                    self.levels() - 1,
                    self.levels(),
                ),
            );
        }
        for (level, &mult) in self.channel_mult.iter().enumerate() {
            let width = mult * self.model_channels as f64;
            if !((1.0..=MOST_WIDTH as f64).contains(&width) && width.fract() == 0.0) {
                return invalid(
                    "channel_mult",
                    format!(
                        "entry {mult} times model_channels {} is not a whole width from 1 to {MOST_WIDTH}",
                        self.model_channels
                    ),
                );
            }
            if !self.width(level).is_multiple_of(self.norm_groups) {
                return invalid(
                    "norm_groups",
                    format!(
                        "{} groups do not divide the {} channels of level {level}",
                        self.norm_groups,
                        self.width(level)
                    ),
                );
            }
        }
        for (level, &ds) in (0..self.levels())
            .map(|level| 1usize << level)
            .collect::<Vec<_>>()
            .iter()
            .enumerate()
        {
            let middle = level + 1 == self.levels();
            if !(middle || self.attention_resolutions.contains(&ds)) {
                continue;
            }
            let width = self.width(level);
            if self.num_head_channels != 0 && !width.is_multiple_of(self.num_head_channels) {
                return invalid(
                    "num_head_channels",
                    format!(
                        "{} does not divide the {width} channels of level {level}, which has attention",
                        self.num_head_channels
                    ),
                );
            }
            for (field, heads) in [
                ("num_heads", self.heads(width)),
                ("num_heads_upsample", self.decoder_heads(width)),
            ] {
                if heads == 0 || !width.is_multiple_of(heads) {
                    return invalid(
                        field,
                        format!(
                            "{heads} heads do not divide the {width} channels of level {level}"
                        ),
                    );
                }
            }
        }
        if let Some(&bad) = self
            .attention_resolutions
            .iter()
            .find(|ds| !ds.is_power_of_two() || **ds > factor)
        {
            let valid: Vec<String> = (0..self.levels())
                .map(|level| (1usize << level).to_string())
                .collect();
            return invalid(
                "attention_resolutions",
                format!(
                    "{bad} is not a down-sampling factor of this network; expected one of {}",
                    valid.join(", ")
                ),
            );
        }
        let parameters = self.cost([self.image_size; 2]).parameters;
        if parameters > MOST_PARAMETERS {
            return invalid(
                "model_channels",
                format!(
                    "the network would have {parameters} parameters, expected at most {MOST_PARAMETERS}; make model_channels, \
                     channel_mult or num_res_blocks smaller"
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_attention_follow_the_image_size() {
        let light = AdmConfig::default();
        for (size, levels, smallest, attention) in [
            (512, 7, 8, 32),
            (256, 6, 8, 16),
            (192, 6, 6, 16),
            (128, 5, 8, 8),
            (96, 5, 6, 8),
            (64, 4, 8, 4),
            (48, 4, 6, 4),
            (32, 4, 4, 2),
            (28, 3, 7, 2),
            (16, 3, 4, 1),
            (8, 2, 4, 1),
            (4, 1, 4, 1),
        ] {
            let channel_mult = AdmConfig::channel_mult_for(size);
            let config = AdmConfig {
                image_size: size,
                attention_resolutions: AdmConfig::attention_for(size, channel_mult.len()),
                channel_mult,
                ..light.clone()
            };
            assert_eq!(config.validate(), Ok(()), "{size}");
            assert_eq!(config.levels(), levels, "{size}");
            assert_eq!(size >> (levels - 1), smallest, "{size}");
            assert_eq!(config.attention_resolutions, [attention], "{size}");
            assert!(
                size > 128 || config.cost([size; 2]).parameters < light.cost([size; 2]).parameters
            );
        }
        assert_eq!(AdmConfig::channel_mult_for(256), light.channel_mult);
        // A size that cannot be halved often enough does not become a network of two levels.
        let odd = AdmConfig {
            image_size: 250,
            channel_mult: AdmConfig::channel_mult_for(250),
            ..light
        };
        let text = odd.validate().unwrap_err().to_string();
        assert!(text.ends_with("224 or 256"), "{text}");
    }

    #[test]
    fn sizes_have_bounds_before_anything_is_allocated() {
        let base = AdmConfig::default();
        type Change = fn(&mut AdmConfig);
        let huge: [(&str, Change); 10] = [
            ("image_size", |c| c.image_size = 1 << 62),
            ("in_channels", |c| c.in_channels = usize::MAX),
            ("out_channels", |c| c.out_channels = 0),
            ("num_res_blocks", |c| c.num_res_blocks = usize::MAX),
            ("num_classes", |c| c.num_classes = usize::MAX),
            ("num_heads_upsample", |c| c.num_heads_upsample = usize::MAX),
            ("time_adapter_rank", |c| {
                c.time_adapter_rank = Some(usize::MAX);
            }),
            ("channel_mult", |c| c.channel_mult = vec![f64::NAN]),
            ("channel_mult", |c| c.channel_mult = vec![1e300]),
            ("model_channels", |c| c.model_channels = 1 << 14),
        ];
        for (field, change) in huge {
            let mut config = base.clone();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn impossible_architectures_name_the_field_and_the_way_out() {
        let base = AdmConfig::default();
        let problem = |config: AdmConfig| config.validate().unwrap_err().to_string();
        assert_eq!(base.validate(), Ok(()));
        assert_eq!(AdmConfig::adm_256().validate(), Ok(()));
        let text = problem(AdmConfig {
            image_size: 250,
            ..base.clone()
        });
        assert!(
            text.starts_with("model.image_size: 250 cannot be halved 5 times")
                && text.ends_with("224 or 256"),
            "{text}"
        );
        let text = problem(AdmConfig {
            num_head_channels: 48,
            ..base.clone()
        });
        assert!(
            text.contains("num_head_channels: 48 does not divide the 512 channels"),
            "{text}"
        );
        let text = problem(AdmConfig {
            norm_groups: 48,
            ..base.clone()
        });
        assert!(
            text.contains("48 groups do not divide the 128 channels"),
            "{text}"
        );
        let text = problem(AdmConfig {
            attention_resolutions: vec![64],
            ..base.clone()
        });
        assert!(
            text.contains("64 is not a down-sampling factor")
                && text.contains("1, 2, 4, 8, 16, 32"),
            "{text}"
        );
        let text = problem(AdmConfig {
            channel_mult: vec![0.3],
            ..base.clone()
        });
        assert!(text.contains("0.3 times model_channels 128"), "{text}");
        assert!(
            problem(AdmConfig {
                num_res_blocks: 0,
                ..base.clone()
            })
            .contains("num_res_blocks")
        );
        assert!(
            problem(AdmConfig {
                num_head_channels: 0,
                num_heads: 3,
                ..base.clone()
            })
            .contains("3 heads")
        );
        assert!(
            problem(AdmConfig {
                dropout: 1.0,
                ..base
            })
            .contains("dropout")
        );
    }
}
