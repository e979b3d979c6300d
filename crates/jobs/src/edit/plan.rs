//! The settings of an edit, as options and as they are recorded in `plan.toml` next to its images.

use crate::cache::CacheLocation;
use crate::context::{f32_if_absent, is_f32};
use crate::error::{Result, ResultExt as _, option};
use sdft_asyrp::DirectionInfo;
use sdft_diffusion::Process;
use sdft_diffusionclip::TuningInfo;
use sdft_directions::{EditMethod, WalkPlan};
use sdft_imaging::ImageSpec;
use sdft_models::LoadOptions;
use sdft_train::{Precision, Size};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Steps from noise to image, and from image to noise, by default.
const STEPS: usize = 40;

/// Which images to edit, by which directions or tuned models, and where the results go.
#[derive(Clone, Debug, Default)]
pub struct EditOptions {
    /// The model: a file, a run folder, or the name of an embedded model.
    pub model: String,
    /// Settings that the model's file does not state.
    pub load: LoadOptions,
    /// The directions, or the models that were tuned with DiffusionCLIP: files or run folders.
    pub edits: Vec<String>,
    /// The strength of each direction, or one for all; 1 is the trained strength. Of a tuned model it is the share of its noise, and the
    /// model has the rest (`model_ratio` of the published code). An empty list means 1 for each direction, and equal shares that add up
    /// to 1 for tuned models.
    pub strengths: Vec<f64>,
    /// Several factors of all strengths; each gets a folder. An empty list means 1 alone.
    pub sweep: Vec<f64>,
    /// The images: a file, or a folder with its subfolders.
    pub input: PathBuf,
    /// The inputs to edit, by their paths inside the folder; all if `None`.
    pub only: Option<HashSet<String>>,
    /// The folder of the results, which keep their inputs' names.
    pub out: PathBuf,
    /// The `plan.toml` of an earlier edit, whose steps, seed and frames are used where the following options are `None` or false.
    pub settings: Option<PathBuf>,
    /// Steps from noise to image; 40 by default.
    pub steps: Option<usize>,
    /// Steps from image to noise; by default those of the edits' training.
    pub inversion: Option<usize>,
    /// Asyrp: features are changed at this step and above it; by default as in the directions' training.
    pub t_edit: Option<usize>,
    /// Asyrp: fresh noise is added below this step, none if 0; by default as in the directions' files.
    pub t_boost: Option<usize>,
    /// Seed of the fresh noise; 0 by default.
    pub seed: Option<u64>,
    /// Whether all images get the same fresh noise, as frames of one film.
    pub frames: bool,
    /// The class that the model is asked for, by name or number; if `None`, its null class.
    pub class: Option<String>,
    /// Height and width of the images in pixels; the model's own if `None`.
    pub size: Option<Size>,
    /// Images per batch; as many as suit their size if `None`.
    pub batch: Option<usize>,
    /// Whether images of other settings are replaced.
    pub overwrite: bool,
    /// The cache of inversions.
    pub cache: CacheLocation,
}

/// An edit with everything resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyPlan {
    pub(crate) input: String,
    /// The longer side of the images that the model makes; inputs are centre-cropped and resized to them.
    pub(crate) image_size: usize,
    pub(crate) model: String,
    /// SHA-256 of the network in it, architecture and weights.
    pub(crate) network_sha256: String,
    /// SHA-256 of the autoencoder of its latents; absent if it works on images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) autoencoder_sha256: Option<String>,
    /// The label of the class that the model is asked for; if absent, the null class of a class-conditional model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<u32>,
    /// The factors of all strengths, in the order of the sweep; 1 alone without one.
    pub(crate) factors: Vec<f64>,
    pub(crate) walk: ApplyWalk,
    pub(crate) edits: Vec<EditEntry>,
    /// Precision of feature maps.
    #[serde(default = "f32_if_absent", skip_serializing_if = "is_f32")]
    pub(crate) precision: Precision,
    /// The form of the images, if it is not the network's own in 8 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<ImageSpec>,
    pub(crate) process: Process,
}

/// The steps from images to noise and back; [`EditOptions::settings`] reads this section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyWalk {
    pub(crate) t_0: usize,
    pub(crate) inversion: usize,
    pub(crate) steps: usize,
    pub(crate) t_edit: usize,
    pub(crate) t_boost: usize,
    pub(crate) seed: u64,
    pub(crate) frames: bool,
}

/// One direction or tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditEntry {
    pub(crate) file: String,
    pub(crate) sha256: String,
    /// Written only if it is not Asyrp.
    #[serde(default, skip_serializing_if = "is_asyrp")]
    pub(crate) method: EditMethod,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// Steps of the trajectories that it was trained on; `None` if its file does not say.
    pub(crate) trained: Option<usize>,
    pub(crate) strength: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_asyrp(method: &EditMethod) -> bool {
    *method == EditMethod::Asyrp
}

