//! Numbers from a file into tensors, a piece at a time.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::finite::{Census, Countable};
use crate::input::Input;
use crate::short::short;
use crate::zip::Entry;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use std::collections::HashSet;

/// Where the numbers of one tensor are: a view of an array of `numel` numbers that begins at byte `start`.
#[derive(Clone, Debug)]
pub(crate) struct TensorLocation {
    pub(crate) dtype: Dtype,
    pub(crate) start: u64,
    pub(crate) numel: u64,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
    /// The array in its archive, if it has a checksum.
    pub(crate) entry: Option<Entry>,
}

impl TensorLocation {
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

    /// Numbers between the first and the last element.
    fn span(&self) -> u64 {
        self.last().map_or(0, |last| last - self.offset + 1)
    }

    /// Bytes that are read for it.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.span().saturating_mul(self.dtype.size())
    }

    /// Bytes of the tensor.
    pub(crate) fn bytes_made(&self, keep: bool) -> u64 {
        let size = self.dtype.tensor_dtype(keep).size_in_bytes() as u64;
        self.elements().unwrap_or(u64::MAX).saturating_mul(size)
    }

    /// Fails unless every element lies in the array and the view is no larger than it.
    pub(crate) fn check(&self, input: &Input<'_>, name: &str) -> Result<()> {
        let bytes = self
            .numel
            .checked_mul(self.dtype.size())
            .and_then(|n| n.checked_add(self.start));
        let inside = bytes.is_some_and(|end| end <= input.len);
        let fits = match self.elements() {
            // The layout of its numbers is unknown.
            _ if self.dtype == Dtype::Other => true,
            Some(0) => true,
            Some(n) => n <= self.numel && self.last().is_some_and(|last| last < self.numel),
            None => false,
        };
        if fits && inside {
            return Ok(());
        }
        Err(input.bad(format!(
            "{}: shape {:?} does not fit its {} stored numbers",
            short(name),
            self.shape,
            self.numel
        )))
    }
}

/// Reads tensors of one file; every array with a checksum is compared with it once.
pub(crate) struct Reader<'i, 'f> {
    pub(crate) input: &'i mut Input<'f>,
    /// Keep f16, bf16 and f64.
    pub(crate) keep: bool,
    verified: HashSet<u64>,
}

impl<'i, 'f> Reader<'i, 'f> {
    pub(crate) fn new(input: &'i mut Input<'f>, keep: bool) -> Self {
        Self {
            input,
            keep,
            verified: HashSet::new(),
        }
    }

    /// The tensor, and its values that are not finite. Requires that [`TensorLocation::check`] passed.
    pub(crate) fn read(&mut self, name: &str, place: &TensorLocation) -> Result<(Tensor, Census)> {
        if !place.dtype.is_read() {
            return Err(self.input.bad(format!(
                "{}: numbers of type {} are not read",
                short(name),
                place.dtype
            )));
        }
        self.typed(name, place, true).map(|(tensor, census)| {
            let empty = || Tensor::zeros((), DType::F32, &Device::Cpu);
            Ok((tensor.map_or_else(empty, Ok)?, census))
        })?
    }

    /// Reads the numbers of a tensor without keeping them: only counts the values that are not finite.
    pub(crate) fn scan(&mut self, name: &str, place: &TensorLocation) -> Result<Census> {
        if place.dtype.is_float() {
            return Ok(self.typed(name, place, false)?.1);
        }
        if let Some(entry) = place.entry {
            self.verify(entry, name)?;
        }
        Ok(Census::default())
    }

    fn verify(&mut self, entry: Entry, name: &str) -> Result<()> {
        match self.verified.insert(entry.start) {
            true => entry.verify(self.input, name),
            false => Ok(()),
        }
    }

