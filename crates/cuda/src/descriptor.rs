//! Descriptors of cuDNN's backend interface.

use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Attr, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t as Kind,
};
use candle_core::{Error, Result};
use std::ffi::c_void;

/// A descriptor of the backend interface.
pub(crate) struct Descriptor(pub(crate) cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once. A failure cannot be reported.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written before it is read.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut raw) };
        check("a descriptor", status)?;
        Ok(Self(raw))
    }

    pub(crate) fn set<T>(&self, name: Attr, kind: Type, values: &[T]) -> Result<()> {
        let count = i64::try_from(values.len()).unwrap_or(0);
        // SAFETY: `count` values of the type of the attribute.
        let status = unsafe {
            sys::cudnnBackendSetAttribute(self.0, name, kind, count, values.as_ptr().cast())
        };
        check(&format!("{name:?}"), status)
    }

    pub(crate) fn link(&self, name: Attr, to: &[&Descriptor]) -> Result<()> {
        let raw: Vec<_> = to.iter().map(|d| d.0).collect();
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    pub(crate) fn numbers(&self, name: Attr, values: &[i64]) -> Result<()> {
        self.set(name, Type::CUDNN_TYPE_INT64, values)
    }

    pub(crate) fn done(self) -> Result<Self> {
        // SAFETY: a descriptor of this module.
        check("finalize", unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// Fills `values` and returns their number.
    pub(crate) fn get<T>(&self, name: Attr, kind: Type, values: &mut [T]) -> Result<usize> {
        let mut count = 0;
        let room = i64::try_from(values.len()).unwrap_or(0);
        let to = match values.is_empty() {
            true => std::ptr::null_mut(),
            false => values.as_mut_ptr().cast::<c_void>(),
        };
        // SAFETY: room for that many values of the type of the attribute.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &raw mut count, to) };
        check(&format!("{name:?}"), status)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

pub(crate) fn check(what: &str, status: sys::cudnnStatus_t) -> Result<()> {
    status
        .result()
        .map_err(|error| Error::Msg(format!("cuDNN: {what}: {error}")))
}
