//! Compares every operation on a device with the same operation on the CPU.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use sdft_adm::{AdmConfig, Unet};
use sdft_autograd::{
    add, attention, average_pool_2x, backward, concat, conv2d, embedding, linear, norm_act, pool,
    recompute, relu, silu, taped, to_nchw, upsample_nearest_2x,
};
use sdft_kernels::{Activation, AttentionOrder, PoolKind};
use sdft_nn::{AttentionBlock, Params, ResBlock, ResBlockConfig, Resample, Scope, specs_of};
use sdft_noise::{Draw, Purpose};
use sdft_optim::{
    AdamW, EmaRamp, EmaRate, Engine, LossScale, Rule, Sgd, StepSize, Verdict, collect_gradients,
};
use sdft_randn::randn;

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was compared.
    pub name: String,
    /// The largest difference, as a share of the largest value.
    pub error: f64,
    /// The largest share that rounding explains.
    pub bound: f64,
}

impl Finding {
    /// Whether the two agree.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

type Network<'a> = Box<dyn Fn(&[Tensor]) -> candle_core::Result<Tensor> + 'a>;

/// An operation, the shapes of its feature maps and those of its parameters.
struct Operation<'a> {
    name: String,
    maps: Vec<Vec<usize>>,
    parameters: Vec<Vec<usize>>,
    f: Network<'a>,
}

fn wave(shape: &[usize], salt: u64, device: &Device) -> Result<Tensor> {
    let mut values = vec![0.0; shape.iter().product()];
    Draw::new(11, Purpose::Test, salt, 0).fill_normal(&mut values);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
}

/// The error that rounding to this type explains, as a share of the largest value.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.6e-2,
        DType::F16 => 2e-3,
        _ => 3e-5,
    }
}

fn operations() -> Vec<Operation<'static>> {
    let mut all: Vec<Operation<'static>> = Vec::new();
    let mut put =
        |name: String, maps: &[&[usize]], parameters: &[&[usize]], f: Network<'static>| {
            let owned = |list: &[&[usize]]| list.iter().map(|shape| shape.to_vec()).collect();
            all.push(Operation {
                name,
                maps: owned(maps),
                parameters: owned(parameters),
                f,
            });
        };
    for (b, c_in, c_out, h, w, k, stride, pad) in [
        (2, 16, 32, 9, 7, [3, 3], 1, [1, 1]),
        (2, 3, 32, 8, 8, [3, 3], 1, [1, 1]),
        (1, 32, 6, 8, 8, [3, 3], 1, [1, 1]),
        (2, 40, 24, 8, 6, [1, 1], 1, [0, 0]),
        (2, 8, 16, 9, 9, [3, 3], 2, [1, 1]),
        (1, 8, 8, 7, 9, [1, 5], 1, [0, 2]),
        (1, 5, 7, 6, 6, [5, 5], 1, [2, 2]),
        (2, 128, 128, 16, 16, [3, 3], 1, [1, 1]),
    ] {
        put(
            format!("conv {}x{} {c_in}->{c_out} /{stride}", k[0], k[1]),
            &[&[b, c_in, h, w]],
            &[&[c_out, c_in, k[0], k[1]], &[c_out]],
            Box::new(move |t| conv2d(&t[0], &t[1], &t[2], stride, pad)),
        );
    }
    put(
        "linear".to_owned(),
        &[&[5, 24]],
        &[&[17, 24], &[17]],
        Box::new(|t| linear(&t[0], &t[1], &t[2])),
    );
    for (c, groups, places) in [
        (32, 32, 25),
        (20, 4, 7),
        (128, 32, 300),
        (96, 32, 64),
        (6, 3, 5),
    ] {
        for activation in [Activation::None, Activation::Silu] {
            put(
                format!("norm {c} in {groups} {activation:?}"),
                &[&[2, c, places, 1]],
                &[&[2, c], &[2, c]],
                Box::new(move |t| norm_act(&t[0], &t[1], &t[2], groups, 1e-5, activation)),
            );
        }
    }
    for (order, channels, heads, n) in [
        (AttentionOrder::Legacy, 64, 4, 49),
        (AttentionOrder::Chunked, 64, 2, 64),
        (AttentionOrder::Legacy, 24, 1, 7),
        (AttentionOrder::Chunked, 24, 2, 16),
    ] {
        put(
            format!("attention {order:?} {channels} heads {heads} places {n}"),
            &[&[2, 3 * channels, n]],
            &[],
            Box::new(move |t| attention(&t[0], heads, order)),
        );
    }
    let map: &[usize] = &[2, 24, 6, 10];
    put(
        "upsample".into(),
        &[map],
        &[],
        Box::new(|t| upsample_nearest_2x(&t[0])),
    );
    put(
        "average".into(),
        &[map],
        &[],
        Box::new(|t| average_pool_2x(&t[0])),
    );
    let odd: &[usize] = &[1, 5, 5, 7];
    put(
        "average odd".into(),
        &[odd],
        &[],
        Box::new(|t| average_pool_2x(&t[0])),
    );
    put("relu".into(), &[map], &[], Box::new(|t| relu(&t[0])));
    put("silu".into(), &[odd], &[], Box::new(|t| silu(&t[0])));
    put(
        "add".into(),
        &[map, map],
        &[],
        Box::new(|t| add(&t[0], &t[1])),
    );
    put(
        "concat".into(),
        &[map, &[2, 9, 6, 10]],
        &[],
        Box::new(|t| concat(&t[0], &t[1])),
    );
    put(
        "concat even".into(),
        &[map, &[2, 8, 6, 10]],
        &[],
        Box::new(|t| concat(&t[0], &t[1])),
    );
    put(
        "lookup".into(),
        &[],
        &[&[5, 8]],
        Box::new(|t| embedding(&t[0], &[3, 0, 3])),
    );
    for (kind, k, stride, pad) in [
        (PoolKind::Max, 3, 2, 1),
        (PoolKind::Average, 3, 1, 1),
        (PoolKind::Max, 2, 2, 0),
    ] {
        put(
            format!("pool {kind:?} {k} /{stride}"),
            &[&[2, 12, 9, 7]],
            &[],
            Box::new(move |t| pool(&t[0], kind, k, stride, pad)),
        );
    }
    all
}

