//! What an operation is: numbers on either device, and the gradients of its inputs.

use crate::backward::keep;
use crate::tape::{self, Role};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape,
    Storage, Tensor, backend::BackendStorage, bail, op::BackpropOp,
};

/// An operation on `N` tensors. Its fields are what is fixed for one call.
pub(crate) trait Op<const N: usize>: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The result on the CPU. Inputs are f32 or f64; half ones have been widened.
    fn cpu(&self, inputs: [(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)>;

    /// The result on a GPU, its channels last where [`Self::is_map`] says so.
    fn cuda(&self, inputs: [(&CudaStorage, &Layout); N]) -> Result<(CudaStorage, Shape)> {
        let _ = inputs;
        bail!("{} is not built for CUDA", self.name())
    }

    /// The gradients of the inputs that want one. `dy` has the shape of the result and any layout.
    fn gradients(
        &self,
        inputs: [&Tensor; N],
        dy: &Tensor,
        wanted: [bool; N],
    ) -> Result<[Option<Tensor>; N]> {
        let _ = (inputs, dy, wanted);
        bail!("{}: second derivatives are not built", self.name())
    }

    /// Which inputs' values [`Self::gradients`] reads, where those of `wanted` are asked for; of the others it sees shape and type.
    fn reads(&self, wanted: [bool; N]) -> [bool; N] {
        let _ = wanted;
        [true; N]
    }

    /// Whether the result of half inputs is f32.
    fn widens(&self) -> bool {
        false
    }

    /// Whether a result of three or four dimensions is a feature map `[B, C, ..]`, as opposed to a parameter's gradient.
    fn is_map(&self) -> bool {
        true
    }
}

/// The result, as part of whatever is under way: candle's graph, a tape, or neither.
pub(crate) fn run<const N: usize, O: Op<N>>(op: O, inputs: [&Tensor; N]) -> Result<Tensor>
where
    InGraph<O>: Apply<N>,
{
    match tape::role() {
        Role::Compute => eval(&op, inputs),
        Role::Graph if inputs.iter().all(|x| !x.track_op()) => eval(&op, inputs),
        Role::Graph => {
            let is_map = op.is_map();
            shown(InGraph(op).apply(inputs)?, is_map)
        }
        Role::Record => {
            let mut wanted = [false; N];
            for (wanted, x) in wanted.iter_mut().zip(inputs) {
                *wanted = tape::is_tracked(x)?;
            }
            let y = eval(&op, inputs)?;
            if wanted.contains(&true) {
                let ids = inputs.map(Tensor::id);
                let mut kept = inputs.map(Tensor::clone);
                for (x, read) in kept.iter_mut().zip(op.reads(wanted)) {
                    if !read {
                        *x = without_values(x)?;
                    }
                }
                tape::record(&y, move |dy| {
                    let gradients = op.gradients(kept.each_ref(), dy, wanted)?;
                    let all = ids.into_iter().zip(gradients).zip(wanted);
                    Ok(all
                        .filter_map(|((id, gradient), wanted)| {
                            Some((id, gradient.filter(|_| wanted)?))
                        })
                        .collect())
                });
            }
            Ok(y)
        }
    }
}

/// The result alone.
pub(crate) fn eval<const N: usize, O: Op<N>>(op: &O, inputs: [&Tensor; N]) -> Result<Tensor> {
    let guards = inputs.map(Tensor::storage_and_layout);
    let (storage, shape) = match &*guards[0].0 {
        Storage::Cpu(_) => {
            let parts = all(&guards, |storage| match storage {
                Storage::Cpu(storage) => Some(storage),
                _ => None,
            });
            let (storage, shape) = on_cpu(op, parts.ok_or_else(|| devices(op.name()))?)?;
            (Storage::Cpu(storage), shape)
        }
        Storage::Cuda(_) => {
            let parts = all(&guards, |storage| match storage {
                Storage::Cuda(storage) => Some(storage),
                _ => None,
            });
            let (storage, shape) = op.cuda(parts.ok_or_else(|| devices(op.name()))?)?;
            (Storage::Cuda(storage), shape)
        }
        Storage::Metal(_) => bail!("{} is not built for Metal", op.name()),
    };
    let y = Tensor::from_storage(storage, shape, BackpropOp::none(), false);
    shown(y, op.is_map())
}

/// A stand-in of the same shape and type: one zero seen through zero strides.
fn without_values(x: &Tensor) -> Result<Tensor> {
    Tensor::zeros((), x.dtype(), &Device::Cpu)?.broadcast_as(x.shape())
}

fn devices(op: &'static str) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op}: the tensors lie on different devices"))
}

fn all<'a, S, G: std::ops::Deref<Target = Storage>, const N: usize>(
    guards: &'a [(G, &'a Layout); N],
    part: impl Fn(&'a Storage) -> Option<&'a S>,
) -> Option<[(&'a S, &'a Layout); N]> {
    let parts = guards
        .iter()
        .map(|(storage, layout)| Some((part(storage)?, *layout)));
    let parts: Option<Vec<_>> = parts.collect();
    parts?.try_into().ok()
}

