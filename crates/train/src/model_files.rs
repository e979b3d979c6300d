//! The files of a trained network: what they hold, and what they state about it.

use crate::checkpoint::{Checkpoint, Tensors, TrainingState};
use crate::error::Result;
use crate::folder::RunFolder;
use crate::provenance::model_metadata;
use crate::updater::Updater;
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Process, Trainable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A network in training, and what its files state.
pub struct ModelFiles<'a> {
    /// The network.
    pub network: &'a dyn Trainable,
    /// Entries of the metadata in addition to those of the network.
    pub metadata: &'a BTreeMap<String, String>,
    /// The process that the network was trained on.
    pub process: &'a Process,
    /// How the files were made.
    pub provenance: BTreeMap<String, String>,
}

impl ModelFiles<'_> {
    /// The metadata of a file of the whole model.
    ///
    /// # Errors
    /// The process cannot be written as JSON, which never happens in practice.
    pub fn of_model(&self) -> Result<BTreeMap<String, String>> {
        let mut network = self.network.metadata();
        network.extend(self.metadata.clone());
        model_metadata(network, self.process, &self.provenance)
    }

    /// The metadata of a file of the variables: those of an adapter, or of the whole model.
    ///
    /// # Errors
    /// The process cannot be written as JSON, which never happens in practice.
    pub fn of_variables(&self) -> Result<BTreeMap<String, String>> {
        match self.network.adapter_metadata() {
            Some(adapter) => model_metadata(adapter, self.process, &self.provenance),
            None => self.of_model(),
        }
    }

    /// Writes the averaged weights of a finished run: the adapter if there is one, then the whole model, whose path is returned.
    ///
    /// # Errors
    /// The device or the file system fails.
    pub fn write(&self, folder: &RunFolder, updater: &Updater) -> Result<PathBuf> {
        let write = |path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>| {
            folder.put(path, |temporary| {
                let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
                Ok(write_safetensors(temporary, entries, metadata, None)?)
            })
        };
        if self.network.adapter_metadata().is_some() {
            write(
                &folder.adapter(),
                &updater.averaged()?,
                &self.of_variables()?,
            )?;
        }
        // The model is last, because it says that the run is finished.
        let model = folder.final_model();
        let tensors = self.network.file_tensors(updater.averaged()?)?;
        write(&model, &tensors, &self.of_model()?)?;
        Ok(model)
    }
}

/// The state of a checkpoint with the constants of the network, so that its files of weights can be loaded.
#[must_use]
pub fn with_buffers(network: &dyn Trainable, mut state: TrainingState) -> TrainingState {
    let buffers = network.buffers();
    state.weights.extend(buffers.clone());
    state.ema.extend(buffers);
    state
}

/// The checkpoint without what [`with_buffers`] added.
#[must_use]
pub fn without_buffers(network: &dyn Trainable, mut checkpoint: Checkpoint) -> Checkpoint {
    for (name, _) in network.buffers() {
        checkpoint.weights.remove(&name);
        checkpoint.ema.remove(&name);
    }
    checkpoint
}
