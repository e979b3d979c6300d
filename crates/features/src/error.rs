//! What can go wrong with weights, tokenizers, texts and names.

use std::path::PathBuf;

/// An error of this crate; tensors have [`candle_core::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of weights cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] sdft_checkpoint::Error),
    /// The tensors of these files do not fit the network.
    #[error("{}{problem}", listed(files))]
    Weights {
        /// The files that were read together; empty if the tensors came from elsewhere.
        files: Vec<PathBuf>,
        /// What does not fit, and the likely cause where there is one.
        problem: String,
    },
    /// A network's configuration is not supported.
    #[error("{0}")]
    Config(String),
    /// A `tokenizer.json` cannot be used.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A text has no tokens that CLIP can use.
    #[error("the text {text:?} {problem}")]
    Text {
        /// The text.
        text: String,
        /// Why not.
        problem: String,
    },
    /// The name of a resize mode is unknown.
    #[error("unknown resize mode {found:?}, expected one of {expected}")]
    ResizeMode {
        /// The name.
        found: String,
        /// The valid names.
        expected: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    match names.is_empty() {
        true => String::new(),
        false => names.join(", ") + ": ",
    }
}
