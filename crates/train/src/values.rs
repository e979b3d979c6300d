//! Variables that hold other values for a while, networks that compute without gradients, and values that are not finite.

use crate::error::Result;
use candle_core::{Tensor, Var};
use sdft_autograd::no_grad;
use sdft_diffusion::{Condition, Denoiser, Prediction, Trainable};
use sdft_optim::non_finite;

/// Runs `f` while the variables hold `values`, then restores them, also after an error or a panic.
///
/// Each value is freed as soon as its variable holds it, so the values take the memory of one copy.
///
/// # Errors
/// Values of another number or shape, and errors of `f`.
pub fn with_values<T>(
    vars: &[(String, Var)],
    values: Vec<(String, Tensor)>,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut guard = Restore {
        kept: Vec::with_capacity(values.len()),
    };
    let mut rest = vars.iter();
    for (name, value) in values {
        // `values` may leave variables out, but has the order of `vars`.
        let Some((_, var)) = rest.find(|(known, _)| *known == name) else {
            return Err(candle_core::Error::Msg(format!(
                "values for {name}: no such variable, or not in the order of the variables"
            ))
            .into());
        };
        guard.kept.push((var, var.as_tensor().copy()?));
        var.set(&value)?;
    }
    let result = f();
    guard.restore()?;
    result
}

/// The values to restore.
struct Restore<'a> {
    kept: Vec<(&'a Var, Tensor)>,
}

impl Restore<'_> {
    fn restore(&mut self) -> candle_core::Result<()> {
        let all = self.kept.drain(..).map(|(var, value)| var.set(&value));
        all.fold(Ok(()), Result::and)
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // Nothing is left to restore unless an error or a panic is under way, which matters more than a second one.
        let _ = self.restore();
    }
}

/// A trainable network as a [`Denoiser`] without gradients and without dropout: for sampling, and as a source model.
///
/// candle's own layers record what they do with variables, so until a prediction is complete such a network holds the activations of one
/// forward pass. A source model made of plain tensors (`VarBuilder::from_tensors`) does not.
#[derive(Clone, Copy, Debug)]
pub struct Frozen<T>(pub T);

impl<T: Trainable> Denoiser for Frozen<T> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> candle_core::Result<Prediction> {
        frozen(&self.0, xt, t, None)
    }
}

pub(crate) fn frozen(
    network: &dyn Trainable,
    xt: &Tensor,
    t: &[f32],
    labels: Option<&[u32]>,
) -> candle_core::Result<Prediction> {
    let condition = Condition {
        labels,
        ..Condition::default()
    };
    // candle's own layers record in any case; detaching frees that before the next step of a sampler.
    Ok(no_grad(|| network.predict(xt, t, &condition))?.detach())
}

/// Names of tensors that hold NaN or infinite values.
pub(crate) fn not_finite<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    let (names, values): (Vec<&str>, Vec<Option<Tensor>>) = tensors
        .map(|(name, tensor)| (name, Some(tensor.clone())))
        .unzip();
    Ok(non_finite(names, &values)?
        .into_iter()
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn numbers(var: &Var) -> Vec<f32> {
        var.to_vec1().unwrap()
    }

    #[test]
    fn values_are_restored_after_success_errors_and_panics() {
        let of = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let vars: Vec<(String, Var)> = [("a", [1.0, 2.0]), ("b", [3.0, 4.0])]
            .map(|(name, values)| (name.to_owned(), Var::from_tensor(&of(&values)).unwrap()))
            .into();
        let other = vec![
            ("a".to_owned(), of(&[7.0, 8.0])),
            ("b".to_owned(), of(&[9.0, 9.5])),
        ];
        let before = || vars.iter().map(|(_, var)| numbers(var)).collect::<Vec<_>>();
        let kept = before();
        let seen = with_values(&vars, other.clone(), || Ok(before())).unwrap();
        assert_eq!(
            (seen[0].clone(), seen[1].clone()),
            (vec![7.0, 8.0], vec![9.0, 9.5])
        );
        assert_eq!(before(), kept);
        let failed = with_values(&vars, other.clone(), || {
            Err::<(), _>(candle_core::Error::Msg("no".into()).into())
        });
        assert!(failed.is_err());
        assert_eq!(before(), kept);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_values(&vars, other.clone(), || -> Result<()> {
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(before(), kept);
        // The second value does not fit: the first is restored.
        let misfit = vec![other[0].clone(), ("b".to_owned(), of(&[1.0]))];
        assert!(with_values(&vars, misfit, || Ok(())).is_err());
        assert_eq!(before(), kept);
        let unknown = vec![("c".to_owned(), of(&[1.0]))];
        let error = with_values(&vars, unknown, || Ok(()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("values for c"), "{error}");
    }
}
