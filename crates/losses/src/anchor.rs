//! L2-SP and elastic weight consolidation: weights stay near those of the source model.

use candle_core::{DType, Result, Tensor, Var, bail};

/// Squared distance of the weights to where they started: `l2_sp / 2 sum (th - th_0)^2 + ewc / 2 sum F (th - th_0)^2`.
///
/// Sources: Li et al., Explicit Inductive Bias for Transfer Learning, 2018 (L2-SP); Kirkpatrick et al., Overcoming catastrophic forgetting,
/// 2017 (EWC).
#[derive(Clone, Debug)]
pub struct Anchor {
    start: Vec<Tensor>,
    l2_sp: f64,
    ewc: Option<(f64, Vec<Tensor>)>,
}

impl Anchor {
    /// L2-SP at the present values of the variables.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(vars: &[(String, Var)], l2_sp: f64) -> Result<Self> {
        let start = vars.iter().map(|(_, var)| var.as_tensor().copy());
        Ok(Self {
            start: start.collect::<Result<_>>()?,
            l2_sp,
            ewc: None,
        })
    }

    /// The same with elastic weight consolidation.
    ///
    /// # Errors
    /// Another number of variables.
    pub fn with_ewc(mut self, ewc: f64, fisher: Vec<Tensor>) -> Result<Self> {
        if fisher.len() != self.start.len() {
            bail!(
                "expected the Fisher information of {} variables, found {}",
                self.start.len(),
                fisher.len()
            );
        }
        self.ewc = Some((ewc, fisher));
        Ok(self)
    }

    /// The gradient of the term for variable number `i`, and the term's part of this variable as an f64 scalar.
    ///
    /// # Errors
    /// No such variable, or one of another shape.
    pub fn pull(&self, i: usize, var: &Var) -> Result<(Tensor, Tensor)> {
        let Some(start) = self.start.get(i) else {
            bail!("there is no variable {i} of {}", self.start.len());
        };
        let moved = (var.as_tensor().detach() - start)?;
        let mut gradient = (&moved * self.l2_sp)?;
        if let Some((ewc, fisher)) = &self.ewc {
            gradient = (gradient + ((&moved * &fisher[i])? * *ewc)?)?;
        }
        let value = (&gradient * &moved)?.sum_all()?.to_dtype(DType::F64)?;
        Ok((gradient, (value * 0.5)?))
    }
}

/// The diagonal of the Fisher information: the mean of squared gradients, one sample at a time.
#[derive(Clone, Debug, Default)]
pub struct Fisher {
    sums: Vec<Tensor>,
    samples: usize,
}

impl Fisher {
    /// Adds the gradients of one sample's loss; a missing one is 0. `vars` are the same in every call.
    ///
    /// # Errors
    /// Another number of gradients than before.
    pub fn add(&mut self, vars: &[(String, Var)], gradients: &[Option<Tensor>]) -> Result<()> {
        if self.samples == 0 {
            let zeros = vars.iter().map(|(_, var)| var.zeros_like());
            self.sums = zeros.collect::<Result<_>>()?;
        }
        if gradients.len() != self.sums.len() {
            bail!(
                "expected {} gradients, found {}",
                self.sums.len(),
                gradients.len()
            );
        }
        for (sum, gradient) in self.sums.iter_mut().zip(gradients) {
            if let Some(gradient) = gradient {
                *sum = (&*sum + gradient.sqr()?)?;
            }
        }
        self.samples += 1;
        Ok(())
    }

    /// The information divided by its mean over all weights, and this mean. So the factor of [`Anchor`] has the scale of L2-SP's,
    /// whatever the size of the gradients; the factor of the usual definition is `ewc` over the mean.
    ///
    /// # Errors
    /// No samples, or gradients that are all 0.
    pub fn normalised(self) -> Result<(Vec<Tensor>, f64)> {
        let (mut sum, mut count) = (0.0, 0);
        for of_var in &self.sums {
            sum += of_var.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            count += of_var.elem_count();
        }
        let mean = sum / count.max(1) as f64;
        if !(mean.is_finite() && mean > 0.0) {
            bail!(
                "the Fisher information of {} samples: expected a mean above 0, found {mean}",
                self.samples
            );
        }
        let normalised = self.sums.iter().map(|of_var| of_var / mean);
        Ok((
            normalised.collect::<Result<_>>()?,
            mean / self.samples as f64,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn vars() -> Vec<(String, Var)> {
        let of = |values: &[f32]| Var::new(values, &Device::Cpu).unwrap();
        vec![
            ("a".to_owned(), of(&[1.0, 2.0])),
            ("b".to_owned(), of(&[-1.0])),
        ]
    }

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn weights_are_pulled_back_in_proportion_to_distance_and_importance() {
        let vars = vars();
        let anchor = Anchor::new(&vars, 0.5).unwrap();
        vars[0].1.set(&tensor(&[1.0, 4.0])).unwrap();
        let (gradient, value) = anchor.pull(0, &vars[0].1).unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [0.0, 1.0]);
        assert_eq!(value.to_scalar::<f64>().unwrap(), 1.0);
        let fisher = vec![tensor(&[9.0, 3.0]), tensor(&[1.0])];
        let anchor = anchor.with_ewc(2.0, fisher).unwrap();
        let (gradient, value) = anchor.pull(0, &vars[0].1).unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [0.0, 13.0]);
        assert_eq!(value.to_scalar::<f64>().unwrap(), 13.0);
        let (gradient, value) = anchor.pull(1, &vars[1].1).unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [0.0]);
        assert_eq!(value.to_scalar::<f64>().unwrap(), 0.0);
        assert!(anchor.pull(2, &vars[1].1).is_err());
        assert!(anchor.with_ewc(1.0, Vec::new()).is_err());
    }

    #[test]
    fn the_fisher_information_is_the_mean_of_squared_gradients() {
        let vars = vars();
        let mut fisher = Fisher::default();
        fisher
            .add(&vars, &[Some(tensor(&[1.0, 2.0])), None])
            .unwrap();
        fisher
            .add(&vars, &[Some(tensor(&[3.0, 0.0])), Some(tensor(&[2.0]))])
            .unwrap();
        assert!(fisher.add(&vars, &[None]).is_err());
        // Sums 10, 4 and 4 over two samples: means 5, 2 and 2, whose mean is 3.
        let (normalised, mean) = fisher.normalised().unwrap();
        assert!((mean - 3.0).abs() < 1e-9);
        let first = normalised[0].to_vec1::<f32>().unwrap();
        assert!((first[0] - 5.0 / 3.0).abs() < 1e-6 && (first[1] - 2.0 / 3.0).abs() < 1e-6);
        assert!(Fisher::default().normalised().is_err());
    }
}