/// The steps that the file of an edit states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    t_0: usize,
    inversion: usize,
    t_edit: usize,
    t_boost: usize,
}

impl From<&DirectionInfo> for Stated {
    fn from(info: &DirectionInfo) -> Self {
        Self {
            t_0: info.t_0,
            inversion: info.inversion,
            t_edit: info.t_edit,
            t_boost: info.t_boost,
        }
    }
}

impl From<&TuningInfo> for Stated {
    /// A tuned model takes part at every step, and adds no noise.
    fn from(info: &TuningInfo) -> Self {
        Self {
            t_0: info.t_0,
            inversion: info.inversion,
            t_edit: 0,
            t_boost: 0,
        }
    }
}

impl ApplyWalk {
    /// Options come first, then the settings of an earlier edit, then what the directions' files agree on, then Asyrp's defaults.
    pub(crate) fn new(options: &EditOptions, infos: &[(String, Option<Stated>)]) -> Result<Self> {
        let earlier = options.settings.as_deref().map(read_walk).transpose()?;
        let earlier = earlier.as_ref();
        // Asyrp's defaults, for directions without metadata.
        let usual = WalkPlan::default();
        let agreed = |of: fn(&Stated) -> usize, usual, what: &str, advice: &str| {
            agreed(infos, of, usual, what, advice)
        };
        let t_0 = match earlier {
            Some(walk) => walk.t_0,
            None => {
                let advice = "they cannot be combined";
                agreed(|i| i.t_0, usual.t_0, "last step", advice)?
            }
        };
        let few = STEPS.min(t_0 + 1);
        let inversion = match options.inversion.or(earlier.map(|w| w.inversion)) {
            Some(n) => n,
            None => agreed(|i| i.inversion, few, "inversion", "give the inversion")?,
        };
        let t_edit = match options.t_edit.or(earlier.map(|w| w.t_edit)) {
            Some(t) => t,
            None => agreed(|i| i.t_edit, usual.t_edit, "t_edit", "give t_edit")?,
        };
        let t_boost = match options.t_boost.or(earlier.map(|w| w.t_boost)) {
            Some(t) => t,
            None => agreed(|i| i.t_boost, usual.t_boost, "t_boost", "give t_boost")?,
        };
        let walk = Self {
            t_0,
            inversion,
            steps: options.steps.or(earlier.map(|w| w.steps)).unwrap_or(few),
            t_edit,
            t_boost,
            seed: options.seed.or(earlier.map(|w| w.seed)).unwrap_or(0),
            frames: options.frames || earlier.is_some_and(|w| w.frames),
        };
        for (name, n) in [("steps", walk.steps), ("inversion", walk.inversion)] {
            if !(2..=walk.t_0 + 1).contains(&n) {
                return Err(option(
                    name,
                    format!(
                        "{n}: expected 2 to {}, the steps of the process",
                        walk.t_0 + 1
                    ),
                ));
            }
        }
        for (name, t) in [("t_edit", walk.t_edit), ("t_boost", walk.t_boost)] {
            if t > walk.t_0 {
                return Err(option(
                    name,
                    format!("{t}: expected a step of the process, 0 to {}", walk.t_0),
                ));
            }
        }
        Ok(walk)
    }
}

/// The value that the directions' files agree on, among those that have one.
fn agreed(
    infos: &[(String, Option<Stated>)],
    of: fn(&Stated) -> usize,
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
        Some((other, found)) => Err(option(
            "edit",
            format!(
                "{first} and {other}: they were trained with another {what}: {first} with {value}, {other} with {found}; {advice}"
            ),
        )),
    }
}

/// The section `walk` of an earlier edit.
fn read_walk(path: &Path) -> Result<ApplyWalk> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .context("cannot be read")
        .in_option("settings", path.display())?;
    let wrong = |problem: String| option("settings", format!("{name}: {problem}"));
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

/// The given strength of each edit; `None` if none is given.
pub(crate) fn given_strengths(options: &EditOptions) -> Result<Option<Vec<f64>>> {
    let n = options.edits.len();
    let all = match &options.strengths[..] {
        [] => return Ok(None),
        [one] => vec![*one; n],
        all if all.len() == n => all.to_vec(),
        all => {
            return Err(option(
                "strength",
                format!(
                    "{}: expected one strength for all edits or one for each ({n}), found {}",
                    all.iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", "),
                    all.len()
                ),
            ));
        }
    };
    check_finite("strength", &all)?;
    Ok(Some(all))
}

