//! The residual block with attention of both networks.

use crate::layers::{Conv, ConvSpec, Dense, Make, Resize, Start, load_norm};
use crate::plan::{BlockSpec, Change, Plan};
use candle_core::{Result, Tensor, bail};
use sdft_autograd::{
    add, add_per_channel, add_scaled, attention, flatten_space, heads_apart, recompute,
    unflatten_space,
};
use sdft_kernels::{Activation, AttentionOrder};
use sdft_nn::{Dropout, EmbLayer, GroupNorm, OwnedKey, Scope, TimeAdapter};
use sdft_noise::DropoutKey;

/// A residual block that may change the resolution and end in self-attention.
///
/// Source: NVlabs/edm `UNetBlock`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    norm0: GroupNorm,
    conv0: Conv,
    affine: Dense,
    norm1: GroupNorm,
    dropout: Dropout,
    conv1: Conv,
    skip: Skip,
    attention: Option<Attention>,
    make: Make,
}

/// The path around the convolutions.
#[derive(Clone, Debug)]
enum Skip {
    Identity,
    Conv(Conv),
    Resize(Resize),
}

#[derive(Clone, Debug)]
struct Attention {
    norm: GroupNorm,
    qkv: Conv,
    adapter: Option<TimeAdapter>,
    proj: Conv,
    heads: usize,
}

impl Block {
    /// Keys `norm0`, `conv0`, `affine`, `norm1`, `conv1`, `skip`, `norm2`, `qkv`, `proj`, `adapter`.
    pub(crate) fn load(scope: &Scope<'_>, plan: &Plan<'_>, spec: &BlockSpec) -> Result<Self> {
        let BlockSpec {
            c_in,
            c_out,
            change,
            ..
        } = *spec;
        let make = Make::of(plan);
        let conv = |name: &str, c_in, c_out, k, change, start| {
            let spec = ConvSpec {
                c_in,
                c_out,
                k,
                change,
                filter: plan.filter,
                fused: false,
                start,
                make,
            };
            Conv::load(&scope.pp(name), &spec)
        };
        let same = Change::None;
        let adapter = |rank| {
            let scope = scope.pp(TimeAdapter::NAME);
            TimeAdapter::load(&scope, c_out, plan.emb(), rank)
        };
        let emb_out = match make {
            Make::Song => c_out,
            Make::Dhariwal => 2 * c_out,
        };
        Ok(Self {
            norm0: load_norm(&scope.pp("norm0"), c_in, make)?,
            conv0: conv("conv0", c_in, c_out, 3, change, Start::Usual)?,
            affine: Dense::load(&scope.pp("affine"), plan.emb(), emb_out, make)?,
            norm1: load_norm(&scope.pp("norm1"), c_out, make)?,
            dropout: Dropout::new(plan.dropout, scope.prefix()),
            conv1: conv("conv1", c_out, c_out, 3, same, Start::Zero)?,
            skip: if c_in == c_out && change == same {
                Skip::Identity
            } else if c_in != c_out || make == Make::Song {
                Skip::Conv(conv("skip", c_in, c_out, 1, change, Start::Usual)?)
            } else {
                Skip::Resize(Resize::load(&scope.pp("skip"), change, plan.filter)?)
            },
            attention: if spec.attention {
                Some(Attention {
                    norm: load_norm(&scope.pp("norm2"), c_out, make)?,
                    qkv: conv("qkv", c_out, 3 * c_out, 1, same, Start::Attention)?,
                    proj: conv("proj", c_out, c_out, 1, same, Start::Zero)?,
                    adapter: plan.time_adapter_rank.map(adapter).transpose()?,
                    heads: plan.heads(c_out),
                })
            } else {
                None
            },
            make,
        })
    }

    /// The layers of the activated embedding: that of the block, and that of its adapter if there is one.
    pub(crate) fn emb_layers(&self) -> Vec<EmbLayer<'_>> {
        let attention = self.attention.as_ref();
        let adapter = attention.and_then(|attention| attention.adapter.as_ref());
        let of_adapter = adapter.map(|adapter| adapter.emb_layer().without_nonlinearity());
        [self.affine.of_embedding()]
            .into_iter()
            .chain(of_adapter)
            .collect()
    }

    /// `x` `[B, C_in, H, W]` and the results of [`Self::emb_layers`] to `[B, C_out, H', W']`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        modulations: &[Tensor],
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let [scale_shift, of_adapter @ ..] = modulations else {
            bail!("expected the embedding of a block, found none");
        };
        let h = self
            .conv0
            .forward(&self.norm0.forward(x, Activation::Silu)?)?;
        let h = match self.make {
            Make::Song => {
                let h = add_per_channel(&h, scale_shift)?;
                self.norm1.forward(&h, Activation::Silu)?
            }
            Make::Dhariwal => self
                .norm1
                .modulated(&h, Some(scale_shift), Activation::Silu)?,
        };
        let h = self.conv1.forward(&self.dropout.forward(&h, key)?)?;
        let x = match &self.skip {
            Skip::Identity => x.clone(),
            Skip::Conv(conv) => conv.forward(x)?,
            Skip::Resize(resize) => resize.forward(x)?,
        };
        let x = self.sum(&h, &x)?;
        match &self.attention {
            Some(attention) => self.sum(&attention.forward(&x, of_adapter.first())?, &x),
            None => Ok(x),
        }
    }

    /// [`Self::forward`], which keeps only its inputs for the backward pass.
    pub(crate) fn recomputed(
        &self,
        x: &Tensor,
        modulations: &[Tensor],
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let (block, key) = (self.clone(), key.map(OwnedKey::new));
        let inputs: Vec<_> = [x].into_iter().chain(modulations).collect();
        recompute(&inputs, move |inputs| {
            let key = key.as_ref().map(OwnedKey::lend);
            block.forward(&inputs[0], &inputs[1..], key.as_ref())
        })
    }

    /// The sum of a branch and its input, with unit variance in `SongUNet`.
    fn sum(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self.make {
            Make::Song => add_scaled(a, b, 0.5f64.sqrt()),
            Make::Dhariwal => add(a, b),
        }
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, modulation: Option<&Tensor>) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let normed = self.norm.forward(x, Activation::None)?;
        let (weight, bias) = self.qkv.parameters();
        // Queries, keys and values alternate in the file.
        let (weight, bias) = (
            heads_apart(weight, self.heads)?,
            heads_apart(bias, self.heads)?,
        );
        let qkv = sdft_autograd::conv2d(&normed, &weight, &bias, 1, [0; 2])?;
        let out = attention(&flatten_space(&qkv)?, self.heads, AttentionOrder::Legacy)?;
        let out = match (&self.adapter, modulation) {
            (None, _) => out,
            (Some(adapter), Some(modulation)) => adapter.forward_modulated(&out, modulation)?,
            (Some(_), None) => bail!("expected the embedding of an adapter, found none"),
        };
        self.proj.forward(&unflatten_space(&out, h, w)?)
    }
}
