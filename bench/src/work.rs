//! Each kind of work as a closure that does it once.

use crate::cases::{Case, Pass, VaePart, Work};
use crate::clock::{Spent, Started};
use crate::inputs::{SEED, block_weights, formula, network_weights};
use anyhow::{Context, Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use sdft_adapters::{AdaptedNetwork, AdapterConfig, AdapterKind, Base};
use sdft_autoencoder::{Autoencoder, AutoencoderConfig};
use sdft_autograd::{attention, backward, conv2d_padded, norm_act, upsample_nearest_2x};
use sdft_cuda::{allow_tf32, synchronize};
use sdft_diffusion::{ComputeMode, Network, PredictionType, Trainable};
use sdft_kernels::{Activation, AttentionOrder};
use sdft_models::Architecture;
use sdft_nn::{AttentionBlock, Params, ResBlock, ResBlockConfig, Scope, specs_of};
use sdft_optim::{AdamW, Ema, EmaRamp, Optimizer, Rule};
use sdft_randn::SeededNoise;
use sdft_samplers::{Ddim, sample_ddim};
use sdft_train::{Learner, LossPlan, Method, Outcome, PendingStep, Plan, Precision, Source};

/// Does the work once; returns the time and, if requested, a digest of the results.
pub(crate) type Run = Box<dyn FnMut(bool) -> Result<(Vec<Digest>, Spent)>>;

/// Mean absolute value of a result, and a projection that changes by about as much as the values or their positions.
pub(crate) type Digest = [f64; 2];

/// Number of SDFT steps in one repetition.
const STEPS: u32 = 5;

/// Number of steps in one repetition on a GPU.
const GPU_STEPS: u32 = 10;

/// Timesteps at which a forward pass is measured.
const T: f32 = 500.0;

pub(crate) fn prepare(case: &Case, device: &Device, precision: Precision) -> Result<Run> {
    allow_tf32(precision == Precision::Tf32);
    match &case.work {
        Work::Residual { .. } | Work::AttentionBlock { .. } => block(case),
        Work::Vae { part, side, config } => vae(*part, *side, config),
        Work::Optimizer { elements } => optimizer(*elements),
        Work::Network {
            batch,
            config,
            weighting,
            ..
        } => match case.pass {
            Pass::Forward => forward(*batch, config, device, precision),
            Pass::Sampling => sampling(*batch, config, device, precision),
            pass => step(*batch, config, weighting, pass, (device, precision)),
        },
        work => kernel(work, case.pass, precision.compute_dtype()),
    }
}

/// How many steps, whose mean is reported, the work consists of.
pub(crate) fn steps(case: &Case, device: &Device) -> u32 {
    match (&case.work, case.pass) {
        (_, Pass::Forward | Pass::Sampling) => 1,
        (Work::Network { config, .. }, pass) => steps_of(pass, config, device),
        _ => 1,
    }
}

/// The distilled images of an SDFT step are drawn for each step, so one step alone is not representative.
fn steps_of(pass: Pass, config: &Architecture, device: &Device) -> u32 {
    match (device.is_cuda(), pass) {
        (true, _) => GPU_STEPS,
        (_, Pass::Sdft) if config.image_size() <= 64 => STEPS,
        _ => 1,
    }
}

/// Whether the work can be done in several precisions.
pub(crate) fn has_precisions(work: &Work) -> bool {
    !matches!(
        work,
        Work::Residual { .. }
            | Work::AttentionBlock { .. }
            | Work::Vae { .. }
            | Work::Optimizer { .. }
    )
}

fn digest(x: &Tensor) -> Result<Digest> {
    let f = formula(x.dims(), 7)?.to_dtype(DType::F64)?;
    let x = x.to_dtype(DType::F64)?;
    let projection = (&x * f)?.sum_all()?.to_scalar::<f64>()? / (x.elem_count() as f64).sqrt();
    Ok([x.abs()?.mean_all()?.to_scalar()?, projection])
}

fn digests<'a>(wanted: bool, results: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<Digest>> {
    if !wanted {
        return Ok(Vec::new());
    }
    results.into_iter().map(digest).collect()
}

/// The gradients of these leaves, which must all exist.
fn gradients_of(store: &GradStore, leaves: &[Tensor]) -> Result<Vec<Tensor>> {
    leaves
        .iter()
        .map(|leaf| store.get(leaf).cloned().context("no gradient"))
        .collect()
}

