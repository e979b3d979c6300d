//! How images get the size of a data set.

use serde::{Deserialize, Serialize};

/// How an image gets the size of a data set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Resized to cover the size, and the middle is taken.
    #[default]
    Crop,
    /// Resized to cover the size, and a random part is taken.
    RandomCrop,
    /// Resized to fit inside, on the background.
    Pad,
    /// Stretched.
    Resize,
}
