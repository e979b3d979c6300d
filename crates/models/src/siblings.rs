//! The JSON files that diffusers writes next to a model's weights.

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

impl Siblings {
    /// Reads the files that exist.
    ///
    /// # Errors
    /// A file cannot be read or is not a JSON object.
    pub(crate) fn of(weights: &Path) -> Result<Self, ModelError> {
        let folder = sdft_files::parent_of(weights);
        let scheduler = "scheduler_config.json";
        let scheduler = match settings(&folder.join(scheduler))? {
            Some(found) => Some(found),
            None => settings(&next_to(folder).join("scheduler").join(scheduler))?,
        };
        Ok(Self {
            config: settings(&folder.join("config.json"))?,
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

/// The parent of a folder.
fn next_to(folder: &Path) -> PathBuf {
    match (folder.parent(), folder.file_name()) {
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

/// The weights in a folder as diffusers' `save_pretrained` writes it, of a pipeline or of its network alone.
pub fn folder_weights(folder: &Path) -> Option<PathBuf> {
    let names = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.bin.index.json",
    ];
    ["", "unet"]
        .iter()
        .flat_map(|inside| names.iter().map(move |name| folder.join(inside).join(name)))
        .find(|path| path.is_file())
}
