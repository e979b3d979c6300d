//! Recomputing a block of a network.

use candle_core::{Device, Tensor, Var};
use sdft_autograd::{backward, recompute, taped};
use sdft_nn::{Params, ResBlock, ResBlockConfig, Resample, Scope, specs_of};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_recomputed_block_has_the_same_values_and_gradients() {
    let config = ResBlockConfig {
        scale_shift: true,
        resample: Resample::Up,
        groups: 4,
        ..ResBlockConfig::new(8, 16, 12)
    };
    let specs = specs_of(|scope| ResBlock::load(scope, &config)).unwrap();
    let params = Params::init(&specs, 3, &Device::Cpu).unwrap();
    // Blocks end in zeros at first, which would hide the gradients behind them.
    let filled = params
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor + 0.05).unwrap()));
    let (params, vars) = Params::new(filled.collect()).trainable().unwrap();
    let block = ResBlock::load(&Scope::root(&params), &config).unwrap();
    let ramp = |shape: &[usize]| {
        let n = shape.iter().product::<usize>() as f32;
        let values = (Tensor::arange(0f32, n, &Device::Cpu).unwrap() * 0.37).unwrap();
        Var::from_tensor(&values.sin().unwrap().reshape(shape).unwrap()).unwrap()
    };
    let (x, emb) = (ramp(&[2, 8, 4, 4]), ramp(&[2, 12]));
    let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();

    let plain = block.forward(&x, Some(&emb), None).unwrap();
    let inner = block.clone();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let again = taped(&x, |x| {
        recompute(&[x, emb.as_tensor()], move |inputs| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            inner.forward(&inputs[0], Some(&inputs[1]), None)
        })
    })
    .unwrap();
    assert_eq!(numbers(&plain), numbers(&again));

    let loss = |y: &Tensor| y.sqr().unwrap().mean_all().unwrap();
    let (a, b) = (
        backward(&loss(&plain)).unwrap(),
        backward(&loss(&again)).unwrap(),
    );
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    let inputs = [("x".to_owned(), x), ("emb".to_owned(), emb)];
    for (name, var) in vars.iter().chain(&inputs) {
        let (a, b) = (a.get(var).expect(name), b.get(var).expect(name));
        assert_eq!(numbers(a), numbers(b), "{name}");
        assert!(numbers(a).iter().any(|&g| g != 0.0), "{name}");
    }
}
