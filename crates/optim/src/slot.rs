//! One parameter with its moments.

use candle_core::{DType, Device, Tensor, Var};

use crate::{
    ema::Average,
    error::Result,
    inplace::{on_cpu, with_slice},
    kernels,
    rules::{AdamW, Rule, Sgd},
};

/// A parameter, the number of its updates and its moments.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) var: Var,
    pub(crate) n_updates: u32,
    memory: Memory,
}

/// The memory of the moments. On the CPU they are plain slices, so that one pass can update all of them together with the parameter;
/// elsewhere they are tensors of the device and the update is composed of its ops.
#[derive(Debug)]
enum Memory {
    Host(Vec<Vec<f32>>),
    Device(Vec<Tensor>),
}

impl Slot {
    pub(crate) fn new(name: String, var: Var, rule: &Rule) -> Result<Self> {
        let memory = if var.device().is_cpu() {
            Memory::Host(vec![vec![0.0; var.elem_count()]; rule.memory().len()])
        } else {
            Self::device_zeros(&var, rule)?
        };
        Ok(Self {
            name,
            var,
            n_updates: 0,
            memory,
        })
    }

    fn device_zeros(var: &Var, rule: &Rule) -> Result<Memory> {
        let zeros = rule.memory().iter().map(|_| Ok(var.zeros_like()?.detach()));
        Ok(Memory::Device(zeros.collect::<Result<_>>()?))
    }

    /// Updates the parameter, and its average if there is one on the CPU; gradients are multiplied by `scale` first.
    pub(crate) fn update(
        &mut self,
        rule: &Rule,
        grad: &Tensor,
        lr: f64,
        scale: f64,
        mut average: Option<Average<'_>>,
    ) -> Result<()> {
        let k = self.n_updates.saturating_add(1);
        match (rule, &mut self.memory) {
            (Rule::AdamW(rule), Memory::Host(memory)) => {
                let scalars = rule.scalars(k, lr, scale);
                if let [m, v] = memory.as_mut_slice() {
                    let average = average.take();
                    on_cpu(&self.var, grad, |p, g| {
                        kernels::adamw(p, g, m, v, scalars, average);
                    })?;
                }
            }
            (Rule::Sgd(rule), Memory::Host(memory)) => {
                let scalars = rule.scalars(lr, scale);
                match memory.as_mut_slice() {
                    [m] => on_cpu(&self.var, grad, |p, g| {
                        kernels::sgd_momentum(p, g, m, scalars)
                    })?,
                    _ => on_cpu(&self.var, grad, |p, g| kernels::sgd(p, g, scalars))?,
                }
            }
            (Rule::AdamW(rule), Memory::Device(memory)) => {
                composed_adamw(rule, &self.var, grad, memory, k, lr, scale)?;
            }
            (Rule::Sgd(rule), Memory::Device(memory)) => {
                composed_sgd(rule, &self.var, grad, memory, lr, scale)?;
            }
        }
        if let Some(mut average) = average {
            with_slice(&self.var, |p| average.follow(p))?;
        }
        self.n_updates = k;
        Ok(())
    }

    /// The moments on a device; empty on the CPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_moments(&self) -> &[Tensor] {
        match &self.memory {
            Memory::Host(_) => &[],
            Memory::Device(memory) => memory,
        }
    }

    /// Copies of the moments, in the order of [`Rule::memory`].
    pub(crate) fn moments(&self) -> Result<Vec<Tensor>> {
        match &self.memory {
            Memory::Host(memory) => memory
                .iter()
                .map(|m| Ok(Tensor::from_slice(m, self.var.shape(), &Device::Cpu)?))
                .collect(),
            Memory::Device(memory) => memory.iter().map(|m| Ok(m.copy()?)).collect(),
        }
    }

    /// Replaces the moments by tensors of the parameter's shape.
    pub(crate) fn set_moments(&mut self, moments: &[Tensor]) -> Result<()> {
        self.memory = match self.memory {
            Memory::Host(_) => {
                let host = |m: &Tensor| {
                    let m = m.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                    Ok(m.flatten_all()?.to_vec1()?)
                };
                Memory::Host(moments.iter().map(host).collect::<Result<_>>()?)
            }
            Memory::Device(_) => {
                let device = |m: &Tensor| Ok(m.to_device(self.var.device())?.copy()?.detach());
                Memory::Device(moments.iter().map(device).collect::<Result<_>>()?)
            }
        };
        Ok(())
    }
}

