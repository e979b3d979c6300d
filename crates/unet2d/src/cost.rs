//! Operations and memory of a network, counted from its configuration.

use crate::Unet2dConfig;
use crate::config::{ClassEmbed, DownBlock, ResampleType, TimeEmbedding, TimeScaleShift, UpBlock};
use sdft_nn::{Cost, Tally};

impl Unet2dConfig {
    /// The cost of the network for one image of this height and width.
    pub fn cost(&self, sides: [usize; 2]) -> Cost {
        let pixels = |level: usize| {
            let [h, w] = sides.map(|side| (side >> level) as f64);
            h * w
        };
        let last = self.levels().saturating_sub(1);
        let mut tally = Tally::default();
        self.embedding(&mut tally);
        let mut channels = self.block_out_channels.first().copied().unwrap_or(0);
        let first = channels;
        tally.conv(self.in_channels, channels, 3, pixels(0));
        let mut skips = vec![channels];
        for (level, &width) in self.block_out_channels.iter().enumerate() {
            for _ in 0..self.layers_per_block {
                self.residual(&mut tally, channels, width, pixels(level), false);
                if self.down_block_types[level] == DownBlock::Attention {
                    self.attention(&mut tally, width, true, pixels(level));
                }
                channels = width;
                skips.push(channels);
            }
            if let Some(how) = self.downsample(level) {
                self.resize(&mut tally, how, width, pixels(level + 1));
                skips.push(channels);
            }
        }
        if self.mid_block_type.is_some() {
            self.residual(&mut tally, channels, channels, pixels(last), false);
            if self.add_attention {
                let has_norm = self.mid_attention_groups().is_some();
                self.attention(&mut tally, channels, has_norm, pixels(last));
            }
            self.residual(&mut tally, channels, channels, pixels(last), false);
        }
        for (index, &width) in self.block_out_channels.iter().rev().enumerate() {
            let pixels_here = pixels(last - index);
            for _ in 0..=self.layers_per_block {
                let c_in = channels + skips.pop().unwrap_or(0);
                self.residual(&mut tally, c_in, width, pixels_here, true);
                if self.up_block_types[index] == UpBlock::Attention {
                    self.attention(&mut tally, width, true, pixels_here);
                }
                channels = width;
            }
            if let Some(how) = self.upsample(index) {
                self.resize(&mut tally, how, width, pixels(last - index - 1));
            }
        }
        tally.conv(first, self.out_channels, 3, pixels(0));
        tally.parameters(2 * first);
        tally.cost()
    }

    fn embedding(&self, tally: &mut Tally) {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        let emb = self.emb_channels();
        if self.time_embedding_type == TimeEmbedding::Learned {
            tally.parameters(self.num_train_timesteps.unwrap_or(0) * first);
        }
        let mut layers = || {
            tally.conv(first, emb, 1, 1.0);
            tally.conv(emb, emb, 1, 1.0);
        };
        layers();
        match self.class_embed_type {
            None => tally.parameters(self.num_class_embeds.unwrap_or(0) * emb),
            Some(ClassEmbed::Timestep) => layers(),
            Some(ClassEmbed::Identity) => {}
        }
    }

    fn residual(&self, tally: &mut Tally, c_in: usize, c_out: usize, pixels: f64, joined: bool) {
        let emb_out = match self.resnet_time_scale_shift {
            TimeScaleShift::Default => c_out,
            TimeScaleShift::ScaleShift => 2 * c_out,
        };
        let emb = [self.emb_channels(), emb_out];
        tally.residual([c_in, c_out], emb, pixels, joined);
    }

    fn attention(&self, tally: &mut Tally, channels: usize, has_norm: bool, pixels: f64) {
        let [heads, head_channels] = self.heads(channels);
        tally.attention(channels, heads * head_channels, pixels);
        tally.parameters(if has_norm { 2 * channels } else { 0 });
        if let Some(rank) = self.time_adapter_rank {
            tally.time_adapter(heads * head_channels, self.emb_channels(), rank, pixels);
        }
    }

    fn resize(&self, tally: &mut Tally, how: ResampleType, channels: usize, out_pixels: f64) {
        match how {
            ResampleType::Conv => tally.conv(channels, channels, 3, out_pixels),
            ResampleType::Resnet => self.residual(tally, channels, channels, out_pixels, false),
        }
    }

    /// Whether a block of this width has attention.
    pub(crate) fn has_attention(&self, level: usize) -> bool {
        let last = self.levels() - 1;
        let middle = level == last && self.mid_block_type.is_some() && self.add_attention;
        middle
            || self.down_block_types[level] == DownBlock::Attention
            || self.up_block_types[last - level] == UpBlock::Attention
    }
}
