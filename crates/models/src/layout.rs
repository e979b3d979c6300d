//! The families of names that tensors have, and the names that the networks here give them.

use sdft_adm::{Encoder, Inferred, Unet, infer};
use sdft_checkpoint::Wanted;
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
}

/// The embedding of time, under its name in each layout.
pub(crate) const MARKS: &[&str] = &[ADM_MARK, UNET2D_MARK, EDM_MARK];
const ADM_MARK: &str = "time_embed.0.weight";
const UNET2D_MARK: &str = "time_embedding.linear_1.weight";
const EDM_MARK: &str = "map_layer0.weight";
/// The prefix of every name in NVlabs/edm's files.
pub(crate) const EDM_PREFIX: &str = "model.";

/// A U-Net.
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
        } else {
            Self::Adm
        }
    }

    /// The entries under the names that the network here gives them.
    pub(crate) fn named<T>(self, entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
        match self {
            Self::Adm => official(entries),
            Self::Unet2d => renamed(entries, |name| sdft_unet2d::modern_name(&name)),
            Self::Edm => renamed(entries, |name| match name.starts_with(EDM_PREFIX) {
                true => name,
                false => format!("{EDM_PREFIX}{name}"),
            }),
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
