//! The images of a step with everything that comes with them.

use crate::error::Result;
use candle_core::{Device, Tensor};
use sdft_cuda::upload;
use sdft_data::Batch;

/// The images of a step, on the device. A tensor of images alone becomes one without labels, mask and augmentation labels.
#[derive(Clone, Debug)]
pub struct StepImages {
    /// Clean images in [-1, 1], `[B, C, H, W]`.
    pub x0: Tensor,
    /// The class of each image.
    pub labels: Option<Vec<u32>>,
    /// How much each pixel counts in the loss, `[B, 1, H, W]`.
    pub mask: Option<Tensor>,
    /// Augmentation labels, `[B, A]`.
    pub augment: Option<Tensor>,
}

impl From<Tensor> for StepImages {
    fn from(x0: Tensor) -> Self {
        Self {
            x0,
            labels: None,
            mask: None,
            augment: None,
        }
    }
}

impl From<&Tensor> for StepImages {
    fn from(x0: &Tensor) -> Self {
        x0.clone().into()
    }
}

impl StepImages {
    /// The images `x0` of a batch, which are on the device, with the rest of the batch.
    ///
    /// # Errors
    /// The device fails.
    pub fn of(batch: &Batch, x0: &Tensor) -> Result<Self> {
        let ([n, _, h, w], device) = (batch.shape, x0.device());
        let mask = batch.mask.as_ref();
        let augment = batch.augment.as_ref();
        Ok(Self {
            x0: x0.clone(),
            labels: batch.labels.clone(),
            mask: match mask {
                Some(mask) => Some(upload(mask, (n, 1, h, w), device)?),
                None => None,
            },
            augment: match augment {
                Some(labels) => Some(upload(labels, (n, labels.len() / n.max(1)), device)?),
                None => None,
            },
        })
    }

    /// These `n` images.
    pub(crate) fn narrow(&self, start: usize, n: usize) -> Result<Self> {
        let part = |tensor: &Option<Tensor>| -> Result<Option<Tensor>> {
            Ok(match tensor {
                Some(tensor) => Some(tensor.narrow(0, start, n)?),
                None => None,
            })
        };
        let labels = self.labels.as_ref();
        Ok(Self {
            x0: self.x0.narrow(0, start, n)?,
            labels: labels.map(|labels| labels[start..start + n].to_vec()),
            mask: part(&self.mask)?,
            augment: part(&self.augment)?,
        })
    }
}

/// The images of a batch, on the device.
pub(crate) fn to_tensor(batch: &Batch, device: &Device) -> Result<Tensor> {
    let [n, c, h, w] = batch.shape;
    Ok(upload(&batch.data, (n, c, h, w), device)?)
}
