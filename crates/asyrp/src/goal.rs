//! The loss of an edit, for Asyrp and for DiffusionCLIP.

use crate::{TextDirection, TrainingStep, asyrp_loss, clip_loss, l1_term};
use candle_core::{Result, Tensor};

/// Images `[B, C, H, W]` in [-1, 1] to embeddings `[B, F]`, differentiably.
pub type Embed = dyn Fn(&Tensor) -> Result<Tensor>;

/// The goal of an edit: a direction in a space of embeddings, and terms that keep the image.
///
/// ```text
/// L = w_clip (-log((2 - L_dir) / 2)) + w_l1 cosine mean|x0 - x0_origin| + w_id mean(1 - <id(x0), id(real)>)    loss
/// L = w_clip (-log((2 - L_dir) / 2)) + w_l1 mean|x - real|              + w_id mean(1 - <id(x), id(real)>)     loss_to_real
/// ```
/// Source: Asyrp `diffusion_latent.py` `run_training`, where the last term is off; DiffusionCLIP `diffusionclip.py` `clip_finetune`. In
/// both the space is CLIP's.
pub struct Goal {
    embed: Box<Embed>,
    direction: TextDirection,
    cosine: f64,
    weights: GoalWeights,
    identity: Option<Box<Embed>>,
}

/// The weight of each part of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoalWeights {
    /// Of the direction.
    pub clip: f64,
    /// Of the distance to the image of the unchanged model, or to the real image.
    pub l1: f64,
    /// Of the identity.
    pub identity: f64,
}

impl Default for GoalWeights {
    /// Those of the published scripts.
    fn default() -> Self {
        Self {
            clip: 1.0,
            l1: 3.0,
            identity: 0.0,
        }
    }
}

/// Real images and their embeddings, computed once for all steps.
#[derive(Clone, Debug)]
pub struct Reference {
    real: Tensor,
    embedding: Tensor,
    identity: Option<Tensor>,
}

/// The loss at one step, and its parts.
#[derive(Clone, Debug)]
pub struct GoalLoss {
    /// The loss; its graph leads to the image that it is taken of.
    pub total: Tensor,
    /// Mean directional similarity, -1 to 1.
    pub similarity: f64,
    /// Mean absolute difference to the image of the unchanged model, or to the real image.
    pub l1: f64,
}

impl Goal {
    /// Along `direction` in the space that `embed` maps to; `cosine` is that of the two texts without templates.
    pub fn new(
        embed: Box<Embed>,
        direction: TextDirection,
        cosine: f64,
        weights: GoalWeights,
    ) -> Self {
        Self {
            embed,
            direction,
            cosine,
            weights,
            identity: None,
        }
    }

    /// With embeddings of unit length whose distance from the real image is added to the loss.
    #[must_use]
    pub fn with_identity(mut self, identity: Box<Embed>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The cosine of the two texts.
    pub fn cosine(&self) -> f64 {
        self.cosine
    }

    /// The embeddings of real images.
    ///
    /// # Errors
    /// Images that do not fit the networks.
    pub fn reference(&self, real: &Tensor) -> Result<Reference> {
        let identity = self.identity.as_ref().map(|embed| embed(real));
        Ok(Reference {
            real: real.detach(),
            embedding: (self.embed)(real)?.detach(),
            identity: identity.transpose()?.map(|embedding| embedding.detach()),
        })
    }

    /// Asyrp's loss of a step of the trajectory that began at the images of `reference`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn loss(
        &self,
        reference: &Reference,
        training_step: &TrainingStep<'_>,
    ) -> Result<GoalLoss> {
        let TrainingStep { x0, origin, .. } = training_step;
        self.loss_from(reference, x0, origin, self.weights.l1 * self.cosine)
    }

    /// DiffusionCLIP's loss of the images `x` that were generated from those of `reference`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn loss_to_real(&self, reference: &Reference, x: &Tensor) -> Result<GoalLoss> {
        self.loss_from(reference, x, &reference.real, self.weights.l1)
    }

    fn loss_from(
        &self,
        reference: &Reference,
        x: &Tensor,
        origin: &Tensor,
        weight_of_l1: f64,
    ) -> Result<GoalLoss> {
        let edited = (self.embed)(x)?;
        let apart = clip_loss(&reference.embedding, &edited, &self.direction)?;
        let similarity = 1.0 - number(&apart)?;
        let mut total = (asyrp_loss(&apart)? * self.weights.clip)?;
        let l1 = l1_term(x, origin, 1.0, 1.0)?;
        if self.weights.l1 > 0.0 {
            total = (total + (&l1 * weight_of_l1)?)?;
        }
        if let (Some(embed), Some(before)) = (&self.identity, &reference.identity) {
            let same = (embed(x)? * before)?.sum(1)?.mean_all()?;
            total = (total + same.affine(-self.weights.identity, self.weights.identity)?)?;
        }
        Ok(GoalLoss {
            total,
            similarity,
            l1: number(&l1)?,
        })
    }
}

