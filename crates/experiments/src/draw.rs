//! Images of trained models: samples, translations and edits.

use candle_core::Tensor;
use sdft_asyrp::{Direction, EditPlan, Mix, edit, invert, read_direction, sequence, strength_at};
use sdft_diffusion::TimeUnit;
use sdft_imaging::Rgb8;
use sdft_jobs::{
    Context, Error, Guide, GuideOptions, Result, SamplePlan, Sampler, TranslatePlan,
    TranslationModels, Translator, check_stop,
};
use sdft_models::LoadedModel;
use sdft_randn::NumberedNoise;
use sdft_samplers::Step;
use sdft_train::{Precision, to_screens};
use std::path::Path;

/// Images at once.
const BATCH: usize = 64;

/// The first `n` samples of a seed, by deterministic DDIM in `steps` steps, guided away from another model if there is one.
pub(crate) fn samples(
    model: &LoadedModel,
    [n, steps]: [usize; 2],
    seed: u64,
    guide: Option<&GuideOptions>,
    context: &mut Context<'_>,
) -> Result<Tensor> {
    let plan = SamplePlan {
        steps: format!("ddim{steps}"),
        ..SamplePlan::paper(model, "", seed, context)?
    };
    let runtime = context.runtime(Precision::Auto);
    let guide = Guide::load(
        guide,
        model,
        model.state_shape(&model.image),
        &runtime,
        TimeUnit::Steps,
        context,
    )?;
    let sampler = Sampler::new(plan, model, guide, context)?;
    context.progress.images(0.0, n);
    let parts = (0..n)
        .step_by(BATCH)
        .map(|first| {
            let part = [first, BATCH.min(n - first), n];
            sampler.draw(seed, first, part[1], &mut |step| {
                report(step, part, context)
            })
        })
        .collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Translations of `x0`; image `i` takes noise `i` of the seed.
pub(crate) fn translations(
    plan: &TranslatePlan,
    models: TranslationModels<'_>,
    x0: &Tensor,
    seed: u64,
    context: &mut Context<'_>,
) -> Result<Vec<Rgb8>> {
    let translator = Translator::new(plan, models, context)?;
    let all = x0.dim(0)?;
    let mut images = Vec::with_capacity(all);
    for first in (0..all).step_by(BATCH) {
        let n = BATCH.min(all - first);
        let numbers = (first..first + n).map(|i| i as u64).collect();
        let mut noise = NumberedNoise::new(seed, numbers);
        let part = x0.narrow(0, first, n)?.to_device(&context.device)?;
        let counts = [first, n, all];
        let out = translator.run(0, &part, &mut noise, &mut |step| {
            report(step, counts, context)
        })?;
        images.extend(to_screens(&out, translator.spec())?);
    }
    Ok(images)
}

/// Reports a step of `n` images after `first` ones, of `all`, unless the job was stopped.
fn report(
    step: &Step<'_>,
    [first, n, all]: [usize; 3],
    context: &mut Context<'_>,
) -> candle_core::Result<()> {
    check_stop(context.stop)?;
    let done = n as f64 * step.done as f64 / step.total as f64;
    context.progress.images(first as f64 + done, all);
    Ok(())
}

/// The images `x0` as a model draws them in `steps` steps, unchanged and with a direction at strength 1.
pub(crate) fn edits(
    model: &LoadedModel,
    direction: &Path,
    x0: &Tensor,
    steps: usize,
    context: &mut Context<'_>,
) -> Result<[Vec<Rgb8>; 2]> {
    let runtime = context.runtime_in_f32();
    let net = runtime.network_in_steps(model)?;
    let groups = model.architecture.norm_groups();
    let read = read_direction(direction, net.bottleneck(), groups, &runtime.device)?;
    let schedule = model.process.published()?.schedule;
    let Some(info) = &read.info else {
        return Err(Error::Failed(format!(
            "{}: its metadata does not describe its training",
            direction.display()
        )));
    };
    let stop = context.stop;
    let mut observer = |_: &Step<'_>| check_stop(stop);
    let inversion = sequence(info.inversion, info.t_0);
    let space = runtime.space(model, model.image)?;
    let x0 = &space.encode(&x0.to_device(&runtime.device)?)?;
    let latent = invert(&*net, &schedule, x0, &inversion, &mut observer)?;
    let plan = EditPlan {
        steps: sequence(steps, info.t_0),
        t_edit: info.t_edit,
        t_boost: 0,
    };
    let n = x0.dim(0)?;
    let mut drawn = |directions| -> Result<Vec<Rgb8>> {
        let mix = Mix::of(directions);
        // Without boosting no noise is drawn.
        let mut none = NumberedNoise::new(0, vec![0; n]);
        let out = edit(
            &*net,
            &schedule,
            &latent,
            &mix,
            &plan,
            &mut none,
            &mut observer,
        )?;
        // Judged like files, after rounding to 8 bits.
        Ok(to_screens(&space.decode(&out)?, &model.image)?)
    };
    let plain = drawn(Vec::new())?;
    let edited = drawn(vec![Direction {
        block: &read.block,
        strength: strength_at(1.0, info.steps, steps, 1),
    }])?;
    Ok([plain, edited])
}
