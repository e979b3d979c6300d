//! LPIPS: perceptual distance of images.

use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_autograd::{conv2d, pool, relu};
use sdft_kernels::PoolKind;
use sdft_nn::{Init, ParamSource, ParamSpec, Scope, specs_of};

/// Added to the norm of a feature vector, after the root.
const EPS: f64 = 1e-10;
/// The scaling layer: channel means and deviations of images in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The network whose layers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LpipsNet {
    /// AlexNet, the default of the package and the usual choice for published numbers.
    Alex,
    /// VGG16.
    Vgg,
}

/// Index in torchvision's `features`, output channels, kernel, stride, padding.
type Row = (usize, usize, usize, usize, usize);

impl LpipsNet {
    /// The convolutions of each of the five slices. All slices except the first start with a pool.
    fn slices(self) -> [&'static [Row]; 5] {
        match self {
            Self::Alex => [
                &[(0, 64, 11, 4, 2)],
                &[(3, 192, 5, 1, 2)],
                &[(6, 384, 3, 1, 1)],
                &[(8, 256, 3, 1, 1)],
                &[(10, 256, 3, 1, 1)],
            ],
            Self::Vgg => [
                &[(0, 64, 3, 1, 1), (2, 64, 3, 1, 1)],
                &[(5, 128, 3, 1, 1), (7, 128, 3, 1, 1)],
                &[(10, 256, 3, 1, 1), (12, 256, 3, 1, 1), (14, 256, 3, 1, 1)],
                &[(17, 512, 3, 1, 1), (19, 512, 3, 1, 1), (21, 512, 3, 1, 1)],
                &[(24, 512, 3, 1, 1), (26, 512, 3, 1, 1), (28, 512, 3, 1, 1)],
            ],
        }
    }

    /// The window of the pool in front of a slice; its stride is 2.
    fn pool_before(self, slice: usize) -> Option<usize> {
        match (self, slice) {
            (Self::Alex, 1 | 2) => Some(3),
            (Self::Vgg, 1..) => Some(2),
            _ => None,
        }
    }

    /// The slice that convolution `index` of torchvision's `features` belongs to, counted from 0, if the network has it.
    pub(crate) fn slice_of(self, index: usize) -> Option<usize> {
        self.slices()
            .iter()
            .position(|rows| rows.iter().any(|row| row.0 == index))
    }

    /// The smallest side of an image that has a pixel in every layer.
    fn smallest(self) -> usize {
        match self {
            Self::Alex => 31,
            Self::Vgg => 16,
        }
    }
}

/// The learned perceptual distance of two images, version 0.1.
///
/// ```text
/// d = sum over layers of mean over pixels of sum over channels of w_c (a_c/|a| - b_c/|b|)^2
/// ```
/// Source: PerceptualSimilarity `lpips.LPIPS`; the keys are its own.
#[derive(Clone, Debug)]
pub struct Lpips {
    net: LpipsNet,
    slices: Vec<Vec<Conv>>,
    heads: Vec<Tensor>,
    shift: Tensor,
    scale: Tensor,
    compute_dtype: DType,
}

#[derive(Clone, Debug)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    pad: usize,
}

/// The distances of a batch of pairs.
#[derive(Clone, Debug)]
pub struct LpipsDistance {
    /// Distance of each pair, `[B]`.
    pub total: Tensor,
    /// The contribution of each of the five layers, `[B, 5]`.
    pub per_layer: Tensor,
}

