//! A file or its listing, with everything that determines its network.

use crate::autoencoder::is_autoencoder;
use crate::error::ModelError;
use crate::folder::Siblings;
use crate::layout::{EDM_PREFIX, Layout, Shapes, take_positions};
use crate::resolve::{Resolved, Seen, resolve};
use crate::{LoadOptions, notes};
use candle_core::Tensor;
use sdft_adm::Encoder;
use sdft_autoencoder::AutoencoderConfig;
use sdft_checkpoint::{Summary, removed_prefix};
use sdft_diffusion::KIND_KEY;
use sdft_files::sha256_bytes;
use sdft_nn::{Mismatch, ParamSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The kind of files that hold an edit, which `asyrp` writes.
const DIRECTION: &str = "direction";

/// Names, shapes and settings of a file, without its numbers.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    /// The layout of its tensors' names.
    pub(crate) layout: Layout,
    /// Names and shapes as the networks here have them.
    pub(crate) shapes: Shapes,
    /// The shape of a DiT's positions, which are constants.
    positions: Option<Vec<usize>>,
    pub(crate) siblings: Siblings,
    /// The hash of the weights, if it was computed.
    weights_sha256: Option<String>,
}

impl Opened {
    /// A file on disk.
    ///
    /// # Errors
    /// The files next to it cannot be read, or belong to another kind of model.
    pub(crate) fn file(
        path: &Path,
        shapes: Shapes,
        weights_sha256: Option<String>,
    ) -> Result<Self, ModelError> {
        let siblings = match Layout::of(&shapes) {
            Layout::Unet2d | Layout::Dit => Siblings::of(path)?,
            Layout::Adm | Layout::Edm => Siblings::default(),
        };
        Ok(Self {
            siblings,
            ..Self::bytes(path, shapes, weights_sha256)
        })
    }

    /// Bytes in memory, which have no files next to them.
    pub(crate) fn bytes(path: &Path, shapes: Shapes, weights_sha256: Option<String>) -> Self {
        let layout = Layout::of(&shapes);
        let mut shapes = layout.named(shapes);
        Self {
            path: path.to_owned(),
            layout,
            positions: take_positions(layout, &mut shapes),
            shapes,
            siblings: Siblings::default(),
            weights_sha256,
        }
    }

    /// The architecture and the process.
    ///
    /// # Errors
    /// As [`resolve`].
    pub(crate) fn resolve(
        &self,
        metadata: &BTreeMap<String, String>,
        autoencoder: Option<&AutoencoderConfig>,
        options: &LoadOptions,
    ) -> Result<Resolved, ModelError> {
        match metadata.get(KIND_KEY).map(String::as_str) {
            Some(sdft_adapters::KIND) => {
                return Err(self.problem(
                    "expected a network, found an adapter; give the model that it was trained on, and this file with --adapter",
                ));
            }
            Some(DIRECTION) => {
                return Err(self.problem(
                    "expected a network, found an edit; give the model that it was trained on, and this file to `edit apply` with --edit",
                ));
            }
            _ => (),
        }
        if is_autoencoder(&self.shapes, metadata) {
            return Err(self.problem(
                "expected a diffusion model, found an autoencoder, the first stage of one; give the model that works on its latents",
            ));
        }
        let seen = Seen {
            path: &self.path,
            layout: self.layout,
            shapes: &self.shapes,
            positions: self.positions.as_deref(),
            metadata,
            sha256: self.weights_sha256.as_deref(),
            siblings: &self.siblings,
            autoencoder,
        };
        resolve(&seen, options)
    }

    /// The tensors of the file under the names that the network here gives them.
    ///
    /// # Errors
    /// Positions of a DiT that are not sines and cosines.
    pub(crate) fn tensors(
        &self,
        resolved: Option<&Resolved>,
        entries: BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let Some(resolved) = resolved else {
            return Ok(entries);
        };
        let mut tensors = self.layout.named(entries);
        if let (Some(found), Some(config)) = (
            take_positions(self.layout, &mut tensors),
            resolved.architecture.dit(),
        ) {
            let grid = config.sample_size / config.patch_size;
            let expected = sdft_dit::positions(config.width(), grid, [grid; 2])?;
            let found = found.to_dtype(candle_core::DType::F32)?;
            let same = found.dims() == [1, grid * grid, config.width()]
                && (found.squeeze(0)?.t()? - expected)?
                    .abs()?
                    .max_all()?
                    .to_scalar::<f32>()?
                    < 1e-2;
            if !same {
                return Err(self.problem(format!(
                    "{}: expected the sines and cosines of {grid}x{grid} positions, found other numbers: they were trained, which this \
                     network does not do",
                    sdft_dit::POSITIONS
                )));
            }
        }
        Ok(tensors)
    }

    /// The tensors that do not fit the network; `None` if all fit.
    pub(crate) fn misfit(&self, resolved: &Resolved) -> Option<Mismatch> {
        let mismatch = Mismatch::between(&specs(resolved).ok()?, &self.shapes);
        (!mismatch.is_empty()).then_some(mismatch)
    }

    /// A likely cause of tensors that do not fit, for the error message.
    pub(crate) fn settings_hint(&self) -> Option<String> {
        let settings = self.siblings.config.as_ref()?;
        let path = settings.path.display();
        Some(format!(
            "likely cause: {path} is that of another network; it must be the one that was written with these weights"
        ))
    }

    /// The hash of the weights, and of the settings next to them.
    pub(crate) fn sha256(&self) -> String {
        let weights = self.weights_sha256.clone().unwrap_or_default();
        match self.siblings.text() {
            text if text.is_empty() => weights,
            text => sha256_bytes(format!("{weights}{text}").as_bytes()),
        }
    }

    /// Notes about how the network was found.
    pub(crate) fn notes(&self, summary: &Summary) -> Vec<String> {
        let mut all = summary.notes.clone();
        if self.layout == Layout::Edm {
            // The prefix is part of the names of these networks.
            let expected = removed_prefix(EDM_PREFIX);
            all.retain(|note| *note != expected);
        }
        all.extend(notes::diffusers(&self.siblings));
        all
    }

    /// Fails if settings must be given.
    pub(crate) fn refuse_to_guess(&self, resolved: &Resolved) -> Result<(), ModelError> {
        match &resolved.ask {
            None => Ok(()),
            Some(ask) => Err(self.problem(ask.clone())),
        }
    }

    pub(crate) fn problem(&self, problem: impl Into<String>) -> ModelError {
        ModelError::Problem {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }
}

/// The parameters of the network or classifier.
pub(crate) fn specs(resolved: &Resolved) -> candle_core::Result<Vec<ParamSpec>> {
    match resolved.encoder() {
        Some(encoder) => Encoder::specs(&encoder),
        None => resolved.architecture.specs(),
    }
}
