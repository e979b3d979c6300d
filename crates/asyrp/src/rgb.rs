//! Images of other channels as networks for RGB see them.

use candle_core::{Result, Tensor, bail};

/// Images of 1 to 4 channels as red, green and blue, differentiably: grey is repeated, of 2 channels the first is grey, and of 4 the last
/// is alpha, composed on white.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` in [-1, 1] · returns: `[B, 3, H, W]`
///
/// # Errors
/// More than 4 channels, which have no colours.
pub fn as_rgb(x: &Tensor) -> Result<Tensor> {
    let (n, channels, h, w) = x.dims4()?;
    match channels {
        1 | 2 => x.narrow(1, 0, 1)?.broadcast_as((n, 3, h, w))?.contiguous(),
        3 => Ok(x.clone()),
        4 => {
            let alpha = x.narrow(1, 3, 1)?.affine(0.5, 0.5)?;
            // alpha c + (1 - alpha), where white is 1.
            let below_white = x.narrow(1, 0, 3)?.affine(1.0, -1.0)?;
            below_white.broadcast_mul(&alpha)?.affine(1.0, 1.0)
        }
        _ => bail!(
            "expected images of 1 to 4 channels, which can be seen as red, green and blue, found {channels}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn seen(pixel: &[f32]) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(pixel, (1, pixel.len(), 1, 1), &Device::Cpu)?;
        as_rgb(&x)?.flatten_all()?.to_vec1()
    }

    #[test]
    fn grey_is_repeated_and_alpha_is_composed_on_white() {
        assert_eq!(seen(&[0.25]).unwrap(), [0.25; 3]);
        assert_eq!(seen(&[0.25, -1.0]).unwrap(), [0.25; 3]);
        assert_eq!(seen(&[0.1, 0.2, 0.3]).unwrap(), [0.1, 0.2, 0.3]);
        assert_eq!(seen(&[-1.0, 0.5, 1.0, 1.0]).unwrap(), [-1.0, 0.5, 1.0]);
        assert_eq!(seen(&[-1.0, 0.5, 1.0, -1.0]).unwrap(), [1.0; 3]);
        assert_eq!(seen(&[-1.0, 0.5, 1.0, 0.0]).unwrap(), [0.0, 0.75, 1.0]);
        let error = seen(&[0.0; 5]).unwrap_err().to_string();
        assert!(error.contains("found 5"), "{error}");
    }
}
