//! Options of reading, and the result.

use crate::dtype::Dtype;
use crate::select::{Prefer, Wanted};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt;

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The part to take, as a dotted path; chosen by `prefer` if not given.
    pub key: Option<String>,
    /// The weights to take if a file has both.
    pub prefer: Prefer,
    /// Keep f16, bf16 and f64 instead of reading everything as f32.
    pub keep_dtype: bool,
    /// The network whose weights are needed; if none, the largest dictionary of tensors is taken.
    pub wanted: Option<Wanted>,
    /// Accept values that are NaN or infinite, which are an error otherwise.
    pub allow_non_finite: bool,
    /// A single number in the dictionary of the weights that is read in addition, such as CompVis' `scale_factor`.
    pub number: Option<&'static str>,
}

/// The kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// PyTorch, zip archive.
    TorchZip,
    /// PyTorch before 1.6.
    TorchLegacy,
    /// A pickle without a container, such as NVIDIA's snapshots of networks.
    Pickle,
    /// safetensors.
    Safetensors,
    /// Several files, and the index with the file of each tensor.
    Shards,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch (zip)",
            Self::TorchLegacy => "PyTorch (legacy)",
            Self::Pickle => "pickle",
            Self::Safetensors => "safetensors",
            Self::Shards => "several files with an index",
        })
    }
}

/// One tensor of a file, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type of its numbers in the file.
    pub dtype: Dtype,
}

/// The contents of a file, without its numbers.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The kind of file.
    pub container: Container,
    /// Its length in bytes.
    pub file_size: u64,
    /// The part that was taken, if the weights are not at the top.
    pub nested_under: Option<String>,
    /// Other parts that hold tensors.
    pub alternatives: Vec<String>,
    /// Names of other tensors in the dictionary of the weights, which were left out; long names are cut.
    pub left_out: Vec<String>,
    /// The prefix that was removed from every name, such as `module.` (`DataParallel`) or `_orig_mod.` (`torch.compile`).
    pub prefix: String,
    /// Notes for the user about how the weights were selected.
    pub notes: Vec<String>,
    /// Names of Python objects in the file that were not created, because that would execute code.
    pub opaque: Vec<String>,
    /// All tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Number of scalars in floating-point tensors.
    pub n_parameters: u64,
    /// Number of tensors of each type.
    pub dtypes: BTreeMap<Dtype, usize>,
    /// safetensors' metadata; of a pickled network its constructor, under [`CONSTRUCTOR_KEY`](crate::CONSTRUCTOR_KEY).
    pub metadata: BTreeMap<String, String>,
}

/// Named tensors from a file, on the CPU, in the order of the file.
#[derive(Clone, Debug)]
pub struct StateDict {
    pub(crate) entries: Vec<(String, Tensor)>,
    /// The number of [`ReadOptions::number`], if the file has it.
    pub number: Option<f64>,
    /// Everything else about the file.
    pub summary: Summary,
}

impl StateDict {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, tensor)| tensor)
    }

    /// Names and tensors, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Shapes by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.iter()
            .map(|(name, tensor)| (name.to_owned(), tensor.dims().to_vec()))
            .collect()
    }

    /// The metadata of the summary.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.summary.metadata
    }

    /// The tensors by name.
    pub fn into_map(self) -> BTreeMap<String, Tensor> {
        self.entries.into_iter().collect()
    }

    /// Notes for the user about how the file was read.
    pub fn notes(&self) -> Vec<String> {
        self.summary.notes.clone()
    }
}
