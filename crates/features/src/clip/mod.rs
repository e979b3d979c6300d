//! CLIP: vectors of images and texts in one space.

mod prompts;
mod tokens;
mod tower;

pub use prompts::clip_prompts;
pub use tokens::ClipTokenizer;

use crate::layer_norm::LayerNorm;
use crate::narrow::narrowed;
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::conv2d;
use sdft_nn::{Init, ParamSource, ParamSpec, Scope, specs_of};
use tower::{EPS, Tower, TowerConfig, project};

/// Sizes of a CLIP model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClipConfig {
    /// Side of the images.
    pub side: usize,
    /// Side of the patches.
    pub patch: usize,
    /// Channels, layers and heads of the image tower.
    pub image: [usize; 3],
    /// Channels, layers and heads of the text tower.
    pub text: [usize; 3],
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// The most tokens of a text, with start and end.
    pub context: usize,
    /// Length of the vectors.
    pub features: usize,
}

impl ClipConfig {
    /// ViT-B/32, or with `patch` 16 ViT-B/16.
    pub const fn vit_b(patch: usize) -> Self {
        Self {
            side: 224,
            patch,
            image: [768, 12, 12],
            text: [512, 12, 8],
            vocabulary: 49408,
            context: 77,
            features: 512,
        }
    }
}

/// The image and the text encoder. Names are those of the Hub's `openai/clip-vit-base-*` files.
///
/// This uses the operations of this workspace, because those of candle-transformers lose gradients in their layer norm, and text-guided
/// editing needs the gradient of an image.
#[derive(Clone, Debug)]
pub struct Clip {
    config: ClipConfig,
    patches: (Tensor, Tensor),
    class: Tensor,
    image_positions: Tensor,
    before: LayerNorm,
    image: Tower,
    after: LayerNorm,
    image_projection: Tensor,
    tokens: Tensor,
    text_positions: Tensor,
    text: Tower,
    last: LayerNorm,
    text_projection: Tensor,
    compute_dtype: DType,
}

impl Clip {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(config: ClipConfig, source: &dyn ParamSource) -> Result<Self> {
        Self::build(config, &Scope::root(source))
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs(config: ClipConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(config, scope))
    }