/// Values and gradients of every operation in f32, bf16 and f16, of blocks and a whole network, of noise and of optimiser steps.
pub fn compare_devices(device: &Device) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for operation in operations() {
            let name = format!("{} {}", operation.name, dtype.as_str());
            let done = operation.compare(dtype, device, &name, &mut findings);
            note(done, &name, &mut findings);
        }
        let done = blocks(dtype, device, &mut findings);
        note(done, "blocks", &mut findings);
        let done = network(dtype, device, &mut findings);
        note(done, "network", &mut findings);
    }
    let done = noise(device, &mut findings);
    note(done, "noise", &mut findings);
    let done = optimisers(device, &mut findings);
    note(done, "optimisers", &mut findings);
    findings
}

/// An operation that fails does not agree; the others are still compared.
fn note(done: Result<()>, name: &str, findings: &mut Vec<Finding>) {
    if let Err(error) = done {
        findings.push(Finding {
            name: format!("{name}: {error:#}"),
            error: f64::INFINITY,
            bound: 0.0,
        });
    }
}

impl Operation<'_> {
    fn compare(
        &self,
        dtype: DType,
        device: &Device,
        name: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let n_maps = self.maps.len();
        let inputs: Vec<Tensor> = self
            .maps
            .iter()
            .chain(&self.parameters)
            .enumerate()
            .map(|(i, shape)| {
                let values = wave(shape, i as u64, &Device::Cpu)?;
                // Both sides get the same, rounded numbers.
                Ok(if i < n_maps {
                    values.to_dtype(dtype)?.to_dtype(DType::F32)?
                } else {
                    values
                })
            })
            .collect::<Result<_>>()?;
        let run = |device: &Device, dtype: DType| -> Result<(Tensor, Vec<Tensor>)> {
            let vars: Vec<Var> = inputs
                .iter()
                .enumerate()
                .map(|(i, x)| {
                    let x = x.to_device(device)?;
                    let x = if i < n_maps { x.to_dtype(dtype)? } else { x };
                    Ok(Var::from_tensor(&x)?)
                })
                .collect::<Result<_>>()?;
            let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = (self.f)(&tracked)?;
            let r = wave(y.dims(), 99, device)?.to_dtype(y.dtype())?;
            let gradients = backward(&y.mul(&r)?.sum_all()?)?;
            let gradients = vars
                .iter()
                .map(|v| gradients.get(v).cloned().context("no gradient"))
                .collect::<Result<_>>()?;
            Ok((y.detach(), gradients))
        };
        let (y, gradients) = run(device, dtype)?;
        let (y_cpu, gradients_cpu) = run(&Device::Cpu, DType::F32)?;
        findings.push(finding(name.to_owned(), &y, &y_cpu, bound(dtype))?);
        for (i, (a, b)) in gradients.iter().zip(&gradients_cpu).enumerate() {
            findings.push(finding(format!("{name} d{i}"), a, b, 2.0 * bound(dtype))?);
        }
        Ok(())
    }
}

