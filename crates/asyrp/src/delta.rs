//! The block that changes `h`, and mixtures of blocks.

use candle_core::{Result, Tensor, bail};
use sdft_diffusion::Bottleneck;
use sdft_nn::{
    Activation, Conv2d, ConvStart, GroupNorm, Linear, ParamSource, ParamSpec, Scope, specs_of,
};

/// The block that moves `h`: two 1x1 convolutions with the embedding of time between them.
///
/// ```text
/// norm SiLU conv1x1  + linear(SiLU emb)  norm SiLU conv1x1
/// ```
/// Source: Asyrp `models/guided_diffusion/unet.py` `DeltaBlock`; its parameters have the published names.
#[derive(Clone, Debug)]
pub struct DeltaBlock {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    emb: Linear,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl DeltaBlock {
    /// The block whose parameters `source` holds, for a network with these sizes and norms of `groups`.
    ///
    /// # Errors
    /// Channels that `groups` does not divide; parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, bottleneck: Bottleneck, groups: usize) -> Result<Self> {
        Self::build(&Scope::root(source), bottleneck, groups)
    }

    /// Names, shapes and starts of its parameters.
    ///
    /// # Errors
    /// Channels that `groups` does not divide.
    pub fn specs(bottleneck: Bottleneck, groups: usize) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, bottleneck, groups))
    }

    /// The block below `scope`, as `layer_0` of a published checkpoint of a whole model.
    ///
    /// # Errors
    /// As [`DeltaBlock::load`].
    pub fn build(scope: &Scope<'_>, bottleneck: Bottleneck, groups: usize) -> Result<Self> {
        let Bottleneck {
            channels,
            embedding,
        } = bottleneck;
        let conv =
            |name: &str| Conv2d::load(&scope.pp(name), channels, channels, 1, 1, ConvStart::FanIn);
        Ok(Self {
            norm_in: GroupNorm::load(&scope.pp("in_layers.0"), channels, groups)?,
            conv_in: conv("in_layers.2")?,
            emb: Linear::load(&scope.pp("emb_layers.1"), embedding, channels)?,
            norm_out: GroupNorm::load(&scope.pp("out_layers.0"), channels, groups)?,
            conv_out: conv("out_layers.3")?,
        })
    }

    /// The movement `[B, C, H, W]` of `h` of the same shape; without the embedding it does not depend on the time.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward(&self, h: &Tensor, emb: Option<&Tensor>) -> Result<Tensor> {
        let mut moved = self
            .conv_in
            .forward(&self.norm_in.forward(h, Activation::Silu)?)?;
        if let Some(emb) = emb {
            let shift = self.emb.forward(&emb.silu()?)?;
            moved = moved.broadcast_add(&shift.unsqueeze(2)?.unsqueeze(3)?)?;
        }
        self.conv_out
            .forward(&self.norm_out.forward(&moved, Activation::Silu)?)
    }
}

/// A block and its strength.
#[derive(Clone, Copy, Debug)]
pub struct Direction<'a> {
    /// The block.
    pub block: &'a DeltaBlock,
    /// The factor of its output; 1 as in training.
    pub strength: f64,
}

/// Several directions at once.
#[derive(Clone, Debug)]
pub struct Mix<'a> {
    /// The factor of `h` itself.
    pub keep: f64,
    /// The directions.
    pub directions: Vec<Direction<'a>>,
    /// Whether blocks get the embedding of time.
    pub timed: bool,
}

impl<'a> Mix<'a> {
    /// These directions added to `h`, with the embedding of time.
    #[must_use]
    pub fn of(directions: Vec<Direction<'a>>) -> Self {
        Self {
            keep: 1.0,
            directions,
            timed: true,
        }
    }

    /// The changed features; `None` without directions.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn apply(&self, h: &Tensor, emb: &Tensor) -> Result<Option<Tensor>> {
        if self.directions.is_empty() {
            return Ok(None);
        }
        if !self.keep.is_finite() || self.directions.iter().any(|d| !d.strength.is_finite()) {
            bail!("strengths of directions: expected finite numbers, found NaN or infinity");
        }
        let mut changed = (h * self.keep)?;
        for direction in &self.directions {
            let moved = direction.block.forward(h, self.timed.then_some(emb))?;
            changed = (changed + (moved * direction.strength)?)?;
        }
        Ok(Some(changed))
    }
}
