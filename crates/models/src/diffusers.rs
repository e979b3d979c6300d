//! diffusers' layout of ADM's weights (`UNet2DModel`): other names, and queries, keys and values apart.

use candle_core::{Result, Tensor};
use sdft_adm::AdmConfig;
use std::collections::BTreeMap;

/// How a tensor changes in addition to its name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Nothing.
    Whole,
    /// A linear layer that ADM has as a convolution: `[out, in]` becomes `[out, in, 1]`.
    Projection,
    /// Queries, keys or values (0, 1, 2), a third of ADM's `qkv`.
    Third(usize),
}

/// Names of a file in this layout.
pub(crate) struct Layout {
    /// Residual blocks of a level on the way down.
    n_res: usize,
    /// Levels whose way up ends in attention, before the upsampler.
    attends_last: Vec<bool>,
}

impl Layout {
    /// The layout, if these names are diffusers'.
    pub(crate) fn of<T>(entries: &BTreeMap<String, T>) -> Option<Self> {
        let has = |name: &str| entries.contains_key(name);
        if !has("conv_in.weight") || !has("time_embedding.linear_1.weight") {
            return None;
        }
        let count = |prefix: &str, leaf: &str| {
            (0..)
                .take_while(|i| has(&format!("{prefix}{i}{leaf}")))
                .count()
        };
        let n_res = count("down_blocks.0.resnets.", ".conv1.weight");
        let levels = count("up_blocks.", ".resnets.0.conv1.weight");
        let attends_last = (0..levels).map(|i| {
            let last = format!("up_blocks.{i}.attentions.{n_res}.group_norm.weight");
            has(&last)
        });
        Some(Self {
            n_res,
            attends_last: attends_last.collect(),
        })
    }

    /// ADM's name of a tensor; `None` for tensors that ADM does not have.
    fn adm(&self, name: &str) -> Option<(String, Part)> {
        let whole = |name: String| Some((name, Part::Whole));
        let fixed = [
            ("time_embedding.linear_1.", "time_embed.0."),
            ("time_embedding.linear_2.", "time_embed.2."),
            ("class_embedding.", "label_emb."),
            ("conv_in.", "input_blocks.0.0."),
            ("conv_norm_out.", "out.0."),
            ("conv_out.", "out.2."),
        ];
        for (theirs, ours) in fixed {
            if let Some(leaf) = name.strip_prefix(theirs) {
                return whole(format!("{ours}{leaf}"));
            }
        }
        let (block, name) = match name.split_once('.')? {
            ("mid_block", name) => (None, name),
            ("down_blocks", name) => {
                let (level, name) = numbered(name)?;
                (Some((false, level)), name)
            }
            ("up_blocks", name) => {
                let (level, name) = numbered(name)?;
                (Some((true, level)), name)
            }
            _ => return None,
        };
        let (kind, name) = name.split_once('.')?;
        let (i, leaf) = numbered(name)?;
        let step = self.n_res + 1;
        let place = match (block, kind) {
            (None, "resnets") => format!("middle_block.{}", 2 * i),
            (None, "attentions") => "middle_block.1".to_owned(),
            (Some((false, level)), "resnets") => format!("input_blocks.{}.0", 1 + level * step + i),
            (Some((false, level)), "attentions") => {
                format!("input_blocks.{}.1", 1 + level * step + i)
            }
            (Some((false, level)), "downsamplers") => {
                format!("input_blocks.{}.0", (level + 1) * step)
            }
            (Some((true, level)), "resnets") => format!("output_blocks.{}.0", level * step + i),
            (Some((true, level)), "attentions") => format!("output_blocks.{}.1", level * step + i),
            (Some((true, level)), "upsamplers") => {
                let after = 1 + usize::from(*self.attends_last.get(level)?);
                format!("output_blocks.{}.{after}", level * step + self.n_res)
            }
            _ => return None,
        };
        let (module, kind_of) = leaf.rsplit_once('.')?;
        let (module, part) = match (kind, module) {
            ("attentions", "group_norm") => ("norm", Part::Whole),
            ("attentions", "to_q" | "query") => ("qkv", Part::Third(0)),
            ("attentions", "to_k" | "key") => ("qkv", Part::Third(1)),
            ("attentions", "to_v" | "value") => ("qkv", Part::Third(2)),
            ("attentions", "to_out.0" | "proj_attn") => ("proj_out", Part::Projection),
            // Sampling by a convolution, where ADM's own is not by a residual block.
            ("downsamplers", "conv") => ("op", Part::Whole),
            ("upsamplers", "conv") => ("conv", Part::Whole),
            (_, "norm1") => ("in_layers.0", Part::Whole),
            (_, "conv1") => ("in_layers.2", Part::Whole),
            (_, "time_emb_proj") => ("emb_layers.1", Part::Whole),
            (_, "norm2") => ("out_layers.0", Part::Whole),
            (_, "conv2") => ("out_layers.3", Part::Whole),
            (_, "conv_shortcut") => ("skip_connection", Part::Whole),
            _ => return None,
        };
        Some((format!("{place}.{module}.{kind_of}"), part))
    }

