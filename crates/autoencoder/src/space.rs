//! What the states of a diffusion model are: images, or their latents.

use crate::{Autoencoder, AutoencoderConfig, Moments};
use candle_core::{Result, Tensor};
use sdft_imaging::ImageSpec;
use std::fmt;
use std::sync::Arc;

/// The way between images and the states of a diffusion model: latents of an autoencoder, or the images themselves.
#[derive(Clone)]
pub struct Space {
    image: ImageSpec,
    stage: Option<Stage>,
}

#[derive(Clone)]
struct Stage {
    config: AutoencoderConfig,
    open: Arc<dyn Fn() -> Result<Arc<Autoencoder>> + Send + Sync>,
}

impl Space {
    /// States are images of this form.
    pub fn images(image: ImageSpec) -> Self {
        Self { image, stage: None }
    }

    /// States are latents of images of this form, whose sides are multiples of the autoencoder's factor.
    pub fn latents(image: ImageSpec, autoencoder: Arc<Autoencoder>) -> Self {
        let config = autoencoder.config().clone();
        Self::opened(image, config, move || Ok(autoencoder.clone()))
    }

    /// As [`Self::latents`], with an autoencoder that `open` returns for each use, so that it is not in memory between them.
    pub fn opened(
        image: ImageSpec,
        config: AutoencoderConfig,
        open: impl Fn() -> Result<Arc<Autoencoder>> + Send + Sync + 'static,
    ) -> Self {
        let open = Arc::new(open);
        Self {
            image,
            stage: Some(Stage { config, open }),
        }
    }

    /// The form of the images.
    pub fn image(&self) -> &ImageSpec {
        &self.image
    }

    /// The shape of a state, `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        match &self.stage {
            None => self.image.shape(),
            Some(stage) => stage.config.latent_shape(&self.image),
        }
    }

    /// The states of images, which for latents is their mean.
    ///
    /// # Shapes
    /// - `images`: `[B, C, H, W]` in [-1, 1] · returns: `[B, c, h, w]`
    ///
    /// # Errors
    /// The autoencoder cannot be opened, or fails.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        match &self.stage {
            None => Ok(images.clone()),
            Some(stage) => {
                let autoencoder = (stage.open)()?;
                autoencoder.scale(&autoencoder.encode(images)?.mean)
            }
        }
    }

    /// The distribution of the latents of images, as the diffusion model sees latents; `None` if states are images.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn moments(&self, images: &Tensor) -> Result<Option<Moments>> {
        let Some(stage) = &self.stage else {
            return Ok(None);
        };
        let autoencoder = (stage.open)()?;
        let Moments { mean, std } = autoencoder.encode(images)?;
        Ok(Some(Moments {
            mean: autoencoder.scale(&mean)?,
            std: (std * stage.config.scaling_factor().abs())?,
        }))
    }

    /// The images of states, about -1 to 1.
    ///
    /// # Shapes
    /// - `states`: `[B, c, h, w]` · returns: `[B, C, H, W]`
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn decode(&self, states: &Tensor) -> Result<Tensor> {
        match &self.stage {
            None => Ok(states.clone()),
            Some(stage) => {
                let autoencoder = (stage.open)()?;
                autoencoder.decode(&autoencoder.unscale(states)?)
            }
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage.as_ref().map(|stage| stage.config.class_name());
        f.debug_struct("Space")
            .field("image", &self.image)
            .field("latents", &stage)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AutoencoderKlConfig, DownBlock, UpBlock};
    use candle_core::{DType, Device};
    use sdft_nn::Params;

    fn autoencoder() -> Arc<Autoencoder> {
        let config = AutoencoderConfig::from(AutoencoderKlConfig {
            block_out_channels: vec![8, 8],
            down_block_types: vec![DownBlock::Plain; 2],
            up_block_types: vec![UpBlock::Plain; 2],
            norm_num_groups: 4,
            scaling_factor: 0.5,
            shift_factor: Some(0.25),
            ..AutoencoderKlConfig::default()
        });
        let specs = Autoencoder::specs(&config).unwrap();
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        Arc::new(Autoencoder::load(&params, &config).unwrap())
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn images_are_their_own_states() {
        let space = Space::images(ImageSpec::rgb8(6, 4));
        assert_eq!(space.shape(), [3, 4, 6]);
        let x = Tensor::ones((1, 3, 4, 6), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(
            values(&space.decode(&space.encode(&x).unwrap()).unwrap()),
            values(&x)
        );
        assert!(space.moments(&x).unwrap().is_none());
    }

    #[test]
    fn latents_are_shifted_and_scaled_both_ways() {
        let autoencoder = autoencoder();
        let space = Space::latents(ImageSpec::rgb8(6, 4), autoencoder.clone());
        assert_eq!(space.shape(), [4, 2, 3]);
        let x = Tensor::rand(-1f32, 1.0, (2, 3, 4, 6), &Device::Cpu).unwrap();
        let own = autoencoder.encode(&x).unwrap();
        let states = space.encode(&x).unwrap();
        for (state, z) in values(&states).iter().zip(values(&own.mean)) {
            assert!((state - 0.5 * (z - 0.25)).abs() < 1e-6);
        }
        let moments = space.moments(&x).unwrap().unwrap();
        assert_eq!(values(&moments.mean), values(&states));
        for (std, own) in values(&moments.std).iter().zip(values(&own.std)) {
            assert!((std - 0.5 * own).abs() < 1e-6);
        }
        let (decoded, direct) = (
            space.decode(&states).unwrap(),
            autoencoder.decode(&own.mean).unwrap(),
        );
        for (a, b) in values(&decoded).iter().zip(values(&direct)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
