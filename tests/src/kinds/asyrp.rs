//! Cases of the kinds `asyrp.*`.

use super::{Outputs, put, put_gradient};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use sdft_adm::Unet;
use sdft_asyrp::{
    ClipInput, DeltaBlock, Direction, EditPlan, Levels, Mix, TextDirection, asyrp_loss, clip_loss,
    directional_similarity, edit, invert, l1_term, sequence, shifted, step, training_sequence,
};
use sdft_diffusion::{Bottleneck, BottleneckNet};
use sdft_nn::{ParamSpec, Params, Scope};
use sdft_randn::GivenNoise;
use sdft_schedule::{Schedule, linear_betas};
use sdft_testing::{Array, Case, adm_config, compute_dtype, device};

/// Norm groups of the reference.
const GROUPS: usize = 32;

/// A network with blocks, all from one set of weights.
struct Net {
    unet: Unet,
    params: Params,
    n_blocks: usize,
}

impl Net {
    fn read(case: &Case) -> Result<Self> {
        match case.get("variant")?.as_str() {
            Some("asyrp" | "asyrp_i") => {}
            _ => bail!("unknown variant {}", case.get("variant")?),
        }
        let config = adm_config(case.get("model")?)?;
        let n_blocks = match case.has_config("num_delta_blocks") {
            true => case.count("num_delta_blocks")?,
            false => 1,
        };
        let mut specs = Unet::specs(&config)?;
        let bottleneck = Bottleneck {
            channels: config.width(config.levels() - 1),
            embedding: 4 * config.model_channels,
        };
        for i in 0..n_blocks {
            let block = DeltaBlock::specs(bottleneck, GROUPS)?;
            specs.extend(block.into_iter().map(|spec| ParamSpec {
                name: format!("layer_{i}.{}", spec.name),
                ..spec
            }));
        }
        let params = case.weights("model", &specs)?;
        Ok(Self {
            unet: Unet::load(&params, &config)?.with_compute_dtype(compute_dtype()),
            params,
            n_blocks,
        })
    }

    fn blocks(&self, params: &Params) -> Result<Vec<DeltaBlock>> {
        let scope = Scope::root(params);
        let build = |i| {
            let scope = scope.pp(format!("layer_{i}"));
            Ok(DeltaBlock::build(&scope, self.unet.bottleneck(), GROUPS)?)
        };
        (0..self.n_blocks).map(build).collect()
    }
}

/// The coefficients of `h` and of the blocks.
fn mix<'a>(case: &Case, blocks: &'a [DeltaBlock]) -> Result<Mix<'a>> {
    let coefficients: Vec<f64> = serde_json::from_value(case.get("hs_coeff")?.clone())?;
    let (keep, strengths) = coefficients.split_first().context("hs_coeff is empty")?;
    let directions = blocks.iter().zip(strengths);
    Ok(Mix {
        keep: *keep,
        directions: directions
            .map(|(block, &strength)| Direction { block, strength })
            .collect(),
        timed: !case.flag("ignore_timestep", false)?,
    })
}

fn schedule() -> Result<Schedule> {
    Ok(Schedule::from_betas_in_f32(&linear_betas(
        1e-4, 0.02, 1000,
    )?)?)
}

/// Whether an index is given: features are changed only then.
fn changes(case: &Case) -> bool {
    case.get("index").is_ok_and(|index| !index.is_null())
}

pub(super) fn delta_block(case: &Case) -> Result<Outputs> {
    let bottleneck = Bottleneck {
        channels: case.count("channels")?,
        embedding: case.count("emb_channels")?,
    };
    let params = case.weights("module", &DeltaBlock::specs(bottleneck, GROUPS)?)?;
    let (params, vars) = params.trainable()?;
    let block = DeltaBlock::load(&params, bottleneck, GROUPS)?;
    let x = Var::from_tensor(&case.input("x")?)?;
    let emb = Var::from_tensor(&case.input("emb")?)?;
    let result = block.forward(&x, Some(&emb))?;
    let gradients = sdft_autograd::backward(&(&result * case.input("R")?)?.sum_all()?)?;
    let mut out = Outputs::new();
    put(&mut out, "out", &result)?;
    put(&mut out, "out_without_emb", &block.forward(&x, None)?)?;
    for (name, var) in &vars {
        put_gradient(&mut out, name, var, &gradients)?;
    }
    put_gradient(&mut out, "x", &x, &gradients)?;
    put_gradient(&mut out, "emb", &emb, &gradients)?;
    Ok(out)
}

