//! Activation checkpointing: values inside a block are computed a second time instead of kept.

use crate::tape::{self, Role};
use candle_core::{Result, Tensor};

/// `f(x, emb)` that keeps only its inputs until the backward pass, which evaluates `f` once more.
///
/// On a tape ([`crate::taped`]) only; elsewhere it is `f`. Beside its two inputs `f` may use parameters and constants. The gradients are
/// those without, up to the order in which they are added.
///
/// # Errors
/// Those of `f`.
pub fn recompute<F>(x: &Tensor, emb: &Tensor, f: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + 'static,
{
    if tape::role() != Role::Record {
        return f(x, emb);
    }
    let mut leaves = Vec::new();
    for input in [x, emb] {
        if tape::is_tracked(input)? {
            leaves.push(input.id());
        }
    }
    let y = tape::no_grad(|| f(x, emb))?;
    let (x, emb) = (x.clone(), emb.clone());
    tape::record(&y, move |dy| {
        let (y, inner) = tape::recorded(leaves, || f(&x, &emb))?;
        Ok(inner.walk(y.id(), dy.clone())?.into_iter().collect())
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Params, ResBlock, ResBlockConfig, Resample, Scope, backward, linear, specs_of, taped,
    };
    use candle_core::{DType, Device, Var};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_recomputed_block_has_the_same_values_and_gradients() {
        let config = ResBlockConfig {
            channels: 8,
            out_channels: 16,
            emb_channels: 12,
            scale_shift: true,
            resample: Resample::Up,
            skip_kernel: 1,
            groups: 4,
            dropout: 0.0,
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

        let plain = block.forward(&x, &emb, None).unwrap();
        let inner = block.clone();
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let again = taped(&x, |x| {
            recompute(x, &emb, move |x, emb| {
                CALLS.fetch_add(1, Ordering::Relaxed);
                inner.forward(x, emb, None)
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

    #[test]
    fn the_second_input_may_be_a_parameter() {
        let ones = |shape: &[usize]| Var::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, w, b) = (ones(&[2, 3]), ones(&[4, 3]), ones(&[4]));
        let run = |x: &Tensor| {
            let b = b.as_tensor().clone();
            recompute(x, &w, move |x, w| linear(x, w, &b))
        };
        let y = taped(&x, |x| run(x)).unwrap();
        let grads = backward(&y.sum_all().unwrap()).unwrap();
        let of = |v: &Var| {
            grads
                .get(v)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
        };
        assert_eq!(of(&x).unwrap(), [4.0; 6]);
        assert_eq!(of(&w).unwrap(), [2.0; 12]);
        assert_eq!(of(&b).unwrap(), [2.0; 4]);
        // Outside a tape it is the function itself.
        assert!(run(&x).unwrap().backward().unwrap().get(&w).is_some());
    }
}
