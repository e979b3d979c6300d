//! Which files of a folder are published.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    names::public,
    run::{ADAPTER, CARD, DIFFUSERS, FINAL, Folder, PLAN, Verb},
};
use crate::{HubError, Result, error::io};

/// The model of the best evaluation of a run.
const BEST: &str = "best.safetensors";
/// Parts of pipelines of diffusers.
const PARTS: [&str; 5] = ["unet", "transformer", "vae", "vqvae", "scheduler"];
/// Configurations of diffusers and peft.
const CONFIGS: [&str; 4] = [
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "adapter_config.json",
];

/// A file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its path in the repository, with `/`.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// What differs from the file in the folder; empty if nothing does.
    pub remark: &'static str,
    pub(crate) content: Content,
}

/// The content of a file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    File(PathBuf),
    Text(String),
}

impl Upload {
    fn file(path: impl Into<String>, from: PathBuf) -> Result<Self> {
        let size = fs::metadata(&from).map_err(io(&from))?.len();
        Ok(Self {
            path: path.into(),
            size,
            remark: "",
            content: Content::File(from),
        })
    }

    pub(crate) fn text(path: impl Into<String>, text: String, remark: &'static str) -> Self {
        Self {
            path: path.into(),
            size: text.len() as u64,
            remark,
            content: Content::Text(text),
        }
    }

    /// A JSON file whose paths of this machine become names.
    fn config(path: String, from: PathBuf) -> Result<Self> {
        let text = sdft_files::read_text(&from).map_err(io(&from))?;
        let Ok(found) = serde_json::from_str::<Value>(&text) else {
            return Err(HubError::Folder {
                path: from,
                problem: "not valid JSON".to_owned(),
            });
        };
        let mut value = found.clone();
        hide_paths(&mut value);
        if value == found {
            return Self::file(path, from);
        }
        Ok(Self::text(path, format!("{value:#}\n"), WITHOUT_PATHS))
    }
}

const WITHOUT_PATHS: &str = "paths of this machine are replaced by names";

fn hide_paths(value: &mut Value) {
    match value {
        Value::String(text) => *text = public(text),
        Value::Array(all) => all.iter_mut().for_each(hide_paths),
        Value::Object(all) => all.values_mut().for_each(hide_paths),
        _ => {}
    }
}

/// The files of a folder without its card: weights, plan, the last samples, and the files `with`.
///
/// # Errors
/// The folder has no weights, a file of `with` is not one that may be published, or a file cannot be read.
pub(crate) fn files(folder: &Folder, with: &[PathBuf]) -> Result<Vec<Upload>> {
    let mut files = match &folder.run {
        Some(run) => {
            let mut files = vec![Upload::text(PLAN, run.public_plan(), WITHOUT_PATHS)];
            let diffusers = folder.root.join(DIFFUSERS);
            if diffusers.is_dir() {
                files.extend(model(&diffusers)?);
            } else {
                let names = [Some(FINAL.to_owned()), run.autoencoder()];
                for name in names.into_iter().flatten() {
                    files.push(Upload::file(name.as_str(), folder.root.join(&name))?);
                }
            }
            if let Some(adapter) = folder.file(ADAPTER) {
                files.push(Upload::file(ADAPTER, adapter)?);
            }
            // Pictures of other commands show training images.
            if run.verb == Verb::Train
                && let Some((name, path)) = last_samples(&folder.root)?
            {
                files.push(Upload::file(format!("samples/{name}"), path)?);
            }
            files
        }
        None => model(&folder.root)?,
    };
    for file in with {
        let upload = chosen(folder, file)?;
        if files.iter().all(|known| known.path != upload.path) {
            files.push(upload);
        }
    }
    Ok(files)
}

/// Weights and configurations of a folder of a model, and of the parts of a pipeline.
fn model(root: &Path) -> Result<Vec<Upload>> {
    let mut files = Vec::new();
    for part in std::iter::once("").chain(PARTS) {
        let folder = root.join(part);
        if !folder.is_dir() {
            continue;
        }
        for name in names(&folder)? {
            let (from, path) = (
                folder.join(&name),
                if part.is_empty() {
                    name.clone()
                } else {
                    format!("{part}/{name}")
                },
            );
            if !from.is_file() {
                continue;
            }
            if CONFIGS.contains(&name.as_str()) || name.ends_with(".safetensors.index.json") {
                files.push(Upload::config(path, from)?);
            } else if name.ends_with(".safetensors") && !name.starts_with('.') {
                files.push(Upload::file(path, from)?);
            }
        }
    }
    match files.iter().any(|file| file.path.ends_with(".safetensors")) {
        true => Ok(files),
        false => Err(HubError::Folder {
            path: root.to_owned(),
            problem: "no weights (.safetensors) in it; expected a finished run, a folder of diffusers, or a folder that convert wrote; \
                      `cargo xtask convert` makes safetensors of other files"
                .to_owned(),
        }),
    }
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let name = entry.map_err(io(folder))?.file_name();
        // The Hub's paths are UTF-8.
        names.extend(name.into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// The sheet of samples with the most steps.
pub(crate) fn last_samples(root: &Path) -> Result<Option<(String, PathBuf)>> {
    let folder = root.join("samples");
    if !folder.is_dir() {
        return Ok(None);
    }
    let step = |name: &str| -> Option<u64> {
        name.strip_prefix("step-")?
            .strip_suffix(".png")?
            .parse()
            .ok()
    };
    let sheets = names(&folder)?
        .into_iter()
        .filter_map(|name| Some((step(&name)?, name)));
    Ok(sheets.max().map(|(_, name)| {
        let path = folder.join(&name);
        (name, path)
    }))
}

/// A file that the caller chose: a picture of the folder, or the model of the best evaluation.
fn chosen(folder: &Folder, file: &Path) -> Result<Upload> {
    let wrong = |problem: String| {
        Err(HubError::Folder {
            path: file.to_owned(),
            problem: format!("--with: {problem}"),
        })
    };
    let inside = folder.root.join(file);
    let from = if inside.is_file() {
        inside
    } else {
        file.to_owned()
    };
    if !from.is_file() {
        return wrong(format!(
            "no such file, neither in {} nor at this path",
            folder.root.display()
        ));
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(io(path));
    let (root, full) = (real(&folder.root)?, real(&from)?);
    let Some(path) = full.strip_prefix(&root).ok().and_then(Path::to_str) else {
        return wrong(format!("expected a file in {}", folder.root.display()));
    };
    let path = path.replace('\\', "/");
    let is_picture = path.rsplit_once('.').is_some_and(|(_, ending)| {
        ["png", "jpg", "jpeg", "webp", "gif"].contains(&ending.to_ascii_lowercase().as_str())
    });
    if !is_picture && path != BEST {
        return wrong(format!(
            "expected a picture (.png, .jpg, .webp, .gif) or {BEST}"
        ));
    }
    Upload::file(path, from)
}

/// What of the folder is not published: names of files and folders at its top.
pub(crate) fn left_out(folder: &Folder, files: &[Upload]) -> Result<Vec<String>> {
    let is_published = |name: &str| {
        let inside = format!("{name}/");
        name == CARD
            || folder.run.is_some() && name == DIFFUSERS
            || files
                .iter()
                .any(|file| file.path == name || file.path.starts_with(&inside))
    };
    let mut left = names(&folder.root)?;
    left.retain(|name| !is_published(name));
    Ok(left)
}
