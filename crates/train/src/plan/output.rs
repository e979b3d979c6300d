//! What a run writes.

use serde::{Deserialize, Serialize};

/// The form of a finished model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelFormat {
    /// `final.safetensors` only.
    #[default]
    Safetensors,
    /// Also a folder `diffusers` that diffusers' `DDPMPipeline` loads.
    Diffusers,
}

impl ModelFormat {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputPlan {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Steps between two sample grids; 0 draws only the last.
    pub sample_every: u64,
    /// Images in a grid.
    pub samples: usize,
    /// Steps of the sampler behind the grids, as a respacing.
    pub sampler: String,
    /// Steps between two checkpoints; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
    /// The form of the finished model: `safetensors` or `diffusers`; written only if it is `diffusers`.
    #[serde(skip_serializing_if = "ModelFormat::is_default")]
    pub format: ModelFormat,
}

impl Default for OutputPlan {
    fn default() -> Self {
        Self {
            log_every: 10,
            sample_every: 1000,
            samples: 16,
            sampler: "ddim40".into(),
            checkpoint_every: 1000,
            keep: 3,
            format: ModelFormat::Safetensors,
        }
    }
}