/// Half numbers are widened on the way in and results rounded once on the way out.
fn on_cpu<const N: usize, O: Op<N>>(
    op: &O,
    inputs: [(&CpuStorage, &Layout); N],
) -> Result<(CpuStorage, Shape)> {
    let is_half = |storage: &CpuStorage| matches!(storage.dtype(), DType::BF16 | DType::F16);
    if !inputs.iter().any(|(storage, _)| is_half(storage)) {
        return op.cpu(inputs);
    }
    let mut wide = Vec::with_capacity(N);
    for (storage, layout) in inputs {
        let storage = storage.to_dtype(layout, DType::F32)?;
        wide.push((storage, Layout::contiguous(layout.shape())));
    }
    let wide: Vec<_> = wide.iter().map(|(s, l)| (s, l)).collect();
    let Ok(wide) = wide.try_into() else {
        bail!("{}: an input was lost", op.name());
    };
    let (y, shape) = op.cpu(wide)?;
    let y = if op.widens() {
        y
    } else {
        y.to_dtype(&Layout::contiguous(&shape), inputs[0].0.dtype())?
    };
    Ok((y, shape))
}

/// A feature map that a GPU has made channels last, with its dimensions in their usual order.
fn shown(y: Tensor, is_map: bool) -> Result<Tensor> {
    match y.rank() {
        _ if !is_map || !y.device().is_cuda() => Ok(y),
        4 => y.permute((0, 3, 1, 2)),
        3 => y.permute((0, 2, 1)),
        _ => Ok(y),
    }
}

/// An operation as candle's graph wants it.
pub(crate) struct InGraph<O>(O);

/// How many inputs candle is told of.
pub(crate) trait Apply<const N: usize> {
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor>;
}

impl<O> InGraph<O> {
    fn back<const N: usize>(&self, inputs: [&Tensor; N], dy: &Tensor) -> Result<[Option<Tensor>; N]>
    where
        O: Op<N>,
    {
        let wanted = inputs.map(Tensor::track_op);
        let dy = shown(dy.clone(), self.0.is_map())?;
        let mut gradients = self.0.gradients(inputs, &dy, wanted)?;
        for ((gradient, x), wanted) in gradients.iter_mut().zip(inputs).zip(wanted) {
            *gradient = match gradient.take() {
                Some(gradient) if wanted => keep(x, gradient)?,
                _ => None,
            };
        }
        Ok(gradients)
    }
}

macro_rules! in_graph {
    ($custom:ident, $n:literal, $apply:ident, $($s:ident $l:ident $x:ident),+; $first:ident $(, $rest:ident)*) => {
        impl<O: Op<$n>> $custom for InGraph<O> {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            fn cpu_fwd(&self, $($s: &CpuStorage, $l: &Layout),+) -> Result<(CpuStorage, Shape)> {
                on_cpu(&self.0, [$(($s, $l)),+])
            }

            fn cuda_fwd(&self, $($s: &CudaStorage, $l: &Layout),+) -> Result<(CudaStorage, Shape)> {
                self.0.cuda([$(($s, $l)),+])
            }

            in_graph!(@bwd $custom, $($x),+);
        }

        impl<O: Op<$n>> Apply<$n> for InGraph<O> {
            fn apply(self, [$first $(, $rest)*]: [&Tensor; $n]) -> Result<Tensor> {
                $first.$apply($($rest,)* self)
            }
        }
    };
    (@bwd CustomOp1, $x:ident) => {
        fn bwd(&self, $x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
            let [a] = self.back([$x], dy)?;
            Ok(a)
        }
    };
    (@bwd CustomOp2, $x:ident, $y:ident) => {
        fn bwd(
            &self,
            $x: &Tensor,
            $y: &Tensor,
            _: &Tensor,
            dy: &Tensor,
        ) -> Result<(Option<Tensor>, Option<Tensor>)> {
            let [a, b] = self.back([$x, $y], dy)?;
            Ok((a, b))
        }
    };
    (@bwd CustomOp3, $x:ident, $y:ident, $z:ident) => {
        fn bwd(
            &self,
            $x: &Tensor,
            $y: &Tensor,
            $z: &Tensor,
            _: &Tensor,
            dy: &Tensor,
        ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
            let [a, b, c] = self.back([$x, $y, $z], dy)?;
            Ok((a, b, c))
        }
    };
}

in_graph!(CustomOp1, 1, apply_op1, s1 l1 x; a);
in_graph!(CustomOp2, 2, apply_op2, s1 l1 x, s2 l2 y; a, b);
in_graph!(CustomOp3, 3, apply_op3, s1 l1 x, s2 l2 y, s3 l3 z; a, b, c);
