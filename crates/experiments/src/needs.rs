//! The inputs of a table, and the list of missing ones.

use crate::figures::{Row, Table, Target};
use sdft_features::{InceptionResize, Network};
use sdft_jobs::{Error, Files, Result, Weights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Options of a table.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// The target domain.
    pub target: Target,
    /// Tables 3 and 4: the source model, a file or a run folder.
    pub source: Option<PathBuf>,
    /// Table 1: a folder of 10,000 FFHQ images at 256x256.
    pub inputs: Option<PathBuf>,
    /// All images of the target domain: a folder, or an `.npz` of images.
    pub data: Option<PathBuf>,
    /// For each row its run, weights file or folder of outputs, as `ROW=PATH`.
    pub rows: Vec<String>,
    /// The number of images of each row, for a short pass.
    pub limit: Option<u32>,
    /// How images are resized for Inception.
    pub resize: InceptionResize,
    /// Files of the networks that measure.
    pub weights: Weights,
    /// The folder of the experiment; `runs/reproduce-TABLE-TARGET` by default.
    pub out: Option<PathBuf>,
}

/// Collects the inputs of a table, and the missing ones.
pub(crate) struct Needs<'a> {
    pub(crate) table: &'a Table,
    pub(crate) options: &'a TableOptions,
    pub(crate) rows: BTreeMap<&'a str, PathBuf>,
    weights: Weights,
    missing: Vec<String>,
}

impl<'a> Needs<'a> {
    pub(crate) fn new(options: &'a TableOptions, table: &'a Table) -> Result<Self> {
        let names = || Self::rows_of(options, table).map(|row| row.name);
        if names().next().is_none() {
            return Err(Error::Usage(format!(
                "{}: the paper has it for the other target only; give --target metfaces",
                table.name
            )));
        }
        let mut rows = BTreeMap::new();
        for given in &options.rows {
            let found = given
                .split_once('=')
                .and_then(|(name, path)| Some((names().find(|known| *known == name)?, path)));
            let Some((name, path)) = found else {
                let all: Vec<&str> = names().collect();
                return Err(Error::Usage(format!(
                    "--row {given}: expected ROW=PATH with one of the rows {}",
                    all.join(", ")
                )));
            };
            rows.insert(name, PathBuf::from(path));
        }
        Ok(Self {
            table,
            options,
            rows,
            weights: options.weights.clone(),
            missing: Vec::new(),
        })
    }

    pub(crate) fn rows_of(
        options: &'a TableOptions,
        table: &'a Table,
    ) -> impl Iterator<Item = &'a Row> {
        let target = options.target;
        table.rows.iter().filter(move |row| row.target == target)
    }

    pub(crate) fn path(&mut self, path: Option<&Path>, option: &str, what: &str) -> PathBuf {
        match path {
            Some(path) if path.exists() => return path.to_owned(),
            Some(path) => self.missing.push(format!(
                "{option} {}: no such file or folder ({what})",
                path.display()
            )),
            None => self.missing.push(format!("{option}: {what}")),
        }
        PathBuf::new()
    }

    pub(crate) fn network(&mut self, network: Network) -> Option<Files> {
        let found = self
            .weights
            .of(network, &format!("give --weights {}=FILE", network.name()));
        found
            .map_err(|error| self.missing.push(error.to_string()))
            .ok()
    }

    /// The trained model of a row.
    pub(crate) fn model(&mut self, row: &Row) -> PathBuf {
        let what = format!(
            "a run of 80,000 steps: cargo xtask train --config {}-sdft --data DIR {}",
            self.target(),
            row.made_by
        );
        let given = self.rows.get(row.name).cloned();
        let option = format!("--row {}=RUN", row.name);
        let path = self.path(given.as_deref(), &option, &what);
        if path.join("plan.toml").is_file() && !path.join("final.safetensors").is_file() {
            self.missing.push(format!(
                "--row {}={}: this run is not finished; continue it with cargo xtask train --resume {1}",
                row.name,
                path.display()
            ));
        }
        path
    }

    fn target(&self) -> &'static str {
        self.options.target.name()
    }

    /// All images of the target domain; `kind` describes the accepted forms.
    pub(crate) fn target_images(&mut self, kind: &str) -> PathBuf {
        let of = match self.options.target {
            Target::Metfaces => {
                "of all 1,336 MetFaces images; huggan/metfaces on the Hub has them as parquet tables, github.com/NVlabs/metfaces-dataset as files"
            }
            Target::Aahq => {
                "of the entire AAHQ, about 25,000 images (github.com/onion-liu/aahq-dataset)"
            }
        };
        let what = format!("{kind} {of}");
        self.path(self.options.data.as_deref(), "--data", &what)
    }

    /// Fails with the list of missing inputs, if there are any.
    pub(crate) fn check(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.missing.iter().map(|m| format!("- {m}")).collect();
        Err(Error::Failed(format!(
            "{} ({}) cannot start, {} things are missing:\n{}",
            self.table.name,
            self.table.what,
            list.len(),
            list.join("\n")
        )))
    }

    pub(crate) fn out(&self) -> PathBuf {
        let own = format!("runs/reproduce-{}-{}", self.table.name, self.target());
        self.options.out.clone().unwrap_or_else(|| own.into())
    }
}
