//! The edits of a job: directions of Asyrp, or models that were tuned with DiffusionCLIP.

use super::plan::{EditEntry, Stated};
use crate::condition::Conditioned;
use crate::context::{Context, Runtime};
use crate::error::{Result, ResultExt as _, option, usage};
use crate::model::{ModelFile, check_same_noise, hint, load_model};
use sdft_adapters::KIND as ADAPTER;
use sdft_asyrp::{LoadedDirection, read_direction};
use sdft_checkpoint::{ReadOptions, describe};
use sdft_diffusion::{BottleneckNet as _, KIND_KEY};
use sdft_diffusionclip::{TuningInfo, read_tuning_info};
use sdft_directions::EditMethod;
use sdft_files::sha256_file;
use sdft_gallery::full_path;
use sdft_imaging::ImageSpec;
use sdft_models::{LoadOptions, LoadedModel};
use std::path::Path;

/// The model whose images are edited.
pub(super) struct Edited<'a> {
    pub(super) model: &'a LoadedModel,
    pub(super) network_sha256: &'a str,
    pub(super) net: &'a Conditioned,
    /// Where it computes.
    pub(super) runtime: &'a Runtime,
    /// The class that it is asked for.
    pub(super) class: Option<u32>,
    pub(super) form: ImageSpec,
}

/// Edits of one method.
pub(super) enum Edits {
    /// Blocks on the deepest features of the model.
    Directions(Vec<LoadedDirection>),
    /// Tuned copies of the model.
    Models(Vec<Conditioned>),
}

/// Edits, and what a plan says about each.
pub(super) struct LoadedEdits {
    pub(super) edits: Edits,
    /// Of each edit its file, and the steps that the file states.
    pub(super) stated: Vec<(String, Option<Stated>)>,
    /// Of each edit its entry in the plan, with strength 1.
    pub(super) entries: Vec<EditEntry>,
}

impl LoadedEdits {
    /// The method of the edits.
    pub(super) fn method(&self) -> EditMethod {
        match self.edits {
            Edits::Directions(_) => EditMethod::Asyrp,
            Edits::Models(_) => EditMethod::DiffusionClip,
        }
    }

    /// Reads the edits of files or run folders, all of one method.
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or does not fit the model; files of both methods.
    pub(super) fn read(
        edits: &[String],
        edited: &Edited<'_>,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let mut files = Vec::with_capacity(edits.len());
        for edit in edits {
            let path = Path::new(edit);
            if !path.exists() {
                return Err(option(
                    "edit",
                    format!("{edit}: no such file or run{}", hint(path)),
                ));
            }
            let file = ModelFile::find(edit).in_option("edit", edit)?;
            let file = file.noted(context);
            let info = tuning_info(&file).in_option("edit", edit)?;
            files.push((edit, file, info));
        }
        let of_method = |is_tuned: bool| files.iter().find(|(_, _, i)| i.is_some() == is_tuned);
        if let (Some((direction, ..)), Some((model, ..))) = (of_method(false), of_method(true)) {
            return Err(option(
                "edit",
                format!(
                    "{direction} and {model}: expected edits of one method; the second is a model tuned with DiffusionCLIP, the first is not"
                ),
            ));
        }
        let mut loaded = Self {
            edits: match of_method(true) {
                None => Edits::Directions(Vec::new()),
                Some(_) => Edits::Models(Vec::new()),
            },
            stated: Vec::new(),
            entries: Vec::new(),
        };
        for (edit, file, info) in &files {
            loaded
                .add(file, info.as_ref(), edited, context)
                .in_option("edit", edit)?;
        }
        Ok(loaded)
    }

    fn add(
        &mut self,
        file: &str,
        info: Option<&TuningInfo>,
        edited: &Edited<'_>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let mut entry = EditEntry {
            file: full_path(file),
            sha256: sha256_file(Path::new(file)).context(file)?,
            method: self.method(),
            from: None,
            to: None,
            trained: None,
            strength: 1.0,
        };
        let mut stated = None;
        let mut describe = |from: &str, to: &str, steps: usize, walk: Stated| {
            (entry.from, entry.to) = (Some(from.to_owned()), Some(to.to_owned()));
            entry.trained = Some(steps);
            stated = Some(walk);
        };
        let mut trained_on = None;
        match &mut self.edits {
            Edits::Directions(directions) => {
                let groups = edited.model.architecture.norm_groups();
                let sizes = edited.net.bottleneck();
                let read = read_direction(Path::new(file), sizes, groups, &edited.runtime.device)?;
                match &read.info {
                    None => context.progress.note(&format!(
                        "{file}: its metadata does not describe its training; Asyrp's t_edit and t_boost are used, and strengths are not scaled"
                    )),
                    Some(info) => {
                        trained_on = Some(info.network_sha256.clone());
                        describe(&info.from, &info.to, info.steps, Stated::from(info));
                    }
                }
                directions.push(read);
            }
            Edits::Models(models) => {
                models.push(load_tuned(file, edited, context)?);
                if let Some(info) = info {
                    trained_on = Some(info.network_sha256.clone());
                    describe(&info.from, &info.to, info.steps, Stated::from(info));
                }
            }
        }
        if trained_on.is_some_and(|network| network != edited.network_sha256) {
            context.progress.note(&format!(
                "{file}: trained on another model; it may still work on a related one"
            ));
        }
        self.stated.push((file.to_owned(), stated));
        self.entries.push(entry);
        Ok(())
    }
}

/// The edit that a file's metadata state, if it is a tuned model. Files that cannot be read are left to the reader of directions.
///
/// # Errors
/// An adapter, which is only a part of a tuned model; metadata that cannot be read.
fn tuning_info(file: &str) -> Result<Option<TuningInfo>> {
    let Ok(summary) = describe(Path::new(file), &ReadOptions::default()) else {
        return Ok(None);
    };
    if summary.metadata.get(KIND_KEY).map(String::as_str) == Some(ADAPTER) {
        return Err(usage(format!(
            "{file}: expected a direction or a whole model tuned with DiffusionCLIP, found an adapter, which is a part of one; give the \
             folder of the finished run, whose final.safetensors is the whole model; edit train --resume finishes a run"
        )));
    }
    Ok(read_tuning_info(&summary.metadata)?)
}

/// A tuned model that edits the images of another.
fn load_tuned(file: &str, edited: &Edited<'_>, context: &mut Context<'_>) -> Result<Conditioned> {
    let options = LoadOptions {
        autoencoder_otherwise: edited.model.autoencoder.clone(),
        ..LoadOptions::default()
    };
    let tuned = load_model(file, &options)?;
    context.notes(&tuned.notes);
    check_same_noise("edit", file, &tuned, edited.model)?;
    let wrong = |what: &str, found: String, expected: String| {
        Err(option(
            "edit",
            format!(
                "{file}: expected a model of {what} {expected}, as the model has, found {found}"
            ),
        ))
    };
    let (found, expected) = (
        tuned.process.prediction_type,
        edited.model.process.prediction_type,
    );
    if found != expected {
        return wrong("prediction type", found.to_string(), expected.to_string());
    }
    let [expected, height, width] = edited.model.state_shape(&edited.form);
    let found = tuned.architecture.in_channels();
    if found != expected {
        return wrong("channels", found.to_string(), expected.to_string());
    }
    if let Err(error) = tuned.architecture.check_size([height, width]) {
        return Err(option("edit", format!("{file}: {error}")));
    }
    Conditioned::new(
        edited.runtime.network_in_steps(&tuned)?,
        "class",
        edited.class,
        None,
        &tuned,
    )
}
