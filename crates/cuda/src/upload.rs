//! Numbers to the device and back without waiting for it.

use candle_core::{DType, Device, Result, Shape, Tensor};

/// A tensor of these numbers.
///
/// On a GPU they go through page-locked memory, so that the copy waits for its turn on the device and the program does not.
///
/// # Errors
/// A shape of another size; a device that refuses the memory.
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

/// Numbers on their way back.
#[derive(Debug)]
pub struct Download(Way);

#[derive(Debug)]
enum Way {
    Here(Vec<f64>),
    #[cfg(feature = "cuda")]
    Coming(pinned::Coming),
}

/// Asks for the numbers of a small tensor of one dimension, f64.
///
/// # Errors
/// Another type or number of dimensions; a device that fails.
pub fn download(x: &Tensor) -> Result<Download> {
    if x.dtype() != DType::F64 {
        candle_core::bail!("download: expected f64, found {}", x.dtype().as_str());
    }
    match x.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Download(Way::Coming(pinned::download(x, device)?))),
        _ => Ok(Download(Way::Here(x.to_vec1()?))),
    }
}

impl Download {
    /// Numbers that are here already.
    pub fn here(values: Vec<f64>) -> Self {
        Self(Way::Here(values))
    }

    /// The numbers, as soon as the device has come to them.
    ///
    /// # Errors
    /// Whatever went wrong on the device before.
    pub fn wait(self) -> Result<Vec<f64>> {
        match self.0 {
            Way::Here(values) => Ok(values),
            #[cfg(feature = "cuda")]
            Way::Coming(coming) => coming.wait(),
        }
    }
}

#[cfg(feature = "cuda")]
mod pinned {
    use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice};
    use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, DeviceId, WrapErr};
    use candle_core::op::BackpropOp;
    use candle_core::{CudaStorage, Result, Shape, Storage, Tensor, bail};
    use std::sync::{Mutex, PoisonError};

    /// A page-locked buffer and when its last copy is over.
    struct Buffer {
        device: DeviceId,
        memory: PinnedHostSlice<f32>,
        over: CudaEvent,
    }

    static BUFFERS: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

    pub(super) fn upload(data: &[f32], shape: Shape, device: &CudaDevice) -> Result<Tensor> {
        let stream = device.cuda_stream();
        let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |b: &Buffer| {
            b.device == device.id() && b.memory.len() == data.len() && b.over.is_complete()
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
                    over: stream.record_event(None).w()?,
                });
                buffers.len() - 1
            }
        };
        let buffer = &mut buffers[i];
        buffer.memory.as_mut_slice().w()?.copy_from_slice(data);
        // SAFETY: the copy fills it.
        let mut slice = unsafe { device.alloc::<f32>(data.len())? };
        stream.memcpy_htod(&buffer.memory, &mut slice).w()?;
        buffer.over.record(&stream).w()?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, device.clone()));
        Ok(Tensor::from_storage(
            storage,
            shape,
            BackpropOp::none(),
            false,
        ))
    }

    /// Numbers on their way, in a buffer of their own. Buffers are kept: to give page-locked memory back waits for all work.
    pub(super) struct Coming(Option<Back>);

    struct Back {
        device: DeviceId,
        memory: PinnedHostSlice<f64>,
        over: CudaEvent,
    }

    static BACK: Mutex<Vec<Back>> = Mutex::new(Vec::new());

    impl std::fmt::Debug for Coming {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Coming")
        }
    }

    impl Coming {
        pub(super) fn wait(self) -> Result<Vec<f64>> {
            let Some(back) = &self.0 else {
                bail!("download: waited for twice");
            };
            back.over.synchronize().w()?;
            Ok(back.memory.as_slice().w()?.to_vec())
        }
    }

    impl Drop for Coming {
        fn drop(&mut self) {
            // A buffer that is still written to is taken again when its copy is over.
            if let Some(back) = self.0.take() {
                BACK.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(back);
            }
        }
    }

    pub(super) fn download(x: &Tensor, device: &CudaDevice) -> Result<Coming> {
        let (n, stream) = (x.dims1()?, device.cuda_stream());
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("download: expected a tensor without gaps on the GPU");
        };
        let CudaStorageSlice::F64(slice) = &storage.slice else {
            bail!("download: expected f64");
        };
        let mut kept = BACK.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |b: &Back| b.device == device.id() && b.memory.len() == n && b.over.is_complete();
        let found = kept.iter().position(fits).map(|i| kept.swap_remove(i));
        drop(kept);
        let mut back = match found {
            Some(back) => back,
            None => Back {
                device: device.id(),
                // SAFETY: the copy fills it before anyone reads.
                memory: unsafe { stream.context().alloc_pinned_with_flags::<f64>(n, 0) }.w()?,
                over: stream.record_event(None).w()?,
            },
        };
        stream
            .memcpy_dtoh(&slice.slice(start..end), &mut back.memory)
            .w()?;
        back.over.record(&stream).w()?;
        Ok(Coming(Some(back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_come_back() {
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
