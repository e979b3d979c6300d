//! Options of a run that trains an edit, and what the runs of both methods share.

use super::options::RunOptions;
use super::presets::DIRECTIONS;
use crate::cache::CacheLocation;
use crate::context::Context;
use crate::data::{Form, open_data};
use crate::error::{Result, failed, option, usage};
use crate::weights::Weights;
use sdft_data::{ImageSource, Joined};
use sdft_directions::{DirectionData, DirectionPlan, EditMethod, TuningPlan};
use sdft_imaging::ImageSpec;
use sdft_settings::{Plan, layers, peek, put};
use sdft_train::{ClassesPlan, DataPlan};
use std::path::Path;
use std::sync::Arc;
use toml::{Table, Value};

/// The presets if neither presets, models, images nor texts are named.
const EXAMPLE: &str = "emoji-man-to-woman";
const TUNING_EXAMPLE: &str = "digits-3-to-2-diffusionclip";

/// A step of the process, or one to find from the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditStep {
    /// This step.
    At(usize),
    /// By the published rule, from the distances between inversions and their images.
    Auto,
}

/// Options of a run that trains an edit; the defaults train the direction of the embedded example.
#[derive(Clone, Debug, Default)]
pub struct DirectionOptions {
    /// Options of every run; `steps` is not used here.
    pub run: RunOptions,
    /// How the edit is trained; if `None`, the settings say it, and otherwise it is [`EditMethod::Asyrp`].
    pub method: Option<EditMethod>,
    /// The model, which is not changed.
    pub model: Option<String>,
    /// The part of the model's file to take, if it holds several.
    pub source_key: Option<String>,
    /// The images: a folder, or the name of embedded ones.
    pub data: Option<String>,
    /// What the images show.
    pub from: Option<String>,
    /// What the edited images should show.
    pub to: Option<String>,
    /// The class that the model is asked for, by name or number; if `None`, its null class.
    pub class: Option<String>,
    /// How often each image is used.
    pub epochs: Option<u32>,
    /// How many images are used, from the first on; 0 for all.
    pub images: Option<u32>,
    /// Asyrp: features are changed at this step and above.
    pub t_edit: Option<EditStep>,
    /// Asyrp: below this step fresh noise is added when the edit is applied.
    pub t_boost: Option<EditStep>,
    /// Files of the networks that measure.
    pub weights: Weights,
    /// Where inversions are kept.
    pub cache: CacheLocation,
}

impl DirectionOptions {
    /// The method of a new run: that of the options, or else of the settings.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::Error::Settings) for an unknown preset, and [`Error::Usage`](crate::Error::Usage) for an unknown method.
    pub fn method(&self) -> Result<EditMethod> {
        if let Some(method) = self.method {
            return Ok(method);
        }
        match peek(&DIRECTIONS, &self.run.config, &self.run.set, "method")? {
            None => Ok(EditMethod::default()),
            Some(found) => found.clone().try_into().map_err(|_| {
                usage(format!(
                    "method: expected \"asyrp\" or \"diffusionclip\", found {found}"
                ))
            }),
        }
    }

    /// The table of settings for [`Self::method`]: presets and files, then options, then assignments.
    ///
    /// # Errors
    /// - [`Error::Settings`](crate::Error::Settings) for an unknown preset or key, or an invalid value
    /// - [`Error::Usage`](crate::Error::Usage) for a number of steps, or an option of another method
    pub fn settings(&self) -> Result<Table> {
        match self.method()? {
            EditMethod::Asyrp => self.settings_of::<DirectionPlan>(EditMethod::Asyrp),
            EditMethod::DiffusionClip => {
                self.refuse_steps_of_asyrp()?;
                self.settings_of::<TuningPlan>(EditMethod::DiffusionClip)
            }
        }
    }

