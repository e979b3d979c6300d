//! Where the weights of the networks that measure are.

use crate::usage;
use anyhow::{Context, Result, bail};
use sdft_assets::{Error, HubCache};
use sdft_features::Network;
use sdft_files::did_you_mean;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `--weights` gave, and the cache for the rest.
pub(crate) struct Weights(BTreeMap<&'static str, Vec<PathBuf>>);

impl Weights {
    /// Reads `NETWORK=FILE` arguments.
    pub(crate) fn parse(given: &[String]) -> Result<Self> {
        let mut files: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
        for argument in given {
            let Some((name, file)) = argument.split_once('=') else {
                return Err(usage(format!(
                    "--weights {argument}: expected NETWORK=FILE, as in --weights inception=model.safetensors"
                )));
            };
            let names = || Network::ALL.iter().map(|(name, _)| *name);
            let Some(known) = names().find(|known| *known == name) else {
                let hint = did_you_mean(name, names());
                return Err(usage(format!(
                    "--weights {argument}: there is no network {name}, expected one of {}{hint}",
                    names().collect::<Vec<_>>().join(", ")
                )));
            };
            let path = PathBuf::from(file);
            if !path.is_file() {
                return Err(usage(format!("--weights {argument}: {file} is no file")));
            }
            files.entry(known).or_default().push(path);
        }
        Ok(Self(files))
    }

    /// The files of a network: weights, and `tokenizer.json` where it has one. `otherwise` says how to give a file or do without.
    pub(crate) fn of(&self, network: Network, otherwise: &str) -> Result<Files> {
        let name = network.name();
        let all = match self.0.get(name) {
            Some(files) => files.clone(),
            None => {
                match HubCache::from_environment().and_then(|cache| cache.locate_verified(name)) {
                    Ok(files) => files,
                    Err(Error::Missing {
                        looked_at, command, ..
                    }) => bail!(
                        "the weights of {name} are not here (looked for {}); get them with\n  cargo xtask fetch {name}\nor with\n  {command}\nor {otherwise}",
                        looked_at.display()
                    ),
                    Err(error) => return Err(error).with_context(|| format!("weights of {name}")),
                }
            }
        };
        Ok(Files::of(all))
    }

    /// The files that were given for a network, if any.
    pub(crate) fn given(&self, network: Network) -> Option<&[PathBuf]> {
        self.0.get(network.name()).map(Vec::as_slice)
    }

    /// Fails if files were given for a network that nobody asks.
    pub(crate) fn refuse_others(&self, used: &[Network]) -> Result<()> {
        let unused = |name: &&str| !used.iter().any(|network| network.name() == *name);
        match self.0.keys().copied().find(unused) {
            Some(name) => Err(usage(format!(
                "--weights {name}=..: nothing here looks with {name}"
            ))),
            None => Ok(()),
        }
    }
}

/// Files of one network.
pub(crate) struct Files {
    pub(crate) weights: Vec<PathBuf>,
    pub(crate) tokenizer: Option<PathBuf>,
}

impl Files {
    /// Weights and what is a tokenizer by its name.
    pub(crate) fn of(all: Vec<PathBuf>) -> Self {
        let (tokenizer, weights) = all
            .into_iter()
            .partition::<Vec<_>, _>(|path| path.extension().is_some_and(|e| e == "json"));
        Self {
            weights,
            tokenizer: tokenizer.into_iter().next(),
        }
    }
}
