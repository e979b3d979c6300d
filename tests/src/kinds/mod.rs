//! One function per kind, one file per group.

use anyhow::{Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use sdft_testing::{Array, Case};
use std::collections::BTreeMap;

mod asyrp;
mod diffusion;
mod dit;
mod edm;
mod features;
mod images;
mod lora;
mod metrics;
mod nn;
mod optim;
mod prediction;
mod schedule;
mod sdft;
mod translate;
mod unet;
mod unet2d;
mod vae;

/// The supported kinds.
pub const BUILT: &[&str] = &[
    "schedule.table",
    "schedule.weights",
    "schedule.respacing",
    "nn.timestep_embedding",
    "nn.groupnorm_silu",
    "nn.resblock",
    "nn.attention",
    "nn.downsample",
    "nn.upsample",
    "nn.attention_pool",
    "unet.forward_backward",
    "unet.encoder_classifier",
    "unet.classifier_guidance",
    "unet2d.forward_backward",
    "unet2d.pipeline",
    "dit.forward_backward",
    "diffusion.q_sample",
    "diffusion.q_posterior",
    "diffusion.p_mean_variance",
    "diffusion.vb_terms",
    "diffusion.training_losses",
    "diffusion.ddim_sample_loop",
    "diffusion.ddim_reverse_loop",
    "diffusion.p_sample_loop",
    "prediction.convert",
    "sdft.loss",
    "sdft.train_steps",
    "optim.adamw",
    "optim.ema",
    "optim.clip_grad_norm",
    "optim.microbatch",
    "metrics.image_load",
    "metrics.image_load_torchvision",
    "metrics.psnr_ssim",
    "metrics.fid",
    "metrics.kid",
    "metrics.resize",
    "metrics.inception",
    "metrics.lpips",
    "metrics.irse50",
    "metrics.dinov2",
    "translate.sdedit",
    "translate.lowpass",
    "translate.egsde",
    "translate.ddib",
    "asyrp.sequences",
    "asyrp.delta_block",
    "asyrp.unet_forward",
    "asyrp.denoising_step",
    "asyrp.edit",
    "asyrp.train_grad",
    "asyrp.clip_directional",
    "asyrp.clip_preprocess",
    "edm.denoise",
    "edm.sampler",
    "edm.loss",
    "lora.forward_backward",
    "vae.kl",
    "vae.vq",
];

/// Computed tensors by name.
pub(crate) type Outputs = BTreeMap<String, Array>;

/// The computed tensors of a case, by name.
///
/// # Errors
/// The kind is not built, the configuration has an unknown field, or a crate fails.
pub fn compute(case: &Case) -> Result<BTreeMap<String, Array>> {
    match case.kind.as_str() {
        "schedule.table" => schedule::table(case),
        "schedule.weights" => schedule::weights(case),
        "schedule.respacing" => schedule::respacing(case),
        "nn.timestep_embedding" => nn::timestep_embedding(case),
        "nn.groupnorm_silu" => nn::groupnorm_silu(case),
        "nn.resblock" => nn::resblock(case),
        "nn.attention" => nn::attention(case),
        "nn.downsample" => nn::resize(case, true),
        "nn.upsample" => nn::resize(case, false),
        "nn.attention_pool" => nn::attention_pool(case),
        "unet.forward_backward" => unet::forward_backward(case),
        "unet.encoder_classifier" => unet::encoder_classifier(case),
        "unet.classifier_guidance" => unet::classifier_guidance(case),
        "unet2d.forward_backward" => unet2d::forward_backward(case),
        "unet2d.pipeline" => unet2d::pipeline(case),
        "dit.forward_backward" => dit::forward_backward(case),
        "diffusion.q_sample" => diffusion::q_sample(case),
        "diffusion.q_posterior" => diffusion::q_posterior(case),
        "diffusion.p_mean_variance" => diffusion::p_mean_variance(case),
        "diffusion.vb_terms" => diffusion::vb_terms(case),
        "diffusion.training_losses" => diffusion::training_losses(case),
        "diffusion.ddim_sample_loop" => diffusion::ddim_sample_loop(case),
        "diffusion.ddim_reverse_loop" => diffusion::ddim_reverse_loop(case),
        "diffusion.p_sample_loop" => diffusion::p_sample_loop(case),
        "prediction.convert" => prediction::convert(case),
        "sdft.loss" => sdft::loss(case),
        "sdft.train_steps" => sdft::train_steps(case),
        "optim.adamw" => optim::adamw(case),
        "optim.ema" => optim::ema(case),
        "optim.clip_grad_norm" => optim::clip_grad_norm(case),
        "optim.microbatch" => optim::microbatch(case),
        "metrics.image_load" => images::image_load(case),
        "metrics.image_load_torchvision" => images::image_load_torchvision(case),
        "metrics.psnr_ssim" => metrics::pairs(case),
        "metrics.fid" => metrics::frechet(case),
        "metrics.kid" => metrics::kernel(case),
        "metrics.resize" => features::resize_modes(case),
        "metrics.inception" => features::inception(case),
        "metrics.lpips" => features::lpips(case),
        "metrics.irse50" => features::irse50(case),
        "metrics.dinov2" => features::dinov2(case),
        "translate.sdedit" => translate::stochastic_edit(case),
        "translate.lowpass" => translate::lowpass(case),
        "translate.egsde" => translate::energy_guided(case),
        "translate.ddib" => translate::bridge(case),
        "asyrp.sequences" => asyrp::sequences(case),
        "asyrp.delta_block" => asyrp::delta_block(case),
        "asyrp.unet_forward" => asyrp::unet_forward(case),
        "asyrp.denoising_step" => asyrp::denoising_step(case),
        "asyrp.edit" => asyrp::edited(case),
        "asyrp.train_grad" => asyrp::train_grad(case),
        "asyrp.clip_directional" => asyrp::clip_directional(case),
        "asyrp.clip_preprocess" => asyrp::clip_preprocess(case),
        "edm.denoise" => edm::denoise(case),
        "edm.sampler" => edm::sampler(case),
        "edm.loss" => edm::loss(case),
        "lora.forward_backward" => lora::forward_backward(case),
        "vae.kl" => vae::kl(case),
        "vae.vq" => vae::vq(case),
        other => bail!("kind {other} is not built"),
    }
}

/// Adds a tensor.
pub(crate) fn put(out: &mut Outputs, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
    out.insert(name.into(), Array::of(tensor)?);
    Ok(())
}

/// Adds a tensor that the reference stores repeated to the shape of `like`.
pub(crate) fn put_wide(
    out: &mut Outputs,
    name: &str,
    tensor: &Tensor,
    like: &Tensor,
) -> Result<()> {
    put(out, name, &tensor.broadcast_as(like.shape())?.contiguous()?)
}

/// Adds `grad.<name>`; a parameter that the loss does not depend on has the gradient 0.
pub(crate) fn put_gradient(
    out: &mut Outputs,
    name: &str,
    var: &Var,
    gradients: &GradStore,
) -> Result<()> {
    let gradient = match gradients.get(var) {
        Some(gradient) => gradient.clone(),
        None => var.zeros_like()?,
    };
    put(out, format!("grad.{name}"), &gradient)
}

/// Adds `grad.<name>` of every parameter, and `grad_norm` over all of them.
pub(crate) fn put_gradients(
    out: &mut Outputs,
    vars: &[(String, Var)],
    gradients: &GradStore,
) -> Result<()> {
    for (name, var) in vars {
        put_gradient(out, name, var, gradients)?;
    }
    let norm = sdft_optim::global_norm(&sdft_optim::collect_gradients(vars, gradients))?;
    out.insert("grad_norm".into(), Array::scalar(norm));
    Ok(())
}

/// Class labels, where there are any.
pub(crate) fn labels(case: &Case) -> Result<Option<Vec<u32>>> {
    if !case.has("y") {
        return Ok(None);
    }
    let labels = case.steps("y")?.into_iter().map(u32::try_from);
    Ok(Some(labels.collect::<std::result::Result<_, _>>()?))
}
