//! Operations and memory of a network, counted block by block.

use crate::time_adapter::TimeAdapter;

/// The cost of a network for one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Floating-point operations of one forward pass (a multiplication and an addition are two).
    pub forward_flops: f64,
    /// Bytes of the values that are saved for a backward pass in f32.
    pub activation_bytes: f64,
    /// The same with recomputed blocks: their inputs and outputs, and everything inside the largest.
    pub recomputed_bytes: f64,
    /// Number of parameters.
    pub parameters: usize,
}

/// The sums of a [`Cost`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    flops: f64,
    values: f64,
    /// Values between blocks, and inside the largest of them.
    between: f64,
    largest: f64,
    parameters: usize,
}

impl Tally {
    /// The cost of what was added.
    pub fn cost(&self) -> Cost {
        Cost {
            forward_flops: self.flops,
            activation_bytes: 4.0 * self.values,
            recomputed_bytes: 4.0 * (self.between + self.largest),
            parameters: self.parameters,
        }
    }

    /// Adds parameters that take no time worth counting: tables, norms.
    pub fn parameters(&mut self, n: usize) {
        self.parameters += n;
    }

    /// Adds a convolution with `k x k` filters and this many output pixels; a dense layer has one.
    pub fn conv(&mut self, c_in: usize, c_out: usize, k: usize, pixels: f64) {
        self.flops += 2.0 * (k * k * c_in * c_out) as f64 * pixels;
        self.parameters += k * k * c_in * c_out + c_out;
    }

    /// Adds the saved values of a block: those inside, and its output with a concatenated input, if it has one.
    fn keep(&mut self, inside: usize, outside: usize, pixels: f64) {
        let all = (inside + outside) as f64 * pixels;
        self.values += all;
        self.between += outside as f64 * pixels;
        self.largest = self.largest.max(all);
    }

    /// Adds a residual block with an embedding of `emb` values, which is projected to `emb_out` and whose input is concatenated from two
    /// tensors (`joined`) or the output of the previous block.
    pub fn residual(
        &mut self,
        [c_in, c_out]: [usize; 2],
        [emb, emb_out]: [usize; 2],
        pixels: f64,
        joined: bool,
    ) {
        self.conv(c_in, c_out, 3, pixels);
        self.conv(c_out, c_out, 3, pixels);
        self.conv(emb, emb_out, 1, 1.0);
        if c_in != c_out {
            self.conv(c_in, c_out, 1, pixels);
        }
        self.parameters += 2 * (c_in + c_out);
        let input = if joined { c_in } else { 0 };
        // Both norms and the first convolution; the sum.
        self.keep(c_in + 2 * c_out, c_out + input, pixels);
    }

    /// Adds a self-attention block whose heads have `inner` channels together, without its norm's parameters.
    pub fn attention(&mut self, channels: usize, inner: usize, pixels: f64) {
        self.conv(channels, 3 * inner, 1, pixels);
        self.conv(inner, channels, 1, pixels);
        self.flops += 4.0 * inner as f64 * pixels * pixels;
        // The norm; queries, keys, values and their result; the sum.
        self.keep(channels + 4 * inner, channels, pixels);
    }

    /// Adds a block of a DiT: attention and a dense layer four times as wide, both modulated by an embedding of the same width; queries,
    /// keys and values have a bias if `has_bias`.
    pub fn transformer(&mut self, channels: usize, has_bias: bool, tokens: f64) {
        self.flops += (2 * channels * 3 * channels) as f64 * tokens;
        self.parameters += 3 * channels * (channels + usize::from(has_bias));
        self.flops += 4.0 * channels as f64 * tokens * tokens;
        self.conv(channels, channels, 1, tokens);
        self.conv(channels, 4 * channels, 1, tokens);
        self.conv(4 * channels, channels, 1, tokens);
        self.conv(channels, 6 * channels, 1, 1.0);
        // Norm, queries, keys, values, attention, projection and sum; norm, both sides of GELU, the last layer; the sum.
        self.keep(17 * channels, channels, tokens);
    }

    /// Adds the [`TimeAdapter`] of an attention block whose heads have `inner` channels together.
    pub fn time_adapter(&mut self, inner: usize, emb: usize, rank: usize, pixels: f64) {
        let rank = TimeAdapter::width(inner, rank);
        self.conv(inner, rank, 1, pixels);
        self.conv(rank, inner, 1, pixels);
        self.conv(emb, 2 * rank, 1, 1.0);
        // The norm's scale and shift, and no bias before it.
        self.parameters(rank);
        // Both sides of the norm, and the result.
        self.keep(2 * rank + inner, 0, pixels);
    }
}
