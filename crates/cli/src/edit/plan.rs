//! What decides an edit, as it stands in `plan.toml` beside its images.

use super::args::EditApplyArgs;
use crate::usage;
use anyhow::{Context, Result};
use sdft_asyrp::DirectionInfo;
use sdft_models::Process;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Steps from noise to image where nothing is said.
const STEPS: usize = 40;
/// Asyrp's scripts, for directions that say nothing.
const T_EDIT: usize = 500;
const T_BOOST: usize = 200;
const T_0: usize = 999;

/// An edit with everything resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyPlan {
    pub(super) input: String,
    /// Side of the images that the model makes; inputs are centre-cropped and resized to it.
    pub(super) image_size: usize,
    pub(super) model: String,
    pub(super) model_sha256: String,
    /// The factors of all strengths, in the order of the sweep; 1 alone without one.
    pub(super) factors: Vec<f64>,
    pub(super) walk: ApplyWalk,
    pub(super) edits: Vec<EditEntry>,
    pub(super) process: Process,
}

/// How images become noise and images again; `--settings` takes this over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyWalk {
    pub(super) t_0: usize,
    pub(super) inversion: usize,
    pub(super) steps: usize,
    pub(super) t_edit: usize,
    pub(super) t_boost: usize,
    pub(super) seed: u64,
    pub(super) frames: bool,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EditEntry {
    pub(super) file: String,
    pub(super) sha256: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    /// Steps of the trajectories that it was trained on; none if its file does not say.
    pub(super) trained: Option<usize>,
    pub(super) strength: f64,
}

impl ApplyWalk {
    /// Options, then the settings of an earlier edit, then what the directions' files agree on, then Asyrp's.
    pub(super) fn new(
        args: &EditApplyArgs,
        infos: &[(String, Option<DirectionInfo>)],
    ) -> Result<Self> {
        let earlier = args.settings.as_deref().map(read_walk).transpose()?;
        let earlier = earlier.as_ref();
        // The value that a setting gets.
        let settle = |said: Option<usize>,
                      option: &str,
                      kept: fn(&Self) -> usize,
                      known: fn(&DirectionInfo) -> usize,
                      usual: usize|
         -> Result<usize> {
            if let Some(value) = said.or(earlier.map(kept)) {
                return Ok(value);
            }
            let mut all = infos
                .iter()
                .filter_map(|(file, info)| Some((file, known(info.as_ref()?))));
            let Some((first, value)) = all.next() else {
                return Ok(usual);
            };
            match all.find(|(_, other)| *other != value) {
                None => Ok(value),
                Some((other, found)) => Err(usage(format!(
                    "the directions were trained with another {option}: {first} with {value}, {other} with {found}; give --{option}, or --settings FILE"
                ))),
            }
        };
        let walk = Self {
            t_0: settle(None, "t-0", |w| w.t_0, |i| i.t_0, T_0)?,
            inversion: settle(
                args.inversion,
                "inversion",
                |w| w.inversion,
                |i| i.inversion,
                STEPS,
            )?,
            steps: args.steps.or(earlier.map(|w| w.steps)).unwrap_or(STEPS),
            t_edit: settle(args.t_edit, "t-edit", |w| w.t_edit, |i| i.t_edit, T_EDIT)?,
            t_boost: settle(
                args.t_boost,
                "t-boost",
                |w| w.t_boost,
                |i| i.t_boost,
                T_BOOST,
            )?,
            seed: args.seed.or(earlier.map(|w| w.seed)).unwrap_or(0),
            frames: args.frames || earlier.is_some_and(|w| w.frames),
        };
        for (option, n) in [("--steps", walk.steps), ("--inversion", walk.inversion)] {
            if !(2..=walk.t_0 + 1).contains(&n) {
                return Err(usage(format!(
                    "{option} {n}: expected 2 to {}, the steps of the process",
                    walk.t_0 + 1
                )));
            }
        }
        for (option, t) in [("--t-edit", walk.t_edit), ("--t-boost", walk.t_boost)] {
            if t > walk.t_0 {
                return Err(usage(format!(
                    "{option} {t}: expected a step of the process, 0 to {}",
                    walk.t_0
                )));
            }
        }
        Ok(walk)
    }
}

/// The walk of an earlier edit.
fn read_walk(path: &Path) -> Result<ApplyWalk> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--settings {name}: cannot be read"))?;
    let wrong = |problem: String| usage(format!("--settings {name}: {problem}"));
    let mut table: toml::Table = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let Some(walk) = table.remove("walk") else {
        return Err(wrong(
            "expected the plan.toml of an earlier edit, found no section walk".into(),
        ));
    };
    walk.try_into().map_err(|e: toml::de::Error| {
        wrong(format!(
            "expected the plan.toml of an earlier edit: walk: {}",
            e.message()
        ))
    })
}

/// A strength for each direction.
pub(super) fn strengths(args: &EditApplyArgs) -> Result<Vec<f64>> {
    let n = args.edit.len();
    let all = match &args.strength[..] {
        [one] => vec![*one; n],
        all if all.len() == n => all.to_vec(),
        all => {
            return Err(usage(format!(
                "--strength: expected one for all or one for each of {n} directions, found {}",
                all.len()
            )));
        }
    };
    check_finite("--strength", &all)?;
    Ok(all)
}

/// The factors of a sweep; 1 alone without one.
pub(super) fn factors(args: &EditApplyArgs) -> Result<Vec<f64>> {
    if args.sweep.is_empty() {
        return Ok(vec![1.0]);
    }
    check_finite("--sweep", &args.sweep)?;
    for (i, factor) in args.sweep.iter().enumerate() {
        if args.sweep[..i].contains(factor) {
            return Err(usage(format!("--sweep: {factor} is there twice")));
        }
    }
    Ok(args.sweep.clone())
}

fn check_finite(option: &str, all: &[f64]) -> Result<()> {
    match all.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(usage(format!("{option} {value}: expected a number"))),
        None => Ok(()),
    }
}
