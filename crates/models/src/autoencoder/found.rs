//! The configuration of a file of an autoencoder: its metadata, the `config.json` next to it, or names and shapes.

use super::names::{FIRST_STAGE, IGNORED, MARK, SCALE, named_shapes};
use crate::error::{ModelError, brief, cut};
use crate::folder::{CONFIG, Settings, settings};
use crate::layout::{MARKS, Shapes};
use crate::resolve::Fields;
use sdft_adm::Origin;
use sdft_autoencoder::{Autoencoder, AutoencoderConfig, Inferred, infer, is_compvis};
use sdft_checkpoint::StateDict;
use sdft_diffusion::{KIND_KEY, MODEL_KEY};
use sdft_files::parent_of;
use sdft_nn::Mismatch;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The longest message about a field.
const MOST: usize = 600;

/// The field that no tensor shows.
const SCALING: &str = "scaling_factor";

/// Whether a file holds an autoencoder and no diffusion model.
pub(crate) fn is_autoencoder<T>(
    entries: &BTreeMap<String, T>,
    metadata: &BTreeMap<String, String>,
) -> bool {
    let is_stated = metadata.get(KIND_KEY).map(String::as_str) == Some(AutoencoderConfig::KIND);
    is_stated || entries.contains_key(MARK) && !MARKS.iter().any(|mark| entries.contains_key(*mark))
}

/// Where an autoencoder's tensors are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In a file of their own.
    Alone,
    /// In CompVis' file of a whole model, and the number there that its latents are multiplied by.
    Inside(Option<f64>),
}

impl Place {
    pub(crate) fn of(state: &StateDict) -> Self {
        match state.summary.prefix == FIRST_STAGE {
            true => Self::Inside(state.number),
            false => Self::Alone,
        }
    }
}

/// The configuration of a file.
pub(crate) struct Found {
    pub(crate) config: AutoencoderConfig,
    /// How the configuration was found.
    pub(crate) notes: Vec<String>,
    /// What the user must give; `None` if nothing is missing.
    pub(crate) ask: Option<String>,
    /// A likely cause of tensors that do not fit.
    pub(crate) hint: Option<String>,
    /// Tensors that do not fit; `None` if all fit.
    pub(crate) misfit: Option<Mismatch>,
}

/// The facts about a file.
struct Seen<'a> {
    path: &'a Path,
    shapes: Shapes,
    metadata: &'a BTreeMap<String, String>,
    given: &'a Map<String, Value>,
    place: Place,
}

impl Found {
    /// A file on disk, whose `config.json` may be next to it.
    ///
    /// # Errors
    /// Not an autoencoder; metadata or settings that are damaged or not supported; given fields that contradict the file.
    pub(crate) fn file(
        path: &Path,
        shapes: Shapes,
        metadata: &BTreeMap<String, String>,
        given: &Map<String, Value>,
        place: Place,
    ) -> Result<Self, ModelError> {
        let config = match metadata.contains_key(MODEL_KEY) || is_compvis(shapes.keys()) {
            true => None,
            false => settings(&parent_of(path).join(CONFIG))?,
        };
        let seen = Seen {
            path,
            shapes,
            metadata,
            given,
            place,
        };
        seen.find(config)
    }

    /// Bytes in memory, which have no files next to them.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub(crate) fn bytes(
        path: &Path,
        shapes: Shapes,
        metadata: &BTreeMap<String, String>,
        given: &Map<String, Value>,
        place: Place,
    ) -> Result<Self, ModelError> {
        let seen = Seen {
            path,
            shapes,
            metadata,
            given,
            place,
        };
        seen.find(None)
    }
}