/// A function of its leaves.
type Operation = Box<dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>>;

/// An operation, its input and its weights.
fn operation(work: &Work) -> Result<(Operation, Tensor, Vec<Tensor>)> {
    Ok(match *work {
        Work::Conv {
            batch,
            c_in,
            c_out,
            side,
            k,
            stride,
            pad,
            upsample,
        } => {
            let scale = 1.0 / ((c_in * k * k) as f64).sqrt();
            let w = (formula(&[c_out, c_in, k, k], 2)? * scale)?;
            (
                Box::new(move |leaves| {
                    let x = match upsample {
                        true => upsample_nearest_2x(&leaves[0])?,
                        false => leaves[0].clone(),
                    };
                    conv2d_padded(&x, &leaves[1], &leaves[2], stride, pad)
                }),
                formula(&[batch, c_in, side, side], 1)?,
                vec![w, formula(&[c_out], 3)?],
            )
        }
        Work::Norm { batch, c_in, side } => (
            Box::new(move |leaves| {
                let per_image =
                    |x: &Tensor| x.unsqueeze(0)?.broadcast_as((batch, c_in))?.contiguous();
                let (gain, offset) = (per_image(&leaves[1])?, per_image(&leaves[2])?);
                norm_act(&leaves[0], &gain, &offset, 32, 1e-5, Activation::Silu)
            }),
            formula(&[batch, c_in, side, side], 1)?,
            vec![
                formula(&[c_in], 2)?.affine(0.1, 1.0)?,
                (formula(&[c_in], 3)? * 0.1)?,
            ],
        ),
        Work::Attention {
            batch,
            c_in,
            side,
            heads,
        } => (
            Box::new(move |leaves| attention(&leaves[0], heads, AttentionOrder::Legacy)),
            formula(&[batch, c_in, side * side], 1)?,
            vec![],
        ),
        _ => bail!("not a kernel"),
    })
}

fn kernel(work: &Work, pass: Pass, dtype: DType) -> Result<Run> {
    let (function, input, weights) = operation(work)?;
    let input = input.to_dtype(dtype)?;
    let leaf = |tensor: &Tensor, tracked: bool| -> Result<Tensor> {
        Ok(if tracked {
            Var::from_tensor(tensor)?.into_inner()
        } else {
            tensor.clone()
        })
    };
    let of_input = matches!(pass, Pass::InputGradient | Pass::Backward);
    let of_weights = matches!(pass, Pass::WeightGradient | Pass::Backward);
    let mut leaves = vec![leaf(&input, of_input)?];
    for weight in &weights {
        leaves.push(leaf(weight, of_weights)?);
    }
    if pass == Pass::Forward {
        return Ok(Box::new(move |wanted| {
            let started = Started::now();
            let y = function(&leaves)?;
            let spent = started.spent();
            Ok((digests(wanted, [&y])?, spent))
        }));
    }
    Ok(Box::new(move |wanted| {
        let y = function(&leaves)?;
        let started = Started::now();
        let gradients = backward(&y)?;
        let spent = started.spent();
        let tracked: Vec<Tensor> = leaves
            .iter()
            .filter(|leaf| leaf.is_variable())
            .cloned()
            .collect();
        Ok((
            digests(wanted, &gradients_of(&gradients, &tracked)?)?,
            spent,
        ))
    }))
}

/// A function of an input.
type Block = Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor>>;

