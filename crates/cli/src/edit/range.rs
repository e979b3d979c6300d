//! `edit range`: where an edit should begin and where it should be sharpened.

use super::args::{CacheArgs, EditRangeArgs};
use super::goal::{self, Eye};
use super::latents::{self, Inversion};
use crate::console::{self, Ticker};
use crate::evaluate::read_lpips;
use crate::gallery::go_on;
use crate::gallery::refusal::{Overwrite, check_new_file};
use crate::model::model_file;
use crate::runs::listen;
use crate::sample::unconditional;
use crate::train::{load_source, open_data};
use crate::usage;
use crate::weights::Weights;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_asyrp::{Curves, distances, first_reaching, image_key, sequence};
use sdft_data::{ImageSource, Joined};
use sdft_directions::{DirectionPlan, GoalPlan};
use sdft_features::{LpipsNet, Network};
use sdft_imaging::to_unit_range;
use sdft_train::DataPlan;
use serde_json::json;
use std::process::ExitCode;

/// Steps of the inversions behind the curves, as published; fewer where there are not so many.
pub(super) const STEPS: usize = 1000;
/// An edit begins where predicted images are as far from the real ones as this times the cosine of the texts.
const EDIT: f64 = 0.33;
/// Sharpening begins where states are as far as this.
const BOOST: f64 = 1.2;

/// Mean distances of the images' inversions from them, by LPIPS; what was seen before is not looked at again.
pub(super) fn look(
    plan: &DirectionPlan,
    net: &Unet,
    data: &dyn ImageSource,
    weights: &Weights,
    cache: &CacheArgs,
    steps: usize,
) -> Result<Curves> {
    if Eye::of(&plan.goal.network) == Eye::Digits {
        return Err(usage(
            "auto: LPIPS does not look at digits; give --t-edit and --t-boost as numbers",
        ));
    }
    listen();
    let network = Network::Lpips(LpipsNet::Alex);
    let files = weights.of(network, "give --weights lpips-alex=FILE")?;
    let (lpips, _) = read_lpips(LpipsNet::Alex, &files)?;
    let schedule = plan.process.published()?.schedule;
    let steps = sequence(steps.min(plan.walk.t_0 + 1), plan.walk.t_0);
    let inversion = Inversion {
        network_sha256: &plan.network_sha256,
        process: &plan.process,
        t_0: plan.walk.t_0,
        steps: steps.len(),
    };
    let eye = sdft_eval::hash_of(&files.weights)?;
    let kept = latents::open_distances(cache, &inversion, &eye);
    let (n, side) = (data.len(), data.size());
    console::note(&format!(
        "range: {n} images, inversions of {} steps, each step seen twice by LPIPS{}",
        steps.len(),
        match kept.folder() {
            Some(folder) => format!(", kept in {}", folder.display()),
            None => String::new(),
        }
    ));
    let mut ticker = Ticker::new("range", n);
    let mut all = Vec::with_capacity(n);
    for i in 0..n {
        let picture = to_unit_range(&data.image(i)?);
        let x0 = Tensor::from_vec(picture, (1, 3, side, side), &Device::Cpu)?;
        let key = image_key(&x0)?;
        let found = match kept.get(&key, &[2, steps.len() - 1], &Device::Cpu) {
            Some(found) => found,
            None => {
                let mut seen = 0.0;
                let found = distances(net, &schedule, &x0, &steps, &mut |a, b| {
                    go_on()?;
                    seen += 0.5 / steps.len() as f64;
                    ticker.tick(i as f64 + seen);
                    lpips.distance(a, b)?.total.mean_all()?.to_scalar()
                })?;
                kept.put(&key, &found)?;
                found
            }
        };
        all.push(found);
    }
    ticker.finish(n);
    Ok(Curves::mean(&steps, &all)?)
}

/// Where an edit begins, from the curves and the cosine of the texts.
pub(super) fn t_edit(curves: &Curves, cosine: f64) -> Result<usize> {
    first_reaching(&curves.predicted, EDIT * cosine).context("t_edit")
}

/// Where it is sharpened.
pub(super) fn t_boost(curves: &Curves) -> Result<usize> {
    first_reaching(&curves.states, BOOST).context("t_boost")
}

pub(super) fn range(args: &EditRangeArgs) -> Result<ExitCode> {
    if args.inversion < 2 {
        return Err(usage("--inversion 1: expected 2 or more steps"));
    }
    if let Some(path) = &args.out {
        check_new_file("--out", path, Overwrite::Never)?;
    }
    let weights = Weights::parse(&args.weights)?;
    let name = model_file(&args.model)?;
    let options = args.file.options()?;
    let key = options.key.clone().unwrap_or_default();
    let model = load_source(&name, &key, options.given, options.given_process)?;
    unconditional(&name, &model)?;
    let mut plan = DirectionPlan {
        source: name,
        network_sha256: model.network_sha256()?,
        model: model.config.clone(),
        process: model.process.clone(),
        goal: GoalPlan {
            from: args.from.clone(),
            to: args.to.clone(),
            ..GoalPlan::default()
        },
        ..DirectionPlan::default()
    };
    plan.data.path.clone_from(&args.data);
    // All of the process, however long it is.
    let walk = &mut plan.walk;
    walk.t_0 = walk.t_0.min(plan.process.diffusion_steps.saturating_sub(1));
    (walk.t_edit, walk.t_boost) = (0, 0);
    sdft_train::RunPlan::validate(&plan).map_err(|e| usage(e.to_string()))?;
    weights.refuse_others(&goal::networks(&plan.goal, true))?;
    goal::locate(&mut plan.goal, &weights)?;
    let cosine = goal::open(&plan.goal, plan.model.image_size)?.cosine();
    let data = DataPlan {
        path: args.data.clone(),
        ..DataPlan::default()
    };
    let data = open_data(&data, plan.model.image_size)?;
    let n = args.images.min(data.len());
    let first = Joined::new(vec![(data, (0..n).collect())])?;
    let net = Unet::load(&model.params, &model.config)?;
    let curves = look(&plan, &net, &first, &weights, &args.cache, args.inversion)?;
    if let Some(path) = &args.out {
        let text = json!({
            "images": n,
            "cosine": cosine,
            "predicted": curves.predicted,
            "states": curves.states,
        });
        let text = serde_json::to_string_pretty(&text)? + "\n";
        sdft_checkpoint::write_bytes_atomic(path, text.as_bytes())?;
        console::line(format_args!("curves   {}", path.display()))?;
    }
    console::line(format_args!(
        "t_edit   {} (predicted images are {EDIT} x {cosine:.4} = {:.4} away)",
        t_edit(&curves, cosine)?,
        EDIT * cosine
    ))?;
    console::line(format_args!(
        "t_boost  {} (states are {BOOST} away)",
        t_boost(&curves)?
    ))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_curves_of_metfaces_give_the_published_steps() {
        let curves = Curves {
            predicted: vec![(25, 0.0898), (200, 0.2590), (250, 0.2754), (400, 0.3327)],
            states: vec![(100, 0.9342), (150, 1.1336), (200, 1.2315)],
        };
        assert_eq!(t_edit(&curves, 0.8).unwrap(), 250);
        assert_eq!(t_edit(&curves, 1.0).unwrap(), 400);
        assert_eq!(t_boost(&curves).unwrap(), 200);
        let few = Curves {
            states: curves.states[..2].to_vec(),
            ..curves
        };
        let error = format!("{:#}", t_boost(&few).unwrap_err());
        assert!(
            error.contains("t_boost") && error.contains("1.1336"),
            "{error}"
        );
    }
}
