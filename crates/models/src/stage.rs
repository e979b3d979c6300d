//! The autoencoder of a network that works on latents: how its file states it, and where it is.

use crate::error::ModelError;
use crate::folder::Settings;
use crate::opened::Opened;
use crate::{Architecture, AutoencoderOptions, LoadOptions, LoadedAutoencoder, load_autoencoder};
use sdft_autoencoder::{AutoencoderConfig, AutoencoderRecord};
use sdft_checkpoint::Summary;
use sdft_diffusion::{AUTOENCODER_KEY, MODEL_KEY};
use sdft_imaging::{Depth, ImageSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The form of the images of a network of latents, `None` for one of images: 8 bits, and as large as the latents that the network was made
/// for.
pub(crate) fn decoded_image(architecture: &Architecture, config: &AutoencoderConfig) -> ImageSpec {
    let ([height, width], factor) = (architecture.sides(), config.factor());
    let channels = config.decoded_channels();
    ImageSpec::new(channels, Depth::U8, width * factor, height * factor)
}

/// A message about an autoencoder whose latents a network does not take.
pub(crate) fn channels_problem(
    architecture: &Architecture,
    config: &AutoencoderConfig,
) -> Option<String> {
    let (expected, found) = (architecture.in_channels(), config.latent_channels());
    (expected != found).then(|| {
        format!(
            "expected an autoencoder whose latents have {expected} channels, as the network's input has, found {found}"
        )
    })
}

/// What a file says about an autoencoder.
pub(crate) enum Stated {
    /// Nothing.
    Nothing,
    /// It works on images: a file of this project without an autoencoder, or a pipeline of images.
    Images,
    /// The metadata of this project's files.
    Record(AutoencoderRecord),
    /// The folder of the autoencoder in a pipeline of diffusers, and its `config.json`.
    Folder(PathBuf, AutoencoderConfig),
    /// It is in the same file.
    Inside,
}

impl Stated {
    /// What a file says.
    ///
    /// # Errors
    /// Metadata or a `config.json` that is no autoencoder's.
    pub(crate) fn of(
        opened: &Opened,
        metadata: &BTreeMap<String, String>,
        summary: &Summary,
    ) -> Result<Self, ModelError> {
        if let Some(text) = metadata.get(AUTOENCODER_KEY) {
            let record = serde_json::from_str(text);
            let record =
                record.map_err(|e| opened.problem(format!("metadata {AUTOENCODER_KEY}: {e}")))?;
            return Ok(Self::Record(record));
        }
        if let Some(Settings { path, fields }) = &opened.siblings.autoencoder {
            let config = AutoencoderConfig::from_fields(fields);
            let config = config.map_err(|e| ModelError::Problem {
                path: path.clone(),
                problem: e.to_string(),
            })?;
            let folder = sdft_files::parent_of(path).to_owned();
            return Ok(Self::Folder(folder, config));
        }
        let mut names = summary.left_out.iter();
        let is_inside = names.any(|name| name.starts_with("first_stage_model."));
        let is_ours = metadata.contains_key(MODEL_KEY);
        Ok(match is_inside {
            true => Self::Inside,
            false if is_ours || opened.siblings.is_pipeline => Self::Images,
            false => Self::Nothing,
        })
    }

    /// A note about a part of the autoencoder that diffusers' pipeline leaves out.
    pub(crate) fn shift_note(&self) -> Option<String> {
        match self {
            Self::Folder(folder, config) if config.shift_factor() != 0.0 => Some(format!(
                "{}: shift_factor is added to latents before they are decoded, which diffusers' pipeline of this class does not do",
                folder.display()
            )),
            _ => None,
        }
    }

    /// The record of this project's files.
    pub(crate) fn record(&self) -> Option<&AutoencoderRecord> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nothing | Self::Images | Self::Folder(..) | Self::Inside => None,
        }
    }

    /// The architecture, if the autoencoder need not be read for it.
    pub(crate) fn config<'a>(&'a self, options: &'a LoadOptions) -> Option<&'a AutoencoderConfig> {
        match (&options.autoencoder, self) {
            (Some(given), _) => Some(&given.record.config),
            (None, Self::Record(record)) => Some(&record.config),
            (None, Self::Folder(_, config)) => Some(config),
            (None, Self::Nothing) => {
                let otherwise = options.autoencoder_otherwise.as_ref()?;
                Some(&otherwise.record.config)
            }
            (None, Self::Inside | Self::Images) => None,
        }
    }

    /// The autoencoder: the given one, or the one that the file states.
    ///
    /// # Errors
    /// It is missing, cannot be read, or is another one than the file states.
    pub(crate) fn load(
        &self,
        opened: &Opened,
        options: &LoadOptions,
    ) -> Result<Option<Arc<LoadedAutoencoder>>, ModelError> {
        let usual = AutoencoderOptions::default();
        let found = match (&options.autoencoder, self) {
            (Some(given), _) => given.clone(),
            (None, Self::Record(record)) => {
                let path = next_to(&opened.path, &record.file_name());
                let path = path.ok_or_else(|| {
                    opened.problem(format!(
                        "the network works on latents of an autoencoder ({}, SHA-256 {}), expected in {} next to this file; give it with \
                         --autoencoder FILE",
                        record.config.class_name(),
                        record.sha256,
                        record.file_name()
                    ))
                })?;
                Arc::new(load_autoencoder(&path, &usual)?)
            }
            (None, Self::Folder(folder, _)) => Arc::new(load_autoencoder(folder, &usual)?),
            (None, Self::Inside) => Arc::new(load_autoencoder(&opened.path, &usual)?),
            (None, Self::Nothing) => return Ok(options.autoencoder_otherwise.clone()),
            (None, Self::Images) => return Ok(None),
        };
        if let Self::Record(record) = self
            && record.sha256 != found.record.sha256
        {
            return Err(opened.problem(format!(
                "the network works on latents of the autoencoder of SHA-256 {}, found {} in {}",
                record.sha256,
                found.record.sha256,
                found.path.display()
            )));
        }
        Ok(Some(found))
    }
}

/// The file of this name in the folder of `path`, or in one of the two above it: a checkpoint lies inside the folder of its run.
fn next_to(path: &Path, name: &str) -> Option<PathBuf> {
    let folders = path.ancestors().skip(1).take(3);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
