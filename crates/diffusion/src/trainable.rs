//! Networks that can be trained: their variables, their predictions, and the metadata of their files.

use crate::Prediction;
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};
use candle_nn::VarMap;
use sdft_noise::DropoutKey;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// The key of a network's kind in the metadata of its file.
pub const KIND_KEY: &str = "sdft.kind";
/// The key of a network's configuration in the metadata of its file.
pub const MODEL_KEY: &str = "sdft.model";
/// The key of the form of the images in the metadata of a network's file.
pub const IMAGE_KEY: &str = "sdft.image";
/// The key of the names of the classes in the metadata of a network's file.
pub const CLASSES_KEY: &str = "sdft.classes";
/// The key of the autoencoder in whose latents a network works, in the metadata of its file.
pub const AUTOENCODER_KEY: &str = "sdft.autoencoder";
/// The key of the diffusion process in the metadata of a network's file.
pub const PROCESS_KEY: &str = "sdft.process";
/// The prefix of the keys of a file's provenance.
pub const PROVENANCE_PREFIX: &str = "sdft.provenance.";

/// The inputs of a network in addition to the noised images and the timesteps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// The class of each image. Class-conditional networks require it; others refuse it.
    ///
    /// The null class of an EDM network is the label `label_dim`, a zero vector. Other networks have it as a row of their table.
    pub labels: Option<&'a [u32]>,
    /// Augmentation labels, `[B, A]`. Networks without such an input refuse them; `None` is zeros.
    pub augment: Option<&'a Tensor>,
    /// The address of the dropout masks. `None` evaluates without dropout.
    pub dropout: Option<DropoutKey<'a>>,
}

impl Condition<'_> {
    /// For networks without augmentation labels.
    ///
    /// # Errors
    /// There are augmentation labels.
    pub fn check_no_augment(&self) -> Result<()> {
        match self.augment {
            None => Ok(()),
            Some(_) => bail!("expected no augmentation labels: the network has no input for them"),
        }
    }
}

/// How a network computes between its input and its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeMode {
    /// The type of the feature maps. Parameters and gradients are f32.
    pub dtype: DType,
    /// Whether the backward pass computes values inside blocks again instead of keeping them.
    pub recompute: bool,
}

impl Default for ComputeMode {
    /// f32, without recomputation.
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            recompute: false,
        }
    }
}

/// A network that can be trained.
///
/// Two methods are enough. The others describe networks that are made from a file, or that do more than plain f32.
///
/// # Example: a network of candle-nn layers
/// ```
/// use candle_core::{DType, Device, Result, Tensor, Var};
/// use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, VarMap, conv2d};
/// use sdft_diffusion::{Condition, Prediction, Trainable, named_vars};
///
/// struct Net {
///     vars: VarMap,
///     conv: Conv2d,
/// }
///
/// impl Trainable for Net {
///     fn vars(&self) -> Vec<(String, Var)> {
///         named_vars(&self.vars)
///     }
///     fn predict(&self, xt: &Tensor, _t: &[f32], _: &Condition<'_>) -> Result<Prediction> {
///         Ok(self.conv.forward(xt)?.into()) // the predicted noise
///     }
/// }
///
/// let vars = VarMap::new();
/// let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
/// let net = Net { conv: conv2d(3, 3, 3, config, builder.pp("conv"))?, vars };
/// assert_eq!(net.vars()[0].0, "conv.bias");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub trait Trainable {
    /// Every variable with its name, always in the same order. All are f32.
    ///
    /// Other values (such as the running statistics of a batch norm) are not saved, unless they are among [`Self::buffers`].
    ///
    /// The trainer updates them in place. While it samples the moving average, it puts other values into them and then restores them.
    fn vars(&self) -> Vec<(String, Var)>;

    /// Constants and frozen parameters of the network, with their names; they are saved next to the variables and never change.
    fn buffers(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// The prediction for `xt` `[B, C, H, W]` at the original timesteps `t`, as in [`Denoiser::predict`](crate::Denoiser::predict).
    ///
    /// # Errors
    /// Shapes that do not fit the network, or a condition that it does not take.
    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction>;

    /// The metadata that a file of the weights needs so that the network can be loaded; empty if the program that trains it also makes it.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The type of the feature maps, and whether blocks are recomputed. A plan that asks for something else is refused.
    fn compute_mode(&self) -> ComputeMode {
        ComputeMode::default()
    }

    /// The length of the augmentation labels of an image; 0 for a network that takes none.
    fn augment_dim(&self) -> usize {
        0
    }

    /// Whether the gradient of this variable is exactly zero by construction. The gradient audit accepts it then.
    fn has_zero_gradient(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Adds the gradients of variables that the prediction depends on indirectly, such as the factors of a low-rank change of a weight.
    /// Called after every backward pass; left out in some if [`Self::pulls_back`] is false.
    ///
    /// # Errors
    /// A tensor operation fails.
    fn pull_back(&self, gradients: &mut GradStore) -> Result<()> {
        let _ = gradients;
        Ok(())
    }

    /// Whether [`Self::pull_back`] may do something. Networks for which it does nothing return false: then several processes sum gradients
    /// while the backward pass runs.
    fn pulls_back(&self) -> bool {
        true
    }

    /// The tensors of the network's file if its variables hold `values`, which are in the order of [`Self::vars`].
    ///
    /// # Errors
    /// A tensor operation fails.
    fn file_tensors(&self, values: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>> {
        Ok([values, self.buffers()].concat())
    }

    /// The metadata of a file of the variables alone, if these change another network; `None` if they are the network.
    fn adapter_metadata(&self) -> Option<BTreeMap<String, String>> {
        None
    }
}

/// The variables of a `VarMap`, sorted by name.
pub fn named_vars(map: &VarMap) -> Vec<(String, Var)> {
    let vars = map.data().lock().unwrap_or_else(PoisonError::into_inner);
    let mut named: Vec<_> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named
}

/// The metadata of a model's file: that of the network, its process as JSON, and how the file was made.
pub fn file_metadata(
    network: BTreeMap<String, String>,
    process: String,
    provenance: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut metadata = network;
    metadata.insert(PROCESS_KEY.to_owned(), process);
    let facts = provenance
        .iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone()));
    metadata.extend(facts);
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::VarBuilder;

    #[test]
    fn variables_of_a_map_are_sorted_by_name_and_shared() {
        let map = VarMap::new();
        let builder = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        for name in ["z.weight", "a.bias", "m.weight"] {
            builder
                .get_with_hints(2, name, candle_nn::Init::Const(1.0))
                .unwrap();
        }
        let vars = named_vars(&map);
        let names: Vec<&str> = vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.bias", "m.weight", "z.weight"]);
        vars[0]
            .1
            .set(&Tensor::new(&[5f32, 6.0], &Device::Cpu).unwrap())
            .unwrap();
        assert_eq!(named_vars(&map)[0].1.to_vec1::<f32>().unwrap(), [5.0, 6.0]);
    }
}
