//! `edit range`: where an edit should begin and where it should be sharpened.

use super::args::EditRangeArgs;
use super::goal::{self, Eye};
use crate::console::{self, Ticker};
use crate::evaluate::read_lpips;
use crate::gallery::go_on;
use crate::runs::listen;
use crate::sample::{model_file, unconditional};
use crate::train::{load_model, open_data};
use crate::usage;
use crate::weights::Weights;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_asyrp::{Curves, first_reaching, sequence};
use sdft_data::ImageSource;
use sdft_features::{LpipsNet, Network};
use sdft_imaging::to_unit_range;
use sdft_train::{DataPlan, DirectionPlan, GoalPlan};
use serde_json::json;
use std::process::ExitCode;

/// Steps of the inversions behind the curves, as published.
pub(super) const STEPS: usize = 1000;
/// An edit begins where predicted images are as far from the real ones as this times the cosine of the texts.
const EDIT: f64 = 0.33;
/// Sharpening begins where states are as far as this.
const BOOST: f64 = 1.2;

/// The two steps, and what they were found by.
pub(super) struct Range {
    pub(super) t_edit: usize,
    pub(super) t_boost: usize,
    cosine: f64,
    curves: Curves,
}

/// Looks at inversions of the images with LPIPS.
///
/// Source: Asyrp `diffusion_latent.py`, `set_t_edit_t_addnoise`.
pub(super) fn find(
    plan: &DirectionPlan,
    net: &Unet,
    data: &dyn ImageSource,
    weights: &[String],
    steps: usize,
) -> Result<Range> {
    if Eye::of(&plan.goal.network) == Eye::Digits {
        return Err(usage(
            "auto: LPIPS does not look at digits; give --t-edit and --t-boost as numbers",
        ));
    }
    listen();
    let network = Network::Lpips(LpipsNet::Alex);
    let files = Weights::parse(weights)?.of(network, "give --weights lpips-alex=FILE")?;
    let (lpips, _) = read_lpips(LpipsNet::Alex, &files)?;
    let cosine = goal::cosine(&plan.goal)?;
    let schedule = plan.process.published()?.schedule;
    let mut curves = Curves::new(&sequence(steps, plan.walk.t_0));
    let (n, side) = (data.len(), data.size());
    console::note(&format!(
        "range: {n} images, inversions of {steps} steps, each step seen twice by LPIPS"
    ));
    let mut ticker = Ticker::new("range", n);
    for i in 0..n {
        let picture = to_unit_range(&data.image(i)?);
        let x0 = Tensor::from_vec(picture, (1, 3, side, side), &Device::Cpu)?;
        let mut seen = 0.0;
        curves.add(net, &schedule, &x0, &mut |a, b| {
            go_on()?;
            seen += 0.5 / steps as f64;
            ticker.tick(i as f64 + seen);
            lpips
                .distance(a, b)?
                .total
                .to_dtype(candle_core::DType::F64)?
                .flatten_all()?
                .to_vec1()
        })?;
    }
    ticker.finish(n);
    let t_edit = first_reaching(&curves.predicted(), EDIT * cosine).context("t_edit")?;
    let t_boost = first_reaching(&curves.states(), BOOST).context("t_boost")?;
    console::note(&format!(
        "range: cosine of the texts {cosine:.4}, t_edit {t_edit}, t_boost {t_boost}"
    ));
    Ok(Range {
        t_edit,
        t_boost,
        cosine,
        curves,
    })
}

pub(super) fn range(args: &EditRangeArgs) -> Result<ExitCode> {
    let name = model_file(&args.model)?;
    let model = load_model(&name, &args.file.options()?)?;
    unconditional(&name, &model)?;
    let mut plan = DirectionPlan {
        source: name,
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
    sdft_train::RunPlan::validate(&plan).map_err(|e| usage(e.to_string()))?;
    if args.inversion < 2 {
        return Err(usage("--inversion 1: expected 2 or more steps"));
    }
    goal::locate(&mut plan.goal, &args.weights)?;
    let data = DataPlan {
        path: args.data.clone(),
        ..DataPlan::default()
    };
    let data = open_data(&data, plan.model.image_size)?;
    let n = args.images.min(data.len());
    let first = sdft_data::Joined::new(vec![(data, (0..n).collect())])?;
    let net = super::train::net_of(&model)?;
    let found = find(&plan, &net, &first, &args.weights, args.inversion)?;
    console::line(format_args!(
        "t_edit   {} (predicted images are {EDIT} x {:.4} = {:.4} away)\nt_boost  {} (states are {BOOST} away)",
        found.t_edit,
        found.cosine,
        EDIT * found.cosine,
        found.t_boost
    ))?;
    if let Some(path) = &args.out {
        let text = json!({
            "images": n,
            "cosine": found.cosine,
            "t_edit": found.t_edit,
            "t_boost": found.t_boost,
            "predicted": found.curves.predicted(),
            "states": found.curves.states(),
        });
        if path.is_dir() {
            bail!(
                "--out {}: this is a folder, expected a file",
                path.display()
            );
        }
        let text = serde_json::to_string_pretty(&text)? + "\n";
        sdft_checkpoint::write_bytes_atomic(path, text.as_bytes())?;
        console::line(format_args!("curves   {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