    /// Names and shapes as ADM has them. A tensor that ADM does not have keeps its name and is reported as unexpected.
    pub(crate) fn shapes(
        &self,
        theirs: BTreeMap<String, Vec<usize>>,
    ) -> BTreeMap<String, Vec<usize>> {
        let mut ours = BTreeMap::new();
        for (name, mut shape) in theirs {
            let Some((name, part)) = self.adm(&name) else {
                ours.insert(name, shape);
                continue;
            };
            match part {
                Part::Whole => {}
                Part::Projection => widen(&name, &mut shape),
                Part::Third(_) => {
                    widen(&name, &mut shape);
                    // A missing third is reported when the tensors are joined.
                    if let Some(rows) = shape.first_mut() {
                        *rows = rows.saturating_mul(3);
                    }
                }
            }
            ours.insert(name, shape);
        }
        ours
    }

    /// Tensors as ADM has them, with queries, keys and values in the order that `config` says.
    pub(crate) fn tensors(
        &self,
        theirs: BTreeMap<String, Tensor>,
        config: &AdmConfig,
    ) -> Result<BTreeMap<String, Tensor>> {
        let mut ours = BTreeMap::new();
        let mut thirds: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
        for (name, tensor) in theirs {
            let Some((adm, part)) = self.adm(&name) else {
                ours.insert(name, tensor);
                continue;
            };
            match part {
                Part::Whole => {
                    ours.insert(adm, tensor);
                }
                Part::Projection => {
                    let tensor = flat(&adm, tensor)?;
                    ours.insert(adm, tensor);
                }
                Part::Third(i) => {
                    let tensor = flat(&adm, tensor)?;
                    thirds.entry(adm).or_default()[i] = Some(tensor);
                }
            }
        }
        for (name, parts) in thirds {
            let [Some(q), Some(k), Some(v)] = parts else {
                candle_core::bail!("{name}: queries, keys or values are missing");
            };
            let channels = q.dim(0)?;
            let heads = match name.starts_with("output_blocks.") {
                true => config.decoder_heads(channels),
                false => config.heads(channels),
            };
            let heads = if config.use_new_attention_order {
                1
            } else {
                heads
            };
            ours.insert(name, joined(&[q, k, v], heads)?);
        }
        Ok(ours)
    }
}

/// `12.rest` as its number and the rest.
fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A linear layer's weight as that of a convolution over one place; biases stay.
fn widen(name: &str, shape: &mut Vec<usize>) {
    if name.ends_with("weight") && shape.len() == 2 {
        shape.push(1);
    }
}

fn flat(name: &str, tensor: Tensor) -> Result<Tensor> {
    match name.ends_with("weight") && tensor.rank() == 2 {
        true => tensor.unsqueeze(2),
        false => Ok(tensor),
    }
}

/// One tensor of three, head after head: the queries, keys and values of each. With one head it is ADM's new order.
fn joined(parts: &[Tensor; 3], heads: usize) -> Result<Tensor> {
    let channels = parts[0].dim(0)?;
    if heads == 0 || !channels.is_multiple_of(heads) {
        candle_core::bail!("{channels} channels do not split into {heads} attention heads");
    }
    let width = channels / heads;
    let mut slices = Vec::with_capacity(3 * heads);
    for head in 0..heads {
        for part in parts {
            slices.push(part.narrow(0, head * width, width)?);
        }
    }
    Tensor::cat(&slices, 0)
}
