//! Folders in diffusers' layout: their weights, and the JSON files next to them.

use crate::error::{ModelError, brief};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file of settings: its path and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) fields: Map<String, Value>,
}

/// The files next to weights in diffusers' layout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Siblings {
    /// `config.json`: how the network is computed.
    pub(crate) config: Option<Settings>,
    /// `scheduler_config.json`: the process, in the same folder or in `scheduler` next to it.
    pub(crate) scheduler: Option<Settings>,
    /// The `config.json` of the autoencoder of a pipeline of latents.
    pub(crate) autoencoder: Option<Settings>,
    /// Whether the weights are part of a pipeline.
    pub(crate) is_pipeline: bool,
    /// The names of a pipeline's classes, by their number.
    pub(crate) classes: Option<Vec<String>>,
}

pub(crate) const CONFIG: &str = "config.json";
const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler_config.json";

/// A pipeline: its class, the part that is the network, and the part that is its autoencoder.
struct Pipeline {
    class: &'static str,
    network: &'static str,
    /// The classes that the network may have.
    networks: &'static [&'static str],
    autoencoder: Option<&'static str>,
}

const UNET: &[&str] = &["UNet2DModel"];
const TRANSFORMER: &[&str] = &["DiTTransformer2DModel", "Transformer2DModel"];

const PIPELINES: [Pipeline; 5] = [
    Pipeline::of_images("DDPMPipeline"),
    Pipeline::of_images("DDIMPipeline"),
    Pipeline::of_images("PNDMPipeline"),
    Pipeline {
        class: "LDMPipeline",
        network: "unet",
        networks: UNET,
        autoencoder: Some("vqvae"),
    },
    Pipeline {
        class: "DiTPipeline",
        network: "transformer",
        networks: TRANSFORMER,
        autoencoder: Some("vae"),
    },
];

impl Pipeline {
    const fn of_images(class: &'static str) -> Self {
        Self {
            class,
            network: "unet",
            networks: UNET,
            autoencoder: None,
        }
    }
}

impl Siblings {
    /// Reads the files that exist.
    ///
    /// # Errors
    /// A file cannot be read or is not a JSON object, or the weights are part of a pipeline that does not work on images.
    pub(crate) fn of(weights: &Path) -> Result<Self, ModelError> {
        let folder = sdft_files::parent_of(weights);
        let (mut pipeline, mut root) = (None, folder.to_owned());
        if let Some(index) = settings(&folder.join(INDEX))? {
            pipeline = Some((pipeline_of(&index)?, index));
        }
        let above = next_to(folder);
        if let Some(index) = settings(&above.join(INDEX))? {
            let name = folder.canonicalize().ok();
            let name = name.as_deref().and_then(Path::file_name);
            let name = name.and_then(|name| name.to_str()).unwrap_or("unet");
            // Another folder may be there by chance.
            if index.fields.contains_key(name) {
                pipeline = Some((pipeline_of(&index)?, index));
                root.clone_from(&above);
            }
        }
        let (mut autoencoder, mut classes) = (None, None);
        if let Some((pipeline, index)) = &pipeline {
            if let Some(part) = pipeline.autoencoder {
                let path = root.join(part).join(CONFIG);
                let found = settings(&path)?.ok_or_else(|| ModelError::Problem {
                    path: path.clone(),
                    problem: format!(
                        "is missing: a {} makes images with its autoencoder",
                        pipeline.class
                    ),
                })?;
                autoencoder = Some(found);
            }
            classes = class_names(index);
        }
        let scheduler = match settings(&folder.join(SCHEDULER))? {
            Some(found) => Some(found),
            None => settings(&above.join("scheduler").join(SCHEDULER))?,
        };
        Ok(Self {
            config: settings(&folder.join(CONFIG))?,
            scheduler,
            autoencoder,
            is_pipeline: pipeline.is_some(),
            classes,
        })
    }

    /// The text that the network's hash covers in addition to the weights.
    pub(crate) fn text(&self) -> String {
        let all = [&self.config, &self.scheduler, &self.autoencoder];
        let all = all.into_iter().flatten();
        all.map(|settings| format!("\n{}", Value::Object(settings.fields.clone())))
            .collect()
    }
}

/// The names of the classes of a `model_index.json` that numbers them from 0.
fn class_names(index: &Settings) -> Option<Vec<String>> {
    let labels = index.fields.get("id2label")?.as_object()?;
    let name = |number: usize| labels.get(&number.to_string())?.as_str();
    let mut seen = BTreeSet::new();
    let names: Option<Vec<String>> = (0..labels.len())
        .map(|number| {
            let name = name(number)?;
            // ImageNet has two classes called crane.
            Some(match seen.insert(name) {
                true => name.to_owned(),
                false => format!("{name} ({number})"),
            })
        })
        .collect();
    names.filter(|names| !names.is_empty())
}