    fn build(config: ClipConfig, scope: &Scope<'_>) -> Result<Self> {
        let (vision, text) = (scope.pp("vision_model"), scope.pp("text_model"));
        let [width, layers, heads] = config.image;
        let [text_width, text_layers, text_heads] = config.text;
        let patch = config.patch;
        let n = (config.side / patch) * (config.side / patch) + 1;
        let small = Init::Normal(0.02);
        let embed = vision.pp("embeddings");
        let weight = embed
            .pp("patch_embedding")
            .get("weight", &[width, 3, patch, patch], small)?;
        let zeros = Tensor::zeros(width, weight.dtype(), weight.device())?;
        let words = text.pp("embeddings");
        let tower = |at: &Scope<'_>, channels, layers, heads| {
            let config = TowerConfig {
                channels,
                layers,
                heads,
            };
            Tower::load(&at.pp("encoder").pp("layers"), config)
        };
        let projection = |name: &str, n_in| {
            scope
                .pp(name)
                .get("weight", &[config.features, n_in], Init::fan_in(n_in))
        };
        Ok(Self {
            config,
            patches: (weight, zeros),
            class: embed.get("class_embedding", &[width], small)?,
            image_positions: embed
                .pp("position_embedding")
                .get("weight", &[n, width], small)?,
            before: LayerNorm::load(&vision.pp("pre_layrnorm"), width, EPS)?,
            image: tower(&vision, width, layers, heads)?,
            after: LayerNorm::load(&vision.pp("post_layernorm"), width, EPS)?,
            image_projection: projection("visual_projection", width)?,
            tokens: words.pp("token_embedding").get(
                "weight",
                &[config.vocabulary, text_width],
                small,
            )?,
            text_positions: words.pp("position_embedding").get(
                "weight",
                &[config.context, text_width],
                small,
            )?,
            text: tower(&text, text_width, text_layers, text_heads)?,
            last: LayerNorm::load(&text.pp("final_layer_norm"), text_width, EPS)?,
            text_projection: projection("text_projection", text_width)?,
            compute_dtype: DType::F32,
        })
    }

    /// The network with dense layers for images of this type. Weights stay f32, as does all that is between these layers, and texts.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        Self {
            compute_dtype,
            ..self
        }
    }

    /// Vectors of images, `[B, features]`, not normalised. Differentiable.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, side, side]`, normalised as [`crate::clip_input`] does
    ///
    /// # Errors
    /// Images of another size.
    pub fn image_features(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let side = self.config.side;
        if (c, h, w) != (3, side, side) {
            bail!("CLIP: expected 3x{side}x{side} images, found {c}x{h}x{w}");
        }
        let (weight, zeros) = &self.patches;
        let dtype = self.compute_dtype;
        let patches = narrowed(x, dtype, |x| {
            conv2d(x, weight, zeros, self.config.patch, [0, 0])
        })?;
        let patches = patches.flatten_from(2)?.transpose(1, 2)?;
        let width = self.class.elem_count();
        let class = self.class.reshape((1, 1, width))?;
        let h = Tensor::cat(&[&class.broadcast_as((b, 1, width))?, &patches], 1)?;
        let h = h.broadcast_add(&self.image_positions)?;
        let h = self
            .image
            .forward(&self.before.forward(&h)?, false, dtype)?;
        let first = h.narrow(1, 0, 1)?.squeeze(1)?;
        project(&self.after.forward(&first)?, &self.image_projection)
    }

    /// The vector of a text, `[1, features]`, not normalised.
    ///
    /// `tokens` are those of [`ClipTokenizer::encode`]: tokens after the end token would not change the result.
    ///
    /// # Errors
    /// No tokens, more than the context, or one outside the vocabulary.
    pub fn text_features(&self, tokens: &[u32]) -> Result<Tensor> {
        let n = tokens.len();
        if n == 0 || n > self.config.context {
            bail!(
                "CLIP: expected 1 to {} tokens, found {n}",
                self.config.context
            );
        }
        if let Some(token) = tokens
            .iter()
            .find(|&&token| token as usize >= self.config.vocabulary)
        {
            bail!(
                "token {token} is outside the vocabulary of {}",
                self.config.vocabulary
            );
        }
        let index = Tensor::new(tokens, self.tokens.device())?;
        let h = self.tokens.contiguous()?.index_select(&index, 0)?;
        let h = (h + self.text_positions.narrow(0, 0, n)?)?.unsqueeze(0)?;
        let h = self
            .last
            .forward(&self.text.forward(&h, true, DType::F32)?)?;
        // The vector of the text is that of its end token, which has the largest number.
        let end = (0..n).fold(0, |best, i| if tokens[i] > tokens[best] { i } else { best });
        let end = h.narrow(1, end, 1)?.squeeze(1)?;
        project(&end, &self.text_projection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_nn::Params;

    const SMALL: ClipConfig = ClipConfig {
        side: 8,
        patch: 4,
        image: [16, 2, 2],
        text: [16, 2, 4],
        vocabulary: 50,
        context: 7,
        features: 6,
    };

    fn small() -> (Clip, Vec<(String, candle_core::Var)>) {
        let specs = Clip::specs(SMALL).unwrap();
        let (params, vars) = Params::init(&specs, 1, &Device::Cpu)
            .unwrap()
            .trainable()
            .unwrap();
        (Clip::load(SMALL, &params).unwrap(), vars)
    }

    #[test]
    fn gradients_reach_the_image_and_every_parameter_of_its_tower() {
        let (clip, vars) = small();
        let x = candle_core::Var::from_tensor(
            &Tensor::arange(0f32, 384.0, &Device::Cpu)
                .unwrap()
                .affine(0.01, -2.0)
                .unwrap()
                .reshape((2, 3, 8, 8))
                .unwrap(),
        )
        .unwrap();
        let y = clip.image_features(x.as_tensor()).unwrap();
        assert_eq!(y.dims(), [2, 6]);
        let gradients = sdft_autograd::backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
        let size = |var: &candle_core::Var| {
            gradients.get(var).map_or(0.0, |g| {
                g.abs()
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
            })
        };
        assert!(size(&x) > 0.0);
        for (name, var) in vars.iter().filter(|(name, _)| name.starts_with("vision")) {
            assert!(size(var) > 0.0, "{name}");
        }
    }

    #[test]
    fn what_follows_the_end_of_a_text_does_not_matter() {
        let (clip, _) = small();
        let features = |tokens: &[u32]| {
            let y = clip.text_features(tokens).unwrap();
            y.squeeze(0).unwrap().to_vec1::<f32>().unwrap()
        };
        let (short, padded) = (features(&[48, 3, 9, 49]), features(&[48, 3, 9, 49, 0, 0]));
        for (a, b) in short.iter().zip(&padded) {
            assert!((a - b).abs() < 1e-6);
        }
        assert_ne!(features(&[48, 3, 9, 49]), features(&[48, 9, 3, 49]));
        assert!(clip.text_features(&[]).is_err());
        assert!(clip.text_features(&[1; 8]).is_err());
        assert!(clip.text_features(&[50]).is_err());
    }
}