pub(super) fn unet_forward(case: &Case) -> Result<Outputs> {
    let net = Net::read(case)?;
    let blocks = net.blocks(&net.params)?;
    let mix = mix(case, &blocks)?;
    let t = case.times("t")?;
    let applies = changes(case) && t[0] >= case.number("t_edit")? as f32;
    let mut moved = None;
    let said = net
        .unet
        .predict_edited(&case.input("x")?, &t, &mut |h, emb| {
            if !applies {
                return Ok(None);
            }
            let last = blocks
                .last()
                .map(|block| block.forward(h, mix.timed.then_some(emb)));
            moved = last.transpose()?;
            mix.apply(h, emb)
        })?;
    let whole = |prediction: &sdft_diffusion::Prediction| match &prediction.variance {
        Some(variance) => Tensor::cat(&[&prediction.output, variance], 1),
        None => Ok(prediction.output.clone()),
    };
    let mut out = Outputs::new();
    put(&mut out, "out", &whole(&said.plain)?)?;
    put(&mut out, "out_modified", &whole(said.changed())?)?;
    put(&mut out, "middle_h", &said.h)?;
    if let Some(moved) = moved {
        put(&mut out, "delta_h", &moved)?;
    }
    Ok(out)
}

/// Levels of `alpha_bar` of a step and the one it leads to; -1 is the clean image.
fn levels(case: &Case, schedule: &Schedule) -> Result<Levels> {
    let at = |name: &str| -> Result<f64> {
        match case.get(name)?.as_i64().context("no step")? {
            -1 => Ok(1.0),
            t => Ok(schedule.alpha_bar()[usize::try_from(t)?]),
        }
    };
    Ok(Levels {
        alpha_bar: at("t")?,
        alpha_bar_next: at("t_next")?,
        eta: 0.0,
    })
}

pub(super) fn denoising_step(case: &Case) -> Result<Outputs> {
    let net = Net::read(case)?;
    let blocks = net.blocks(&net.params)?;
    let mix = mix(case, &blocks)?;
    let x = case.input("x")?;
    let t = case.count("t")?;
    let applies = changes(case) && t >= case.count("t_edit")?;
    let times = vec![t as f32; x.dim(0)?];
    let said = net
        .unet
        .predict_edited(&x, &times, &mut |h, emb| match applies {
            true => mix.apply(h, emb),
            false => Ok(None),
        })?;
    let eta = case.number("eta")?;
    let z = match eta > 0.0 {
        true => Some(case.input("noises")?.get(0)?),
        false => None,
    };
    let z = match z {
        // One noise, or a stack of one.
        Some(z) if z.rank() + 1 == x.rank() => Some(z.unsqueeze(0)?),
        other => other,
    };
    let levels = Levels {
        eta,
        ..levels(case, &schedule()?)?
    };
    let stepped = step(&x, &said.plain, said.changed(), levels, z.as_ref())?;
    let mut out = Outputs::new();
    put(&mut out, "middle_h", &said.h)?;
    put(&mut out, "x0_t", &stepped.x0)?;
    put(&mut out, "x_next", &stepped.next)?;
    Ok(out)
}

pub(super) fn edited(case: &Case) -> Result<Outputs> {
    let net = Net::read(case)?;
    let blocks = net.blocks(&net.params)?;
    let schedule = schedule()?;
    let t_0 = case.count("t_0")?;
    let mut states = Vec::new();
    let latent = invert(
        &net.unet,
        &schedule,
        &case.input("x_0")?,
        &sequence(case.count("n_inv_step")?, t_0),
        &mut |step| {
            states.push(step.x.clone());
            Ok(())
        },
    )?;
    let mut out = Outputs::new();
    put(&mut out, "latent", &latent)?;
    put(&mut out, "inversion_states", &Tensor::stack(&states, 0)?)?;
    let mut plan = EditPlan {
        steps: sequence(case.count("n_gen_step")?, t_0),
        t_edit: case.count("t_edit")?,
        t_boost: 0,
    };
    let run = |mix: &Mix<'_>, plan: &EditPlan| -> Result<(Tensor, Tensor, Tensor)> {
        let mut noise = GivenNoise::new(case.input("noises")?);
        let (mut states, mut images) = (Vec::new(), Vec::new());
        let sample = edit(
            &net.unet,
            &schedule,
            &latent,
            mix,
            plan,
            &mut noise,
            &mut |step| {
                states.push(step.x.clone());
                images.push(step.x0.clone());
                Ok(())
            },
        )?;
        Ok((
            sample,
            Tensor::stack(&states, 0)?,
            Tensor::stack(&images, 0)?,
        ))
    };
    let (plain, states, _) = run(&Mix::of(Vec::new()), &plan)?;
    put(&mut out, "reconstruction", &plain)?;
    put(&mut out, "reconstruction_states", &states)?;
    plan.t_boost = case.count("t_addnoise")?;
    let (sample, states, images) = run(&mix(case, &blocks)?, &plan)?;
    put(&mut out, "sample", &sample)?;
    put(&mut out, "edit_states", &states)?;
    put(&mut out, "edit_x0_t", &images)?;
    Ok(out)
}