    fn settings_of<P: Plan>(&self, method: EditMethod) -> Result<Table> {
        self.refuse_steps()?;
        let given = [&self.model, &self.data, &self.from, &self.to];
        let is_embedded = self.run.config.is_empty() && given.iter().all(|given| given.is_none());
        let example = match method {
            EditMethod::Asyrp => EXAMPLE,
            EditMethod::DiffusionClip => TUNING_EXAMPLE,
        };
        let configs = match is_embedded {
            true => vec![example.to_owned()],
            false => self.run.config.clone(),
        };
        let mut table = layers::<P>(&DIRECTIONS, &configs)?;
        put(&mut table, "method", method.name());
        let texts = [
            ("source", &self.model),
            ("source_key", &self.source_key),
            ("data.path", &self.data),
            ("goal.from", &self.from),
            ("goal.to", &self.to),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                put(&mut table, key, value.as_str());
            }
        }
        let step = |option| match option {
            Some(EditStep::At(step)) => i64::try_from(step).ok(),
            _ => None,
        };
        let numbers = [
            ("loop.epochs", self.epochs.map(i64::from)),
            ("data.images", self.images.map(i64::from)),
            ("walk.t_edit", step(self.t_edit)),
            ("walk.t_boost", step(self.t_boost)),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                put(&mut table, key, value);
            }
        }
        self.run.apply::<P>(&mut table)?;
        Ok(table)
    }

    /// Fails for steps that only Asyrp has.
    pub(super) fn refuse_steps_of_asyrp(&self) -> Result<()> {
        let steps = [("t_edit", self.t_edit), ("t_boost", self.t_boost)];
        match steps.into_iter().find(|(_, step)| step.is_some()) {
            None => Ok(()),
            Some((name, _)) => Err(option(
                name,
                "belongs to Asyrp; DiffusionCLIP tunes the whole model at all steps up to walk.t_0",
            )),
        }
    }

    /// Fails if the name of a new run is taken.
    pub(super) fn check_name_is_free(&self) -> Result<()> {
        let Some(name) = &self.run.name else {
            return Ok(());
        };
        let root = self.run.out.join(name);
        match root.join("plan.toml").exists() {
            false => Ok(()),
            true => Err(failed(format!(
                "{}: this folder holds a run; continue it with --resume {0}, or give the new one another --name",
                root.display()
            ))),
        }
    }

    pub(super) fn refuse_steps(&self) -> Result<()> {
        match self.run.steps {
            None => Ok(()),
            Some(_) => Err(usage(
                "--steps: an edit is trained for a number of --epochs; the steps of a trajectory or a generation are --set walk.steps=N",
            )),
        }
    }

    /// Whether `t_edit` and `t_boost` are to be found.
    pub(super) fn finds(&self) -> [bool; 2] {
        [self.t_edit, self.t_boost].map(|step| step == Some(EditStep::Auto))
    }
}

/// The method of the run in a folder; Asyrp if its plan does not say, or cannot be read, which opening the run reports.
pub fn method_of_run(folder: &Path) -> EditMethod {
    let text = std::fs::read_to_string(folder.join("plan.toml")).unwrap_or_default();
    let table: Table = toml::from_str(&text).unwrap_or_default();
    let method = table.get("method").cloned().map(Value::try_into);
    method.and_then(std::result::Result::ok).unwrap_or_default()
}

/// The first images of a run's data, as many as it uses.
pub(super) fn open_images(
    data: &DirectionData,
    form: &ImageSpec,
    context: &mut Context<'_>,
) -> Result<Arc<dyn ImageSource>> {
    let n = data.images;
    let data = DataPlan {
        path: data.path.clone(),
        strict: data.strict,
        style: data.style.clone(),
        classes: data.classes.clone().map(ClassesPlan::Digits),
        per_class: data.per_class,
        only: data.only.clone(),
        ..DataPlan::default()
    };
    let all = open_data(&data, &Form::of(form), context)?;
    let n = match n {
        0 => all.len(),
        n => n.min(all.len()),
    };
    Ok(Arc::new(Joined::new(vec![(all, (0..n).collect())])?))
}
