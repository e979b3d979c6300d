//! Files of the networks that measure.

use crate::error::{Result, ResultExt as _, failed, option};
use sdft_assets::{Error, HubCache};
use sdft_features::Network;
use sdft_files::{did_you_mean, similar_path};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Files that were given for networks; other networks are taken from the cache of the Hub's client.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    files: BTreeMap<&'static str, Vec<PathBuf>>,
    /// The arguments as they were given.
    arguments: Vec<String>,
}

impl Weights {
    /// Reads `NETWORK=FILE` arguments; one network may be given several files.
    ///
    /// # Errors
    /// An unknown network, or a file that does not exist.
    pub fn parse(given: &[String]) -> Result<Self> {
        let mut files: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
        for argument in given {
            let Some((name, file)) = argument.split_once('=') else {
                return Err(option(
                    "weights",
                    format!("{argument}: expected NETWORK=FILE, as in inception=model.safetensors"),
                ));
            };
            let names = || Network::ALL.iter().map(|(name, _)| *name);
            let Some(known) = names().find(|known| *known == name) else {
                let hint = did_you_mean(name, names());
                return Err(option(
                    "weights",
                    format!(
                        "{argument}: there is no network {name}, expected one of {}{hint}",
                        names().collect::<Vec<_>>().join(", ")
                    ),
                ));
            };
            let path = PathBuf::from(file);
            if !path.is_file() {
                return Err(option(
                    "weights",
                    format!("{argument}: {file} is not a file{}", similar_path(&path)),
                ));
            }
            files.entry(known).or_default().push(path);
        }
        Ok(Self {
            files,
            arguments: given.to_vec(),
        })
    }

    /// The arguments as they were given.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The files of a network: weights, and `tokenizer.json` where it has one. `otherwise` says how to give a file or do without.
    ///
    /// # Errors
    /// The files were not given and are not in the cache, or differ from their known hashes.
    pub fn of(&self, network: Network, otherwise: &str) -> Result<Files> {
        let name = network.name();
        let all = match self.files.get(name) {
            Some(files) => files.clone(),
            None => {
                match HubCache::from_environment().and_then(|cache| cache.locate_verified(name)) {
                    Ok(files) => files,
                    Err(Error::Missing {
                        expected_path,
                        command,
                        ..
                    }) => {
                        return Err(failed(format!(
                            "the weights of {name} are missing (expected {}); get them with\n  cargo xtask fetch {name}\nor with\n  {command}\nor {otherwise}",
                            expected_path.display()
                        )));
                    }
                    Err(error) => return Err(error).with_context(|| format!("weights of {name}")),
                }
            }
        };
        Ok(Files::of(all))
    }

    /// The files that were given for a network, if any.
    pub fn given(&self, network: Network) -> Option<&[PathBuf]> {
        self.files.get(network.name()).map(Vec::as_slice)
    }

    /// Fails if files were given for a network that is not used.
    ///
    /// # Errors
    /// Such a file.
    pub fn refuse_others(&self, used: &[Network]) -> Result<()> {
        let unused = |name: &&str| !used.iter().any(|network| network.name() == *name);
        match self.files.keys().copied().find(unused) {
            Some(name) => Err(option(
                "weights",
                format!("{name}=..: {name} is not used here"),
            )),
            None => Ok(()),
        }
    }
}

/// Files of one network.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Weights, in one or several files.
    pub weights: Vec<PathBuf>,
    /// The tokenizer of a network that reads texts.
    pub tokenizer: Option<PathBuf>,
}

impl Files {
    /// Separates the tokenizer, a `.json` file, from the weights.
    pub fn of(all: Vec<PathBuf>) -> Self {
        let (tokenizer, weights) = all
            .into_iter()
            .partition::<Vec<_>, _>(|path| path.extension().is_some_and(|e| e == "json"));
        Self {
            weights,
            tokenizer: tokenizer.into_iter().next(),
        }
    }
}
