//! Blocks and a whole network with their gradients.

use super::{Finding, bound, finding, wave};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use sdft_adm::{AdmConfig, Unet};
use sdft_autograd::{add, backward, recompute, silu, taped, to_nchw};
use sdft_kernels::AttentionOrder;
use sdft_nn::{
    AttentionBlock, AttentionConfig, Nonlinearity, Params, ResBlock, ResBlockConfig, Resample,
    Scope, specs_of,
};
use sdft_unet2d::{DownBlock, Unet2d, Unet2dConfig, UpBlock};

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

pub(super) fn blocks(dtype: DType, device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    for (resample, scale_shift) in [
        (Resample::None, true),
        (Resample::Up, true),
        (Resample::Down, false),
    ] {
        let config = ResBlockConfig {
            scale_shift,
            resample,
            groups: 8,
            ..ResBlockConfig::new(16, 24, 20)
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
                to_nchw(&block.forward(&x, Some(&t[1]), None)?, DType::F32)
            })
        };
        let (a, b) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
        let name = format!("residual block {resample:?} {}", dtype.as_str());
        compare_all(&name, (&a, &b), 2.0 * bound(dtype), findings)?;
    }
    for nonlinearity in [Nonlinearity::Silu, Nonlinearity::Relu] {
        let config = ResBlockConfig {
            groups: 8,
            nonlinearity,
            ..ResBlockConfig::new(32, 24, 20)
        };
        let params = filled(&specs_of(|scope| ResBlock::load(scope, &config))?)?;
        let inputs = [
            wave(&[2, 20, 6, 6], 1, &Device::Cpu)?,
            wave(&[2, 12, 6, 6], 2, &Device::Cpu)?,
            wave(&[2, 20], 3, &Device::Cpu)?,
        ];
        let run = |device: &Device, dtype: DType| {
            all_of(&params, device, &inputs, |params, t| {
                let block = ResBlock::load(&Scope::root(params), &config)?;
                taped(&t[0], |x| {
                    let maps = [x, &t[1]].map(|map| sdft_autograd::to_dtype(map, dtype));
                    let [a, b] = maps;
                    to_nchw(
                        &block.forward_joined([&a?, &b?], Some(&t[2]), None)?,
                        DType::F32,
                    )
                })
            })
        };
        let (a, b) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
        let name = format!(
            "residual block of two maps, {nonlinearity:?} {}",
            dtype.as_str()
        );
        compare_all(&name, (&a, &b), 2.0 * bound(dtype), findings)?;
    }
    let joint = |scope: &Scope<'_>| AttentionBlock::load(scope, 32, 2, 8, AttentionOrder::Legacy);
    let config = AttentionConfig {
        channels: 32,
        heads: 2,
        head_channels: 16,
        groups: Some(8),
        eps: 1e-6,
        output_scale: 1.5,
    };
    let split = |scope: &Scope<'_>| AttentionBlock::load_split(scope, &config);
    let emb = wave(&[2, 20], 4, &Device::Cpu)?;
    type Load<'a> = &'a dyn Fn(&Scope<'_>) -> candle_core::Result<AttentionBlock>;
    let adapted = |scope: &Scope<'_>| joint(scope)?.with_time_adapter(scope, 20, 0);
    for (which, load) in [
        ("joint", &joint as Load<'_>),
        ("split", &split),
        ("with a time-aware adapter", &adapted),
    ] {
        let params = filled(&specs_of(load)?)?;
        let inputs = [wave(&[2, 32, 5, 4], 3, &Device::Cpu)?];
        let run = |device: &Device, dtype: DType| {
            all_of(&params, device, &inputs, |params, t| {
                let x = sdft_autograd::to_dtype(&t[0], dtype)?;
                let emb = emb.to_device(x.device())?;
                let y = load(&Scope::root(params))?.forward(&x, Some(&emb))?;
                to_nchw(&y, DType::F32)
            })
        };
        let (a, b) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
        let name = format!("attention block {which} {}", dtype.as_str());
        compare_all(&name, (&a, &b), 2.0 * bound(dtype), findings)?;
    }
    Ok(())
}

/// A small network with everything in it, recorded, with and without recomputed blocks.
pub(super) fn network(dtype: DType, device: &Device, findings: &mut Vec<Finding>) -> Result<()> {
    let config = AdmConfig {
        image_size: 16,
        model_channels: 32,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 16,
        norm_groups: 8,
        num_classes: 3,
        time_adapter_rank: Some(0),
        ..AdmConfig::default()
    };
    let params = filled(&Unet::specs(&config)?)?;
    // Of another size than the configuration's, and not square.
    let inputs = [wave(&[2, 3, 12, 20], 4, &Device::Cpu)?];
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
    let config = Unet2dConfig {
        center_input_sample: true,
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        block_out_channels: vec![32, 64],
        layers_per_block: 1,
        mid_block_scale_factor: 1.5,
        downsample_padding: 0,
        norm_num_groups: 8,
        ..Unet2dConfig::default()
    };
    let params = filled(&Unet2d::specs(&config)?)?;
    let run = |device: &Device, dtype: DType| {
        all_of(&params, device, &inputs, |params, t| {
            let unet = Unet2d::load(params, &config)?.with_compute_dtype(dtype);
            unet.forward(&t[0], &[30.0, 700.0], None, None)
        })
    };
    let (found, exact) = (run(device, dtype)?, run(&Device::Cpu, DType::F32)?);
    let name = format!("network of diffusers {}", dtype.as_str());
    compare_all(&name, (&found, &exact), 3.0 * bound(dtype), findings)?;
    // A recorded function that networks do not have.
    let x = Var::from_tensor(&wave(&[2, 8, 4, 4], 5, device)?.to_dtype(dtype)?)?;
    let y = taped(x.as_tensor(), |x| {
        recompute(&[x], |x| add(&silu(&x[0])?, &x[0]))
    })?;
    backward(&y.sum_all()?)?.get(&x).context("no gradient")?;
    Ok(())
}
