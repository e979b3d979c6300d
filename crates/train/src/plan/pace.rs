//! The length of a run, its batches and its precision.

use super::Accumulate;
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// The type of the feature maps, and the precision of products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// On the CPU f32 to train, and bf16 to make and measure images on processors with a matrix unit; on a GPU bf16 if it has it, else f16.
    /// Resolved before a run starts.
    #[default]
    Auto,
    /// f32; on a GPU with algorithms that return the same bits every time.
    F32,
    /// f32 maps; a GPU rounds factors of products to tf32.
    Tf32,
    /// bf16 maps, f32 weights, norms and loss.
    Bf16,
    /// f16 maps, f32 weights, norms and loss; the loss is scaled.
    F16,
}

impl Precision {
    /// Its name in plans and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The type of feature maps.
    pub fn compute_dtype(self) -> DType {
        match self {
            Self::Auto | Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Length and batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoopPlan {
    /// Optimiser steps.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Images that go through the network at once; 0 means the whole batch.
    pub micro_batch: usize,
    /// The backward pass computes values inside the network's blocks again instead of keeping them: less memory, more time, the same
    /// result up to rounding.
    pub recompute: bool,
    /// The type of the feature maps.
    pub precision: Precision,
    /// How micro-batches add up.
    pub accumulate: Accumulate,
    /// Steps in a row whose loss or gradient is not finite before the run stops.
    pub max_skips: u64,
}

impl LoopPlan {
    /// Images that go through the network at once.
    pub fn at_once(&self) -> usize {
        match self.micro_batch {
            0 => self.batch,
            n => n.min(self.batch),
        }
    }
}

impl Default for LoopPlan {
    fn default() -> Self {
        Self {
            steps: 80_000,
            batch: 8,
            micro_batch: 0,
            recompute: false,
            precision: Precision::Auto,
            accumulate: Accumulate::Mean,
            max_skips: 5,
        }
    }
}
