//! The judge of the embedded digits.

use candle_core::{Result, Tensor, bail};
use sdft_autograd::average_pool_2x;
use sdft_nn::{Conv2d, ConvStart, Linear, ParamSource, ParamSpec, Scope, specs_of};

/// Side of the images.
const SIDE: usize = 16;
/// Channels after each of the three convolutions.
const WIDTHS: [usize; 3] = [16, 32, 64];
/// Width of the last hidden layer.
const FEATURES: usize = 64;
/// Digits.
const CLASSES: usize = 10;

/// Classifies the digit and the style of an image: three convolutions, one layer of 64 features, eleven logits.
#[derive(Clone, Debug)]
pub struct DigitsJudge {
    convs: [Conv2d; 3],
    hidden: Linear,
    answers: Linear,
}

/// The outputs of [`DigitsJudge`] for a batch.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Logits of the ten digits, `[B, 10]`.
    pub classes: Tensor,
    /// Logit of the target style (ember, not chalk), `[B]`.
    pub style: Tensor,
    /// The 64 features, `[B, 64]`.
    pub features: Tensor,
    /// The outputs after each convolution, `[B, 16, 16, 16]`, `[B, 32, 8, 8]`, `[B, 64, 4, 4]`.
    pub maps: Vec<Tensor>,
}

impl DigitsJudge {
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
        let conv = |i: usize, c_in| {
            Conv2d::load(
                &scope.pp(format!("conv{i}")),
                c_in,
                WIDTHS[i],
                3,
                1,
                ConvStart::FanIn,
            )
        };
        let side = SIDE / 4;
        Ok(Self {
            convs: [conv(0, 3)?, conv(1, WIDTHS[0])?, conv(2, WIDTHS[1])?],
            hidden: Linear::load(&scope.pp("hidden"), WIDTHS[2] * side * side, FEATURES)?,
            answers: Linear::load(&scope.pp("answers"), FEATURES, CLASSES + 1)?,
        })
    }

    /// The outputs for `[B, 3, 16, 16]` in [-1, 1], or for grey images `[B, 1, 16, 16]`, which are repeated. Differentiable.
    ///
    /// # Errors
    /// Images of another size or number of channels.
    pub fn classify(&self, x: &Tensor) -> Result<Judgement> {
        let (b, c, h, w) = x.dims4()?;
        if !matches!(c, 1 | 3) || (h, w) != (SIDE, SIDE) {
            bail!(
                "the digits judge: expected 3x{SIDE}x{SIDE} or 1x{SIDE}x{SIDE} images, found {c}x{h}x{w}"
            );
        }
        let mut maps = Vec::with_capacity(3);
        let mut h = match c {
            1 => x.expand((b, 3, SIDE, SIDE))?.contiguous()?,
            _ => x.clone(),
        };
        for (i, conv) in self.convs.iter().enumerate() {
            let input = if i == 0 { h } else { average_pool_2x(&h)? };
            h = conv.forward(&input)?.relu()?;
            maps.push(h.clone());
        }
        let features = self.hidden.forward(&h.flatten_from(1)?)?.relu()?;
        let answers = self.answers.forward(&features)?;
        Ok(Judgement {
            classes: answers.narrow(1, 0, CLASSES)?,
            style: answers.narrow(1, CLASSES, 1)?.squeeze(1)?,
            features,
            maps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use sdft_nn::Params;

    #[test]
    fn every_parameter_gets_a_gradient_and_other_sizes_are_refused() {
        let (params, vars) = Params::init(&DigitsJudge::specs().unwrap(), 3, &Device::Cpu)
            .unwrap()
            .trainable()
            .unwrap();
        let judge = DigitsJudge::load(&params).unwrap();
        let x = Tensor::arange(0f32, 1536.0, &Device::Cpu)
            .unwrap()
            .reshape((2, 3, 16, 16))
            .unwrap();
        let seen = judge.classify(&(x / 1536.0).unwrap()).unwrap();
        assert_eq!(
            seen.maps
                .iter()
                .map(|m| m.dims()[1..].to_vec())
                .collect::<Vec<_>>(),
            [[16, 16, 16], [32, 8, 8], [64, 4, 4]]
        );
        let loss = (seen.classes.sqr().unwrap().sum_all().unwrap()
            + seen.style.sqr().unwrap().sum_all().unwrap())
        .unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in &vars {
            let size = gradients
                .get(var)
                .unwrap()
                .abs()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(size > 0.0, "{name}");
        }
        let grey = Tensor::ones((1, 1, 16, 16), DType::F32, &Device::Cpu).unwrap();
        let colour = Tensor::ones((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
        let [grey, colour] = [grey, colour].map(|x| {
            let seen = judge.classify(&x).unwrap();
            seen.classes.to_vec2::<f32>().unwrap()
        });
        assert_eq!(grey, colour);
        assert!(
            judge
                .classify(&Tensor::zeros((1, 3, 8, 8), DType::F32, &Device::Cpu).unwrap())
                .is_err()
        );
    }
}
