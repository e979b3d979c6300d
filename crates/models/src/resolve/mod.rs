//! The architecture and the process of a file, and how each field is known.

pub(crate) use adm::hints;
pub(crate) use fields::Fields;

use crate::error::{ModelError, brief};
use crate::folder::Siblings;
use crate::layout::{Layout, Shapes};
use crate::stage::{GIVEN, channels_problem, decoded_image};
use crate::{Architecture, Classes, LoadOptions};
use sdft_adm::{EncoderConfig, Origin, Pool};
use sdft_autoencoder::AutoencoderConfig;
use sdft_diffusion::{CLASSES_KEY, IMAGE_KEY, MODEL_KEY, Process};
use sdft_imaging::ImageSpec;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

mod adm;
mod dit;
mod edm;
mod fields;
mod process;
mod unet2d;

/// Key of the fields that were assumed when a file was converted, as `model.FIELD` and `process.FIELD` with commas between.
pub(crate) const ASSUMED_KEY: &str = "sdft.assumed";

/// The configuration of a file from its metadata, the user's settings and its shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The architecture.
    pub architecture: Architecture,
    /// The head of a classifier, whose encoder the architecture is; `None` for a U-Net.
    pub pool: Option<Pool>,
    /// The diffusion process.
    pub process: Process,
    /// The autoencoder in whose latents the network works; `None` if it works on images.
    pub autoencoder: Option<AutoencoderConfig>,
    /// The form of the images.
    pub image: ImageSpec,
    /// The classes: the file's own, or [`Architecture::classes`]. `None` for unconditional networks.
    pub classes: Option<Classes>,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<String, Origin>,
    /// How each field of the process is known.
    pub process_origins: BTreeMap<String, Origin>,
    /// Settings that the user must give because public models of this kind differ; `None` if nothing is missing.
    pub ask: Option<String>,
}

impl Resolved {
    /// The classifier's architecture, if it is one.
    pub fn encoder(&self) -> Option<EncoderConfig> {
        let net = self.architecture.adm()?.clone();
        self.pool.map(|pool| EncoderConfig { net, pool })
    }
}

/// The facts about a file.
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a Path,
    /// The layout of its tensors' names.
    pub(crate) layout: Layout,
    /// Names and shapes as the networks here have them.
    pub(crate) shapes: &'a Shapes,
    /// The shape of a DiT's positions, which are constants.
    pub(crate) positions: Option<&'a [usize]>,
    pub(crate) metadata: &'a BTreeMap<String, String>,
    /// The file's hash, if it was computed.
    pub(crate) sha256: Option<&'a str>,
    /// The files next to it, if it is in diffusers' layout.
    pub(crate) siblings: &'a Siblings,
    /// The architecture of the autoencoder in whose latents the network works.
    pub(crate) autoencoder: Option<&'a AutoencoderConfig>,
}

impl Seen<'_> {
    fn problem(&self, problem: impl Into<String>) -> ModelError {
        ModelError::Problem {
            path: self.path.to_owned(),
            problem: problem.into(),
        }
    }

    /// The fields of a section that were assumed when the file was written.
    fn assumed(&self, section: &str) -> BTreeSet<&str> {
        let all = self.metadata.get(ASSUMED_KEY).map_or("", String::as_str);
        let fields = all.split(',').filter_map(|field| field.split_once('.'));
        fields
            .filter(|(of, _)| *of == section)
            .map(|(_, field)| field)
            .collect()
    }

    /// The architecture's fields in the file's own metadata; each must be a valid field of `T`.
    fn stated<T: DeserializeOwned>(&self) -> Result<Option<Map<String, Value>>, ModelError> {
        let Some(text) = self.metadata.get(MODEL_KEY) else {
            return Ok(None);
        };
        parse_stated::<T>(text)
            .map(Some)
            .map_err(|e| self.bad_metadata(MODEL_KEY, e))
    }

    /// The form of the images: the file's own, or that of the architecture or of its decoded latents.
    fn image(&self, architecture: &Architecture) -> Result<ImageSpec, ModelError> {
        if let Some(config) = self.autoencoder
            && let Some(problem) = channels_problem(architecture, config)
        {
            return Err(self.problem(problem));
        }
        let Some(text) = self.metadata.get(IMAGE_KEY) else {
            return Ok(match self.autoencoder {
                Some(config) => decoded_image(architecture, config),
                None => architecture.image(),
            });
        };
        let image = serde_json::from_str(text).map_err(|e| self.bad_metadata(IMAGE_KEY, e))?;
        match architecture.image_problem(&image, self.autoencoder) {
            None => Ok(image),
            Some(problem) => Err(self.bad_metadata(IMAGE_KEY, problem)),
        }
    }

    /// The classes: the file's own, or the architecture's.
    fn classes(&self, architecture: &Architecture) -> Result<Option<Classes>, ModelError> {
        let Some(text) = self.metadata.get(CLASSES_KEY) else {
            let (own, names) = (architecture.classes(), &self.siblings.classes);
            let named = own
                .as_ref()
                .zip(names.as_ref())
                .map(|(own, names)| Classes {
                    names: names.clone(),
                    ..own.clone()
                });
            let fits = |named: &Classes| architecture.classes_problem(named).is_none();
            return Ok(named.filter(fits).or(own));
        };
        let classes = serde_json::from_str(text).map_err(|e| self.bad_metadata(CLASSES_KEY, e))?;
        match architecture.classes_problem(&classes) {
            None => Ok(Some(classes)),
            Some(problem) => Err(self.bad_metadata(CLASSES_KEY, problem)),
        }
    }

    fn bad_metadata(&self, key: &str, problem: impl std::fmt::Display) -> ModelError {
        self.problem(format!("metadata {key}: {}", brief(problem)))
    }

    fn bad_model(&self, problem: impl std::fmt::Display) -> ModelError {
        self.problem(format!("model: {}", brief(problem)))
    }
}

