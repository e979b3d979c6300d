//! The parts of a network in their order, from its configuration.

use crate::{DecoderType, EdmConfig, EmbeddingType, EncoderType, ModelConfig};

/// The fields that both networks have.
pub(crate) struct Plan<'a> {
    pub(crate) resolution: usize,
    pub(crate) channels: usize,
    pub(crate) label_dim: usize,
    pub(crate) time_adapter_rank: Option<usize>,
    pub(crate) augment_dim: usize,
    pub(crate) model_channels: usize,
    pub(crate) channel_mult: &'a [usize],
    pub(crate) channel_mult_emb: usize,
    pub(crate) channel_mult_noise: usize,
    pub(crate) num_blocks: usize,
    pub(crate) attn_resolutions: &'a [usize],
    pub(crate) dropout: f64,
    pub(crate) label_dropout: f64,
    /// The filter of changes of resolution.
    pub(crate) filter: &'a [f64],
    /// The fields that only `SongUNet` has; `None` is `DhariwalUNet`.
    pub(crate) song: Option<Song>,
}

/// The choices of `SongUNet`.
#[derive(Clone, Copy)]
pub(crate) struct Song {
    pub(crate) embedding: EmbeddingType,
    pub(crate) encoder: EncoderType,
    pub(crate) decoder: DecoderType,
}

/// Change of resolution of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Up,
    Down,
}

/// A residual block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockSpec {
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) change: Change,
    pub(crate) attention: bool,
    /// Whether the input is concatenated with the output of an encoder part.
    pub(crate) joined: bool,
}

/// One part of encoder or decoder.
pub(crate) struct Part {
    /// The prefix of its parameters below `model.`.
    pub(crate) name: String,
    /// The level of its result.
    pub(crate) level: usize,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// The first convolution.
    Conv {
        c_in: usize,
        c_out: usize,
    },
    Block(BlockSpec),
    /// Downsamples the image of the encoder's branch.
    AuxDown,
    /// Adds the branch by a 1x1 convolution.
    AuxSkip {
        c_in: usize,
        c_out: usize,
    },
    /// Downsamples the branch by a convolution and averages it with the blocks.
    AuxResidual {
        c_in: usize,
        c_out: usize,
    },
    /// Upsamples the sum of outputs.
    AuxUp,
    /// Norm, activation and convolution to an output, which is added to the sum.
    Output {
        channels: usize,
        conv: String,
    },
}

impl EdmConfig {
    pub(crate) fn plan(&self) -> Plan<'_> {
        let (resolution, channels, label_dim) =
            (self.img_resolution, self.img_channels, self.label_dim);
        let time_adapter_rank = self.time_adapter_rank;
        match &self.model {
            ModelConfig::SongUNet(m) => Plan {
                resolution,
                channels,
                label_dim,
                time_adapter_rank,
                augment_dim: m.augment_dim,
                model_channels: m.model_channels,
                channel_mult: &m.channel_mult,
                channel_mult_emb: m.channel_mult_emb,
                channel_mult_noise: m.channel_mult_noise,
                num_blocks: m.num_blocks,
                attn_resolutions: &m.attn_resolutions,
                dropout: m.dropout,
                label_dropout: m.label_dropout,
                filter: &m.resample_filter,
                song: Some(Song {
                    embedding: m.embedding_type,
                    encoder: m.encoder_type,
                    decoder: m.decoder_type,
                }),
            },
            ModelConfig::DhariwalUNet(m) => Plan {
                resolution,
                channels,
                label_dim,
                time_adapter_rank,
                augment_dim: m.augment_dim,
                model_channels: m.model_channels,
                channel_mult: &m.channel_mult,
                channel_mult_emb: m.channel_mult_emb,
                channel_mult_noise: 1,
                num_blocks: m.num_blocks,
                attn_resolutions: &m.attn_resolutions,
                dropout: m.dropout,
                label_dropout: m.label_dropout,
                filter: &[1.0, 1.0],
                song: None,
            },
        }
    }
}

