//! Activation checkpointing: values inside a block are computed a second time instead of kept.

use crate::backward::backward_inside;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, Var, bail,
};
use std::sync::Mutex;

/// `f(x, emb)` that keeps only its inputs until the backward pass, which evaluates `f` once more.
///
/// Beside its two inputs `f` may use variables and constants; other values that lead to variables would be walked from inside the block.
/// The gradients are those without, up to the order in which they are added, and have to be taken by [`crate::backward`].
///
/// # Errors
/// Those of `f`.
pub fn recompute<F>(x: &Tensor, emb: &Tensor, f: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() && !emb.track_op() {
        // Nothing that leads to a gradient comes in, so the parameters inside would never be asked.
        return f(x, emb);
    }
    let y = f(&x.detach(), &emb.detach())?.detach().contiguous()?;
    let once = Mutex::new(Some(y));
    x.apply_op2(emb, Recompute { f, once })
}

struct Recompute<F> {
    f: F,
    /// The result, until the forward pass of the operation has taken it.
    once: Mutex<Option<Tensor>>,
}

impl<F> CustomOp2 for Recompute<F>
where
    F: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        _emb: &CpuStorage,
        _emb_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let taken = self.once.lock().ok().and_then(|mut once| once.take());
        let Some(y) = taken else {
            bail!("recompute: the operation is made for one call");
        };
        let (storage, layout) = y.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(all)), Some((start, end))) => {
                Ok((CpuStorage::F32(all[start..end].to_vec()), y.shape().clone()))
            }
            (Storage::Cpu(CpuStorage::F64(all)), Some((start, end))) => {
                Ok((CpuStorage::F64(all[start..end].to_vec()), y.shape().clone()))
            }
            _ => bail!("recompute: expected f32 or f64, found {:?}", y.dtype()),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        emb: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let leaf = |tensor: &Tensor| -> Result<Tensor> {
            Ok(Var::from_tensor(&tensor.detach())?.into_inner())
        };
        let inputs = [leaf(x)?, leaf(emb)?];
        let y = (self.f)(&inputs[0], &inputs[1])?;
        let start = y.apply_op1(Seed(dy.contiguous()?))?;
        let [dx, demb] = backward_inside(&start, [&inputs[0], &inputs[1]])?;
        // candle expects an answer for every tracked input, also for one that `f` does not look at.
        let answer = |input: &Tensor, grad: Option<Tensor>| match grad {
            _ if !input.track_op() => Ok(None),
            None => input.zeros_like().map(Some),
            grad => Ok(grad),
        };
        Ok((answer(x, dx)?, answer(emb, demb)?))
    }
}

/// A scalar whose gradient with respect to its input is given.
struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, y: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scalar = match y {
            CpuStorage::F32(_) => CpuStorage::F32(vec![0.0]),
            CpuStorage::F64(_) => CpuStorage::F64(vec![0.0]),
            _ => bail!("seed: expected f32 or f64"),
        };
        Ok((scalar, Shape::from(())))
    }

    fn bwd(&self, _y: &Tensor, _scalar: &Tensor, _one: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, ResBlock, ResBlockConfig, Resample, Scope, backward, specs_of};
    use candle_core::{DType, Device};
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
        let again = recompute(&x, &emb, move |x, emb| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            inner.forward(x, emb, None)
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
        // The pass gave back what only the block itself could read.
        let error = backward(&loss(&plain)).unwrap_err().to_string();
        assert!(error.contains("released"), "{error}");
        let error = loss(&again).backward().unwrap_err().to_string();
        assert!(error.contains("sdft_nn::backward"), "{error}");
    }

    #[test]
    fn inputs_may_be_ignored_or_used_as_a_weight() {
        let ones = |shape: &[usize]| Var::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, w, b) = (ones(&[2, 3]), ones(&[4, 3]), ones(&[4]));
        let doubled = (w.as_tensor() * 2.0).unwrap();
        let y = recompute(&x, &doubled, |x, _| x.sqr()).unwrap();
        let grads = backward(&y.sum_all().unwrap()).unwrap();
        assert_eq!(
            grads.get(&x).unwrap().to_vec2::<f32>().unwrap(),
            [[2.0; 3]; 2]
        );
        let bias = b.as_tensor().clone();
        let y = recompute(&x, &w, move |x, w| {
            crate::linear(x, w, &bias)?.sum_all()? + w.sqr()?.sum_all()?
        })
        .unwrap();
        let grads = backward(&y).unwrap();
        // Twice the one of x from the layer, and 2 w.
        assert_eq!(
            grads.get(&w).unwrap().to_vec2::<f32>().unwrap(),
            [[4.0; 3]; 4]
        );
        assert_eq!(grads.get(&b).unwrap().to_vec1::<f32>().unwrap(), [2.0; 4]);
    }

    #[test]
    fn without_tracked_inputs_parameters_still_get_their_gradients() {
        let w = Var::ones(3, DType::F32, &Device::Cpu).unwrap();
        let x = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        let inner = w.as_tensor().clone();
        let y = recompute(&x, &x, move |x, _| x * &inner).unwrap();
        let grads = backward(&y.sum_all().unwrap()).unwrap();
        assert_eq!(grads.get(&w).unwrap().to_vec1::<f32>().unwrap(), [1.0; 3]);
    }
}