/// The pipeline of a `model_index.json`.
///
/// # Errors
/// Another pipeline, or one with another network.
fn pipeline_of(index: &Settings) -> Result<&'static Pipeline, ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: index.path.clone(),
        problem,
    };
    let class = index.fields.get("_class_name").unwrap_or(&Value::Null);
    let Some(pipeline) = PIPELINES.iter().find(|known| class == known.class) else {
        return Err(problem(format!(
            "_class_name: expected a pipeline that this project knows ({}), found {}; give a model of such a pipeline",
            PIPELINES.map(|known| known.class).join(", "),
            brief(class)
        )));
    };
    let network = index.fields.get(pipeline.network).unwrap_or(&Value::Null);
    let class = network.get(1).and_then(Value::as_str);
    if !class.is_some_and(|class| pipeline.networks.contains(&class)) {
        return Err(problem(format!(
            "{}: expected [\"diffusers\", \"{}\"], found {}",
            pipeline.network,
            pipeline.networks[0],
            brief(network)
        )));
    }
    Ok(pipeline)
}

/// The parent of a folder.
fn next_to(folder: &Path) -> PathBuf {
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(_)) if parent.as_os_str().is_empty() => PathBuf::from("."),
        (Some(parent), Some(_)) => parent.to_owned(),
        _ => folder.join(".."),
    }
}

/// The largest file that is read.
const MOST: u64 = 1 << 20;

pub(crate) fn settings(path: &Path) -> Result<Option<Settings>, ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: path.to_owned(),
        problem,
    };
    let text = match sdft_files::read_regular(path, MOST) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(problem(format!("cannot be read: {e}"))),
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(fields)) => Ok(Some(Settings {
            path: path.to_owned(),
            fields,
        })),
        Ok(_) => Err(problem("expected a JSON object".into())),
        Err(e) => Err(problem(format!("damaged JSON: {}", brief(e)))),
    }
}

/// Names of the weights that `save_pretrained` writes, the preferred ones first.
const WEIGHTS: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
];

/// The weights in a folder as diffusers' `save_pretrained` writes it, of a pipeline or of its network alone; `None` if it is another
/// folder.
///
/// # Errors
/// A `model_index.json` that cannot be read or is that of another pipeline, or weights that are missing.
pub fn folder_weights(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    let index = settings(&folder.join(INDEX))?;
    let pipeline = index.as_ref().map(pipeline_of).transpose()?;
    let network = pipeline.map_or("unet", |pipeline| pipeline.network);
    let known = pipeline.map(|pipeline| [pipeline.network, ""]);
    let inside: &[&str] = match &known {
        Some(known) => known,
        // A part alone, or a pipeline whose index was left out.
        None => &["unet", "transformer", ""],
    };
    let inside = inside.iter();
    let mut all = inside.flat_map(|inside| WEIGHTS.map(|name| folder.join(inside).join(name)));
    match (all.find(|path| path.is_file()), index) {
        (None, Some(_)) => Err(ModelError::Problem {
            path: folder.to_owned(),
            problem: format!(
                "the weights of this pipeline are missing: expected {network}/{}, or one of {} there or in this folder",
                WEIGHTS[0],
                WEIGHTS[1..].join(", ")
            ),
        }),
        (found, _) => Ok(found),
    }
}

/// The file of an autoencoder's weights: the path itself, or the one in a folder or in the part of a pipeline's folder that has it.
pub(crate) fn autoencoder_weights(path: &Path) -> Result<PathBuf, ModelError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let inside = match path.join(INDEX).is_file() {
        true => &["vae", "vqvae"][..],
        false => &[""],
    };
    let mut all = inside
        .iter()
        .flat_map(|inside| WEIGHTS.map(|name| path.join(inside).join(name)));
    all.find(|path| path.is_file())
        .ok_or_else(|| ModelError::Problem {
            path: path.to_owned(),
            problem: match inside {
                [""] => format!("expected an autoencoder, found a folder without {}", WEIGHTS[0]),
                _ => format!(
                    "expected a pipeline with an autoencoder, found no weights in its folder vae or vqvae ({})",
                    WEIGHTS.join(", ")
                ),
            },
        })
}

/// The file of the weights: the path itself, or the one in a folder.
pub(crate) fn weights_of(path: &Path) -> Result<PathBuf, ModelError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    folder_weights(path)?.ok_or_else(|| ModelError::Problem {
        path: path.to_owned(),
        problem: format!(
            "expected a file of weights, found a folder without {} in it, in unet or in transformer",
            WEIGHTS[0]
        ),
    })
}
