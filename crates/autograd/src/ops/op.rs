//! An operation: its result on either device, and the gradients of its inputs.

use crate::backward::collect_gradient;
use crate::profile::{self, Part, is_profiling};
use crate::tape::{self, GradMode};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape,
    Storage, Tensor, backend::BackendStorage, bail, op::BackpropOp,
};
use std::time::Instant;

/// An operation on `N` tensors. Its fields are the arguments of one call that are not tensors. What applies operations takes them as
/// `dyn Op`, so that it is compiled once for each `N` and not for each operation.
pub(crate) trait Op<const N: usize>: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The result on the CPU. Inputs are f32 or f64: half precision has been converted to f32, unless [`Self::reads_bf16`].
    fn cpu(&self, inputs: [(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)>;

    /// The result on a GPU, with its channels last where [`Self::is_feature_map`] is true for it.
    fn cuda(&self, inputs: [(&CudaStorage, &Layout); N]) -> Result<(CudaStorage, Shape)> {
        let _ = inputs;
        bail!("{} is not implemented for CUDA", self.name())
    }

    /// The gradients of the inputs, those in `wanted` at least. `dy` has the shape of the result and any layout.
    fn gradients(
        &self,
        inputs: [&Tensor; N],
        dy: &Tensor,
        wanted: [bool; N],
    ) -> Result<[Option<Tensor>; N]> {
        let _ = (inputs, dy, wanted);
        bail!("{}: second derivatives are not implemented", self.name())
    }

    /// [`Self::gradients`] added to those that the inputs have from later operations. An operation that adds in the same pass over a map
    /// saves one.
    fn add_gradients(
        &self,
        inputs: [&Tensor; N],
        dy: &Tensor,
        wanted: [bool; N],
        earlier: [Option<Tensor>; N],
    ) -> Result<[Option<Tensor>; N]> {
        let mut sums = self.gradients(inputs, dy, wanted)?;
        for (sum, earlier) in sums.iter_mut().zip(earlier) {
            *sum = match (earlier, sum.take()) {
                (Some(earlier), Some(own)) => Some(super::add_gradients(&earlier, &own)?),
                (earlier, own) => earlier.or(own),
            };
        }
        Ok(sums)
    }

    /// Which inputs [`Self::gradients`] reads, for the gradients in `wanted`; of the others it gets shape and type only.
    fn saved(&self, wanted: [bool; N]) -> [bool; N] {
        let _ = wanted;
        [true; N]
    }

    /// Multiplications and additions of one call, if it is a product: those of the direct sum, and those that the algorithm leaves.
    fn flops(&self) -> [f64; 2] {
        [0.0; 2]
    }

    /// Whether [`Self::cpu`] takes feature maps of bf16, and rounds its result itself.
    fn reads_bf16(&self) -> bool {
        false
    }

    /// Whether the result is f32 where inputs are half precision.
    fn output_is_f32(&self) -> bool {
        false
    }

    /// Whether a result of three or four dimensions is a feature map `[B, C, ..]`, and not the gradient of a parameter.
    fn is_feature_map(&self) -> bool {
        true
    }
}

/// The result, as part of candle's graph or of a tape if one of them is recording.
pub(crate) fn apply<const N: usize>(op: impl Op<N>, inputs: [&Tensor; N]) -> Result<Tensor>
where
    GraphOp<N>: Apply<N>,
{
    if GradMode::current() == GradMode::Graph && inputs.iter().any(|x| x.track_op()) {
        let is_feature_map = op.is_feature_map();
        return channels_second(GraphOp(Box::new(op)).apply(inputs)?, is_feature_map);
    }
    apply_off_graph(Box::new(op), inputs)
}

/// [`apply`] where inputs are no part of candle's graph, which has no operations of more than three inputs.
pub(crate) fn apply_off_graph<const N: usize>(
    op: Box<dyn Op<N>>,
    inputs: [&Tensor; N],
) -> Result<Tensor> {
    match GradMode::current() {
        GradMode::NoGrad => {
            inputs.into_iter().for_each(tape::note_parameter);
            compute(&*op, inputs)
        }
        GradMode::Graph => compute(&*op, inputs),
        GradMode::Tape => {
            let mut wanted = [false; N];
            for (wanted, x) in wanted.iter_mut().zip(inputs) {
                *wanted = tape::is_tracked(x)?;
            }
            let y = compute(&*op, inputs)?;
            if wanted.contains(&true) {
                let ids = inputs.map(Tensor::id);
                let mut saved = inputs.map(Tensor::clone);
                for (x, is_read) in saved.iter_mut().zip(op.saved(wanted)) {
                    if !is_read {
                        *x = placeholder(x)?;
                    }
                }
                tape::record(&y, move |dy, gradients| {
                    let mut earlier = [const { None }; N];
                    for ((earlier, id), wanted) in earlier.iter_mut().zip(ids).zip(wanted) {
                        if wanted {
                            *earlier = gradients.take(id);
                        }
                    }
                    let sums = op.add_gradients(saved.each_ref(), dy, wanted, earlier)?;
                    for ((id, sum), wanted) in ids.into_iter().zip(sums).zip(wanted) {
                        if let Some(sum) = sum.filter(|_| wanted) {
                            gradients.add(id, sum)?;
                        }
                    }
                    Ok(())
                });
            }
            Ok(y)
        }
    }
}

/// The result, without recording.
pub(crate) fn compute<const N: usize>(op: &dyn Op<N>, inputs: [&Tensor; N]) -> Result<Tensor> {
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
        Storage::Metal(_) => bail!("{} is not implemented for Metal", op.name()),
    };
    let y = Tensor::from_storage(storage, shape, BackpropOp::none(), false);
    channels_second(y, op.is_feature_map())
}