/// The strengths of `n` edits for which none are given. Tuned models share the noise equally, as the published ratios add up to 1.
pub(crate) fn default_strengths(method: EditMethod, n: usize) -> Vec<f64> {
    let each = match method {
        EditMethod::Asyrp => 1.0,
        EditMethod::DiffusionClip => 1.0 / n as f64,
    };
    vec![each; n]
}

/// A note about shares of tuned models that leave the original model a negative share.
pub(crate) fn note_of_shares(shares: &[f64]) -> Option<String> {
    let sum: f64 = shares.iter().sum();
    (sum > 1.0 + 1e-9).then(|| {
        format!(
            "the shares of the tuned models add up to {sum:.3}, so the original model has a share of {:.3}, and the result is \
             extrapolated; shares of at most 1 in all mix the models",
            1.0 - sum
        )
    })
}

/// The factors of a sweep; 1 alone without one.
pub(crate) fn factors(options: &EditOptions) -> Result<Vec<f64>> {
    if options.sweep.is_empty() {
        return Ok(vec![1.0]);
    }
    check_finite("sweep", &options.sweep)?;
    for (i, factor) in options.sweep.iter().enumerate() {
        if options.sweep[..i].contains(factor) {
            return Err(option("sweep", format!("{factor}: given twice")));
        }
    }
    Ok(options.sweep.clone())
}

fn check_finite(name: &'static str, all: &[f64]) -> Result<()> {
    match all.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(option(name, format!("{value}: expected a number"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuned_models_share_the_noise_equally_and_directions_have_their_trained_strength() {
        let of = |edits: usize, strengths: &[f64]| EditOptions {
            edits: vec!["edit".into(); edits],
            strengths: strengths.to_vec(),
            ..EditOptions::default()
        };
        assert_eq!(given_strengths(&of(2, &[])).unwrap(), None);
        let given = given_strengths(&of(2, &[0.7])).unwrap();
        assert_eq!(given, Some(vec![0.7, 0.7]));
        assert!(given_strengths(&of(3, &[0.7, 0.3])).is_err());
        assert_eq!(default_strengths(EditMethod::Asyrp, 2), [1.0, 1.0]);
        assert_eq!(default_strengths(EditMethod::DiffusionClip, 1), [1.0]);
        let quarter = default_strengths(EditMethod::DiffusionClip, 4);
        assert_eq!(quarter, [0.25; 4]);
        for n in 1..20 {
            let shares = default_strengths(EditMethod::DiffusionClip, n);
            assert_eq!(note_of_shares(&shares), None, "{n}");
        }
        let note = note_of_shares(&[0.7, 0.7]).unwrap();
        assert!(note.contains("1.400") && note.contains("-0.400"), "{note}");
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

    fn walk(options: &EditOptions, infos: &[Option<DirectionInfo>]) -> Result<ApplyWalk> {
        let names = ["a", "b", "c"].map(str::to_owned);
        let infos = infos.iter().map(|info| info.as_ref().map(Stated::from));
        let infos: Vec<_> = names.into_iter().zip(infos).collect();
        ApplyWalk::new(options, &infos)
    }

    #[test]
    fn options_come_first_then_what_the_directions_agree_on_then_asyrps_defaults() {
        let of = |w: &ApplyWalk| (w.t_0, w.inversion, w.steps, w.t_edit, w.t_boost);
        let none = EditOptions::default();
        assert_eq!(of(&walk(&none, &[None]).unwrap()), (999, 40, 40, 500, 200));
        let both = [said(999, 400), None, said(999, 400)];
        assert_eq!(of(&walk(&none, &both).unwrap()), (999, 100, 40, 400, 180));
        let given = EditOptions {
            t_edit: Some(300),
            t_boost: Some(0),
            steps: Some(7),
            inversion: Some(9),
            ..EditOptions::default()
        };
        assert_eq!(of(&walk(&given, &both).unwrap()), (999, 9, 7, 300, 0));
        // A short process has no forty steps.
        let short = EditOptions {
            steps: None,
            t_edit: None,
            ..given
        };
        assert_eq!(walk(&short, &[said(20, 10)]).unwrap().steps, 21);
    }

    #[test]
    fn directions_that_disagree_are_named_with_advice() {
        let none = EditOptions::default();
        let refused = |infos: &[_]| walk(&none, infos).unwrap_err().to_string();
        let two = [said(999, 400), said(999, 500)];
        let error = refused(&two);
        for words in ["t_edit", "a with 400", "b with 500", "give t_edit"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        let given = EditOptions {
            t_edit: Some(450),
            ..EditOptions::default()
        };
        assert_eq!(walk(&given, &two).unwrap().t_edit, 450);
        let error = refused(&[said(999, 400), said(500, 400)]);
        assert!(error.contains("cannot be combined"), "{error}");
    }
}
