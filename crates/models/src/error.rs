//! The error type.

use crate::form::MOST_SIDE;
use std::path::PathBuf;

/// A text from a file, cut to the length of a message.
pub(crate) fn brief(text: impl std::fmt::Display) -> String {
    cut(text, 160)
}

/// A text with parts from a file, cut after so many characters.
pub(crate) fn cut(text: impl std::fmt::Display, most: usize) -> String {
    let text = text.to_string();
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// The valid sides.
fn sides([multiple, rest]: [usize; 2]) -> String {
    match rest {
        0 => format!("sides that are multiples of {multiple}, up to {MOST_SIDE}"),
        _ => format!("sides that are multiples of {multiple}, plus {rest}, up to {MOST_SIDE}"),
    }
}

/// The nearest valid size.
fn nearest(size: [usize; 2], [multiple, rest]: [usize; 2]) -> String {
    let last = (MOST_SIDE - rest) / multiple;
    let [height, width] = size.map(|side| {
        let n = (side.min(MOST_SIDE) + multiple / 2).saturating_sub(rest) / multiple;
        let first = usize::from(rest == 0);
        n.clamp(first, last) * multiple + rest
    });
    format!("{height}x{width}")
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] sdft_checkpoint::Error),
    /// An adapter.
    #[error(transparent)]
    Adapter(#[from] sdft_adapters::Error),
    /// The contents of the file.
    #[error("{}: {problem}", path.display())]
    Problem {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The configuration contradicts the file.
    #[error("{}: {field}: the configuration says {given}, the file was made with {found}; drop the setting or the preset that has it, or choose a source model of this kind", path.display())]
    Conflict {
        /// The file.
        path: PathBuf,
        /// The key, as in a TOML file.
        field: String,
        /// The value in the configuration.
        given: String,
        /// The value in the file.
        found: String,
    },
    /// Names or shapes that do not fit the architecture.
    #[error("{}: the tensors do not fit the network\n{mismatch}{hints}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Everything that does not fit.
        mismatch: Box<sdft_nn::Mismatch>,
        /// Likely causes.
        hints: String,
    },
    /// A size that the network cannot run at.
    #[error("size {height}x{width} (height x width): expected {}; the nearest that fits is {}", sides(*.multiple), nearest([*.height, *.width], *.multiple))]
    Size {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Valid sides are `n * multiple[0] + multiple[1]`.
        multiple: [usize; 2],
    },
    /// A source model that cannot be adapted to its target.
    #[error("the source model cannot be adapted: {problem}")]
    Adapt {
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