/// Two computations on the device of `on` that do not need each other, at the same time on a CPU. Small maps have too few jobs for all
/// threads in one of them.
pub(crate) fn both<A: Send, B: Send>(
    on: &Tensor,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    // What another thread computes is not counted.
    if on.device().is_cpu() && !is_profiling() {
        sdft_kernels::join(a, b)
    } else {
        (a(), b())
    }
}

/// A placeholder of the same shape and type: a single zero with zero strides.
fn placeholder(x: &Tensor) -> Result<Tensor> {
    Tensor::zeros((), x.dtype(), &Device::Cpu)?.broadcast_as(x.shape())
}

fn devices(op: &'static str) -> candle_core::Error {
    candle_core::Error::Msg(format!(
        "{op}: expected tensors on one device, found several"
    ))
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

/// [`narrowed`], measured inside [`crate::profile()`].
fn on_cpu<const N: usize>(
    op: &dyn Op<N>,
    inputs: [(&CpuStorage, &Layout); N],
) -> Result<(CpuStorage, Shape)> {
    sdft_kernels::keep_awake();
    if !is_profiling() {
        return narrowed(op, inputs);
    }
    let size = |storage: &CpuStorage, n: usize| (n * storage.dtype().size_in_bytes()) as f64;
    let read: f64 = inputs
        .iter()
        .map(|(storage, layout)| size(storage, layout.shape().elem_count()))
        .sum();
    let started = Instant::now();
    let (y, shape) = narrowed(op, inputs)?;
    let [flops, flops_of_products] = op.flops();
    let call = Part {
        calls: 1,
        seconds: started.elapsed().as_secs_f64(),
        flops,
        flops_of_products,
        bytes: read + size(&y, shape.elem_count()),
    };
    profile::record(op.name(), call);
    Ok((y, shape))
}

/// Converts half-precision inputs that the operation does not read itself to f32, and rounds the result once.
fn narrowed<const N: usize>(
    op: &dyn Op<N>,
    inputs: [(&CpuStorage, &Layout); N],
) -> Result<(CpuStorage, Shape)> {
    let is_half = |storage: &CpuStorage| matches!(storage.dtype(), DType::BF16 | DType::F16);
    if !inputs.iter().any(|(storage, _)| is_half(storage))
        || op.reads_bf16() && inputs[0].0.dtype() == DType::BF16
    {
        return op.cpu(inputs);
    }
    let mut wide = Vec::with_capacity(N);
    for (storage, layout) in inputs {
        let storage = match (storage, layout.contiguous_offsets()) {
            (CpuStorage::BF16(x), Some((start, end))) => {
                CpuStorage::F32(sdft_kernels::to_f32(&x[start..end]))
            }
            _ => storage.to_dtype(layout, DType::F32)?,
        };
        wide.push((storage, Layout::contiguous(layout.shape())));
    }
    let wide: Vec<_> = wide.iter().map(|(s, l)| (s, l)).collect();
    let Ok(wide) = wide.try_into() else {
        bail!("{}: wrong number of inputs", op.name());
    };
    let (y, shape) = op.cpu(wide)?;
    let dtype = inputs[0].0.dtype();
    let y = match y {
        y if op.output_is_f32() => y,
        CpuStorage::F32(y) if dtype == DType::BF16 => CpuStorage::BF16(sdft_kernels::to_bf16(&y)),
        y => y.to_dtype(&Layout::contiguous(&shape), dtype)?,
    };
    Ok((y, shape))
}

/// A new tensor on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn gpu_tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// A tensor that `guard` keeps, as operations on a GPU take it.
#[cfg(feature = "cuda")]
pub(crate) fn gpu_part<'a, G: std::ops::Deref<Target = Storage>>(
    (storage, layout): &'a (G, &'a Layout),
) -> Result<(&'a CudaStorage, &'a Layout)> {
    match &**storage {
        Storage::Cuda(storage) => Ok((storage, layout)),
        _ => bail!("expected tensors on one device, found several"),
    }
}