    fn typed(
        &mut self,
        name: &str,
        place: &TensorLocation,
        collect: bool,
    ) -> Result<(Option<Tensor>, Census)> {
        let d = place.dtype;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the point"
        )]
        let to_f32 = move |b: &[u8]| d.float(b) as f32;
        match d.tensor_dtype(self.keep) {
            DType::F32 if d == Dtype::F32 => self.collect(name, place, collect, |b| {
                f32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }),
            DType::F32 if d == Dtype::F16 => self.collect(name, place, collect, |b| {
                f16::from_le_bytes([b[0], b[1]]).to_f32()
            }),
            DType::F32 => self.collect(name, place, collect, to_f32),
            DType::F64 => self.collect(name, place, collect, move |b| d.float(b)),
            DType::F16 => self.collect(name, place, collect, |b| f16::from_le_bytes([b[0], b[1]])),
            DType::BF16 => {
                self.collect(name, place, collect, |b| bf16::from_le_bytes([b[0], b[1]]))
            }
            DType::U8 => self.collect(name, place, collect, |b| b[0]),
            DType::U32 => self.collect(name, place, collect, |b| {
                u32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }),
            _ => self.collect(name, place, collect, move |b| d.integer(b)),
        }
    }

    fn collect<T: WithDType + Countable>(
        &mut self,
        name: &str,
        place: &TensorLocation,
        collect: bool,
        convert: impl Fn(&[u8]) -> T,
    ) -> Result<(Option<Tensor>, Census)> {
        let n = usize::try_from(place.elements().unwrap_or(0)).unwrap_or(0);
        let size = usize::try_from(place.dtype.size()).unwrap_or(1);
        let mut census = Census::default();
        let mut data: Vec<T> = Vec::new();
        if n > 0 && place.is_contiguous() {
            let mut hasher = self.hasher(place, n as u64, name)?;
            let first = place.start + place.offset * place.dtype.size();
            data.reserve_exact(if collect { n } else { n.min(1 << 16) });
            self.input.pieces(first, (n * size) as u64, |piece| {
                if let Some(hasher) = &mut hasher {
                    hasher.update(piece);
                }
                if !collect {
                    data.clear();
                }
                let from = data.len();
                data.extend(piece.chunks_exact(size).map(&convert));
                census.count(&data[from..]);
            })?;
            if let (Some(hasher), Some(entry)) = (hasher, place.entry) {
                entry.compare(hasher, self.input, name)?;
                self.verified.insert(entry.start);
            }
        } else if n > 0 {
            if let Some(entry) = place.entry {
                self.verify(entry, name)?;
            }
            let first = place.start + place.offset * place.dtype.size();
            let bytes = self.input.range(first, place.bytes_read())?;
            data = picked(&bytes, size, n, place).map(convert).collect();
            census.count(&data);
        }
        let tensor = match collect {
            true => Some(Tensor::from_vec(
                data,
                place.shape.as_slice(),
                &Device::Cpu,
            )?),
            false => None,
        };
        Ok((tensor, census))
    }

    /// A hasher for an array that is read as a whole; any other is compared with its checksum here.
    fn hasher(
        &mut self,
        place: &TensorLocation,
        n: u64,
        name: &str,
    ) -> Result<Option<crc32fast::Hasher>> {
        let Some(entry) = place.entry else {
            return Ok(None);
        };
        let whole = place.offset == 0 && n * place.dtype.size() == entry.len;
        if whole && place.start == entry.start && !self.verified.contains(&entry.start) {
            return Ok(Some(crc32fast::Hasher::new()));
        }
        self.verify(entry, name)?;
        Ok(None)
    }
}

/// The bytes of the elements of a view in order; `bytes` are those from the first element to the last.
fn picked<'b>(
    bytes: &'b [u8],
    size: usize,
    n: usize,
    place: &TensorLocation,
) -> impl Iterator<Item = &'b [u8]> {
    let mut index = vec![0usize; place.shape.len()];
    (0..n).map(move |_| {
        let at: u64 = index
            .iter()
            .zip(&place.strides)
            .map(|(i, stride)| *i as u64 * stride)
            .sum();
        let at = usize::try_from(at).unwrap_or(0) * size;
        for (i, size) in index.iter_mut().zip(&place.shape).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
        &bytes[at..at + size]
    })
}
