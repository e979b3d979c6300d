//! Operations and memory of a network, counted from its configuration.

use crate::DitConfig;
use crate::embedding::FREQUENCIES;
use sdft_nn::{Cost, Tally};

impl DitConfig {
    /// The cost of the network for one image of this height and width.
    pub fn cost(&self, [height, width]: [usize; 2]) -> Cost {
        let (channels, patch) = (self.width(), self.patch_size.max(1));
        let tokens = ((height / patch) * (width / patch)) as f64;
        let mut tally = Tally::default();
        tally.conv(self.in_channels, channels, patch, tokens);
        let embedders = match self.shared_embedder {
            true => 1,
            false => self.num_layers,
        };
        for _ in 0..embedders {
            tally.conv(FREQUENCIES, channels, 1, 1.0);
            tally.conv(channels, channels, 1, 1.0);
            tally.parameters(self.rows() * channels);
        }
        for _ in 0..self.num_layers {
            tally.transformer(channels, self.attention_bias, tokens);
        }
        tally.conv(channels, 2 * channels, 1, 1.0);
        tally.conv(channels, patch * patch * self.out_channels, 1, tokens);
        tally.cost()
    }
}
