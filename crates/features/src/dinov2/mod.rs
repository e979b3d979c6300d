//! DINOv2: features of images that were learned without labels.

mod config;
mod layer;

pub use config::{Dinov2Config, HiddenAct};

use crate::layer_norm::LayerNorm;
use crate::narrow::narrowed;
use crate::resample::bicubic;
use candle_core::{DType, Result, Tensor, bail};
use layer::{Layer, LayerParams};
use sdft_autograd::{conv2d, separable};
use sdft_nn::{Init, ParamSource, ParamSpec, Scope, specs_of};

/// DINOv2, a vision transformer. Its features are those of FD-DINOv2.
///
/// Source: transformers `Dinov2Model`; names are those of version 5.18 and later, and [`crate::Network::fit`] translates those of the Hub's
/// `facebook/dinov2-*` files. Meta's own program, which dgm-eval runs, differs in [`Dinov2Config::interpolate_offset`] only.
#[derive(Clone, Debug)]
pub struct Dinov2 {
    config: Dinov2Config,
    patches: (Tensor, Tensor),
    /// `[1, C, 1]`, with its position.
    class: Tensor,
    /// `[1, C, grid, grid]`.
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    compute_dtype: DType,
}

/// The parameters as they are in a file.
struct FileParams {
    patches: (Tensor, Tensor),
    class: Tensor,
    positions: Tensor,
    layers: Vec<LayerParams>,
    norm: LayerNorm,
}

impl FileParams {
    fn load(config: &Dinov2Config, scope: &Scope<'_>) -> Result<Self> {
        let (c, patch, small) = (config.hidden_size, config.patch_size, Init::Normal(0.02));
        let embed = scope.pp("embeddings");
        let class = embed.get("cls_token", &[1, 1, c], small)?;
        if config.use_mask_token {
            embed.get("mask_token", &[1, c], Init::Constant(0.0))?;
        }
        let n = config.grid() * config.grid() + 1;
        let positions = embed.get("position_embeddings", &[1, n, c], small)?;
        let projection = embed.pp("patch_embeddings").pp("projection");
        let shape = [c, config.num_channels, patch, patch];
        let layers = scope.pp("encoder").pp("layer");
        let layers =
            (0..config.num_hidden_layers).map(|i| LayerParams::load(&layers.pp(i), config));
        Ok(Self {
            class,
            positions,
            patches: (
                projection.get("weight", &shape, small)?,
                projection.get("bias", &[c], Init::Constant(0.0))?,
            ),
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::load(&scope.pp("layernorm"), c, config.layer_norm_eps)?,
        })
    }
}

impl Dinov2 {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(config: Dinov2Config, source: &dyn ParamSource) -> Result<Self> {
        let params = FileParams::load(&config, &Scope::root(source))?;
        let (c, grid) = (config.hidden_size, config.grid());
        let positions = params.positions.transpose(1, 2)?;
        let layers = params.layers.into_iter();
        Ok(Self {
            patches: params.patches,
            class: (params.class.transpose(1, 2)? + positions.narrow(2, 0, 1)?)?,
            positions: positions
                .narrow(2, 1, grid * grid)?
                .contiguous()?
                .reshape((1, c, grid, grid))?,
            layers: layers
                .map(|layer| Layer::new(layer, &config))
                .collect::<Result<_>>()?,
            norm: params.norm,
            compute_dtype: DType::F32,
            config,
        })
    }

