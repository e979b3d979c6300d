//! The parts of encoder and decoder.

use crate::block::Block;
use crate::layers::{Conv, ConvSpec, Make, Resize, Start, load_norm};
use crate::plan::{Change, Kind, Part, Plan};
use candle_core::{Result, Tensor, bail};
use sdft_nn::{EmbLayer, GroupNorm, Scope};
use sdft_noise::DropoutKey;

/// A part of encoder or decoder.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Conv(Conv),
    Block(Block),
    /// A block whose input is joined with an encoder result.
    Joined(Block),
    AuxDown(Resize),
    AuxSkip(Conv),
    AuxResidual(Conv),
    AuxUp(Resize),
    Output(GroupNorm, Conv),
}

impl Layer {
    pub(crate) fn load(scope: &Scope<'_>, plan: &Plan<'_>, part: &Part) -> Result<Self> {
        let make = Make::of(plan);
        let conv = |name: &str, c_in, c_out, k, start| {
            let spec = ConvSpec {
                c_in,
                c_out,
                k,
                change: Change::None,
                filter: plan.filter,
                fused: false,
                start,
                make,
            };
            Conv::load(&scope.pp(name), &spec)
        };
        let name = part.name.as_str();
        let resize = |change| Resize::load(&scope.pp(name), change, plan.filter);
        Ok(match &part.kind {
            Kind::Conv { c_in, c_out } => Self::Conv(conv(name, *c_in, *c_out, 3, Start::Usual)?),
            Kind::Block(spec) => {
                let block = Block::load(&scope.pp(name), plan, spec)?;
                match spec.joined {
                    true => Self::Joined(block),
                    false => Self::Block(block),
                }
            }
            Kind::AuxDown => Self::AuxDown(resize(Change::Down)?),
            Kind::AuxSkip { c_in, c_out } => {
                Self::AuxSkip(conv(name, *c_in, *c_out, 1, Start::Usual)?)
            }
            Kind::AuxResidual { c_in, c_out } => {
                let spec = ConvSpec {
                    c_in: *c_in,
                    c_out: *c_out,
                    k: 3,
                    change: Change::Down,
                    filter: plan.filter,
                    fused: true,
                    start: Start::Usual,
                    make,
                };
                Self::AuxResidual(Conv::load(&scope.pp(name), &spec)?)
            }
            Kind::AuxUp => Self::AuxUp(resize(Change::Up)?),
            Kind::Output {
                channels,
                conv: last,
            } => Self::Output(
                load_norm(&scope.pp(name), *channels, make)?,
                conv(last, *channels, plan.channels, 3, Start::Zero)?,
            ),
        })
    }

    /// The block, if it is one.
    pub(crate) fn block(&self) -> Option<&Block> {
        match self {
            Self::Block(block) | Self::Joined(block) => Some(block),
            _ => None,
        }
    }
}

/// Blocks with the embedding of one batch, which goes through the layers of all of them at once; used in order.
pub(crate) struct Embedded<'a>(std::vec::IntoIter<(&'a Block, Vec<Tensor>)>);

impl<'a> Embedded<'a> {
    /// `emb` is activated.
    pub(crate) fn of(blocks: impl Iterator<Item = &'a Block>, emb: &Tensor) -> Result<Self> {
        let blocks: Vec<_> = blocks.collect();
        let layers: Vec<_> = blocks.iter().map(|block| block.emb_layers()).collect();
        let modulations = EmbLayer::forward_each(&layers, emb)?;
        let embedded: Vec<_> = blocks.into_iter().zip(modulations).collect();
        Ok(Self(embedded.into_iter()))
    }

    /// The result of the next block.
    pub(crate) fn next(
        &mut self,
        x: &Tensor,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        let Some((block, modulations)) = self.0.next() else {
            bail!("expected another block");
        };
        match recomputed {
            true => block.recomputed(x, &modulations, key),
            false => block.forward(x, &modulations, key),
        }
    }
}
