//! The file of an adapter: its tensors and metadata.

use crate::config::AdapterConfig;
use crate::error::{Error, Result};
use crate::peft;
use candle_core::Tensor;
use sdft_checkpoint::{ReadOptions, StateDict, read};
use sdft_diffusion::KIND_KEY;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kind of an adapter's file in its metadata.
pub const KIND: &str = "adapter";
/// The key of the settings, as JSON, in a file's metadata.
const ADAPTER_KEY: &str = "sdft.adapter";
/// The key of the hash of the network that an adapter was trained on, in its file's metadata.
const BASE_KEY: &str = "sdft.base_sha256";
/// The adapter in the folder of a finished run, and in a checkpoint.
const IN_FOLDER: [&str; 2] = ["adapter.safetensors", "ema.safetensors"];

/// A trained adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its file or folder.
    pub path: PathBuf,
    /// What was trained.
    pub config: AdapterConfig,
    /// The hash of the network that it was trained on; `None` if the file does not state it, as peft's do not.
    pub base_sha256: Option<String>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// The metadata of an adapter's file.
pub(crate) fn metadata(config: &AdapterConfig, base_sha256: &str) -> BTreeMap<String, String> {
    // A struct of numbers and texts always has JSON.
    let config = serde_json::to_string(config).unwrap_or_default();
    let mut metadata = BTreeMap::from([
        (KIND_KEY.to_owned(), KIND.to_owned()),
        (ADAPTER_KEY.to_owned(), config),
    ]);
    if !base_sha256.is_empty() {
        metadata.insert(BASE_KEY.to_owned(), base_sha256.to_owned());
    }
    metadata
}

impl Adapter {
    /// Reads an adapter on the CPU: a file, the folder of a finished run, a checkpoint, or a folder in peft's layout.
    ///
    /// # Errors
    /// - [`Error::Weights`] if the file cannot be read
    /// - [`Error::File`] if it is not an adapter, or uses a setting of peft that is not supported
    pub fn read(path: &Path) -> Result<Self> {
        if let Some(folder) = peft::folder_of(path) {
            return peft::read(folder);
        }
        let inside = IN_FOLDER.map(|name| path.join(name));
        let file = match inside.into_iter().find(|file| file.is_file()) {
            Some(file) => file,
            None if path.is_dir() => {
                return Err(Error::file(
                    path,
                    format!(
                        "expected the folder of a finished run with {}, a checkpoint, or peft's with adapter_config.json",
                        IN_FOLDER[0]
                    ),
                ));
            }
            None => path.to_owned(),
        };
        let state = read(&file, &ReadOptions::default())?;
        let metadata = state.metadata();
        let Some(text) = metadata.get(ADAPTER_KEY) else {
            return Err(Error::file(
                file,
                format!("expected an adapter, found a file without {ADAPTER_KEY} in its metadata"),
            ));
        };
        let config: AdapterConfig = serde_json::from_str(text)
            .map_err(|error| Error::file(&file, format!("metadata {ADAPTER_KEY}: {error}")))?;
        config
            .check()
            .map_err(|error| Error::file(&file, format!("metadata {ADAPTER_KEY}: {error}")))?;
        Ok(Self {
            base_sha256: metadata.get(BASE_KEY).cloned(),
            config,
            path: file,
            tensors: named(state),
        })
    }

    /// Fails if the adapter was trained on another network than the one of this hash; messages call that one `base`.
    ///
    /// # Errors
    /// [`Error::File`], which names both.
    pub fn check_base(&self, base: &str, sha256: &str) -> Result<()> {
        match &self.base_sha256 {
            Some(own) if own != sha256 => Err(Error::file(
                &self.path,
                format!(
                    "the adapter was trained on another network: expected the one of SHA-256 {own}, found {base} of {sha256}"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Names and tensors.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }
}

pub(crate) fn named(state: StateDict) -> BTreeMap<String, Tensor> {
    state.into_map().into_iter().collect()
}

/// An adapter to apply, and its scale: `FILE` or `FILE=SCALE`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFile {
    /// Its file or folder; see [`Adapter::read`].
    pub path: PathBuf,
    /// 0 has no effect, 1 is as trained.
    pub strength: f64,
}

impl FromStr for AdapterFile {
    type Err = Error;

    /// Text after the last `=` is the strength if it is a number. A path that exists is never split.
    fn from_str(text: &str) -> Result<Self> {
        let whole = || Self {
            path: text.into(),
            strength: 1.0,
        };
        let Some((path, strength)) = text.rsplit_once('=').filter(|_| !Path::new(text).exists())
        else {
            return Ok(whole());
        };
        match strength.parse::<f64>() {
            Ok(strength) if strength.is_finite() && !path.is_empty() => Ok(Self {
                path: path.into(),
                strength,
            }),
            _ => Err(Error::file(
                text,
                format!("expected FILE or FILE=SCALE with a finite number, found {strength:?}"),
            )),
        }
    }
}
