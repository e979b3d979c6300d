//! ArcFace: identity similarity of faces.

use crate::conv_norm::{ConvNorm, ConvSpec, FoldedNorm};
use crate::narrow::narrowed;
use crate::resample::adaptive_average;
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{conv2d, linear, relu, separable};
use sdft_nn::{Init, ParamSource, ParamSpec, Scope, specs_of};

const EPS: f64 = 1e-5;
/// Side of the input images, to which the crop below applies.
pub const IDENTITY_SIDE: usize = 256;
/// First row and column of the face, and its side.
const CROP: (usize, usize, usize) = (35, 32, 188);
/// Side of the cropped and resized face.
const SEEN: usize = 112;
/// Input channels, output channels and units of each stage; the first unit of a stage halves the image.
const STAGES: [(usize, usize, usize); 4] =
    [(64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3)];

/// ArcFace with an IR-SE50 body: unit vectors of identity for aligned faces as in FFHQ, at 256 x 256.
///
/// Source: `IDLoss` and `Backbone(112, 50, "ir_se")` of StyleCLIP, DiffusionCLIP and Asyrp.
#[derive(Clone, Debug)]
pub struct IdentityNet {
    stem: (ConvNorm, Tensor),
    units: Vec<Unit>,
    before: FoldedNorm,
    dense: (Tensor, Tensor),
    compute_dtype: DType,
}

#[derive(Clone, Debug)]
struct Unit {
    stride: usize,
    shortcut: Option<ConvNorm>,
    norm: FoldedNorm,
    first: Tensor,
    zeros: Tensor,
    slope: Tensor,
    second: ConvNorm,
    squeeze: (Tensor, Tensor),
    excite: (Tensor, Tensor),
}

/// `x` where positive, `slope x` elsewhere.
fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    let positive = relu(x)?;
    let slope = slope.reshape((1, slope.elem_count(), 1, 1))?;
    let negative = (x - &positive)?.broadcast_mul(&slope)?;
    positive + negative
}

impl Unit {
    fn load(scope: &Scope<'_>, c_in: usize, c_out: usize, stride: usize) -> Result<Self> {
        let (main, side) = (scope.pp("res_layer"), scope.pp("shortcut_layer"));
        let shortcut = if c_in == c_out {
            None
        } else {
            let spec = ConvSpec {
                c_in,
                c_out,
                k: [1, 1],
                stride,
                pad: [0, 0],
            };
            Some(ConvNorm::load(&side.pp(0), &side.pp(1), spec, EPS)?)
        };
        let norm = FoldedNorm::load(&main.pp(0), c_in, EPS)?;
        let init = Init::fan_in(9 * c_in);
        let first = main.pp(1).get("weight", &[c_out, c_in, 3, 3], init)?;
        let slope = main.pp(2).get("weight", &[c_out], Init::Constant(0.25))?;
        let spec = ConvSpec {
            c_in: c_out,
            c_out,
            k: [3, 3],
            stride,
            pad: [1, 1],
        };
        let second = ConvNorm::load(&main.pp(3), &main.pp(4), spec, EPS)?;
        let narrow = c_out / 16;
        let gate = |name: &str, n_in: usize, n_out: usize| -> Result<(Tensor, Tensor)> {
            let weight =
                main.pp(5)
                    .pp(name)
                    .get("weight", &[n_out, n_in, 1, 1], Init::fan_in(n_in))?;
            let zeros = Tensor::zeros(n_out, weight.dtype(), weight.device())?;
            Ok((weight.reshape((n_out, n_in))?, zeros))
        };
        Ok(Self {
            stride,
            shortcut,
            norm,
            zeros: Tensor::zeros(c_out, first.dtype(), first.device())?,
            first,
            slope,
            second,
            squeeze: gate("fc1", c_out, narrow)?,
            excite: gate("fc2", narrow, c_out)?,
        })
    }

    /// Convolutions read and write maps of type `dtype`.
    fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let shortcut = match &self.shortcut {
            Some(conv) => narrowed(x, dtype, |x| conv.forward(x))?,
            None if self.stride == 1 => x.clone(),
            // Max pooling with windows of one pixel takes every second pixel.
            None => {
                let even = |side: usize| {
                    let places: Vec<u32> = (0..side as u32).step_by(self.stride).collect();
                    Tensor::new(places, x.device())
                };
                let (_, _, h, w) = x.dims4()?;
                let rows = x.contiguous()?.index_select(&even(h)?, 2)?;
                rows.index_select(&even(w)?, 3)?
            }
        };
        let h = narrowed(&self.norm.forward(x)?, dtype, |x| {
            conv2d(x, &self.first, &self.zeros, 1, [1, 1])
        })?;
        let h = narrowed(&prelu(&h, &self.slope)?, dtype, |x| self.second.forward(x))?;
        let mean = h.flatten_from(2)?.mean(2)?;
        let gate = relu(&linear(&mean, &self.squeeze.0, &self.squeeze.1)?)?;
        let gate = linear(&gate, &self.excite.0, &self.excite.1)?;
        let gate = candle_nn::ops::sigmoid(&gate)?;
        h.broadcast_mul(&gate.unsqueeze(2)?.unsqueeze(3)?)? + shortcut
    }
}

impl IdentityNet {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource) -> Result<Self> {
        Self::build(&Scope::root(source))
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs() -> Result<Vec<ParamSpec>> {
        specs_of(Self::build)
    }

