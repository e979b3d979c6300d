//! Every block against central differences, in f64.

#[path = "../../autograd/tests/differences/mod.rs"]
mod differences;

use candle_core::{DType, Device, Result, Tensor};
use differences::{check, wave};
use sdft_kernels::AttentionOrder;
use sdft_nn::{
    AttentionBlock, AttentionPool, Params, ResBlock, ResBlockConfig, Resample, Resize, Scope,
    specs_of,
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
                channels: 4,
                out_channels: 6,
                emb_channels: 5,
                scale_shift,
                resample,
                skip_kernel: 1,
                groups: 2,
                dropout: 0.0,
            };
            check_block(
                &[wave(&[2, 4, 4, 4], 0.1), wave(&[2, 5], 0.2)],
                |scope, t| ResBlock::load(scope, &config)?.forward(&t[0], &t[1], None),
            );
        }
    }
}

#[test]
fn attention_and_resizing_blocks_have_exact_gradients() {
    check_block(&[wave(&[2, 8, 3, 3], 0.1)], |scope, t| {
        AttentionBlock::load(scope, 8, 2, 4, AttentionOrder::Legacy)?.forward(&t[0])
    });
    check_block(&[wave(&[2, 8, 3, 3], 0.1)], |scope, t| {
        AttentionPool::load(scope, 3, 8, 4, 3)?.forward(&t[0])
    });
    check_block(&[wave(&[2, 4, 5, 5], 0.1)], |scope, t| {
        Resize::down(scope, 4, 6, true)?.forward(&t[0])
    });
    check_block(&[wave(&[2, 4, 3, 3], 0.1)], |scope, t| {
        Resize::up(scope, 4, 6, true)?.forward(&t[0])
    });
}
