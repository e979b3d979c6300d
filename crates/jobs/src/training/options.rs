//! Options of every kind of run, and settings that may change on resume.

use super::presets::plan as plan_of;
use crate::context::Context;
use crate::embedded::is_embedded;
use crate::error::{Result, ResultExt as _, usage};
use sdft_settings::{Plan, put, set, set_all};
use sdft_train::{LrSchedule, RunPlan};
use std::path::{Path, PathBuf};
use toml::Table;

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Presets and TOML files; later ones override earlier ones.
    pub config: Vec<String>,
    /// Optimizer steps.
    pub steps: Option<u64>,
    /// Images per step.
    pub batch: Option<u64>,
    /// Seed of every random number.
    pub seed: Option<u64>,
    /// Name of the run and of its folder.
    pub name: Option<String>,
    /// The folder that contains the run's folder.
    pub out: PathBuf,
    /// Other settings as `KEY=VALUE`; they override all others.
    pub set: Vec<String>,
    /// Fail on an image that cannot be read, instead of ignoring it.
    pub strict: bool,
}

impl Default for RunOptions {
    /// A run in the folder `runs`.
    fn default() -> Self {
        Self {
            config: Vec::new(),
            steps: None,
            batch: None,
            seed: None,
            name: None,
            out: "runs".into(),
            set: Vec::new(),
            strict: false,
        }
    }
}

impl RunOptions {
    /// Puts the options into a table, `set` last.
    pub(crate) fn apply<P: Plan>(&self, table: &mut Table) -> Result<()> {
        self.apply_all_but_set(table)?;
        Ok(set_all::<P>(table, &self.set)?)
    }

    /// Puts the options except `set` into a table.
    pub(crate) fn apply_all_but_set(&self, table: &mut Table) -> Result<()> {
        if let Some(name) = &self.name {
            put(table, "name", name.as_str());
        }
        let numbers = [
            ("loop.steps", self.steps),
            ("loop.batch", self.batch),
            ("seed", self.seed),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                let value = i64::try_from(value)
                    .map_err(|_| usage(format!("{key}: {value} is too large")))?;
                put(table, key, value);
            }
        }
        if self.strict {
            put(table, "data.strict", true);
        }
        Ok(())
    }

    /// Whether `set` assigns a key.
    pub(crate) fn sets(&self, key: &str) -> bool {
        let mut assignments = self.set.iter().filter_map(|set| set.split_once('='));
        assignments.any(|(set, _)| set.trim() == key)
    }

    /// The plan of a resumed run with `steps` and `set` applied. Only `allowed` keys and the section `output` may change.
    pub(crate) fn change<P: Plan + RunPlan>(
        &self,
        plan: P,
        allowed: &[&str],
        context: &mut Context<'_>,
    ) -> Result<P> {
        if self.set.is_empty() && self.steps.is_none() {
            return Ok(plan);
        }
        let mut table = Table::try_from(&plan).context("the plan cannot be changed")?;
        for assignment in &self.set {
            let key = assignment.split('=').next().unwrap_or_default().trim();
            if !allowed.contains(&key) && !key.starts_with("output.") {
                return Err(usage(format!(
                    "--set {assignment}: a resumed run keeps its plan; only {} and output.* can change",
                    allowed.join(", ")
                )));
            }
            set::<P>(&mut table, assignment)?;
        }
        if let Some(steps) = self.steps {
            let steps = i64::try_from(steps).unwrap_or(i64::MAX);
            put(&mut table, "loop.steps", steps);
        }
        let plan: P = plan_of(table, context)?;
        plan.validate().map_err(|e| usage(e.to_string()))?;
        Ok(plan)
    }
}

/// Makes a path absolute, so that a run can be resumed from another folder. Names of embedded data stay.
pub(crate) fn make_absolute(path: &mut String) {
    if is_embedded(path) || !Path::new(path.as_str()).exists() {
        return;
    }
    // Links stay: in a cache of downloads, only the link has the file's name.
    if let Ok(full) = std::path::absolute(path.as_str()) {
        *path = full.display().to_string();
    }
}

/// Replaces the path of a moved file or folder. The caller compares its content.
pub(crate) fn moved(path: &mut String, to: Option<&str>) {
    if let Some(to) = to {
        to.clone_into(path);
        make_absolute(path);
    }
}

/// A note on a learning rate that depends on the number of steps, which has changed.
pub(crate) fn note_changed_rate(schedule: LrSchedule, context: &mut Context<'_>) {
    if schedule != LrSchedule::Constant {
        context.progress.note(
            "the learning rate follows the number of steps, so another number changes it from here on",
        );
    }
}