impl Seen<'_> {
    fn find(&self, config: Option<Settings>) -> Result<Found, ModelError> {
        if !is_autoencoder(&self.shapes, self.metadata) {
            let found = match MARKS.iter().any(|mark| self.shapes.contains_key(*mark)) {
                true => "a diffusion model",
                false => "none of the tensors of one",
            };
            return Err(self.problem(format!("expected an autoencoder, found {found}")));
        }
        let mut found = match (self.metadata.get(MODEL_KEY), config) {
            (Some(text), _) => {
                let fields: Map<String, Value> =
                    serde_json::from_str(text).map_err(|e| self.bad_metadata(e))?;
                Found::of(self.stated(self.path, &fields)?)
            }
            (None, Some(config)) => self.configured(config)?,
            (None, None) => self.inferred()?,
        };
        if found.config.image_channels() != found.config.decoded_channels() {
            return Err(self.problem(format!(
                "expected images with as many channels after decoding as before encoding, found in_channels {} and out_channels {}",
                found.config.image_channels(),
                found.config.decoded_channels()
            )));
        }
        let ignored = IGNORED.iter().filter(|prefix| {
            let mut names = self.shapes.keys();
            names.any(|name| name.starts_with(**prefix))
        });
        let ignored: Vec<&str> = ignored.map(|prefix| prefix.trim_end_matches('.')).collect();
        if !ignored.is_empty() {
            found.notes.push(format!(
                "tensors of its training are not read: {}",
                ignored.join(", ")
            ));
        }
        let specs = Autoencoder::specs(&found.config)?;
        let misfit = Mismatch::between(&specs, &named_shapes(self.shapes.clone()));
        found.misfit = (!misfit.is_empty()).then_some(misfit);
        Ok(found)
    }

    /// The configuration of these fields and the given ones.
    fn stated(
        &self,
        path: &Path,
        stated: &Map<String, Value>,
    ) -> Result<AutoencoderConfig, ModelError> {
        // The file alone must be valid, so that an error names the right place.
        let config = AutoencoderConfig::from_fields(stated).map_err(|e| at(path, e))?;
        let mut fields = Fields::new(config.fields(), Origin::Assumed);
        fields.state(stated, &BTreeSet::new());
        self.with_given(path, fields)
    }

    fn with_given(&self, path: &Path, mut fields: Fields) -> Result<AutoencoderConfig, ModelError> {
        fields.give(path, "autoencoder", self.given, |_| false)?;
        AutoencoderConfig::from_fields(&fields.all).map_err(|e| at(path, e))
    }

    /// The configuration of a `config.json`.
    fn configured(&self, settings: Settings) -> Result<Found, ModelError> {
        let Settings { path, fields } = settings;
        let mut config = self.stated(&path, &fields)?;
        let mut notes = vec![format!("diffusers' layout, read with {}", path.display())];
        let is_open = !fields.contains_key(SCALING) && !self.given.contains_key(SCALING);
        if is_open && matches!(config, AutoencoderConfig::Vq(_)) {
            config = config.with_scaling_factor(1.0);
            notes.push(format!(
                "{}: no {SCALING}, so 1 is taken: a VQModel without one is older than the field, and its latents were not scaled",
                path.display()
            ));
        }
        Ok(Found {
            notes,
            hint: Some(format!(
                "likely cause: {} is that of another network; it must be the one that was written with these weights",
                path.display()
            )),
            ..Found::of(config)
        })
    }

    /// The configuration that names and shapes show.
    fn inferred(&self) -> Result<Found, ModelError> {
        let shapes = named_shapes(self.shapes.clone());
        let Inferred {
            config,
            scaling_is_usual,
        } = infer(&shapes).map_err(|e| at(self.path, e))?;
        let mut fields = Fields::new(config.fields(), Origin::Inferred);
        for field in [
            "norm_num_groups",
            "act_fn",
            "sample_size",
            "shift_factor",
            "force_upcast",
            SCALING,
        ] {
            if let Some(value) = fields.all.get(field).cloned() {
                fields.set(field, value, Origin::Assumed);
            }
        }
        let is_given = self.given.contains_key(SCALING);
        let is_vq = matches!(config, AutoencoderConfig::Vq(_));
        let scaling = match self.place {
            Place::Inside(Some(scale)) => {
                fields.set(SCALING, scale.into(), Origin::Read);
                Some(format!("{SCALING} is the {SCALE} of the file, {scale}"))
            }
            // `scale_factor` of CompVis' code, which its VQ models leave at its default.
            Place::Inside(None) if is_vq => {
                fields.set(SCALING, 1.0.into(), Origin::Assumed);
                Some(format!(
                    "there is no {SCALE} in the file; {SCALING} 1 is assumed, as in CompVis' VQ models"
                ))
            }
            _ if scaling_is_usual => Some(format!(
                "nothing in the file shows {SCALING}; {} is assumed, as in Stable Diffusion",
                config.scaling_factor()
            )),
            _ => None,
        };
        let config = self.with_given(self.path, fields)?;
        let mut notes = vec![format!(
            "no configuration in the file: {} is inferred from names and shapes; norms of 32 groups, SiLU and no shift of the latents are \
             assumed",
            config.class_name()
        )];
        let ask = match scaling {
            _ if is_given => None,
            Some(note) => {
                notes.push(note);
                None
            }
            None => Some(format!(
                "nothing in the file shows the {SCALING} of the latents, in which public models differ (VQ models of latent diffusion: 1); \
                 {}",
                match self.place {
                    Place::Inside(_) =>
                        format!("give it with --set model.autoencoder.{SCALING}=VALUE"),
                    Place::Alone => format!(
                        "give it when the file of the autoencoder is converted: convert FILE autoencoder.safetensors --set model.{SCALING}=VALUE"
                    ),
                }
            )),
        };
        Ok(Found {
            notes,
            ask,
            ..Found::of(config)
        })
    }

    fn problem(&self, problem: impl Into<String>) -> ModelError {
        at(self.path, problem.into())
    }

    fn bad_metadata(&self, problem: impl std::fmt::Display) -> ModelError {
        self.problem(format!("metadata {MODEL_KEY}: {}", brief(problem)))
    }
}

impl Found {
    /// Fails if settings must be given.
    pub(crate) fn refuse_to_guess(&self, path: &Path) -> Result<(), ModelError> {
        match &self.ask {
            None => Ok(()),
            Some(ask) => Err(at(path, ask)),
        }
    }

    fn of(config: AutoencoderConfig) -> Self {
        Self {
            config,
            notes: Vec::new(),
            ask: None,
            hint: None,
            misfit: None,
        }
    }
}

fn at(path: &Path, problem: impl std::fmt::Display) -> ModelError {
    ModelError::Problem {
        path: path.to_owned(),
        problem: cut(problem, MOST),
    }
}
