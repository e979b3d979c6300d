//! Every block against central differences, in f64.

#[path = "../../autograd/tests/differences/mod.rs"]
mod differences;

use candle_core::{DType, Device, Result, Tensor};
use differences::{check, wave};
use sdft_kernels::AttentionOrder;
use sdft_nn::{
    AttentionBlock, AttentionConfig, AttentionPool, Convention, Init, Layer, Nonlinearity, Params,
    ResBlock, ResBlockConfig, Resample, Resize, Scope, Sequence, specs_of,
};

/// All parameters of a block, and its input, take part in the check.
fn check_block(inputs: &[Tensor], build_and_run: impl Fn(&Scope<'_>, &[Tensor]) -> Result<Tensor>) {
    let specs = specs_of(|scope| {
        build_and_run(scope, inputs).or_else(|_| Tensor::zeros((), DType::F64, &Device::Cpu))
    })
    .unwrap();
    let params: Vec<Tensor> = specs
        .iter()
        .enumerate()
        .map(|(i, s)| (wave(&s.shape, i as f64) * 0.3).unwrap())
        .collect();
    let n = inputs.len();
    let all: Vec<Tensor> = inputs.iter().cloned().chain(params).collect();
    check(&all, |t| {
        let named = specs
            .iter()
            .zip(&t[n..])
            .map(|(s, t)| (s.name.clone(), t.clone()))
            .collect();
        build_and_run(&Scope::root(&Params::new(named)), &t[..n])
    });
}

#[test]
fn residual_blocks_have_exact_gradients() {
    for resample in [Resample::None, Resample::Up, Resample::Down] {
        for scale_shift in [true, false] {
            let config = ResBlockConfig {
                scale_shift,
                resample,
                groups: 2,
                ..ResBlockConfig::new(4, 6, 5)
            };
            check_block(
                &[wave(&[2, 4, 4, 4], 0.1), wave(&[2, 5], 0.2)],
                |scope, t| ResBlock::load(scope, &config)?.forward(&t[0], Some(&t[1]), None),
            );
        }
    }
}

#[test]
fn diffusers_blocks_have_exact_gradients() {
    for (scale_shift, nonlinearity) in [(true, Nonlinearity::Silu), (false, Nonlinearity::Relu)] {
        let config = ResBlockConfig {
            scale_shift,
            groups: 2,
            eps: 1e-3,
            nonlinearity,
            output_scale: 1.4,
            convention: Convention::Diffusers,
            ..ResBlockConfig::new(4, 6, 5)
        };
        check_block(
            &[wave(&[2, 4, 4, 4], 0.1), wave(&[2, 5], 0.2)],
            |scope, t| ResBlock::load(scope, &config)?.forward(&t[0], Some(&t[1]), None),
        );
    }
    for (groups, head_channels) in [(Some(4), 4), (None, 3)] {
        let config = AttentionConfig {
            channels: 8,
            heads: 2,
            head_channels,
            groups,
            eps: 1e-3,
            output_scale: 1.4,
        };
        check_block(&[wave(&[2, 8, 3, 3], 0.1)], |scope, t| {
            AttentionBlock::load_split(scope, &config)?.forward(&t[0], None)
        });
    }
}

#[test]
fn attention_with_a_time_aware_adapter_has_exact_gradients() {
    let inputs = [wave(&[2, 8, 3, 3], 0.1), wave(&[2, 5], 0.2)];
    // One channel in the bottleneck is normalised alone.
    for rank in [1, 3] {
        check_block(&inputs, |scope, t| {
            let block = AttentionBlock::load(scope, 8, 2, 4, AttentionOrder::Legacy)?;
            let block = block.with_time_adapter(scope, 5, rank)?;
            block.forward(&t[0], Some(&t[1]))
        });
    }
    // The heads have fewer channels than the block.
    let config = AttentionConfig {
        channels: 8,
        heads: 2,
        head_channels: 3,
        groups: None,
        eps: 1e-3,
        output_scale: 1.4,
    };
    check_block(&inputs, |scope, t| {
        let block = AttentionBlock::load_split(scope, &config)?;
        let block = block.with_time_adapter(scope, 5, 2)?;
        let blocks = [Sequence::new(vec![Layer::Attention(block)])];
        Sequence::embedded(&blocks, &t[1])?[0].forward(&t[0], None, true)
    });
}

#[test]
fn a_new_adapter_changes_no_bit_of_its_block_and_needs_the_embedding() {
    let plain = |scope: &Scope<'_>| AttentionBlock::load(scope, 8, 2, 4, AttentionOrder::Legacy);
    let adapted = |scope: &Scope<'_>| plain(scope)?.with_time_adapter(scope, 5, 0);
    let mut specs = specs_of(adapted).unwrap();
    for spec in specs
        .iter_mut()
        .filter(|spec| spec.name.contains("proj_out"))
    {
        spec.init = Init::Uniform(0.5);
    }
    let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
    let (x, emb) = (wave(&[2, 8, 3, 3], 0.3), wave(&[2, 5], 0.2));
    let [x, emb] = [x, emb].map(|x| x.to_dtype(DType::F32).unwrap());
    let bits = |y: Tensor| y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let scope = Scope::root(&params);
    let expected = bits(plain(&scope).unwrap().forward(&x, None).unwrap());
    let block = adapted(&scope).unwrap();
    assert_eq!(bits(block.forward(&x, Some(&emb)).unwrap()), expected);
    let error = block.forward(&x, None).unwrap_err().to_string();
    assert!(error.contains("time embedding"), "{error}");
}

#[test]
fn frozen_projections_are_joined_once_and_variables_each_time() {
    let config = AttentionConfig {
        channels: 8,
        heads: 2,
        head_channels: 4,
        groups: Some(4),
        eps: 1e-5,
        output_scale: 1.0,
    };
    let build = |scope: &Scope<'_>| AttentionBlock::load_split(scope, &config);
    let params = Params::init(&specs_of(build).unwrap(), 1, &Device::Cpu).unwrap();
    let x = wave(&[1, 8, 3, 3], 0.3).to_dtype(DType::F32).unwrap();
    let values = |block: &AttentionBlock| {
        let y = block.forward(&x, None).unwrap().flatten_all().unwrap();
        y.to_vec1::<f32>().unwrap()
    };
    let frozen = build(&Scope::root(&params)).unwrap();
    let first = values(&frozen);
    assert_eq!(values(&frozen), first);
    let (params, vars) = params.trainable().unwrap();
    let trained = build(&Scope::root(&params)).unwrap();
    assert_eq!(values(&trained), first);
    let (_, value) = vars.iter().find(|(name, _)| name == "to_v.weight").unwrap();
    value.set(&value.affine(2.0, 0.0).unwrap()).unwrap();
    assert_ne!(values(&trained), first);
}

#[test]
fn attention_and_resizing_blocks_have_exact_gradients() {
    check_block(&[wave(&[2, 8, 3, 3], 0.1)], |scope, t| {
        AttentionBlock::load(scope, 8, 2, 4, AttentionOrder::Legacy)?.forward(&t[0], None)
    });
    check_block(&[wave(&[2, 8, 3, 3], 0.1)], |scope, t| {
        AttentionPool::load(scope, 3, 8, 4, 3)?.forward(&t[0])
    });
    check_block(&[wave(&[2, 4, 5, 5], 0.1)], |scope, t| {
        Resize::down(scope, 4, 6, true)?.forward(&t[0])
    });
    check_block(&[wave(&[2, 4, 6, 4], 0.1)], |scope, t| {
        Resize::down_conv(scope, 4, 6, [0, 0, 1, 1])?.forward(&t[0])
    });
    check_block(&[wave(&[2, 4, 3, 3], 0.1)], |scope, t| {
        Resize::up(scope, 4, 6, true)?.forward(&t[0])
    });
}