/// A feature map that a GPU stores with its channels last, seen as `[B, C, ..]`.
pub(crate) fn channels_second(y: Tensor, is_feature_map: bool) -> Result<Tensor> {
    match y.rank() {
        _ if !is_feature_map || !y.device().is_cuda() => Ok(y),
        4 => y.permute((0, 3, 1, 2)),
        3 => y.permute((0, 2, 1)),
        _ => Ok(y),
    }
}

/// An operation as a node of candle's graph.
pub(crate) struct GraphOp<const N: usize>(Box<dyn Op<N>>);

/// Calls candle's `apply_op1`, `apply_op2` or `apply_op3`.
pub(crate) trait Apply<const N: usize> {
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor>;
}

impl<const N: usize> GraphOp<N> {
    fn gradients(&self, inputs: [&Tensor; N], dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        let wanted = inputs.map(Tensor::track_op);
        let dy = channels_second(dy.clone(), self.0.is_feature_map())?;
        let mut gradients = self.0.gradients(inputs, &dy, wanted)?;
        for ((gradient, x), wanted) in gradients.iter_mut().zip(inputs).zip(wanted) {
            *gradient = match gradient.take() {
                Some(gradient) if wanted => collect_gradient(x, gradient)?,
                _ => None,
            };
        }
        Ok(gradients)
    }
}

macro_rules! graph_op {
    ($custom:ident, $n:literal, $apply:ident, $($s:ident $l:ident $x:ident),+; $first:ident $(, $rest:ident)*) => {
        impl $custom for GraphOp<$n> {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            fn cpu_fwd(&self, $($s: &CpuStorage, $l: &Layout),+) -> Result<(CpuStorage, Shape)> {
                on_cpu(&*self.0, [$(($s, $l)),+])
            }

            fn cuda_fwd(&self, $($s: &CudaStorage, $l: &Layout),+) -> Result<(CudaStorage, Shape)> {
                self.0.cuda([$(($s, $l)),+])
            }

            graph_op!(@bwd $custom, $($x),+);
        }

        impl Apply<$n> for GraphOp<$n> {
            fn apply(self, [$first $(, $rest)*]: [&Tensor; $n]) -> Result<Tensor> {
                $first.$apply($($rest,)* self)
            }
        }
    };
    (@bwd CustomOp1, $x:ident) => {
        fn bwd(&self, $x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
            let [a] = self.gradients([$x], dy)?;
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
            let [a, b] = self.gradients([$x, $y], dy)?;
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
            let [a, b, c] = self.gradients([$x, $y, $z], dy)?;
            Ok((a, b, c))
        }
    };
}

graph_op!(CustomOp1, 1, apply_op1, s1 l1 x; a);
graph_op!(CustomOp2, 2, apply_op2, s1 l1 x, s2 l2 y; a, b);
graph_op!(CustomOp3, 3, apply_op3, s1 l1 x, s2 l2 y, s3 l3 z; a, b, c);
