//! A call that may be recorded, and what recordings have in common.

use crate::tape::{self, GradMode};
use candle_core::{DType, Device, Result, Tensor, TensorId, bail};
use sdft_cuda::{can_record, is_tf32_allowed};
use std::thread::ThreadId;

/// Images of 256x256 pixels take a GPU longer than the host if there are more than four of them.
const MOST_PIXELS: usize = 1 << 18;
/// The backward pass has twice the work.
const MOST_TRAINED: usize = 1 << 17;

/// All that recorded work depends on, except the values of its inputs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    shapes: Vec<(Vec<usize>, DType)>,
    /// Which inputs need gradients.
    tracked: Vec<bool>,
    is_taped: bool,
    tf32: bool,
    /// The constants that candle uploads belong to a thread, and are freed with it.
    thread: ThreadId,
}

/// A call that may be recorded.
pub(super) struct Call<'a> {
    pub(super) key: Key,
    pub(super) x: &'a Tensor,
    pub(super) others: &'a [Tensor],
    pixels: usize,
}

impl<'a> Call<'a> {
    /// `None` for a call that is not worth it.
    pub(super) fn new(x: &'a Tensor, others: &'a [Tensor]) -> Result<Option<Self>> {
        let is_taped = match GradMode::current() {
            GradMode::Graph => return Ok(None),
            GradMode::Tape => true,
            GradMode::NoGrad => false,
        };
        let pixels = x
            .dims4()
            .map_or(usize::MAX, |(batch, _, h, w)| batch * h * w);
        if !x.device().is_cuda() || pixels > MOST_PIXELS || !can_record(x.device()) {
            return Ok(None);
        }
        let inputs = || std::iter::once(x).chain(others);
        if inputs().any(|y| !y.device().same_device(x.device())) {
            return Ok(None);
        }
        let shapes = inputs().map(|x| (x.dims().to_vec(), x.dtype()));
        let key = Key {
            shapes: shapes.collect(),
            tracked: inputs().map(tape::is_tracked).collect::<Result<_>>()?,
            is_taped,
            tf32: is_tf32_allowed(),
            thread: std::thread::current().id(),
        };
        Ok(Some(Self {
            key,
            x,
            others,
            pixels,
        }))
    }

    pub(super) fn device(&self) -> &Device {
        self.x.device()
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(self.x).chain(self.others)
    }

    /// Whether the backward pass may be recorded, too.
    pub(super) fn is_small(&self) -> bool {
        self.pixels <= MOST_TRAINED
    }

    /// Those of the inputs, or of the tensors that stand for them, that need gradients: their places and names.
    pub(super) fn leaves<'b>(
        &self,
        inputs: impl IntoIterator<Item = &'b Tensor>,
    ) -> Vec<(usize, TensorId)> {
        let all = inputs.into_iter().zip(&self.key.tracked).enumerate();
        let wanted = all.filter(|(_, (_, tracked))| **tracked);
        wanted.map(|(i, (x, _))| (i, x.id())).collect()
    }

    pub(super) fn log(&self, message: &str) {
        log(self.x.dims(), message);
    }
}

/// New memory for values like these.
pub(super) fn like(x: &Tensor) -> Result<Tensor> {
    Tensor::zeros(x.shape(), x.dtype(), x.device())
}

/// Copies values to memory that stays where it is.
pub(super) fn fill(to: &Tensor, x: &Tensor) -> Result<()> {
    to.slice_set(&x.detach().contiguous()?, 0, 0)
}

/// Fails unless both have the same bits.
pub(super) fn check(replayed: &Tensor, y: &Tensor) -> Result<()> {
    let bits = |x: &Tensor| -> Result<Vec<u32>> {
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    match bits(replayed)? == bits(y)? {
        true => Ok(()),
        false => bail!("a launch gave other bits"),
    }
}

#[expect(clippy::print_stderr, reason = "asked for by a variable")]
pub(super) fn log(shape: &[usize], message: &str) {
    if std::env::var_os("SDFT_CUDA_LOG").is_some() {
        eprintln!("graph of {shape:?}: {message}");
    }
}