/// `kernels::adamw` in tensor ops, for devices without a kernel of their own.
fn composed_adamw(
    rule: &AdamW,
    var: &Var,
    grad: &Tensor,
    memory: &mut [Tensor],
    k: u32,
    lr: f64,
    scale: f64,
) -> Result<()> {
    let s = rule.scalars(k, lr, scale);
    let [m, v] = memory else { return Ok(()) };
    let g = grad.affine(scale, 0.0)?.detach();
    *m = (&*m + (&g - &*m)?.affine(s.one_minus_beta1.into(), 0.0)?)?.detach();
    let squares = g.sqr()?.affine(s.one_minus_beta2.into(), 0.0)?;
    *v = (v.affine(s.beta2.into(), 0.0)? + squares)?.detach();
    let denominator = v
        .sqrt()?
        .affine(1.0 / f64::from(s.sqrt_correction2), s.eps.into())?;
    let step = (m.affine(s.step_size.into(), 0.0)? / denominator)?;
    var.set(&(var.affine(s.decay.into(), 0.0)? - step)?.detach())?;
    Ok(())
}

/// `kernels::sgd` in tensor ops.
fn composed_sgd(
    rule: &Sgd,
    var: &Var,
    grad: &Tensor,
    memory: &mut [Tensor],
    lr: f64,
    scale: f64,
) -> Result<()> {
    let decay = var.affine(rule.weight_decay, 0.0)?;
    let mut g = (grad.affine(scale, 0.0)? + decay)?.detach();
    if let [m] = memory {
        *m = (m.affine(rule.momentum, 0.0)? + g)?.detach();
        g = m.clone();
    }
    var.set(&(var.as_tensor() - g.affine(lr, 0.0)?)?.detach())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The composed update is what other devices run; the CPU can run it too, so that a test compares both.
    #[test]
    fn composed_and_fused_updates_agree() {
        let adamw = AdamW {
            weight_decay: 0.1,
            ..AdamW::default()
        };
        let sgd = Sgd {
            momentum: 0.9,
            weight_decay: 0.1,
        };
        for rule in [
            Rule::AdamW(adamw),
            Rule::Sgd(sgd),
            Rule::Sgd(Sgd::default()),
        ] {
            let mut slots: Vec<Slot> = (0..2)
                .map(|_| {
                    let var =
                        Var::new(&[[1.0_f32, -2.0, 0.5], [3.0, 0.0, -0.25]], &Device::Cpu).unwrap();
                    Slot::new("w".to_owned(), var, &rule).unwrap()
                })
                .collect();
            slots[1].memory = Slot::device_zeros(&slots[1].var, &rule).unwrap();
            for i in 0..5 {
                let grad = slots[0]
                    .var
                    .affine(0.3, 0.1 * f64::from(i))
                    .unwrap()
                    .detach();
                for slot in &mut slots {
                    slot.update(&rule, &grad, 0.05, 0.7, None).unwrap();
                }
            }
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let close = |a: &Tensor, b: &Tensor| {
                for (a, b) in values(a).into_iter().zip(values(b)) {
                    assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{rule:?}: {a} {b}");
                }
            };
            close(&slots[0].var, &slots[1].var);
            let moments = slots.iter().map(|slot| slot.moments().unwrap());
            let [fused, composed] = moments.collect::<Vec<_>>().try_into().unwrap();
            assert_eq!(fused.len(), rule.memory().len());
            fused.iter().zip(&composed).for_each(|(a, b)| close(a, b));
        }
    }
}
