//! Names and shapes in guided-diffusion's layout, for files in any layout.

use crate::diffusers::Layout;
use crate::error::ModelError;
use candle_core::Tensor;
use sdft_adm::{AdmConfig, Encoder, Inferred, Unet, infer};
use sdft_checkpoint::Wanted;
use sdft_nn::Mismatch;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// The embedding of time, under its names in both layouts.
const MARKS: &[&str] = &["time_embed.0.weight", "time_embedding.linear_1.weight"];

/// The name that a U-Net has.
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

/// Whether names and shapes are those of a whole network, of either kind if `encoder` is none.
fn fits(shapes: &Shapes, encoder: Option<bool>) -> bool {
    let shapes = official_shapes(shapes.clone());
    let Ok(inferred) = infer(&shapes, None) else {
        return false;
    };
    let wanted = encoder.is_none_or(|encoder| encoder == inferred.pool.is_some());
    wanted && mismatch(&inferred, &shapes).is_none_or(|mismatch| mismatch.is_empty())
}

/// The tensors that do not fit; none if the architecture cannot be built, because assumed groups of the norms do not divide the widths.
fn mismatch(inferred: &Inferred, shapes: &Shapes) -> Option<Mismatch> {
    let specs = match inferred.encoder() {
        Some(encoder) => Encoder::specs(&encoder),
        None => Unet::specs(&inferred.config),
    };
    Some(Mismatch::between(&specs.ok()?, shapes))
}

/// All tensors as guided-diffusion has them.
pub(crate) fn tensors(
    path: &Path,
    entries: BTreeMap<String, Tensor>,
    config: &AdmConfig,
) -> Result<HashMap<String, Tensor>, ModelError> {
    let entries = match Layout::of(&entries) {
        Some(layout) => {
            let joined = layout.tensors(entries, config);
            joined.map_err(|e| ModelError::Problem {
                path: path.to_owned(),
                problem: format!("diffusers' layout: {e}"),
            })?
        }
        None => official(entries),
    };
    Ok(entries.into_iter().collect())
}

/// Names and shapes of all tensors as guided-diffusion has them.
pub(crate) fn official_shapes(entries: Shapes) -> Shapes {
    match Layout::of(&entries) {
        Some(layout) => layout.shapes(entries),
        None => official(entries),
    }
}

/// The entries under guided-diffusion's names. In EGSDE's classifiers the head has another name than `out`.
fn official<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    const THEIRS: &str = "I2Iout.";
    if entries.keys().any(|name| name.starts_with(THEIRS)) {
        entries.retain(|name, _| !name.starts_with("out."));
    }
    let named = entries.into_iter().map(|(name, entry)| {
        let leaf = name.strip_prefix(THEIRS).map(|leaf| format!("out.{leaf}"));
        (leaf.unwrap_or(name), entry)
    });
    named.collect()
}