    fn build(scope: &Scope<'_>) -> Result<Self> {
        let input = scope.pp("input_layer");
        let spec = ConvSpec {
            c_in: 3,
            c_out: 64,
            k: [3, 3],
            stride: 1,
            pad: [1, 1],
        };
        let stem = ConvNorm::load(&input.pp(0), &input.pp(1), spec, EPS)?;
        let slope = input.pp(2).get("weight", &[64], Init::Constant(0.25))?;
        let mut units = Vec::with_capacity(24);
        for (c_in, c_out, n) in STAGES {
            for i in 0..n {
                let (c_in, stride) = if i == 0 { (c_in, 2) } else { (c_out, 1) };
                let at = scope.pp("body").pp(units.len());
                units.push(Unit::load(&at, c_in, c_out, stride)?);
            }
        }
        let output = scope.pp("output_layer");
        let before = FoldedNorm::load(&output.pp(0), 512, EPS)?;
        let n = 512 * (SEEN / 16) * (SEEN / 16);
        let weight = output.pp(3).get("weight", &[512, n], Init::fan_in(n))?;
        let bias = output.pp(3).get("bias", &[512], Init::fan_in(n))?;
        let after = FoldedNorm::load(&output.pp(4), 512, EPS)?;
        Ok(Self {
            stem: (stem, slope),
            units,
            before,
            dense: (
                weight.broadcast_mul(&after.scale.reshape((512, 1))?)?,
                ((bias * after.scale)? + after.shift)?,
            ),
            compute_dtype: DType::F32,
        })
    }

    /// The network with convolutions of this type. Weights stay f32, as does all that is between the convolutions.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        Self {
            compute_dtype,
            ..self
        }
    }

    /// Crops the face and downsamples it by averaging.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, 256, 256]` in [-1, 1] · returns `[B, 3, 112, 112]`
    ///
    /// # Errors
    /// Images of another size.
    pub fn face(x: &Tensor) -> Result<Tensor> {
        let (_, c, h, w) = x.dims4()?;
        if (c, h, w) != (3, IDENTITY_SIDE, IDENTITY_SIDE) {
            bail!(
                "the identity network: expected 3x{IDENTITY_SIDE}x{IDENTITY_SIDE} images, found {c}x{h}x{w}"
            );
        }
        let (top, left, side) = CROP;
        let crop = x.narrow(2, top, side)?.narrow(3, left, side)?;
        let mean = adaptive_average(side, SEEN, x.dtype(), x.device())?;
        separable(&mean, &crop, &mean)
    }

    /// Unit vectors, one per image, `[B, 512]`; their dot product is the identity similarity.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, 256, 256]` in [-1, 1]
    ///
    /// # Errors
    /// Images of another size.
    pub fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let (stem, slope) = &self.stem;
        let h = narrowed(&Self::face(x)?, self.compute_dtype, |x| stem.forward(x))?;
        let mut h = prelu(&h, slope)?;
        for unit in &self.units {
            h = unit.forward(&h, self.compute_dtype)?;
        }
        let flat = self.before.forward(&h)?.flatten_from(1)?;
        let embedding = linear(&flat, &self.dense.0, &self.dense.1)?;
        embedding.broadcast_div(&embedding.sqr()?.sum_keepdim(1)?.sqrt()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_face_has_its_golden_values_and_other_sizes_are_refused() {
        let x: Vec<f32> = (0..3 * 256 * 256)
            .map(|n| (0.05 * f64::from(n)).sin() as f32)
            .collect();
        let x = Tensor::from_vec(x, (1, 3, 256, 256), &Device::Cpu).unwrap();
        let face = IdentityNet::face(&x).unwrap();
        assert_eq!(face.dims(), [1, 3, 112, 112]);
        let values = face.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in values
            .iter()
            .zip([-0.470_829_9, -0.534_726_7, -0.615_512_7])
        {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        let all: f64 = values.iter().map(|&v| f64::from(v.abs())).sum();
        assert!((sum - 3.552_393).abs() < 1e-3, "{sum}");
        assert!((all - 23_605.009_348).abs() < 0.1, "{all}");
        let small = Tensor::zeros((1, 3, 128, 128), DType::F32, &Device::Cpu).unwrap();
        assert!(IdentityNet::face(&small).is_err());
    }

    #[test]
    fn the_gradient_of_an_image_is_that_of_finite_differences() {
        use sdft_nn::Params;
        let params = Params::init(&IdentityNet::specs().unwrap(), 1, &Device::Cpu).unwrap();
        let net = IdentityNet::load(&params).unwrap();
        let wave = |k: f64| -> Tensor {
            let values: Vec<f32> = (0..3 * 256 * 256)
                .map(|n| (k * f64::from(n)).sin() as f32)
                .collect();
            Tensor::from_vec(values, (1, 3, 256, 256), &Device::Cpu).unwrap()
        };
        let (x, way) = (wave(0.05), wave(0.013));
        let other = net.embed(&wave(0.031)).unwrap();
        let same = |x: &Tensor| (net.embed(x).unwrap() * &other).unwrap().sum_all().unwrap();
        let var = candle_core::Var::from_tensor(&x).unwrap();
        let gradient = sdft_autograd::backward(&same(var.as_tensor())).unwrap();
        let gradient = gradient.get(&var).unwrap();
        let along = (gradient * &way).unwrap().sum_all().unwrap();
        let along = along.to_scalar::<f32>().unwrap();
        let at = |h: f64| {
            let moved = (&x + (&way * h).unwrap()).unwrap();
            f64::from(same(&moved).to_scalar::<f32>().unwrap())
        };
        let h = 0.02;
        let expected = (at(h) - at(-h)) / (2.0 * h);
        let error = (f64::from(along) - expected).abs();
        assert!(
            expected.abs() > 1e-4 && error < 0.03 * expected.abs(),
            "{along} {expected}"
        );
    }
}