fn block(case: &Case) -> Result<Run> {
    let both = case.pass == Pass::Both;
    let weights = |specs: &[sdft_nn::ParamSpec]| -> Result<Params> {
        let params = block_weights(specs)?;
        Ok(if both { params.trainable()?.0 } else { params })
    };
    let (function, shape): (Block, [usize; 4]) = match case.work {
        Work::Residual {
            batch,
            c_in,
            c_out,
            side,
            emb,
        } => {
            let config = ResBlockConfig {
                scale_shift: true,
                ..ResBlockConfig::new(c_in, c_out, emb)
            };
            let params = weights(&specs_of(|scope| ResBlock::load(scope, &config))?)?;
            let block = ResBlock::load(&Scope::root(&params), &config)?;
            let emb = formula(&[batch, emb], 2)?;
            (
                Box::new(move |x| block.forward(x, Some(&emb), None)),
                [batch, c_in, side, side],
            )
        }
        Work::AttentionBlock {
            batch,
            c_in,
            side,
            heads,
        } => {
            let load = |scope: &Scope<'_>| {
                AttentionBlock::load(scope, c_in, heads, 32, AttentionOrder::Legacy)
            };
            let params = weights(&specs_of(load)?)?;
            let block = load(&Scope::root(&params))?;
            (
                Box::new(move |x| block.forward(x, None)),
                [batch, c_in, side, side],
            )
        }
        _ => bail!("not a block"),
    };
    let x = formula(&shape, 1)?;
    if !both {
        return Ok(Box::new(move |wanted| {
            let started = Started::now();
            let y = function(&x)?;
            let spent = started.spent();
            Ok((digests(wanted, [&y])?, spent))
        }));
    }
    let x = Var::from_tensor(&x)?;
    Ok(Box::new(move |wanted| {
        let started = Started::now();
        let gradients = backward(&function(&x)?.sqr()?.mean_all()?)?;
        let spent = started.spent();
        let of_x = gradients_of(&gradients, std::slice::from_ref(x.as_tensor()))?;
        Ok((digests(wanted, &of_x)?, spent))
    }))
}

fn vae(part: VaePart, side: usize, config: &AutoencoderConfig) -> Result<Run> {
    let params = block_weights(&Autoencoder::specs(config)?)?;
    let autoencoder = Autoencoder::load(&params, config)?;
    let latent = side / config.factor();
    let input = match part {
        VaePart::Encode => formula(&[1, config.image_channels(), side, side], 1)?,
        VaePart::Decode => formula(&[1, config.latent_channels(), latent, latent], 1)?,
    };
    Ok(Box::new(move |wanted| {
        let started = Started::now();
        let y = match part {
            VaePart::Encode => autoencoder.encode(&input)?.mean,
            VaePart::Decode => autoencoder.decode(&input)?,
        };
        let spent = started.spent();
        Ok((digests(wanted, [&y])?, spent))
    }))
}

fn optimizer(elements: usize) -> Result<Run> {
    let before = formula(&[elements], 1)?;
    let vars = vec![("w".to_owned(), Var::from_tensor(&before)?)];
    let gradients = [Some(formula(&[elements], 2)?)];
    let mut optimizer = Optimizer::new(Rule::AdamW(AdamW::default()), &vars)?;
    let mut ema = Ema::new(0.9, EmaRamp::None, &vars)?;
    Ok(Box::new(move |wanted| {
        let started = Started::now();
        optimizer.step_and_average(&gradients, 1e-2, 1.0, &mut ema)?;
        let spent = started.spent();
        if !wanted {
            return Ok((Vec::new(), spent));
        }
        let moved =
            [&vars[0].1.as_detached_tensor(), &ema.state()?[0].1].map(|after| after - &before);
        let [parameter, average] = moved;
        Ok((digests(wanted, [&parameter?, &average?])?, spent))
    }))
}

fn images(batch: usize, config: &Architecture) -> Result<Tensor> {
    let [channels, height, width] = config.image_shape();
    formula(&[batch, channels, height, width], 1)
}

fn network(
    config: &Architecture,
    device: &Device,
    precision: Precision,
) -> Result<Box<dyn Network>> {
    let params = network_weights(config)?.to(DType::F32, device)?;
    let kind = PredictionType::Epsilon;
    Ok(config.load(&params, kind, precision.compute_dtype())?)
}

/// The whole output of a network.
fn output(net: &dyn Network, x: &Tensor, t: &[f32]) -> Result<Tensor> {
    let prediction = net.predict(x, t)?;
    Ok(match &prediction.variance {
        Some(variance) => Tensor::cat(&[&prediction.output, variance], 1)?,
        None => prediction.output,
    })
}

fn forward(
    batch: usize,
    config: &Architecture,
    device: &Device,
    precision: Precision,
) -> Result<Run> {
    let net = network(config, device, precision)?;
    let (x, t) = (images(batch, config)?.to_device(device)?, vec![T; batch]);
    let device = device.clone();
    Ok(Box::new(move |wanted| {
        let started = Started::now();
        let prediction = net.predict(&x, &t)?;
        synchronize(&device)?;
        let spent = started.spent();
        drop(prediction);
        let y = match wanted {
            true => vec![output(&*net, &x, &t)?],
            false => Vec::new(),
        };
        Ok((digests(wanted, &y)?, spent))
    }))
}

