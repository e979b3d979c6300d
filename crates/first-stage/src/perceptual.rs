//! The perceptual term of the loss.

use candle_core::{Result, Tensor};
use sdft_features::{AttributeJudge, Lpips, feature_distance};

/// The network whose features the perceptual term compares.
#[derive(Clone, Debug)]
pub enum Perceptual {
    /// No term.
    None,
    /// LPIPS, as in latent diffusion.
    Lpips(Box<Lpips>),
    /// The feature maps of a judge of the embedded images, without learned weights.
    Judge(Box<AttributeJudge>),
}

impl Perceptual {
    /// The distance of each pair of images `[B, 3, H, W]`, `[B]`; `None` without a term. Differentiable.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
        Ok(match self {
            Self::None => None,
            Self::Lpips(lpips) => Some(lpips.distance(a, b)?.total),
            Self::Judge(judge) => {
                let [a, b] = [judge.classify(a)?.maps, judge.classify(b)?.maps];
                Some(feature_distance(&a, &b)?)
            }
        })
    }
}
