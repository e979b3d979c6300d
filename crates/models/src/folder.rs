//! Folders in diffusers' layout: their weights, and the JSON files next to them.

use crate::error::{ModelError, brief};
use serde_json::{Map, Value};
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
}

const CONFIG: &str = "config.json";
const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler_config.json";

/// Pipelines of a `UNet2DModel` on images.
const PIPELINES: [&str; 3] = ["DDPMPipeline", "DDIMPipeline", "PNDMPipeline"];

impl Siblings {
    /// Reads the files that exist.
    ///
    /// # Errors
    /// A file cannot be read or is not a JSON object, or the weights are part of a pipeline that does not work on images.
    pub(crate) fn of(weights: &Path) -> Result<Self, ModelError> {
        let folder = sdft_files::parent_of(weights);
        if let Some(index) = settings(&folder.join(INDEX))? {
            check_pipeline(&index)?;
        }
        let above = next_to(folder);
        if let Some(index) = settings(&above.join(INDEX))? {
            let name = folder.canonicalize().ok();
            let name = name.as_deref().and_then(Path::file_name);
            let name = name.and_then(|name| name.to_str()).unwrap_or("unet");
            // Another folder may be there by chance.
            if index.fields.contains_key(name) {
                check_pipeline(&index)?;
            }
        }
        let scheduler = match settings(&folder.join(SCHEDULER))? {
            Some(found) => Some(found),
            None => settings(&above.join("scheduler").join(SCHEDULER))?,
        };
        Ok(Self {
            config: settings(&folder.join(CONFIG))?,
            scheduler,
        })
    }

    /// The text that the network's hash covers in addition to the weights.
    pub(crate) fn text(&self) -> String {
        let all = [&self.config, &self.scheduler].into_iter().flatten();
        all.map(|settings| format!("\n{}", Value::Object(settings.fields.clone())))
            .collect()
    }
}

/// Fails unless the pipeline of a `model_index.json` is a `UNet2DModel` on images.
fn check_pipeline(index: &Settings) -> Result<(), ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: index.path.clone(),
        problem,
    };
    let class = index.fields.get("_class_name").unwrap_or(&Value::Null);
    if !PIPELINES.iter().any(|known| class == *known) {
        return Err(problem(format!(
            "_class_name: expected a pipeline of a UNet2DModel on images ({}), found {}; give a model of such a pipeline",
            PIPELINES.join(", "),
            brief(class)
        )));
    }
    let network = index.fields.get("unet").unwrap_or(&Value::Null);
    if network.get(1).is_none_or(|class| class != "UNet2DModel") {
        return Err(problem(format!(
            "unet: expected [\"diffusers\", \"UNet2DModel\"], found {}",
            brief(network)
        )));
    }
    Ok(())
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

fn settings(path: &Path) -> Result<Option<Settings>, ModelError> {
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
    if let Some(index) = &index {
        check_pipeline(index)?;
    }
    let inside = ["unet", "transformer", ""].into_iter();
    let mut all = inside.flat_map(|inside| WEIGHTS.map(|name| folder.join(inside).join(name)));
    match (all.find(|path| path.is_file()), index) {
        (None, Some(_)) => Err(ModelError::Problem {
            path: folder.to_owned(),
            problem: format!(
                "the weights of this pipeline are missing: expected unet/{}, or one of {} there or in this folder",
                WEIGHTS[0],
                WEIGHTS[1..].join(", ")
            ),
        }),
        (found, _) => Ok(found),
    }
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