impl Plan<'_> {
    pub(crate) fn levels(&self) -> usize {
        self.channel_mult.len()
    }

    pub(crate) fn width(&self, level: usize) -> usize {
        self.model_channels * self.channel_mult.get(level).copied().unwrap_or(0)
    }

    /// Width of the embedding.
    pub(crate) fn emb(&self) -> usize {
        self.model_channels * self.channel_mult_emb
    }

    /// Number of sinusoids of the noise level.
    pub(crate) fn noise(&self) -> usize {
        self.model_channels * self.channel_mult_noise
    }

    /// Channels of the deepest features.
    pub(crate) fn deepest(&self) -> usize {
        self.width(self.levels() - 1)
    }

    /// Heads of a block with attention; `DhariwalUNet` has no attention at fewer than 64 channels.
    pub(crate) fn heads(&self, channels: usize) -> usize {
        match self.song {
            Some(_) => 1,
            None => channels / 64,
        }
    }

    /// Groups of a norm.
    pub(crate) fn groups(channels: usize) -> usize {
        (channels / 4).min(32)
    }

    /// The name of a part at a level.
    fn name(&self, side: &str, level: usize, what: &str) -> String {
        let res = self.resolution >> level;
        format!("{side}.{res}x{res}_{what}")
    }

    fn has_attention(&self, level: usize) -> bool {
        self.attn_resolutions.contains(&(self.resolution >> level))
    }

    fn block(&self, name: String, level: usize, spec: BlockSpec) -> Part {
        Part {
            name,
            level,
            kind: Kind::Block(BlockSpec {
                attention: spec.attention && self.heads(spec.c_out) > 0,
                ..spec
            }),
        }
    }

    /// The encoder, and the channels of the results that the decoder takes.
    pub(crate) fn encoder(&self) -> (Vec<Part>, Vec<usize>) {
        let mut parts = Vec::new();
        let mut skips = Vec::new();
        let (mut width, mut branch) = (self.channels, self.channels);
        for level in 0..self.levels() {
            let name = |what: &str| self.name("enc", level, what);
            let aux = |name: String, kind| Part { name, level, kind };
            if level == 0 {
                let c_out = match self.song {
                    Some(_) => self.model_channels,
                    None => self.width(0),
                };
                let kind = Kind::Conv { c_in: width, c_out };
                parts.push(aux(name("conv"), kind));
                width = c_out;
            } else {
                let spec = BlockSpec {
                    c_in: width,
                    c_out: width,
                    change: Change::Down,
                    attention: false,
                    joined: false,
                };
                parts.push(self.block(name("down"), level, spec));
                let (c_in, c_out) = (branch, width);
                match self.song.map(|song| song.encoder) {
                    Some(EncoderType::Skip) => {
                        parts.push(aux(name("aux_down"), Kind::AuxDown));
                        parts.push(aux(name("aux_skip"), Kind::AuxSkip { c_in, c_out }));
                    }
                    Some(EncoderType::Residual) => {
                        parts.push(aux(name("aux_residual"), Kind::AuxResidual { c_in, c_out }));
                        branch = width;
                    }
                    Some(EncoderType::Standard) | None => {}
                }
            }
            skips.push(width);
            for i in 0..self.num_blocks {
                let spec = BlockSpec {
                    c_in: width,
                    c_out: self.width(level),
                    change: Change::None,
                    attention: self.has_attention(level),
                    joined: false,
                };
                parts.push(self.block(name(&format!("block{i}")), level, spec));
                width = self.width(level);
                skips.push(width);
            }
        }
        (parts, skips)
    }

    /// The two blocks between encoder and decoder, which the reference counts to the decoder.
    pub(crate) fn middle(&self) -> [Part; 2] {
        let (level, width) = (self.levels() - 1, self.deepest());
        [("in0", true), ("in1", false)].map(|(what, attention)| {
            let spec = BlockSpec {
                c_in: width,
                c_out: width,
                change: Change::None,
                attention,
                joined: false,
            };
            self.block(self.name("dec", level, what), level, spec)
        })
    }

    /// The decoder after its first two blocks, for encoder results of these channels.
    pub(crate) fn decoder(&self, mut skips: Vec<usize>) -> Vec<Part> {
        let mut parts = Vec::new();
        let last = self.levels() - 1;
        let mut width = self.deepest();
        for level in (0..=last).rev() {
            let name = |what: &str| self.name("dec", level, what);
            if level < last {
                let spec = BlockSpec {
                    c_in: width,
                    c_out: width,
                    change: Change::Up,
                    attention: false,
                    joined: false,
                };
                parts.push(self.block(name("up"), level, spec));
            }
            for i in 0..=self.num_blocks {
                // DDPM++ has attention in the last block of a level only.
                let here = self.song.is_none() || i == self.num_blocks;
                let spec = BlockSpec {
                    c_in: width + skips.pop().unwrap_or(0),
                    c_out: self.width(level),
                    change: Change::None,
                    attention: here && self.has_attention(level),
                    joined: true,
                };
                parts.push(self.block(name(&format!("block{i}")), level, spec));
                width = self.width(level);
            }
            let aux = |name: String, kind| Part { name, level, kind };
            let output = |conv: String| Kind::Output {
                channels: width,
                conv,
            };
            match self.song.map(|song| song.decoder) {
                None if level == 0 => {
                    parts.push(aux("out_norm".into(), output("out_conv".into())));
                }
                Some(decoder) if level == 0 || decoder == DecoderType::Skip => {
                    if decoder == DecoderType::Skip && level < last {
                        parts.push(aux(name("aux_up"), Kind::AuxUp));
                    }
                    parts.push(aux(name("aux_norm"), output(name("aux_conv"))));
                }
                None | Some(_) => {}
            }
        }
        parts
    }
}