/// Ten steps of DDIM. Both sides compare a prediction, because steps amplify rounding.
fn sampling(
    batch: usize,
    config: &Architecture,
    device: &Device,
    precision: Precision,
) -> Result<Run> {
    let net = network(config, device, precision)?;
    let (x, t) = (images(batch, config)?.to_device(device)?, vec![T; batch]);
    let process = sdft_diffusion::Process::default();
    let diffusion = process.diffusion(config.learns_variance(), &"ddim10".parse()?)?;
    let device = device.clone();
    Ok(Box::new(move |wanted| {
        let values = match wanted {
            true => digests(true, [&output(&*net, &x, &t)?])?,
            false => Vec::new(),
        };
        synchronize(&device)?;
        let started = Started::now();
        let mut noise = SeededNoise::new(SEED, 0);
        let options = Ddim::default();
        sample_ddim(&diffusion, &*net, &x, &options, &mut noise, &mut |_| Ok(()))?;
        synchronize(&device)?;
        Ok((values, started.spent()))
    }))
}

fn step(
    batch: usize,
    config: &Architecture,
    weighting: &str,
    pass: Pass,
    (device, precision): (&Device, Precision),
) -> Result<Run> {
    let adapter = AdapterConfig {
        kind: pass.adapter(),
        ..AdapterConfig::default()
    };
    let config = &match adapter.time_adapter_rank() {
        Some(rank) => config.clone().with_time_adapter(rank),
        None => config.clone(),
    };
    let params = network_weights(config)?.to(DType::F32, device)?;
    let sdft = pass == Pass::Sdft;
    let mut plan = Plan {
        seed: SEED,
        method: if sdft { Method::Sdft } else { Method::Naive },
        loss: LossPlan {
            base: weighting.parse()?,
            ..LossPlan::default()
        },
        ..<Plan>::default()
    };
    plan.steps.batch = batch;
    plan.steps.recompute = pass == Pass::Recomputed;
    plan.steps.precision = precision;
    let source = match sdft {
        true => {
            let kind = PredictionType::Epsilon;
            let net = config.load(&params, kind, precision.compute_dtype())?;
            Some(Source::Plain(net))
        }
        false => None,
    };
    let mode = ComputeMode {
        dtype: precision.compute_dtype(),
        recompute: plan.steps.recompute,
    };
    let build = |params: &Params| -> candle_core::Result<Box<dyn Trainable>> {
        config.trainable(params, PredictionType::Epsilon, mode)
    };
    let network = match adapter.kind {
        AdapterKind::Full => build(&params)?,
        _ => {
            let base = Base {
                params: &params,
                specs: &config.specs()?,
                sha256: String::new(),
            };
            Box::new(AdaptedNetwork::new(&adapter, base, SEED, build)?)
        }
    };
    let image = config.image_shape();
    let mut learner = Learner::new(&plan, network, source, image, 0)?;
    drop(params);
    let x0 = images(batch, config)?.to_device(device)?;
    let steps = steps_of(pass, config, device);
    let device = device.clone();
    let mut n = 0;
    Ok(Box::new(move |wanted| {
        let started = Started::now();
        let mut first = None;
        let mut check = |issued: PendingStep| match issued.wait()? {
            Outcome::Updated { report, grad_norm } => {
                first.get_or_insert([[report.total; 2], [grad_norm; 2]]);
                Ok(())
            }
            Outcome::Skipped { what } => bail!("a step with a {what} that is not finite"),
        };
        // Like in training, queue a step while the device computes the previous one.
        let mut waiting = None;
        for _ in 0..steps {
            if let Some(before) = waiting.replace(learner.issue(n, &x0)?) {
                check(before)?;
            }
            n += 1;
        }
        waiting.map(&mut check).transpose()?;
        synchronize(&device)?;
        let Spent { cpu, wall } = started.spent();
        let each = |seconds: f64| seconds / f64::from(steps);
        let spent = Spent {
            cpu: each(cpu),
            wall: each(wall),
        };
        Ok((
            first.filter(|_| wanted).into_iter().flatten().collect(),
            spent,
        ))
    }))
}
