//! The steps at which an edit begins and is sharpened, from the distances between inversions and their images.

use super::goal::{GoalNetwork, goal_networks, locate_goal, open_goal};
use super::latents::{Inversion, open_distances};
use crate::cache::CacheLocation;
use crate::condition::{Conditioned, label_of};
use crate::context::{Context, check_stop};
use crate::data::{Form, open_data};
use crate::error::{Error, Result, ResultExt as _, option, usage};
use crate::evaluate::read_lpips;
use crate::model::{ModelFile, form_of, load_source, recorded_form};
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use sdft_asyrp::{Curves, as_rgb, distances, first_reaching, image_key, sequence};
use sdft_autoencoder::Space;
use sdft_data::{ImageSource, Joined};
use sdft_directions::{DirectionPlan, GoalPlan};
use sdft_features::{LpipsNet, Network};
use sdft_files::plural;
use sdft_models::LoadOptions;
use sdft_train::DataPlan;

/// Steps of the inversions behind the curves, as published; fewer where the process has fewer.
pub(crate) const RANGE_STEPS: usize = 1000;
/// An edit begins where the distance of predicted images reaches this times the cosine of the texts.
const EDIT: f64 = 0.33;
/// Sharpening begins where the distance of states reaches this.
const BOOST: f64 = 1.2;

/// A model, images and texts to find the steps of an edit for.
#[derive(Clone, Debug, Default)]
pub struct RangeOptions {
    /// The model: a file, a run folder, or the name of an embedded model.
    pub model: String,
    /// Settings that the model's file does not state.
    pub load: LoadOptions,
    /// The folder of the images.
    pub data: String,
    /// The class that the model is asked for, by name or number; if `None`, its null class.
    pub class: Option<String>,
    /// What the images show.
    pub from: String,
    /// What edited images should show.
    pub to: String,
    /// Number of images, the first ones.
    pub images: usize,
    /// Steps of the inversion behind the curves.
    pub inversion: usize,
    /// Files of the networks.
    pub weights: Weights,
    /// The cache of distances.
    pub cache: CacheLocation,
}

/// The steps of an edit, and the curves that they come from.
#[derive(Clone, Debug)]
pub struct RangeReport {
    /// Mean distances by step.
    pub curves: Curves,
    /// Number of images.
    pub images: usize,
    /// Cosine of the two texts.
    pub cosine: f64,
    /// The distance of predicted images at which the changes begin.
    pub edit_distance: f64,
    /// The distance of states at which the noise ends.
    pub boost_distance: f64,
}

impl RangeReport {
    /// The first step at which predicted images are that far away. Features are changed at this step and above it.
    ///
    /// # Errors
    /// Fails if the curve ends before that.
    pub fn t_edit(&self) -> Result<usize> {
        range_t_edit(&self.curves, self.cosine)
    }

    /// The first step at which states are that far away. Fresh noise is added below this step.
    ///
    /// # Errors
    /// Fails if the curve ends before that.
    pub fn t_boost(&self) -> Result<usize> {
        range_t_boost(&self.curves)
    }
}

/// The images whose inversions are measured.
pub(crate) struct RangeImages<'a> {
    /// The model's network.
    pub(crate) net: &'a dyn sdft_diffusion::Denoiser,
    /// The images.
    pub(crate) data: &'a dyn ImageSource,
    /// The way between them and the states of the model.
    pub(crate) space: &'a Space,
    /// SHA-256 of its autoencoder.
    pub(crate) autoencoder_sha256: Option<&'a str>,
    /// Files of LPIPS.
    pub(crate) weights: &'a Weights,
    /// The cache of distances.
    pub(crate) cache: &'a CacheLocation,
    /// Steps of the inversions.
    pub(crate) steps: usize,
}

/// Mean distances by LPIPS of the images' inversions from the images. Distances in the cache are not measured again.
///
/// # Errors
/// The plan edits digits or emoji, LPIPS cannot be read, or the job is stopped.
pub(crate) fn measure_range(
    plan: &DirectionPlan,
    images: &RangeImages<'_>,
    context: &mut Context<'_>,
) -> Result<Curves> {
    let RangeImages {
        net, data, space, ..
    } = *images;
    if let GoalNetwork::Digits | GoalNetwork::Emoji = GoalNetwork::of(&plan.goal.network) {
        return Err(usage(format!(
            "auto: LPIPS does not measure {}; give `t_edit` and `t_boost` as numbers",
            plan.goal.network
        )));
    }
    (context.on_start)();
    let network = Network::Lpips(LpipsNet::Alex);
    let files = images
        .weights
        .of(network, "give --weights lpips-alex=FILE")?;
    let (lpips, _) = read_lpips(LpipsNet::Alex, &files, &context.device)?;
    let schedule = plan.process.published()?.schedule;
    let steps = sequence(images.steps.min(plan.walk.t_0 + 1), plan.walk.t_0);
    let inversion = Inversion {
        network_sha256: &plan.network_sha256,
        autoencoder_sha256: images.autoencoder_sha256,
        class: plan.class,
        process: &plan.process,
        t_0: plan.walk.t_0,
        steps: steps.len(),
        precision: context.f32_or_tf32(),
    };
    let eye = sdft_eval::hash_of(&files.weights)?;
    let kept = open_distances(images.cache, &inversion, &eye, context);
    let (n, [c, h, w]) = (data.len(), data.spec().shape());
    context.progress.note(&format!(
        "range: {}, inversions of {} steps, each step measured twice by LPIPS{}",
        plural(n, "image", "images"),
        steps.len(),
        match kept.folder() {
            Some(folder) => format!(", kept in {}", folder.display()),
            None => String::new(),
        }
    ));
    context.progress.images(0.0, n);
    let mut all = Vec::with_capacity(n);
    for i in 0..n {
        let picture = data.spec().to_unit_range(&data.image(i)?);
        let x0 = Tensor::from_vec(picture, (1, c, h, w), &context.device)?;
        let x0 = space.encode(&x0)?;
        let key = image_key(&x0)?;
        let found = match kept.get(&key, &[2, steps.len() - 1], &Device::Cpu) {
            Some(found) => found,
            None => {
                let mut seen = 0.0;
                let Context { stop, progress, .. } = context;
                let found = distances(net, &schedule, &x0, &steps, &mut |a, b| {
                    check_stop(stop)?;
                    seen += 0.5 / steps.len() as f64;
                    progress.images(i as f64 + seen, n);
                    lpips
                        .distance(&as_rgb(&space.decode(a)?)?, &as_rgb(&space.decode(b)?)?)?
                        .total
                        .mean_all()?
                        .to_scalar()
                });
                if context.is_stopped() {
                    return Err(Error::Interrupted);
                }
                let found = found?.to_device(&Device::Cpu)?;
                kept.put(&key, &found)?;
                found
            }
        };
        all.push(found);
        context.progress.images((i + 1) as f64, n);
    }
    Ok(Curves::mean(&steps, &all)?)
}

