//! Convolution with a change of resolution, and dense layer, as NVlabs/edm has them.

use crate::plan::{Change, Plan};
use candle_core::{Device, Result, Tensor, bail};
use sdft_autograd::{
    average_pool_2x, conv2d, linear, resample_filter_down, resample_filter_up, upsample_nearest_2x,
};
use sdft_nn::{EmbLayer, GroupNorm, Init, Scope, Taps};

/// The initial weights of a layer, as a share of the usual ones of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Usual,
    /// Almost zero in `SongUNet`, zero in `DhariwalUNet`: the last layer of a branch.
    Zero,
    /// Smaller in `SongUNet`: queries, keys and values.
    Attention,
}

/// Whose initial values a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// Xavier-uniform weights, biases of zero.
    Song,
    /// Kaiming-uniform weights and biases, which are PyTorch's default.
    Dhariwal,
}

impl Make {
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        match plan.song {
            Some(_) => Self::Song,
            None => Self::Dhariwal,
        }
    }

    pub(crate) fn weight(self, start: Start, fan_in: usize, fan_out: usize) -> Init {
        match (self, start) {
            (Self::Song, _) => {
                let share = match start {
                    Start::Usual => 1.0,
                    Start::Zero => 1e-5,
                    Start::Attention => 0.2f64.sqrt(),
                };
                Init::Uniform(share * (6.0 / (fan_in + fan_out) as f64).sqrt())
            }
            (Self::Dhariwal, Start::Zero) => Init::Constant(0.0),
            (Self::Dhariwal, Start::Usual | Start::Attention) => Init::fan_in(fan_in),
        }
    }

    fn bias(self, start: Start, fan_in: usize) -> Init {
        match (self, start) {
            (Self::Song, _) | (_, Start::Zero) => Init::Constant(0.0),
            (Self::Dhariwal, _) => Init::fan_in(fan_in),
        }
    }

    /// Added to the variance by norms.
    pub(crate) fn eps(self) -> f64 {
        match self {
            Self::Song => 1e-6,
            Self::Dhariwal => 1e-5,
        }
    }
}

/// A change of resolution by two with a separable filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// With a sum of 1.
    taps: Tensor,
    len: usize,
    /// Whether this is pooling or nearest-neighbour upsampling.
    is_box: bool,
    up: bool,
}

impl Filter {
    /// Key `resample_filter`, a constant; none without a change.
    fn load(scope: &Scope<'_>, change: Change, filter: &[f64]) -> Result<Option<Self>> {
        if change == Change::None {
            return Ok(None);
        }
        let Some(taps) = Taps::new(filter) else {
            bail!(
                "resample_filter: expected up to 16 taps, found {}",
                filter.len()
            );
        };
        // The values follow from the configuration; `Constants` compares them.
        let like = scope.get(
            "resample_filter",
            &[1, 1, filter.len(), filter.len()],
            Init::Outer(taps),
        )?;
        let taps = taps.normalised();
        Ok(Some(Self {
            len: taps.len(),
            is_box: matches!(taps[..], [a, b] if a == b),
            taps: Tensor::new(taps, &Device::Cpu)?
                .to_dtype(like.dtype())?
                .to_device(like.device())?,
            up: change == Change::Up,
        }))
    }

    fn pad(&self) -> usize {
        (self.len - 1) / 2
    }

    fn forward(&self, x: &Tensor, pad: usize) -> Result<Tensor> {
        match (self.is_box, self.up) {
            (true, true) => upsample_nearest_2x(x),
            (true, false) => average_pool_2x(x),
            (false, true) => resample_filter_up(x, &self.taps, pad),
            (false, false) => resample_filter_down(x, &self.taps, pad),
        }
    }
}

/// A change of resolution without a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Resize(Filter);