pub(super) fn train_grad(case: &Case) -> Result<Outputs> {
    let net = Net::read(case)?;
    // Only the blocks learn.
    let own = net
        .params
        .iter()
        .filter(|(name, _)| name.starts_with("layer_"));
    let own = Params::new(
        own.map(|(name, tensor)| (name.to_owned(), tensor.clone()))
            .collect(),
    );
    let (own, vars) = own.trainable()?;
    let blocks = net.blocks(&own)?;
    let mix = Mix::of(
        blocks
            .iter()
            .map(|block| Direction {
                block,
                strength: 1.0,
            })
            .collect(),
    );
    let x = case.input("x")?;
    let times = vec![case.count("t")? as f32; x.dim(0)?];
    let said = net
        .unet
        .predict_edited(&x, &times, &mut |h, emb| mix.apply(h, emb))?;
    let levels = levels(case, &schedule()?)?;
    let plain = &said.plain;
    let origin = step(&x, plain, plain, levels, None)?.x0.detach();
    let x0 = step(&x, plain, said.changed(), levels, None)?.x0;
    let l1 = l1_term(&x0, &origin, 1.0, 1.0)?;
    let weighted = l1_term(
        &x0,
        &origin,
        case.number("l1_weight")?,
        case.number("cosine")?,
    )?;
    let linear = ((&x0 * case.input("R")?)?.sum_all()? * case.number("lin_weight")?)?;
    let loss = (weighted + linear)?;
    let gradients = sdft_autograd::backward(&loss)?;
    let mut out = Outputs::new();
    put(&mut out, "x0_t", &x0)?;
    put(&mut out, "x0_t_origin", &origin)?;
    put(&mut out, "l1", &l1)?;
    put(&mut out, "loss", &loss)?;
    for (name, var) in &vars {
        put_gradient(&mut out, name, var, &gradients)?;
    }
    Ok(out)
}

pub(super) fn sequences(case: &Case) -> Result<Outputs> {
    let (n, t_0) = (case.count("n_step")?, case.count("t_0")?);
    let all = sequence(n, t_0);
    let trained = training_sequence(n, t_0, case.count("t_edit")?);
    let mut out = Outputs::new();
    let mut add = |name: &str, steps: Vec<i64>| -> Result<()> {
        let tensor = Tensor::new(steps, &Device::Cpu)?;
        out.insert(name.to_owned(), Array::of(&tensor)?);
        Ok(())
    };
    let numbers = |steps: &[usize]| steps.iter().map(|&t| t as i64).collect::<Vec<_>>();
    let next = |steps: &[usize]| {
        let next = shifted(steps).into_iter();
        next.map(|t| t.map_or(-1, |t| t as i64)).collect::<Vec<_>>()
    };
    add("seq", numbers(&all))?;
    add("seq_next", next(&all))?;
    add("seq_train", numbers(&trained))?;
    add("seq_train_next", next(&trained))?;
    Ok(out)
}

pub(super) fn clip_directional(case: &Case) -> Result<Outputs> {
    let texts = (case.input("text_source")?, case.input("text_target")?);
    let direction = TextDirection::between(&texts.0, &texts.1)?;
    let source = case.input("image_source")?;
    let target = Var::from_tensor(&case.input("image_target")?)?;
    let plain = clip_loss(&source, &target, &direction)?;
    let loss = asyrp_loss(&plain)?;
    let gradients = sdft_autograd::backward(&loss)?;
    let mut out = Outputs::new();
    put(&mut out, "target_direction", direction.as_tensor())?;
    put(
        &mut out,
        "directional_similarity",
        &directional_similarity(&source, &target, &direction)?,
    )?;
    put(&mut out, "clip_loss", &plain)?;
    put(&mut out, "asyrp_loss", &loss)?;
    put_gradient(&mut out, "image_target", &target, &gradients)?;
    Ok(out)
}

pub(super) fn clip_preprocess(case: &Case) -> Result<Outputs> {
    let x = case.input("x")?;
    let (_, _, h, w) = x.dims4()?;
    let values =
        |name: &str| -> Result<[f64; 3]> { Ok(serde_json::from_value(case.get(name)?.clone())?) };
    let n = case.count("n_px")?;
    let input = ClipInput::with(
        [h, w],
        n,
        case.flag("antialias", true)?,
        values("mean")?,
        values("std")?,
        device(),
    )?;
    let seen = input.forward(&x)?;
    let stride = case.count("stride")?;
    let kept: Vec<u32> = (0..n).step_by(stride).map(|i| i as u32).collect();
    let kept = Tensor::new(kept, device())?;
    let mut out = Outputs::new();
    put(
        &mut out,
        "out",
        &seen.index_select(&kept, 2)?.index_select(&kept, 3)?,
    )?;
    let sum = seen.to_dtype(candle_core::DType::F64)?.sum_all()?;
    put(&mut out, "sum", &sum)?;
    Ok(out)
}
