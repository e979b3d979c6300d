//! The autoencoder.

use crate::AutoencoderConfig;
use crate::blocks::Coder;
use crate::codebook::Codebook;
use crate::moments::Moments;
use crate::tiles::{MOST_PIXELS, TILE, tiled};
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{affine, taped, to_dtype, to_nchw};
use sdft_nn::{Conv2d, ConvStart, ParamSource, ParamSpec, Scope, specs_of};

/// diffusers' `AutoencoderKL` or `VQModel`.
///
/// Encoding and decoding are differentiable with respect to images, latents and parameters. Latents are those of the autoencoder itself;
/// [`Self::scale`] gives those that a diffusion model sees.
///
/// Source: diffusers 0.42 `AutoencoderKL`, `VQModel`.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    config: AutoencoderConfig,
    encoder: Coder,
    decoder: Coder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    codebook: Option<Codebook>,
    dtype: DType,
    /// The type of the feature maps.
    maps: DType,
    recomputed: bool,
}

impl Autoencoder {
    /// The autoencoder with the parameters of `source`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, config: &AutoencoderConfig) -> Result<Self> {
        Self::build(&Scope::root(source), config)
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &AutoencoderConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, config))
    }

    fn build(scope: &Scope<'_>, config: &AutoencoderConfig) -> Result<Self> {
        config.check().map_err(candle_core::Error::wrap)?;
        let net = config.net();
        let conv = |name: &str, c_in, c_out| {
            Conv2d::load(&scope.pp(name), c_in, c_out, 1, 1, ConvStart::FanIn)
        };
        let encoder = Coder::encoder(&scope.pp("encoder"), &net)?;
        let decoder = Coder::decoder(&scope.pp("decoder"), &net)?;
        let (quant_conv, post_quant_conv, codebook) = match config {
            AutoencoderConfig::Kl(kl) => {
                let z = kl.latent_channels;
                let quant = || conv("quant_conv", 2 * z, 2 * z);
                let post = || conv("post_quant_conv", z, z);
                (
                    kl.use_quant_conv.then(quant).transpose()?,
                    kl.use_post_quant_conv.then(post).transpose()?,
                    None,
                )
            }
            AutoencoderConfig::Vq(vq) => {
                let (z, code) = (vq.latent_channels, vq.code_channels());
                let table = scope.pp("quantize.embedding");
                (
                    Some(conv("quant_conv", z, code)?),
                    Some(conv("post_quant_conv", code, z)?),
                    Some(Codebook::load(&table, vq.num_vq_embeddings, code)?),
                )
            }
        };
        let dtype = encoder.dtype();
        Ok(Self {
            config: config.clone(),
            encoder,
            decoder,
            quant_conv,
            post_quant_conv,
            codebook,
            dtype,
            maps: dtype,
            recomputed: false,
        })
    }

    /// The same autoencoder with feature maps of this type (bf16, f16). Parameters, norm statistics and the output keep their type. An
    /// autoencoder with `force_upcast` overflows in f16, so it takes f32 instead, as diffusers' pipelines do.
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.maps = match maps {
            DType::F16 if self.config.force_upcast() => DType::F32,
            maps => maps,
        };
        self
    }

    /// The same autoencoder with activation checkpointing: in training it saves only the inputs of residual and attention blocks.
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.recomputed = true;
        self
    }

    /// The architecture.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// Images `[B, C, H, W]` in -1..1 to the distribution of their latents, `[B, latent channels, H / factor, W / factor]` rounded down.
    ///
    /// # Errors
    /// Images with other channels, or smaller than the factor.
    pub fn encode(&self, x: &Tensor) -> Result<Moments> {
        let [h, w] = self.image_sides(x)?;
        match h * w > MOST_PIXELS {
            true => self.encode_tiled(x, TILE),
            false => self.moments(&in_parts(x, h * w, |x| self.encode_raw(x))?),
        }
    }

    /// [`Self::encode`] in overlapping tiles of this side in pixels, blended linearly. The tiles overlap by a quarter.
    ///
    /// A tile has its own norm statistics and sees nothing of its neighbours, so the result differs from [`Self::encode`] unless one tile
    /// covers everything. Images of more than [`MOST_PIXELS`] are always encoded in tiles of 512 pixels.
    ///
    /// Source: diffusers `AutoencoderKL.tiled_encode`, with tiles of even size.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_tiled(&self, x: &Tensor, tile: usize) -> Result<Moments> {
        let (sides, factor) = (self.image_sides(x)?, self.config.factor());
        let size = sides.map(|side| side / factor);
        let raw = tiled(size, (tile / factor).max(1), 1, |start, len| {
            let mut part = x.clone();
            for axis in 0..2 {
                // What remains of an image whose side is no multiple of the factor belongs to the last tile.
                let end = match start[axis] + len[axis] == size[axis] {
                    true => sides[axis],
                    false => (start[axis] + len[axis]) * factor,
                };
                let first = start[axis] * factor;
                part = part.narrow(axis + 2, first, end - first)?;
            }
            let [h, w] = len.map(|len| len * factor);
            in_parts(&part.contiguous()?, h * w, |x| self.encode_raw(x))
        })?;
        self.moments(&raw)
    }

    /// Latents `[B, latent channels, h, w]` to images `[B, C, h factor, w factor]`, about -1..1. A `VQModel` replaces each latent vector by
    /// the nearest code first; the gradient passes through unchanged.
    ///
    /// # Errors
    /// Latents with other channels.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        self.decode_codes(&self.quantized(z)?)
    }

    /// [`Self::decode`] in overlapping tiles of this side in pixels, blended linearly. The tiles overlap by a quarter.
    ///
    /// A tile has its own norm statistics and sees nothing of its neighbours, so the result differs from [`Self::decode`] unless one tile
    /// covers everything. Images of more than [`MOST_PIXELS`] are always decoded in tiles of 512 pixels.
    ///
    /// Source: diffusers `AutoencoderKL.tiled_decode`, with tiles of even size.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_tiled(&self, z: &Tensor, tile: usize) -> Result<Tensor> {
        self.decode_codes_tiled(&self.quantized(z)?, tile)
    }

    /// [`Self::decode`], without the codes of a `VQModel` (`force_not_quantize`).
    ///
    /// # Errors
    /// As [`Self::decode`], and a `VQModel` with `lookup_from_codebook`.
    pub fn decode_unquantized(&self, z: &Tensor) -> Result<Tensor> {
        if let AutoencoderConfig::Vq(vq) = &self.config
            && vq.lookup_from_codebook
        {
            bail!(
                "decode_unquantized: lookup_from_codebook is set, so diffusers takes indices of codes instead of latents; decode quantises latents"
            );
        }
        self.latent_sides(z)?;
        self.decode_codes(z)
    }

    /// The index of the code that is nearest to each latent vector, `[B, h, w]`; `None` without codes.
    ///
    /// # Errors
    /// Latents with other channels.
    pub fn code_indices(&self, z: &Tensor) -> Result<Option<Tensor>> {
        self.latent_sides(z)?;
        let nearest = self.codebook.as_ref().map(|codebook| codebook.nearest(z));
        nearest.transpose()
    }

    /// Latents of the autoencoder as the diffusion model sees them: `(z - shift_factor) * scaling_factor`.
    ///
    /// # Errors
    /// A type that is not floating-point.
    pub fn scale(&self, z: &Tensor) -> Result<Tensor> {
        let (factor, shift) = (self.config.scaling_factor(), self.config.shift_factor());
        affine(z, factor, -shift * factor)
    }

    /// Latents of the diffusion model as the autoencoder has them: `z / scaling_factor + shift_factor`.
    ///
    /// # Errors
    /// A type that is not floating-point.
    pub fn unscale(&self, z: &Tensor) -> Result<Tensor> {
        affine(
            z,
            1.0 / self.config.scaling_factor(),
            self.config.shift_factor(),
        )
    }

    /// The encoder's output, and `quant_conv`.
    fn encode_raw(&self, x: &Tensor) -> Result<Tensor> {
        taped(&x.to_dtype(self.dtype)?, |x| {
            let mut h = self
                .encoder
                .forward(&to_dtype(x, self.maps)?, self.recomputed)?;
            if let Some(conv) = &self.quant_conv {
                h = conv.forward(&h)?;
            }
            to_nchw(&h, self.dtype)
        })
    }

    fn moments(&self, raw: &Tensor) -> Result<Moments> {
        match &self.config {
            AutoencoderConfig::Kl(_) => Moments::of_raw(raw),
            AutoencoderConfig::Vq(_) => Ok(Moments {
                mean: raw.clone(),
                std: raw.zeros_like()?,
            }),
        }
    }

    fn quantized(&self, z: &Tensor) -> Result<Tensor> {
        self.latent_sides(z)?;
        match &self.codebook {
            Some(codebook) => codebook.quantized(z),
            None => Ok(z.clone()),
        }
    }

    /// `post_quant_conv` and the decoder.
    fn decode_raw(&self, z: &Tensor) -> Result<Tensor> {
        taped(&z.to_dtype(self.dtype)?, |z| {
            let mut h = to_dtype(z, self.maps)?;
            if let Some(conv) = &self.post_quant_conv {
                h = conv.forward(&h)?;
            }
            to_nchw(&self.decoder.forward(&h, self.recomputed)?, self.dtype)
        })
    }

    fn decode_codes(&self, z: &Tensor) -> Result<Tensor> {
        let [h, w] = self.latent_sides(z)?;
        let pixels = h * w * self.config.factor().pow(2);
        match pixels > MOST_PIXELS {
            true => self.decode_codes_tiled(z, TILE),
            false => in_parts(z, pixels, |z| self.decode_raw(z)),
        }
    }

    fn decode_codes_tiled(&self, z: &Tensor, tile: usize) -> Result<Tensor> {
        let factor = self.config.factor();
        let size = self.latent_sides(z)?;
        tiled(
            size,
            (tile / factor).max(1),
            factor,
            |[top, left], [h, w]| {
                let part = z.narrow(2, top, h)?.narrow(3, left, w)?.contiguous()?;
                in_parts(&part, h * w * factor * factor, |z| self.decode_raw(z))
            },
        )
    }

    /// Height and width of images that can be encoded.
    fn image_sides(&self, x: &Tensor) -> Result<[usize; 2]> {
        let (_, channels, h, w) = x.dims4()?;
        let (expected, factor) = (self.config.image_channels(), self.config.factor());
        if channels != expected {
            bail!("expected images of {expected} channels, found {channels}");
        }
        if h < factor || w < factor {
            bail!("expected images of at least {factor}x{factor} pixels, found {h}x{w}");
        }
        Ok([h, w])
    }

    /// Height and width of latents that can be decoded.
    fn latent_sides(&self, z: &Tensor) -> Result<[usize; 2]> {
        let (_, channels, h, w) = z.dims4()?;
        let expected = self.config.latent_channels();
        if channels != expected {
            bail!("expected latents of {expected} channels, found {channels}");
        }
        if h == 0 || w == 0 {
            bail!("expected latents of at least 1x1, found {h}x{w}");
        }
        Ok([h, w])
    }
}

/// `f` on parts of a batch with at most [`MOST_PIXELS`] each, or one image. An image has the same result in any part.
fn in_parts(x: &Tensor, pixels: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, most) = (x.dim(0)?, (MOST_PIXELS / pixels.max(1)).max(1));
    if batch <= most {
        return f(x);
    }
    let parts = (0..batch).step_by(most).map(|start| {
        let part = x.narrow(0, start, most.min(batch - start))?;
        f(&part.contiguous()?)
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}