impl Resize {
    pub(crate) fn load(scope: &Scope<'_>, change: Change, filter: &[f64]) -> Result<Self> {
        match Filter::load(scope, change, filter)? {
            Some(filter) => Ok(Self(filter)),
            None => bail!("{}: expected a change of resolution", scope.prefix()),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x, self.0.pad())
    }
}

/// The choices of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct ConvSpec<'a> {
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    /// Side of the filters.
    pub(crate) k: usize,
    /// Change of resolution before the convolution, or after it where `fused`.
    pub(crate) change: Change,
    pub(crate) filter: &'a [f64],
    pub(crate) fused: bool,
    pub(crate) start: Start,
    pub(crate) make: Make,
}

/// A convolution with a bias, and optionally a change of resolution.
///
/// Source: NVlabs/edm `Conv2d`.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    weight: Tensor,
    bias: Tensor,
    pad: usize,
    filter: Option<Filter>,
    fused: bool,
}

impl Conv {
    pub(crate) fn load(scope: &Scope<'_>, spec: &ConvSpec<'_>) -> Result<Self> {
        let ConvSpec { c_in, c_out, k, .. } = *spec;
        let (fan_in, fan_out) = (c_in * k * k, c_out * k * k);
        let weight = spec.make.weight(spec.start, fan_in, fan_out);
        Ok(Self {
            weight: scope.get("weight", &[c_out, c_in, k, k], weight)?,
            bias: scope.get("bias", &[c_out], spec.make.bias(spec.start, fan_in))?,
            pad: k / 2,
            filter: Filter::load(scope, spec.change, spec.filter)?,
            fused: spec.fused,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.filter {
            None => self.convolve(x, self.pad),
            // The filter's sum is 1 and it does not reach the border, so the bias may be added first.
            Some(filter) if self.fused => {
                filter.forward(&self.convolve(x, self.pad + filter.pad())?, 0)
            }
            // A convolution of single pixels gives the same on fewer of them.
            Some(filter) if filter.up && filter.is_box && self.pad == 0 => {
                filter.forward(&self.convolve(x, 0)?, 0)
            }
            Some(filter) => self.convolve(&filter.forward(x, filter.pad())?, self.pad),
        }
    }

    fn convolve(&self, x: &Tensor, pad: usize) -> Result<Tensor> {
        conv2d(x, &self.weight, &self.bias, 1, [pad; 2])
    }

    /// Weight and bias, for a layer that uses them in another order.
    pub(crate) fn parameters(&self) -> (&Tensor, &Tensor) {
        (&self.weight, &self.bias)
    }
}

/// A dense layer.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    pub(crate) fn load(scope: &Scope<'_>, n_in: usize, n_out: usize, make: Make) -> Result<Self> {
        let weight = make.weight(Start::Usual, n_in, n_out);
        Ok(Self {
            weight: scope.get("weight", &[n_out, n_in], weight)?,
            bias: scope.get("bias", &[n_out], make.bias(Start::Usual, n_in))?,
        })
    }

    /// A layer without a bias.
    pub(crate) fn load_unbiased(
        scope: &Scope<'_>,
        n_in: usize,
        n_out: usize,
        weight: Init,
    ) -> Result<Self> {
        let weight = scope.get("weight", &[n_out, n_in], weight)?;
        let bias = Tensor::zeros(n_out, weight.dtype(), weight.device())?;
        Ok(Self { weight, bias })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, &self.bias)
    }

    /// As a layer of the embedding, which this family activates once.
    pub(crate) fn of_embedding(&self) -> EmbLayer<'_> {
        EmbLayer::of_activated(&self.weight, &self.bias)
    }

    pub(crate) fn dtype(&self) -> candle_core::DType {
        self.weight.dtype()
    }
}

/// The norm of a feature map.
pub(crate) fn load_norm(scope: &Scope<'_>, channels: usize, make: Make) -> Result<GroupNorm> {
    Ok(GroupNorm::load(scope, channels, Plan::groups(channels))?.with_eps(make.eps()))
}