    /// The network with dense layers of this type. Weights stay f32, as does all that is between these layers.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        Self {
            compute_dtype,
            ..self
        }
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs(config: &Dinov2Config) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| FileParams::load(config, scope))
    }

    /// Its sizes.
    pub fn config(&self) -> &Dinov2Config {
        &self.config
    }

    /// The features of images: their class tokens after the last norm, `[B, C]`.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]`, normalised as [`crate::dinov2_input`] does
    ///
    /// # Errors
    /// Images of other channels, or smaller than a patch.
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        let class = self.encoded(x)?.narrow(2, 0, 1)?.squeeze(2)?;
        self.norm.forward(&class)
    }

    /// The class token and the patches of images, row by row, after the last norm: `[B, 1 + H/patch W/patch, C]`.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn tokens(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.encoded(x)?.transpose(1, 2)?)
    }

    /// `[B, C, N]`. Tokens are columns, so dense layers and attention use the kernels of the U-Nets.
    fn encoded(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let (channels, patch) = (self.config.num_channels, self.config.patch_size);
        if c != channels || h.min(w) < patch {
            bail!(
                "DINOv2: expected images of {channels} channels and at least {patch}x{patch} pixels, found {c}x{h}x{w}"
            );
        }
        let (weight, bias) = &self.patches;
        let dtype = self.compute_dtype;
        let patches = narrowed(x, dtype, |x| conv2d(x, weight, bias, patch, [0, 0]))?;
        let patches = patches.broadcast_add(&self.positions_of(h / patch, w / patch)?)?;
        let class = self.class.broadcast_as((b, self.config.hidden_size, 1))?;
        let mut tokens = Tensor::cat(&[&class, &patches.flatten_from(2)?], 2)?;
        for layer in &self.layers {
            tokens = layer.forward(&tokens, dtype)?;
        }
        Ok(tokens)
    }

    /// The positions of this many patches, interpolated where there are other numbers of them.
    fn positions_of(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let grid = self.config.grid();
        if (rows, columns) == (grid, grid) {
            return Ok(self.positions.clone());
        }
        let matrix = |n: usize| {
            let scale = grid as f64 / (n as f64 + self.config.interpolate_offset);
            bicubic([grid, n], scale, &self.positions)
        };
        separable(&matrix(rows)?, &self.positions, &matrix(columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_nn::Params;

    fn small(change: impl FnOnce(&mut Dinov2Config)) -> Dinov2 {
        let mut config = Dinov2Config {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 16,
            patch_size: 4,
            ..Dinov2Config::default()
        };
        change(&mut config);
        let specs = Dinov2::specs(&config).unwrap();
        let params = Params::init(&specs, 3, &Device::Cpu).unwrap();
        Dinov2::load(config, &params).unwrap()
    }

    fn wave(b: usize, h: usize, w: usize) -> Tensor {
        let values = (0..b * 3 * h * w).map(|i| ((i * i) as f32 * 0.13).sin());
        Tensor::from_iter(values, &Device::Cpu)
            .unwrap()
            .reshape((b, 3, h, w))
            .unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn features_are_class_tokens_and_do_not_depend_on_the_batch() {
        let net = small(|_| {});
        let x = wave(3, 16, 16);
        let all = net.features(&x).unwrap();
        assert_eq!(all.dims(), [3, 16]);
        let tokens = net.tokens(&x).unwrap();
        assert_eq!(tokens.dims(), [3, 17, 16]);
        let class = tokens.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        for (a, b) in numbers(&all).iter().zip(numbers(&class)) {
            assert!((a - b).abs() < 1e-6);
        }
        let one = net.features(&x.narrow(0, 1, 1).unwrap()).unwrap();
        assert_eq!(numbers(&one), numbers(&all)[16..32]);
        let other = x.narrow(1, 0, 2).unwrap();
        let error = net.features(&other).unwrap_err().to_string();
        assert!(
            error.contains("3 channels") && error.contains("2x16x16"),
            "{error}"
        );
    }

    #[test]
    fn every_kind_of_network_takes_images_of_any_size() {
        let changes: [fn(&mut Dinov2Config); 5] = [
            |c| c.use_swiglu_ffn = true,
            |c| c.hidden_act = HiddenAct::GeluNew,
            |c| c.hidden_act = HiddenAct::Silu,
            |c| c.qkv_bias = false,
            |c| c.interpolate_offset = 0.1,
        ];
        let x = wave(1, 26, 13);
        let usual = small(|_| {}).tokens(&x).unwrap();
        assert_eq!(usual.dims(), [1, 1 + 6 * 3, 16]);
        for (i, change) in changes.into_iter().enumerate() {
            let tokens = small(change).tokens(&x).unwrap();
            assert_eq!(tokens.dims(), usual.dims());
            let sum: f32 = numbers(&tokens).iter().map(|v| v.abs()).sum();
            assert!(sum.is_finite() && sum > 1.0);
            // Biases start at 0, so without them the result is the same.
            assert_eq!(numbers(&tokens) == numbers(&usual), i == 3, "{i}");
        }
    }

    #[test]
    fn positions_with_an_offset_are_those_of_torch() {
        // F.interpolate(positions, scale_factor=(6.1 / 4, 3.1 / 4), mode="bicubic", antialias=False) in PyTorch, in f64.
        #[rustfmt::skip]
        let expected = [
            -0.055652, 0.349700, 0.922186, 0.383625, -0.206611, 0.289178,
            0.819499, -0.738043, -0.253214, 0.768964, -0.614326, 0.114956,
            0.301782, -0.129049, -0.114886, -0.164149, 0.314883, -0.563254,
            0.823663, -0.788997, -0.119774, 1.026541, -0.073604, -0.247514,
            0.781058, 0.440047, -0.178961, -0.364939, -0.178725, 0.356168,
            0.003094, -0.253175, -0.056836, 1.043764, 0.017262, -0.796571,
        ];
        let mut net = small(|config| config.interpolate_offset = 0.1);
        let values = (0..32).map(|i| (f64::from(i * i) * 0.13).sin());
        let positions = Tensor::from_iter(values, &Device::Cpu).unwrap();
        net.positions = positions.reshape((1, 2, 4, 4)).unwrap();
        let found = net.positions_of(6, 3).unwrap();
        assert_eq!(found.dims(), [1, 2, 6, 3]);
        let found: Vec<f64> = found.flatten_all().unwrap().to_vec1().unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
