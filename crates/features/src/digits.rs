//! The judge of the embedded digits.

use crate::attributes::{AttributeJudge, JudgeConfig, JudgeHead, Judgement};
use candle_core::{Result, Tensor};
use sdft_nn::{ParamSource, ParamSpec};

/// Classifies the digit and the style of a 16x16 image: an [`AttributeJudge`] with 64 features and one head, the ten digits. Its file states
/// no configuration.
#[derive(Clone, Debug)]
pub struct DigitsJudge(AttributeJudge);

impl DigitsJudge {
    /// Its configuration.
    pub fn config() -> JudgeConfig {
        JudgeConfig {
            side: 16,
            widths: vec![16, 32, 64],
            norm_groups: None,
            features: 64,
            heads: vec![JudgeHead {
                name: "digit".to_owned(),
                values: (0..10).map(|digit| digit.to_string()).collect(),
            }],
        }
    }

    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource) -> Result<Self> {
        AttributeJudge::load(&Self::config(), source).map(Self)
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs() -> Result<Vec<ParamSpec>> {
        AttributeJudge::specs(&Self::config())
    }

    /// The outputs for `[B, 3, 16, 16]` or `[B, 1, 16, 16]` in [-1, 1], as [`AttributeJudge::classify`]: one head with the logits of the ten
    /// digits.
    ///
    /// # Errors
    /// Images of another size or number of channels.
    pub fn classify(&self, x: &Tensor) -> Result<Judgement> {
        self.0.classify(x)
    }
}

impl AsRef<AttributeJudge> for DigitsJudge {
    fn as_ref(&self) -> &AttributeJudge {
        &self.0
    }
}
