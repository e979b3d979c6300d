//! Activation checkpointing: values inside a block are computed a second time instead of saved.

use crate::tape::{self, GradMode};
use candle_core::{Result, Tensor};

/// `f(inputs)`, of which only the inputs are saved for the backward pass; that evaluates `f` a second time.
///
/// Takes effect inside [`crate::taped`]; elsewhere it is `f`. Besides its inputs `f` may use parameters and constants. The gradients
/// are the same up to the order in which they are summed.
///
/// # Errors
/// Those of `f`.
pub fn recompute<F>(inputs: &[&Tensor], f: F) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Result<Tensor> + Send + 'static,
{
    let inputs: Vec<Tensor> = inputs.iter().copied().cloned().collect();
    if GradMode::current() != GradMode::Tape {
        return f(&inputs);
    }
    let mut leaves = Vec::new();
    for input in &inputs {
        if tape::is_tracked(input)? {
            leaves.push(input.id());
        }
    }
    let y = tape::without_saving(|| f(&inputs))?;
    tape::record(&y, move |dy, gradients| {
        let (y, inner) = tape::record_tape(leaves, || f(&inputs))?;
        let all = inner.backward(y.id(), dy.clone(), |_, _| Ok(()))?;
        all.into_iter()
            .try_for_each(|(id, gradient)| gradients.add(id, gradient))
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backward, linear, taped};
    use candle_core::{DType, Device, Var};

    #[test]
    fn a_function_whose_only_parameters_are_recomputed_has_their_gradients() {
        let ones = |shape: &[usize]| Var::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, w, b) = (
            ones(&[2, 3]).as_detached_tensor(),
            ones(&[4, 3]),
            ones(&[4]),
        );
        let parameters = [&w, &b].map(|var| var.as_tensor().clone());
        let y = taped(&x, |x| {
            recompute(&[x], move |x| linear(&x[0], &parameters[0], &parameters[1]))
        });
        let grads = backward(&y.unwrap().sum_all().unwrap()).unwrap();
        let gradient = grads.get(&w).unwrap().flatten_all().unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [2.0; 12]);
        assert!(grads.get(&b).is_some());
    }

    #[test]
    fn the_second_input_may_be_a_parameter() {
        let ones = |shape: &[usize]| Var::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, w, b) = (ones(&[2, 3]), ones(&[4, 3]), ones(&[4]));
        let run = |x: &Tensor| {
            let b = b.as_tensor().clone();
            recompute(&[x, w.as_tensor()], move |x| linear(&x[0], &x[1], &b))
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