impl Lpips {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(net: LpipsNet, source: &dyn ParamSource) -> Result<Self> {
        Self::build(net, &Scope::root(source))
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs(net: LpipsNet) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(net, scope))
    }

    fn build(net: LpipsNet, scope: &Scope<'_>) -> Result<Self> {
        let (mut slices, mut heads, mut c_in) = (Vec::new(), Vec::new(), 3);
        for (i, rows) in net.slices().into_iter().enumerate() {
            let mut convs = Vec::with_capacity(rows.len());
            for &(index, c_out, k, stride, pad) in rows {
                let at = scope.pp("net").pp(format!("slice{}", i + 1)).pp(index);
                let init = Init::fan_in(c_in * k * k);
                convs.push(Conv {
                    weight: at.get("weight", &[c_out, c_in, k, k], init)?,
                    bias: at.get("bias", &[c_out], init)?,
                    stride,
                    pad,
                });
                c_in = c_out;
            }
            slices.push(convs);
            let head = scope.pp(format!("lin{i}")).pp("model.1");
            let head = head.get("weight", &[1, c_in, 1, 1], Init::Uniform(1.0))?;
            heads.push(head);
        }
        let device = heads[0].device();
        Ok(Self {
            net,
            slices,
            shift: Tensor::new(&SHIFT, device)?.reshape((1, 3, 1, 1))?,
            scale: Tensor::new(&SCALE, device)?.reshape((1, 3, 1, 1))?,
            heads,
            compute_dtype: DType::F32,
        })
    }

    /// The network with convolutions of this type. Weights stay f32, as does all that is computed from their results.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        Self {
            compute_dtype,
            ..self
        }
    }

    /// The device of its parameters, where images must be.
    pub fn device(&self) -> &Device {
        self.shift.device()
    }

    /// The feature maps after each slice, `[B, C_i, H_i, W_i]`.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]` in [-1, 1]
    ///
    /// # Errors
    /// Images with other channels, or too small for the last layer.
    pub fn maps(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let (_, c, h, w) = x.dims4()?;
        let smallest = self.net.smallest();
        if c != 3 || h.min(w) < smallest {
            bail!(
                "LPIPS: expected images of 3 channels and at least {smallest}x{smallest} pixels, found {c}x{h}x{w}"
            );
        }
        let h = x.broadcast_sub(&self.shift)?.broadcast_div(&self.scale)?;
        let mut h = h.to_dtype(self.compute_dtype)?;
        let mut maps = Vec::with_capacity(self.slices.len());
        for (i, slice) in self.slices.iter().enumerate() {
            if let Some(k) = self.net.pool_before(i) {
                h = pool(&h, PoolKind::Max, k, 2, 0)?;
            }
            for conv in slice {
                h = relu(&conv2d(
                    &h,
                    &conv.weight,
                    &conv.bias,
                    conv.stride,
                    [conv.pad; 2],
                )?)?;
            }
            maps.push(h.to_dtype(x.dtype())?);
        }
        Ok(maps)
    }

    /// The perceptual distance of each pair; 0 for equal images. Differentiable.
    ///
    /// # Shapes
    /// - `a`, `b`: `[B, 3, H, W]` in [-1, 1]
    ///
    /// # Errors
    /// Batches of different shape, and those of [`Self::maps`].
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Result<LpipsDistance> {
        if a.dims() != b.dims() {
            bail!(
                "LPIPS: expected two batches of one shape, found {:?} and {:?}",
                a.dims(),
                b.dims()
            );
        }
        let mut layers = Vec::with_capacity(self.heads.len());
        for ((a, b), head) in self.maps(a)?.iter().zip(&self.maps(b)?).zip(&self.heads) {
            let difference = (unit(a)? - unit(b)?)?.sqr()?;
            let weighted = difference.broadcast_mul(head)?.sum(1)?;
            layers.push(weighted.flatten_from(1)?.mean(1)?);
        }
        let per_layer = Tensor::stack(&layers, 1)?;
        Ok(LpipsDistance {
            total: per_layer.sum(1)?,
            per_layer,
        })
    }

    /// Vectors of images whose squared Euclidean distance is the perceptual distance, `[B, D]`. So many images can be compared after the
    /// network has seen each of them once. `D` grows with the pixels: VGG16 has 8.0 million numbers at 256x256, AlexNet 0.64 million.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]` in [-1, 1]
    ///
    /// # Errors
    /// Heads with negative weights, which no published file has, and those of [`Self::maps`].
    pub fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(self.heads.len());
        for (i, (map, head)) in self.maps(x)?.iter().zip(&self.heads).enumerate() {
            if head.flatten_all()?.min(0)?.to_scalar::<f32>()? < 0.0 {
                bail!("lin{i} of LPIPS: expected weights of at least 0, found negative ones");
            }
            let (_, _, h, w) = map.dims4()?;
            let root = (head / (h * w) as f64)?.sqrt()?;
            parts.push(unit(map)?.broadcast_mul(&root)?.flatten_from(1)?);
        }
        Tensor::cat(&parts, 1)
    }
}

/// LPIPS without learned weights, on the feature maps of any network: the sum over the maps of the mean over pixels of
/// `|a/|a| - b/|b||²`, for each pair, `[B]`. Differentiable.
///
/// # Shapes
/// - `a`, `b`: lists of `[B, C_i, H_i, W_i]`, of the same shapes
///
/// # Errors
/// Different shapes.
pub fn feature_distance(a: &[Tensor], b: &[Tensor]) -> Result<Tensor> {
    let layers = a.iter().zip(b).map(|(a, b)| {
        let difference = (unit(a)? - unit(b)?)?.sqr()?.sum(1)?;
        difference.flatten_from(1)?.mean(1)
    });
    Tensor::stack(&layers.collect::<Result<Vec<_>>>()?, 1)?.sum(1)
}

/// Each pixel's features as a unit vector.
fn unit(map: &Tensor) -> Result<Tensor> {
    map.broadcast_div(&(map.sqr()?.sum_keepdim(1)?.sqrt()? + EPS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_nn::Params;

    #[test]
    fn squared_distances_of_vectors_are_perceptual_distances() {
        for net in [LpipsNet::Alex, LpipsNet::Vgg] {
            let specs = Lpips::specs(net).unwrap();
            let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
            let load = |absolute: bool| {
                let entries = params.iter().map(|(name, tensor)| {
                    let is_head = absolute && name.starts_with("lin");
                    let tensor = if is_head {
                        tensor.abs().unwrap()
                    } else {
                        tensor.clone()
                    };
                    (name.to_owned(), tensor)
                });
                Lpips::load(net, &Params::new(entries.collect())).unwrap()
            };
            let wave = |k: f32| {
                let values = (0..3 * 40 * 48).map(|i| (i as f32 * k).sin());
                let x = Tensor::from_iter(values, &Device::Cpu).unwrap();
                x.reshape((1, 3, 40, 48)).unwrap()
            };
            let (a, b) = (wave(0.05), wave(0.31));
            let lpips = load(true);
            let expected = lpips.distance(&a, &b).unwrap().total;
            let expected = expected.to_vec1::<f32>().unwrap()[0];
            let both = lpips
                .embed(&Tensor::cat(&[a.clone(), b], 0).unwrap())
                .unwrap();
            let difference = (both.get(0).unwrap() - both.get(1).unwrap()).unwrap();
            let squares = difference.sqr().unwrap().sum_all().unwrap();
            let found = squares.to_scalar::<f32>().unwrap();
            assert!(expected > 1e-3 && (found - expected).abs() < 1e-5 * expected.max(1.0));
            let error = load(false).embed(&a).unwrap_err().to_string();
            assert!(error.contains("lin0"), "{error}");
        }
    }
}
