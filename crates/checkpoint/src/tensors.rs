//! Numbers from a file into tensors, a piece at a time.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::input::Input;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

/// Where the numbers of one tensor are: a view of an array of `numel` numbers that begins at byte `start`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dtype: Dtype,
    pub(crate) start: u64,
    pub(crate) numel: u64,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
}

impl Place {
    /// Number of elements.
    pub(crate) fn elements(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d as u64))
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if n != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(n as u64);
        }
        true
    }

    /// Index in the array of the last element, if there is one and nothing overflows.
    fn last(&self) -> Option<u64> {
        self.shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (n, stride)| {
                at.checked_add((*n as u64).checked_sub(1)?.checked_mul(*stride)?)
            })
    }

    /// Fails unless every element lies in the array and the view is no larger than it.
    pub(crate) fn check(&self, input: &Input<'_>, name: &str) -> Result<()> {
        let fits = match self.elements() {
            Some(0) => true,
            Some(n) => n <= self.numel && self.last().is_some_and(|last| last < self.numel),
            None => false,
        };
        let bytes = self
            .numel
            .checked_mul(self.dtype.size())
            .and_then(|n| n.checked_add(self.start));
        if fits && bytes.is_some_and(|end| end <= input.len) {
            return Ok(());
        }
        Err(input.bad(format!(
            "{name}: shape {:?} does not fit its {} stored numbers",
            self.shape, self.numel
        )))
    }

    /// The tensor; [`Self::check`] has passed.
    pub(crate) fn read(&self, input: &mut Input<'_>, keep: bool) -> Result<Tensor> {
        let d = self.dtype;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the point"
        )]
        let to_f32 = move |b: &[u8]| d.float(b) as f32;
        match d.tensor_dtype(keep) {
            DType::F32 if d == Dtype::F32 => {
                self.collect(input, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            DType::F32 => self.collect(input, to_f32),
            DType::F64 => self.collect(input, move |b| d.float(b)),
            DType::F16 => self.collect(input, |b| f16::from_le_bytes([b[0], b[1]])),
            DType::BF16 => self.collect(input, |b| bf16::from_le_bytes([b[0], b[1]])),
            DType::U8 => self.collect(input, |b| b[0]),
            DType::U32 => self.collect(input, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            _ => self.collect(input, move |b| d.integer(b)),
        }
    }

    fn collect<T: WithDType>(
        &self,
        input: &mut Input<'_>,
        convert: impl Fn(&[u8]) -> T,
    ) -> Result<Tensor> {
        let n = usize::try_from(self.elements().unwrap_or(0)).unwrap_or(0);
        let data = if n == 0 {
            Vec::new()
        } else if self.is_contiguous() {
            self.run(input, self.offset, n, &convert)?
        } else {
            // Read the span of the view once, then pick its elements in order.
            let span = self.last().unwrap_or(self.offset) - self.offset + 1;
            let all = self.run(
                input,
                self.offset,
                usize::try_from(span).unwrap_or(0),
                &convert,
            )?;
            let mut out = Vec::with_capacity(n);
            let mut index = vec![0usize; self.shape.len()];
            for _ in 0..n {
                let at: u64 = index
                    .iter()
                    .zip(&self.strides)
                    .map(|(i, stride)| *i as u64 * stride)
                    .sum();
                out.push(all[usize::try_from(at).unwrap_or(0)]);
                for (i, size) in index.iter_mut().zip(&self.shape).rev() {
                    *i += 1;
                    if *i < *size {
                        break;
                    }
                    *i = 0;
                }
            }
            out
        };
        Ok(Tensor::from_vec(data, self.shape.as_slice(), &Device::Cpu)?)
    }

    /// `n` numbers from element `first`, converted through a small buffer so that only the result takes memory.
    fn run<T>(
        &self,
        input: &mut Input<'_>,
        first: u64,
        n: usize,
        convert: &impl Fn(&[u8]) -> T,
    ) -> Result<Vec<T>> {
        let size = usize::try_from(self.dtype.size()).unwrap_or(1);
        input.seek(self.start + first * self.dtype.size())?;
        let mut out = Vec::with_capacity(n);
        let mut buffer = vec![0u8; (1 << 16).min(n * size)];
        while out.len() < n {
            let now = (buffer.len() / size).min(n - out.len());
            let piece = &mut buffer[..now * size];
            input.fill(piece)?;
            out.extend(piece.chunks_exact(size).map(convert));
        }
        Ok(out)
    }
}