/// The step at which an edit begins, from the curves and the cosine of the texts.
///
/// # Errors
/// No step is far enough.
pub(crate) fn range_t_edit(curves: &Curves, cosine: f64) -> Result<usize> {
    first_reaching(&curves.predicted, EDIT * cosine).context("t_edit")
}

/// The step below which an edit is sharpened.
///
/// # Errors
/// No step is far enough.
pub(crate) fn range_t_boost(curves: &Curves) -> Result<usize> {
    first_reaching(&curves.states, BOOST).context("t_boost")
}

/// Finds the steps at which an edit should begin and be sharpened.
///
/// # Errors
/// The model, the images or a network cannot be read, or no step is far enough.
pub fn find_range(options: &RangeOptions, context: &mut Context<'_>) -> Result<RangeReport> {
    if options.inversion < 2 {
        return Err(option(
            "inversion",
            format!("{}: expected 2 or more steps", options.inversion),
        ));
    }
    let name = ModelFile::find(&options.model)?.noted(context);
    let model = load_source(&name, &options.load, context)?;
    let form = form_of(&name, &model, None)?;
    let class = options.class.as_deref();
    let class = class
        .map(|class| label_of("class", class, &model))
        .transpose()?;
    let mut plan = DirectionPlan {
        source: name,
        network_sha256: model.network_sha256()?,
        model: model.architecture.clone(),
        process: model.process.clone(),
        class,
        image: recorded_form(&model, &form),
        goal: GoalPlan {
            from: options.from.clone(),
            to: options.to.clone(),
            ..GoalPlan::default()
        },
        ..DirectionPlan::default()
    };
    plan.data.path.clone_from(&options.data);
    // All of the process, whatever its length is.
    let walk = &mut plan.walk;
    walk.t_0 = walk.t_0.min(plan.process.diffusion_steps.saturating_sub(1));
    (walk.t_edit, walk.t_boost) = (0, 0);
    sdft_train::RunPlan::validate(&plan).map_err(|e| usage(e.to_string()))?;
    let weights = &options.weights;
    weights.refuse_others(&goal_networks(&plan.goal, true))?;
    locate_goal(&mut plan.goal, weights)?;
    let runtime = context.runtime_in_f32();
    let (space, autoencoder) = (runtime.space(&model, form)?, model.autoencoder_sha256());
    let cosine = open_goal(&plan.goal, &space, &runtime.device)?.cosine();
    let data = DataPlan {
        path: options.data.clone(),
        ..DataPlan::default()
    };
    let data = open_data(&data, &Form::of(&form), context)?;
    let n = options.images.min(data.len());
    let first = Joined::new(vec![(data, (0..n).collect())])?;
    let net = runtime.network_in_steps(&model)?;
    let net = Conditioned::new(net, "class", class, None, &model)?;
    let images = RangeImages {
        net: &net,
        data: &first,
        space: &space,
        autoencoder_sha256: autoencoder.as_deref(),
        weights,
        cache: &options.cache,
        steps: options.inversion,
    };
    let curves = measure_range(&plan, &images, context)?;
    Ok(RangeReport {
        images: n,
        cosine,
        edit_distance: EDIT * cosine,
        boost_distance: BOOST,
        curves,
    })
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
        assert_eq!(range_t_edit(&curves, 0.8).unwrap(), 250);
        assert_eq!(range_t_edit(&curves, 1.0).unwrap(), 400);
        assert_eq!(range_t_boost(&curves).unwrap(), 200);
        let few = Curves {
            states: curves.states[..2].to_vec(),
            ..curves
        };
        let error = format!("{}", range_t_boost(&few).unwrap_err());
        assert!(
            error.contains("t_boost") && error.contains("1.1336"),
            "{error}"
        );
    }
}