fn number(scalar: &Tensor) -> Result<f64> {
    scalar
        .detach()
        .to_dtype(candle_core::DType::F64)?
        .to_scalar()
}

/// The cosine of two embeddings, 0 if one of them is zero. Where one is shorter, the rest of the other is ignored.
pub fn cosine_of_texts(a: &[f32], b: &[f32]) -> f64 {
    const EPS: f64 = 1e-6;
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let both = a.iter().zip(b);
        both.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()).max(EPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn rows(values: &[[f32; 2]]) -> Tensor {
        let flat: Vec<f32> = values.iter().flatten().copied().collect();
        Tensor::from_vec(flat, (values.len(), 2), &Device::Cpu).unwrap()
    }

    /// Images of one row are their own embeddings.
    fn flat() -> Box<Embed> {
        Box::new(|x: &Tensor| x.flatten_from(1))
    }

    fn goal(weights: GoalWeights) -> Goal {
        let direction = TextDirection::between(&rows(&[[1.0, 0.0]]), &rows(&[[0.0, 1.0]])).unwrap();
        Goal::new(flat(), direction, 0.5, weights)
    }

    fn image(values: [f32; 2]) -> Tensor {
        Tensor::from_vec(values.to_vec(), (1, 1, 1, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_loss_is_the_published_sum() {
        let (real, origin, x0) = (image([1.0, 0.0]), image([0.8, 0.1]), image([0.6, 0.8]));
        let goal = goal(GoalWeights::default());
        let reference = goal.reference(&real).unwrap();
        let training_step = TrainingStep {
            done: 1,
            total: 1,
            t: 500,
            x0: &x0,
            origin: &origin,
        };
        let loss = goal.loss(&reference, &training_step).unwrap();
        // d = (-0.4, 0.8), the direction is (-1, 1) / sqrt 2.
        let cos = 1.2 / (0.8f64.sqrt() * 2f64.sqrt());
        let l1 = (0.2 + 0.7) / 2.0;
        let expected = -((1.0 + cos) / 2.0).ln() + 3.0 * 0.5 * l1;
        assert!((loss.similarity - cos).abs() < 1e-5, "{}", loss.similarity);
        assert!((loss.l1 - l1).abs() < 1e-6);
        assert!((number(&loss.total).unwrap() - expected).abs() < 1e-5);
        // The identity term adds 1 minus the cosine.
        let weights = GoalWeights {
            identity: 2.0,
            ..GoalWeights::default()
        };
        let with_identity = Goal {
            weights,
            ..goal.with_identity(flat())
        };
        let reference = with_identity.reference(&real).unwrap();
        let more = with_identity.loss(&reference, &training_step).unwrap();
        assert!((number(&more.total).unwrap() - expected - 2.0 * (1.0 - 0.6)).abs() < 1e-5);
    }

    #[test]
    fn the_loss_to_the_real_image_is_the_published_sum() {
        let (real, x) = (image([1.0, 0.0]), image([0.6, 0.8]));
        let weights = GoalWeights {
            clip: 3.0,
            l1: 1.0,
            identity: 2.0,
        };
        let goal = goal(weights).with_identity(flat());
        let loss = goal.loss_to_real(&goal.reference(&real).unwrap(), &x);
        let loss = loss.unwrap();
        // d = (-0.4, 0.8), the direction is (-1, 1) / sqrt 2; the cosine of the texts does not count.
        let cos = 1.2 / (0.8f64.sqrt() * 2f64.sqrt());
        let l1 = (0.4 + 0.8) / 2.0;
        let expected = -3.0 * ((1.0 + cos) / 2.0).ln() + l1 + 2.0 * (1.0 - 0.6);
        assert!((loss.l1 - l1).abs() < 1e-6);
        assert!((number(&loss.total).unwrap() - expected).abs() < 1e-5);
    }

    #[test]
    fn the_gradient_leads_along_the_direction() {
        let x0 = Var::from_tensor(&image([0.9, 0.1])).unwrap();
        let weights = GoalWeights {
            l1: 0.0,
            ..GoalWeights::default()
        };
        let goal = goal(weights);
        let reference = goal.reference(&image([1.0, 0.0])).unwrap();
        let training_step = TrainingStep {
            done: 1,
            total: 1,
            t: 0,
            x0: x0.as_tensor(),
            origin: x0.as_tensor(),
        };
        let loss = |goal: &Goal| goal.loss(&reference, &training_step).unwrap();
        let before = loss(&goal);
        let gradient = before.total.backward().unwrap().remove(&x0).unwrap();
        x0.set(&(x0.as_tensor() - (gradient * 0.01).unwrap()).unwrap())
            .unwrap();
        assert!(loss(&goal).similarity > before.similarity);
    }

    #[test]
    fn the_cosine_of_a_zero_vector_is_zero() {
        assert_eq!(cosine_of_texts(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert!((cosine_of_texts(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
    }
}
