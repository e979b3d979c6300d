//! Cases of the kinds `unet2d.*`.

use super::unet::{check_count, run};
use super::{Outputs, labels, put};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use sdft_diffusion::Clip;
use sdft_models::scheduler_process;
use sdft_nn::Params;
use sdft_randn::GivenNoise;
use sdft_samplers::{Ancestral, Ddim, Step, sample_ddim, sample_ddpm};
use sdft_schedule::Respacing;
use sdft_testing::{Array, Case, compute_dtype, device};
use sdft_unet2d::{Class, ClassEmbed, Unet2d, Unet2dConfig, modern_name};
use serde_json::{Map, Value};
use std::path::Path;

pub(super) fn forward_backward(case: &Case) -> Result<Outputs> {
    let json = case.get("model")?.as_object();
    let config = Unet2dConfig::from_json(json.context("model: expected an object")?)?;
    let params = case.weights("model", &Unet2d::specs(&config)?)?;
    check_count(case, &params)?;
    let (params, vars) = params.trainable()?;
    let unet = Unet2d::load(&params, &config)?.with_compute_dtype(compute_dtype());
    if config.class_embed_type == Some(ClassEmbed::Identity) {
        let embedding = case.input("y")?;
        let class = Class::Embedding(&embedding);
        return run(case, vars, |x, t| unet.forward_class(x, t, class, None));
    }
    let labels = labels(case)?;
    run(case, vars, |x, t| {
        unet.forward(x, t, labels.as_deref(), None)
    })
}

/// A pipeline's folder, sampled as the pipeline does.
pub(super) fn pipeline(case: &Case) -> Result<Outputs> {
    let folder = case.get("folder")?.as_str().context("folder")?;
    let folder = case.dir.join(folder);
    let config = Unet2dConfig::from_json(&object(&folder.join("unet/config.json"))?)?;
    let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
    let weights = candle_core::safetensors::load(weights, device())?;
    let entries = weights
        .into_iter()
        .map(|(name, tensor)| (modern_name(&name), tensor));
    let path = folder.join("scheduler/scheduler_config.json");
    let process = scheduler_process(&path, &object(&path)?, config.learns_variance())?;
    let unet = Unet2d::load(&Params::new(entries.collect()), &config)?
        .with_prediction_type(process.prediction_type)
        .with_compute_dtype(compute_dtype());
    let steps = Respacing::Sections(vec![case.count("steps")?]);
    let diffusion = process.diffusion(config.learns_variance(), &steps)?;
    let x = case.input("x_T")?;
    let mut noise = GivenNoise::new(match case.has("noises") {
        true => case.input("noises")?,
        false => x.narrow(0, 0, 0)?,
    });
    let (clip, start) = (Clip::Yes, None);
    let mut states = Vec::new();
    let mut keep = |step: &Step<'_>| {
        states.push(step.x.clone());
        Ok(())
    };
    let sample = match case.get("sampler")?.as_str() {
        Some("ddim") => {
            let eta = case.number("eta")?;
            let options = Ddim { eta, clip, start };
            sample_ddim(&diffusion, &unet, &x, &options, &mut noise, &mut keep)?
        }
        Some("ddpm") => {
            let options = Ancestral { clip, start };
            sample_ddpm(&diffusion, &unet, &x, &options, &mut noise, &mut keep)?
        }
        _ => bail!("sampler: expected ddim or ddpm"),
    };
    let mut visited = diffusion.schedule.timestep_map().to_vec();
    visited.reverse();
    let mut out = Outputs::new();
    out.insert("timesteps".to_owned(), Array::indices(&visited));
    put(&mut out, "states", &Tensor::stack(&states, 0)?)?;
    put(&mut out, "sample", &sample)?;
    Ok(out)
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}
