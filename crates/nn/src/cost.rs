//! Operations and memory of a network, counted from its configuration.

/// The cost of a network for one image of its own size.
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

/// Adds up the cost of a network, layer by layer.
#[derive(Clone, Debug, Default)]
pub struct CostTally {
    flops: f64,
    values: f64,
    /// Values between blocks, and inside the largest of them.
    between: f64,
    largest: f64,
    parameters: usize,
}

impl CostTally {
    /// The cost of everything that was added.
    pub fn cost(&self) -> Cost {
        Cost {
            forward_flops: self.flops,
            activation_bytes: 4.0 * self.values,
            recomputed_bytes: 4.0 * (self.between + self.largest),
            parameters: self.parameters,
        }
    }

    /// Adds parameters that take no operations worth counting.
    pub fn parameters(&mut self, n: usize) {
        self.parameters += n;
    }

    /// Adds a convolution with square filters of side `k` and a bias at so many pixels; a dense layer has `k = 1` at one pixel.
    pub fn conv(&mut self, c_in: usize, c_out: usize, k: usize, pixels: f64) {
        self.flops += 2.0 * (k * k * c_in * c_out) as f64 * pixels;
        self.parameters += k * k * c_in * c_out + c_out;
    }

    /// Adds the saved values of a block: those inside, and its output with a concatenated input, if it has one.
    pub fn keep(&mut self, inside: usize, outside: usize, pixels: f64) {
        let all = (inside + outside) as f64 * pixels;
        self.values += all;
        self.between += outside as f64 * pixels;
        self.largest = self.largest.max(all);
    }

    /// Adds an attention block over all pixels: norm, queries, keys, values, their product, a projection.
    pub fn attention(&mut self, channels: usize, pixels: f64) {
        self.conv(channels, 3 * channels, 1, pixels);
        self.conv(channels, channels, 1, pixels);
        self.flops += 4.0 * channels as f64 * pixels * pixels;
        self.parameters += 2 * channels;
        // The norm; queries, keys, values and their result; the sum.
        self.keep(5 * channels, channels, pixels);
    }
}
