//! Files of a tiny network, and options to load them with.
#![allow(dead_code, reason = "each test file uses its own part")]

use sdft_checkpoint::write_safetensors;
use sdft_diffusion::Process;
use sdft_models::{LoadOptions, ModelError, NetworkFile, load_network, save_network};
use sdft_nn::Params;
use sdft_testing::{initial_params, tiny_config};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) struct Files {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) params: Params,
}

impl Files {
    pub(crate) fn new() -> Self {
        let params = initial_params(&tiny_config(), 5);
        Self {
            dir: tempfile::tempdir().unwrap(),
            params,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With metadata, as this project writes it.
    pub(crate) fn ours(&self) -> PathBuf {
        let path = self.path("ours.safetensors");
        let cosine = Process {
            noise_schedule: "cosine".into(),
            ..Process::default()
        };
        let provenance = BTreeMap::from([("run".to_owned(), "r".to_owned())]);
        save_network(
            &path,
            &NetworkFile {
                provenance: &provenance,
                ..NetworkFile::new(&tiny_config().into(), &cosine)
            },
            &self.params,
            None,
        )
        .unwrap();
        path
    }

    /// Without, as others do.
    pub(crate) fn bare(&self) -> PathBuf {
        let path = self.path("bare.safetensors");
        write_safetensors(&path, self.params.iter(), &BTreeMap::new(), None).unwrap();
        path
    }
}

pub(crate) fn given(fields: serde_json::Value) -> LoadOptions {
    let serde_json::Value::Object(given) = fields else {
        panic!("an object is needed")
    };
    LoadOptions {
        given,
        ..LoadOptions::default()
    }
}

pub(crate) fn error(path: &Path, options: &LoadOptions) -> ModelError {
    load_network(path, options).unwrap_err()
}