fn finding(name: String, a: &Tensor, b: &Tensor, bound: f64) -> Result<Finding> {
    anyhow::ensure!(
        a.dims() == b.dims(),
        "{name}: {:?} and {:?}",
        a.dims(),
        b.dims()
    );
    let numbers = |t: &Tensor| -> Result<Vec<f64>> {
        let t = t
            .contiguous()?
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?;
        Ok(t.flatten_all()?.to_vec1()?)
    };
    let (a, b) = (numbers(a)?, numbers(b)?);
    let size = b.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-30);
    let mut error = 0.0f64;
    for (a, b) in a.iter().zip(&b) {
        let e = (a - b).abs() / size;
        // A NaN stays.
        error = if e <= error { error } else { e };
    }
    Ok(Finding { name, error, bound })
}

/// A result, and gradients by name.
type Values = (Tensor, Vec<(String, Tensor)>);

/// The gradients of `sum(f R)` for all parameters and inputs, and the value.
fn all_of(
    params: &Params,
    device: &Device,
    inputs: &[Tensor],
    f: impl Fn(&Params, &[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<Values> {
    let (params, mut vars) = params.to(DType::F32, device)?.trainable()?;
    let mut tracked = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let var = Var::from_tensor(&input.to_device(device)?)?;
        tracked.push(var.as_tensor().clone());
        vars.push((format!("input {i}"), var));
    }
    let y = f(&params, &tracked)?;
    let r = wave(y.dims(), 98, device)?.to_dtype(y.dtype())?;
    let store = backward(&y.mul(&r)?.sum_all()?)?;
    let gradients = vars.iter().map(|(name, var)| {
        let gradient = store.get(var).cloned();
        Ok((
            name.clone(),
            gradient.with_context(|| format!("{name}: no gradient"))?,
        ))
    });
    Ok((y.detach(), gradients.collect::<Result<_>>()?))
}

fn compare_all(
    name: &str,
    (a, b): (&Values, &Values),
    bound: f64,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    findings.push(finding(name.to_owned(), &a.0, &b.0, bound)?);
    // Gradients of single parameters may cancel to little, so they are compared with the largest of all.
    let size = |list: &[(String, Tensor)]| -> Result<f64> {
        let mut most = 0.0f64;
        for (_, gradient) in list {
            let largest = gradient.abs()?.max_all()?.to_dtype(DType::F64)?;
            most = most.max(largest.to_scalar::<f64>()?);
        }
        Ok(most)
    };
    let most = size(&b.1)?;
    let mut worst = Finding {
        name: format!("{name} gradients"),
        error: 0.0,
        bound: 2.0 * bound,
    };
    for ((_, a), (which, b)) in a.1.iter().zip(&b.1) {
        let mut one = finding(which.clone(), a, b, bound)?;
        let own = b
            .abs()?
            .max_all()?
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
        one.error *= own / most.max(1e-30);
        if one.error > worst.error || one.error.is_nan() {
            worst.error = one.error;
            worst.name = format!("{name} gradients ({which})");
        }
    }
    findings.push(worst);
    Ok(())
}

fn filled(specs: &[sdft_nn::ParamSpec]) -> Result<Params> {
    let entries = specs.iter().enumerate().map(|(i, spec)| {
        let fan: usize = spec.shape.iter().skip(1).product();
        let values = (wave(&spec.shape, 100 + i as u64, &Device::Cpu)? / (fan as f64).sqrt())?;
        Ok((spec.name.clone(), values))
    });
    Ok(Params::new(entries.collect::<Result<_>>()?))
}

fn blocks(dtype: DType, device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    for (resample, scale_shift) in [
        (Resample::None, true),
        (Resample::Up, true),
        (Resample::Down, false),
    ] {
        let config = ResBlockConfig {
            channels: 16,
            out_channels: 24,
            emb_channels: 20,
            scale_shift,
            resample,
            skip_kernel: 1,
            groups: 8,
            dropout: 0.0,
        };
        let params = filled(&specs_of(|scope| ResBlock::load(scope, &config))?)?;
        let inputs = [
            wave(&[2, 16, 6, 6], 1, &Device::Cpu)?,
            wave(&[2, 20], 2, &Device::Cpu)?,
        ];
        let run = |device: &Device, dtype: DType| {
            all_of(&params, device, &inputs, |params, t| {
                let block = ResBlock::load(&Scope::root(params), &config)?;
                let x = sdft_autograd::to_dtype(&t[0], dtype)?;
                to_nchw(&block.forward(&x, &t[1], None)?, DType::F32)
            })
        };
        let (a, b) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
        let name = format!("residual block {resample:?} {}", dtype.as_str());
        compare_all(&name, (&a, &b), 2.0 * bound(dtype), findings)?;
    }
    let load = |scope: &Scope<'_>| AttentionBlock::load(scope, 32, 2, 8, AttentionOrder::Legacy);
    let params = filled(&specs_of(load)?)?;
    let inputs = [wave(&[2, 32, 5, 4], 3, &Device::Cpu)?];
    let run = |device: &Device, dtype: DType| {
        all_of(&params, device, &inputs, |params, t| {
            let x = sdft_autograd::to_dtype(&t[0], dtype)?;
            to_nchw(&load(&Scope::root(params))?.forward(&x)?, DType::F32)
        })
    };
    let (a, b) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
    let name = format!("attention block {}", dtype.as_str());
    compare_all(&name, (&a, &b), 2.0 * bound(dtype), findings)
}

/// A small network with everything in it, recorded, with and without recomputed blocks.
fn network(dtype: DType, device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    let config = AdmConfig {
        image_size: 16,
        model_channels: 32,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 16,
        norm_groups: 8,
        num_classes: 3,
        ..AdmConfig::default()
    };
    let params = filled(&Unet::specs(&config)?)?;
    let inputs = [wave(&[2, 3, 16, 16], 4, &Device::Cpu)?];
    let run = |device: &Device, dtype: DType, again: bool| {
        all_of(&params, device, &inputs, |params, t| {
            let unet = Unet::load(params, &config)?.with_compute_dtype(dtype);
            let unet = if again { unet.recomputed() } else { unet };
            unet.forward(&t[0], &[30.0, 700.0], Some(&[2, 0]), None)
        })
    };
    let exact = run(&Device::Cpu, DType::F32, false)?;
    for again in [false, true] {
        let found = run(device, dtype, again)?;
        let how = if again { " recomputed" } else { "" };
        let name = format!("network{how} {}", dtype.as_str());
        compare_all(&name, (&found, &exact), 3.0 * bound(dtype), findings)?;
    }
    // A recorded function that networks do not have.
    let x = Var::from_tensor(&wave(&[2, 8, 4, 4], 5, device)?.to_dtype(dtype)?)?;
    let y = taped(x.as_tensor(), |x| recompute(x, x, |x, _| add(&silu(x)?, x)))?;
    backward(&y.sum_all()?)?.get(&x).context("no gradient")?;
    Ok(())
}

fn noise(device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    for (step, first, shape) in [(5, 3, vec![3, 7]), (1 << 60, 1 << 33, vec![2, 3, 16, 16])] {
        let of = |device: &Device| randn(7, Purpose::Noise, step, first, &shape, device);
        let (there, here) = (of(device)?, of(&Device::Cpu)?);
        // One unit in the last place of numbers up to 6.8.
        findings.push(finding(format!("noise {shape:?}"), &there, &here, 1e-7)?);
    }
    Ok(())
}

/// Optimiser steps of each rule, compared with the CPU's.
fn optimisers(device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    let adamw = AdamW {
        weight_decay: 0.1,
        ..AdamW::default()
    };
    let sgd = Sgd {
        momentum: 0.9,
        weight_decay: 0.1,
    };
    for (name, rule, scale) in [
        ("adamw", Rule::AdamW(adamw), None),
        (
            "adamw scaled",
            Rule::AdamW(adamw),
            Some(LossScale::new(16.0, 3)?),
        ),
        ("sgd", Rule::Sgd(sgd), None),
        ("sgd plain", Rule::Sgd(Sgd::default()), None),
    ] {
        let run = |device: &Device| -> Result<(Vec<Tensor>, Vec<f64>)> {
            let shapes: [&[usize]; 3] = [&[70_001], &[5, 3], &[1]];
            let vars = shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| {
                    Ok((
                        format!("p{i}"),
                        Var::from_tensor(&wave(shape, i as u64, device)?)?,
                    ))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut engine = Engine::new(
                rule,
                EmaRate {
                    rate: 0.9,
                    ramp: EmaRamp::Early,
                },
                scale,
                &vars,
            )?;
            let mut norms = Vec::new();
            for step in 0..7u32 {
                let mut loss = vars[0].1.sqr()?.mean_all()?;
                for (_, var) in &vars[1..] {
                    loss = (loss + var.sqr()?.sum_all()?)?;
                }
                // One step with a gradient that is NaN, one with a loss that is NaN.
                let scaled = match engine.loss_factor(DType::F32, device)? {
                    Some(factor) => (&loss * factor)?,
                    None => loss.clone(),
                };
                let scaled = if step == 3 {
                    (scaled * f64::INFINITY)?
                } else {
                    scaled
                };
                let reported = if step == 5 {
                    (&loss * f64::NAN)?
                } else {
                    loss.clone()
                };
                let gradients = collect_gradients(&vars, &backward(&scaled)?);
                let reported = reported.detach().to_dtype(DType::F64)?;
                let size = StepSize {
                    lr: 0.01,
                    max_norm: 1.0,
                };
                let verdict = engine.step(&gradients, &reported, size)?.wait()?;
                norms.push(match verdict {
                    Verdict::Updated { grad_norm } => grad_norm,
                    Verdict::BadLoss => -1.0,
                    Verdict::BadGradient => -2.0,
                });
            }
            engine.synchronize()?;
            let mut all: Vec<Tensor> = vars.iter().map(|(_, v)| v.as_detached_tensor()).collect();
            all.extend(engine.ema().state()?.into_iter().map(|(_, t)| t));
            let moments = engine.optimizer().state()?.into_iter();
            all.extend(
                moments
                    .filter(|(n, _)| !n.starts_with("step."))
                    .map(|(_, t)| t),
            );
            let counters = [
                f64::from(engine.optimizer().n_updates()),
                engine.ema().n_updates() as f64,
                engine.loss_scale().map_or(0.0, LossScale::scale),
            ];
            norms.extend(counters);
            Ok((all, norms))
        };
        let ((there, norms), (here, norms_here)) = (run(device)?, run(&Device::Cpu)?);
        let norms = Tensor::new(norms, &Device::Cpu)?;
        let norms_here = Tensor::new(norms_here, &Device::Cpu)?;
        findings.push(finding(
            format!("{name} norms and counters"),
            &norms,
            &norms_here,
            1e-5,
        )?);
        for (i, (a, b)) in there.iter().zip(&here).enumerate() {
            findings.push(finding(format!("{name} state {i}"), a, b, 2e-6)?);
        }
    }
    Ok(())
}
