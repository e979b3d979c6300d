//! Copies to the device and back that do not block the program.

use candle_core::{DType, Device, Result, Shape, Tensor};

/// Copies values to a tensor on the device.
///
/// On a GPU they go through page-locked memory, so the copy is queued on the device and this returns at once.
///
/// # Errors
/// A shape of another size, or an allocation that fails.
pub fn upload(data: &[f32], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) if shape.elem_count() == data.len() => {
            pinned::upload(data, shape, device)
        }
        _ => Tensor::from_slice(data, shape, device),
    }
}

/// Values on their way to the host.
#[derive(Debug)]
pub struct Download(State);

#[derive(Debug)]
enum State {
    Ready(Vec<f64>),
    #[cfg(feature = "cuda")]
    Pending(pinned::Pending),
}

/// Starts copying a small f64 tensor of one dimension to the host.
///
/// # Errors
/// Another type or number of dimensions, or a device error.
pub fn download(x: &Tensor) -> Result<Download> {
    if x.dtype() != DType::F64 {
        candle_core::bail!("download: expected f64, found {}", x.dtype().as_str());
    }
    match x.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Download(State::Pending(pinned::download(x, device)?))),
        _ => Ok(Download(State::Ready(x.to_vec1()?))),
    }
}

impl Download {
    /// Values that are on the host already.
    pub fn ready(values: Vec<f64>) -> Self {
        Self(State::Ready(values))
    }

    /// Waits for the values.
    ///
    /// # Errors
    /// A failure of earlier work on the device.
    pub fn wait(self) -> Result<Vec<f64>> {
        match self.0 {
            State::Ready(values) => Ok(values),
            #[cfg(feature = "cuda")]
            State::Pending(pending) => pending.wait(),
        }
    }
}

#[cfg(feature = "cuda")]
mod pinned {
    use crate::recording::is_recording;
    use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice};
    use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, DeviceId, WrapErr};
    use candle_core::op::BackpropOp;
    use candle_core::{CudaStorage, Result, Shape, Storage, Tensor, bail};
    use std::sync::{Mutex, PoisonError};

    /// A page-locked buffer and the end of its last copy.
    struct Buffer {
        device: DeviceId,
        memory: PinnedHostSlice<f32>,
        done: CudaEvent,
    }

    static BUFFERS: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

    pub(super) fn upload(data: &[f32], shape: Shape, device: &CudaDevice) -> Result<Tensor> {
        if is_recording() {
            bail!("a recording cannot upload values");
        }
        let stream = device.cuda_stream();
        let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |b: &Buffer| {
            b.device == device.id() && b.memory.len() == data.len() && b.done.is_complete()
        };
        let i = match buffers.iter().position(fits) {
            Some(i) => i,
            None => {
                // SAFETY: written before it is read, below.
                let memory = unsafe {
                    stream
                        .context()
                        .alloc_pinned_with_flags::<f32>(data.len(), 0)
                }
                .w()?;
                buffers.push(Buffer {
                    device: device.id(),
                    memory,
                    done: stream.record_event(None).w()?,
                });
                buffers.len() - 1
            }
        };
        let buffer = &mut buffers[i];
        buffer.memory.as_mut_slice().w()?.copy_from_slice(data);
        // SAFETY: the copy fills it.
        let mut slice = unsafe { device.alloc::<f32>(data.len())? };
        stream.memcpy_htod(&buffer.memory, &mut slice).w()?;
        buffer.done.record(&stream).w()?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, device.clone()));
        Ok(Tensor::from_storage(
            storage,
            shape,
            BackpropOp::none(),
            false,
        ))
    }

    /// Values on their way to a page-locked buffer. Buffers are reused, because freeing page-locked memory waits for all work.
    pub(super) struct Pending(Option<Back>);

    struct Back {
        device: DeviceId,
        memory: PinnedHostSlice<f64>,
        done: CudaEvent,
    }

    static BACK: Mutex<Vec<Back>> = Mutex::new(Vec::new());

    impl std::fmt::Debug for Pending {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Pending")
        }
    }

    impl Pending {
        pub(super) fn wait(self) -> Result<Vec<f64>> {
            let Some(back) = &self.0 else {
                bail!("download: the values were taken already");
            };
            back.done.synchronize().w()?;
            Ok(back.memory.as_slice().w()?.to_vec())
        }
    }

    impl Drop for Pending {
        fn drop(&mut self) {
            // A buffer that is still written to is reused when its copy is done.
            if let Some(back) = self.0.take() {
                BACK.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(back);
            }
        }
    }

    pub(super) fn download(x: &Tensor, device: &CudaDevice) -> Result<Pending> {
        if is_recording() {
            bail!("a recording cannot read values");
        }
        let (n, stream) = (x.dims1()?, device.cuda_stream());
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("download: expected a contiguous tensor on the GPU");
        };
        let CudaStorageSlice::F64(slice) = &storage.slice else {
            bail!("download: expected f64");
        };
        let mut free = BACK.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |b: &Back| b.device == device.id() && b.memory.len() == n && b.done.is_complete();
        let found = free.iter().position(fits).map(|i| free.swap_remove(i));
        drop(free);
        let mut back = match found {
            Some(back) => back,
            None => Back {
                device: device.id(),
                // SAFETY: the copy fills it before it is read.
                memory: unsafe { stream.context().alloc_pinned_with_flags::<f64>(n, 0) }.w()?,
                done: stream.record_event(None).w()?,
            },
        };
        stream
            .memcpy_dtoh(&slice.slice(start..end), &mut back.memory)
            .w()?;
        back.done.record(&stream).w()?;
        Ok(Pending(Some(back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_copied_there_and_back() {
        let x = upload(&[1.0, 2.0, 3.0, 4.0], (2, 2), &Device::Cpu).unwrap();
        assert_eq!(x.dims(), [2, 2]);
        let wide = x.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        assert_eq!(
            download(&wide).unwrap().wait().unwrap(),
            [1.0, 2.0, 3.0, 4.0]
        );
        assert!(download(&x.flatten_all().unwrap()).is_err());
        assert!(upload(&[1.0], (2, 2), &Device::Cpu).is_err());
    }
}
