//! The families of names that tensors have, and the names that the networks here give them.

use candle_core::Tensor;
use sdft_adm::{Encoder, Inferred, Unet, infer};
use sdft_checkpoint::Wanted;
use sdft_dit::{OfficialNames, POSITIONS};
use sdft_nn::Mismatch;
use std::collections::BTreeMap;

pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// The names that the tensors of a file have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// guided-diffusion's, also of classifiers.
    Adm,
    /// diffusers' `UNet2DModel`.
    Unet2d,
    /// NVlabs/edm's.
    Edm,
    /// A DiT's, of diffusers or of the official code.
    Dit,
}

/// The embedding of time, or of patches, under its name in each layout.
pub(crate) const MARKS: &[&str] = &[
    ADM_MARK,
    UNET2D_MARK,
    EDM_MARK,
    DIT_MARK,
    OfficialNames::MARK,
];
const ADM_MARK: &str = "time_embed.0.weight";
const UNET2D_MARK: &str = "time_embedding.linear_1.weight";
const EDM_MARK: &str = "map_layer0.weight";
const DIT_MARK: &str = "pos_embed.proj.weight";
/// The prefix of every name in NVlabs/edm's files.
pub(crate) const EDM_PREFIX: &str = "model.";

/// A network that makes images.
pub(crate) const UNET: Wanted = Wanted {
    marks: MARKS,
    fits: |shapes| fits(shapes, Some(false)),
};
/// A classifier.
pub(crate) const ENCODER: Wanted = Wanted {
    marks: MARKS,
    fits: |shapes| fits(shapes, Some(true)),
};
/// Either.
pub(crate) const EITHER: Wanted = Wanted {
    marks: MARKS,
    fits: |shapes| fits(shapes, None),
};

impl Layout {
    /// The layout of these names; guided-diffusion's if they are unknown.
    pub(crate) fn of<T>(entries: &BTreeMap<String, T>) -> Self {
        let has = |name: &str| entries.contains_key(name);
        if has(UNET2D_MARK) {
            Self::Unet2d
        } else if has(EDM_MARK) || has(&format!("{EDM_PREFIX}{EDM_MARK}")) {
            Self::Edm
        } else if has(DIT_MARK) || has(OfficialNames::MARK) {
            Self::Dit
        } else {
            Self::Adm
        }
    }

    /// The entries under the names that the network here gives them.
    pub(crate) fn named<T: Rows>(self, entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
        match self {
            Self::Adm => official(entries),
            Self::Unet2d => renamed(entries, |name| sdft_unet2d::modern_name(&name)),
            Self::Edm => renamed(entries, |name| match name.starts_with(EDM_PREFIX) {
                true => name,
                false => format!("{EDM_PREFIX}{name}"),
            }),
            Self::Dit => dit(entries),
        }
    }
}

/// Whether names and shapes are those of a whole network, of either kind if `encoder` is `None`.
fn fits(shapes: &Shapes, encoder: Option<bool>) -> bool {
    let layout = Layout::of(shapes);
    let shapes = layout.named(shapes.clone());
    match layout {
        Layout::Adm => {
            let Ok(inferred) = infer(&shapes, None) else {
                return false;
            };
            let wanted = encoder.is_none_or(|encoder| encoder == inferred.pool.is_some());
            wanted && mismatch(&inferred, &shapes).is_none_or(|mismatch| mismatch.is_empty())
        }
        // The settings of these networks are in other files.
        Layout::Unet2d => {
            let parts = ["conv_in.weight", "conv_out.weight"];
            encoder != Some(true) && parts.iter().all(|name| shapes.contains_key(*name))
        }
        Layout::Edm => encoder != Some(true),
        Layout::Dit => {
            let parts = [
                "transformer_blocks.0.norm1.linear.weight",
                "proj_out_2.weight",
            ];
            encoder != Some(true) && parts.iter().all(|name| shapes.contains_key(*name))
        }
    }
}

/// The tensors that do not fit; `None` if the architecture cannot be built, because assumed groups of the norms do not divide the widths.
fn mismatch(inferred: &Inferred, shapes: &Shapes) -> Option<Mismatch> {
    let specs = match inferred.encoder() {
        Some(encoder) => Encoder::specs(&encoder),
        None => Unet::specs(&inferred.config),
    };
    Some(Mismatch::between(&specs.ok()?, shapes))
}

/// The entries under guided-diffusion's names. In EGSDE's classifiers the head has another name than `out`.
fn official<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    const THEIRS: &str = "I2Iout.";
    if entries.keys().any(|name| name.starts_with(THEIRS)) {
        entries.retain(|name, _| !name.starts_with("out."));
    }
    renamed(entries, |name| match name.strip_prefix(THEIRS) {
        Some(leaf) => format!("out.{leaf}"),
        None => name,
    })
}

/// What has rows: a tensor, or its shape.
pub(crate) trait Rows: Sized {
    /// One third of the rows, or `None` if they do not split.
    fn third(&self, i: usize) -> Option<Self>;
}

impl Rows for Vec<usize> {
    fn third(&self, _: usize) -> Option<Self> {
        let mut shape = self.clone();
        let rows = shape.first_mut()?;
        rows.is_multiple_of(3).then(|| *rows /= 3)?;
        Some(shape)
    }
}

impl Rows for Tensor {
    fn third(&self, i: usize) -> Option<Self> {
        let rows = *self.dims().first()?;
        let third = (rows.is_multiple_of(3)).then_some(rows / 3)?;
        self.narrow(0, i * third, third).ok()?.contiguous().ok()
    }
}

/// The entries under the names of diffusers' DiT.
fn dit<T: Rows>(entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    if !entries.contains_key(OfficialNames::MARK) {
        return entries;
    }
    let mut out = BTreeMap::new();
    for (name, entry) in entries {
        match OfficialNames::of(&name) {
            OfficialNames::One(new) => {
                out.insert(new, entry);
            }
            OfficialNames::Qkv(names) => {
                let thirds = [0, 1, 2].map(|i| entry.third(i));
                if thirds.iter().all(Option::is_some) {
                    out.extend(names.into_iter().zip(thirds.into_iter().flatten()));
                } else {
                    out.insert(name, entry);
                }
            }
        }
    }
    out
}

/// Takes the positions of a DiT, which are constants, out of the entries of an official file.
pub(crate) fn take_positions<T>(layout: Layout, entries: &mut BTreeMap<String, T>) -> Option<T> {
    match layout {
        Layout::Dit => entries.remove(POSITIONS),
        Layout::Adm | Layout::Unet2d | Layout::Edm => None,
    }
}

/// The entries under other names. Of two that get the same name, the second keeps its own, and is reported as unexpected.
fn renamed<T>(
    entries: BTreeMap<String, T>,
    rename: impl Fn(String) -> String,
) -> BTreeMap<String, T> {
    let mut out = BTreeMap::new();
    for (name, entry) in entries {
        let new = rename(name.clone());
        match out.contains_key(&new) {
            true => out.insert(name, entry),
            false => out.insert(new, entry),
        };
    }
    out
}
