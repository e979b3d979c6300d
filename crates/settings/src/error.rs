//! Errors of settings. The user can correct each of them.

use std::io;

/// The result of reading settings.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is neither a preset nor a file.
    #[error("--config {name}: neither a file nor a preset ({presets}){hint}")]
    UnknownPreset {
        /// The name.
        name: String,
        /// All presets.
        presets: String,
        /// The presets with similar names, as a question; empty without any.
        hint: String,
    },
    /// A configuration file that cannot be read.
    #[error("cannot read the configuration {name}: {source}")]
    Read {
        /// Its path.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// Text that is not TOML, an unknown key, or an invalid value.
    #[error("{origin}: {problem}")]
    Invalid {
        /// A preset, a file, an assignment, or the key.
        origin: String,
        /// What was expected and what was found.
        problem: String,
    },
}

impl Error {
    /// Whether the settings have to change. A file that cannot be read is a failure.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }

    pub(crate) fn invalid(origin: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            origin: origin.into(),
            problem: problem.into(),
        }
    }
}