/// The architecture of a file, before its process.
struct Found {
    architecture: Architecture,
    pool: Option<Pool>,
    origins: BTreeMap<String, Origin>,
    /// The process of a file that does not state one.
    usual: Fields,
    /// The settings that the user must give if the process is assumed.
    ask_process: Option<&'static str>,
    /// The settings that the user must give about the architecture.
    ask: Option<String>,
}

/// Resolves the architecture and the process: the file's metadata first, or the settings next to it, then what the user gave, then known
/// files, then names and shapes.
///
/// # Errors
/// An unknown network; a value given that contradicts the file; metadata or settings that cannot be read or belong to another kind of
/// network.
pub(crate) fn resolve(seen: &Seen<'_>, options: &LoadOptions) -> Result<Resolved, ModelError> {
    let mut given = options.given.clone();
    given.remove(GIVEN);
    if let Some(name) = given.remove(Architecture::TAG) {
        let found = match seen.layout {
            Layout::Adm => "adm",
            Layout::Unet2d => "unet2d",
            Layout::Edm => "edm",
            Layout::Dit => "dit",
        };
        if name != found {
            return Err(ModelError::Conflict {
                path: seen.path.to_owned(),
                field: format!("model.{}", Architecture::TAG),
                given: brief(name),
                found: brief(Value::from(found)),
            });
        }
    }
    let found = match seen.layout {
        Layout::Adm => adm::find(seen, &given)?,
        Layout::Unet2d => unet2d::find(seen, &given)?,
        Layout::Edm => edm::find(seen, &given)?,
        Layout::Dit => dit::find(seen, &given)?,
    };
    let (mut process, process_origins) = process::find(seen, options, &found)?;
    if seen.autoencoder.is_some() {
        let is_stated = process_origins.get(SAMPLING) == Some(&Origin::Read);
        unclamp(&mut process, is_stated, &options.given_process);
    }
    let unknown = ["noise_schedule", "diffusion_steps"]
        .iter()
        .any(|field| process_origins.get(*field) == Some(&Origin::Assumed));
    let ask_process = match unknown && options.process_otherwise.is_none() {
        true => found.ask_process.map(str::to_owned),
        false => None,
    };
    Ok(Resolved {
        image: seen.image(&found.architecture)?,
        autoencoder: seen.autoencoder.cloned(),
        classes: seen.classes(&found.architecture)?,
        architecture: found.architecture,
        pool: found.pool,
        process,
        origins: found.origins,
        process_origins,
        ask: found.ask.or(ask_process),
    })
}

/// Latents have no range, so nothing is clamped, unless a scheduler or the user states it.
fn unclamp(process: &mut Process, is_stated: bool, given: &Map<String, Value>) {
    let given = given.get(SAMPLING);
    let is_given = given.is_some_and(|sampling| sampling.get(CLIP).is_some());
    match &mut process.sampling {
        None => process.unbounded = true,
        Some(sampling) if !(is_stated || is_given) => sampling.clip_sample = false,
        Some(_) => {}
    }
}

/// The field of a process that says how it is sampled, and its field about clamping.
const SAMPLING: &str = "sampling";
const CLIP: &str = "clip_sample";

/// The fields that a text of metadata states, without defaults; each must be a valid field of `T`.
fn parse_stated<T: DeserializeOwned>(text: &str) -> serde_json::Result<Map<String, Value>> {
    // `T` refuses unknown and duplicate fields.
    serde_json::from_str::<T>(text).and_then(|_| serde_json::from_str(text))
}

/// Dropout belongs to the training, not to the network in the file.
fn is_free(field: &str) -> bool {
    field == "dropout"
}
