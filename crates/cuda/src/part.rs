//! Addresses and layouts of tensors on the device.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

/// The address, type, length and device of the elements of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) at: u64,
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    pub(crate) device: &'a CudaDevice,
}

impl<'a> Part<'a> {
    /// The elements of a contiguous tensor.
    pub(crate) fn contiguous(op: &str, storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        if !layout.is_contiguous() {
            bail!("{op}: the input is not contiguous ({:?})", layout.stride());
        }
        Self::at_start(op, storage, layout)
    }

    /// The elements of a feature map, contiguous with its channels last.
    pub(crate) fn map(op: &str, storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        if !is_map(layout)? {
            bail!("{op}: the channels are not last ({:?})", layout.stride());
        }
        Self::at_start(op, storage, layout)
    }

    /// The elements in any order without gaps.
    pub(crate) fn at_start(op: &str, storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        let (at, dtype) = address(op, storage)?;
        Ok(Self {
            at: at + (layout.start_offset() * dtype.size_in_bytes()) as u64,
            dtype,
            len: layout.shape().elem_count(),
            device: &storage.device,
        })
    }

    /// All elements of a new storage.
    pub(crate) fn of(storage: &'a CudaStorage, len: usize) -> Result<Self> {
        let (at, dtype) = address("result", storage)?;
        Ok(Self {
            at,
            dtype,
            len,
            device: &storage.device,
        })
    }

    /// The address of element `first`.
    pub(crate) fn from(self, first: usize) -> u64 {
        self.at + (first * self.dtype.size_in_bytes()) as u64
    }
}

/// Whether a tensor of three or four dimensions `[B, C, ..]` has its channels last; with fewer dimensions, whether it is contiguous.
pub(crate) fn is_map(layout: &Layout) -> Result<bool> {
    Ok(match layout.dims().len() {
        4 => layout.permute(&[0, 2, 3, 1])?.is_contiguous(),
        3 => layout.permute(&[0, 2, 1])?.is_contiguous(),
        _ => layout.is_contiguous(),
    })
}

fn address(op: &str, storage: &CudaStorage) -> Result<(u64, DType)> {
    let stream = storage.device.cuda_stream();
    // There is one stream and nothing to wait for, so the guard that would record an event is dropped at once.
    Ok(match &storage.slice {
        CudaStorageSlice::F32(s) => (s.device_ptr(&stream).0, DType::F32),
        CudaStorageSlice::BF16(s) => (s.device_ptr(&stream).0, DType::BF16),
        CudaStorageSlice::F16(s) => (s.device_ptr(&stream).0, DType::F16),
        _ => bail!(
            "{op}: expected f32, bf16 or f16 on a GPU, found {}",
            storage.dtype().as_str()
        ),
    })
}

/// Uninitialised memory for `len` elements.
pub(crate) fn empty(device: &CudaDevice, dtype: DType, len: usize) -> Result<CudaStorage> {
    // SAFETY: callers write every element before it is read.
    unsafe { device.alloc_uninit(&Shape::from(len.max(1)), dtype) }
}

/// `[B, C, H, W]` in memory order.
pub(crate) fn channels_last(batch: usize, c: usize, h: usize, w: usize) -> Shape {
    (batch, h, w, c).into()
}

/// Batch, channels and positions of a feature map of two to four dimensions.
pub(crate) fn dims(layout: &Layout) -> (usize, usize, usize) {
    let dims = layout.dims();
    let (b, c) = (
        dims.first().copied().unwrap_or(1),
        dims.get(1).copied().unwrap_or(1),
    );
    (b, c, dims.iter().skip(2).product())
}

/// The shape of a feature map in memory order.
pub(crate) fn memory_shape(layout: &Layout) -> Shape {
    let dims = layout.dims();
    match *dims {
        [b, c, h, w] => channels_last(b, c, h, w),
        [b, c, n] => (b, n, c).into(),
        _ => layout.shape().clone(),
    }
}
