//! The autoencoder of a network that works on latents: how its file states it, and where it is.

use crate::autoencoder::{AUTOENCODER, FIRST_STAGE, Found, Place};
use crate::error::{ModelError, brief};
use crate::folder::Settings;
use crate::opened::Opened;
use crate::{Architecture, AutoencoderOptions, LoadOptions, LoadedAutoencoder, load_autoencoder};
use sdft_autoencoder::{AutoencoderConfig, AutoencoderRecord};
use sdft_checkpoint::{ReadOptions, Summary};
use sdft_diffusion::{AUTOENCODER_KEY, MODEL_KEY};
use sdft_imaging::{Depth, ImageSpec};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The key of an autoencoder's fields among those of the architecture that the user gave.
pub(crate) const GIVEN: &str = "autoencoder";

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
        let is_inside = names.any(|name| name.starts_with(FIRST_STAGE));
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

    /// The architecture, without the numbers of the autoencoder: of one in the same file, the scaling factor may be missing.
    ///
    /// # Errors
    /// An autoencoder in the same file that is not recognised.
    pub(crate) fn config(
        &self,
        opened: &Opened,
        options: &LoadOptions,
    ) -> Result<Option<AutoencoderConfig>, ModelError> {
        Ok(match (&options.autoencoder, self) {
            (Some(given), _) => Some(given.record.config.clone()),
            (None, Self::Record(record)) => Some(record.config.clone()),
            (None, Self::Folder(_, config)) => Some(config.clone()),
            (None, Self::Nothing) => {
                let otherwise = options.autoencoder_otherwise.as_ref();
                otherwise.map(|otherwise| otherwise.record.config.clone())
            }
            (None, Self::Images) => None,
            (None, Self::Inside) => {
                let read = ReadOptions {
                    wanted: Some(AUTOENCODER),
                    ..ReadOptions::default()
                };
                let summary = sdft_checkpoint::describe(&opened.path, &read)?;
                let tensors = summary.tensors.into_iter().map(|t| (t.name, t.shape));
                let (given, place) = (given(opened, options)?, Place::Inside(None));
                let shapes = tensors.collect();
                let found = Found::file(&opened.path, shapes, &summary.metadata, &given, place)?;
                Some(found.config)
            }
        })
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
        let usual = AutoencoderOptions {
            given: given(opened, options)?,
            ..AutoencoderOptions::default()
        };
        let unused = match (&options.autoencoder, self) {
            _ if usual.given.is_empty() => None,
            (Some(_), _) => Some(
                "the autoencoder is given with --autoencoder; convert it with --set model.FIELD=VALUE",
            ),
            (None, Self::Nothing | Self::Images) => {
                Some("the file states no autoencoder; give it with --autoencoder FILE")
            }
            (None, _) => None,
        };
        if let Some(unused) = unused {
            return Err(opened.problem(format!("model.{GIVEN}: {unused}")));
        }
        let is_otherwise = |record: &AutoencoderRecord| {
            let otherwise = options.autoencoder_otherwise.as_ref();
            otherwise.is_some_and(|otherwise| otherwise.record.sha256 == record.sha256)
        };
        let found = match (&options.autoencoder, self) {
            (Some(given), _) => given.clone(),
            (None, Self::Record(record)) if is_otherwise(record) => {
                return Ok(options.autoencoder_otherwise.clone());
            }
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

/// The fields of the autoencoder that the user gave.
fn given(opened: &Opened, options: &LoadOptions) -> Result<Map<String, Value>, ModelError> {
    match options.given.get(GIVEN) {
        None => Ok(Map::new()),
        Some(Value::Object(fields)) => Ok(fields.clone()),
        Some(other) => Err(opened.problem(format!(
            "model.{GIVEN}: expected fields of an autoencoder, as in model.{GIVEN}.scaling_factor=VALUE, found {}",
            brief(other)
        ))),
    }
}

/// The file of this name in the folder of `path`, or in one of the two above it: a checkpoint lies inside the folder of its run.
fn next_to(path: &Path, name: &str) -> Option<PathBuf> {
    let folders = path.ancestors().skip(1).take(3);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
