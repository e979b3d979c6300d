//! What decides an edit, as it stands in `plan.toml` beside its images.

use super::args::EditApplyArgs;
use crate::usage;
use anyhow::{Context, Result};
use sdft_asyrp::DirectionInfo;
use sdft_directions::WalkPlan;
use sdft_models::Process;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Steps from noise to image, and from image to noise, where nothing is said.
const STEPS: usize = 40;

/// An edit with everything resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyPlan {
    pub(super) input: String,
    /// Side of the images that the model makes; inputs are centre-cropped and resized to it.
    pub(super) image_size: usize,
    pub(super) model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub(super) network_sha256: String,
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
        // Asyrp's, for directions that say nothing.
        let usual = WalkPlan::default();
        let agreed = |of: fn(&DirectionInfo) -> usize, usual, what: &str, advice: &str| {
            agreed(infos, of, usual, what, advice)
        };
        let t_0 = match earlier {
            Some(walk) => walk.t_0,
            None => {
                let advice = "they cannot be followed together";
                agreed(|i| i.t_0, usual.t_0, "last step", advice)?
            }
        };
        let few = STEPS.min(t_0 + 1);
        let inversion = match args.inversion.or(earlier.map(|w| w.inversion)) {
            Some(n) => n,
            None => agreed(|i| i.inversion, few, "inversion", "give --inversion")?,
        };
        let t_edit = match args.t_edit.or(earlier.map(|w| w.t_edit)) {
            Some(t) => t,
            None => agreed(|i| i.t_edit, usual.t_edit, "t_edit", "give --t-edit")?,
        };
        let t_boost = match args.t_boost.or(earlier.map(|w| w.t_boost)) {
            Some(t) => t,
            None => agreed(|i| i.t_boost, usual.t_boost, "t_boost", "give --t-boost")?,
        };
        let walk = Self {
            t_0,
            inversion,
            steps: args.steps.or(earlier.map(|w| w.steps)).unwrap_or(few),
            t_edit,
            t_boost,
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

/// What all files of directions say that say anything.
fn agreed(
    infos: &[(String, Option<DirectionInfo>)],
    of: fn(&DirectionInfo) -> usize,
    usual: usize,
    what: &str,
    advice: &str,
) -> Result<usize> {
    let mut all = infos
        .iter()
        .filter_map(|(file, info)| Some((file, of(info.as_ref()?))));
    let Some((first, value)) = all.next() else {
        return Ok(usual);
    };
    match all.find(|(_, other)| *other != value) {
        None => Ok(value),
        Some((other, found)) => Err(usage(format!(
            "--edit: the directions were trained with another {what}: {first} with {value}, {other} with {found}; {advice}"
        ))),
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

#[cfg(test)]
mod tests {
    use super::super::typed;
    use super::*;

    fn args(more: &[&str]) -> Box<EditApplyArgs> {
        let all = ["--model", "m", "--edit", "a", "--input", "i"];
        typed::apply(&[&all[..], more].concat()).unwrap()
    }

    fn said(t_0: usize, t_edit: usize) -> Option<DirectionInfo> {
        Some(DirectionInfo {
            from: "face".into(),
            to: "smile".into(),
            network_sha256: String::new(),
            norm_groups: 32,
            t_0,
            inversion: 100,
            steps: 50,
            t_edit,
            t_boost: 180,
        })
    }

    fn walk(more: &[&str], infos: &[Option<DirectionInfo>]) -> Result<ApplyWalk> {
        let names = ["a", "b", "c"].map(str::to_owned);
        let infos: Vec<_> = names.into_iter().zip(infos.iter().cloned()).collect();
        ApplyWalk::new(&args(more), &infos)
    }

    #[test]
    fn options_come_first_then_what_the_directions_agree_on_then_asyrps_scripts() {
        let of = |w: &ApplyWalk| (w.t_0, w.inversion, w.steps, w.t_edit, w.t_boost);
        assert_eq!(of(&walk(&[], &[None]).unwrap()), (999, 40, 40, 500, 200));
        let both = [said(999, 400), None, said(999, 400)];
        assert_eq!(of(&walk(&[], &both).unwrap()), (999, 100, 40, 400, 180));
        let given = [
            "--t-edit",
            "300",
            "--t-boost",
            "0",
            "--steps",
            "7",
            "--inversion",
            "9",
        ];
        assert_eq!(of(&walk(&given, &both).unwrap()), (999, 9, 7, 300, 0));
        // A short process has no forty steps.
        assert_eq!(
            walk(&["--inversion", "9", "--t-boost", "0"], &[said(20, 10)])
                .unwrap()
                .steps,
            21
        );
    }

    #[test]
    fn directions_that_disagree_are_named_with_what_helps() {
        let refused = |more: &[&str], infos: &[_]| walk(more, infos).unwrap_err().to_string();
        let two = [said(999, 400), said(999, 500)];
        let error = refused(&[], &two);
        for words in ["t_edit", "a with 400", "b with 500", "give --t-edit"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert_eq!(walk(&["--t-edit", "450"], &two).unwrap().t_edit, 450);
        let error = refused(&[], &[said(999, 400), said(500, 400)]);
        assert!(error.contains("cannot be followed together"), "{error}");
    }
}
