//! Operations and memory of a network, counted from its configuration.

use crate::AdmConfig;
use sdft_nn::{Cost, Tally};

impl AdmConfig {
    /// The cost of the U-Net for one image of this height and width.
    pub fn cost(&self, sides: [usize; 2]) -> Cost {
        let mut tally = Tally::default();
        let mut skips = self.down(&mut tally, sides);
        let mut channels = skips.last().copied().unwrap_or(0);
        let pixels = |level| pixels(sides, level);
        for level in (0..self.levels()).rev() {
            let width = self.width(level);
            for i in 0..=self.num_res_blocks {
                let c_in = channels + skips.pop().unwrap_or(0);
                self.residual(&mut tally, c_in, width, pixels(level), true);
                if self.has_attention(level) {
                    self.attention(&mut tally, width, pixels(level));
                }
                channels = width;
                if i == self.num_res_blocks && level > 0 {
                    self.resize(&mut tally, width, pixels(level - 1));
                }
            }
        }
        tally.conv(channels, self.out_channels, 3, pixels(0));
        tally.parameters(2 * channels);
        tally.cost()
    }

    /// The cost of its encoder with the middle, without the head of a classifier.
    pub fn encoder_cost(&self, sides: [usize; 2]) -> Cost {
        let mut tally = Tally::default();
        self.down(&mut tally, sides);
        tally.cost()
    }

    fn has_attention(&self, level: usize) -> bool {
        self.attention_resolutions.contains(&(1 << level))
    }

    /// Adds the encoder and the middle; returns the channels of each skip connection.
    fn down(&self, tally: &mut Tally, sides: [usize; 2]) -> Vec<usize> {
        let pixels = |level| pixels(sides, level);
        let last = self.levels().saturating_sub(1);
        tally.conv(self.model_channels, self.emb_channels(), 1, 1.0);
        tally.conv(self.emb_channels(), self.emb_channels(), 1, 1.0);
        tally.parameters(self.num_classes * self.emb_channels());
        let mut channels = self.width(0);
        tally.conv(self.in_channels, channels, 3, pixels(0));
        let mut skips = vec![channels];
        for level in 0..self.levels() {
            let width = self.width(level);
            for _ in 0..self.num_res_blocks {
                self.residual(tally, channels, width, pixels(level), false);
                if self.has_attention(level) {
                    self.attention(tally, width, pixels(level));
                }
                channels = width;
                skips.push(channels);
            }
            if level < last {
                self.resize(tally, channels, pixels(level + 1));
                skips.push(channels);
            }
        }
        self.residual(tally, channels, channels, pixels(last), false);
        self.attention(tally, channels, pixels(last));
        self.residual(tally, channels, channels, pixels(last), false);
        skips
    }

    fn residual(&self, tally: &mut Tally, c_in: usize, c_out: usize, pixels: f64, joined: bool) {
        let emb_out = if self.use_scale_shift_norm {
            2 * c_out
        } else {
            c_out
        };
        let emb = [self.emb_channels(), emb_out];
        tally.residual([c_in, c_out], emb, pixels, joined);
    }

    fn attention(&self, tally: &mut Tally, channels: usize, pixels: f64) {
        tally.attention(channels, channels, pixels);
        tally.parameters(2 * channels);
        if let Some(rank) = self.time_adapter_rank {
            tally.time_adapter(channels, self.emb_channels(), rank, pixels);
        }
    }

    fn resize(&self, tally: &mut Tally, channels: usize, out_pixels: f64) {
        if self.resblock_updown {
            self.residual(tally, channels, channels, out_pixels, false);
        } else if self.conv_resample {
            tally.conv(channels, channels, 3, out_pixels);
        }
    }
}

/// Pixels of a level.
fn pixels(sides: [usize; 2], level: usize) -> f64 {
    let [h, w] = sides.map(|side| (side >> level) as f64);
    h * w
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unet;

    #[test]
    fn parameters_are_counted_as_the_network_has_them() {
        let base = AdmConfig::default();
        for config in [
            base.clone(),
            AdmConfig::adm_256(),
            AdmConfig {
                num_classes: 10,
                use_scale_shift_norm: false,
                ..base.clone()
            },
            AdmConfig {
                resblock_updown: false,
                ..base.clone()
            },
            AdmConfig {
                time_adapter_rank: Some(0),
                ..base.clone()
            },
            AdmConfig {
                time_adapter_rank: Some(5),
                ..AdmConfig::adm_256()
            },
            AdmConfig {
                resblock_updown: false,
                conv_resample: false,
                ..base
            },
        ] {
            let specs = Unet::specs(&config).unwrap();
            let n: usize = specs
                .iter()
                .map(|spec| spec.shape.iter().product::<usize>())
                .sum();
            assert_eq!(config.cost([64; 2]).parameters, n);
        }
    }

    #[test]
    fn an_encoder_costs_less_than_half_of_its_network() {
        let config = AdmConfig::default();
        let (whole, encoder) = (config.cost([256; 2]), config.encoder_cost([256; 2]));
        assert!(2 * encoder.parameters < whole.parameters);
        assert!(2.0 * encoder.activation_bytes < whole.activation_bytes);
        assert!(2.0 * encoder.forward_flops < whole.forward_flops);
    }

    #[test]
    fn the_light_network_at_64_pixels_takes_the_published_operations() {
        // 98.1 GFLOP of convolutions for a batch of four, counted independently.
        let cost = AdmConfig::default().cost([64; 2]);
        let per_batch = 4.0 * cost.forward_flops / 1e9;
        assert!((96.0..105.0).contains(&per_batch), "{per_batch}");
        assert!(
            cost.recomputed_bytes < 0.6 * cost.activation_bytes,
            "{cost:?}"
        );
    }
}
