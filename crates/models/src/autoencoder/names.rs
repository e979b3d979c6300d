//! The names and shapes of an autoencoder's tensors in its files.

use crate::layout::Shapes;
use sdft_autoencoder::{current_names, infer};
use sdft_checkpoint::Wanted;
use std::collections::BTreeMap;

/// In files of all layouts; no diffusion model has it.
pub(super) const MARK: &str = "decoder.conv_in.weight";

/// An autoencoder.
pub(crate) const AUTOENCODER: Wanted = Wanted {
    marks: &[MARK],
    fits: |shapes| infer(&named_shapes(shapes.clone())).is_ok(),
};

/// The prefix of an autoencoder's names in CompVis' file of a whole model.
pub(crate) const FIRST_STAGE: &str = "first_stage_model.";

/// What the latents of a whole model are multiplied by, if it was measured (`scale_by_std`).
pub(crate) const SCALE: &str = "scale_factor";

/// Tensors of the training that the network does not have: of the losses, and averages under names without dots.
pub(super) const IGNORED: [&str; 2] = ["loss.", "model_ema."];

/// The entries under current names, without those of the training.
pub(crate) fn named<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    entries.retain(|name, _| !IGNORED.iter().any(|prefix| name.starts_with(prefix)));
    current_names(entries)
}

/// Names and shapes as the network has them.
pub(super) fn named_shapes(shapes: Shapes) -> Shapes {
    let named = named(shapes);
    let shapes = named.into_iter().map(|(name, dims)| {
        let shape = shape(&name, &dims);
        (name, shape)
    });
    shapes.collect()
}

/// The shape of a tensor in the network: dense layers of attention are 1x1 convolutions in older files.
pub(super) fn shape(name: &str, dims: &[usize]) -> Vec<usize> {
    match *dims {
        [rows, columns, 1, 1] if name.contains(".attentions.") => vec![rows, columns],
        _ => dims.to_vec(),
    }
}
